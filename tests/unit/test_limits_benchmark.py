"""What holds a model of sound back: latents fitted to known sources, and recordings put together from known masks."""

from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import limits
from training.evaluation.truth_folder import find_cases
from vae_bss_tf import metrics
from vae_bss_tf.config import AudioConfig, ModelConfig
from vae_bss_tf.model import MultiSourceVAE

REPOSITORY = Path(__file__).resolve().parents[2]
AUDIO = AudioConfig(sample_rate=4_000, n_fft=256, hop_length=64, num_frames=32, num_bins=128)


def test_fitted_latents_give_the_sources_that_a_decoder_made() -> None:
    keras.utils.set_random_seed(3)
    config = ModelConfig(input_shape=(8, 16), latent_dim=3, hidden_units=(16, 16), network="spectrogram",
                         likelihood="normal", likelihood_scale=0.05)  # fmt: skip
    model = MultiSourceVAE(config)
    model.decoder.spectra.kernel.assign(4 * model.decoder.spectra.kernel)
    latents = np.random.default_rng(4).normal(size=(6, 2, 3)).astype(np.float32)
    sources = model.decode(latents).numpy() / 2
    mixtures = sources.sum(axis=1)
    found = limits.fitted(model)(mixtures, sources * 2)
    expected = model.masked(model.decode(latents), mixtures).numpy()
    before = model.separate(mixtures)
    products = np.einsum("nkfb,nmfb->nkm", before, expected, dtype=np.float64)
    before = np.take_along_axis(before, metrics.match_sources(products)[..., None, None], axis=1)
    assert np.square(found - expected).mean() < 0.05 * np.square(before - expected).mean()


def test_masks_of_the_true_sources_separate_two_bands(two_bands: Path) -> None:
    (case,) = find_cases(two_bands, (".wav",))
    half = np.full((1, 2, 1, 1), 0.5, np.float32)
    scores = limits.judged(
        {"masks": lambda mixtures, sources: sources, "model": lambda mixtures, sources: half * mixtures[:, None]},
        AUDIO,
        case,
    )
    assert scores["masks"] > 25
    assert scores["model"] == pytest.approx(0, abs=0.1)


def test_a_model_of_pictures_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert (
        limits.main(
            [str(REPOSITORY / "saved_models/mnist"), "--truth", str(tmp_path), "--json", str(tmp_path / "l.json")]
        )
        == 2
    )
    assert "no multi-source VAE of sound" in capsys.readouterr().err
