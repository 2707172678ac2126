"""Files written beside their place and renamed: a reader never sees half of one."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vae_bss_tf.errors import ConfigError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to, and renames it to `path` when the block ends without an error.

    Args:
        path: The file or folder to be. An existing file is replaced; an existing folder must be removed before.

    Yields:
        The path to write to, with the same suffix. What was written there is removed when the block raises.
    """
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """Gives a new folder beside a place, which takes the place when the block ends without an error.

    Args:
        target: The folder to be. An existing one is replaced, and stays as it was when the block raises.

    Yields:
        The empty folder to write to.

    Raises:
        ConfigError: No folder can be made there.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{target} cannot be made ({error.strerror}); choose another --to.") from error
    retired = target.with_name(f".replaced-{os.getpid()}-{target.name}")
    try:
        with replacing(target) as staging:
            try:
                staging.mkdir()
            except OSError as error:
                raise ConfigError(f"{target} cannot be made ({error.strerror}); choose another --to.") from error
            yield staging
            if target.exists():
                os.replace(target, retired)
    except BaseException:
        if retired.exists():
            os.replace(retired, target)
        raise
    if retired.exists():
        shutil.rmtree(retired)


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
