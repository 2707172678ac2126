"""More looks: posteriors corrected by comparing the estimates they lead to with the mixture."""

import math
from typing import Any

import keras

from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.images import PACKAGE, DenseBlock, ImageConvolutionBlock
from vae_bss_tf.nn.spectrograms import FrameConvolutionBlock

_VIEWS = 4
_MASK_FLOOR = 1e-3  # added to the estimates: what nothing stands behind is shared equally, not by rounding errors


@keras.saving.register_keras_serializable(PACKAGE)
class LatentCorrector(keras.layers.Layer):
    """Corrects the posteriors of all sources, each by one network that they share.

    For each source it sees the estimate, what the mask makes of it, what it leaves of the mixture to the others, and
    what all estimates leave of the mixture; the latents, and the gradient of half the squared error of the mixture with
    respect to them. It is iterative amortised inference (Marino, Yue, Mandt, ICML 2018): one call is one iteration, and
    all iterations share its weights. Before it is trained it changes nothing.

    Call arguments:
        mixture: float32 `[batch, height, width]`.
        estimates: float32 `[batch, num_sources, height, width]`, what the decoder gives for `mean`.
        gradients: float32 `[batch, num_sources, latent_dim]`, of half the squared error with respect to `mean`.
        mean: float32 `[batch, num_sources, latent_dim]`, of the posteriors so far.
        log_variance: float32 `[batch, num_sources, latent_dim]`, of the same.
        training: Whether batch normalisation uses the batch's own moments.

    Returns:
        Mean and log variance of the corrected posteriors, each float32 `[batch, num_sources, latent_dim]`.

    Args:
        latent_dim: Dimensions of one source's latent; at least 1.
        convolutions: Channels of each convolution.
        hidden_units: Units of each dense block after them.
        over_frames: Whether the convolutions are over frames, as for spectrograms (each but the first halves their
            number); else over both axes, as for images.
    """

    def __init__(
        self,
        latent_dim: int,
        convolutions: tuple[int, ...],
        hidden_units: tuple[int, ...],
        over_frames: bool = False,
        **kwargs: Any,
    ) -> None:
        # The mask needs the range of float32, and what is corrected must not be rounded.
        super().__init__(autocast=False, **kwargs)
        self.latent_dim = latent_dim
        self.convolutions = tuple(convolutions)
        self.hidden_units = tuple(hidden_units)
        self.over_frames = over_frames

    def build(self, mixture_shape: tuple[int | None, ...], *_: Any) -> None:
        height, width = mixture_shape[1:]
        shape: tuple[int | None, ...] = (None, height, width, _VIEWS)
        if self.over_frames:
            shape = (None, height, _VIEWS * (width or 0))
        self.convolution_blocks = [self._convolution(i, units) for i, units in enumerate(self.convolutions)]
        for convolution in self.convolution_blocks:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
        features = math.prod(n or 0 for n in shape[1:])
        self.flatten = keras.layers.Reshape((features,), dtype=self.dtype_policy)
        features += 2 * self.latent_dim
        self.blocks = [
            DenseBlock(units, dtype=self.dtype_policy, name=f"block_{i}") for i, units in enumerate(self.hidden_units)
        ]
        for block in self.blocks:
            block.build((None, features))
            features = block.units
        self.head = keras.layers.Dense(2 * self.latent_dim, kernel_initializer="zeros", dtype="float32", name="head")
        self.head.build((None, features))

    def _convolution(self, index: int, units: int) -> keras.Layer:
        of_block: dict[str, Any] = {"dtype": self.dtype_policy, "name": f"convolution_{index}"}
        if self.over_frames:
            return FrameConvolutionBlock(units, 1 if index == 0 else 2, **of_block)
        return ImageConvolutionBlock(units, **of_block)

    def call(
        self,
        mixture: keras.KerasTensor,
        estimates: keras.KerasTensor,
        gradients: keras.KerasTensor,
        mean: keras.KerasTensor,
        log_variance: keras.KerasTensor,
        training: bool = False,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        num_sources, height, width = estimates.shape[1:]
        masked = ratio_mask(estimates + _MASK_FLOOR, mixture)
        mixture = keras.ops.expand_dims(mixture, 1)
        left = mixture - keras.ops.sum(estimates, axis=1, keepdims=True)
        views = [estimates, masked, mixture - masked, keras.ops.repeat(left, num_sources, axis=1)]
        views = [keras.ops.cast(keras.ops.reshape(view, (-1, height, width)), self.compute_dtype) for view in views]
        hidden = keras.ops.concatenate(views, axis=-1) if self.over_frames else keras.ops.stack(views, axis=-1)
        for convolution in self.convolution_blocks:
            hidden = convolution(hidden, training=training)
        latents = [keras.ops.reshape(part, (-1, self.latent_dim)) for part in (mean, gradients)]
        latents = [keras.ops.cast(part, self.compute_dtype) for part in latents]
        hidden = keras.ops.concatenate([self.flatten(hidden), *latents], axis=-1)
        for block in self.blocks:
            hidden = block(hidden, training=training)
        changes = keras.ops.reshape(self.head(hidden), (-1, num_sources, 2, self.latent_dim))
        # Added before they are parted: what the decoder reads is then the output of a slice, which int8 files need.
        moments = keras.ops.stack([mean, log_variance], axis=2) + changes
        return moments[:, :, 0], moments[:, :, 1]

    def compute_output_shape(self, mixture_shape: tuple[int | None, ...], *shapes: Any) -> tuple[Any, Any]:
        return shapes[2], shapes[3]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "latent_dim": self.latent_dim,
            "convolutions": self.convolutions,
            "hidden_units": self.hidden_units,
            "over_frames": self.over_frames,
        }
