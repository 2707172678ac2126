"""What the order of the sources costs, on recordings whose windows a known separator exchanges."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.order import judged, true_orders
from training.evaluation.truth_folder import find_cases
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.config import AudioConfig

AUDIO = AudioConfig(sample_rate=4_000, n_fft=256, hop_length=64, num_frames=32, num_bins=128)


class BandSplit:
    """Gives the bins below 500 Hz to one source and the others to the next, in an order that each mixture decides."""

    def separate(self, mixtures: np.ndarray) -> np.ndarray:
        low = np.arange(mixtures.shape[2]) * AUDIO.sample_rate / AUDIO.n_fft < 500
        first = (1e4 * mixtures.sum(axis=(1, 2), keepdims=True)).astype(int) % 2
        parts = mixtures * low, mixtures * ~low
        return np.stack([np.where(first, *parts), np.where(first, *parts[::-1])], axis=1).astype(np.float32)


def test_the_truth_chooses_the_order_of_least_error() -> None:
    sources = np.random.default_rng(1).normal(size=(5, 100, 2)).astype(np.float32)
    exchanged = np.asarray([0, 1, 1, 0, 1])
    separated = np.stack([s[:, [x, 1 - x]] for s, x in zip(sources, exchanged, strict=True)])
    np.testing.assert_array_equal(true_orders(separated, sources), np.stack([exchanged, 1 - exchanged], axis=1))


def test_a_recording_of_two_bands_is_put_together_right(two_bands: Path) -> None:
    (case,) = find_cases(two_bands, (".wav",))
    found = judged(Separator(BandSplit(), AUDIO), case)
    assert min(found["si_sdr"].values()) > 25
    assert found["si_sdr"]["truth"] >= found["si_sdr"]["recording"] - 1e-6
    assert found["wrong"] == pytest.approx(0)
    assert found["sure"] > 0.9
