"""Which separated source goes on with which, from the first window of a recording to the last.

A model separates each window on its own, and its sources come in any order. What overlaps tells how the next window
goes on, except where notes end and others begin. There the sound of each source tells: its spectral envelope,
pitch and level, which are seen over the whole recording.
"""

import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio.overlap_add import Orders, hop_length

Array = npt.NDArray[np.float64]

MAX_SOURCES = 4  # whose orders are all tried: 24 of them

_NUM_BANDS = 18
_LOWEST_HZ = 80.0
_FLOOR = 1e-4  # of a source's energy, in each band
_NUM_COEFFICIENTS = 5
_PITCHES_HZ = 60.0, 1500.0
_LAGS_A_SAMPLE = 4
_COMPRESSION = 1 / 3  # exponent of the power, so that the harmonics of a note count alike
_LEAST_LEVEL = 0.3  # of the mean energy of a source
_SOUNDING = 0.01  # of the mean energy: windows below it are silent
_OVERLAP_WEIGHT = 8.0  # nats for waveforms that go on without a change
_FULL_WEIGHT = 20.0  # a source of a 20th of the mean energy counts in full
_LEAST_VARIANCE = 0.02  # of standardised features
_FARTHEST = 4.0  # squared deviations from a mean, over the variance: whatever strays further counts as this
_MAX_ITERATIONS = 20


class WindowFeatures(NamedTuple):
    """What is kept of separated windows to order their sources by.

    Attributes:
        sound: float64 `[windows, num_sources, 6]`, five cepstral coefficients of the spectral envelope and the
            pitch in octaves.
        energy: float64 `[windows, num_sources]`, >= 0.
        quarters: float64 `[windows, num_sources, num_sources]`, inner products of each source of the window a quarter
            before (rows) with each source (columns) on what both windows share, over the energy there; 0 where there is
            no such window.
        halves: The same with the window half a length before.
    """

    sound: Array
    energy: Array
    quarters: Array
    halves: Array


def features(windows: npt.NDArray[np.float32], before: npt.NDArray[np.float32], sample_rate: float) -> WindowFeatures:
    """Describes separated windows, each of which begins a quarter of its length after the one before.

    The spectral envelope is the energy in 18 bands from 80 Hz to half the rate, equally wide in octaves, of which the
    discrete cosine transform of the logarithms is taken (the cepstrum of Davis and Mermelstein, 1980). The pitch is
    where, from 60 to 1,500 Hz, the autocorrelation of the compressed spectrum is largest (Tolonen and Karjalainen,
    2000).

    Args:
        windows: float32 `[windows, samples, num_sources]`, in order.
        before: float32 `[2, samples, num_sources]`, the two windows before the first; zeros where there is none.
        sample_rate: In Hz.

    Returns:
        The features.
    """
    length, hop = windows.shape[1], hop_length(windows.shape[1])
    taper = np.hanning(length)[:, np.newaxis]
    power = np.abs(np.fft.rfft(windows * taper, 2 * length, axis=1)) ** 2
    edges = np.geomspace(_LOWEST_HZ, sample_rate / 2, _NUM_BANDS + 1)
    starts = np.searchsorted(np.fft.rfftfreq(2 * length, 1 / sample_rate), edges[:-1])
    bands = np.add.reduceat(power, starts, axis=1).swapaxes(1, 2)
    bands = bands / np.maximum(bands.sum(axis=-1, keepdims=True), 1e-30)
    energy = np.square(windows, dtype=np.float64).sum(axis=1)
    course = np.concatenate([before, windows])
    quarters = _products(course[1:-1], windows, hop)
    halves = _products(course[:-2], windows, 2 * hop)
    cepstrum = np.log(bands + _FLOOR) @ _cosines().T
    sound = np.concatenate([cepstrum, _octaves(power, sample_rate)[..., np.newaxis]], axis=2)
    return WindowFeatures(sound, energy, quarters, halves)


def _products(earlier: npt.NDArray[np.float32], windows: npt.NDArray[np.float32], hop: int) -> Array:
    """Inner products of the sources of windows and of those that begin `hop` samples earlier: see `WindowFeatures`."""
    ends, begins = earlier[:, hop:], windows[:, : windows.shape[1] - hop]
    shared = np.square(ends, dtype=np.float64).sum(axis=(1, 2)) + np.square(begins, dtype=np.float64).sum(axis=(1, 2))
    products = np.einsum("wnk,wnj->wkj", ends, begins, dtype=np.float64)
    return np.asarray(products / np.maximum(shared / 2, 1e-12)[:, np.newaxis, np.newaxis])


def _octaves(power: Array, sample_rate: float) -> Array:
    """The pitches of power spectra `[windows, bins, num_sources]`, in octaves above 1 Hz: `[windows, num_sources]`."""
    lowest, highest = _PITCHES_HZ
    correlation = np.fft.irfft(power**_COMPRESSION, _LAGS_A_SAMPLE * 2 * (power.shape[1] - 1), axis=1)
    rate = _LAGS_A_SAMPLE * sample_rate
    shortest = max(int(rate / highest), 1)
    lags = np.arange(shortest, max(min(int(rate / lowest), correlation.shape[1] // 2), shortest + 1))
    return np.log2(rate / lags)[correlation[:, lags].argmax(axis=1)]


def _cosines() -> Array:
    """The first rows of the discrete cosine transform, without the mean: `[5, 18]`."""
    rows, columns = np.arange(1, _NUM_COEFFICIENTS + 1)[:, np.newaxis], np.arange(_NUM_BANDS)
    return np.sqrt(2 / _NUM_BANDS) * np.cos(np.pi * rows * (2 * columns + 1) / (2 * _NUM_BANDS))


def consistent_orders(found: WindowFeatures) -> tuple[Orders, Array]:
    """Orders the sources of all windows of a recording alike.

    Every other window is ordered by itself, so that two courses through the recording vote on it; then all windows of
    one course are exchanged alike, if they go on with those of the other better so.

    Args:
        found: Features of all windows, in order; of at most `MAX_SOURCES` sources.

    Returns:
        int64 `[windows, num_sources]`, which source of a window stands in each place, the loudest over the recording in
        the first; and how sure each is, float64 `[windows]` in [0, 1]: the probability of the window's order in its
        course, or 0 where the window before or after it, which is of the other course, goes on better in another order
        and neither is silent.
    """
    states = np.asarray(list(itertools.permutations(range(found.energy.shape[1]))))
    orders, certainty = np.zeros(found.energy.shape, np.int64), np.zeros(len(found.energy))
    for first in range(min(2, len(orders))):
        orders[first::2], certainty[first::2] = _course(WindowFeatures(*(part[first::2] for part in found)), states)
    windows = np.arange(len(orders))[:, np.newaxis]
    exchanged = np.stack([np.where(windows % 2 == 0, orders, orders[:, state]) for state in states])
    going_on = found.quarters[windows[1:], exchanged[:, :-1], exchanged[:, 1:]].sum(axis=(1, 2))
    orders = exchanged[going_on.argmax()]
    # [states, windows - 1]; the first state leaves the order as it is.
    others = np.stack([found.quarters[windows[1:], orders[:-1], orders[1:, state]].sum(axis=1) for state in states])
    energy = found.energy.sum(axis=1)
    sounding = energy > _SOUNDING * energy.mean()
    against = (others.max(axis=0) > others[0]) & sounding[:-1] & sounding[1:]
    certainty[:-1][against] = certainty[1:][against] = 0
    loudest_first = np.argsort(-np.take_along_axis(found.energy, orders, axis=1).sum(axis=0), kind="stable")
    return orders[:, loudest_first], certainty


def _course(found: WindowFeatures, states: Orders) -> tuple[Orders, Array]:
    """Orders the sources of windows that overlap by half.

    The order is the hidden state of a chain (Rabiner 1989). Each source has a mean spectral envelope, pitch and level;
    windows depart from them with one variance for each. States follow each other by how far waveforms go on. Means and
    most probable states are found in turn, as by k-means, from several beginnings, of which the most probable outcome
    is taken.

    Returns:
        The orders, `[windows, num_sources]`, and the probability of each, given the means.
    """
    num_windows, num_sources = found.energy.shape
    heard = np.sqrt(np.minimum(1.0, _FULL_WEIGHT * found.energy / max(found.energy.sum(axis=1).mean(), 1e-30)))
    level = np.log(found.energy / max(found.energy.mean(), 1e-30) + _LEAST_LEVEL)
    # The level of a source that is not heard is known as well as any other.
    weight = np.concatenate([np.broadcast_to(heard[..., np.newaxis], found.sound.shape), np.ones((*level.shape, 1))], 2)
    sound = _standardised(np.concatenate([found.sound, level[..., np.newaxis]], axis=2), weight)
    places = np.arange(num_sources)
    # [windows, states before, states]
    going_on = found.halves[:, states[:, np.newaxis, places], states[np.newaxis, :, places]]
    steps = _OVERLAP_WEIGHT * going_on.sum(axis=-1)
    by_overlap = _most_probable(np.zeros((1, num_windows, len(states))), steps)
    by_sound = _states_of(np.argsort(sound.transpose(2, 0, 1), axis=2, kind="stable"), states)
    chosen = np.concatenate([by_sound, by_overlap])
    for _ in range(_MAX_ITERATIONS):
        found_scores = [_window_scores(sound, weight, states[course], states) for course in chosen]
        scores, constants = (np.stack(parts) for parts in zip(*found_scores, strict=True))
        before, chosen = chosen, _most_probable(scores, steps)
        if np.array_equal(before, chosen):
            break
    windows = np.arange(num_windows)
    of_steps = steps[windows[1:], chosen[:, :-1], chosen[:, 1:]].sum(axis=1)
    of_windows = np.take_along_axis(scores, chosen[:, :, np.newaxis], axis=2)[:, :, 0].sum(axis=1)
    best = int(np.argmax(constants + of_windows + of_steps))
    return states[chosen[best]], _probabilities(scores[best], steps)[windows, chosen[best]]


def _standardised(sound: Array, weight: Array) -> Array:
    shares = weight / np.maximum(weight.sum(axis=(0, 1)), 1e-30)
    centred = sound - (shares * sound).sum(axis=(0, 1))
    return centred / np.sqrt((shares * centred**2).sum(axis=(0, 1)) + 1e-12)


def _states_of(orders: Orders, states: Orders) -> Orders:
    """The numbers of orders `[..., num_sources]` among the states `[states, num_sources]`."""
    return np.argmax((orders[..., np.newaxis, :] == states).all(axis=-1), axis=-1)


def _window_scores(sound: Array, weight: Array, orders: Orders, states: Orders) -> tuple[Array, Array]:
    """How well each state of each window fits the means that the orders give.

    Args:
        sound: `[windows, num_sources, features]`.
        weight: Of the same shape.
        orders: `[windows, num_sources]`.
        states: `[states, num_sources]`.

    Returns:
        Log probabilities, `[windows, states]`, up to a constant, `[]`.
    """
    windows = np.arange(len(sound))[:, np.newaxis]
    placed, weights = sound[windows, orders], weight[windows, orders]
    means = (weights * placed).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-30)
    deviations = (weights * (placed - means) ** 2).sum(axis=(0, 1))
    totals = weight.sum(axis=(0, 1))
    variances = deviations / np.maximum(totals, 1e-30) + _LEAST_VARIANCE
    strays = np.minimum(
        (sound[:, :, np.newaxis] - means) ** 2 / variances, _FARTHEST
    )  # [windows, sources, places, ...]
    fits = -0.5 * (weight[:, :, np.newaxis] * strays).sum(axis=-1)
    scores = sum(fits[:, states[:, k], k] for k in range(states.shape[1]))
    return np.asarray(scores), -0.5 * np.asarray((totals * np.log(variances)).sum())


def _most_probable(scores: Array, steps: Array) -> Orders:
    """The most probable states of a chain (Viterbi 1967): `[beginnings, windows]`."""
    reached = scores[:, 0]
    came_from = []
    for score, step in zip(scores.swapaxes(0, 1)[1:], steps[1:], strict=True):
        ways = reached[:, :, np.newaxis] + step
        came_from.append(ways.argmax(axis=1))
        reached = ways.max(axis=1) + score
    path = [reached.argmax(axis=1)]
    for origin in reversed(came_from):
        path.append(origin[np.arange(len(origin)), path[-1]])
    return np.stack(path[::-1], axis=1)


def _probabilities(scores: Array, steps: Array) -> Array:
    """The probability of each state of each window, given all windows: `[windows, states]`."""

    def passed(scores: Array, steps: Array) -> Array:
        found = [scores[0]]
        for score, step in zip(scores[1:], steps, strict=True):
            found.append(np.logaddexp.reduce(found[-1][:, np.newaxis] + step, axis=0) + score)
        return np.stack(found)

    forward = passed(scores, steps[1:])
    backward = passed(scores[::-1], steps[:0:-1].swapaxes(1, 2))[::-1]
    both = forward + backward - scores
    return np.exp(both - np.logaddexp.reduce(both, axis=1, keepdims=True))
