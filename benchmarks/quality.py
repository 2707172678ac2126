"""What separates better: one training for each setting, judged on the same test mixtures.

    python -m benchmarks.quality --data-dir DIR [--only NAME ...] [--seeds 0,1,2]

Every run is a folder `RUNS_DIR/NAME-seedSEED`: a finished one is judged as it is, an unfinished one is gone on with, a
missing one is trained; scores are kept beside it. Each prints a line; the table and the curves are written when all are
done.
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib
from matplotlib.figure import Figure

from benchmarks.quality_variants import VARIANTS
from training import figures, systems
from training.callbacks import read_history
from training.evaluation import judging as comparison
from training.fit import train
from training.memory import keep_freed_memory
from training.run import Run
from vae_bss_tf.config import ConfigError, Preset, check_choice, get_preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.errors import run_command
from vae_bss_tf.files import write_json
from vae_bss_tf.model import MultiSourceVAE

_CONVOLUTIONS = {"model.convolutions": (24, 48), "model.encoder_units": (400, 300)}
_SHORT = {"train.epochs": 12}
_BRIEF = {"train.epochs": 6}


class Study(NamedTuple):
    """What is trained.

    Attributes:
        preset: The preset.
        changes: What differs from it.
        variant: Key of `VARIANTS` where the model itself differs.
        begun_from: The study whose run, of the same seed, it begins from.
    """

    preset: str
    changes: dict[str, Any]
    variant: str | None = None
    begun_from: str | None = None


STUDIES: dict[str, Study] = {
    "dense-12": Study("mnist-dense", _SHORT),
    "dense-6": Study("mnist-dense", _BRIEF),
    "dense-kl-constant-6": Study("mnist-dense", {**_BRIEF, "train.kl_schedule": "constant"}),
    "dense-kl-cyclical-6": Study("mnist-dense", {**_BRIEF, "train.kl_schedule": "cyclical"}),
    "dense-kl-warmup-6": Study("mnist-dense", {**_BRIEF, "train.kl_warmup_epochs": 3.0}),
    "dense-free-bits-6": Study("mnist-dense", _BRIEF, "FreeBits"),
    "dense-capacity-6": Study("mnist-dense", {**_BRIEF, "train.kl_schedule": "constant"}, "CapacityTarget"),
    "dense-rate-constant-6": Study("mnist-dense", {**_BRIEF, "train.learning_rate_schedule": "constant"}),
    "dense-weight-average-6": Study(
        "mnist-dense", {**_BRIEF, "train.learning_rate_schedule": "constant"}, "WeightAverage"
    ),
    "dense-batch-256-6": Study("mnist-dense", {**_BRIEF, "train.batch_size": 256, "train.steps_per_execution": 8}),
    "dense-scale-0.35-6": Study("mnist-dense", {**_BRIEF, "model.likelihood_scale": 0.35}),
    "dense-learned-scale-6": Study("mnist-dense", _BRIEF, "LearnedScale"),
    "dense-keras-initialisation-6": Study("mnist-dense", _BRIEF, "KerasInitialisation"),
    "dense-shallow-6": Study("mnist-dense", {**_BRIEF, "model.hidden_units": (1000, 500)}),
    "dense-latent-10-6": Study("mnist-dense", {**_BRIEF, "model.latent_dim": 10}),
    "dense-widening-latent-6": Study("mnist-dense", _BRIEF, "WideningLatent"),
    "dense-laplace-prior-6": Study("mnist-dense", {**_BRIEF, "model.prior": "laplace"}),
    "dense-semi-amortised-6": Study("mnist-dense", _BRIEF, "SemiAmortised"),
    "dense-transposed-6": Study("mnist-dense", _BRIEF, "TransposedConvolutions"),
    "dense-remix-6": Study("mnist-dense", {**_BRIEF, "train.remix_weight": 1.0}),
    "conv-12": Study("mnist-dense", {**_SHORT, **_CONVOLUTIONS}),
    "conv-kl-0.25-12": Study("mnist-dense", {**_SHORT, **_CONVOLUTIONS, "train.kl_weight_end": 0.25}),
    "mnist-unmasked-12": Study("mnist", {**_SHORT, "train.remix_mask_start": 1.0}),
    "mnist-masked-0.3-12": Study("mnist", {**_SHORT, "train.remix_mask_start": 0.3}),
    "mnist-12": Study("mnist", _SHORT),
    "mnist-30": Study("mnist", {"train.epochs": 30}),
    "mnist-unmasked-90": Study("mnist", {"train.remix_mask_start": 1.0}),
    "mnist-90": Study("mnist", {}),
    "mnist-corrected": Study("mnist-corrected", {}, begun_from="mnist-90"),
    "mnist-corrected-again": Study("mnist-corrected", {"train.epochs": 6}, begun_from="mnist-corrected"),
    "mnist-corrected-k3": Study("mnist-corrected-k3", {}, begun_from="mnist-corrected-again"),
    "mnist-masked": Study("mnist-masked", {}, begun_from="mnist-corrected-again"),
    "mnist-masked-k3": Study("mnist-masked-k3", {"train.epochs": 2}, begun_from="mnist-corrected-k3"),
    "mnist-k3": Study("mnist-k3", {}),
}
_JUDGED = {"one pass": "vaem", "refined": "vaem-refined"}


def preset_of(name: str, seed: int) -> Preset:
    """The settings of a study's run.

    Args:
        name: A key of `STUDIES`.
        seed: Seed of initialisation, mixtures and latents.

    Returns:
        The preset, changed.

    Raises:
        ConfigError: There is no such study.
    """
    study = STUDIES[check_choice("study", name, STUDIES)]
    parts = get_preset(study.preset).to_dict()
    for setting, value in {**study.changes, "train.seed": seed}.items():
        part, field = setting.split(".")
        parts[part][field] = value
    return Preset.from_dict(parts)


def trained(name: str, seed: int, runs_dir: Path, data_dir: Path | None) -> Run:
    """Trains a study's run, or goes on with it, or finds it finished.

    Args:
        name: A key of `STUDIES`.
        seed: As in `preset_of`.
        runs_dir: Folder of the run folders.
        data_dir: Folder of the data set's files.

    Returns:
        The finished run.

    Raises:
        CheckpointError: The folder holds a run of other settings.
    """
    path, preset = runs_dir / f"{name}-seed{seed}", preset_of(name, seed)
    begun = (path / "config.json").is_file()
    if begun and (run := Run.load(path)).metrics and run.preset == preset:
        return run
    path.parent.mkdir(parents=True, exist_ok=True)
    study = STUDIES[name]
    init = None if study.begun_from is None else trained(study.begun_from, seed, runs_dir, data_dir).path
    model_class = MultiSourceVAE if study.variant is None else VARIANTS[study.variant]
    return train(
        preset,
        output=path,
        data_dir=data_dir,
        resume="latest" if begun else None,
        init=init,
        model_class=model_class,
    )


def judged(run: Run, data_dir: Path | None, num_mixtures: int) -> dict[str, Any]:
    """Scores of a run on fixed test mixtures, in one pass of the encoder and refined.

    Args:
        run: The finished run.
        data_dir: Folder of the data set's files.
        num_mixtures: Test mixtures.

    Returns:
        For "one pass" and "refined" the means of PSNR and SSIM of halved sources and of SI-SDR, with what they cost;
        kept in the run folder, and read from there the next time.
    """
    kept = run.path / f"quality-{num_mixtures}.json"
    if kept.is_file():
        return json.loads(kept.read_text(encoding="utf-8"))
    banks = pipeline.load_banks(run.preset, data_dir)
    counts = [run.preset.data.max_mixed]
    truth = pipeline.evaluation_data(run.preset, banks["test"], num_mixtures=num_mixtures, num_mixed=counts)
    training = comparison.training_examples(run.preset, banks["train"], counts, comparison.THRESHOLD_MIXTURES)
    separators, budget = comparison.run_separators(run), comparison.run_budget(run)
    row: dict[str, Any] = {}
    for title, system in _JUDGED.items():
        info, num_sources = systems.find(system, "images"), run.preset.model.num_sources
        result = comparison.judge(info, separators[system], truth, training, num_sources, budget)
        means = {name: float(result.scores[name].mean()) for name in ("psnr_halved", "ssim_halved", "si_sdr")}
        row[title] = {**means, "milliseconds_per_mixture": 1e3 * result.seconds_per_mixture}
    write_json(kept, {**row, **budget})
    return {**row, **budget}


def curves(runs: Sequence[Run]) -> Figure:
    """Draws the validation's log likelihood and KL of each run over the mixtures seen.

    Likelihoods of another scale than the first run's are no measure beside it and left out.
    """
    figure = Figure(figsize=(13, 4.5), dpi=110, layout="constrained")
    for axis, quantity in zip(figure.subplots(1, 2), ("val_log_likelihood", "val_kl"), strict=True):
        for number, run in enumerate(runs):
            if quantity == "val_log_likelihood" and _scale(run) != _scale(runs[0]):
                continue
            rows = read_history(run.path / "history.csv")
            step = run.preset.train.steps_per_epoch * run.preset.train.batch_size
            seen = [step * (i + 1) for i in range(len(rows))]
            colour = matplotlib.colormaps["tab20"](number % 20)
            axis.plot(seen, [row[quantity] for row in rows], label=run.path.name, color=colour)
        axis.set(
            xlabel="mixtures seen", ylabel=f"{quantity.removeprefix('val_').replace('_', ' ')}, nats", xscale="log"
        )
    figure.legend(*figure.axes[1].get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    return figure


def _scale(run: Run) -> float | None:
    """The scale of the likelihood; None where it is learned."""
    study = STUDIES.get(run.path.name.rpartition("-seed")[0])
    return None if study is not None and study.variant == "LearnedScale" else run.preset.model.likelihood_scale


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    lines = [
        "| run | mixtures | minutes | parameters | PSNR / SSIM (halved) / SI-SDR, one pass | refined (100 steps) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        scores = [
            f"{row[title]['psnr_halved']:.2f} / {row[title]['ssim_halved']:.3f} / {row[title]['si_sdr']:.2f}"
            for title in _JUDGED
        ]
        lines.append(
            f"| {row['run']} | {row['mixtures']:,} | {row['seconds'] / 60:.1f} | {row['parameters']:,} | "
            f"{' | '.join(scores)} |"
        )
    return "\n".join(lines) + "\n"


def run(options: argparse.Namespace) -> None:
    """Trains and judges what is asked for; writes table, JSON and curves."""
    names = options.only or list(STUDIES)
    for name in names:
        preset_of(name, seed=0)
    if options.num_mixtures < 1:
        raise ConfigError(f"number of mixtures is {options.num_mixtures}; it must be at least 1.")
    runs: list[Run] = []
    rows: list[dict[str, Any]] = []
    for name in names:
        for seed in options.seeds:
            runs.append(trained(name, seed, options.runs_dir, options.data_dir))
            rows.append({"run": runs[-1].path.name, **judged(runs[-1], options.data_dir, options.num_mixtures)})
            print(json.dumps(rows[-1]), flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    seeds = ",".join(str(seed) for seed in options.seeds)
    described = {
        "command": "python -m benchmarks.quality --data-dir DIR "
        f"--only {' '.join(names)} --seeds {seeds} --num-mixtures {options.num_mixtures}",
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "rows": rows,
    }
    write_json(options.output / "quality.json", described)
    (options.output / "quality.md").write_text(table(rows), encoding="utf-8")
    figures.save(curves(runs), options.output / "quality.png")
    print(f"{table(rows)}written: {options.output}")


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main() -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's four IDX files")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"studies to run: {', '.join(STUDIES)} (default: all)"
    )
    parser.add_argument("--seeds", type=_seeds, default=(0,), metavar="SEED[,SEED...]")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/quality"))
    parser.add_argument("--num-mixtures", type=int, default=5_000, help="test mixtures (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality"))
    options = parser.parse_args()
    keep_freed_memory()
    return run_command(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
