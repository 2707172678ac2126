"""Recordings decoded once into a memory-mapped array that later runs only open."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from vae_bss_tf.errors import DataError
from vae_bss_tf.files import held

CACHE_VARIABLE = "VAE_BSS_TF_CACHE"
_SAVE_EVERY = 50  # recordings

Item = TypeVar("Item")
Waveform = npt.NDArray[np.float32]


def cache_dir() -> Path:
    """Returns the folder of decoded recordings: `$VAE_BSS_TF_CACHE`, or `vae-bss-tf` in the user's cache."""
    if CACHE_VARIABLE in os.environ:
        return Path(os.environ[CACHE_VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vae-bss-tf"


def decoded(
    items: Sequence[Item],
    decode: Callable[[Item], Iterator[Waveform]],
    capacity: Callable[[Item], int],
    identity: Any,
    num_samples: int,
) -> tuple[Waveform, npt.NDArray[np.int64]]:
    """Opens the decoded form of recordings, decoding those that are not decoded yet.

    An interrupted decoding goes on where it stopped; of several processes one decodes and the others wait.

    Args:
        items: What to decode, in order; each once, and those after an interruption only.
        decode: Gives an item's waveforms, each float32 `[num_samples]`.
        capacity: Gives the largest number of waveforms that `decode` may give of an item.
        identity: All that the waveforms depend on, as JSON can hold it: the key of the cache.
        num_samples: Samples of a waveform.

    Returns:
        The waveforms, float32 `[num_waveforms, num_samples]`, memory-mapped and read-only, and the index of each
        one's item, int64 `[num_waveforms]`.

    Raises:
        DataError: As `decode`; or the disk has no space for them.
    """
    folder = cache_dir() / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    if not (folder / "index.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder, wait=True):
            if not (folder / "index.json").exists():
                _decode_all(items, decode, sum(map(capacity, items)), num_samples, folder)
    owners = np.asarray(json.loads((folder / "index.json").read_text())["owners"], np.int64)
    return np.load(folder / "waveforms.npy", mmap_mode="r")[: len(owners)], owners


def _decode_all(
    items: Sequence[Item],
    decode: Callable[[Item], Iterator[Waveform]],
    capacity: int,
    num_samples: int,
    folder: Path,
) -> None:
    array_path, progress_path = folder / "waveforms.npy", folder / "progress.json"
    progress: dict[str, Any] = {"recordings": 0, "owners": []}
    if progress_path.exists() and array_path.exists():
        progress = json.loads(progress_path.read_text())
        array = np.load(array_path, mmap_mode="r+")
    else:
        _check_disk(folder, 4 * capacity * num_samples)
        array = np.lib.format.open_memmap(array_path, "w+", np.float32, (capacity, num_samples))
    first, owners = progress["recordings"], progress["owners"]
    bar = tqdm(items[first:], "decoding", len(items), initial=first, unit="recording")
    for index, item in enumerate(bar, start=first):
        for waveform in decode(item):
            array[len(owners)] = waveform
            owners.append(index)
        if (index + 1) % _SAVE_EVERY == 0:
            array.flush()
            _write({"recordings": index + 1, "owners": owners}, progress_path)
    array.flush()
    _write({"owners": owners}, folder / "index.json")
    progress_path.unlink(missing_ok=True)


def _check_disk(folder: Path, needed: int) -> None:
    # A memory-mapped file takes its space as it is written, and a full disk would end the process by a signal.
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"no space left for decoded recordings in {folder}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB "
            f"are free. Free some, or name another folder in {CACHE_VARIABLE}."
        )


def _write(content: dict[str, Any], path: Path) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    os.replace(part, path)
