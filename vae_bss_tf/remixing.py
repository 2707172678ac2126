"""Remixing: mixtures made of a model's own separated sources, whose sources are therefore known.

Two mixtures are separated, exchange some of their sources, and are separated again: the estimates should be the
sources that went in. It is RemixIT's way to learn separation from mixtures alone (Tzinis, Adi, Ithapu, Xu, Smaragdis,
Kumar 2022), here beside the ELBO and with the model itself as its teacher.
"""

import itertools

import tensorflow as tf

from vae_bss_tf import distributions


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
    """Log likelihood of known sources under a model's estimates, in the order of the estimates that fits best.

    Args:
        likelihood: As `distributions.mixture_likelihood` takes it.
        scale: As `distributions.mixture_likelihood` takes it.
        estimates: float32 `[batch, num_sources, height, width]`.
        sources: float32 `[batch, num_sources, height, width]`.

    Returns:
        float32 `[batch]`, nats: of all K! orders the largest sum over the sources (exact, meant for K of 4 or less).
    """
    num_sources = estimates.shape[1]

    def of_pair(estimate: int, source: int) -> tf.Tensor:
        return distributions.mixture_likelihood(likelihood, estimates[:, estimate], scale).log_prob(sources[:, source])

    pairs = [[of_pair(estimate, source) for source in range(num_sources)] for estimate in range(num_sources)]
    orders = [
        tf.add_n([pairs[estimate][source] for estimate, source in enumerate(order)])
        for order in itertools.permutations(range(num_sources))
    ]
    return tf.reduce_max(tf.stack(orders), axis=0)
