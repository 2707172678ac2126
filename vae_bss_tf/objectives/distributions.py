"""Prior, posterior, likelihood and KL of the multi-source VAE, as TFP distributions (paper, section 2)."""

import math
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp

from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import LAPLACE_SCALE, LIKELIHOODS, PRIORS

tfd = tfp.distributions

_PROBABILITY_MARGIN = 1e-6


def latent_prior(name: str, num_sources: int, latent_dim: int) -> Any:
    """Prior over all latents of a mixture, p(Z) = prod_k p(z_k) (paper, equation 2).

    Args:
        name: "normal", N(0, 1) in each dimension, or "laplace", of zero mean and unit variance.
        num_sources: K.
        latent_dim: Dimensions of one source's latent.

    Returns:
        A `tfd.Independent` with event shape `[num_sources, latent_dim]`.

    Raises:
        ConfigError: `name` is neither.
    """
    zeros = tf.zeros([num_sources, latent_dim])
    if check_choice("prior", name, PRIORS) == "normal":
        return tfd.Independent(tfd.Normal(zeros, 1.0), 2)
    return tfd.Independent(tfd.Laplace(zeros, LAPLACE_SCALE), 2)


def latent_posterior(mean: tf.Tensor, log_variance: tf.Tensor) -> Any:
    """Posterior over all latents, q(Z|x) = N(mean, diag exp(log_variance)) (paper, equation 4).

    Args:
        mean: float32 `[batch, num_sources, latent_dim]`.
        log_variance: float32 `[batch, num_sources, latent_dim]`, natural logarithm of the variance.

    Returns:
        A `tfd.Independent` with batch shape `[batch]` and event shape `[num_sources, latent_dim]`.
    """
    return tfd.Independent(tfd.Normal(mean, tf.exp(0.5 * log_variance)), 2)


def mixture_likelihood(name: str, mixture_estimate: tf.Tensor, scale: float, rank: int = 2) -> Any:
    """Likelihood of a mixture given the sum of the source estimates, p(x|Z) (paper, equation 3).

    Args:
        name: "laplace", "normal", or "bernoulli". The last takes any x in [0, 1] (cross-entropy), with the
            estimate as its probability, clipped to the open interval (0, 1).
        mixture_estimate: float32 `[batch, *input_shape]`, the sum of the K source estimates.
        scale: Laplace's b, or the Normal's standard deviation; > 0.
        rank: Axes of `input_shape`: 2, or 3 for pictures in colour.

    Returns:
        A `tfd.Independent` with batch shape `[batch]`: its `log_prob(mixture)` is summed over the pixels.

    Raises:
        ConfigError: `name` is none of these.
    """
    check_choice("likelihood", name, LIKELIHOODS)
    if name == "laplace":
        return tfd.Independent(tfd.Laplace(mixture_estimate, scale), rank)
    if name == "normal":
        return tfd.Independent(tfd.Normal(mixture_estimate, scale), rank)
    probabilities = tf.clip_by_value(mixture_estimate, _PROBABILITY_MARGIN, 1 - _PROBABILITY_MARGIN)
    return tfd.Independent(tfd.Bernoulli(probs=probabilities, dtype=tf.float32), rank)


def kl_divergence(mean: tf.Tensor, log_variance: tf.Tensor, prior: str) -> tf.Tensor:
    """KL(q(Z|x) || p(Z)), summed over sources and latent dimensions.

    Args:
        mean: As `latent_posterior` takes it.
        log_variance: As `latent_posterior` takes it.
        prior: The prior's name, as `latent_prior` takes it.

    Returns:
        float32 `[batch]`, nats, >= 0.
    """
    return tfd.kl_divergence(latent_posterior(mean, log_variance), latent_prior(prior, *mean.shape[1:]))


@tfd.RegisterKL(tfd.Normal, tfd.Laplace)
def _kl_normal_laplace(normal: Any, laplace: Any, name: str | None = None) -> tf.Tensor:
    # E|z - m| of a Normal is the mean of the folded normal distribution (Leone, Nelson, Nottingham 1961).
    with tf.name_scope(name or "kl_normal_laplace"):
        sigma = tf.convert_to_tensor(normal.scale)
        delta = normal.loc - laplace.loc
        mean_distance = sigma * math.sqrt(2 / math.pi) * tf.exp(-0.5 * tf.square(delta / sigma)) + (
            delta * tf.math.erf(delta / (sigma * math.sqrt(2)))
        )
        entropy = 0.5 * math.log(2 * math.pi * math.e) + tf.math.log(sigma)
        return tf.math.log(2 * laplace.scale) + mean_distance / laplace.scale - entropy
