"""The network that sharpens estimates before they are masked: what it sees, and that files keep it."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import fit
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.nn.mask_network import MaskNetwork
from vae_bss_tf.presets import get_preset

CONFIG = ModelConfig((8, 8), latent_dim=4, hidden_units=(24, 16), mask_channels=(3, 4))


def randomised(layer: keras.Layer) -> None:
    """Gives every weight a value; at the start the head is zero."""
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(-0.5, 0.5, weight.shape) for weight in layer.get_weights()])


@pytest.fixture
def mixtures() -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(6, 8, 8)).astype(np.float32)


@pytest.fixture
def estimates() -> np.ndarray:
    return np.random.default_rng(2).uniform(size=(6, 3, 8, 8)).astype(np.float32)


def built(channels: tuple[int, ...], policy: str = "float32") -> MaskNetwork:
    network = MaskNetwork(channels, dtype=policy)
    network.build((None, 8, 8), (None, 3, 8, 8))
    return network


def test_it_sees_the_mixture_the_estimate_and_the_others(mixtures: np.ndarray, estimates: np.ndarray) -> None:
    """With kernels of one pixel it is two layers of a pixel's three values."""
    network = built((2,))
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(3, 2)), rng.normal(size=(2, 1))
    weights = [np.zeros((3, 3, 3, 2)), rng.normal(size=2), np.zeros((3, 3, 2, 1)), rng.normal(size=1)]
    weights[0][1, 1], weights[2][1, 1] = first, second
    network.set_weights(weights)
    views = np.stack(
        [np.broadcast_to(mixtures[:, None], estimates.shape), estimates, estimates.sum(1, keepdims=True) - estimates],
        axis=-1,
    )
    logits = (np.maximum(views @ first + weights[1], 0) @ second + weights[3])[..., 0]
    expected = (estimates + 1e-4) / (1 + np.exp(-logits))
    np.testing.assert_allclose(network(mixtures, estimates), expected, rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_untrained_it_changes_no_mask_whatever_the_precision(
    policy: str, mixtures: np.ndarray, estimates: np.ndarray
) -> None:
    rescaled = built((3, 4, 5), policy)(mixtures, estimates)
    assert rescaled.dtype == "float32"
    np.testing.assert_allclose(rescaled, (estimates + 1e-4) / 2, rtol=1e-6)


def test_sources_in_another_order_are_rescaled_alike(mixtures: np.ndarray, estimates: np.ndarray) -> None:
    network = built((3, 4, 5))
    randomised(network)
    order = [2, 0, 1]
    rescaled = network(mixtures, estimates)
    assert np.ptp(rescaled / estimates) > 0.1
    np.testing.assert_allclose(
        tf.gather(rescaled, order, axis=1), network(mixtures, estimates[:, order]), rtol=1e-4, atol=1e-6
    )


def test_the_masks_are_shared_by_what_it_gives(mixtures: np.ndarray) -> None:
    model = MultiSourceVAE(CONFIG.replace(mask_exponent=2.0))
    randomised(model.mask_network)
    outputs = model(mixtures)
    shared = np.square(model.mask_network(mixtures, outputs["estimates"]))
    expected = mixtures[:, None] * shared / shared.sum(1, keepdims=True)
    np.testing.assert_allclose(outputs["sources"], expected, atol=1e-6)
    np.testing.assert_allclose(model.separate(mixtures), expected, atol=1e-5)
    np.testing.assert_allclose(model.refine(mixtures, tf.constant(0.0)), expected, atol=1e-5)


def test_its_weights_count_among_the_parameters() -> None:
    model = MultiSourceVAE(CONFIG)
    without = MultiSourceVAE(CONFIG.replace(mask_channels=()))
    moments = sum(np.size(weight) for weight in without.weights if weight.name in ("moving_mean", "moving_variance"))
    assert moments
    assert without.num_parameters == without.count_params() - moments
    assert model.num_parameters == without.num_parameters + model.mask_network.count_params()


def test_a_copy_has_weights_of_its_own_and_a_mask_network_or_none(mixtures: np.ndarray) -> None:
    model = MultiSourceVAE(CONFIG)
    randomised(model.mask_network)
    copy, without = model.copy(), model.copy(mask_network=False)
    before = copy.separate(mixtures)
    np.testing.assert_array_equal(before, model.separate(mixtures))
    assert without.mask_network is None
    np.testing.assert_array_equal(without(mixtures)["estimates"], model(mixtures)["estimates"])
    assert np.abs(without.separate(mixtures) - before).max() > 1e-3
    for weight in model.weights:
        weight.assign(weight + 1)
    np.testing.assert_array_equal(copy.separate(mixtures), before)


def test_a_saved_model_keeps_it(mixtures: np.ndarray, tmp_path: Path) -> None:
    model = MultiSourceVAE(CONFIG)
    randomised(model.mask_network)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.separate(mixtures), model.separate(mixtures))


def test_a_shape_that_cannot_be_halved_is_refused() -> None:
    CONFIG.replace(mask_channels=(2, 2, 2, 2))
    for bad in ((2, 2, 2, 2, 2), (0,)):
        with pytest.raises(ConfigError, match="mask_channels"):
            CONFIG.replace(mask_channels=bad)


def test_an_autoencoder_and_a_baseline_train_without_one() -> None:
    preset = get_preset("mnist")
    assert fit.completed(preset, "vae").model == preset.model
    for system in ("ae", "glo", "mixit"):
        completed = fit.completed(preset, system)
        assert completed.model.mask_channels == ()
        assert len(completed.recipe.phases) == 1
        assert completed.model.variational is (system != "ae")
    with pytest.raises(ConfigError, match="glo is not made for sound"):
        fit.completed(get_preset("notes"), "glo")
