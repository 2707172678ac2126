"""The network that sharpens estimates before they are masked: what it sees, what is trained, and that files keep it."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import fit
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.config import AudioConfig, ModelConfig
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.mask_network import MaskNetwork
from vae_bss_tf.objectives import remixing
from vae_bss_tf.phases import Recipe
from vae_bss_tf.presets import get_preset

CONFIG = ModelConfig((8, 8), latent_dim=4, hidden_units=(24, 16), mask_channels=(3, 4), corrector_units=(12,))
AUDIO = AudioConfig(sample_rate=4_000.0, n_fft=16, hop_length=4, num_frames=32, num_bins=8, frame_pooling=4, power=0.5)
SOUND = CONFIG.replace(network="spectrogram", hidden_units=(8, 12, 10), mask_exponent=2.0)


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
    network.build((None, 8, 8))
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
    np.testing.assert_array_equal(model._taught(mixtures), ratio_mask(outputs["estimates"], mixtures))


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_it_is_judged_by_the_squared_error_of_the_sources_in_use(exponent: float, mixtures: np.ndarray) -> None:
    """Two networks of the same model differ in loss as their outputs differ in squared error."""
    model = MultiSourceVAE(CONFIG.replace(mask_exponent=exponent), remix_weight=1.0, kl_weight=0.1)
    model.remixing = model.remix_masked = True
    known, estimates = np.random.default_rng(4).uniform(size=(2, 6, 2, 8, 8)).astype(np.float32)
    outputs = {**model(mixtures, training=True), "estimates": estimates}
    losses, errors = [], []
    for _ in range(2):
        masked = model.mask(model.mask_network(mixtures, estimates), mixtures)
        fits = remixing.log_likelihood("laplace", CONFIG.likelihood_scale, estimates, known)
        fits += remixing.log_likelihood("normal", remixing.MASKED_SCALE, masked, known)
        errors.append(-float(np.mean(remixing.best_order(fits))))
        losses.append(float(model.compute_loss({"mixture": mixtures, "remixed_sources": known}, y_pred=outputs)))
        randomised(model.mask_network)
        model.mask_network.head.kernel.assign(4 * model.mask_network.head.kernel)
    assert abs(errors[1] - errors[0]) > 1
    np.testing.assert_allclose(losses[1] - losses[0], errors[1] - errors[0], rtol=2e-3)


@pytest.mark.parametrize(
    ("config", "audio", "policy"),
    [
        (CONFIG, None, "mixed_bfloat16"),
        (CONFIG.replace(num_sources=3), None, "float32"),
        (SOUND, AUDIO, "float32"),
    ],
)
def test_it_alone_learns(config: ModelConfig, audio: AudioConfig | None, policy: str, mixtures: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(config, remix_weight=1.0, kl_weight=0.1, audio=audio, dtype=policy)
    bias = model.encoder.head.bias
    bias.assign(np.random.default_rng(5).normal(size=bias.shape))  # untrained it makes one source twice
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    with pytest.raises(ConfigError, match="remix_masked"):
        model.fit(mixtures, batch_size=6, verbose=0)
    model.remixing = model.remix_masked = True
    parts = (model.encoder, model.decoder, model.corrector)
    before = [weight.copy() for part in parts for weight in part.get_weights()]
    untrained = model.separate(mixtures)
    losses = model.fit(mixtures, batch_size=6, epochs=20, verbose=0).history["loss"]
    assert int(model.sampler.step) == 20  # each step exchanges by other noise
    for weight, was in zip([w for part in parts for w in part.get_weights()], before, strict=True):
        np.testing.assert_array_equal(weight, was)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert np.abs(model.separate(mixtures) - untrained).max() > 1e-3


def test_small_factors_have_gradients() -> None:
    """Powers of what a network makes small in all sources alike would underflow."""
    model = MultiSourceVAE(SOUND, remix_weight=1.0, audio=AUDIO)
    model.remixing = model.remix_masked = True
    rng = np.random.default_rng(6)
    inputs = model._with_remixed({"mixture": rng.uniform(size=(4, 8, 8)).astype(np.float32)})
    outputs = model(inputs, training=True)
    outputs["estimates"] = rng.uniform(0, 1e-3, size=outputs["estimates"].shape).astype(np.float32)
    head = model.mask_network.head

    @tf.function(jit_compile=True)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, y_pred=outputs)
        return tape.gradient(loss, [head.kernel.value, head.bias.value])

    for logit in (0.0, -10.0, -30.0):
        head.bias.assign([logit])
        assert all(np.all(np.isfinite(gradient)) and np.any(gradient) for gradient in gradients())


def test_what_it_leaves_as_it_is_counts_among_the_parameters() -> None:
    model = MultiSourceVAE(CONFIG)
    without = MultiSourceVAE(CONFIG.replace(mask_channels=()))
    assert without.num_parameters == sum(np.size(weight) for weight in without.trainable_variables)
    assert model.num_parameters == without.num_parameters + model.mask_network.count_params()


def test_a_saved_model_keeps_it(mixtures: np.ndarray, tmp_path: Path) -> None:
    model = MultiSourceVAE(CONFIG)
    randomised(model.mask_network)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.separate(mixtures), model.separate(mixtures))
    assert again.decoder.trainable is False


def test_a_shape_that_cannot_be_halved_is_refused() -> None:
    CONFIG.replace(mask_channels=(2, 2, 2, 2))
    for bad in ((2, 2, 2, 2, 2), (0,)):
        with pytest.raises(ConfigError, match="mask_channels"):
            CONFIG.replace(mask_channels=bad)


def test_only_a_training_that_masks_has_one() -> None:
    masked = get_preset("mnist-masked")
    assert fit._complete(masked, "vae").model.mask_channels
    for preset, system in ((masked, "ae"), (dataclasses.replace(masked, train=Recipe()), "vae")):
        with pytest.raises(ConfigError, match="mask network"):
            fit._complete(preset, system)
