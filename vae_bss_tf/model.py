"""The multi-source variational auto-encoder of Neri, Badeau and Depalle (EUSIPCO 2021) as a Keras model."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vae_bss_tf import legacy
from vae_bss_tf.checks import check, check_mixtures
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.nn.blocks import PACKAGE, num_parameters
from vae_bss_tf.nn.images import ImageEncoder, SourceMask, image_decoder
from vae_bss_tf.nn.mask_network import MaskNetwork
from vae_bss_tf.nn.spectrograms import SpectrogramDecoder, SpectrogramEncoder
from vae_bss_tf.presets import get_preset
from vae_bss_tf.refinement import refined_latents


@keras.saving.register_keras_serializable(PACKAGE)
class MultiSourceVAE(keras.Model):
    """One encoder emits K latents, one shared decoder turns each into a source; their sum is the mixture.

    The model is the network alone: `encode`, `decode`, `separate`. What it is trained to do is an objective
    (`vae_bss_tf.objectives`), which `training.trainer` combines with it. The same inputs give the same outputs.

    Where the configuration has a mask network, it rescales the decoder's estimates before they are masked.

    Call arguments:
        inputs: float32 `[batch, *input_shape]` in [0, 1], or a dictionary with it under "mixture".
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        A dictionary of float32 tensors:
            sources: `[batch, num_sources, *input_shape]`, masked: they sum to the mixture (VAEM).
            estimates: `[batch, num_sources, *input_shape]` in (0, 1), the decoder's outputs (VAE).
            latent_mean: `[batch, num_sources, latent_dim]`, the posterior mean, which the estimates are decoded from.
            latent_log_variance: `[batch, num_sources, latent_dim]`.

    Args:
        config: The network and its distributions.
        prior_weight: Weight of the prior beside the likelihood when `separate` refines latents: the KL weight (beta)
            that the training ends with; >= 0.

    Example:
        >>> model = MultiSourceVAE.from_preset("digits", num_sources=3)
        >>> model.separate(np.zeros((8, 8))).shape
        (3, 8, 8)
    """

    def __init__(self, config: ModelConfig, prior_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.prior_weight = prior_weight
        self.encoder, self.decoder = _networks(config, self.dtype_policy)
        self.mask_network = None
        if config.mask_channels:
            self.mask_network = MaskNetwork(
                config.mask_channels, config.mask_patch, dtype=self.dtype_policy, name="mask_network"
            )
        self.mask = SourceMask(config.mask_exponent, dtype="float32", name="mask")
        self.build((None, *config.input_shape))

    @classmethod
    def from_preset(cls, name: str, **model_settings: Any) -> "MultiSourceVAE":
        """Builds an untrained model from a preset.

        Args:
            name: Name of a preset, such as "mnist".
            **model_settings: Fields of `ModelConfig` to change, such as `num_sources=3`.

        Returns:
            The model, built.

        Raises:
            ConfigError: The preset or a field is unknown, or a value is out of its range.
        """
        preset = get_preset(name)
        config = ModelConfig.from_dict({**preset.model.to_dict(), **model_settings})
        return cls(config, prior_weight=preset.recipe.final_kl_weight)

    @property
    def num_parameters(self) -> int:
        """Number of weights, as the paper counts them: without the moments of batch normalisation."""
        return num_parameters(self)

    def copy(self, *, mask_network: bool = True) -> "MultiSourceVAE":
        """Returns a model of its own with the same weights.

        Args:
            mask_network: Whether the copy has the mask network, where this model has one.
        """
        config = self.config if mask_network else self.config.replace(mask_channels=())
        copy = MultiSourceVAE(config, self.prior_weight, dtype=self.dtype_policy)
        for part in ("encoder", "decoder", "mask_network"):
            if getattr(copy, part) is not None:
                getattr(copy, part).set_weights(getattr(self, part).get_weights())
        return copy

    def build(self, input_shape: Any = None) -> None:
        self.encoder.build((None, *self.config.input_shape))
        self.decoder.build((None, self.config.num_sources, self.config.latent_dim))
        if self.mask_network is not None:
            shape = self.config.input_shape
            self.mask_network.build((None, *shape), (None, self.config.num_sources, *shape))
        self.built = True

    def encode(self, mixture: keras.KerasTensor, training: bool = False) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Posterior of the latents given a mixture.

        Args:
            mixture: float32 `[batch, *input_shape]` in [0, 1].
            training: Whether batch normalisation uses the batch's own moments.

        Returns:
            Mean and log variance, each float32 `[batch, num_sources, latent_dim]`.
        """
        return self.encoder(mixture, training=training)

    def decode(self, latents: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Source estimates from latents, each source on its own.

        Args:
            latents: float32 `[batch, num_sources, latent_dim]`; any number of sources.
            training: Whether batch normalisation uses the batch's own moments.

        Returns:
            float32 `[batch, num_sources, *input_shape]` in (0, 1).
        """
        return self.decoder(latents, training=training)

    def masked(self, estimates: keras.KerasTensor, mixture: keras.KerasTensor) -> keras.KerasTensor:
        """Shares the mixture among the sources, by the estimates as the mask network, if there is one, rescales them.

        Args:
            estimates: float32 `[batch, num_sources, *input_shape]` in (0, 1), as `decode` gives them.
            mixture: float32 `[batch, *input_shape]`.

        Returns:
            Sources, float32 `[batch, num_sources, *input_shape]`, of sum `mixture` over axis 1.
        """
        if self.mask_network is not None:
            estimates = self.mask_network(mixture, estimates)
        return self.mask(estimates, mixture)

    def call(self, inputs: Any, training: bool = False) -> dict[str, keras.KerasTensor]:
        mixture = inputs["mixture"] if isinstance(inputs, dict) else inputs
        mean, log_variance = self.encode(mixture, training=training)
        estimates = self.decode(mean, training=training)
        return {
            "sources": self.masked(estimates, mixture),
            "estimates": estimates,
            "latent_mean": mean,
            "latent_log_variance": log_variance,
        }

    @tf.function(jit_compile=True)
    def refine(self, mixture: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        """Separates mixtures after improving their latents by gradient descent; see `refinement.refined_latents`.

        Args:
            mixture: float32 `[batch, *input_shape]` in [0, 1].
            steps: float32 scalar, the number of Adam steps; each costs about three passes of the decoder.

        Returns:
            Sources, float32 `[batch, num_sources, *input_shape]`, masked.
        """
        mean, _ = self.encode(mixture)
        latents = refined_latents(self.config, self.decode, self.prior_weight, mixture, mean, steps)
        return self.masked(self.decode(latents), mixture)

    @tf.function(reduce_retracing=True)
    def _sources(self, mixture: tf.Tensor) -> tf.Tensor:
        return self(mixture)["sources"]

    def separate(self, mixtures: npt.ArrayLike, batch_size: int = 256, refine: int = 0) -> npt.NDArray[np.float32]:
        """Separates mixtures: posterior mean, decoder, mask over all sources (VAEM).

        Args:
            mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures a call; at least 1.
            refine: Gradient steps that improve the latents of each mixture first (see `refine`); each costs about three
                passes of the decoder.

        Returns:
            float32 `[num_sources, *input_shape]` or `[num_mixtures, num_sources, *input_shape]`; the sources
            of a mixture sum to it.

        Raises:
            ConfigError: `refine` is negative, or `batch_size` below 1.
            DataError: The shape is another, a value is not finite, or a value is outside [0, 1].
        """
        check(refine >= 0, "refine", refine, "a number of steps, 0 or more")
        check(batch_size >= 1, "batch_size", batch_size, "at least 1")
        mixtures = check_mixtures(mixtures, self.config.input_shape)
        batch = mixtures.reshape(-1, *self.config.input_shape)
        parts = [tf.constant(batch[first : first + batch_size]) for first in range(0, len(batch), batch_size)]
        steps = tf.constant(float(refine))
        found = [self.refine(part, steps) if refine else self._sources(part) for part in parts]
        sources = np.concatenate([part.numpy() for part in found])
        return sources if mixtures.ndim > len(self.config.input_shape) else sources[0]

    @property
    def distribute_strategy(self) -> tf.distribute.Strategy:
        """The strategy that `predict` runs under: of several hosts, each predicts for itself."""
        strategy = super().distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return tf.distribute.get_strategy()
        return strategy

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "prior_weight": self.prior_weight}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MultiSourceVAE":
        legacy.check_no_corrector(config["config"])
        prior_weight = config.get("prior_weight", config.get("elbo_kl_weight", 1.0))
        keras_settings = {name: config[name] for name in ("name", "dtype", "trainable") if name in config}
        return cls(ModelConfig.from_dict(legacy.upgraded_model(config["config"])), prior_weight, **keras_settings)

    def load_own_variables(self, store: Any) -> None:
        """Loads nothing: the layers hold all weights. Release 0.1 stored the KL weight of the training here."""


def _networks(config: ModelConfig, policy: keras.DTypePolicy) -> tuple[keras.Layer, keras.Layer]:
    of_encoder: dict[str, Any] = {"dtype": policy, "name": "encoder"}
    of_decoder: dict[str, Any] = {"dtype": policy, "name": "decoder"}
    latents, units = (config.num_sources, config.latent_dim), config.hidden_units
    if config.network == "spectrogram":
        encoder = SpectrogramEncoder(*latents, units, **of_encoder)
        return encoder, SpectrogramDecoder(config.input_shape, units[:-3:-1], **of_decoder)
    encoder = ImageEncoder(*latents, config.encoder_units or units, config.convolutions, **of_encoder)
    return encoder, image_decoder(config, **of_decoder)
