"""Files wherever Beam's file systems reach: found by patterns, brought near, written beside their place and renamed.

A place is a path of this machine, or a URL such as `gs://bucket/takes`, `s3://...` or `hdfs://...`.
"""

import contextlib
import itertools
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from vae_bss_tf import files
from vae_bss_tf.audio import context
from vae_bss_tf.errors import DataError
from vae_bss_tf.runtime.manifest import MANIFEST

_MAGIC = re.compile(r"[*?[]")
_SHARED = (MANIFEST, "metrics.json", *(f"{context.FOLDER}/{name}" for name in (context.WEIGHTS, context.CONFIG)))


def is_local(place: str) -> bool:
    """Whether a place is a path of this machine."""
    return "://" not in place


def absolute(given: str) -> str:
    """Writes a place so that it means the same in every process.

    Args:
        given: A file, a folder or a pattern, local or not.

    Returns:
        The same, local paths as absolute ones; a local folder and whatever ended with a slash ends with a slash.
    """
    if not is_local(given):
        return given
    return os.path.abspath(given) + ("/" if given.endswith("/") or os.path.isdir(given) else "")


def root(places: Iterable[str]) -> str:
    """Returns the innermost folder that holds all that is named, with a slash at its end.

    Args:
        places: Files, folders and patterns, as `absolute` writes them.
    """
    folders = []
    for place in places:
        fixed = place if _is_here(place) else _MAGIC.split(place, maxsplit=1)[0]
        folders.append(fixed[: fixed.rfind("/")].split("/"))
    common = [
        parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    ]
    return "/".join(common) + "/"


def find(place: str, suffixes: Sequence[str], output: str) -> list[str]:
    """Lists the files that are named.

    Args:
        place: A file; a folder, which ends with a slash; or a pattern with `*`, `?`, `[...]`, and `**/` for any number
            of folders.
        suffixes: What the names of the files in a folder end in, in lower case; files that are named by themselves or
            by a pattern may end in anything.
        output: The folder that is written to, whose files are no inputs.

    Returns:
        Their places, in order.

    Raises:
        DataError: The file system is unknown or cannot be listed.
    """
    folder = place.endswith("/")
    if _is_here(place):  # whatever its name: brackets in it are no pattern
        if not folder:
            return [place]
        found = set(map(str, files.files_under(Path(place), tuple(suffixes))))
    else:
        # Beam's `**/` stands for one folder at least: the twin without it finds the files of the folder above.
        patterns = [f"{place}**"] if folder else sorted({place, re.sub(r"(?<=/)\*\*/", "", place)})
        with _told(place):
            found = {file.path for match in FileSystems.match(patterns) for file in match.metadata_list}
    if folder:
        found = {path for path in found if path.lower().endswith(tuple(suffixes))}
    return sorted(path for path in found if files.PARTIAL not in path and not path.startswith(f"{output}/"))


@contextlib.contextmanager
def fetched(place: str) -> Iterator[Path]:
    """Gives a file as one of this machine: itself, or a copy that lasts as long as the block.

    Raises:
        DataError: It cannot be read.
    """
    if is_local(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / place.rsplit("/", 1)[1]
        with (
            _told(place),
            FileSystems.open(place, compression_type=CompressionTypes.UNCOMPRESSED) as source,
            copy.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        yield copy


@contextlib.contextmanager
def fetched_tree(place: str) -> Iterator[Path]:
    """Gives a model's file or folder as one of this machine: itself, or a copy that lasts as long as the block.

    Beside the copy of a file or SavedModel of an export is what the export holds for all of them: its manifest, its
    scores and its context network.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    if is_local(place):
        yield Path(place)
        return
    with _told(place):
        under = FileSystems.match([f"{place}/**"])[0].metadata_list
        found = [file.path for file in under] or [place] * FileSystems.exists(place)
        is_whole = any(f"{place}/{name}" in found for name in (MANIFEST, context.CONFIG))  # an export or a run
        export = None if is_whole else _export_of(place)
        if found and export is not None:
            found += [shared for name in _SHARED if _may_be_read(shared := f"{export}/{name}")]
    if not found:
        raise DataError(f"there is nothing at {place}; check the place.")
    root = export or place.rsplit("/", 1)[0]
    with tempfile.TemporaryDirectory() as folder:
        for name in found:
            target = Path(folder) / name.removeprefix(root).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            with fetched(name) as file:
                shutil.copyfile(file, target)
        yield Path(folder) / place.removeprefix(root).lstrip("/")


def _export_of(place: str) -> str | None:
    """The folder, one or two above a place of another file system, that holds the manifest of an export."""
    for _ in range(2):
        place = place.rpartition("/")[0]
        if place.endswith("/"):  # the rest of the scheme
            return None
        if _may_be_read(f"{place}/{MANIFEST}"):
            return place
    return None


def _may_be_read(place: str) -> bool:
    """Whether there is a file; one that its file system does not let be looked for is none."""
    try:
        return bool(FileSystems.exists(place))
    except (BeamIOError, OSError):
        return False


@contextlib.contextmanager
def delivered(folder: str) -> Iterator[Path]:
    """Gives a folder of this machine whose files are in the given one when the block ends without an error.

    A local folder is given itself, for a writer that renames. Files for another file system are written beside their
    place there and renamed, in the order of their names.

    Raises:
        DataError: A file cannot be written.
    """
    if is_local(folder):
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as here:
        yield Path(here)
        for file in sorted(Path(here).iterdir()):
            _upload(file, f"{folder}/{file.name}")


def exists(place: str) -> bool:
    """Whether there is such a file.

    Raises:
        DataError: The file system cannot be asked.
    """
    if is_local(place):
        return os.path.isfile(place)
    with _told(place):
        return FileSystems.exists(place)


def is_empty(folder: str) -> bool:
    """Whether a folder holds no file or is not there."""
    if is_local(folder):
        return not os.path.isdir(folder) or all(name.startswith(files.PARTIAL) for name in os.listdir(folder))
    with _told(folder):
        return not FileSystems.match([f"{folder}/**"], limits=[1])[0].metadata_list


def write_text(place: str, text: str) -> None:
    """Writes text as UTF-8, beside its place and renamed.

    Raises:
        DataError: It cannot be written.
    """
    if is_local(place):
        files.write_text(Path(place), text)
        return
    with tempfile.TemporaryDirectory() as here:
        file = Path(here) / "text"
        file.write_text(text, encoding="utf-8")
        _upload(file, place)


def read_text(place: str) -> str:
    """Reads a file of UTF-8 text.

    Raises:
        DataError: It cannot be read.
    """
    with fetched(place) as file:
        return file.read_text(encoding="utf-8")


def _upload(file: Path, place: str) -> None:
    folder, name = place.rsplit("/", 1)
    partial = f"{folder}/{files.PARTIAL}{uuid.uuid4().hex}-{name}"
    with _told(place):
        with (
            file.open("rb") as source,
            FileSystems.create(partial, compression_type=CompressionTypes.UNCOMPRESSED) as target,
        ):
            shutil.copyfileobj(source, target)
        if FileSystems.exists(place):
            FileSystems.delete([place])
        FileSystems.rename([partial], [place])


def _is_here(place: str) -> bool:
    return is_local(place) and os.path.exists(place)


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Turns what Beam's file systems raise into one line."""
    try:
        yield
    except (BeamIOError, OSError, ValueError, ImportError) as error:
        details = getattr(error, "exception_details", None)
        reason = next(iter(details.values())) if isinstance(details, dict) and details else error
        line = (str(reason).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{place} cannot be reached ({line}); check the place and the rights to it.") from error
