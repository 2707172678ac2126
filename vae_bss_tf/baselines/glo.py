"""GLO: separation by generative latent optimisation (Halperin, Ephrat, Hoshen 2019; Bojanowski et al. 2018)."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vae_bss_tf import legacy
from vae_bss_tf.checks import check_mixtures
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.blocks import PACKAGE
from vae_bss_tf.nn.images import image_decoder
from vae_bss_tf.refinement import adam, search

LATENT_LEARNING_RATE = 0.1
LATENT_PENALTY = 0.5
SEPARATION_STEPS = 200


@keras.saving.register_keras_serializable(PACKAGE)
class GLO(keras.Model):
    """A decoder that all sources share, without an encoder: the latents of every mixture are free parameters.

    The decoder is `MultiSourceVAE`'s. In training, a pool of mixtures has K latents each, found together with the
    decoder by gradient descent on `sum |x - sum_k g(z_k)| / b + penalty * |z|^2 / 2`, the likelihood of the VAE and
    a Gaussian prior. At test the decoder is fixed and the latents of each mixture are found from
    `SEPARATION_STEPS` steps of Adam; the decoder's outputs are then masked as the VAE's are.

    `fit` takes the data set that the VAE's takes, draws the pool from its head once, and goes over the pool again
    and again. The pool and its latents are not part of a saved model; a training that is resumed draws a new pool.

    Args:
        config: `input_shape`, `latent_dim`, `hidden_units`, `upsampling`, `num_sources` and `likelihood_scale` are
            used.
        pool_size: Mixtures in the pool.
        seed: Seed of the latents' start and of the pool's order.
    """

    def __init__(self, config: ModelConfig, pool_size: int = 10_000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.pool_size = pool_size
        self.seed = seed
        self.decoder = image_decoder(config, name="decoder")
        self.build((None, *config.input_shape))

    def build(self, input_shape: Any = None) -> None:
        self.decoder.build((None, self.config.num_sources, self.config.latent_dim))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> keras.KerasTensor:
        """Decodes latents: float32 `[batch, num_sources, latent_dim]` to `[batch, num_sources, *input_shape]`."""
        return self.decoder(inputs, training=training)

    def objective(self, mixture: tf.Tensor, latents: tf.Tensor, training: bool) -> tf.Tensor:
        """Negative log of likelihood and prior, without constants: float32 `[batch]`, nats."""
        residual = mixture - tf.reduce_sum(self.decoder(latents, training=training), axis=1)
        misfit = tf.reduce_sum(tf.abs(residual), axis=range(1, len(residual.shape))) / self.config.likelihood_scale
        return misfit + 0.5 * LATENT_PENALTY * tf.reduce_sum(tf.square(latents), axis=[1, 2])

    def fit(self, x: tf.data.Dataset, *args: Any, **kwargs: Any) -> Any:
        """`keras.Model.fit` on a pool of `pool_size` mixtures from the head of `x` (`{"mixture": ...}` batches)."""
        pool: list[npt.NDArray[np.float32]] = []
        batches_in = x.as_numpy_iterator()
        while sum(map(len, pool)) < self.pool_size:
            pool.append(next(batches_in)["mixture"])
        mixtures = np.concatenate(pool)[: self.pool_size]
        shape = (self.pool_size, self.config.num_sources, self.config.latent_dim)
        start = np.random.default_rng(self.seed).normal(0, 0.1, shape)
        self.latents = tf.Variable(start.astype(np.float32), trainable=False)
        self.moments = [tf.Variable(tf.zeros(shape), trainable=False) for _ in range(2)]
        self.visits = tf.Variable(tf.zeros([self.pool_size, 1, 1]), trainable=False)
        items = tf.constant(mixtures)
        batch_size = len(pool[0])
        batches = (
            tf.data.Dataset.range(self.pool_size)
            .shuffle(self.pool_size, seed=self.seed)
            .repeat()
            .batch(batch_size, drop_remainder=True)
            .map(lambda index: {"mixture": tf.gather(items, index), "index": index})
            .prefetch(8)
        )
        options = tf.data.Options()
        options.autotune.enabled = False
        return super().fit(batches.with_options(options), *args, **kwargs)

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        index = data["index"][:, tf.newaxis]
        latents = tf.gather(self.latents, data["index"])
        with tf.GradientTape() as tape:
            tape.watch(latents)
            objective = self.objective(data["mixture"], latents, training=True)
            loss = tf.reduce_mean(objective)
        gradient, *gradients = tape.gradient(loss, [latents, *self.trainable_variables])
        self.optimizer.apply(gradients, self.trainable_variables)
        visits = tf.gather(self.visits, data["index"]) + 1
        first, second = (tf.gather(moment, data["index"]) for moment in self.moments)
        direction, first, second = adam(gradient, first, second, visits)
        for variable, rows in zip((*self.moments, self.visits), (first, second, visits), strict=True):
            variable.scatter_nd_update(index, rows)
        self.latents.scatter_nd_update(index, latents - LATENT_LEARNING_RATE * direction)
        self._loss_tracker.update_state(loss)
        return self.get_metrics_result()

    @tf.function(jit_compile=True)
    def fit_latents(self, mixture: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Fits the latents of new mixtures to the fixed decoder by `SEPARATION_STEPS` steps of Adam.

        The learning rate falls linearly from `LATENT_LEARNING_RATE` to zero.

        Args:
            mixture: float32 `[batch, *input_shape]`.
            start: float32 `[batch, K, latent_dim]`, where the search starts; any K.

        Returns:
            Source estimates, float32 `[batch, K, *input_shape]` in (0, 1), and the objective, float32 `[batch]`.
        """
        latents = search(
            lambda latents: self.objective(mixture, latents, training=False),
            start,
            tf.constant(float(SEPARATION_STEPS)),
            LATENT_LEARNING_RATE,
        )
        return self.decoder(latents, training=False), self.objective(mixture, latents, training=False)

    def separate(self, mixtures: npt.ArrayLike, batch_size: int = 500) -> npt.NDArray[np.float32]:
        """Separates mixtures: latents fitted to each by gradient descent, decoded, masked over all sources.

        Args:
            mixtures: `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures that are fitted at once.

        Returns:
            float32 `[num_mixtures, num_sources, *input_shape]`; the sources of a mixture sum to it.

        Raises:
            DataError: The mixtures' shape or range is wrong.
        """
        num_sources = self.config.num_sources
        mixtures = check_mixtures(mixtures, self.config.input_shape)
        rng = np.random.default_rng(self.seed)
        sources = np.empty((len(mixtures), num_sources, *self.config.input_shape), np.float32)
        batch_size = min(batch_size, len(mixtures))
        for first in range(0, len(mixtures), batch_size):
            # The last batch is filled up with earlier mixtures: one compiled shape serves all.
            rows = np.arange(first, first + batch_size) % len(mixtures)
            start = rng.normal(0, 0.1, (batch_size, num_sources, self.config.latent_dim))
            estimates, _ = self.fit_latents(mixtures[rows], start.astype(np.float32))
            sources[rows] = ratio_mask(estimates, mixtures[rows])
        return sources

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "pool_size": self.pool_size,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "GLO":
        return cls(**{**config, "config": ModelConfig.from_dict(legacy.upgraded_model(config["config"]))})
