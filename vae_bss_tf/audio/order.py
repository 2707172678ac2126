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
_LOWEST_HZ, _HIGHEST_HZ = 80.0, 2_756.25  # higher up, notes have too little to tell their instruments by
_FLOOR = 1e-4  # of a source's energy, in each band
_NUM_COEFFICIENTS = 8
_FIRST_FEATURES = [0, 1, 2, 3, 4, 8, 9]  # coefficients that carry most, pitch and level
_PITCHES_HZ = 60.0, 1500.0
_LAGS_A_SAMPLE = 4
_COMPRESSION = 1 / 3  # exponent of the power, so that the harmonics of a note count alike
_LEAST_LEVEL = 0.3  # of the mean energy of a source
_SOUNDING = 0.01  # of the mean energy: windows below it are silent
_OVERLAP_WEIGHT = 8.0  # nats for waveforms that go on without a change
_FINAL_OVERLAP_WEIGHT = 3.0  # the same, where the features tell more
_FULL_WEIGHT = 20.0  # a source of a 20th of the mean energy counts in full
_LEAST_VARIANCE = 0.02  # of standardised features
_FARTHEST = 4.0  # squared deviations from a mean, over the variance: whatever strays further counts as this
_LEAST_COVARIANCE = 0.05  # of standardised features, on the diagonal
_FARTHEST_OF_ALL = 2.8  # of each feature, on average
_MAX_ITERATIONS = 8
_REPEATED = 4.0  # windows that say the same


class WindowFeatures(NamedTuple):
    """What is kept of separated windows to order their sources by.

    Attributes:
        sound: float64 `[windows, num_sources, 9]`, eight cepstral coefficients of the spectral envelope and the
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

    The spectral envelope is the energy in 18 bands, equally wide in octaves, from 80 Hz to 2,756 Hz or half the rate,
    of which the discrete cosine transform of the logarithms is taken (the cepstrum of Davis and Mermelstein, 1980). The
    pitch is where, from 60 to 1,500 Hz, the autocorrelation of the compressed spectrum is largest (Tolonen and
    Karjalainen, 2000).

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
    edges = np.geomspace(_LOWEST_HZ, min(_HIGHEST_HZ, sample_rate / 2), _NUM_BANDS + 1)
    bins = np.fft.rfftfreq(2 * length, 1 / sample_rate)
    starts, end = np.searchsorted(bins, edges[:-1]), np.searchsorted(bins, edges[-1], side="right")
    bands = np.add.reduceat(power[:, :end], starts, axis=1).swapaxes(1, 2)
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
    """The first rows of the discrete cosine transform, without the mean: `[8, 18]`."""
    rows, columns = np.arange(1, _NUM_COEFFICIENTS + 1)[:, np.newaxis], np.arange(_NUM_BANDS)
    return np.sqrt(2 / _NUM_BANDS) * np.cos(np.pi * rows * (2 * columns + 1) / (2 * _NUM_BANDS))


def consistent_orders(found: WindowFeatures) -> tuple[Orders, Array]:
    """Orders the sources of all windows of a recording alike.

    The order is the hidden state of a chain (Rabiner 1989) in which each window depends on the two before. Each source
    has a mean spectral envelope, pitch and level, from which windows depart by a variance; states follow each other by
    how far waveforms go on. Means and most probable states are found in turn, as by k-means: first from several
    beginnings, with few features that vary alike in all sources, of which the most probable outcome is taken; then from
    this, with all features and a covariance matrix for each source.

    Args:
        found: Features of all windows, in order; of at most `MAX_SOURCES` sources.

    Returns:
        int64 `[windows, num_sources]`, which source of a window stands in each place, the loudest over the recording in
        the first; and how sure each is, float64 `[windows]` in [0, 1]: the probability of the window's order, for which
        four windows count as one, since each shares three quarters of its samples with the next; 1 where it is silent.
    """
    states = np.asarray(list(itertools.permutations(range(found.energy.shape[1]))))
    energy = found.energy.sum(axis=1)
    heard = np.sqrt(np.minimum(1.0, _FULL_WEIGHT * found.energy / max(energy.mean(), 1e-30)))
    level = np.log(found.energy / max(found.energy.mean(), 1e-30) + _LEAST_LEVEL)
    sound = np.concatenate([found.sound, level[..., np.newaxis]], axis=2)
    steps = _Steps(_between(found.quarters, states), _between(found.halves, states))
    chosen = _by_means(sound[..., _FIRST_FEATURES], heard, steps, states)
    chosen, certainty = _by_covariances(_standardised(sound, heard[..., np.newaxis]), heard, chosen, steps, states)
    certainty[energy <= _SOUNDING * energy.mean()] = 1
    orders = states[chosen]
    loudest_first = np.argsort(-np.take_along_axis(found.energy, orders, axis=1).sum(axis=0), kind="stable")
    return orders[:, loudest_first], certainty


class _Steps(NamedTuple):
    """How far each order goes on with each: `[windows, states before, states]`, of the two windows before."""

    quarters: Array
    halves: Array
    weight: float = 1.0  # that they have in a score; no weighted copy is made, since they are large

    def weighted(self, weight: float) -> "_Steps":
        return self._replace(weight=self.weight * weight)

    def quarter(self, window: int) -> Array:
        return self.weight * self.quarters[window]

    def half(self, window: int) -> Array:
        return self.weight * self.halves[window]


def _between(products: Array, states: Orders) -> Array:
    """Sums of inner products `[windows, num_sources, num_sources]` for each two states: `[windows, states, states]`."""
    total = np.zeros((len(products), len(states), len(states)))
    for place in range(states.shape[1]):
        total += products[:, states[:, np.newaxis, place], states[np.newaxis, :, place]]
    return total


def _by_means(sound: Array, heard: Array, steps: _Steps, states: Orders) -> Orders:
    """The first of the two ways of `consistent_orders`: the states `[windows]`."""
    # The level of a source that is not heard is known as well as any other.
    weight = np.repeat(heard[..., np.newaxis], sound.shape[2], axis=2)
    weight[..., -1] = 1
    sound = _standardised(sound, weight)
    steps = steps.weighted(_OVERLAP_WEIGHT)
    by_overlap = _most_probable(np.zeros((1, len(sound), len(states))), steps)
    by_sound = _states_of(np.argsort(sound.transpose(2, 0, 1), axis=2, kind="stable"), states)
    chosen = np.concatenate([by_sound, by_overlap])
    for _ in range(_MAX_ITERATIONS):
        found_scores = [_window_scores(sound, weight, states[course], states) for course in chosen]
        scores, constants = (np.stack(parts) for parts in zip(*found_scores, strict=True))
        before, chosen = chosen, _most_probable(scores, steps)
        if np.array_equal(before, chosen):
            break
    of_windows = np.take_along_axis(scores, chosen[:, :, np.newaxis], axis=2)[:, :, 0].sum(axis=1)
    windows = np.arange(len(sound))
    going_on = steps.weight * sum(
        part[windows[lag:], chosen[:, :-lag], chosen[:, lag:]].sum(axis=1)
        for lag, part in enumerate((steps.quarters, steps.halves), 1)
    )
    return np.asarray(chosen[np.argmax(constants + of_windows + going_on)])


def _by_covariances(sound: Array, heard: Array, chosen: Orders, steps: _Steps, states: Orders) -> tuple[Orders, Array]:
    """The second way of `consistent_orders`: the states `[windows]`, and the probability of each."""
    steps = steps.weighted(_FINAL_OVERLAP_WEIGHT)
    for _ in range(_MAX_ITERATIONS):
        scores = _covariance_scores(sound, heard, states[chosen], states)
        before, chosen = chosen, _most_probable(scores[np.newaxis], steps)[0]
        if np.array_equal(before, chosen):
            break
    probabilities = _probabilities(scores / _REPEATED, steps.weighted(1 / _REPEATED))
    return chosen, probabilities[np.arange(len(chosen)), chosen]


def _covariance_scores(sound: Array, heard: Array, orders: Orders, states: Orders) -> Array:
    """As `_window_scores`, with a covariance matrix for each source: log probabilities `[windows, states]`."""
    num_features = sound.shape[2]
    weights = np.take_along_axis(heard, orders, axis=1)
    placed = np.take_along_axis(sound, orders[..., np.newaxis], axis=1)
    fits = []
    for weight, values in zip(weights.T, placed.swapaxes(0, 1), strict=True):
        total = max(weight.sum(), 1e-30)
        mean = weight @ values / total
        covariance = (weight[:, np.newaxis] * (values - mean)).T @ (values - mean) / total
        covariance += _LEAST_COVARIANCE * np.eye(num_features)
        departures = sound - mean
        strays = np.einsum("tkf,fg,tkg->tk", departures, np.linalg.inv(covariance), departures)
        strays = np.minimum(strays, _FARTHEST_OF_ALL * num_features)
        fits.append(-0.5 * heard * (strays + np.linalg.slogdet(covariance)[1]))
    return np.asarray(sum(fit[:, states[:, place]] for place, fit in enumerate(fits)))


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


def _most_probable(scores: Array, steps: _Steps) -> Orders:
    """The most probable states of chains (Viterbi 1967): `[chains, windows]`, from `[chains, windows, states]`."""
    if scores.shape[1] == 1:
        return scores[:, :1].argmax(axis=2)
    chains, states = np.arange(len(scores)), scores.shape[2]
    reached = _begin(scores, steps)  # [chains, state before, state]
    came_from = []
    for window in range(2, scores.shape[1]):
        ways = reached[..., np.newaxis] + steps.half(window)[:, np.newaxis]
        came_from.append(ways.argmax(axis=1).astype(np.int8))
        reached = ways.max(axis=1) + steps.quarter(window) + scores[:, window, np.newaxis]
    earlier, later = np.divmod(reached.reshape(len(scores), -1).argmax(axis=1), states)
    path = [later, earlier]
    for origin in reversed(came_from):
        earlier, later = origin[chains, earlier, later].astype(int), earlier
        path.append(earlier)
    return np.stack(path[::-1], axis=1)


def _begin(scores: Array, steps: _Steps) -> Array:
    return np.asarray(scores[:, 0, :, np.newaxis] + scores[:, 1, np.newaxis] + steps.quarter(1))


def _probabilities(scores: Array, steps: _Steps) -> Array:
    """The probability of each state of each window, given all windows: `[windows, states]`."""
    if len(scores) == 1:
        logarithms = scores
    else:
        forward = [_begin(scores[np.newaxis], steps)[0]]  # [state before, state], of each window from the second on
        for window in range(2, len(scores)):
            ways = np.logaddexp.reduce(forward[-1][..., np.newaxis] + steps.half(window)[:, np.newaxis], axis=0)
            forward.append(ways + steps.quarter(window) + scores[window])
        backward = np.zeros_like(forward[0])
        both = [np.logaddexp.reduce(forward[-1], axis=0)]
        for window in range(len(scores) - 1, 1, -1):
            after = backward + steps.quarter(window) + scores[window]
            backward = np.logaddexp.reduce(steps.half(window)[:, np.newaxis] + after, axis=2)
            both.append(np.logaddexp.reduce(forward[window - 2] + backward, axis=0))
        both.append(np.logaddexp.reduce(forward[0] + backward, axis=1))
        logarithms = np.stack(both[::-1])
    return np.asarray(np.exp(logarithms - np.logaddexp.reduce(logarithms, axis=1, keepdims=True)))
