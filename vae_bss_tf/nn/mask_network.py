"""What sharpens the estimates before they are masked: a network that sees the mixture's own pixels."""

from typing import Any

import keras

from vae_bss_tf.nn.blocks import PACKAGE

_VIEWS = 3
_KERNEL_SIZE = 3
_FLOOR = 1e-4  # added to the estimates: a factor alone could not raise what is zero


@keras.saving.register_keras_serializable(PACKAGE)
class MaskNetwork(keras.layers.Layer):
    """Rescales each pixel of the estimates, each source by one network that they share.

    A source's latent has room for its shape, not for each of its strokes. For each source the network sees the
    mixture, the estimate, and the sum of the others' estimates; it is a U-Net (Ronneberger, Fischer, Brox, MICCAI
    2015), which is used for masks of music by Jansson et al. (ISMIR 2017). Before it is trained it changes no mask.

    Call arguments:
        mixture: float32 `[batch, height, width]`.
        estimates: float32 `[batch, num_sources, height, width]`, >= 0.

    Returns:
        The estimates plus 1e-4, times factors in (0, 1): float32 `[batch, num_sources, height, width]`.

    Args:
        channels: Channels at each resolution, from that of the mixture; each halves height and width, which must be
            divisible as often.
    """

    def __init__(self, channels: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.channels = tuple(channels)

    def build(self, mixture_shape: tuple[int | None, ...], *_: Any) -> None:
        height, width = mixture_shape[1:]
        features = _VIEWS
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
            widened.build((None, (height or 0) >> (level + 1), (width or 0) >> (level + 1), features))
            joined = self._convolution(channels, f"up_{level}_1")
            joined.build((None, None, None, 2 * channels))
            features = channels
            self.up.append([widened, joined])
        self.head = keras.layers.Conv2D(
            1, _KERNEL_SIZE, padding="same", kernel_initializer="zeros", dtype=self.dtype_policy, name="head"
        )
        self.head.build((None, None, None, features))

    def _convolution(self, channels: int, name: str, strides: int = 1) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(
            channels, _KERNEL_SIZE, strides, padding="same", activation="relu", dtype=self.dtype_policy, name=name
        )

    def call(self, mixture: keras.KerasTensor, estimates: keras.KerasTensor) -> keras.KerasTensor:
        num_sources, height, width = estimates.shape[1:]
        others = keras.ops.sum(estimates, axis=1, keepdims=True) - estimates
        views = [keras.ops.repeat(keras.ops.expand_dims(mixture, 1), num_sources, axis=1), estimates, others]
        hidden = keras.ops.stack([keras.ops.reshape(view, (-1, height, width)) for view in views], axis=-1)
        hidden = keras.ops.cast(hidden, self.compute_dtype)
        passed = []
        for convolutions in self.down:
            for convolution in convolutions:
                hidden = convolution(hidden)
            passed.append(hidden)
        for (widened, joined), fine in zip(self.up, reversed(passed[:-1]), strict=True):
            hidden = joined(keras.ops.concatenate([widened(hidden), fine], axis=-1))
        logits = keras.ops.cast(keras.ops.reshape(self.head(hidden), (-1, num_sources, height, width)), "float32")
        return (estimates + _FLOOR) * keras.ops.sigmoid(logits)

    def compute_output_shape(
        self, mixture_shape: tuple[int | None, ...], estimates_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return estimates_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channels": self.channels}
