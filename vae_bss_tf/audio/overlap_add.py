"""Waveforms cut into windows that overlap by half, and what is separated in them put together again."""

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Orders = npt.NDArray[np.int64]

_WINDOWS_A_CALL = 32  # at most
_ENUMERATED_SOURCES = 6  # up to which every order of the sources is tried; above, scipy finds the best


def overlap_add(separated: Iterable[tuple[Array, int]], orders: Iterable[Orders] | None = None) -> Iterator[Array]:
    """Puts separated windows together: each is faded over into the next.

    Args:
        separated: Batches of windows, float32 `[n, samples, num_sources, channels]`, each with the number of samples of
            the stream from the first one's start on, as `windows` gives it.
        orders: Which source of each window stands in each place, int64 `[num_sources]` each; None matches each window's
            sources to those of the window before by their inner products on the overlap.

    Yields:
        float32 `[samples, num_sources, channels]`; in all as many samples as the stream has.
    """
    tail: Array | None = None
    given = None if orders is None else iter(orders)
    for batch, remaining in separated:
        hop = batch.shape[1] // 2
        fade = np.sin(0.5 * np.pi * (np.arange(hop, dtype=np.float32) + 0.5) / hop)[:, None, None] ** 2
        for sources in batch:
            if given is not None:
                sources = sources[:, next(given)]
            elif tail is not None:
                sources = sources[:, _match(tail, sources[:hop])]
            head = sources[:hop] if tail is None else (1 - fade) * tail + fade * sources[:hop]
            yield head[:remaining]
            remaining -= len(head)
            tail = sources[hop : 2 * hop]
    if tail is not None and remaining > 0:
        yield tail[:remaining]


def windows(blocks: Iterator[Array], length: int, num_channels: int) -> Iterator[tuple[Array, int]]:
    """Cuts a stream into batches of windows that overlap by half, each of as many windows as have come, at most 32.

    Yields windows `[n, channels, length]`, the last filled with zeros, and the number of samples of the stream from
    the first one's start on, as far as the batch reaches.
    """
    hop = length // 2
    rest = np.zeros((0, num_channels), np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        # Two samples stay behind, so that a last window is always left to cut.
        while (count := min(_WINDOWS_A_CALL, (len(rest) - 2) // hop - 1)) > 0:
            yield _cut(rest, count, length), count * hop
            rest = rest[count * hop :]
    count = max(1, math.ceil(len(rest) / hop) - 1)
    filled = np.pad(rest, ((0, (count - 1) * hop + length - len(rest)), (0, 0)))
    yield _cut(filled, count, length), len(rest)


def _cut(samples: Array, count: int, length: int) -> Array:
    hop = length // 2
    return np.stack([samples[i * hop : i * hop + length].T for i in range(count)])


def _match(tail: Array, head: Array) -> npt.NDArray[np.int64]:
    """Finds which source of `head` goes on with each of `tail`, both `[samples, num_sources, channels]`."""
    products = np.einsum("nkc,njc->kj", tail, head)
    if len(products) > _ENUMERATED_SOURCES:
        from scipy import optimize  # not in the light install: it weighs more than all the rest

        return optimize.linear_sum_assignment(products, maximize=True)[1]
    orders = np.asarray(list(itertools.permutations(range(len(products)))))
    return orders[products[np.arange(len(products)), orders].sum(axis=1).argmax()]
