"""Files written beside their place and renamed, so that a reader never sees half of one; and locks of folders."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vae_bss_tf.errors import ConfigError, DataError, OutputExistsError

PARTIAL = ".partial-"  # begins the names of folders for what is being written
_RETIRED = ".replaced"
_LONGEST_NAME = 255  # bytes


@contextlib.contextmanager
def held(folder: Path, *, wait: bool, shared: bool = False) -> Iterator[None]:
    """Locks a folder; the lock ends with the process, however it ends.

    Args:
        folder: The folder, which must exist.
        wait: Whether to wait until no other process holds the lock.
        shared: Whether others may hold it too, if they share it as well.

    Yields:
        None.

    Raises:
        BlockingIOError: Another process holds the lock, and `wait` is False.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def find_files(folder: Path, suffixes: tuple[str, ...], what: str, output: Path | None = None) -> list[Path]:
    """Lists the files of a kind under a folder, in the order of their paths. Links are followed, to each folder once.

    Args:
        folder: The folder; those inside it are searched too.
        suffixes: What their names end in, in lower case; names in upper case count too.
        what: What one of them is called in messages.
        output: Where a command writes to: what lies there is left out.

    Returns:
        The files.

    Raises:
        DataError: There is no such folder, no such file under it, a link to nothing of such a name, or a folder inside
            it cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; name one that holds {what}s ({', '.join(suffixes)}).")
    paths = sorted(files_under(folder, suffixes))
    if output is not None and paths:
        written = output.resolve()
        paths = [path for path in paths if written not in (path.parent.resolve() / path.name).parents]
        if not paths:
            raise DataError(f"{folder} holds no {what} but in {output}, which is written to; choose another output.")
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} is a link to nothing; mend it, or leave it out.")
    if not paths:
        raise DataError(f"{folder} holds no {what} ({', '.join(suffixes)}); name the folder that does.")
    return paths


def files_under(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Lists the files of a kind under a folder, links to nothing among them, in no order.

    Args:
        folder: The folder; those inside it are searched too, by links as well, each once.
        suffixes: As `find_files` takes them.

    Returns:
        The files; none where there are none.

    Raises:
        DataError: A folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read ({error.strerror}); allow it, or move it elsewhere.")

    paths, visited = [], set()
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        found = os.stat(parent)
        if (found.st_dev, found.st_ino) in visited:
            folders.clear()
            continue
        visited.add((found.st_dev, found.st_ino))
        folders.sort()  # so that of two ways to a folder it is always the same that is taken
        paths += [path for path in map(Path(parent).joinpath, names) if path.suffix.lower() in suffixes]
    return [path for path in paths if path.is_file() or not path.exists()]


def refuse_existing(paths: Iterable[Path], *, force: bool, option: str = "--output") -> None:
    """Checks that files may be written under these names.

    Args:
        paths: The files to be.
        force: Whether existing files may be replaced.
        option: The option by which the user chooses another place.

    Raises:
        ConfigError: A name is too long for the file system.
        OutputExistsError: There is such a file and `force` is False, or there is a folder of that name.
    """
    for path in paths:
        if len(os.fsencode(path.name)) > _LONGEST_NAME:
            raise ConfigError(f"{path.name} is longer than {_LONGEST_NAME} bytes; shorten the input's name.")
        if path.is_dir():
            raise OutputExistsError(f"{path} is a folder; remove it, or choose another {option}.")
        if os.path.lexists(path) and not force:
            raise OutputExistsError(f"{path} exists; replace it by --force, or choose another {option}.")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path to write to, on the same disk, and renames it to `path` when the block ends without an error.

    What is written lies in a folder `.partial-*` beside `path`, locked for as long as the process lives. What a killed
    process left there is removed by the next one that writes the same path.

    Args:
        path: The file or folder to be. An existing file is replaced; an existing folder must be removed before. Where
            it is a link, the link stays and what it points to is replaced.

    Yields:
        The path to write to, of the same name. What was written there is removed when the block raises.

    Raises:
        OutputExistsError: `path` is a link to nothing.
    """
    path = _destination(path)
    with _scratch(path) as folder:
        partial = folder / path.name
        yield partial
        os.replace(partial, path)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Gives a new folder, which takes the place of another when the block ends without an error.

    Args:
        target: The folder to be. An existing one is replaced, and stays as it was when the block raises or the process
            is killed. Where it is a link, the link stays and the folder that it points to is replaced.

    Yields:
        The empty folder to write to.

    Raises:
        ConfigError: No folder can be made there.
        OutputExistsError: `target` is a link to nothing.
    """
    target = _destination(target)
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = stack.enter_context(_scratch(target))
            staging, retired = scratch / target.name, scratch / _RETIRED
            staging.mkdir()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # which every command tells in its own way
                raise
            raise ConfigError(f"{target} cannot be made ({error.strerror}); choose another folder.") from error
        yield staging
        if target.exists():
            os.replace(target, retired)
        try:
            os.replace(staging, target)
        except BaseException:
            _restore(scratch, target)
            raise


def _destination(path: Path) -> Path:
    if path.is_symlink() and not path.exists():
        raise OutputExistsError(f"{path} is a link to {os.readlink(path)}, which does not exist; remove the link.")
    return path.resolve() if path.is_symlink() else path


@contextlib.contextmanager
def _scratch(path: Path) -> Iterator[Path]:
    """Makes a folder beside a path, locked by this process, and removes those of killed processes for the same path."""
    prefix = f"{PARTIAL}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"
    for left in path.parent.glob(f"{prefix}*"):
        with (
            contextlib.suppress(BlockingIOError, FileNotFoundError, PermissionError),
            held(left, wait=False),
        ):  # no process holds it
            _restore(left, path)
            shutil.rmtree(left)
    with contextlib.ExitStack() as stack:
        while True:
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
            try:
                stack.enter_context(held(folder, wait=False))
            except (BlockingIOError, FileNotFoundError):
                continue  # another process took it for one left behind, before it was locked
            if folder.exists():
                break
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _restore(scratch: Path, target: Path) -> None:
    if (scratch / _RETIRED).exists() and not target.exists():
        os.replace(scratch / _RETIRED, target)


def parse_json(text: str | bytes) -> Any:
    """Parses JSON that anyone may have written.

    Args:
        text: The text, as UTF-8 where it is bytes.

    Returns:
        The value.

    Raises:
        ValueError: It is no JSON, or is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, in one move; the folder is made where it is missing.

    Args:
        path: The file.
        value: What JSON can hold.
    """
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8, in one move; the folder is made where it is missing.

    Args:
        path: The file.
        text: Its new content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
