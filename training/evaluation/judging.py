"""Every system on the same mixtures: what it gives, how good that is, what it cost."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.evaluation.statistics import Float64, Summary, summarise
from training.run import Run
from training.scores import as_judged
from vae_bss_tf import metrics
from vae_bss_tf.baselines import TRAINED as BASELINES
from vae_bss_tf.baselines import oracle
from vae_bss_tf.config import Preset, check_choice
from vae_bss_tf.datasets import SourceBank, pipeline
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet
from vae_bss_tf.errors import ConfigError

Float32 = npt.NDArray[np.float32]
Separate = Callable[[Float32], Float32]

REFINEMENT_STEPS = 100


@dataclasses.dataclass(frozen=True)
class SystemInfo:
    """What a system is.

    Attributes:
        title: Its name in tables.
        kind: "trivial", "untrained" (fitted when the comparison runs), "trained", or "oracle".
        trained_as: The `--system` of `training.fit` whose run it needs; None for the untrained.
    """

    title: str
    kind: str
    trained_as: str | None = None


SYSTEMS: dict[str, SystemInfo] = {
    "zeros": SystemInfo("zeros", "trivial"),
    "mixture": SystemInfo("mixture", "trivial"),
    "mixture/k": SystemInfo("mixture / K", "trivial"),
    "nmf": SystemInfo("NMF", "untrained"),
    "nmf-kl": SystemInfo("NMF, Kullback-Leibler", "untrained"),
    "ae": SystemInfo("AE", "trained", "ae"),
    "aem": SystemInfo("AE, masked", "trained", "ae"),
    "glo": SystemInfo("GLO", "trained", "glo"),
    "mixit": SystemInfo("MixIT", "trained", "mixit"),
    "vae": SystemInfo("VAE", "trained", "vae"),
    "vaem": SystemInfo("VAEM", "trained", "vae"),
    "vaem-refined": SystemInfo(f"VAEM, refined ({REFINEMENT_STEPS} steps)", "trained", "vae"),
    "nmf-oracle": SystemInfo("NMF, oracle grouping", "oracle"),
    "ibm": SystemInfo("IBM", "oracle"),
    "irm": SystemInfo(f"IRM (exponent {oracle.IRM_EXPONENT:g})", "oracle"),
}
IMAGES_ONLY, SOUND_ONLY = ("nmf-oracle", "glo"), ("nmf-kl",)
SCORES = ("psnr", "psnr_halved", "ssim", "ssim_halved", "si_sdr", "si_sir", "si_sar")

NMF_MIXTURES = 5_000
THRESHOLD_MIXTURES = 500
_BATCH = 500
_TRAINING_SEED = 1_000_000  # of training mixtures that NMF and the count's threshold are fitted on


@dataclasses.dataclass(frozen=True)
class Result:
    """One system on one set of mixtures.

    Attributes:
        system: Key of `SYSTEMS`.
        num_sources: K.
        sources: float32 `[n, max_mixed, *shape]`, the outputs matched to the true sources.
        outputs: float32 `[n, K, *shape]`, all outputs.
        scores: float64 `[n]` for each of `SCORES`: the mean over the mixture's sources.
        dropped_energy: float64 `[n]`, the share of the energy in outputs matched to no source.
        found_counts: int64 `[n]`, sources found by `metrics.count_active`; None where nothing can be counted.
        threshold: dB, of the count; None as above.
        seconds_per_mixture: Time to separate one mixture of the whole set, without start and compilation.
        budget: What the system was fitted with: "mixtures", "seconds", "parameters", "seed"; empty if with nothing.
    """

    system: str
    num_sources: int
    sources: Float32
    outputs: Float32
    scores: dict[str, Float64]
    dropped_energy: Float64
    found_counts: npt.NDArray[np.int64] | None
    threshold: float | None
    seconds_per_mixture: float
    budget: dict[str, Any]

    def summaries(self) -> dict[str, Summary]:
        """Summary of each score over the mixtures."""
        return {name: summarise(values) for name, values in self.scores.items()}

    def count_accuracy(self, counts: npt.NDArray[np.int64]) -> float | None:
        """Share of the mixtures whose number of sources was found; None where nothing can be counted."""
        return None if self.found_counts is None else float(np.mean(self.found_counts == counts))


def find_run(runs_dir: Path, dataset: str, system: str, num_sources: int, num_mixed: int, seed: int) -> Run:
    """Finds the saved run of a system.

    Args:
        runs_dir: Folder that holds run folders.
        dataset: Name of the data set it was trained on.
        system: As `training.fit --system` takes it.
        num_sources: K.
        num_mixed: M, the one count that it was trained on.
        seed: Its training seed.

    Returns:
        The one run with these settings and a trained model.

    Raises:
        ConfigError: There is none (the message has the command that trains it), or there are several.
    """
    found = []
    for config in sorted(runs_dir.glob("*/config.json")):
        run = Run.load(config.parent)
        settings = (run.system, run.preset.data.dataset, run.preset.data.num_mixed)
        same_model = (run.preset.model.num_sources, run.preset.train.seed) == (num_sources, seed)
        if settings == (system, dataset, (num_mixed,)) and same_model and run.metrics:
            found.append(run)
    if not found:
        name = f"{dataset}-{system}-k{num_sources}-seed{seed}"
        raise ConfigError(
            f"no trained {system} with K={num_sources} for {dataset}, M={num_mixed}, seed {seed} in {runs_dir}; train "
            f"it: python -m training.fit --dataset {dataset} --system {system} --num-sources {num_sources} "
            f"--num-mixed {num_mixed} --seed {seed} --output {runs_dir / name}"
        )
    if len(found) > 1:
        names = ", ".join(run.path.name for run in found)
        raise ConfigError(f"{runs_dir} holds several runs of {system} with K={num_sources}: {names}; keep one there.")
    return found[0]


def run_budget(run: Run) -> dict[str, Any]:
    """What a run was trained with: mixtures seen, seconds, trainable parameters, seed."""
    train = run.preset.train
    return {
        "mixtures": run.metrics.get("epochs", train.epochs) * train.steps_per_epoch * train.batch_size,
        "seconds": run.metrics["seconds"],
        "parameters": run.metrics["parameters"],
        "seed": train.seed,
    }


def run_separators(run: Run) -> dict[str, Separate]:
    """Loads a run's model for the systems that it serves.

    Args:
        run: The run.

    Returns:
        For each of `SYSTEMS` with `trained_as` the run's, float32 `[n, *shape]` to float32 `[n, K, *shape]`.

    Raises:
        CheckpointError: The model is missing or damaged.
    """
    model = run.model()
    if run.system in BASELINES:
        return {run.system: functools.partial(model.separate, num_sources=run.preset.model.num_sources)}
    both = {run.system: _predict(model, "estimates"), f"{run.system}m": _predict(model, "sources")}
    if run.system == "ae":
        return both
    return {**both, "vaem-refined": functools.partial(model.separate, batch_size=_BATCH, refine=REFINEMENT_STEPS)}


def _predict(model: Any, output: str) -> Separate:
    return lambda mixtures: model.predict({"mixture": mixtures}, batch_size=_BATCH, verbose=0)[output]


class UntrainedSystems:
    """The trivial estimates, NMF and the oracles, for mixtures of one bank.

    Args:
        truth: The test mixtures with their true sources, which only the oracles see.
        training: Training mixtures, for NMF's dictionary.
    """

    def __init__(self, truth: EvaluationSet, training: Float32) -> None:
        self.truth = truth
        self.training = training

    def separator(self, system: str, num_sources: int) -> tuple[Separate, dict[str, Any]]:
        """Gives a system's function and what it was fitted with.

        Args:
            system: A key of `SYSTEMS` whose kind is not "trained".
            num_sources: K.

        Returns:
            Float32 `[n, *shape]` to float32 `[n, K, *shape]`, and the budget as in `Result`. The oracles take the
            first n test mixtures and give as many outputs as those have sources.
        """
        check_choice("system", system, [name for name, info in SYSTEMS.items() if info.kind != "trained"])
        if SYSTEMS[system].kind == "trivial":
            return lambda mixtures: oracle.trivial_estimates(mixtures, num_sources)[system], {}
        if system == "ibm":
            return lambda mixtures: oracle.ideal_binary_mask(mixtures, self.truth.sources[: len(mixtures)]), {}
        if system == "irm":
            return lambda mixtures: oracle.ideal_ratio_mask(mixtures, self.truth.sources[: len(mixtures)]), {}
        if isinstance(self.truth, AudioEvaluationSet):
            from vae_bss_tf.baselines.nmf_spectrogram import SpectrogramNMF

            if system == "nmf-oracle":
                raise ConfigError("NMF with oracle grouping is for images; leave nmf-oracle out of --systems.")
            single = SpectrogramNMF(self.truth.audio, "kullback-leibler" if system == "nmf-kl" else "itakura-saito")
            budget = {"mixtures": 0, "seconds": 0.0, "parameters": 0, "seed": 0}
            return lambda mixtures: single.separate(mixtures, num_sources), budget
        if system == "nmf-kl":
            raise ConfigError("NMF of images is by the Kullback-Leibler divergence: it is nmf; leave nmf-kl out.")
        nmf, budget = self._nmf
        if system == "nmf":
            return lambda mixtures: nmf.separate(mixtures, num_sources), budget
        return lambda mixtures: nmf.separate_oracle(mixtures, self.truth.sources[: len(mixtures)]), budget

    @functools.cached_property
    def _nmf(self) -> tuple[Any, dict[str, Any]]:
        from vae_bss_tf.baselines.nmf import ImageNMF

        started = time.perf_counter()
        nmf = ImageNMF().fit(self.training)
        seconds = time.perf_counter() - started
        parameters = nmf.factorisation.components_.size
        return nmf, {"mixtures": len(self.training), "seconds": round(seconds, 1), "parameters": parameters, "seed": 0}


def training_examples(preset: Preset, bank: SourceBank, num_mixed: Sequence[int], number: int) -> Float32:
    """Training mixtures for what is fitted when the comparison runs, without their sources.

    Args:
        preset: Gives the sources' level and, for audio, the spectrogram.
        bank: The sources of the training split.
        num_mixed: The counts M.
        number: How many.

    Returns:
        float32 `[number, *shape]`.
    """
    return pipeline.evaluation_data(
        preset, bank, num_mixtures=number, num_mixed=num_mixed, seed=_TRAINING_SEED
    ).mixtures


def judge(
    system: str,
    separate: Separate,
    truth: EvaluationSet,
    training: Float32,
    num_sources: int,
    budget: dict[str, Any],
) -> Result:
    """Runs one system over the test mixtures and scores it.

    Outputs are matched to the sources of a mixture by the least total squared error; all scores use that matching.
    Sources are counted where K is larger than some mixture's count and the system is no oracle: the threshold is
    `metrics.fit_activity_threshold` on the levels of the system's outputs for training mixtures.

    Args:
        system: Key of `SYSTEMS`.
        separate: float32 `[n, *shape]` to float32 `[n, K, *shape]`.
        truth: The test mixtures.
        training: Training mixtures, for the count's threshold.
        num_sources: K.
        budget: As in `Result`.

    Returns:
        The result.

    Raises:
        ConfigError: K is below the number of sources in a mixture.
    """
    if num_sources < truth.counts.max():
        raise ConfigError(
            f"K={num_sources} outputs cannot be matched to mixtures of {truth.counts.max()} sources; use a larger K."
        )
    outputs, seconds_per_mixture = _timed(separate, truth.mixtures, compiled=SYSTEMS[system].kind == "trained")
    assignment = metrics.match_sources(-metrics.pairwise_mse(outputs, truth.sources), truth.counts)
    matched = metrics.take_matched(outputs, assignment).astype(np.float32)
    heard, heard_truth = as_judged(system, outputs, truth)

    threshold, found = None, None
    if SYSTEMS[system].kind in ("untrained", "trained") and num_sources > truth.counts.min():
        threshold = metrics.fit_activity_threshold(metrics.activity_levels(separate(training)))
        found = metrics.count_active(outputs, threshold)
    return Result(
        system=system,
        num_sources=num_sources,
        sources=matched,
        outputs=outputs,
        scores=score(matched, (metrics.take_matched(heard, assignment), heard_truth), truth, assignment >= 0),
        dropped_energy=metrics.dropped_energy(outputs, assignment),
        found_counts=found,
        threshold=threshold,
        seconds_per_mixture=seconds_per_mixture,
        budget=budget,
    )


def _timed(separate: Separate, mixtures: Float32, *, compiled: bool) -> tuple[Float32, float]:
    """Separates mixtures; the seconds for one leave out the compilation, which the first batch of a system brings."""
    first = separate(mixtures[:_BATCH]) if compiled else None
    reused = first is not None and len(mixtures) >= 2 * _BATCH
    rest = mixtures[_BATCH:] if reused else mixtures
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
        For each of `SCORES`, float64 `[n]`: the mean over the sources that the mixture holds.
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
