"""The blocks that encoders and decoders are made of."""

import math
from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

PACKAGE = "vae_bss_tf"

_IMAGE_KERNEL_SIZE, _IMAGE_STRIDE = 4, 2
FRAME_KERNEL_SIZE = 3


def fan_in_uniform() -> keras.initializers.Initializer:
    """Kernel initialiser: uniform in +-1/sqrt(fan_in). With Keras' default, Glorot, they never separate."""
    return keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")


def fan_in_dense(fan_in: int, units: int, **kwargs: Any) -> keras.layers.Dense:
    """A `Dense` layer whose kernel and bias are both uniform in +-1/sqrt(fan_in) at the start.

    Args:
        fan_in: Size of the input's last axis.
        units: Size of the output's last axis.
        **kwargs: Further arguments of `keras.layers.Dense`.

    Returns:
        The layer, not yet built.
    """
    limit = 1 / math.sqrt(fan_in)
    return keras.layers.Dense(
        units,
        kernel_initializer=fan_in_uniform(),
        bias_initializer=keras.initializers.RandomUniform(-limit, limit),
        **kwargs,
    )


def fan_in_upsampling(fan_in: int, units: int, **kwargs: Any) -> keras.layers.Conv2DTranspose:
    """A transposed convolution of 4 x 4 pixels with stride 2, its weights and bias as those of `fan_in_dense`.

    Args:
        fan_in: Channels of the input; each output pixel sees 2 x 2 of its pixels.
        units: Channels of the output.
        **kwargs: Further arguments of `keras.layers.Conv2DTranspose`.

    Returns:
        The layer, not yet built.
    """
    limit = 1 / math.sqrt((_IMAGE_KERNEL_SIZE // _IMAGE_STRIDE) ** 2 * fan_in)
    uniform = keras.initializers.RandomUniform(-limit, limit)
    return keras.layers.Conv2DTranspose(
        units,
        _IMAGE_KERNEL_SIZE,
        strides=_IMAGE_STRIDE,
        padding="same",
        kernel_initializer=uniform,
        bias_initializer=uniform,
        **kwargs,
    )


def normalization_after(layer: keras.layers.Layer) -> keras.layers.BatchNormalization:
    """Batch normalisation of the last axis, over the batch of all replicas where a strategy has several.

    The layer's bias is not trained any more. The batch's mean takes it away, so its gradient is nothing but rounding,
    which Adam would scale up to full steps.

    Args:
        layer: The layer whose output is normalised; built, with a bias.

    Returns:
        The normalisation, not yet built, of the layer's dtype policy.
    """
    layer.bias.trainable = False
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return keras.layers.BatchNormalization(
        epsilon=1e-5, synchronized=synchronized, dtype=layer.dtype_policy, name="normalization"
    )


def num_parameters(model: keras.Model) -> int:
    """Counts the weights of a model, the biases before batch normalisation included and its moments left out.

    Args:
        model: Any model, built.

    Returns:
        The number of values.
    """
    return sum(weight.shape.num_elements() for weight in model.weights if not weight.name.startswith("moving_"))


@keras.saving.register_keras_serializable(PACKAGE)
class DenseBlock(keras.layers.Layer):
    """Dense, batch normalisation, ReLU: the paper's block.

    Under a strategy of several replicas the normalisation is over the batch of all of them.

    Call arguments:
        inputs: float `[batch, features]`.
        training: Whether to normalise by the batch's own moments.

    Returns:
        float `[batch, units]`, >= 0.

    Args:
        units: Size of the output; at least 1.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.dense = fan_in_dense(int(input_shape[-1] or 0), self.units, dtype=self.dtype_policy, name="dense")
        self.dense.build(input_shape)
        self.normalization = normalization_after(self.dense)
        self.normalization.build((None, self.units))

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return keras.ops.relu(self.normalization(self.dense(inputs), training=training))


def dense_blocks(width: int, hidden_units: Iterable[int], policy: keras.DTypePolicy) -> tuple[list[DenseBlock], int]:
    """Makes dense blocks, each of which takes what the one before gives.

    Args:
        width: Size of the first input's last axis.
        hidden_units: Units of each block.
        policy: Their dtype policy.

    Returns:
        The blocks, built, and the size of the last one's output: `width` where there is none.
    """
    blocks = []
    for i, units in enumerate(hidden_units):
        blocks.append(DenseBlock(units, dtype=policy.name, name=f"block_{i}"))
        blocks[-1].build((None, width))
        width = units
    return blocks, width


@keras.saving.register_keras_serializable(PACKAGE)
class ImageConvolutionBlock(keras.layers.Layer):
    """Convolution of 4 x 4 pixels with stride 2, batch normalisation, ReLU.

    Under a strategy of several replicas the normalisation is over the batch of all of them.

    Call arguments:
        inputs: float `[batch, height, width, channels]`.
        training: Whether to normalise by the batch's own moments.

    Returns:
        float `[batch, ceil(height / 2), ceil(width / 2), units]`, >= 0.

    Args:
        units: Channels of the output; at least 1.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.convolution = self._make_convolution(int(input_shape[-1] or 0))
        self.convolution.build(input_shape)
        self.normalization = normalization_after(self.convolution)
        self.normalization.build((None, None, None, self.units))

    def _make_convolution(self, channels: int) -> keras.layers.Layer:
        limit = 1 / math.sqrt(_IMAGE_KERNEL_SIZE**2 * channels)
        return keras.layers.Conv2D(
            self.units,
            _IMAGE_KERNEL_SIZE,
            strides=_IMAGE_STRIDE,
            padding="same",
            kernel_initializer=fan_in_uniform(),
            bias_initializer=keras.initializers.RandomUniform(-limit, limit),
            dtype=self.dtype_policy,
            name="convolution",
        )

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return keras.ops.relu(self.normalization(self.convolution(inputs), training=training))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return batch, -(-(height or 0) // _IMAGE_STRIDE), -(-(width or 0) // _IMAGE_STRIDE), self.units


@keras.saving.register_keras_serializable(PACKAGE)
class ImageUpsamplingBlock(ImageConvolutionBlock):
    """Transposed convolution of 4 x 4 pixels with stride 2, batch normalisation, ReLU.

    Call arguments:
        inputs: float `[batch, height, width, channels]`.
        training: Whether to normalise by the batch's own moments.

    Returns:
        float `[batch, 2 * height, 2 * width, units]`, >= 0.

    Args:
        units: Channels of the output; at least 1.
    """

    def _make_convolution(self, channels: int) -> keras.layers.Layer:
        return fan_in_upsampling(channels, self.units, dtype=self.dtype_policy, name="convolution")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return batch, _IMAGE_STRIDE * (height or 0), _IMAGE_STRIDE * (width or 0), self.units


@keras.saving.register_keras_serializable(PACKAGE)
class FrameConvolutionBlock(keras.layers.Layer):
    """Convolution over the frames, batch normalisation, ReLU; the bins, or features, are its channels.

    It is computed as a matrix product of each frame stacked with its neighbours: XLA compiles a convolution inside
    a loop of steps to something a hundred times slower.

    Call arguments:
        inputs: float `[batch, frames, features]`.
        training: Whether to normalise by the batch's own moments.

    Returns:
        float `[batch, ceil(frames / stride), units]`, >= 0.

    Args:
        units: Size of the output's last axis; at least 1.
        stride: Frames from one output to the next; at least 1.
    """

    def __init__(self, units: int, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.stride = stride

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        stacked = FRAME_KERNEL_SIZE * int(input_shape[-1] or 0)
        self.dense = fan_in_dense(stacked, self.units, dtype=self.dtype_policy, name="dense")
        self.dense.build((None, None, stacked))
        self.normalization = normalization_after(self.dense)
        self.normalization.build((None, None, self.units))

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        last = (inputs.shape[1] - 1) // self.stride
        before = FRAME_KERNEL_SIZE // 2
        after = max(last * self.stride + FRAME_KERNEL_SIZE - before - inputs.shape[1], 0)
        padded = keras.ops.pad(inputs, [[0, 0], [before, after], [0, 0]])
        neighbours = [padded[:, i : i + last * self.stride + 1 : self.stride] for i in range(FRAME_KERNEL_SIZE)]
        stacked = keras.ops.concatenate(neighbours, axis=2)
        return keras.ops.relu(self.normalization(self.dense(stacked), training=training))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape[0], -(-int(input_shape[1] or 0) // self.stride), self.units
