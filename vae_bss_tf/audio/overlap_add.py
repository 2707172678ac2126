"""Waveforms cut into windows that overlap by three quarters, and what is separated in them put together again.

Where windows are separated, each from its own place on, the mean over the places is better than any one of them
(Coifman and Donoho, "Translation-invariant de-noising", 1995).
"""

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError

Array = npt.NDArray[np.float32]
Orders = npt.NDArray[np.int64]

_WINDOWS_A_CALL = 32  # at most
_ENUMERATED_SOURCES = 6  # up to which every order of the sources is tried; above, scipy finds the best


def hop_length(length: int) -> int:
    """Samples from the start of one window of `length` samples to that of the next."""
    return length // 4


def overlap_add(separated: Iterable[tuple[Array, float]], orders: Iterable[Orders] | None = None) -> Iterator[Array]:
    """Puts separated windows together: their mean, each weighted by a Hann window.

    Args:
        separated: Batches of windows, float32 `[n, samples, num_sources, channels]`, each with the length of the stream
            as far as it is known, as `windows` gives it.
        orders: Which source of each window stands in each place, int64 `[num_sources]` each; None matches each window's
            sources to the sum of those before by their inner products on the overlap.

    Yields:
        float32 `[samples, num_sources, channels]`; in all as many samples as the stream has.
    """
    total: Array | None = None  # of the windows so far, from the start of the next on
    start = done = 0  # where it starts in the stream, and how much of the stream is out
    given = None if orders is None else iter(orders)
    for batch, end in separated:
        length = batch.shape[1]
        hop = hop_length(length)
        weight = np.sin(np.pi * (np.arange(length, dtype=np.float32) + 0.5) / length)[:, None, None] ** 2
        for sources in batch:
            if given is not None:
                if (found := next(given, None)) is None:
                    raise DataError("the recording has become longer while it was read; separate it again.")
                sources = sources[:, found]
            elif total is not None:
                sources = sources[:, _match(total[: length - hop], sources[: length - hop])]
            if total is None:
                total, weights = np.zeros_like(sources), np.zeros_like(weight)
            total, weights = total + weight * sources, weights + weight
            ready = int(min(max(start + hop, 2 * hop), end))  # half of the first window comes at once
            yield total[done - start : ready - start] / weights[done - start : ready - start]
            total, weights = (np.concatenate([part[hop:], np.zeros_like(part[:hop])]) for part in (total, weights))
            start, done = start + hop, ready
    if total is not None:
        yield total[done - start : int(end) - start] / weights[done - start : int(end) - start]


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
