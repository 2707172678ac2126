"""Judges separators on test mixtures: `python -m training.evaluate --run runs/...`."""

import argparse
import dataclasses
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from training import systems, tables
from training.memory import keep_freed_memory
from training.systems import Budget, Material, System
from vae_bss_tf.arguments import Parser, command, counts, path
from vae_bss_tf.checks import check, check_choice
from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.datasets import DATASETS, pipeline
from vae_bss_tf.domains import domain_of
from vae_bss_tf.errors import CheckpointError, ConfigError, OutputExistsError
from vae_bss_tf.files import refuse_existing, write_json, write_text
from vae_bss_tf.phases import Recipe
from vae_bss_tf.presets import PRESETS, for_size, get_preset
from vae_bss_tf.startup import import_tensorflow

if TYPE_CHECKING:
    from training.evaluation.judging import Float32
    from training.evaluation.report import Comparison
    from training.run import Run
    from training.truth_free import MixtureFit
    from vae_bss_tf.datasets import SourceBank
    from vae_bss_tf.datasets.image_mixtures import EvaluationSet

_TABLES = ("comparison.json", "comparison.csv", "comparison.md")
_OF_TRUTH = ("truth.json", "truth.csv", "truth.md")
_LATENTS = ("latents.png", "traversal.png")
_OF_COMPARED = ("num_sources", "seed")
_OF_MIXED = (*_OF_COMPARED, "num_mixed", "num_mixtures", "data_dir", "test_seed")
_FEWEST_MAPPED = 3  # sources
_MOST_MIXTURES = 20_000
_MOST_SOURCES = 64


@dataclasses.dataclass(frozen=True)
class _Job:
    """One table: the systems that are compared at one K on the same mixtures.

    Attributes:
        name: What its figures are called.
        preset: What the mixtures are: the preset of the runs, or that of the data set.
        num_mixed: The counts M.
        num_sources: K.
        systems: The systems, in the order of the table.
        runs: The runs of the trained ones.
        run: Name of the run that is judged alone; None where systems are compared.
    """

    name: str
    preset: Preset
    num_mixed: tuple[int, ...]
    num_sources: int
    systems: "list[System]"
    runs: "list[Run]"
    run: str | None = None

    def __post_init__(self) -> None:
        if self.num_sources < max(self.num_mixed):
            raise ConfigError(
                f"K={self.num_sources} outputs cannot be matched to mixtures of {max(self.num_mixed)} sources; use a "
                "larger K."
            )

    def figures(self) -> list[str]:
        """Names of the figures that may be drawn of it."""
        return [f"separation-{self.name}.png", f"time-{self.name}.png"]


def _command(options: argparse.Namespace) -> None:
    keep_freed_memory()
    _check_range("--num-mixtures", options.num_mixtures, 1, _MOST_MIXTURES)
    for num_sources in options.num_sources:
        _check_range("--num-sources", num_sources, 1, _MOST_SOURCES)
    for num_mixed in options.num_mixed or ():
        _check_range("--num-mixed", num_mixed, 1, _MOST_SOURCES)
    for option, seed in (("--seed", options.seed), ("--test-seed", options.test_seed)):
        _check_range(option, seed, 0, 2**31 - 1)
    if options.truth is not None:
        _refuse(options, _OF_MIXED, "--truth")
        _on_truth(options)
        return
    if options.run:
        _refuse(options, _OF_COMPARED, "--run")
    if not options.run and not options.dataset:
        raise ConfigError("nothing to judge: give --run RUN, or --dataset NAME to compare all systems.")
    import_tensorflow()
    # Everything that can be missing or in the way is found before anything is computed.
    jobs = _jobs_of_runs(options) if options.run else _jobs_of_systems(options)
    output = options.output or (
        options.run[0] / "evaluation" if options.run else Path("runs") / f"comparison-{options.dataset}"
    )
    _check_output(output, [*_TABLES, *_LATENTS, *(name for job in jobs for name in job.figures())], options.force)

    started = time.perf_counter()
    _material.cache_clear()
    comparisons = [_compare(job, options) for job in jobs]
    _write(comparisons, jobs, output, options, started)


def _on_truth(options: argparse.Namespace) -> None:
    """Judges runs on a folder of mixtures with their sources."""
    if not options.run or options.dataset:
        raise ConfigError("--truth judges trained runs on its own mixtures: give --run RUN, and no --dataset.")
    output = options.output or options.run[0] / "evaluation"
    import_tensorflow()
    runs = _finished_runs(options.run)
    _check_output(output, _OF_TRUTH, options.force)
    from training.evaluation import report, truth_folder

    started = time.perf_counter()
    cases, judged = truth_folder.judge(runs, options.truth, options.systems or ())
    rows, title = truth_folder.table(judged), f"{options.truth}: {len(cases)} mixtures with their sources"
    print("\n".join(["", title, tables.to_screen(rows), *truth_folder.sentences(judged)]))
    description = report.describe(options.command, started, None)
    told = f"Command: `{options.command}`"
    lines = [f"# {title}", "", told, "", truth_folder.NOTES, "", *tables.to_markdown(rows), ""]
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / _OF_TRUTH[0], truth_folder.to_json(cases, judged, description))
    write_text(output / _OF_TRUTH[1], truth_folder.to_csv(cases, judged))
    write_text(output / _OF_TRUTH[2], "\n".join([*lines, *truth_folder.sentences(judged), ""]))
    print(f"\n{description['seconds']:.0f} s; tables: {output}\nnext: read {output / _OF_TRUTH[2]}")


def _refuse(options: argparse.Namespace, names: Sequence[str], beside: str) -> None:
    """Refuses options that would change nothing."""
    default = _parser().get_default
    for name in names:
        if getattr(options, name) != default(name):
            raise ConfigError(f"--{name.replace('_', '-')} changes nothing with {beside}; leave it out.")


def _check_range(option: str, value: int, least: int, most: int) -> None:
    check(least <= value <= most, option, value, f"from {least} to {most:,}")


def _check_output(output: Path, names: Sequence[str], force: bool) -> None:
    if output.exists() and not output.is_dir():
        raise OutputExistsError(f"{output} is a file; choose another --output.")
    refuse_existing([output / name for name in names], force=force)


def _finished_runs(paths: Sequence[Path]) -> "list[Run]":
    from training.run import Run

    runs = [Run.load(path) for path in paths]
    for run in runs:
        if not run.metrics:
            raise CheckpointError(f"{run.path} is not finished; finish it with --resume.")
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError("two of the runs have the same name, and so would their figures; judge them one at a time.")
    return runs


def _jobs_of_runs(options: argparse.Namespace) -> list[_Job]:
    runs = _finished_runs(options.run)
    names = [run.path.resolve().name for run in runs]
    jobs = []
    for run, name in zip(runs, names, strict=True):
        preset, kind = run.preset, domain_of(run.preset.audio).kind
        if options.dataset:
            check_choice("data set", options.dataset, DATASETS)
            data = preset.data.replace(dataset=options.dataset, max_shift=0, mirror=False, min_gain=1.0)
            preset = dataclasses.replace(preset, data=data)
        if _are_mixtures(options, run):
            preset = dataclasses.replace(preset, data=preset.data.replace(num_mixed=(1,)))
        num_sources = preset.model.num_sources
        jobs.append(
            _Job(
                name if len(runs) > 1 else f"{preset.data.dataset}-k{num_sources}",
                preset,
                options.num_mixed or preset.data.num_mixed,
                num_sources,
                _systems_of_run(run, kind, options.systems),
                [run],
                name,
            )
        )
    return jobs


def _are_mixtures(options: argparse.Namespace, run: "Run") -> bool:
    """Whether the items of the data set are taken as mixtures: as they are unless the run or the command mixes them."""
    dataset = options.dataset or run.preset.data.dataset
    counts = options.num_mixed or (run.preset.data.num_mixed if dataset == run.preset.data.dataset else (1,))
    return counts == (1,) and dataset in PRESETS and get_preset(dataset).data.num_mixed == (1,)


def _systems_of_run(run: "Run", kind: str, names: Sequence[str] | None) -> list[System]:
    allowed = {name: s for name, s in systems.of(kind).items() if s.trained_as in (None, run.system)}
    if names:
        return [allowed[check_choice(f"system of {run.path}", name, allowed)] for name in names]
    own = [s for s in allowed.values() if s.trained_as and s.name != "vaem-refined"]
    # NMF of images first learns a dictionary; that of sound, and the oracles, come without any training.
    has_nmf = run.preset.model.num_sources <= min(run.preset.model.input_shape)
    kinds = ("untrained", "oracle") if has_nmf else ("oracle",)
    beside = [s for s in allowed.values() if s.kind in kinds] if kind == "sound" else []
    return [allowed["mixture/k"], *own, *beside]


def _jobs_of_systems(options: argparse.Namespace) -> list[_Job]:
    from training.evaluation import judging

    dataset = check_choice("data set", options.dataset, DATASETS)
    preset = get_preset(dataset)
    if dataset == "images":
        from vae_bss_tf.datasets.own_pictures import picture_shape

        preset = for_size(preset, picture_shape(options.data_dir, preset.data))
    num_mixed = options.num_mixed or preset.data.num_mixed
    kind = domain_of(preset.audio).kind
    compared = [systems.find(name, kind) for name in options.systems or systems.of(kind)]
    needed = sorted({system.trained_as for system in compared if system.trained_as})
    if len(num_mixed) > 1 and needed:
        raise ConfigError("--dataset compares systems at one count M; for several, judge a run: --run RUN.")
    jobs = []
    for num_sources in options.num_sources:
        job = _Job(f"{dataset}-k{num_sources}", preset, num_mixed, num_sources, compared, [])
        runs = [
            judging.find_run(
                options.runs_dir, dataset, name, num_sources, num_mixed[0], options.seed, data_dir=options.data_dir
            )
            for name in needed
        ]
        shapes = {(run.preset.model.input_shape, run.preset.audio): run for run in runs}
        if len(shapes) > 1:
            one, other = list(shapes.values())[:2]
            raise ConfigError(
                f"{one.path} and {other.path} take mixtures of different shapes or audio settings; judge them one at "
                "a time, with --run."
            )
        jobs.append(dataclasses.replace(job, runs=runs, preset=runs[0].preset if runs else preset))
    return jobs


@functools.lru_cache(maxsize=1)
def _material(
    preset: Preset, num_mixed: tuple[int, ...], learns: bool, data_dir: Path | None, num_mixtures: int, test_seed: int
) -> "tuple[Material, Float32, SourceBank]":
    """What untrained systems are made from, training mixtures for the counting threshold, and the test split."""
    from training.evaluation import judging

    banks = pipeline.load_banks(preset, data_dir, ("train", "test"))

    def drawn(split: str, number: int, seed: int) -> "EvaluationSet":
        return pipeline.evaluation_data(preset, banks[split], num_mixtures=number, num_mixed=num_mixed, seed=seed)

    truth = drawn("test", pipeline.num_distinct(preset, banks["test"], num_mixtures), test_seed)
    counting = drawn("train", judging.THRESHOLD_MIXTURES, judging.TRAINING_SEED).mixtures
    learning = drawn("train", judging.NMF_MIXTURES, judging.TRAINING_SEED).mixtures if learns else counting
    return Material(truth, learning), counting, banks["test"]


def _compare(job: _Job, options: argparse.Namespace) -> "Comparison":
    from training.evaluation import judging
    from training.evaluation.report import Comparison

    # Sources have the level that the runs were trained with; of the model only the shape, so that all K share mixtures.
    data = job.preset.data if job.runs else job.preset.data.replace(num_mixed=job.num_mixed)
    preset = Preset(ModelConfig(input_shape=job.preset.model.input_shape), data, Recipe(), job.preset.audio)
    learns = any(system.learns for system in job.systems)
    material, counting, bank = _material(
        preset, job.num_mixed, learns, options.data_dir, options.num_mixtures, options.test_seed
    )
    has_truth = bank.has_truth
    separators: dict[str, tuple[judging.Separate, Budget]] = {}
    fits: dict[str, MixtureFit] = {}
    for run in job.runs:
        judged_on = run.metrics.get("data", {"test": bank.fingerprint()})
        if run.preset.data.dataset == bank.name and judged_on != {"test": bank.fingerprint()}:
            print(
                f"warning: the test split is not the one that {run.path} was judged on when its training ended; where "
                "files were added, removed or moved since, it may hold some that were trained on.",
                file=sys.stderr,
            )
        spent, model = judging.run_budget(run), run.model()
        separators |= {name: (separate, spent) for name, separate in judging.run_separators(run, model).items()}
        fits |= judging.run_fits(run, model, material.truth)
    results = []
    for system in job.systems:
        if system.kind == "oracle" and not has_truth:
            continue
        separate, budget = separators.get(system.name) or (
            system.bound(material, job.num_sources),
            system.fitted(material),
        )
        known = (job.num_sources, budget, fits.get(system.name))
        results.append(judging.judge(system, separate, material.truth, counting, *known, has_truth=has_truth))
        print(f"K={job.num_sources}  {system.title}: judged", file=sys.stderr, flush=True)
    if not results:
        raise ConfigError(
            f"{job.preset.data.dataset} has no true sources, and oracles need them; choose other --systems."
        )
    return Comparison(job.preset.data.dataset, job.num_sources, material.truth, results, job.run, has_truth)


def _write(
    comparisons: "list[Comparison]", jobs: list[_Job], output: Path, options: argparse.Namespace, started: float
) -> None:
    from training.evaluation import figures as pictures
    from training.evaluation import report, without_truth
    from training.figures import save

    for comparison in comparisons:
        print(f"\n{report.title(comparison)}\n{tables.to_screen(report.table(comparison))}")
        if comparison.has_truth and len(comparison.results) > 1:
            print(f"\n{tables.to_screen(report.paired_table(comparison))}")
        if not comparison.has_truth:
            judged_vaem = any(result.system.name == "vaem" for result in comparison.results)
            print(without_truth.NOTE + (" `separate` writes what VAEM gives." if judged_vaem else ""))
        if sentence := report.verdict(comparison):
            print(sentence)
        counted = report.confusion(comparison, report.reference(comparison))
        if counted:
            print(f"\nsources found:\n{tables.to_screen(counted)}")
    output.mkdir(parents=True, exist_ok=True)
    description = report.describe(options.command, started, options.test_seed)
    write_json(output / _TABLES[0], report.to_json(comparisons, description))
    write_text(output / _TABLES[1], report.to_csv(comparisons))
    write_text(output / _TABLES[2], report.to_markdown(comparisons, description))
    for job, comparison in zip(jobs, comparisons, strict=True):
        separation, against_time = job.figures()
        save(pictures.systems_grid(comparison), output / separation)
        if comparison.has_truth and any(result.budget for result in comparison.results):
            save(pictures.score_against_time(comparison), output / against_time)
    judged = [(run, comparison) for job, comparison in zip(jobs, comparisons, strict=True) for run in job.runs]
    of_model = next(((run, comparison) for run, comparison in judged if run.system == "vae"), None)
    if of_model is not None:
        model, comparison = of_model[0].model(), of_model[1]
        # The map is coloured by true classes and has two dimensions.
        if comparison.has_truth and model.config.latent_dim > 1 and comparison.truth.counts.sum() > _FEWEST_MAPPED:
            save(pictures.latent_map(model, comparison.truth), output / _LATENTS[0])
        save(pictures.latent_traversal(model, comparison.truth), output / _LATENTS[1])
    print(f"\n{description['seconds']:.0f} s; tables and figures: {output}")
    print(f"next: read {output / 'comparison.md'}")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise argparse.ArgumentTypeError("names no system; leave the option out for the default")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m training.evaluate",
        description="Scores trained runs on test mixtures, or compares every system on the same mixtures.",
        epilog="examples: python -m training.evaluate --run runs/digits-k2-seed0; "
        "python -m training.evaluate --dataset mnist --data-dir DIR --num-sources 2,3; "
        "python -m training.evaluate --run runs/own --truth DIR",
    )
    parser.add_argument("--run", type=path, nargs="+", default=[], help="run folders to score")
    parser.add_argument(
        "--dataset",
        help=f"data set of the comparison (or to judge --run on): {', '.join(DATASETS)}",
    )
    parser.add_argument(
        "--systems",
        type=_names,
        metavar="NAME[,NAME...]",
        help="systems to compare (default: all; with --run, the run's own and, for sound, NMF and oracle masks; with "
        "--truth, those to judge beside --run, such as nmf-kl,irm)",
    )
    parser.add_argument(
        "--num-sources", type=counts, default=(2,), metavar="K[,K...]", help="K, a table for each (default: 2)"
    )
    parser.add_argument(
        "--num-mixed", type=counts, metavar="M[,M...]", help="sources in a mixture (default: as trained)"
    )
    parser.add_argument("--runs-dir", type=path, default=Path("runs"), help="where saved runs are (default: runs)")
    parser.add_argument("--data-dir", type=path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument(
        "--truth",
        type=path,
        metavar="DIR",
        help="score --run on the mixtures in DIR, each in a folder of its own: mixture.wav, source1.wav, source2.wav",
    )
    parser.add_argument("--num-mixtures", type=int, default=5_000, help="test mixtures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed that the runs were trained with (default: 0)")
    parser.add_argument("--test-seed", type=int, default=0, help="seed of the test mixtures (default: 0)")
    parser.add_argument("--output", type=path, help="folder to write to (default: in the run, or in runs/)")
    parser.add_argument("--force", action="store_true", help="replace the tables and figures of an earlier evaluation")
    return parser


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
