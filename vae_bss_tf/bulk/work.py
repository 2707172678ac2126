"""What is done to one file: a recording or a file of pictures is separated, unless it has been already."""

import abc
import collections
import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from vae_bss_tf import audio, files
from vae_bss_tf.audio.context import weights_of
from vae_bss_tf.bulk import losses, storage
from vae_bss_tf.errors import DataError, VaeBssError
from vae_bss_tf.runtime.loading import latest_version

SEPARATED, FINISHED, FAILED = "separated", "finished", "failed"


@dataclasses.dataclass(frozen=True)
class Task:
    """A file to separate.

    Attributes:
        path: Its place.
        name: Its path below the job's root, without the suffix; its outputs' names begin with it.
        refused: Why it is not to be separated; empty where it is.
    """

    path: str
    name: str
    refused: str = ""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a file.

    Attributes:
        path: Its place.
        status: `SEPARATED`, `FINISHED` (by an earlier run of the job) or `FAILED`.
        sound: Seconds of sound that were separated.
        work: Seconds that it took.
        error: What is wrong with it, one line; empty unless it failed.
    """

    path: str
    status: str
    sound: float = 0.0
    work: float = 0.0
    error: str = ""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every worker needs to know.

    Attributes:
        model: The model's place: a run, an export, one of its files, or a URL of a server.
        output: The folder to write to.
        file_format: Format of the sound files; None takes each recording's own.
        allow_truncated: Whether recordings that are shorter than their header says are separated.
        marks: Folder for the marks of `losses`; None where no process of this machine works for the job.
    """

    model: str
    output: str
    file_format: str | None = None
    allow_truncated: bool = False
    marks: str | None = None


class Worker(abc.ABC):
    """Separates one file after another by one model.

    Args:
        settings: Of the job.

    Attributes:
        num_sources: Sources of the model.
    """

    num_sources: int

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def run(self, task: Task) -> Outcome:
        """Separates a file; whatever is wrong with it becomes part of the outcome."""
        if task.refused:
            return Outcome(task.path, FAILED, error=task.refused)
        start = time.monotonic()
        folder, _, stem = f"{self._settings.output}/{task.name}".rpartition("/")
        try:
            losses.mark(self._settings.marks, task.path)
            if self._is_finished(task, folder, stem):
                return Outcome(task.path, FINISHED)
            with storage.fetched(task.path) as file, _calling(file, task.path), storage.delivered(folder) as output:
                output.mkdir(parents=True, exist_ok=True)
                seconds = self._separate(file, output)
        except Exception as error:  # decoders and runtimes raise errors of many kinds, and the job outlives them all
            return Outcome(task.path, FAILED, work=time.monotonic() - start, error=_line(error))
        finally:
            losses.mark(self._settings.marks, "")
        return Outcome(task.path, SEPARATED, seconds, time.monotonic() - start)

    @abc.abstractmethod
    def _is_finished(self, task: Task, folder: str, stem: str) -> bool:
        """Whether every output of a file is there."""

    @abc.abstractmethod
    def _separate(self, file: Path, output: Path) -> float:
        """Separates a file of this machine into a folder of this machine; returns the seconds of sound."""


class RecordingWorker(Worker):
    """Separates recordings."""

    def __init__(self, settings: Settings) -> None:
        from vae_bss_tf.audio.separator import Separator

        super().__init__(settings)
        with _model(settings.model) as model:
            self._separator = Separator.load(model)
        self.num_sources = self._separator.num_sources

    def _is_finished(self, task: Task, folder: str, stem: str) -> bool:
        from vae_bss_tf.audio import recordings, stems

        def are_there(suffix: str) -> bool:
            numbers = range(1, self.num_sources + 1)
            return all(storage.exists(f"{folder}/{stem}_source{k}.{suffix}") for k in numbers)

        options = self._settings
        told = options.file_format or os.path.splitext(task.path)[1][1:].lower().replace("aiff", "aif")
        if told in audio.FORMATS and are_there(told):
            return True
        found = [] if options.file_format else [suffix for suffix in audio.FORMATS if are_there(suffix)]
        if not found:
            return False
        # A recording's own format follows from its content, but another one's may be of the same stem.
        with storage.fetched(task.path) as file, _calling(file, task.path):
            recording = recordings.describe(file, allow_truncated=options.allow_truncated)
            return stems.choose_format(recording) in found

    def _separate(self, file: Path, output: Path) -> float:
        from vae_bss_tf.audio import recordings

        options = self._settings
        recording = recordings.describe(file, allow_truncated=options.allow_truncated)
        self._separator.separate_file(
            file, output, file_format=options.file_format, allow_truncated=options.allow_truncated, force=True
        )
        return recording.seconds


class PictureWorker(Worker):
    """Separates pictures: one, or of an `.npy` or `.npz` every one that it holds."""

    def __init__(self, settings: Settings) -> None:
        from vae_bss_tf.pictures.separator import PictureSeparator

        super().__init__(settings)
        with _model(settings.model) as model:
            self._separator = PictureSeparator.load(model)
        self.num_sources = self._separator.num_sources

    def _is_finished(self, task: Task, folder: str, stem: str) -> bool:
        names = picture_files(task.path, self.num_sources)
        return all(storage.exists(f"{folder}/{name}") for name in names)

    def _separate(self, file: Path, output: Path) -> float:
        from vae_bss_tf.pictures.reading import pictures_in

        for picture in pictures_in(file):
            self._separator.separate_file(picture, output, force=True)
        return 0.0


def picture_files(path: str, num_sources: int) -> list[str]:
    """Names the files that the pictures of a file are separated into.

    Args:
        path: Its place; only an `.npy` or `.npz` is opened.
        num_sources: Sources of the model.

    Returns:
        Their names, in order.

    Raises:
        DataError: Two pictures would be written to the same name, or an array cannot be read.
    """
    from vae_bss_tf.pictures import ARRAY_SUFFIXES
    from vae_bss_tf.pictures.reading import Picture, pictures_in
    from vae_bss_tf.pictures.separator import places

    pictures = [Picture(Path(path))]
    if path.lower().endswith(ARRAY_SUFFIXES):
        with storage.fetched(path) as file, _calling(file, path):
            pictures = pictures_in(file)
    names = [place.name for picture in pictures for place in places(picture, Path(), num_sources)]
    repeated = next((name for name, count in collections.Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise DataError(f"several pictures of {path} would be written to {repeated}; rename its arrays.")
    return names


def separates_pictures(model: str, inputs: Sequence[str], output: str) -> bool:
    """Whether a model is one of images, by its settings or, where it comes without them, by what it is given.

    Args:
        model: Its place.
        inputs: Files, folders and patterns, as `storage.find` takes them; the suffixes of what they hold count.
        output: The folder that is written to.

    Returns:
        True for images, False for sound.

    Raises:
        DataError: It is on another file system, which cannot be reached.
    """
    from vae_bss_tf import audio, pictures
    from vae_bss_tf.runtime.loading import described

    with _model(model) as near:
        preset = described(near)
    if preset is not None:
        return preset.audio is None
    suffixes = (*pictures.SUFFIXES, *audio.SUFFIXES)
    found = [name.lower() for place in inputs for name in storage.find(place, suffixes, output)]
    # Recordings may have the picture of a cover beside them.
    return any(name.endswith(pictures.SUFFIXES) for name in found) and not any(
        name.endswith(audio.SUFFIXES) for name in found
    )


def fingerprint(model: str) -> str:
    """Identifies a model by its content: the SHA-256 of its file, its manifest or a SavedModel's files; or by its URL.

    A context network beside it is a part of it.

    Args:
        model: Its place.

    Returns:
        64 hexadecimal digits, or the URL.

    Raises:
        DataError: There is no such model, or it holds no file that could identify it.
    """
    if _on_server(model):
        return model
    with _model(model) as place:
        context = weights_of(place)
        parts = [*_parts(Path(place), model), *([] if context is None else [context])]
        digests = list(map(files.sha256, parts))
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _parts(path: Path, model: str) -> list[Path]:
    """The files that tell a model from others."""
    if path.is_file():
        return [path]
    for name in ("manifest.json", "model.keras"):
        if (path / name).is_file():
            return [path / name]
    path = latest_version(path)
    if not (path / "saved_model.pb").is_file():
        raise DataError(f"{model} is no run, export, SavedModel, .tflite or .onnx of this package.")
    return [path / "saved_model.pb", *sorted((path / "variables").glob("*"))]


def _on_server(model: str) -> bool:
    return model.startswith(("http://", "grpc://"))


@contextlib.contextmanager
def _model(model: str) -> Iterator[Path | str]:
    """Gives a model as `runtime.load` takes it."""
    if _on_server(model):
        yield model
    else:
        with storage.fetched_tree(model) as near:
            yield near


@contextlib.contextmanager
def _calling(file: Path, path: str) -> Iterator[None]:
    """Has an error call a file by the place that the user knows, in place of its copy's."""
    try:
        yield
    except (VaeBssError, OSError) as error:
        raise DataError(_line(error).replace(str(file), path)) from error


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, VaeBssError | OSError) and text else f"{type(error).__name__}: {text}"
