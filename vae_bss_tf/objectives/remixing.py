"""Remixing: mixtures made of a model's own separated sources, whose sources are therefore known.

Two mixtures are separated, exchange some of their sources, and are separated again: the estimates should be the
sources that went in. It is RemixIT's way to learn separation from mixtures alone (Tzinis, Adi, Ithapu, Xu, Smaragdis,
Kumar 2022). How sources add up, and how masked ones are scored, is the domain's to say (`vae_bss_tf.domains`).
"""

import itertools
import math
from typing import TYPE_CHECKING

import tensorflow as tf

from vae_bss_tf.checks import check_choice
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.nn.sampling import replica_noise
from vae_bss_tf.objectives import distributions
from vae_bss_tf.phases import REMIX_ORIGINS

if TYPE_CHECKING:
    from vae_bss_tf.domains.base import Domain, RemixedMixtures

MASK_FLOOR = 1e-5  # added to estimates: where all vanish their ratio has no gradient


def remixed(
    domain: "Domain",
    sources: tf.Tensor,
    mixture: tf.Tensor,
    seed: tf.Tensor,
    silence: float,
    origin: str = "neighbours",
) -> "RemixedMixtures":
    """Makes new mixtures of separated sources.

    Args:
        domain: What the mixtures are.
        sources: float32 `[batch, num_sources, *input_shape]`, separated; `batch` even.
        mixture: float32 `[batch, *input_shape]`, what they were separated from.
        seed: int32 `[2]`, seed of what is exchanged.
        silence: As `silence_faint` takes it.
        origin: Where a new mixture's sources are from: "neighbours" as `exchange`, "sparsest" as `draw_sparsest`.

    Returns:
        The mixtures and their sources, through which no gradient flows.

    Raises:
        ConfigError: The batch cannot be paired, or the origin is unknown.
    """
    if (mixture.shape[0] or 0) % 2:
        raise ConfigError(f"a batch of {mixture.shape[0]} mixtures cannot be paired for remixing; use an even one.")
    check_choice("origin", origin, REMIX_ORIGINS)
    sources = domain.exchangeable(tf.stop_gradient(sources), mixture)
    if silence:
        sources = silence_faint(sources, silence)
    num_sources = sources.shape[1]
    if origin == "neighbours":
        new = exchange(sources, replica_noise(tf.shape(mixture)[0], (num_sources,), seed))
    else:
        width = num_sources + max(num_sources, mixture.shape[0])
        new = draw_sparsest(sources, replica_noise(tf.shape(mixture)[0], (width,), seed))
    return domain.remix(new, seed)


def exchange(sources: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Exchanges sources between neighbouring mixtures: the first and second, the third and fourth, and so on.

    Of K sources a mixture gives away floor(K / 2), at least 1, and receives those of its neighbour in their places. A
    silent one, zero everywhere, is given away only for want of others, so that new mixtures hold as many sources as the
    real ones do: were any of them exchanged, mixtures of a source more would teach the spare outputs to take parts of
    sources.

    Args:
        sources: float32 `[batch, num_sources, *shape]`, `batch` even.
        scores: float32 `[batch, num_sources]`, finite, random: the sources of the largest scores are given away.

    Returns:
        float32 `[batch, num_sources, *shape]`, the sources of the new mixtures, in no order.
    """
    num_sources = sources.shape[1]
    given = max(1, num_sources // 2)
    silent = tf.reduce_all(sources == 0, axis=range(2, len(sources.shape)))
    order = tf.argsort(tf.where(silent, -math.inf, scores), direction="DESCENDING")
    ordered = tf.gather(sources, order, batch_dims=1)
    pairs = tf.reshape(ordered, [-1, 2, *ordered.shape[1:]])
    exchanged = tf.concat([tf.reverse(pairs[:, :, :given], [1]), pairs[:, :, given:]], axis=2)
    return tf.reshape(exchanged, [-1, *ordered.shape[1:]])


def draw_sparsest(sources: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Fills mixtures with sources of those mixtures of the batch that hold the fewest: the best separated ones.

    Where some mixtures hold one source and others several, a model finds that one whole, while it takes two of several
    for one, or one for two, and would learn that from its own sources. Each new mixture holds as many sources as the
    one in its place, none of them twice.

    Args:
        sources: float32 `[batch, num_sources, *shape]`; silent ones are zero everywhere.
        scores: float32 `[batch, num_sources + max(num_sources, batch)]`, finite, random: the first ones choose among
            mixtures of as many sources, the others what a new mixture is given.

    Returns:
        float32 `[batch, num_sources, *shape]`, drawn from `batch / num_sources` sources, or `num_sources` where that is
        more.
    """
    batch, num_sources = sources.shape[:2]
    silent = tf.reduce_all(sources == 0, axis=range(2, len(sources.shape)))
    counts = tf.reduce_sum(tf.cast(~silent, tf.float32), axis=1, keepdims=True)
    ties = tf.sigmoid(scores[:, :num_sources])
    rank = tf.reshape(tf.where(silent, math.inf, counts + ties), [-1])
    number = max(num_sources, batch // num_sources)
    pool = tf.gather(tf.reshape(sources, [-1, *sources.shape[2:]]), tf.argsort(rank)[:number])
    given = tf.argsort(scores[:, num_sources : num_sources + number])[:, :num_sources]
    wanted = tf.range(num_sources, dtype=tf.float32) < counts
    wanted = tf.reshape(wanted, [batch, num_sources, *([1] * (len(sources.shape) - 2))])
    return tf.where(wanted, tf.gather(pool, given), 0.0)


def silence_faint(sources: tf.Tensor, share: float) -> tf.Tensor:
    """Takes faint sources for silence: what a spare output of the model is left with.

    Args:
        sources: float32 `[batch, num_sources, *shape]`.
        share: In [0, 1): of the energy of all sources of a mixture, what a source needs to be kept.

    Returns:
        float32 of the same shape, faint sources zero.
    """
    energy = tf.reduce_sum(tf.square(sources), axis=range(2, len(sources.shape)), keepdims=True)
    kept = energy >= share * tf.reduce_sum(energy, axis=1, keepdims=True)
    return tf.where(kept, sources, 0.0)


def log_likelihood(likelihood: str, scale: float, estimates: tf.Tensor, sources: tf.Tensor) -> tf.Tensor:
    """Log likelihood of each of the known sources under each of a model's estimates.

    Args:
        likelihood: As `distributions.mixture_likelihood` takes it.
        scale: As `distributions.mixture_likelihood` takes it.
        estimates: float32 `[batch, num_sources, *input_shape]`.
        sources: float32 `[batch, num_sources, *input_shape]`.

    Returns:
        float32 `[batch, num_sources (estimates), num_sources (sources)]`, nats.
    """
    rank = len(sources.shape) - 2
    of_estimates = [
        distributions.mixture_likelihood(likelihood, estimate[:, tf.newaxis], scale, rank).log_prob(sources)
        for estimate in tf.unstack(estimates, axis=1)
    ]
    return tf.stack(of_estimates, axis=1)


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
