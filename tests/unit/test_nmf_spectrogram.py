"""NMF of single spectrograms."""

import numpy as np
import pytest

from vae_bss_tf import metrics
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.baselines.nmf_spectrogram import DIVERGENCES, SpectrogramNMF
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import ConfigError

AUDIO = AudioConfig(n_fft=64, hop_length=16, num_frames=16, num_bins=24, power=0.5)


def test_more_sources_than_frames_are_refused() -> None:
    audio = AudioConfig(n_fft=64, hop_length=16, num_frames=8, num_bins=32)
    SpectrogramNMF(audio, num_sources=8)
    with pytest.raises(ConfigError, match="num_sources is 9; it must be from 1 to 8"):
        SpectrogramNMF(audio, num_sources=9)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_two_steady_spectra_are_found(divergence: str) -> None:
    rng = np.random.default_rng(0)
    spectra = np.where(rng.uniform(size=(20, 2, 1, 24)) < 0.3, rng.uniform(0.2, 1, (20, 2, 1, 24)), 1e-3)
    courses = np.stack([np.linspace(1, 0, 16), np.linspace(0, 1, 16)])[:, :, None]
    magnitudes = (spectra * courses / 2).astype(np.float32)
    mixtures = spectrogram.compress(magnitudes.sum(axis=1), AUDIO)
    separated = spectrogram.expand(SpectrogramNMF(AUDIO, 2, divergence).separate(mixtures), AUDIO)
    assert separated.shape == (20, 2, 16, 24)
    assert np.abs(separated.sum(axis=1) - magnitudes.sum(axis=1)).max() < 1e-4
    assignment = metrics.match_sources(-metrics.pairwise_mse(separated, magnitudes), np.full(20, 2))
    matched = metrics.take_matched(separated, assignment)
    assert metrics.si_bss_eval(matched, magnitudes).sdr.mean() > 20
