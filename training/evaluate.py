"""Judges separators on test mixtures: `python -m training.evaluate --run runs/...`."""

import argparse
import dataclasses
import datetime
import functools
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training.memory import keep_freed_memory
from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import AUDIO_DATASETS, DATASETS, pipeline
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError, run_command
from vae_bss_tf.files import write_json, write_text
from vae_bss_tf.phases import Phase, Recipe
from vae_bss_tf.presets import PRESETS

if TYPE_CHECKING:
    from training.evaluation.judging import Float32, UntrainedSystems
    from training.evaluation.report import Comparison
    from training.run import Run
    from vae_bss_tf.datasets.image_mixtures import EvaluationSet

_FILES = ("comparison.json", "comparison.csv", "comparison.md")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Its words; those of the process by default.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(words)
    keep_freed_memory()
    return run_command(lambda: _command(options, shlex.join(["python", "-m", "training.evaluate", *words])))


def _command(options: argparse.Namespace, command: str) -> None:
    if options.num_mixtures < 1:
        raise ConfigError(f"--num-mixtures is {options.num_mixtures}; it must be at least 1.")
    if options.test_seed < 0:
        raise ConfigError(f"--test-seed is {options.test_seed}; it must be 0 or more.")
    if not options.run and not options.dataset:
        raise ConfigError("nothing to judge: give --run RUN, or --dataset NAME to compare all systems.")
    output = options.output or (
        options.run[0] / "evaluation" if options.run else Path("runs") / f"comparison-{options.dataset}"
    )
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output} is a file; choose another --output.")
    if not options.force and any((output / name).exists() for name in _FILES):
        raise OutputExistsError(f"{output} holds an earlier evaluation; replace it by --force or choose --output.")

    started = time.perf_counter()
    _material.cache_clear()
    comparisons, model_run = _judge_runs(options) if options.run else _judge_systems(options)
    _write(comparisons, model_run, output, command, started, options.test_seed)


def _judge_runs(options: argparse.Namespace) -> "tuple[list[Comparison], Run | None]":
    from training.evaluation import judging as comparison
    from training.run import Run

    runs = [Run.load(path) for path in options.run]
    for run in runs:
        if not run.metrics:
            raise CheckpointError(f"{run.path} is not finished; finish it with --resume.")
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError("two of the runs have the same name, and so would their figures; judge them one at a time.")
    comparisons = []
    for run in runs:
        dataset = options.dataset or run.preset.data.dataset
        num_mixed = options.num_mixed or run.preset.data.num_mixed
        served = [name for name, info in comparison.SYSTEMS.items() if info.trained_as == run.system]
        untrained = [name for name, info in comparison.SYSTEMS.items() if info.trained_as is None]
        default = ["mixture/k", *(name for name in served if name != "vaem-refined")]
        systems = [check_choice(f"system of {run.path}", s, [*untrained, *served]) for s in options.systems or default]
        if run.preset.audio is not None and not options.systems:
            systems += [name for name in ("nmf", "nmf-kl", "ibm", "irm") if name not in systems]
        judged = _compare(options, dataset, num_mixed, run.preset.model.num_sources, systems, [run])
        comparisons.append(dataclasses.replace(judged, run=run.path.resolve().name))
    return comparisons, next((run for run in runs if run.system == "vae"), None)


def _judge_systems(options: argparse.Namespace) -> "tuple[list[Comparison], Run | None]":
    from training.evaluation import judging as comparison

    check_choice("data set", options.dataset, [*DATASETS, *AUDIO_DATASETS])
    num_mixed = options.num_mixed or PRESETS[options.dataset].data.num_mixed
    other_kind = comparison.IMAGES_ONLY if options.dataset in AUDIO_DATASETS else comparison.SOUND_ONLY
    default = [name for name in comparison.SYSTEMS if name not in other_kind]
    systems = [check_choice("system", name, comparison.SYSTEMS) for name in options.systems or default]
    kinds = sorted({info.trained_as for name in systems if (info := comparison.SYSTEMS[name]).trained_as})
    if len(num_mixed) > 1 and kinds:
        raise ConfigError("--dataset compares systems at one count M; for several, judge a run: --run RUN.")
    for num_sources in options.num_sources:
        _check_counts(num_sources, num_mixed)
    # Everything that can be missing is found before anything is computed.
    runs = {
        num_sources: [
            comparison.find_run(options.runs_dir, options.dataset, kind, num_sources, num_mixed[0], options.seed)
            for kind in kinds
        ]
        for num_sources in options.num_sources
    }
    comparisons = [
        _compare(options, options.dataset, num_mixed, num_sources, systems, runs[num_sources])
        for num_sources in options.num_sources
    ]
    first = runs[options.num_sources[0]]
    return comparisons, next((run for run in first if run.system == "vae"), None)


def _check_counts(num_sources: int, num_mixed: Sequence[int]) -> None:
    if num_sources < max(num_mixed):
        raise ConfigError(
            f"K={num_sources} outputs cannot be matched to mixtures of {max(num_mixed)} sources; use a larger K."
        )


def _compare(
    options: argparse.Namespace,
    dataset: str,
    num_mixed: Sequence[int],
    num_sources: int,
    systems: Sequence[str],
    runs: "Sequence[Run]",
) -> "Comparison":
    from training.evaluation import judging as comparison
    from training.evaluation.report import Comparison

    _check_counts(num_sources, num_mixed)
    preset = runs[0].preset if runs else PRESETS[dataset]
    for run in runs:
        if (run.preset.model.input_shape, run.preset.audio) != (preset.model.input_shape, preset.audio):
            raise ConfigError(
                f"{run.path} takes mixtures of shape {run.preset.model.input_shape}, the others of "
                f"{preset.model.input_shape}, or with other audio settings; judge it alone."
            )
    # Sources have the level that the runs were trained with.
    trained_with = preset.data.num_mixed if runs else tuple(num_mixed)
    # Nothing of the model or its training in the preset, so that runs of another K share the mixtures.
    shape = preset.model.input_shape
    preset = Preset(ModelConfig(input_shape=shape), DataConfig(dataset, trained_with), TrainConfig(), preset.audio)
    truth, counting, untrained = _material(
        preset, tuple(num_mixed), options.data_dir, options.num_mixtures, options.test_seed
    )
    trained = {
        system: (separate, comparison.run_budget(run))
        for run in runs
        for system, separate in comparison.run_separators(run).items()
    }
    results = []
    for system in systems:
        separate, budget = trained.get(system) or untrained.separator(system, num_sources)
        results.append(comparison.judge(system, separate, truth, counting, num_sources, budget))
        print(f"K={num_sources}  {comparison.SYSTEMS[system].title}: judged", file=sys.stderr, flush=True)
    return Comparison(dataset, num_sources, truth, results)


@functools.lru_cache(maxsize=1)
def _material(
    preset: Preset, num_mixed: tuple[int, ...], data_dir: Path | None, num_mixtures: int, test_seed: int
) -> "tuple[EvaluationSet, Float32, UntrainedSystems]":
    """Test mixtures, training mixtures to count by, and the untrained systems: the same for every K."""
    from training.evaluation import judging as comparison

    banks = pipeline.load_banks(preset, data_dir, ("train", "test"))
    truth = pipeline.evaluation_data(
        preset, banks["test"], num_mixtures=num_mixtures, num_mixed=num_mixed, seed=test_seed
    )
    counting = comparison.training_examples(preset, banks["train"], num_mixed, comparison.THRESHOLD_MIXTURES)
    learning = counting  # NMF of sound learns from no other mixture
    if preset.audio is None:
        learning = comparison.training_examples(preset, banks["train"], num_mixed, comparison.NMF_MIXTURES)
    return truth, counting, comparison.UntrainedSystems(truth, learning)


def _write(
    comparisons: "list[Comparison]",
    model_run: "Run | None",
    output: Path,
    command: str,
    started: float,
    test_seed: int,
) -> None:
    from training.evaluation import figures as pictures
    from training.evaluation import report as report
    from training.figures import save

    for comparison in comparisons:
        print(f"\n{report.title(comparison)}\n{report.to_screen(report.table(comparison))}")
        if len(comparison.results) > 1:
            print(f"\n{report.to_screen(report.paired_table(comparison))}")
        if sentence := report.verdict(comparison):
            print(sentence)
        counted = report.confusion(comparison, report.reference(comparison))
        if counted:
            print(f"\nsources found:\n{report.to_screen(counted)}")
    output.mkdir(parents=True, exist_ok=True)
    several = len(comparisons) > 1 and comparisons[0].run is not None
    for comparison in comparisons:
        name = comparison.run if several else f"{comparison.dataset}-k{comparison.num_sources}"
        save(pictures.systems_grid(comparison), output / f"separation-{name}.png")
        if any(result.budget for result in comparison.results):
            save(pictures.score_against_time(comparison), output / f"time-{name}.png")
    if model_run is not None:
        model, truth = model_run.model(), comparisons[0].truth
        save(pictures.latent_map(model, truth), output / "latents.png")
        save(pictures.latent_traversal(model, truth), output / "traversal.png")
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    description = report.describe(command, date, time.perf_counter() - started, time.process_time(), test_seed)
    write_json(output / "comparison.json", report.to_json(comparisons, description))
    write_text(output / "comparison.csv", report.to_csv(comparisons))
    write_text(output / "comparison.md", report.to_markdown(comparisons, description))
    print(f"\n{description['seconds']:.0f} s; tables and figures: {output}")
    print(f"next: read {output / 'comparison.md'}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.evaluate",
        description="Scores trained runs on test mixtures, or compares every system on the same mixtures.",
        epilog="examples: python -m training.evaluate --run runs/digits-k2-seed0; "
        "python -m training.evaluate --dataset mnist --data-dir DIR --num-sources 2,3",
    )
    parser.add_argument("--run", type=Path, nargs="+", default=[], help="run folders to score")
    parser.add_argument(
        "--dataset",
        help=f"data set of the comparison (or to judge --run on): {', '.join([*DATASETS, *AUDIO_DATASETS])}",
    )
    parser.add_argument(
        "--systems",
        type=_names,
        metavar="NAME[,NAME...]",
        help="systems to compare (default: all; with --run, the run's own and, for sound, NMF and oracle masks)",
    )
    parser.add_argument(
        "--num-sources", type=_counts, default=(2,), metavar="K[,K...]", help="K, a table for each (default: 2)"
    )
    parser.add_argument(
        "--num-mixed", type=_counts, metavar="M[,M...]", help="sources in a mixture (default: as trained)"
    )
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where saved runs are (default: runs)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument("--num-mixtures", type=int, default=5_000, help="test mixtures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed that the runs were trained with (default: 0)")
    parser.add_argument("--test-seed", type=int, default=0, help="seed of the test mixtures (default: 0)")
    parser.add_argument("--output", type=Path, help="folder to write to (default: in the run, or in runs/)")
    parser.add_argument("--force", action="store_true", help="replace an earlier evaluation")
    return parser


if __name__ == "__main__":
    sys.exit(main())
