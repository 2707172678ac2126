"""Whether an output of a whole recording stays with its source: scores of short windows, each in its own best order."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError
from vae_bss_tf.metrics.matching import match_sources
from vae_bss_tf.metrics.ratios import pairwise_si_bss_eval

Array = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

WINDOW_SECONDS = 0.5
_EQUAL = 1e-6  # dB: orders that differ by less are equally good, as for outputs that are all alike
_SOUNDING = 0.01  # of a source's mean energy: a window where a source is quieter has no order


class Continuity(NamedTuple):
    """How a separation goes on through a recording.

    Attributes:
        window_si_sdr: Mean SI-SDR of the windows, each in its best order, dB: what a recording would score if the truth
            chose the order.
        exchanged: Share of the windows, in [0, 1], whose best order is not that of the recording.
        exchanges_per_minute: How often the best order changes from a window to the next, a minute.
    """

    window_si_sdr: float
    exchanged: float
    exchanges_per_minute: float


def continuity(outputs: Array, sources: Array, assignment: Int64, sample_rate: float) -> Continuity:
    """Compares the order of each window of half a second with that of the recording.

    Windows count in which each source holds at least 1 % of its mean energy.

    Args:
        outputs: float32 `[num_outputs, samples]` or `[num_outputs, channels, samples]`.
        sources: float32 `[num_sources, samples]` or `[num_sources, channels, samples]`, of the same length.
        assignment: int64 `[num_sources]`, the output that stands for each source over the whole recording.
        sample_rate: In Hz.

    Returns:
        The scores; where no window counts, those of all samples as one window.

    Raises:
        DataError: The lengths differ, or a value is not finite.
    """
    if outputs.shape[1:] != sources.shape[1:]:
        raise DataError(f"outputs of shape {outputs.shape[1:]} do not fit sources of shape {sources.shape[1:]}.")
    samples = outputs.shape[-1]
    length = min(samples, math.ceil(WINDOW_SECONDS * sample_rate))
    of_outputs, of_sources = (_windows(signals, length) for signals in (outputs, sources))
    energy = np.square(of_sources, dtype=np.float64).sum(axis=-1)
    sounding = np.all(energy >= _SOUNDING * energy.mean(axis=0), axis=1)
    if not sounding.any():
        of_outputs, of_sources, sounding = _windows(outputs, samples), _windows(sources, samples), np.ones(1, bool)
    ratios = pairwise_si_bss_eval(of_outputs[sounding], of_sources[sounding]).sdr
    orders = match_sources(ratios)
    best = np.take_along_axis(ratios, orders[:, np.newaxis], axis=1)[:, 0]
    kept = ratios[:, assignment, np.arange(len(sources))]
    orders[kept.sum(axis=1) >= best.sum(axis=1) - _EQUAL] = assignment
    changes = np.count_nonzero(np.any(orders[1:] != orders[:-1], axis=1))
    minutes = samples / sample_rate / 60
    return Continuity(float(best.mean()), float(np.any(orders != assignment, axis=1).mean()), changes / minutes)


def _windows(signals: Array, length: int) -> Array:
    """Cuts `[n, ..., samples]` into whole windows `[windows, n, ... * length]`."""
    count = signals.shape[-1] // length
    flat = signals.reshape(len(signals), -1, signals.shape[-1])[..., : count * length]
    parts = flat.reshape(len(signals), -1, count, length)
    return parts.transpose(2, 0, 1, 3).reshape(count, len(signals), -1)
