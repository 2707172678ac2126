"""Encoder and decoder for images, and the layer that masks. Axes: `[batch, num_sources, ...]`."""

import math
from typing import Any

import keras

from vae_bss_tf.config import ModelConfig
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.blocks import (
    PACKAGE,
    ImageConvolutionBlock,
    ImageUpsamplingBlock,
    dense_blocks,
    fan_in_dense,
    fan_in_upsampling,
)


@keras.saving.register_keras_serializable(PACKAGE)
class ImageEncoder(keras.layers.Layer):
    """One network that reads the mixture and emits the posterior of all K latents (paper, figure 1).

    Call arguments:
        mixture: float32 `[batch, *input_shape]`.
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        The latents' mean and log variance, each float32 `[batch, num_sources, latent_dim]`.

    Args:
        num_sources: K; at least 1.
        latent_dim: Dimensions of one source's latent; at least 1.
        hidden_units: Units of each dense block, from the mixture to the latents.
        convolutions: Channels of each convolution before the dense blocks; none in the paper's network.
    """

    def __init__(
        self,
        num_sources: int,
        latent_dim: int,
        hidden_units: tuple[int, ...],
        convolutions: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_sources = num_sources
        self.latent_dim = latent_dim
        self.hidden_units = tuple(hidden_units)
        self.convolutions = tuple(convolutions)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = input_shape if len(input_shape) == 4 else (*input_shape, 1)
        self.convolution_blocks = [
            ImageConvolutionBlock(u, dtype=self.dtype_policy.name, name=f"convolution_{i}")
            for i, u in enumerate(self.convolutions)
        ]
        for convolution in self.convolution_blocks:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
        width = math.prod(n or 0 for n in shape[1:])
        self.flatten = keras.layers.Reshape((width,), dtype=self.dtype_policy)
        self.blocks, width = dense_blocks(width, self.hidden_units, self.dtype_policy)
        self.head = fan_in_dense(width, 2 * self.num_sources * self.latent_dim, dtype="float32", name="head")
        self.head.build((None, width))

    def call(self, mixture: keras.KerasTensor, training: bool = False) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        hidden = mixture
        if self.convolutions:
            hidden = keras.ops.cast(mixture, self.compute_dtype)
            if len(mixture.shape) == 3:
                hidden = keras.ops.expand_dims(hidden, -1)
        for convolution in self.convolution_blocks:
            hidden = convolution(hidden, training=training)
        hidden = self.flatten(hidden)
        for block in self.blocks:
            hidden = block(hidden, training=training)
        moments = keras.ops.reshape(self.head(hidden), (-1, 2, self.num_sources, self.latent_dim))
        return moments[:, 0], moments[:, 1]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_sources": self.num_sources,
            "latent_dim": self.latent_dim,
            "hidden_units": self.hidden_units,
            "convolutions": self.convolutions,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class ImageDecoder(keras.layers.Layer):
    """The one decoder that all sources share, applied to each latent on its own (paper, figure 1).

    Call arguments:
        latents: float32 `[batch, num_sources, latent_dim]`.
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        Source estimates, float32 `[batch, num_sources, *source_shape]`, in (0, 1).

    Args:
        source_shape: Shape of one source.
        hidden_units: Units of each hidden block, from the latent to the source.
    """

    def __init__(self, source_shape: tuple[int, ...], hidden_units: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_shape = tuple(source_shape)
        self.hidden_units = tuple(hidden_units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.blocks, width = dense_blocks(int(input_shape[-1] or 0), self.hidden_units, self.dtype_policy)
        self.head = fan_in_dense(
            width, math.prod(self.source_shape), activation="sigmoid", dtype="float32", name="head"
        )
        self.head.build((None, width))

    def call(self, latents: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        num_sources, latent_dim = latents.shape[1:]
        hidden = keras.ops.reshape(latents, (-1, latent_dim))
        for block in self.blocks:
            hidden = block(hidden, training=training)
        return keras.ops.reshape(self.head(hidden), (-1, num_sources, *self.source_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "source_shape": self.source_shape, "hidden_units": self.hidden_units}


@keras.saving.register_keras_serializable(PACKAGE)
class UpsamplingDecoder(ImageDecoder):
    """A decoder that draws a source coarsely and then doubles its height and width again and again.

    It takes the place of `ImageDecoder` where a source is a small object anywhere in a larger picture: what it learns
    of an object's shape at one place serves all others (transposed convolutions as in Radford et al. 2016, figure 1).

    Call arguments:
        latents: float32 `[batch, num_sources, latent_dim]`.
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        Source estimates, float32 `[batch, num_sources, *source_shape]`, in (0, 1).

    Args:
        source_shape: Shape of one source, `(height, width)` or `(height, width, channels)`.
        hidden_units: Units of each dense block, from the latent to the coarse picture.
        upsampling: Channels before each doubling, those of the coarse picture first; at least one.
    """

    def __init__(
        self, source_shape: tuple[int, ...], hidden_units: tuple[int, ...], upsampling: tuple[int, ...], **kwargs: Any
    ) -> None:
        super().__init__(source_shape, hidden_units, **kwargs)
        self.upsampling = tuple(upsampling)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        height, width = (math.ceil(n / 2 ** len(self.upsampling)) for n in self.source_shape[:2])
        self.coarse_shape = (height, width, self.upsampling[0])
        units = (*self.hidden_units, math.prod(self.coarse_shape))
        self.blocks, _ = dense_blocks(int(input_shape[-1] or 0), units, self.dtype_policy)
        shape: tuple[int | None, ...] = (None, *self.coarse_shape)
        self.upsampling_blocks = [
            ImageUpsamplingBlock(units, dtype=self.dtype_policy.name, name=f"upsampling_{i}")
            for i, units in enumerate(self.upsampling[1:])
        ]
        for upsampling in self.upsampling_blocks:
            upsampling.build(shape)
            shape = upsampling.compute_output_shape(shape)
        channels = self.source_shape[2] if len(self.source_shape) == 3 else 1
        self.head = fan_in_upsampling(self.upsampling[-1], channels, activation="sigmoid", dtype="float32", name="head")
        self.head.build(shape)

    def call(self, latents: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        num_sources, latent_dim = latents.shape[1:]
        hidden = keras.ops.reshape(latents, (-1, latent_dim))
        for block in self.blocks:
            hidden = block(hidden, training=training)
        hidden = keras.ops.reshape(hidden, (-1, *self.coarse_shape))
        for upsampling in self.upsampling_blocks:
            hidden = upsampling(hidden, training=training)
        height, width = self.source_shape[:2]
        return keras.ops.reshape(self.head(hidden)[:, :height, :width], (-1, num_sources, *self.source_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "upsampling": self.upsampling}


def image_decoder(config: ModelConfig, **kwargs: Any) -> ImageDecoder:
    """Makes the decoder of an "image" network.

    Args:
        config: `input_shape`, `hidden_units` (in reverse order) and `upsampling` are used.
        **kwargs: Further arguments of a Keras layer.

    Returns:
        The layer, not yet built: the paper's unless the settings have `upsampling`.
    """
    units = config.hidden_units[::-1]
    if config.upsampling:
        return UpsamplingDecoder(config.input_shape, units, config.upsampling, **kwargs)
    return ImageDecoder(config.input_shape, units, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class SourceMask(keras.layers.Layer):
    """`masking.ratio_mask` as a layer.

    Call arguments:
        estimates: float32 `[batch, num_sources, ...]`, >= 0.
        mixture: float32 `[batch, ...]`.

    Returns:
        Sources, float32 `[batch, num_sources, ...]`, of sum `mixture` over axis 1.

    Args:
        exponent: Of the estimates; > 0.
    """

    def __init__(self, exponent: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exponent = exponent

    def call(self, estimates: keras.KerasTensor, mixture: keras.KerasTensor) -> keras.KerasTensor:
        if len(estimates.shape) < 5:
            return ratio_mask(estimates, mixture, self.exponent)
        # TFLite compares arrays of at most four axes.
        num_sources, *shape = estimates.shape[1:]
        flat = keras.ops.reshape(estimates, (-1, num_sources, math.prod(shape)))
        masked = ratio_mask(flat, keras.ops.reshape(mixture, (-1, math.prod(shape))), self.exponent)
        return keras.ops.reshape(masked, (-1, num_sources, *shape))
