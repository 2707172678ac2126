"""Recordings and pictures decoded once into a memory-mapped array that later runs only open."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from vae_bss_tf.errors import DataError
from vae_bss_tf.files import held, parse_json, write_text

CACHE_VARIABLE = "VAE_BSS_TF_CACHE"
SAVE_EVERY, SAVE_SECONDS = 50, 30.0  # items, or as long
_VERSION = 2  # of the files below, a part of the key
_ARRAY, _INDEX, _PROGRESS = "waveforms.npy", "index.json", "progress.json"

Item = TypeVar("Item")
Row = npt.NDArray[Any]
_Found = tuple[Row, list[int]]  # the array, and the number of rows of each item decoded so far


def cache_dir() -> Path:
    """Returns the folder of what is decoded: `$VAE_BSS_TF_CACHE`, or `vae-bss-tf` in the user's cache.

    Raises:
        DataError: The user has no home folder, and no variable names another place.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named) / "vae-bss-tf"
    try:
        return Path.home() / ".cache" / "vae-bss-tf"
    except RuntimeError as error:
        raise DataError(f"no home folder for decoded files; name a folder in {CACHE_VARIABLE}.") from error


def decoded(
    items: Sequence[Item],
    decode: Callable[[Item], Iterator[Row]],
    capacity: Callable[[Item], int],
    identity: Any,
    num_samples: int,
    dtype: npt.DTypeLike = np.float32,
    unit: str = "recording",
) -> tuple[Row, npt.NDArray[np.int64]]:
    """Opens the decoded form of recordings or pictures, decoding those that are not decoded yet.

    An interrupted decoding resumes where it stopped; of several processes one decodes and the others wait. What is
    damaged on the disk is removed and decoded again.

    Args:
        items: What to decode, in order; each once, and those after an interruption only.
        decode: Gives an item's rows, such as waveforms, each `[num_samples]`.
        capacity: Gives the largest number of rows that `decode` may give of an item.
        identity: All that the rows depend on, as JSON can hold it: the key of the cache.
        num_samples: Values of a row.
        dtype: Type of the values.
        unit: What an item is called in the progress bar.

    Returns:
        The rows, `[num_rows, num_samples]`, memory-mapped and read-only, and the index of each one's item, int64
        `[num_rows]`.

    Raises:
        DataError: As `decode`; or the disk has no space for them.
    """
    key = json.dumps([_VERSION, identity], sort_keys=True)
    folder = cache_dir() / hashlib.sha256(key.encode()).hexdigest()[:16]
    empty = np.broadcast_to(np.zeros((), dtype), (sum(map(capacity, items)), num_samples))  # takes no memory
    found = _read(folder, _INDEX, empty, len(items))
    if found is None:
        if os.path.lexists(folder) and not folder.is_dir():  # in this order: another process may make the folder now
            folder.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, wait=True):
            found = _read(folder, _INDEX, empty, len(items)) or _decode_all(items, decode, empty, folder, unit)
    array, counts = found
    owners = np.repeat(np.arange(len(counts)), counts)
    return array[: len(owners)], owners


def _read(folder: Path, name: str, like: Row, num_items: int) -> _Found | None:
    """Reads what is decoded so far: the array, and the number of rows of each item.

    Returns None where nothing is there or what is there is damaged: it does not hold the rows that it says it holds.
    """
    try:
        state = parse_json((folder / name).read_text())
        array = np.load(folder / _ARRAY, mmap_mode="r")  # "r+" would fill up a truncated file
        counts = state["counts"]
        valid = (
            state["checksum"] == _checksum(counts)
            and (array.shape, array.dtype) == (like.shape, like.dtype)
            and (len(counts) == num_items if name == _INDEX else len(counts) <= num_items)
            and sum(counts) <= len(like)
        )
    except Exception:  # whatever a damaged file leads to, a cache is made again
        return None
    return (array, counts) if valid else None


def _decode_all(
    items: Sequence[Item], decode: Callable[[Item], Iterator[Row]], like: Row, folder: Path, unit: str
) -> _Found:
    found = _read(folder, _PROGRESS, like, len(items))
    if found is None:
        for left in folder.iterdir():  # other processes may have opened it, so nothing is written over
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        found = np.lib.format.open_memmap(folder / _ARRAY, "w+", like.dtype, like.shape), []
    counts = found[1]
    array, row = np.load(folder / _ARRAY, mmap_mode="r+"), sum(counts)
    _check_disk(folder, array[row:].nbytes)
    saved = time.monotonic()
    seconds = 0.1 if sys.stderr.isatty() else 30  # from one line to the next
    for item in tqdm(items[len(counts) :], "decoding", len(items), initial=len(counts), unit=unit, mininterval=seconds):
        first = row
        for values in decode(item):
            array[row] = values
            row += 1
        counts.append(row - first)
        if len(counts) % SAVE_EVERY == 0 or time.monotonic() - saved >= SAVE_SECONDS:
            array.flush()
            _write(folder / _PROGRESS, counts)
            saved = time.monotonic()
    array.flush()
    _write(folder / _INDEX, counts)
    (folder / _PROGRESS).unlink(missing_ok=True)
    return np.load(folder / _ARRAY, mmap_mode="r"), counts


def _write(path: Path, counts: list[int]) -> None:
    write_text(path, json.dumps({"counts": counts, "checksum": _checksum(counts)}))


def _checksum(counts: list[int]) -> str:
    return hashlib.sha256(json.dumps(counts).encode()).hexdigest()


def _check_disk(folder: Path, needed: int) -> None:
    # A memory-mapped file takes its space as it is written, and a full disk would end the process by a signal.
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"no space left for decoded files in {folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB "
            f"are free. Free some, or name another folder in {CACHE_VARIABLE}."
        )
