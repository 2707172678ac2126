"""Latents of given mixtures by gradient descent, with the decoder fixed."""

from collections.abc import Callable

import tensorflow as tf

from vae_bss_tf.config import ModelConfig
from vae_bss_tf.objectives import distributions

LEARNING_RATE = 0.05

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.99, 1e-8


def adam(
    gradient: tf.Tensor, first: tf.Tensor, second: tf.Tensor, step: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """One step of Adam (Kingma, Ba, ICLR 2015), each row with its own count of steps.

    Args:
        gradient: float32 `[batch, ...]`.
        first: float32 `[batch, ...]`, the moving mean of the gradient; zeros before the first step.
        second: float32 `[batch, ...]`, the moving mean of its square; zeros before the first step.
        step: float32, broadcast over `gradient`: the number of this step, from 1.

    Returns:
        The direction to descend in, and the two moments to go on with.
    """
    first = _BETA_1 * first + (1 - _BETA_1) * gradient
    second = _BETA_2 * second + (1 - _BETA_2) * tf.square(gradient)
    direction = (first / (1 - _BETA_1**step)) / (tf.sqrt(second / (1 - _BETA_2**step)) + _EPSILON)
    return direction, first, second


def search(
    objective: Callable[[tf.Tensor], tf.Tensor], start: tf.Tensor, steps: tf.Tensor, learning_rate: float
) -> tf.Tensor:
    """Descends from `start` by Adam; the learning rate falls linearly to zero.

    Args:
        objective: float32 `[batch, num_sources, latent_dim]` to `[batch]`, to be made small in each row.
        start: float32 `[batch, num_sources, latent_dim]`.
        steps: float32 scalar, the number of steps; 0 returns `start`.
        learning_rate: The rate of the first step; > 0.

    Returns:
        The latents found, of the shape of `start`.
    """

    def step(
        i: tf.Tensor, latents: tf.Tensor, first: tf.Tensor, second: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(latents)
            value = objective(latents)
        direction, first, second = adam(tape.gradient(value, latents), first, second, i + 1)
        return i + 1, latents - learning_rate * (1 - i / steps) * direction, first, second

    zeros = tf.zeros_like(start)
    return tf.while_loop(lambda i, *_: i < steps, step, (tf.constant(0.0), start, zeros, zeros))[1]


def refined_latents(
    config: ModelConfig,
    decode: Callable[[tf.Tensor], tf.Tensor],
    prior_weight: float,
    mixture: tf.Tensor,
    start: tf.Tensor,
    steps: tf.Tensor,
) -> tf.Tensor:
    """Improves the latents of mixtures by gradient descent.

    The objective is `-ln p(x|Z) - prior_weight * ln p(Z)`: what the ELBO taught the encoder to do for all mixtures at
    once is done for each alone.

    Args:
        config: The model's prior and likelihood.
        decode: Float32 `[batch, num_sources, latent_dim]` to source estimates, `[batch, num_sources, *input_shape]`.
        prior_weight: Weight of the prior; >= 0.
        mixture: float32 `[batch, *input_shape]`.
        start: float32 `[batch, num_sources, latent_dim]`, such as the posterior mean.
        steps: float32 scalar, the number of Adam steps.

    Returns:
        float32 `[batch, num_sources, latent_dim]`.
    """
    prior = distributions.latent_prior(config.prior, config.num_sources, config.latent_dim)

    def objective(latents: tf.Tensor) -> tf.Tensor:
        estimate = tf.reduce_sum(decode(latents), axis=1)
        rank = len(config.input_shape)
        likelihood = distributions.mixture_likelihood(config.likelihood, estimate, config.likelihood_scale, rank)
        return -likelihood.log_prob(mixture) - prior_weight * prior.log_prob(latents)

    return search(objective, start, steps, LEARNING_RATE)
