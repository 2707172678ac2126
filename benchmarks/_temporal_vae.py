"""A multi-source VAE of excerpts, with latents for what stays of a source and for what moves."""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tensorflow_probability as tfp

from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.nn.blocks import DenseBlock, FrameConvolutionBlock, fan_in_dense
from vae_bss_tf.nn.images import SourceMask
from vae_bss_tf.nn.spectrograms import SpectrogramDecoder
from vae_bss_tf.objectives import distributions

tfd = tfp.distributions

NUM_WINDOWS = 8  # of an excerpt; neighbouring ones overlap by half
_EXCERPTS_A_STEP = 8
_PRIOR_UNITS = 64
_LOG_VARIANCES = (-6.0, 2.0)

Array = npt.NDArray[np.float32]


class Posterior(NamedTuple):
    """Samples of the latents of excerpts and what they cost.

    Attributes:
        static: float32 `[batch, num_sources, static_dim]`.
        moving: float32 `[batch, windows, num_sources, latent_dim]`.
        static_kl: float32 `[batch]`, nats.
        moving_kl: float32 `[batch]`, nats, the sum over windows.
    """

    static: tf.Tensor
    moving: tf.Tensor
    static_kl: tf.Tensor
    moving_kl: tf.Tensor


class TemporalVAE(keras.Model):
    """A multi-source VAE of excerpts: what stays of a source and what moves have latents of their own.

    The encoder reads each window with its neighbours; the static posterior is from the mean over the windows, and the
    moving one is given a sample of it. The prior of a source's moving latent is a Normal whose moments a small network
    finds in the latent before and the static one. One decoder is shared by all sources and windows.

    Args:
        config: The network for a window.
        static_dim: Numbers of a source that stay; 0 for none.

    Example:
        >>> model = TemporalVAE(get_preset("mixtures").model, static_dim=4)
        >>> model.separate(np.zeros((1, 36, 256), np.float32)).shape
        (1, 2, 36, 256)
    """

    def __init__(self, config: ModelConfig, static_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config, self.static_dim = config, static_dim
        *convolved, dense = config.hidden_units
        sources = config.num_sources
        self.convolutions = [FrameConvolutionBlock(n, 1 if i == 0 else 2) for i, n in enumerate(convolved)]
        self.dense, self.joined = DenseBlock(dense), DenseBlock(dense)
        self.static_head = fan_in_dense(dense, 2 * sources * static_dim) if static_dim else None
        self.moving_head = fan_in_dense(dense, 2 * sources * config.latent_dim)
        self.prior_hidden = keras.layers.Dense(_PRIOR_UNITS, activation="tanh")
        self.prior_head = keras.layers.Dense(2 * config.latent_dim, kernel_initializer="zeros")
        self.decoder = SpectrogramDecoder(config.input_shape, config.hidden_units[:-3:-1])
        self.decoder.build((None, sources, static_dim + config.latent_dim))
        self.mask = SourceMask(config.mask_exponent)

    def infer(self, windows: tf.Tensor, *, sample: bool, training: bool) -> Posterior:
        """The latents of excerpts, float32 `[batch, windows, frames, bins]`: a sample, or the posterior mean."""
        batch, count = tf.shape(windows)[0], windows.shape[1]
        hidden = tf.reshape(windows, [-1, *windows.shape[2:]])
        for block in self.convolutions:
            hidden = block(hidden, training=training)
        hidden = self.dense(tf.reshape(hidden, [-1, math.prod(hidden.shape[1:])]), training=training)
        hidden = tf.reshape(hidden, [batch, count, hidden.shape[-1]])
        sources = self.config.num_sources
        static, static_kl = tf.zeros([batch, sources, 0]), tf.zeros([batch])
        if self.static_head is not None:
            moments = tf.reshape(self.static_head(tf.reduce_mean(hidden, axis=1)), [batch, 2, sources, self.static_dim])
            posterior = distributions.latent_posterior(moments[:, 0], moments[:, 1])
            static = posterior.sample() if sample else moments[:, 0]
            static_kl = tfd.kl_divergence(posterior, distributions.latent_prior("normal", sources, self.static_dim))
        padded = tf.pad(hidden, [[0, 0], [1, 1], [0, 0]])
        known = tf.repeat(tf.reshape(static, [batch, 1, sources * self.static_dim]), count, axis=1)
        near = tf.concat([padded[:, :-2], hidden, padded[:, 2:], known], axis=-1)
        near = self.joined(tf.reshape(near, [-1, near.shape[-1]]), training=training)
        moments = tf.reshape(self.moving_head(near), [batch, count, 2, sources, self.config.latent_dim])
        posterior = tfd.Independent(tfd.Normal(moments[:, :, 0], tf.exp(0.5 * moments[:, :, 1])), 3)
        moving = posterior.sample() if sample else moments[:, :, 0]
        return Posterior(static, moving, static_kl, tfd.kl_divergence(posterior, self.prior(static, moving)))

    def prior(self, static: tf.Tensor, moving: tf.Tensor) -> Any:
        """The prior of each moving latent given the one before it; that of the first is a standard Normal."""
        before = tf.pad(moving[:, :-1], [[0, 0], [1, 0], [0, 0], [0, 0]])
        known = tf.repeat(static[:, tf.newaxis], moving.shape[1], axis=1)
        moments = self.prior_head(self.prior_hidden(tf.concat([before, known], axis=-1)))
        after_first = tf.cast(tf.range(moving.shape[1]) > 0, tf.float32)[:, tf.newaxis, tf.newaxis]
        mean, log_variance = (after_first * part for part in tf.split(moments, 2, axis=-1))
        return tfd.Independent(tfd.Normal(mean, tf.exp(0.5 * tf.clip_by_value(log_variance, *_LOG_VARIANCES))), 3)

    def decode(self, found: Posterior, *, training: bool) -> tf.Tensor:
        """Estimates of the sources in each window: float32 `[batch, windows, num_sources, frames, bins]`."""
        count, sources = found.moving.shape[1:3]
        static = tf.repeat(found.static[:, tf.newaxis], count, axis=1)
        latents = tf.concat([static, found.moving], axis=-1)
        estimates = self.decoder(tf.reshape(latents, [-1, *latents.shape[2:]]), training=training)
        return tf.reshape(estimates, [-1, count, sources, *self.config.input_shape])

    def negative_elbo(self, windows: tf.Tensor, beta: float, static_weight: float) -> tf.Tensor:
        """The negative ELBO of a window, its KL weighted by `beta` and the static part's by `static_weight` too."""
        found = self.infer(windows, sample=True, training=True)
        estimate = tf.reduce_sum(self.decode(found, training=True), axis=2)
        likelihood = distributions.mixture_likelihood(self.config.likelihood, estimate, self.config.likelihood_scale, 3)
        kl = found.moving_kl + static_weight * found.static_kl
        return tf.reduce_mean(beta * kl - likelihood.log_prob(windows)) / windows.shape[1]

    def separate(self, mixtures: Array) -> Array:
        """Separates excerpts: float32 `[n, frames, bins]` into `[n, num_sources, frames, bins]`, in the model's order.

        What windows that overlap say of a frame is averaged, and the sum is shared out by masks.
        """
        length = self.config.input_shape[0]
        hop = length // 2
        windows = tf.signal.frame(tf.convert_to_tensor(mixtures), length, hop, axis=1)
        estimates = self.decode(self.infer(windows, sample=False, training=False), training=False).numpy()
        shape = (len(mixtures), self.config.num_sources, *np.shape(mixtures)[1:])
        total, times = np.zeros(shape, np.float32), np.zeros((shape[2], 1), np.float32)
        for i in range(estimates.shape[1]):
            total[:, :, i * hop : i * hop + length] += estimates[:, i]
            times[i * hop : i * hop + length] += 1
        return self.mask(tf.convert_to_tensor(total / times), tf.convert_to_tensor(mixtures)).numpy()


def of_excerpts(preset: Preset) -> Preset:
    """The preset for excerpts of `NUM_WINDOWS` windows that overlap by half, in place of one window."""
    assert preset.audio is not None
    audio = preset.audio.replace(num_frames=preset.audio.num_frames * (NUM_WINDOWS + 1) // 2)
    model = preset.model.replace(input_shape=audio.feature_shape, mask_channels=())
    return preset.replace(audio=audio, model=model)


def train_temporal(
    preset: Preset, data_dir: Path, minutes: float, *, static_dim: int, static_weight: float
) -> TemporalVAE:
    """Trains a `TemporalVAE` by its ELBO, with the phase `separate` of a preset.

    Args:
        preset: The settings of windows.
        data_dir: Folder of recordings that are mixtures.
        minutes: How long, from the first step on.
        static_dim: Numbers of a source that stay.
        static_weight: What the KL of the static latents weighs beside that of the moving ones: 1 is the ELBO's, and the
            number of windows counts it in each of them.

    Returns:
        The model.
    """
    keras.utils.set_random_seed(preset.recipe.seed)
    phase, longer = preset.recipe.phases[0], of_excerpts(preset)
    bank = pipeline.load_banks(longer, data_dir, ("train",))["train"]
    model = TemporalVAE(preset.model, static_dim)
    length = preset.model.input_shape[0]
    model.separate(np.zeros((1, *longer.model.input_shape), np.float32))
    optimizer = keras.optimizers.Adam(phase.learning_rate)

    @tf.function(jit_compile=True)
    def step(mixture: tf.Tensor) -> None:
        windows = tf.signal.frame(mixture, length, length // 2, axis=1)
        with tf.GradientTape() as tape:
            loss = model.negative_elbo(windows, phase.kl_weight, static_weight)
        optimizer.apply_gradients(
            zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables, strict=True)
        )

    started, steps = None, 0
    for batch in pipeline.training_data(longer, bank, batch_size=_EXCERPTS_A_STEP):
        step(batch["mixture"])
        started, steps = started or time.perf_counter(), steps + 1
        done = (time.perf_counter() - started) / (60 * minutes)
        if done >= 1:
            break
        optimizer.learning_rate = phase.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    print(f"{static_dim} static latents: {steps * _EXCERPTS_A_STEP * NUM_WINDOWS:,} windows", flush=True)
    return model
