"""Runs on mixtures of one's own whose sources are known: folders that each hold a mixture and its sources."""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training import tables
from training.evaluation import references
from training.evaluation.references import Float32, Separate
from training.evaluation.statistics import Float64, PairedComparison, Summary, compare, summarise
from training.run import Run
from vae_bss_tf import metrics
from vae_bss_tf.audio import SUFFIXES
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import ConfigError, DataError

Reader = Callable[[Path], tuple[Float32, Any]]

MIXTURE = "the mixture itself"
HEADINGS = {
    "psnr": "PSNR",
    "si_sdr": "SI-SDR",
    "si_sir": "SI-SIR",
    "si_sar": "SI-SAR",
    "window_si_sdr": "by windows",
    "exchanged": "exchanged",
    "exchanges_per_minute": "exchanges a minute",
}
NOTES = (
    "Scores in dB over whole files: the mean over a file's sources, in the order of the outputs that has the largest "
    f"sum of SI-SDR. '{MIXTURE}', taken for each source, is what no separation scores. ± is half the 95 % bootstrap "
    "interval over the files. PSNR is that of pictures with peak 1, of sources as they stand in the mixture. "
    "Of sound, 'by windows' is the mean SI-SDR of windows of half a second, each in its own best order; 'exchanged' is "
    "the share of windows whose best order is not the file's, 'exchanges' how often the best order changes."
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One folder: a mixture and its sources.

    Attributes:
        name: The folder's name.
        mixture: The file of the mixture.
        sources: The files of its sources, one or more.
    """

    name: str
    mixture: Path
    sources: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Judged:
    """One system on all folders.

    Attributes:
        title: What it is called.
        scores: float64 `[num_cases]` for each score, named and described as in `HEADINGS` and `NOTES`.
    """

    title: str
    scores: dict[str, Float64]

    def summaries(self) -> dict[str, Summary]:
        """Summary of each score over the folders."""
        return {name: summarise(values) for name, values in self.scores.items()}


def find_cases(folder: Path, suffixes: Sequence[str]) -> list[Case]:
    """Finds the folders with a mixture and its sources: `NAME/mixture.flac`, `NAME/source1_cello.flac`, ...

    Args:
        folder: The folder that holds them. Files beside them are ignored.
        suffixes: What the names of files end in, in lower case.

    Returns:
        The cases, in the order of their names.

    Raises:
        DataError: There is no such folder, or none in it; one holds no mixture, several, or no source.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give --truth a folder of folders, each with a mixture and its sources.")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not inside:
        raise DataError(f"{folder} holds no folders; each mixture needs one of its own, with its sources beside it.")
    return [_case(path, suffixes) for path in inside]


def _case(folder: Path, suffixes: Sequence[str]) -> Case:
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in suffixes)
    mixtures = [path for path in files if path.stem == "mixture"]
    sources = [path for path in files if path.stem.startswith("source")]
    if len(mixtures) != 1:
        found = "several mixtures" if mixtures else "no mixture"
        raise DataError(f"{folder} holds {found}; it needs one mixture.* ({', '.join(suffixes)}).")
    if not sources:
        raise DataError(f"{folder} holds no sources; it needs source1*, source2*, ... beside {mixtures[0].name}.")
    return Case(folder.name, mixtures[0], tuple(sources))


def judge(runs: Sequence[Run], folder: Path, beside: Sequence[str] = ()) -> tuple[list[Case], list[Judged]]:
    """Separates every mixture of a folder with each run and scores what comes out.

    Args:
        runs: The runs, all for sound or all for images.
        folder: As `find_cases` takes it.
        beside: Systems that need no run and are judged too, as `references.find` takes them, with the settings of the
            first run.

    Returns:
        The cases, and what was judged: the mixture itself, each run, then the systems beside them.

    Raises:
        ConfigError: The runs are for different kinds of mixtures, or a system beside them needs a run.
        DataError: As `find_cases`; or a file cannot be read, the files of a case do not fit each other, or it has more
            sources than a run has outputs.
        CheckpointError: A run's model is missing or damaged.
    """
    first = runs[0].preset
    added = [references.find(name, first.audio, first.model.num_sources) for name in beside]
    cases, read = _cases([run.preset for run in runs], folder)
    own = [(run.path.resolve().name, references.of_model(run.model(), run.preset.audio, run.path)) for run in runs]
    return cases, _judged(cases, read, [*own, *added], is_sound=first.audio is not None)


def judge_model(model: Any, preset: Preset, folder: Path) -> dict[str, Float64]:
    """Separates every mixture of a folder with one model and scores what comes out.

    Args:
        model: The model, as `Run.model` gives it.
        preset: Its settings.
        folder: As `find_cases` takes it.

    Returns:
        float64 `[num_cases]` for each score, as `Judged` holds them.

    Raises:
        DataError: As `judge`.
    """
    separate = references.of_model(model, preset.audio)
    return _judged(*_cases([preset], folder), [("", separate)], is_sound=preset.audio is not None)[1].scores


def judge_separators(separators: Mapping[str, Callable[[Float32, float], Float32]], folder: Path) -> list[Judged]:
    """Separates every recording of a folder with anything that takes waveforms, and scores what comes out.

    Args:
        separators: By title, what takes float32 `[samples]`, the mean of a recording's channels, and its rate in Hz,
            and gives float32 `[num_sources, samples]`.
        folder: As `find_cases` takes it.

    Returns:
        What was judged: the mixture itself, then each of them.

    Raises:
        DataError: As `judge`.
    """

    def separated(separate: Callable[[Float32, float], Float32]) -> Separate:
        return lambda mixture, form, sources: separate(mixture[0], form[-1])[:, np.newaxis]

    systems = [(title, separated(separate)) for title, separate in separators.items()]
    return _judged(find_cases(folder, SUFFIXES), _read_mono, systems, is_sound=True)


def _cases(presets: Sequence[Preset], folder: Path) -> tuple[list[Case], Reader]:
    """The cases that models of these settings can be judged on, and what reads their files."""
    if len({preset.audio is None for preset in presets}) > 1:
        raise ConfigError("some runs are for images and some for sound; judge them one kind at a time.")
    shapes = {preset.model.input_shape for preset in presets}
    if presets[0].audio is None:
        if len(shapes) > 1:
            raise ConfigError("the runs take pictures of different sizes; judge them one size at a time.")
        from vae_bss_tf.pictures import reading as pictures

        suffixes: tuple[str, ...] = pictures.SUFFIXES
        read = _picture_reader(*shapes)
    else:
        suffixes, read = SUFFIXES, _read_recording
    cases = find_cases(folder, suffixes)
    fewest = min(preset.model.num_sources for preset in presets)
    for case in cases:
        if len(case.sources) > fewest:
            raise DataError(f"{case.name} has {len(case.sources)} sources, the model {fewest} outputs; leave it out.")
    return cases, read


def _judged(
    cases: Sequence[Case], read: Reader, systems: Sequence[tuple[str, Separate]], *, is_sound: bool
) -> list[Judged]:
    """What was judged: the mixture itself, then each system, given by its title and how it separates."""
    systems = [(MIXTURE, references.mixture_itself), *systems]
    rows: list[list[dict[str, float]]] = []
    for case in cases:
        mixture, form, sources = _loaded(case, read)
        try:
            outputs = [separate(mixture, form, sources) for _, separate in systems]
        except DataError as error:
            raise DataError(f"{case.mixture}: {error}") from error
        rows.append([_scores(output, sources, form[-1] if is_sound else None) for output in outputs])
        print(f"{case.name}: judged", file=sys.stderr, flush=True)
    return [
        Judged(title, {name: np.asarray([row[i][name] for row in rows]) for name in rows[0][i]})
        for i, (title, _) in enumerate(systems)
    ]


def _picture_reader(shape: tuple[int, ...]) -> Reader:
    from vae_bss_tf.pictures import reading as pictures

    def read(path: Path) -> tuple[Float32, Any]:
        found = pictures.pictures_in(path)
        if len(found) != 1:
            raise DataError(f"{path} holds {len(found)} pictures; a mixture or source is one.")
        values = pictures.read(found[0])
        return pictures.fitted(values, shape, resize=True, convert=True, name=str(path)), values.shape[:2]

    return read


def _read_recording(path: Path) -> tuple[Float32, Any]:
    from vae_bss_tf.audio import recordings

    recording = recordings.describe(path)
    form = (recording.num_samples, recording.num_channels, recording.sample_rate)
    return np.concatenate(list(recordings.blocks(recording))).T, form


def _read_mono(path: Path) -> tuple[Float32, Any]:
    samples, (count, _, rate) = _read_recording(path)
    return samples.mean(axis=0, keepdims=True), (count, 1, rate)


def _loaded(case: Case, read: Reader) -> tuple[Float32, Any, Float32]:
    """The mixture of a case, its size or length and rate, and its sources `[num_sources, ...]`."""
    mixture, form = read(case.mixture)
    sources = []
    for path in case.sources:
        source, found = read(path)
        if found != form:
            raise DataError(
                f"{path} is of {_told(found)} and {case.mixture.name} of {_told(form)}; they must be the same."
            )
        sources.append(source)
    return mixture, form, np.stack(sources)


def _told(form: tuple[int, ...]) -> str:
    if len(form) == 2:
        return f"{form[0]}x{form[1]} pixels"
    return f"{form[0]} samples, {form[1]} channel{'s'[: form[1] != 1]}, {form[2]} Hz"


def _scores(outputs: Float32, sources: Float32, sample_rate: float | None) -> dict[str, float]:
    """Means over the sources of one mixture, in the order of the outputs that has the largest sum of SI-SDR."""
    ratios = metrics.pairwise_si_bss_eval(outputs[np.newaxis], sources[np.newaxis])
    assignment = metrics.match_sources(ratios.sdr)
    best = [float(np.take_along_axis(ratio, assignment[:, np.newaxis], axis=1).mean()) for ratio in ratios]
    scores = dict(zip(("si_sdr", "si_sir", "si_sar"), best, strict=True))
    if sample_rate is None:
        matched = metrics.take_matched(outputs[np.newaxis], assignment)
        return {"psnr": float(metrics.psnr(matched, sources[np.newaxis]).mean()), **scores}
    found = metrics.continuity(outputs, sources, assignment[0], sample_rate)
    return {**scores, **found._asdict()}


def table(judged: Sequence[Judged]) -> list[list[str]]:
    """The systems as rows of text, with a heading."""
    rows = [["system", *(HEADINGS[name] for name in judged[0].scores)]]
    for system in judged:
        cells = [f"{s.mean:.2f} ± {(s.high - s.low) / 2:.2f}" for s in system.summaries().values()]
        rows.append([system.title, *cells])
    return rows


def against_mixture(judged: Sequence[Judged]) -> dict[str, PairedComparison]:
    """Each run less the mixture itself, by SI-SDR on the same files."""
    mixture, *others = judged
    return {other.title: compare(other.scores["si_sdr"], mixture.scores["si_sdr"]) for other in others}


def sentences(judged: Sequence[Judged]) -> list[str]:
    """One line for each run: how far it is ahead of the mixture itself."""
    return [
        f"{name} less {MIXTURE}: SI-SDR {one.difference:+.2f} dB (95 % interval {one.low:+.2f} to {one.high:+.2f}), "
        f"ahead on {100 * one.wins:.0f} % of the files"
        for name, one in against_mixture(judged).items()
    ]


def to_csv(cases: Sequence[Case], judged: Sequence[Judged]) -> str:
    """One line for each folder and system."""
    rows = [["folder", "system", *judged[0].scores]]
    for i, case in enumerate(cases):
        for system in judged:
            rows.append([case.name, system.title, *(f"{values[i]:.6g}" for values in system.scores.values())])
    return tables.to_csv(rows)


def to_json(cases: Sequence[Case], judged: Sequence[Judged], description: dict[str, Any]) -> dict[str, Any]:
    """Everything as values that JSON can hold."""
    names = [case.name for case in cases]
    return {
        **description,
        "notes": NOTES,
        "folders": names,
        "results": [
            {
                "system": system.title,
                "scores": {name: dataclasses.asdict(summary) for name, summary in system.summaries().items()},
                "by_folder": {name: values.tolist() for name, values in system.scores.items()},
            }
            for system in judged
        ],
        "against_mixture": {name: dataclasses.asdict(one) for name, one in against_mixture(judged).items()},
    }
