"""How many outputs of a separation hold a source."""

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError
from vae_bss_tf.metrics.ratios import Array, Float64, flatten

Int64 = npt.NDArray[np.int64]

_LEAST_SPREAD = 1.0  # dB


def activity_levels(estimates: Array) -> Float64:
    """Level of each output in dB, the statistic that `count_active` compares with its threshold.

    A source has one level whatever number of others it is mixed with (`DataConfig.num_mixed`), so the level is
    absolute, not a share of the mixture.

    Args:
        estimates: float `[batch, K, *shape]`, the masked outputs, in [0, 1].

    Returns:
        float64 `[batch, K]`: 10 log10 of the mean square, at least -80 dB.
    """
    return 10 * np.log10(np.mean(flatten(estimates) ** 2, axis=-1) + 1e-8)


def fit_activity_threshold(levels: Float64) -> float:
    """Finds the level that separates silent outputs from active ones, without labels: the minimum-error threshold.

    The levels of active outputs lie within a few dB, those of silent outputs spread over tens of dB. Each class is
    modelled as a normal distribution of its own width, and the threshold is that of the most likely division (Kittler
    and Illingworth 1986, on the sorted levels rather than a histogram). A threshold that favours classes of equal width
    would call the louder silent outputs active.

    Args:
        levels: float `[...]`, `activity_levels` of a model's outputs on TRAINING mixtures, which hold silent and
            active outputs alike (a model with K = 4 on mixtures of 1 to 4 sources).

    Returns:
        The threshold in dB. Standard deviations below 1 dB count as 1 dB, so that a class of equal levels, such as
        the lowest that `activity_levels` returns, is not infinitely likely.

    Raises:
        DataError: Fewer than two different levels.
    """
    ordered = np.sort(np.ravel(levels))
    if len(ordered) < 2 or ordered[0] == ordered[-1]:
        raise DataError("an activity threshold needs at least two different levels.")
    share = np.arange(1, len(ordered)) / len(ordered)
    spread_below, spread_above = _running_deviations(ordered), _running_deviations(ordered[::-1])[::-1]
    below = share * (np.log(np.maximum(spread_below, _LEAST_SPREAD)) - np.log(share))
    above = (1 - share) * (np.log(np.maximum(spread_above, _LEAST_SPREAD)) - np.log(1 - share))
    split = int(np.argmin(below + above))
    return float((ordered[split] + ordered[split + 1]) / 2)


def _running_deviations(values: Float64) -> Float64:
    """Standard deviations of the first one, two, ... all but one of the values."""
    centred = values - values.mean()
    number = np.arange(1, len(values))
    mean = np.cumsum(centred)[:-1] / number
    return np.sqrt(np.maximum(np.cumsum(centred**2)[:-1] / number - mean**2, 0.0))


def count_active(estimates: Array, threshold: float) -> Int64:
    """Counts the outputs that hold a source: those whose `activity_levels` is above the threshold.

    Args:
        estimates: float `[batch, K, *shape]`, the masked outputs.
        threshold: dB, of `fit_activity_threshold`.

    Returns:
        int64 `[batch]`, from 0 to K.
    """
    return np.count_nonzero(activity_levels(estimates) > threshold, axis=1).astype(np.int64)


def count_confusion(true_counts: Int64, found_counts: Int64, num_sources: int) -> Int64:
    """Confusion matrix of the number of sources.

    Args:
        true_counts: int `[batch]`, from 0 to `num_sources`.
        found_counts: int `[batch]`, from 0 to `num_sources`.
        num_sources: K.

    Returns:
        int64 `[K + 1, K + 1]`: row = sources in the mixture, column = sources found.
    """
    matrix = np.zeros((num_sources + 1, num_sources + 1), dtype=np.int64)
    np.add.at(matrix, (np.asarray(true_counts), np.asarray(found_counts)), 1)
    return matrix
