"""How well the score without a truth ranks models, where the truth is known.

    python -m benchmarks.truth_free runs/digits-a runs/digits-b runs/digits-c ...
    python -m benchmarks.truth_free --preset digits --checkpoints 12 --mixtures 300000
    python -m benchmarks.truth_free --preset mixtures --data-dir DIR --truth DIR/test

The models are those of finished runs of one data set, or one that is trained by a preset's recipe and judged at several
points of it. All are judged on the same test mixtures: by SI-SDR against the true sources, and by the score that needs
none (`vae_bss_tf.metrics.consistency`). Where the data are mixtures without a truth, the SI-SDR is that of the whole
files of --truth, in the order that the model gives its sources, and the other score is of validation mixtures. Printed
is Spearman's rank correlation of both, and what choosing by the score costs: the SI-SDR of the best model less that of
the model with the highest score.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.checks import check
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import refuse_existing, write_json
from vae_bss_tf.presets import get_preset
from vae_bss_tf.startup import import_tensorflow

SCORES = ("remix_si_sdri", "shared_out", "elbo", "sum_si_sdr")  # of those that need no truth, what models are ranked by
_LEAST_MODELS = 3
_BATCH = 250


@dataclasses.dataclass(frozen=True)
class Judge:
    """What models are judged on.

    Attributes:
        mixtures: The mixtures, with their sources where these are known.
        truth: Folder of whole files with their sources, as `truth_folder.find_cases` takes it; None where the mixtures'
            sources are known.
    """

    mixtures: Any
    truth: Path | None = None

    @classmethod
    def load(cls, preset: Preset, data_dir: Path | None, num_mixtures: int, truth: Path | None) -> "Judge":
        """Draws the mixtures: of the test split, or of the validation split where the truth is a folder.

        Args:
            preset: Settings of the data.
            data_dir: Folder of the data set's files, as `load_banks` takes it.
            num_mixtures: How many; the score without a truth is that of the first 500.
            truth: As the attribute.

        Raises:
            ConfigError: The data has no truth and no folder is given, or it has one and a folder is given.
        """
        from vae_bss_tf.datasets import pipeline

        split = "test" if truth is None else "validation"
        bank = pipeline.load_banks(preset, data_dir, (split,))[split]
        if bank.has_truth and truth is not None:
            raise ConfigError(f"the sources of {bank.name} are known; leave --truth out.")
        if not bank.has_truth and truth is None:
            raise ConfigError(f"{bank.name} has no true sources to compare with; give --truth, or another data set.")
        counts = [preset.data.max_mixed]
        return cls(pipeline.evaluation_data(preset, bank, num_mixtures=num_mixtures, num_mixed=counts), truth)

    def scores(self, model: Any, preset: Preset) -> dict[str, float]:
        """Judges a model.

        Args:
            model: The model.
            preset: Its settings.

        Returns:
            "si_sdr" against the truth, dB, and those of `SCORES` that it has.
        """
        from training import truth_free
        from training.evaluation.truth_folder import judge_model
        from training.scores import mean_scores

        outputs = model.predict({"mixture": self.mixtures.mixtures}, batch_size=_BATCH, verbose=0)
        fit = truth_free.mixture_fit(model, outputs, self.mixtures, preset.recipe.final_kl_weight)
        num_mixed = truth_free.sources_of(preset, has_truth=self.truth is None)
        known = truth_free.known("vaem", model.separate, outputs["sources"], self.mixtures, num_mixed, fit)
        values = {} if known is None else known.values()
        if self.truth is None:
            si_sdr = mean_scores(outputs["sources"], self.mixtures)["si_sdr"]
        else:
            si_sdr = float(judge_model(model, preset, self.truth)["si_sdr"].mean())
        return {"si_sdr": si_sdr, **{name: values[name] for name in SCORES if name in values}}


def of_runs(
    paths: Sequence[Path], data_dir: Path | None, num_mixtures: int, truth: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Judges the models of finished runs on the same mixtures.

    Args:
        paths: Run folders of one data set.
        data_dir: As `Judge.load` takes it.
        num_mixtures: As `Judge.load` takes it.
        truth: As `Judge.load` takes it.

    Yields:
        A row for each run: "model" and the scores of `Judge.scores`.

    Raises:
        CheckpointError: A run is missing, damaged, or no multi-source VAE.
        ConfigError: The runs are of different data, or as `Judge.load`.
    """
    from training.run import Run

    runs = [Run.load(path) for path in paths]
    first = runs[0].preset
    for run in runs:
        if (run.preset.data, run.preset.audio) != (first.data, first.audio):
            raise ConfigError(f"{run.path} and {runs[0].path} are of different data; give runs of one data set.")
        if run.system != "vae":
            raise CheckpointError(f"{run.path} holds a {run.system}; give runs of the multi-source VAE.")
    judge = Judge.load(first, data_dir, num_mixtures, truth)
    for run in runs:
        yield {"model": str(run.path), **judge.scores(run.model(), run.preset)}


def of_checkpoints(
    preset: Preset, data_dir: Path | None, num_mixtures: int, truth: Path | None = None
) -> Iterator[dict[str, Any]]:
    """Trains a model and judges it after each epoch of its recipe.

    Args:
        preset: The settings.
        data_dir: As `Judge.load` takes it.
        num_mixtures: As `Judge.load` takes it.
        truth: As `Judge.load` takes it.

    Yields:
        A row for each epoch, as `of_runs`.

    Raises:
        ConfigError: As `Judge.load`.
    """
    from training.fit import completed
    from training.precision import with_resolved_precision
    from training.run import Run
    from training.strategy import make_strategy
    from training.trainer import Trainer
    from vae_bss_tf.datasets import pipeline

    preset = with_resolved_precision(completed(preset, "vae"))
    judge = Judge.load(preset, data_dir, num_mixtures, truth)
    banks = pipeline.load_banks(preset, data_dir, ("train", "validation"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Run(Path(folder), preset, "vae"), banks, make_strategy("single"), quiet=True)
        model = None
        for planned in trainer.plan:
            model = trainer.model_for(planned, model)
            learner = trainer.learner(planned, model)
            for epoch in range(planned.epochs):
                mixtures = pipeline.training_data(
                    preset,
                    banks["train"],
                    batch_size=planned.phase.batch_size,
                    start_step=planned.first_step + epoch * planned.steps_per_epoch,
                )
                learner.fit(mixtures, steps_per_epoch=planned.steps_per_epoch, verbose=0, shuffle=False)
                name = f"{planned.title}, epoch {planned.first_epoch + epoch + 1}"
                yield {"model": name, **judge.scores(model, preset)}


def ranked(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How well each score that needs no truth ranks the models by their SI-SDR.

    Args:
        rows: As `of_runs` gives them.

    Returns:
        For each score that is not the same for all: "spearman", the rank correlation, and "lost_db", the SI-SDR of the
        best model less that of the model of the highest score, the mean over all that share it.
    """
    from scipy import stats

    truth = [row["si_sdr"] for row in rows]
    found = {}
    for name in SCORES:
        values = [row[name] for row in rows if name in row]
        if len(values) == len(rows) and len(set(values)) > 1:
            chosen = [of_truth for value, of_truth in zip(values, truth, strict=True) if value == max(values)]
            spearman = float(stats.spearmanr(values, truth).statistic)
            found[name] = {"spearman": spearman, "lost_db": max(truth) - sum(chosen) / len(chosen)}
    return found


def run(options: argparse.Namespace) -> None:
    """Judges the models, prints how well they are ranked, and writes the JSON file."""
    if bool(options.runs) == bool(options.preset):
        raise ConfigError("give run folders, or --preset NAME to train a model and judge it at several points.")
    number = len(options.runs) or options.checkpoints
    if number < _LEAST_MODELS:
        raise ConfigError(f"{number} models cannot be ranked; take {_LEAST_MODELS} or more, better ten.")
    check(2 <= options.num_mixtures <= 20_000, "--num-mixtures", options.num_mixtures, "from 2 to 20,000")
    check(options.mixtures >= number, "--mixtures", options.mixtures, "at least --checkpoints")
    refuse_existing([options.output], force=options.force)
    import_tensorflow()
    if options.runs:
        judged = of_runs(options.runs, options.data_dir, options.num_mixtures, options.truth)
    else:
        preset = get_preset(options.preset)
        recipe = preset.recipe.replace(epochs=number, mixtures_per_epoch=options.mixtures // number)
        preset = preset.replace(recipe=recipe)
        judged = of_checkpoints(preset, options.data_dir, options.num_mixtures, options.truth)
    rows = []
    for row in judged:
        rows.append(row)
        print(f"{row['model']}: " + ", ".join(f"{name} {row[name]:.2f}" for name in list(row)[1:]), flush=True)
    found = ranked(rows)
    for name, one in found.items():
        print(
            f"{name} over {len(rows)} models: Spearman {one['spearman']:+.3f}, "
            f"choosing by it loses {one['lost_db']:.2f} dB"
        )
    write_json(options.output, {"num_mixtures": options.num_mixtures, "ranking": found, "models": rows})
    print(f"written: {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.truth_free",
        description="Rank correlation of the score without a truth with the SI-SDR, over models of one data set.",
        epilog="example: python -m benchmarks.truth_free --preset digits --checkpoints 12 --mixtures 300000",
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders of one data set")
    parser.add_argument("--preset", help="train by this preset's recipe in place of runs, and judge after each epoch")
    parser.add_argument("--checkpoints", type=int, default=12, help="epochs of that training (default: %(default)s)")
    parser.add_argument(
        "--mixtures", type=int, default=300_000, help="mixtures of the whole training (default: %(default)s)"
    )
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument(
        "--truth", type=Path, metavar="DIR", help="for data without a truth: folders, each of a mixture and its sources"
    )
    parser.add_argument("--num-mixtures", type=int, default=1_000, help="test mixtures (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/truth_free.json"))
    parser.add_argument("--force", action="store_true", help="replace the file of --output")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
