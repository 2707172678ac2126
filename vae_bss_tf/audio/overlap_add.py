"""Waveforms cut into windows that overlap by three quarters, and what is separated in them put together again.

Where windows are separated, each from its own place on, their mean is better than any one of them (Coifman and Donoho,
"Translation-invariant de-noising", 1995), and better still where one that strays from the others counts less (Huber,
"Robust estimation of a location parameter", 1964).
"""

import functools
import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError

Array = npt.NDArray[np.float32]
Orders = npt.NDArray[np.int64]

_WINDOWS_A_CALL = 32  # at most
_WINDOWS_A_SAMPLE = 4
_TOLERATED = np.float32(0.02)  # of the energy, by which a window may stray from the others
_SILENT = np.float32(1e-12)
_AT_FIRST = {1: (0, 1), 2: ()}  # quarters given out with the first windows: half of the first comes at once
_ENUMERATED_SOURCES = 6  # up to which every order of the sources is tried; above, scipy finds the best


def hop_length(length: int) -> int:
    """Samples from the start of one window of `length` samples to that of the next."""
    return length // _WINDOWS_A_SAMPLE


def overlap_add(separated: Iterable[tuple[Array, float]], orders: Iterable[Orders] | None = None) -> Iterator[Array]:
    """Puts separated windows together: each sample is a mean of the windows that hold it.

    In each quarter, a window weighs the less the further it is from the median of all, in squares of all its sources,
    and its edges weigh less than its middle. The sources keep the sum that they have in each window.

    Args:
        separated: Batches of windows, float32 `[n, samples, num_sources, channels]`, each with the length of the stream
            as far as it is known, as `windows` gives it.
        orders: Which source of each window stands in each place, int64 `[num_sources]` each; None matches each window's
            sources to those of the windows before by their inner products on the overlap.

    Yields:
        float32 `[samples, num_sources, channels]`; in all as many samples as the stream has.
    """
    latest: list[Array] = []  # windows, each of which reaches a quarter further than the one before
    given = None if orders is None else iter(orders)
    done = 0
    for batch, end in separated:
        hop = hop_length(batch.shape[1])
        for sources in batch:
            if given is not None:
                if (found := next(given, None)) is None:
                    raise DataError("the recording has become longer while it was read; separate it again.")
                sources = np.take(sources, found, axis=1)
            elif latest:
                sources = np.take(sources, _match(_begun(latest), sources[: len(sources) - hop]), axis=1)
            latest = [*latest[1 - _WINDOWS_A_SAMPLE :], sources]
            for quarter in _AT_FIRST.get(len(latest), (0,)):
                yield _quarter(latest, quarter)[: max(0, int(min(hop, end - done)))]
                done += hop
    for quarter in range(2 if len(latest) == 1 else 1, _WINDOWS_A_SAMPLE if latest else 0):
        rest = _quarter(latest, quarter) if quarter < _WINDOWS_A_SAMPLE - 1 else latest[-1][quarter * hop :]
        yield rest[: max(0, int(end - done))]
        done += hop


def _begun(latest: list[Array]) -> Array:
    """The sum of windows, each weighted by a Hann window, from where the next one begins to where the last one ends."""
    length = len(latest[-1])
    hop, weight = hop_length(length), _sine(latest[-1].shape) ** 2
    total = np.zeros_like(latest[-1][hop:])
    for later, window in enumerate(latest[::-1], start=1):
        total[: max(0, length - later * hop)] += (weight * window)[later * hop :]
    return total


def _quarter(latest: list[Array], number: int) -> Array:
    """A quarter of the latest window, counted from 0."""
    hop, edges = hop_length(len(latest[-1])), _sine(latest[-1].shape)
    places = [slice(i * hop, (i + 1) * hop) for i in range(number, _WINDOWS_A_SAMPLE)]
    held = [(window[place], edges[place]) for window, place in zip(latest[::-1], places, strict=False)]
    median = _median([part for part, _ in held])
    tolerated = _TOLERATED * max(np.float32(np.vdot(median, median)), _SILENT)
    total, weights = np.zeros_like(median), np.zeros_like(median)
    for part, edge in held:
        stray = part - median
        weight = edge / (np.vdot(stray, stray) + tolerated)
        total += weight * part
        weights += weight
    return np.asarray(total / weights)


def _median(parts: list[Array]) -> Array:
    """The median of one to four arrays; NumPy's takes ten times as long."""
    if len(parts) < 3:
        return np.asarray(sum(parts[1:], parts[0]) / np.float32(len(parts)))
    low, high = np.minimum(*parts[:2]), np.maximum(*parts[:2])
    if len(parts) == 3:
        return np.maximum(low, np.minimum(high, parts[2]))
    return (np.maximum(low, np.minimum(*parts[2:])) + np.minimum(high, np.maximum(*parts[2:]))) * np.float32(0.5)


def half_sine(length: int) -> Array:
    """A window of half a sine, float32 `[length]`: a quarter of its length apart, its squares sum up to 2."""
    return np.sin(np.pi * (np.arange(length, dtype=np.float32) + 0.5) / length)


@functools.cache
def _sine(shape: tuple[int, ...]) -> Array:
    """Half a sine over the samples of a window, the same for all sources and channels."""
    return np.broadcast_to(half_sine(shape[0])[:, None, None], shape).copy()


def windows(blocks: Iterator[Array], length: int, num_channels: int) -> Iterator[tuple[Array, float]]:
    """Cuts a stream into batches of overlapping windows, each of as many windows as have come, at most 32.

    Yields windows `[n, channels, length]`, the last filled with zeros, and the length of the stream: infinite before
    the last batch.
    """
    hop = hop_length(length)
    rest, start = np.zeros((0, num_channels), np.float32), 0
    for block in blocks:
        rest = np.concatenate([rest, block])
        # Two samples stay behind, so that a last window is always left to cut.
        while (count := min(_WINDOWS_A_CALL, (len(rest) - 2 - length) // hop + 1)) > 0:
            yield _cut(rest, count, length), math.inf
            rest, start = rest[count * hop :], start + count * hop
    count = max(1, math.ceil((len(rest) - length) / hop) + 1)
    filled = np.pad(rest, ((0, (count - 1) * hop + length - len(rest)), (0, 0)))
    yield _cut(filled, count, length), start + len(rest)


def _cut(samples: Array, count: int, length: int) -> Array:
    hop = hop_length(length)
    return np.stack([samples[i * hop : i * hop + length].T for i in range(count)])


def _match(tail: Array, head: Array) -> npt.NDArray[np.int64]:
    """Finds which source of `head` goes on with each of `tail`, both `[samples, num_sources, channels]`."""
    products = np.einsum("nkc,njc->kj", tail, head)
    if len(products) > _ENUMERATED_SOURCES:
        from scipy import optimize  # not in the light install: it weighs more than all the rest

        return optimize.linear_sum_assignment(products, maximize=True)[1]
    orders = np.asarray(list(itertools.permutations(range(len(products)))))
    return orders[products[np.arange(len(products)), orders].sum(axis=1).argmax()]
