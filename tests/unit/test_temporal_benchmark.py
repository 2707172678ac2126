"""The multi-source VAE of excerpts: its prior against a closed form, its order of time, and what it separates."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks._temporal_vae import TemporalVAE
from vae_bss_tf.config import ModelConfig

CONFIG = ModelConfig(
    input_shape=(8, 16), latent_dim=3, hidden_units=(16, 16, 12), network="spectrogram", likelihood="normal",
    likelihood_scale=0.1, mask_exponent=2.0,
)  # fmt: skip
EXCERPTS = np.random.default_rng(1).uniform(size=(2, 20, 16)).astype(np.float32)  # four windows each


@pytest.fixture
def model() -> TemporalVAE:
    keras.utils.set_random_seed(2)
    made = TemporalVAE(CONFIG, static_dim=2)
    made.separate(EXCERPTS)
    made.prior_head.kernel.assign(np.random.default_rng(3).normal(size=made.prior_head.kernel.shape))
    return made


def _windows(excerpts: np.ndarray) -> tf.Tensor:
    return tf.signal.frame(tf.convert_to_tensor(excerpts), 8, 4, axis=1)


def test_the_kl_of_the_course_is_the_sum_of_normals_each_given_the_one_before(model: TemporalVAE) -> None:
    found = model.infer(_windows(EXCERPTS), sample=False, training=False)
    moving, static = found.moving.numpy(), found.static.numpy()
    prior = model.prior(found.static, found.moving).distribution
    mean, sigma = prior.loc.numpy(), prior.scale.numpy()
    assert np.abs(mean[:, 0]).max() == 0
    np.testing.assert_allclose(sigma[:, 0], 1)
    hidden = np.tanh(
        np.concatenate([moving[:, 0], static], axis=-1) @ model.prior_hidden.kernel.numpy()
        + model.prior_hidden.bias.numpy()
    )
    expected = hidden @ model.prior_head.kernel.numpy() + model.prior_head.bias.numpy()
    np.testing.assert_allclose(mean[:, 1], expected[..., :3], atol=1e-5)
    np.testing.assert_allclose(sigma[:, 1], np.exp(0.5 * np.clip(expected[..., 3:], -6, 2)), rtol=1e-4)
    assert (found.moving_kl.numpy() > 0).all()
    assert (found.static_kl.numpy() > 0).all()


def test_the_static_part_is_of_the_whole_excerpt_and_the_prior_looks_back_alone(model: TemporalVAE) -> None:
    changed = EXCERPTS.copy()
    changed[:, -4:] = 0.5  # the last window alone holds these frames
    first, second = (model.infer(_windows(x), sample=False, training=False) for x in (EXCERPTS, changed))
    assert np.abs(first.static.numpy() - second.static.numpy()).max() > 1e-4
    moving = np.random.default_rng(4).normal(size=(1, 4, 2, 3)).astype(np.float32)
    later = moving.copy()
    later[:, 2] += 1
    means = [model.prior(first.static[:1], tf.constant(m)).distribution.loc.numpy() for m in (moving, later)]
    np.testing.assert_allclose(means[0][:, :3], means[1][:, :3])
    assert np.abs(means[0][:, 3] - means[1][:, 3]).max() > 1e-3


def test_sources_sum_to_the_excerpt_and_training_lowers_the_loss(model: TemporalVAE) -> None:
    sources = model.separate(EXCERPTS)
    assert sources.shape == (2, 2, 20, 16)
    np.testing.assert_allclose(sources.sum(axis=1), EXCERPTS, atol=1e-5)
    optimizer = keras.optimizers.Adam(1e-2)
    losses = []
    for _ in range(30):
        with tf.GradientTape() as tape:
            loss = model.negative_elbo(_windows(EXCERPTS), 1.0, 1.0)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )
        losses.append(float(loss))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 10
