"""The corrector of the latents: what it sees, when it learns, and that files keep it."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import fit
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.config import DataConfig, ModelConfig, Preset, TrainConfig, get_preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.learning_rates import CosineRestart
from vae_bss_tf.nn import images as layers
from vae_bss_tf.nn.corrector import LatentCorrector

CONFIG = ModelConfig((8, 8), latent_dim=4, hidden_units=(24, 16), corrector_convolutions=(4,), corrector_units=(12,))
SOUND = CONFIG.replace(network="conv", hidden_units=(8, 12, 10), corrector_convolutions=(6, 5))


def randomised(layer: keras.Layer) -> None:
    """Gives every weight a value; at the start the head is zero."""
    rng = np.random.default_rng(0)
    layer.set_weights([rng.uniform(0.1, 0.5, weight.shape) for weight in layer.get_weights()])


@pytest.fixture
def mixtures() -> np.ndarray:
    return np.random.default_rng(1).uniform(size=(6, 8, 8)).astype(np.float32)


def test_it_sees_four_views_of_each_source_the_mean_and_the_gradient(mixtures: np.ndarray) -> None:
    """With one linear layer in effect, its output is that of what it sees by hand."""
    corrector = LatentCorrector(2, (), (5,))
    corrector.build((None, 8, 8))
    randomised(corrector)
    rng = np.random.default_rng(2)
    estimates = rng.uniform(size=(6, 3, 8, 8)).astype(np.float32)
    mean, gradients = rng.normal(size=(2, 6, 3, 2)).astype(np.float32)
    floored = estimates + 1e-3
    mixture = mixtures[:, None]
    masked = mixture * floored / floored.sum(1, keepdims=True)
    left = np.broadcast_to(mixture - estimates.sum(1, keepdims=True), estimates.shape)
    views = np.stack([estimates, masked, mixture - masked, left], axis=-1).reshape(6, 3, -1)
    block = corrector.blocks[0]
    hidden = np.concatenate([views, mean, gradients], -1) @ block.dense.kernel.numpy() + block.dense.bias.numpy()
    norm = block.normalization
    scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + 1e-5)
    hidden = np.maximum((hidden - norm.moving_mean.numpy()) * scale + norm.beta.numpy(), 0)
    moments = hidden @ corrector.head.kernel.numpy() + corrector.head.bias.numpy()
    corrected_mean, corrected_log_variance = corrector(mixtures, estimates, gradients, mean, -mean)
    np.testing.assert_allclose(corrected_mean, mean + moments[..., :2], rtol=1e-4)
    np.testing.assert_allclose(corrected_log_variance, moments[..., 2:] - mean, rtol=1e-4)


@pytest.mark.parametrize("config", [CONFIG, SOUND])
def test_the_gradient_that_it_sees_is_that_of_the_squared_error(
    config: ModelConfig, mixtures: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder's way back against TensorFlow's, the ReLU's derivative a step; softened, it points the same way."""
    keras.utils.set_random_seed(0)
    decoder = MultiSourceVAE(config).decoder
    rng = np.random.default_rng(5)
    for block in decoder.blocks:
        norm, shape = block.normalization, (block.units,)
        norm.set_weights([rng.uniform(0.5, 2, shape), *rng.normal(size=(2, *shape)) * 0.3, rng.uniform(0.5, 2, shape)])
    latents = tf.constant(rng.normal(size=(6, 2, 4)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(latents)
        errors = tf.reduce_sum(decoder(latents), 1) - mixtures
        loss = 0.5 * tf.reduce_sum(tf.square(errors))
    expected = tape.gradient(loss, latents).numpy()

    estimates, pull_back = decoder.linearize(latents)
    np.testing.assert_allclose(estimates, decoder(latents), atol=1e-6)
    cotangent = tf.repeat(errors[:, tf.newaxis], 2, axis=1)
    softened = pull_back(cotangent).numpy()
    monkeypatch.setattr(layers, "RELU_RAMP", 1e-12)
    np.testing.assert_allclose(pull_back(cotangent), expected, rtol=1e-4, atol=1e-6)
    assert np.corrcoef(softened.ravel(), expected.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("over_frames", [False, True])
def test_sources_in_another_order_are_corrected_alike(mixtures: np.ndarray, over_frames: bool) -> None:
    corrector = LatentCorrector(2, (4, 3), (5,), over_frames)
    corrector.build((None, 8, 8))
    randomised(corrector)
    rng = np.random.default_rng(3)
    estimates = rng.uniform(size=(6, 3, 8, 8)).astype(np.float32)
    mean, gradients = rng.normal(size=(2, 6, 3, 2)).astype(np.float32)
    order = [2, 0, 1]
    turned_mean = mean[:, order]
    for straight, turned in zip(
        corrector(mixtures, estimates, gradients, mean, mean),
        corrector(mixtures, estimates[:, order], gradients[:, order], turned_mean, turned_mean),
        strict=True,
    ):
        assert np.ptp(straight - mean) > 0.1
        np.testing.assert_allclose(tf.gather(straight, order, axis=1), turned, rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_untrained_it_changes_nothing_whatever_the_precision(policy: str) -> None:
    corrector = LatentCorrector(2, (4,), (5,), dtype=policy)
    corrector.build((None, 8, 8))
    mean, log_variance = np.random.default_rng(4).normal(size=(2, 6, 3, 2)).astype(np.float32)
    mixture, faint = np.full((6, 8, 8), 0.3, np.float32), np.full((6, 3, 8, 8), 1e-12, np.float32)
    corrected_moments = corrector(mixture, faint, mean, mean, log_variance)
    for corrected, was in zip(corrected_moments, (mean, log_variance), strict=True):
        np.testing.assert_array_equal(corrected, was)


def test_in_training_too_it_looks_through_the_moving_moments(mixtures: np.ndarray) -> None:
    """A call moves the decoder's moments once, by the latents that come of all corrections."""
    model = MultiSourceVAE(CONFIG.replace(variational=False))
    randomised(model.corrector)
    model.remix_masked = True
    block = model.decoder.blocks[0]
    before = block.normalization.moving_mean.numpy()
    latents = model(mixtures, training=True)["latent_mean"]
    mean = tf.reduce_mean(block.dense(tf.reshape(latents, (-1, 4))), axis=0)
    np.testing.assert_allclose(block.normalization.moving_mean, 0.99 * before + 0.01 * mean, rtol=1e-4, atol=1e-7)


def test_it_may_look_more_often_than_in_training(mixtures: np.ndarray) -> None:
    model = MultiSourceVAE(CONFIG.replace(corrector_iterations=3, corrector_training_iterations=1))
    randomised(model.corrector)
    model.remix_masked = True
    looks = [model.encoder(mixtures)]
    for _ in range(3):
        mean, log_variance = looks[-1]
        estimates, pull_back = model.decoder.linearize(mean)
        gradients = pull_back(tf.repeat(tf.reduce_sum(estimates, 1, keepdims=True) - mixtures[:, None], 2, axis=1))
        looks.append(model.corrector(mixtures, estimates, gradients, mean, log_variance))
    np.testing.assert_allclose(model.encode(mixtures)[0], looks[3][0], rtol=1e-5)
    taught = model.mask(model.decode(looks[1][0]), mixtures)
    np.testing.assert_allclose(model._taught(mixtures), taught, atol=1e-6)
    assert np.abs(looks[3][0] - looks[1][0]).max() > 1e-3


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("config", [CONFIG, SOUND])
def test_it_learns_while_remixed_sources_are_judged_masked_and_not_before(
    config: ModelConfig, policy: str, mixtures: np.ndarray
) -> None:
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(config, remix_weight=1.0, kl_weight=0.1, dtype=policy)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.remixing = True
    start = [weight.copy() for weight in model.corrector.get_weights()]
    model.fit(mixtures, batch_size=6, epochs=2, verbose=0)
    for weight, was in zip(model.corrector.get_weights(), start, strict=True):
        np.testing.assert_array_equal(weight, was)
    encoded = [np.asarray(part) for part in model.encoder(mixtures)]
    for corrected, own in zip(model.encode(mixtures), encoded, strict=True):
        np.testing.assert_array_equal(corrected, own)

    model.remix_masked = True
    model.fit(mixtures, batch_size=6, epochs=4, verbose=0)
    mean, log_variance = model.encoder(mixtures)
    corrected = model.encode(mixtures)[0]
    assert np.abs(corrected - mean).max() > 1e-3
    for _ in range(config.corrector_iterations):
        estimates, pull_back = model.decoder.linearize(mean)
        gradients = pull_back(tf.repeat(tf.reduce_sum(estimates, 1, keepdims=True) - mixtures[:, None], 2, axis=1))
        mean, log_variance = model.corrector(mixtures, estimates, gradients, mean, log_variance)
    np.testing.assert_allclose(corrected, mean, atol=1e-6)


def test_it_does_not_shape_the_estimates_that_it_sees(mixtures: np.ndarray) -> None:
    model = MultiSourceVAE(CONFIG)
    randomised(model.corrector)
    with tf.GradientTape() as tape:
        mean = model.encode(tf.constant(mixtures))[0]
    assert all(gradient is None for gradient in tape.gradient(mean, model.decoder.trainable_variables))


def test_a_saved_model_keeps_it(mixtures: np.ndarray, tmp_path: Path) -> None:
    model = MultiSourceVAE(CONFIG)
    randomised(model.corrector)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.separate(mixtures), model.separate(mixtures))
    assert np.abs(model.encode(mixtures)[0] - model.encoder(mixtures)[0]).max() > 1e-3


def test_a_training_that_never_masks_leaves_it_out() -> None:
    train = TrainConfig(epochs=2, remix_weight=1.0, remix_mask_start=0.5)
    for changes, system, kept in (
        ({}, "vae", True),
        ({"remix_mask_start": 1.0}, "vae", False),
        ({"remix_mask_start": 0.6}, "vae", False),  # of two epochs, none
        ({"remix_weight": 0.0}, "vae", False),
        ({}, "ae", False),
        ({}, "glo", False),
    ):
        preset = fit._complete(Preset(CONFIG, DataConfig("digits"), train.replace(**changes)), system)
        assert bool(preset.model.corrector_units) == bool(preset.model.corrector_convolutions) == kept


def test_a_compiled_model_with_its_schedule_loads_in_another_process(tmp_path: Path) -> None:
    model = MultiSourceVAE(CONFIG)
    decay = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    model.compile(optimizer=keras.optimizers.Adam(CosineRestart(decay, 1e-3, 6, 4)))
    model.save(tmp_path / "model.keras")
    code = "from vae_bss_tf import MultiSourceVAE; import keras; keras.models.load_model('model.keras')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_convolutions_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match="corrector_convolutions"):
        CONFIG.replace(corrector_units=())
    with pytest.raises(ConfigError, match="corrector_units"):
        CONFIG.replace(corrector_units=(0,))
    for name in ("corrector_iterations", "corrector_training_iterations"):
        with pytest.raises(ConfigError, match=name):
            CONFIG.replace(**{name: 0})


def test_a_preset_has_one_and_a_preset_for_sound_says_what_its_spectrograms_are() -> None:
    assert fit._complete(get_preset("mnist-corrected"), "vae").model.corrector_units
    assert MultiSourceVAE.from_preset("notes").audio == get_preset("notes").audio
