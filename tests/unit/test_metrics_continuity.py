"""Whether an output stays with its source through a recording."""

import numpy as np
import pytest

from vae_bss_tf import metrics
from vae_bss_tf.errors import DataError

RATE = 8_000


@pytest.fixture
def sources() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 10 * RATE)).astype(np.float32)


def test_an_output_that_changes_its_source_is_told_from_one_that_is_bad(sources: np.ndarray) -> None:
    """With an error of a tenth of the energy, each window has 10 dB in its best order; a third is exchanged, twice."""
    noise = np.random.default_rng(1).standard_normal(sources.shape).astype(np.float32)
    outputs = sources + noise * np.float32(0.1**0.5)
    outputs[:, 4 * RATE : 7 * RATE] = outputs[::-1, 4 * RATE : 7 * RATE].copy()
    found = metrics.continuity(outputs, sources, np.array([0, 1]), RATE)
    assert found.window_si_sdr == pytest.approx(10, abs=0.1)
    assert found.exchanged == pytest.approx(6 / 20)
    assert found.exchanges_per_minute == pytest.approx(2 * 6)
    other = metrics.continuity(outputs[::-1].copy(), sources, np.array([1, 0]), RATE)
    np.testing.assert_allclose(other, found)
    assert metrics.continuity(outputs[::-1].copy(), sources, np.array([0, 1]), RATE).exchanged == pytest.approx(0.7)


def test_windows_in_which_a_source_is_silent_have_no_order(sources: np.ndarray) -> None:
    sources[1, : 5 * RATE] *= 1e-3
    outputs = sources.copy()
    outputs[:, : 5 * RATE] = outputs[::-1, : 5 * RATE].copy()
    found = metrics.continuity(outputs, sources, np.array([0, 1]), RATE)
    assert (found.exchanged, found.exchanges_per_minute) == (0, 0)


def test_outputs_that_are_alike_are_never_exchanged(sources: np.ndarray) -> None:
    mixture = np.repeat(sources.sum(axis=0, keepdims=True), 2, axis=0)
    found = metrics.continuity(mixture, sources, np.array([1, 0]), RATE)
    assert found[1:] == (0, 0)
    assert found.window_si_sdr == pytest.approx(0, abs=0.1)


def test_two_channels_are_one_signal_and_a_short_recording_one_window(sources: np.ndarray) -> None:
    stereo = np.stack([sources, 0.5 * sources[::-1]], axis=1)[..., :1_000]
    found = metrics.continuity(stereo, stereo, np.array([0, 1]), RATE)
    assert found.window_si_sdr == pytest.approx(metrics.CEILING_DB)
    apart = np.zeros((2, 2 * RATE), np.float32)  # one after the other: no window holds both
    apart[0, :RATE], apart[1, RATE:] = sources[:, :RATE]
    assert metrics.continuity(apart, apart, np.array([0, 1]), RATE).exchanged == 0
    with pytest.raises(DataError, match="do not fit"):
        metrics.continuity(stereo, sources, np.array([0, 1]), RATE)
