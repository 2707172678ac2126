"""Every system on the same mixtures: its outputs, their scores, and what it cost."""

import dataclasses
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt

from training import systems
from training.evaluation.statistics import Float64, Summary, summarise
from training.recipe import plan
from training.run import BUDGET, Run
from training.systems import BATCH, Budget, System
from training.truth_free import MixtureFit, TruthFree, known, mixture_fit
from vae_bss_tf import metrics
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import domain_of
from vae_bss_tf.errors import CheckpointError, ConfigError

Float32 = npt.NDArray[np.float32]
Separate = Callable[[Float32], Float32]

NMF_MIXTURES = 5_000
THRESHOLD_MIXTURES = 500
TRAINING_SEED = 1_000_000  # of training mixtures that NMF and the count's threshold are fitted on


@dataclasses.dataclass(frozen=True)
class Result:
    """One system on one set of mixtures.

    Attributes:
        system: The system.
        num_sources: K.
        outputs: float32 `[n, K, *shape]`, all outputs.
        scores: float64 `[n]` for each score of `score`: the mean over the mixture's sources; empty where the true
            sources are not known.
        dropped_energy: float64 `[n]`, the share of the energy in outputs matched to no source; None as above.
        found_counts: int64 `[n]`, sources found by `metrics.count_active`; None where nothing can be counted.
        threshold: dB, of the count; None as above.
        seconds_per_mixture: Time to separate one mixture of the whole set, without start and compilation.
        budget: What the system was fitted with, as `System.fitted` or `run_budget` returns it.
        without_truth: What is known without true sources; None for oracles.
    """

    system: System
    num_sources: int
    outputs: Float32
    scores: dict[str, Float64]
    dropped_energy: Float64 | None
    found_counts: npt.NDArray[np.int64] | None
    threshold: float | None
    seconds_per_mixture: float
    budget: Budget
    without_truth: TruthFree | None = None

    def summaries(self) -> dict[str, Summary]:
        """Summary of each score over the mixtures."""
        return {name: summarise(values) for name, values in self.scores.items()}

    def count_accuracy(self, counts: npt.NDArray[np.int64]) -> float | None:
        """Share of the mixtures whose number of sources was found; None where nothing can be counted."""
        return None if self.found_counts is None else float(np.mean(self.found_counts == counts))


def find_run(
    runs_dir: Path,
    dataset: str,
    system: str,
    num_sources: int,
    num_mixed: int,
    seed: int,
    *,
    data_dir: Path | None = None,
) -> Run:
    """Finds the saved run of a system.

    Args:
        runs_dir: Folder that holds run folders.
        dataset: Name of the data set it was trained on.
        system: As `training.fit --system` takes it.
        num_sources: K.
        num_mixed: M, the one count that it was trained on.
        seed: Its training seed.
        data_dir: Folder of the data set's files, for the message.

    Returns:
        The one run with these settings and a trained model.

    Raises:
        ConfigError: There is none (the message has the command that trains it), or there are several.
    """
    found = []
    for config in sorted(runs_dir.glob("*/config.json")):
        try:
            run = Run.load(config.parent)
        except CheckpointError:  # a live separator, or something else that cannot be compared
            continue
        data, model = run.preset.data, run.preset.model
        settings = (run.system, data.dataset, data.num_mixed, model.num_sources)
        wanted = (system, dataset, (num_mixed,), num_sources)
        if settings == wanted and run.metrics and run_budget(run)["seed"] == seed:
            found.append(run)
    if not found:
        name = f"{dataset}-{system}-k{num_sources}-seed{seed}"
        files = f" --data-dir {shlex.quote(str(data_dir))}" if data_dir else ""
        raise ConfigError(
            f"no trained {system} with K={num_sources} for {dataset}, M={num_mixed}, seed {seed} in {runs_dir}; train "
            f"it: python -m training.fit --dataset {dataset}{files} --system {system} --num-sources {num_sources} "
            f"--num-mixed {num_mixed} --seed {seed} --output {runs_dir / name}"
        )
    if len(found) > 1:
        names = ", ".join(run.path.name for run in found)
        raise ConfigError(f"{runs_dir} holds several runs of {system} with K={num_sources}: {names}; keep one there.")
    return found[0]


def run_budget(run: Run) -> Budget:
    """Returns what a finished run was trained with: "mixtures" seen, "seconds", trainable "parameters", "seed"."""
    budget = {name: run.metrics.get(name) for name in BUDGET}
    if budget["mixtures"] is None:  # the run is of before the recipes
        last = plan(run.preset.recipe)[-1]
        budget["mixtures"] = last.first_mixture + last.num_mixtures
    return budget


def run_separators(run: Run, model: keras.Model) -> dict[str, Separate]:
    """The systems that are made from a run's model.

    Args:
        run: The run.
        model: Its model.

    Returns:
        For each system that is trained as the run was, float32 `[n, *shape]` to float32 `[n, K, *shape]`.
    """
    num_sources = run.preset.model.num_sources
    return {
        name: system.bound(model, num_sources)
        for name, system in systems.of(domain_of(run.preset.audio).kind).items()
        if system.trained_as == run.system
    }


def run_fits(run: Run, model: keras.Model, mixed: EvaluationSet) -> dict[str, MixtureFit]:
    """How well a run's model explains mixtures, for the systems that are made from it; empty for baselines.

    Args:
        run: The run.
        model: Its model.
        mixed: The mixtures.
    """
    if run.system != "vae":
        return {}
    outputs = model.predict({"mixture": mixed.mixtures}, batch_size=BATCH, verbose=0)
    fit = mixture_fit(model, outputs, mixed, run.preset.recipe.final_kl_weight)
    return {} if fit is None else {"vae": fit, "vaem": fit}


def judge(
    system: System,
    separate: Separate,
    truth: EvaluationSet,
    training: Float32,
    num_sources: int,
    budget: Budget,
    fit: MixtureFit | None,
    *,
    has_truth: bool,
) -> Result:
    """Runs one system over the test mixtures and scores it.

    Mixtures whose true sources nobody knows have no scores against them, and are taken to hold K sources. All other
    outputs are matched to the sources of a mixture by the least total squared error; all scores use that matching.
    Sources are counted where K is larger than some mixture's count and the system is no oracle: the threshold is
    `metrics.fit_activity_threshold` on the levels of the system's outputs for training mixtures.

    Args:
        system: The system.
        separate: float32 `[n, *shape]` to float32 `[n, K, *shape]`.
        truth: The test mixtures. Their sources are not used where they are not known.
        training: Training mixtures, for the count's threshold.
        num_sources: K.
        budget: As in `Result`.
        fit: How well the system's model explains the mixtures, if it does.
        has_truth: Whether the true sources are known; oracles need them.

    Returns:
        The result.

    Raises:
        ConfigError: K is below the number of sources in a mixture.
    """
    if has_truth and num_sources < truth.counts.max():
        raise ConfigError(
            f"K={num_sources} outputs cannot be matched to mixtures of {truth.counts.max()} sources; use a larger K."
        )
    outputs, seconds_per_mixture = _timed(separate, truth.mixtures, compiled=system.kind == "trained")
    unsupervised = None
    if system.kind != "oracle":
        num_mixed = max(2, int(truth.counts.max()) if has_truth else num_sources)
        unsupervised = known(system.name, separate, outputs, truth, num_mixed, fit)
    if not has_truth:
        return Result(system, num_sources, outputs, {}, None, None, None, seconds_per_mixture, budget, unsupervised)
    assignment = metrics.match_sources(-metrics.pairwise_mse(outputs, truth.sources), truth.counts)
    matched = metrics.take_matched(outputs, assignment).astype(np.float32)
    heard, heard_truth = domain_of(truth.audio).judged(system.name, outputs, truth)

    threshold, found = None, None
    if system.kind in ("untrained", "trained") and num_sources > truth.counts.min():
        threshold = metrics.fit_activity_threshold(metrics.activity_levels(separate(training)))
        found = metrics.count_active(outputs, threshold)
    return Result(
        system=system,
        num_sources=num_sources,
        outputs=outputs,
        scores=score(matched, (metrics.take_matched(heard, assignment), heard_truth), truth, assignment >= 0),
        dropped_energy=metrics.dropped_energy(outputs, assignment),
        found_counts=found,
        threshold=threshold,
        seconds_per_mixture=seconds_per_mixture,
        budget=budget,
        without_truth=unsupervised,
    )


def _timed(separate: Separate, mixtures: Float32, *, compiled: bool) -> tuple[Float32, float]:
    """Separates mixtures; the seconds for one leave out the compilation, which the first batch of a system brings."""
    first = separate(mixtures[:BATCH]) if compiled else None
    reused = first is not None and len(mixtures) >= 2 * BATCH
    rest = mixtures[BATCH:] if reused else mixtures
    started = time.perf_counter()
    outputs = separate(rest)
    seconds = time.perf_counter() - started
    return np.concatenate([first, outputs]) if reused else outputs, seconds / len(rest)


def score(
    matched: Float32, heard: tuple[Float32, Float32], truth: EvaluationSet, present: npt.NDArray[np.bool_]
) -> dict[str, Float64]:
    """Scores matched estimates.

    Args:
        matched: float32 `[n, max_mixed, *shape]`, in the order of the true sources.
        heard: What the SI ratios are taken on, estimates and true sources: images, or waveforms of sound.
        truth: The mixtures with their true sources.
        present: bool `[n, max_mixed]`, which sources a mixture holds; at least one.

    Returns:
        "psnr", "psnr_halved", "ssim", "ssim_halved", "si_sdr", "si_sir" and "si_sar", float64 `[n]` each: the mean over
        the sources that the mixture holds.
    """
    ratios = metrics.si_bss_eval(*heard)
    ssim, ssim_halved = metrics.ssim(matched, truth.sources, (truth.gain, 2 * truth.gain))
    values = {
        "psnr": metrics.psnr(matched, truth.sources, peak=truth.gain),
        "psnr_halved": metrics.psnr(matched, truth.sources, peak=2 * truth.gain),
        "ssim": ssim,
        "ssim_halved": ssim_halved,
        "si_sdr": ratios.sdr,
        "si_sir": ratios.sir,
        "si_sar": ratios.sar,
    }
    return {name: np.where(present, v, 0).sum(axis=1) / present.sum(axis=1) for name, v in values.items()}
