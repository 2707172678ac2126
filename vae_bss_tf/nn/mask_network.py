"""What sharpens the estimates before they are masked: a network that sees the mixture's own pixels."""

import math
from typing import Any

import keras
import tensorflow as tf

from vae_bss_tf.nn.blocks import PACKAGE

_VIEWS_OF_ONE = 3
_KERNEL_SIZE = 3
_FLOOR = 1e-4  # added to the estimates: a factor alone could not raise what is zero


@keras.saving.register_keras_serializable(PACKAGE)
class MaskNetwork(keras.layers.Layer):
    """Rescales each pixel of the estimates, so that masks follow the mixture's own strokes.

    A source's latent has room for its shape, not for each of its strokes. The network is a U-Net (Ronneberger, Fischer,
    Brox, MICCAI 2015), which is used for masks of music by Jansson et al. (ISMIR 2017). Before it is trained it changes
    no mask.

    It is applied to each source on its own, and sees the mixture, the estimate, and the sum of the others' estimates.

    Call arguments:
        mixture: float32 `[batch, height, width]` or `[batch, height, width, channels]`.
        estimates: float32 `[batch, num_sources, height, width]` or `[batch, num_sources, height, width, channels]`,
            >= 0.

    Returns:
        The estimates plus 1e-4, times factors in (0, 1), one for each channel of each pixel: float32, of the estimates'
        shape.

    Args:
        channels: Channels at each resolution, from the finest; each next one halves height and width, which must be
            divisible as often.
        patch: Side of the square of pixels that the finest resolution takes as one, in as many more channels (space to
            depth: Shi et al., CVPR 2016); 1 takes each pixel. Divides height and width.

    Example:
        >>> network = MaskNetwork((8, 16), patch=2)
        >>> network(keras.ops.ones((1, 28, 28)), keras.ops.ones((1, 2, 28, 28))).shape
        TensorShape([1, 2, 28, 28])
    """

    def __init__(self, channels: tuple[int, ...], patch: int = 1, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.channels = tuple(channels)
        self.patch = patch

    def build(self, mixture_shape: tuple[int | None, ...], estimates_shape: tuple[int | None, ...]) -> None:
        height, width = ((n or 0) // self.patch for n in mixture_shape[1:3])
        colours = math.prod(n or 1 for n in mixture_shape[3:])
        features = _VIEWS_OF_ONE * colours * self.patch**2
        self.down, self.up = [], []
        for level, channels in enumerate(self.channels):
            convolutions = [self._convolution(channels, f"down_{level}_0", strides=1 if level == 0 else 2)]
            if level:
                convolutions.append(self._convolution(channels, f"down_{level}_1"))
            for convolution in convolutions:
                convolution.build((None, None, None, features))
                features = channels
            self.down.append(convolutions)
        for level in reversed(range(len(self.channels) - 1)):
            channels = self.channels[level]
            widened = keras.layers.Conv2DTranspose(
                channels, 2, strides=2, dtype=self.dtype_policy, name=f"up_{level}_0"
            )
            widened.build((None, height >> (level + 1), width >> (level + 1), features))
            joined = self._convolution(channels, f"up_{level}_1")
            joined.build((None, None, None, 2 * channels))
            features = channels
            self.up.append([widened, joined])
        self.head = keras.layers.Conv2D(
            colours * self.patch**2,
            _KERNEL_SIZE,
            padding="same",
            kernel_initializer="zeros",
            dtype=self.dtype_policy,
            name="head",
        )
        self.head.build((None, None, None, features))

    @property
    def is_trained(self) -> bool:
        """Whether it changes any mask: an untrained head is zero and changes none."""
        return bool(keras.ops.any(self.head.kernel != 0))

    def _convolution(self, channels: int, name: str, strides: int = 1) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(
            channels, _KERNEL_SIZE, strides, padding="same", activation="relu", dtype=self.dtype_policy, name=name
        )

    def call(self, mixture: keras.KerasTensor, estimates: keras.KerasTensor) -> keras.KerasTensor:
        num_sources, height, width, *colour = estimates.shape[1:]
        colours = math.prod(colour)
        # No array has more than four axes, which runtimes on devices stop at: a row holds its pixels' channels.
        estimates = keras.ops.reshape(estimates, (-1, num_sources, height, width * colours))
        mixture = keras.ops.reshape(mixture, (-1, 1, height, width * colours))
        others = keras.ops.sum(estimates, axis=1, keepdims=True) - estimates
        views = [keras.ops.repeat(mixture, num_sources, axis=1), estimates, others]
        views = [keras.ops.reshape(view, (-1, height, width, colours)) for view in views]
        hidden = keras.ops.concatenate(views, axis=-1)
        logits = keras.ops.cast(self._logits(keras.ops.cast(hidden, self.compute_dtype)), "float32")
        logits = keras.ops.reshape(logits, (-1, num_sources, height, width * colours))
        rescaled = (estimates + _FLOOR) * keras.ops.sigmoid(logits)
        return keras.ops.reshape(rescaled, (-1, num_sources, height, width, *colour))

    def _logits(self, hidden: keras.KerasTensor) -> keras.KerasTensor:
        if self.patch > 1:
            hidden = tf.nn.space_to_depth(hidden, self.patch)
        passed = []
        for convolutions in self.down:
            for convolution in convolutions:
                hidden = convolution(hidden)
            passed.append(hidden)
        for (widened, joined), fine in zip(self.up, reversed(passed[:-1]), strict=True):
            hidden = joined(keras.ops.concatenate([widened(hidden), fine], axis=-1))
        logits = self.head(hidden)
        return tf.nn.depth_to_space(logits, self.patch) if self.patch > 1 else logits

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels, "patch": self.patch}
