"""What a context network learns from: sources of different recordings, added to new mixtures and separated again.

The sources are what the model itself finds in the recordings: no clean one is seen. It separates their new mixtures as
it separates recordings, its mistakes included, and what went in is the truth (RemixIT: Tzinis et al. 2022).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.live.stems import checksum_of
from vae_bss_tf.audio.context import context_of
from vae_bss_tf.audio.recordings import Recording, describe, mono
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.datasets.decoded import decoded
from vae_bss_tf.datasets.recordings import split_files
from vae_bss_tf.errors import DataError
from vae_bss_tf.metrics import match_sources, pairwise_mse, take_matched

Float32 = npt.NDArray[np.float32]

GAIN_RANGE_DB = 2.5
_SILENCE = 1e-4  # of full scale
_LEAST = 0.5  # of an excerpt, that the rest of a recording must fill to be one


class Excerpts(NamedTuple):
    """Separated excerpts of recordings.

    Attributes:
        sources: float32 `[excerpts, num_sources, samples]`, at the model's rate, memory-mapped.
        recordings: int64 `[excerpts]`, the recording that each is of.
        identity: All that they depend on, as JSON can hold it.
    """

    sources: Float32
    recordings: npt.NDArray[np.int64]
    identity: list[Any]


def separated(data_dir: Path, model: Path, separator: Separator, split: str) -> Excerpts:
    """Separates the recordings of a split, once: later trainings open what is in the cache.

    Args:
        data_dir: A folder of recordings that are mixtures, split as `--dataset mixtures` splits it.
        model: The run or export that the separator is of.
        separator: What separates them.
        split: "train" or "validation".

    Returns:
        Excerpts as long as the network sees at once; the last of a recording is filled up with zeros.

    Raises:
        DataError: The folder is missing, a split of it has fewer recordings than a mixture has sources, or a recording
            is damaged or silent.
    """
    recordings = [describe(path) for path in _files(data_dir, split, separator.num_sources)]
    rate, count = separator.audio.sample_rate, separator.num_sources
    _, length = context_of(separator.audio)

    def decode(recording: Recording) -> Iterator[Float32]:
        mixture = np.concatenate(list(mono(recording, rate)))
        if np.abs(mixture).max(initial=0) < _SILENCE:
            raise DataError(f"{recording.path} is silent; leave it out of the folder.")
        sources = separator.separate(mixture, rate)
        for start in range(0, max(1, mixture.size - int(_LEAST * length)), length):
            excerpt = sources[:, start : start + length]
            yield from np.pad(excerpt, [(0, 0), (0, length - excerpt.shape[1])])

    def capacity(recording: Recording) -> int:
        return count * (int(recording.seconds * rate / length) + 2)

    files = [(str(r.path.resolve()), r.path.stat().st_size, r.path.stat().st_mtime_ns) for r in recordings]
    identity = ["separated", length, checksum_of(model, context=separator.context is not None), files]
    rows, owners = decoded(recordings, decode, capacity, identity, length)
    return Excerpts(rows.reshape(-1, count, length), owners[::count], identity)


def remixed(excerpts: Excerpts, number: int, seed: int, model: Path, separator: Separator) -> Float32:
    """Mixes sources of different recordings and separates the mixtures, once, as `separated` does.

    Args:
        excerpts: Where the sources are from.
        number: How many mixtures to make.
        seed: Seed of the draw.
        model: The run that the separator is of.
        separator: What the context network will correct.

    Returns:
        float32 `[number, 2, num_sources, samples]`, memory-mapped: the sources, whose sum is the mixture, and what was
        separated, in their order.

    """
    _, count, length = excerpts.sources.shape

    def decode(index: int) -> Iterator[Float32]:
        sources = _drawn(excerpts, np.random.default_rng([seed, index]))
        estimates = separator.separate(sources.sum(axis=0), separator.audio.sample_rate)
        order = match_sources(-pairwise_mse(estimates[np.newaxis], sources[np.newaxis]))
        yield from sources
        yield from take_matched(estimates[np.newaxis], order)[0]

    identity = ["remixed", number, seed, checksum_of(model, context=False), excerpts.identity]
    rows, _ = decoded(range(number), decode, lambda _: 2 * count, identity, length, unit="remix")
    return rows.reshape(number, 2, count, length)


def _files(data_dir: Path, split: str, num_sources: int) -> list[Path]:
    """The recordings of a split, each of whose sources can be mixed with those of others in every split."""
    found = {name: split_files(data_dir, name, of_mixtures=True) for name in ("train", "validation")}
    fewest = min(map(len, found.values()))
    if fewest < num_sources:
        raise DataError(
            f"{fewest} recordings of {data_dir} are kept to validate on, too few for {num_sources} sources, which are "
            "taken from different recordings; record more."
        )
    return found[split]


def _drawn(excerpts: Excerpts, rng: np.random.Generator) -> Float32:
    """Sources of different recordings, each turned round to begin anywhere, with a gain of its own."""
    number, count, length = excerpts.sources.shape
    drawn: list[int] = []
    while len(drawn) < count:
        one = int(rng.integers(number))
        if excerpts.recordings[one] not in excerpts.recordings[drawn]:
            drawn.append(one)
    places, starts = (rng.integers(most, size=(count,)) for most in (count, length))
    gains = 10 ** (rng.uniform(-GAIN_RANGE_DB, GAIN_RANGE_DB, size=(count,)) / 20)
    parts = [np.roll(excerpts.sources[i, k], n) for i, k, n in zip(drawn, places, starts, strict=True)]
    sources = np.stack(parts) * gains[:, np.newaxis].astype(np.float32)
    peak = np.abs(sources.sum(axis=0)).max()
    if peak < _SILENCE:
        return _drawn(excerpts, rng)
    return sources / max(1.0, peak)
