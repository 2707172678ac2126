"""Models that the quality studies try and the package does not offer: none has earned its place there yet.

Each is the package's model with one thing changed, trained without remixing. The reported ELBO is the usual one, not
the loss. Refinement, too, is the package's: with the configured scale where one is learned.
"""

import math
from typing import Any

import keras
import tensorflow as tf

from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.nn.images import DenseBlock, batch_normalization
from vae_bss_tf.objectives import distributions
from vae_bss_tf.refinement import adam

_PACKAGE = "vae_bss_tf_studies"
_FREE_NATS = 5.0
_CAPACITY = 30.0
_STEPS = 6 * 480  # of the studies of 6 epochs
_NARROWEST = 4
_AVERAGED_STEPS = 480
_AVERAGE_MOMENTUM = 0.99
_REFINED_STEPS = 3
_REFINED_RATE = 0.05


class _Variant(MultiSourceVAE):
    """The loss of mixtures alone, its KL term and its scale open to change."""

    def kl_term(self, kl_of_sources: tf.Tensor) -> tf.Tensor:
        """What is added to the loss for the KL.

        Args:
            kl_of_sources: float32 `[batch, num_sources]`, nats.

        Returns:
            float32 `[batch]`.
        """
        return self.kl_weight * tf.reduce_sum(kl_of_sources, axis=1)

    def likelihood_scale(self) -> tf.Tensor | float:
        """The scale of the likelihood."""
        return self.config.likelihood_scale

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> tf.Tensor:
        mean, log_variance = y_pred["latent_mean"], y_pred["latent_log_variance"]
        estimate = tf.reduce_sum(y_pred["estimates"], axis=1)
        likelihood = distributions.mixture_likelihood(self.config.likelihood, estimate, self.likelihood_scale())
        log_likelihood = likelihood.log_prob(x["mixture"])
        # KL(N(mean, variance) || N(0, 1)), Kingma and Welling 2014, appendix B.
        of_dimensions = 0.5 * (tf.square(mean) + tf.exp(log_variance) - 1 - log_variance)
        of_sources = tf.reduce_sum(of_dimensions, axis=-1)
        kl = tf.reduce_sum(of_sources, axis=1)
        self.metric_trackers["log_likelihood"].update_state(log_likelihood)
        self.metric_trackers["kl"].update_state(kl)
        self.metric_trackers["elbo"].update_state(log_likelihood - self.elbo_kl_weight * kl)
        loss = tf.reduce_mean(self.kl_term(of_sources) - log_likelihood)
        return loss / tf.distribute.get_strategy().num_replicas_in_sync


@keras.saving.register_keras_serializable(_PACKAGE)
class FreeBits(_Variant):
    """The first nats of each source's KL cost nothing (Kingma et al. 2016), here in each example."""

    def kl_term(self, kl_of_sources: tf.Tensor) -> tf.Tensor:
        return self.kl_weight * tf.reduce_sum(tf.maximum(kl_of_sources, _FREE_NATS), axis=1)


@keras.saving.register_keras_serializable(_PACKAGE)
class CapacityTarget(_Variant):
    """The KL is held to a target that rises over the training (Burgess et al. 2018)."""

    def kl_term(self, kl_of_sources: tf.Tensor) -> tf.Tensor:
        share = tf.cast(self.sampler.step.value, tf.float32) / _STEPS
        target = _CAPACITY * tf.minimum(share, 1.0)
        return self.kl_weight * tf.abs(tf.reduce_sum(kl_of_sources, axis=1) - target)


@keras.saving.register_keras_serializable(_PACKAGE)
class LearnedScale(_Variant):
    """The likelihood's scale is a weight; it begins as the configured one."""

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        start = keras.initializers.Constant(math.log(self.config.likelihood_scale))
        self.log_scale = self.add_weight(name="log_scale", shape=(), initializer=start, dtype="float32")

    def likelihood_scale(self) -> tf.Tensor:
        return tf.exp(tf.convert_to_tensor(self.log_scale))


@keras.saving.register_keras_serializable(_PACKAGE)
class KerasInitialisation(_Variant):
    """Glorot's kernels and zero biases, Keras' defaults, in place of uniform ones by the fan-in."""

    def build(self, input_shape: Any = None) -> None:
        super().build(input_shape)
        for index, weight in enumerate(self.trainable_variables):
            if weight.name == "kernel":
                weight.assign(keras.initializers.GlorotUniform(seed=self.seed + index)(weight.shape))
            elif weight.name == "bias":
                weight.assign(tf.zeros(weight.shape))


@keras.saving.register_keras_serializable(_PACKAGE)
class WideningLatent(_Variant):
    """A latent of a few dimensions that has all of them after half of the training."""

    def _opened(self) -> tf.Tensor:
        share = tf.minimum(2 * tf.cast(self.sampler.step.value, tf.float32) / _STEPS, 1.0)
        number = _NARROWEST + (self.config.latent_dim - _NARROWEST) * share
        return tf.clip_by_value(number - tf.range(self.config.latent_dim, dtype=tf.float32), 0.0, 1.0)

    def encode(self, mixture: Any, training: bool = False) -> tuple[Any, Any]:
        mean, log_variance = super().encode(mixture, training=training)
        return mean * self._opened(), log_variance * self._opened()

    def decode(self, latents: Any, training: bool = False) -> Any:
        return super().decode(latents * self._opened(), training=training)


@keras.saving.register_keras_serializable(_PACKAGE)
class WeightAverage(_Variant):
    """Each epoch ends with, and the next begins from, the running average of its weights; not of the moving moments."""

    def compile(self, optimizer: Any = "rmsprop", **kwargs: Any) -> None:
        if isinstance(optimizer, keras.optimizers.Optimizer):
            optimizer.use_ema = True
            optimizer.ema_momentum = _AVERAGE_MOMENTUM
            optimizer.ema_overwrite_frequency = _AVERAGED_STEPS
        super().compile(optimizer=optimizer, **kwargs)


@keras.saving.register_keras_serializable(_PACKAGE)
class TransposedConvolutions(_Variant):
    """A decoder of transposed convolutions, for images of 28 x 28."""

    def build(self, input_shape: Any = None) -> None:
        del self.decoder
        layers, policy = keras.layers, self.dtype_policy

        def transposed(units: int, fan_in: int, **kwargs: Any) -> keras.layers.Layer:
            limit = 1 / math.sqrt(fan_in)
            uniform = keras.initializers.RandomUniform(-limit, limit)
            return layers.Conv2DTranspose(
                units, 4, 2, "same", kernel_initializer=uniform, bias_initializer=uniform, **kwargs
            )

        self.image_decoder = keras.Sequential(
            [
                layers.Input((self.config.latent_dim,)),
                DenseBlock(300),
                DenseBlock(7 * 7 * 48),
                layers.Reshape((7, 7, 48)),
                transposed(24, 2 * 2 * 48),  # of the 4 x 4 pixels that reach a pixel, stride 2 leaves 2 x 2
                batch_normalization(policy),
                layers.ReLU(),
                transposed(1, 2 * 2 * 24, activation="sigmoid"),
            ]
        )
        self.decoder = _OfEachSource(self.image_decoder, name="decoder")
        super().build(input_shape)


@keras.saving.register_keras_serializable(_PACKAGE)
class SemiAmortised(_Variant):
    """Trained on latents that a few gradient steps have improved; the encoder follows them (Kim et al. 2018).

    The gradient of the loss at the improved latents is handed to the encoder's means as it is, without second ones.
    """

    def call(self, inputs: Any, training: bool = False) -> dict[str, Any]:
        if not training:
            return super().call(inputs, training=False)
        mixture = inputs["mixture"]
        mean, log_variance = self.encode(mixture, training=True)
        mean += tf.stop_gradient(self._improved(mixture, mean) - mean)
        estimates = self.decode(self.sampler(mean, log_variance, training=True), training=True)
        return {
            "sources": self.mask(estimates, mixture),
            "estimates": estimates,
            "latent_mean": mean,
            "latent_log_variance": log_variance,
        }

    def _improved(self, mixture: tf.Tensor, latents: tf.Tensor) -> tf.Tensor:
        prior = distributions.latent_prior("normal", self.config.num_sources, self.config.latent_dim)
        first = second = tf.zeros_like(latents)
        for step in range(_REFINED_STEPS):
            with tf.GradientTape() as tape:
                tape.watch(latents)
                estimate = tf.reduce_sum(self.decode(latents), axis=1)
                likelihood = distributions.mixture_likelihood(self.config.likelihood, estimate, self.likelihood_scale())
                value = -likelihood.log_prob(mixture) - self.kl_weight * prior.log_prob(latents)
            gradient = tape.gradient(value, latents)
            direction, first, second = adam(gradient, first, second, tf.constant(step + 1.0))
            latents -= _REFINED_RATE * direction
        return latents


@keras.saving.register_keras_serializable(_PACKAGE)
class _OfEachSource(keras.layers.Layer):
    """Applies a network of one latent to those of all sources."""

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.built = True

    def call(self, latents: Any, training: bool = False) -> Any:
        num_sources, latent_dim = latents.shape[1:]
        images = self.network(keras.ops.reshape(latents, (-1, latent_dim)), training=training)
        return keras.ops.reshape(images, (-1, num_sources, *images.shape[1:3]))


VARIANTS: dict[str, type[MultiSourceVAE]] = {
    variant.__name__: variant
    for variant in (
        FreeBits,
        CapacityTarget,
        LearnedScale,
        KerasInitialisation,
        WideningLatent,
        WeightAverage,
        TransposedConvolutions,
        SemiAmortised,
    )
}
