"""Statistics of scores over mixtures: bootstrap intervals and paired tests."""

import dataclasses
import functools

import numpy as np
import numpy.typing as npt
from scipy import stats

Float64 = npt.NDArray[np.float64]

BOOTSTRAP_RESAMPLES = 2_000
BOOTSTRAP_SEED = 0
_LEVEL = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Summary:
    """A score over mixtures.

    Attributes:
        mean: Its mean.
        median: Its median.
        low: Lower end of the 95 % percentile bootstrap interval of the mean.
        high: Upper end.
    """

    mean: float
    median: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PairedComparison:
    """One system less another, on the same mixtures.

    Attributes:
        difference: Mean of the differences.
        low: Lower end of their 95 % bootstrap interval.
        high: Upper end.
        wins: Share of the mixtures on which the first is ahead, ties counted half.
        p_value: Of Wilcoxon's signed-rank test, two-sided; 1 where all differences are zero.
    """

    difference: float
    low: float
    high: float
    wins: float
    p_value: float


@functools.lru_cache(maxsize=2)
def _resample_weights(num_values: int) -> Float64:
    # How often a resample of n values holds each of them is Multinomial(n, 1/n).
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    counts = rng.multinomial(num_values, np.full(num_values, 1 / num_values), size=BOOTSTRAP_RESAMPLES)
    return counts / num_values


def _interval(values: Float64) -> tuple[float, float]:
    low, high = np.percentile(_resample_weights(len(values)) @ values, _LEVEL)
    return float(low), float(high)


def summarise(values: Float64) -> Summary:
    """Summarises a score of each mixture.

    Args:
        values: float64 `[num_mixtures]`, finite; the mixture is the unit that is resampled, because its sources'
            scores depend on each other.

    Returns:
        The summary.
    """
    return Summary(float(values.mean()), float(np.median(values)), *_interval(values))


def compare(first: Float64, second: Float64) -> PairedComparison:
    """Compares two systems' scores of the same mixtures.

    Args:
        first: float64 `[num_mixtures]`.
        second: float64 `[num_mixtures]`, of the same mixtures in the same order.

    Returns:
        `first` less `second`.
    """
    differences = first - second
    wins = np.mean((differences > 0) + 0.5 * (differences == 0))
    p_value = float(stats.wilcoxon(differences).pvalue) if np.any(differences) else 1.0
    return PairedComparison(float(differences.mean()), *_interval(differences), float(wins), p_value)
