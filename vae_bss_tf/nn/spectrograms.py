"""Encoder and decoder for spectrograms, small because they share what they learn over time.

They take the places of `images.ImageEncoder` and `images.ImageDecoder`: the same calls, the same shapes.
"""

from typing import Any

import keras

from vae_bss_tf.nn.blocks import PACKAGE, DenseBlock, FrameConvolutionBlock, dense_blocks, fan_in_dense


@keras.saving.register_keras_serializable(PACKAGE)
class SpectrogramEncoder(keras.layers.Layer):
    """Convolutions over time, each but the first halving the frames, then a dense block and the K posteriors.

    Call arguments:
        mixture: float32 `[batch, frames, bins]`.
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        The latents' mean and log variance, each float32 `[batch, num_sources, latent_dim]`.

    Args:
        num_sources: K; at least 1.
        latent_dim: Dimensions of one source's latent; at least 1.
        hidden_units: Units of each convolution and, last, of the dense block.
    """

    def __init__(self, num_sources: int, latent_dim: int, hidden_units: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_sources = num_sources
        self.latent_dim = latent_dim
        self.hidden_units = tuple(hidden_units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = tuple(input_shape)
        self.convolutions = [
            FrameConvolutionBlock(units, 1 if i == 0 else 2, dtype=self.dtype_policy.name, name=f"convolution_{i}")
            for i, units in enumerate(self.hidden_units[:-1])
        ]
        for block in self.convolutions:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        width = int(shape[1] or 0) * int(shape[2] or 0)
        self.flatten = keras.layers.Reshape((width,), dtype=self.dtype_policy)
        self.dense = DenseBlock(self.hidden_units[-1], dtype=self.dtype_policy.name, name="dense")
        self.dense.build((None, width))
        moments = 2 * self.num_sources * self.latent_dim
        self.head = fan_in_dense(self.hidden_units[-1], moments, dtype="float32", name="head")
        self.head.build((None, self.hidden_units[-1]))

    def call(self, mixture: keras.KerasTensor, training: bool = False) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        hidden = mixture
        for block in self.convolutions:
            hidden = block(hidden, training=training)
        hidden = self.dense(self.flatten(hidden), training=training)
        moments = keras.ops.reshape(self.head(hidden), (-1, 2, self.num_sources, self.latent_dim))
        return moments[:, 0], moments[:, 1]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_sources": self.num_sources,
            "latent_dim": self.latent_dim,
            "hidden_units": self.hidden_units,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class SpectrogramDecoder(keras.layers.Layer):
    """The one decoder that all sources share: a spectrum with its course over time.

    From a latent, dense blocks lead to a spectrum and its course over time. Their product and one more spectrum,
    constant in time, add up to the logits of the magnitudes. A note fits this form and two notes that start at
    different times do not, which keeps a latent from taking the whole mixture.

    Call arguments:
        latents: float32 `[batch, num_sources, latent_dim]`.
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        Source estimates, float32 `[batch, num_sources, *source_shape]`, in (0, 1).

    Args:
        source_shape: Frames and bins of one source.
        hidden_units: Units of each hidden block, from the latent to the source.
    """

    def __init__(self, source_shape: tuple[int, ...], hidden_units: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source_shape = tuple(source_shape)
        self.hidden_units = tuple(hidden_units)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        frames, bins = self.source_shape
        self.blocks, width = dense_blocks(int(input_shape[-1] or 0), self.hidden_units, self.dtype_policy)
        self.courses = fan_in_dense(width, frames, dtype="float32", name="courses")
        self.spectra = fan_in_dense(width, 2 * bins, dtype="float32", name="spectra")
        self.courses.build((None, width))
        self.spectra.build((None, width))

    def call(self, latents: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        num_sources, latent_dim = latents.shape[1:]
        hidden = keras.ops.reshape(latents, (-1, latent_dim))
        for block in self.blocks:
            hidden = block(hidden, training=training)
        frames, bins = self.source_shape
        courses = keras.ops.reshape(self.courses(hidden), (-1, frames, 1))
        spectra = keras.ops.reshape(self.spectra(hidden), (-1, 2, bins))
        magnitudes = keras.ops.sigmoid(keras.ops.matmul(courses, spectra[:, 1:]) + spectra[:, :1])
        return keras.ops.reshape(magnitudes, (-1, num_sources, *self.source_shape))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "source_shape": self.source_shape, "hidden_units": self.hidden_units}
