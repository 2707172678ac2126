"""Noise of training steps and the sample of a posterior."""

import tensorflow as tf
import tensorflow_probability as tfp


def replica_noise(batch: tf.Tensor, shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """This replica's part of standard normal noise for a batch that several replicas share.

    Args:
        batch: int32 scalar, size of this replica's part.
        shape: Shape of one example's noise.
        seed: int32 `[2]`; the noise of the whole batch is a function of it alone.

    Returns:
        float32 `[batch, *shape]`.
    """
    replica = tf.distribute.get_replica_context()
    noise = tfp.distributions.Normal(0.0, 1.0).sample([replica.num_replicas_in_sync * batch, *shape], seed=seed)
    first = tf.cast(replica.replica_id_in_sync_group, tf.int32) * batch
    return noise[first : first + batch]


def sample_latents(mean: tf.Tensor, log_variance: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Samples the posterior by the reparameterisation z = mean + sigma * noise (paper, section 2).

    The noise is a function of the seed alone: a resumed training draws the same, and so do several replicas that share
    one batch, each of which takes its own part.

    Args:
        mean: float32 `[batch, num_sources, latent_dim]`.
        log_variance: float32 `[batch, num_sources, latent_dim]`, natural logarithm of the variance.
        seed: int32 `[2]`, such as the seed of the training and the number of the step.

    Returns:
        Latents, float32 `[batch, num_sources, latent_dim]`.
    """
    noise = replica_noise(tf.shape(mean)[0], mean.shape[1:], seed)
    return mean + tf.exp(0.5 * log_variance) * noise
