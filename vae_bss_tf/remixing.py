"""Remixing: mixtures made of a model's own separated sources, whose sources are therefore known.

Two mixtures are separated, exchange some of their sources, and are separated again: the estimates should be the
sources that went in. It is RemixIT's way to learn separation from mixtures alone (Tzinis, Adi, Ithapu, Xu, Smaragdis,
Kumar 2022), here beside the ELBO and with the model itself as its teacher.
"""

import itertools

import tensorflow as tf

from vae_bss_tf import distributions
from vae_bss_tf.masking import ratio_mask

MASKED_SCALE = 0.2

_MASK_FLOOR = 1e-5  # where all estimates vanish their ratio has no gradient


def exchange(sources: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Exchanges sources between neighbouring mixtures: the first and second, the third and fourth, and so on.

    Of K sources a mixture gives away floor(K / 2), at least 1, and receives those of its neighbour in their places.

    Args:
        sources: float32 `[batch, num_sources, *shape]`, `batch` even.
        scores: float32 `[batch, num_sources]`, random: the sources of the largest scores are given away.

    Returns:
        float32 `[batch, num_sources, *shape]`, the sources of the new mixtures, in no order.
    """
    num_sources = sources.shape[1]
    given = max(1, num_sources // 2)
    order = tf.argsort(scores, direction="DESCENDING")
    ordered = tf.gather(sources, order, batch_dims=1)
    pairs = tf.reshape(ordered, [-1, 2, *ordered.shape[1:]])
    exchanged = tf.concat([tf.reverse(pairs[:, :, :given], [1]), pairs[:, :, given:]], axis=2)
    return tf.reshape(exchanged, [-1, *ordered.shape[1:]])


def log_likelihood(likelihood: str, scale: float, estimates: tf.Tensor, sources: tf.Tensor) -> tf.Tensor:
    """Log likelihood of each of the known sources under each of a model's estimates.

    Args:
        likelihood: As `distributions.mixture_likelihood` takes it.
        scale: As `distributions.mixture_likelihood` takes it.
        estimates: float32 `[batch, num_sources, height, width]`.
        sources: float32 `[batch, num_sources, height, width]`.

    Returns:
        float32 `[batch, num_sources (estimates), num_sources (sources)]`, nats.
    """
    of_estimates = [
        distributions.mixture_likelihood(likelihood, estimate[:, tf.newaxis], scale).log_prob(sources)
        for estimate in tf.unstack(estimates, axis=1)
    ]
    return tf.stack(of_estimates, axis=1)


def masked_log_likelihood(estimates: tf.Tensor, mixture: tf.Tensor, sources: tf.Tensor) -> tf.Tensor:
    """Log likelihood of each of the known sources under each of a model's masked estimates (VAEM).

    They are what is used in the end. The distribution is a Normal of standard deviation `MASKED_SCALE`, whose logarithm
    is the squared error that PSNR and SI-SDR judge by.

    Args:
        estimates: float32 `[batch, num_sources, height, width]`, >= 0.
        mixture: float32 `[batch, height, width]`, what the estimates are of.
        sources: float32 `[batch, num_sources, height, width]`.

    Returns:
        As `log_likelihood`.
    """
    masked = ratio_mask(estimates + _MASK_FLOOR, mixture)
    return log_likelihood("normal", MASKED_SCALE, masked, sources)


def best_order(log_likelihoods: tf.Tensor) -> tf.Tensor:
    """Log likelihood of all sources in the order of the estimates that fits best.

    Args:
        log_likelihoods: float32 `[batch, num_sources, num_sources]`, as `log_likelihood` gives it.

    Returns:
        float32 `[batch]`, nats: of all K! orders the largest sum over the sources (exact, meant for K of 4 or less).
    """
    num_sources = log_likelihoods.shape[1]
    orders = [
        tf.add_n([log_likelihoods[:, estimate, source] for estimate, source in enumerate(order)])
        for order in itertools.permutations(range(num_sources))
    ]
    return tf.reduce_max(tf.stack(orders), axis=0)
