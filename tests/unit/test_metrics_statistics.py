"""Bootstrap intervals and paired comparisons against closed forms."""

import numpy as np
import pytest

from training.evaluation.statistics import compare, summarise


def test_interval_of_the_mean_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 4_000)
    summary = summarise(values)
    assert summary.mean == pytest.approx(values.mean())
    assert summary.median == pytest.approx(np.median(values))
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert summary.high - summary.mean == pytest.approx(half, rel=0.1)
    assert summary.mean - summary.low == pytest.approx(half, rel=0.1)


def test_a_paired_comparison_sees_what_is_below_the_spread_of_either() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(0.0, 10.0, 500)
    result = compare(hard + 0.2 + rng.normal(0, 0.5, 500), hard)
    assert 0.1 < result.low < result.difference < result.high < 0.3
    assert result.wins > 0.6
    assert result.p_value < 1e-6


def test_a_system_compared_with_itself_is_a_draw() -> None:
    values = np.arange(10.0)
    result = compare(values, values)
    assert (result.difference, result.low, result.high, result.wins, result.p_value) == (0, 0, 0, 0.5, 1)
