"""Pictures in colour, `[height, width, 3]`, through networks, masks, objectives, scores and figures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import figures
from vae_bss_tf import metrics
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.domains import Images
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.nn.images import SourceMask
from vae_bss_tf.nn.mask_network import MaskNetwork
from vae_bss_tf.objectives import Elbo, RemixedElbo

SHAPE = (8, 12, 3)
CONFIG = ModelConfig(input_shape=SHAPE, latent_dim=4, hidden_units=(16, 12), convolutions=(4,), mask_channels=(3, 4))


def pictures(*leading: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(*leading, *SHAPE)).astype(np.float32)


def test_a_model_of_colour_gives_sources_that_sum_to_the_mixture() -> None:
    keras.utils.set_random_seed(0)
    mixtures = pictures(5)
    sources = MultiSourceVAE(CONFIG).separate(mixtures)
    assert sources.shape == (5, 2, *SHAPE)
    np.testing.assert_allclose(sources.sum(axis=1), mixtures, atol=1e-6)


def test_the_mask_of_colour_is_the_mask_of_each_channel() -> None:
    estimates, mixtures = pictures(4, 2), pictures(4)
    np.testing.assert_allclose(SourceMask()(estimates, mixtures), ratio_mask(estimates, mixtures, ops=np), rtol=1e-5)


@pytest.mark.parametrize("patch", [1, 2])
def test_a_mask_network_keeps_channels_apart_from_sources(patch: int) -> None:
    """With weights that single out one input, the factor of each channel of each source depends on it where it is."""
    network = MaskNetwork((4,), patch=patch)
    mixtures, estimates = pictures(2), pictures(2, 2)
    np.testing.assert_allclose(network(mixtures, estimates), (estimates + 1e-4) / 2, rtol=1e-5)  # untrained
    network.head.bias.assign(np.random.default_rng(1).normal(size=network.head.bias.shape))
    factors = np.asarray(network(mixtures, estimates)) / (estimates + 1e-4)
    blocks = factors.reshape(2, 2, 8 // patch, patch, 12 // patch, patch, 3)
    np.testing.assert_allclose(blocks, np.broadcast_to(blocks[:1, :, :1, :, :1], blocks.shape), rtol=1e-4)
    assert np.ptp(blocks[0, 0, 0, 0, 0, 0]) > 1e-3  # each channel has a factor of its own


def test_objectives_of_colour_sum_over_the_channels() -> None:
    model, mixtures = MultiSourceVAE(CONFIG), tf.constant(pictures(4))
    loss, values = RemixedElbo(Elbo(), Images(), masked=True)(model, mixtures, tf.constant(0))
    assert np.isfinite(loss)
    assert values["log_likelihood"].shape == (4,)
    assert model.refine(mixtures, tf.constant(2.0)).shape == (4, 2, *SHAPE)


def test_mixtures_of_colour_hold_as_many_sources_as_drawn() -> None:
    bank = SourceBank("colour", "train", pictures(6), np.arange(6), 1.0)
    drawn = next(iter(training_mixtures(bank, num_mixed=(1, 2), batch_size=16, seed=0)))["mixture"]
    assert drawn.shape == (16, *SHAPE)
    truth = evaluation_mixtures(bank, num_mixed=(2,), num_mixtures=3)
    np.testing.assert_allclose(truth.sources.sum(axis=1), truth.mixtures, atol=1e-6)


def test_the_similarity_of_colour_is_the_mean_over_the_channels() -> None:
    one, other = pictures(2, 2), np.flip(pictures(2, 2), axis=0)
    each = [metrics.ssim(one[..., c], other[..., c]) for c in range(3)]
    np.testing.assert_allclose(metrics.ssim(one, other), np.mean(each, axis=0))


def test_a_figure_of_colour_is_in_colour() -> None:
    sources = pictures(2, 2) / 2
    figure = figures.separation(sources.sum(axis=1), sources, sources)
    assert np.asarray(figure.axes[0].images[0].get_array()).shape[-1] == 3


def test_spectrograms_have_no_colour() -> None:
    with pytest.raises(ConfigError, match="input_shape"):
        ModelConfig(input_shape=SHAPE, network="spectrogram", hidden_units=(8, 8, 8))
