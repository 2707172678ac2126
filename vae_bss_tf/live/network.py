"""The causal networks: what they remember of the frames before comes in and goes out as a tensor."""

import math
from typing import Any

import keras

from vae_bss_tf.nn.blocks import fan_in_dense, fan_in_uniform


class CausalBlock(keras.layers.Layer):
    """A convolution over time for each channel, a dense layer over channels, and their sum with the input.

    Call arguments:
        inputs: float32 `[batch, frames, channels]`.
        memory: float32 `[batch, (kernel_size - 1) * dilation, channels]`, the inputs of the frames before; zeros at
            the beginning.

    Returns:
        The outputs, float32 `[batch, frames, channels]`, >= 0, each of its own and earlier frames alone, and the
        memory for the frames that follow.

    Args:
        channels: Channels of input and output; at least 1.
        kernel_size: Frames that it sees; at least 2.
        dilation: Frames from one of them to the next; at least 1.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.kernel_size = kernel_size
        self.dilation = dilation

    def build(self, input_shape: Any = None, memory_shape: Any = None) -> None:
        shape = (self.kernel_size, self.channels)
        self.taps = self.add_weight(shape=shape, initializer=fan_in_uniform(), name="taps")
        self.bias = self.add_weight(shape=(self.channels,), initializer="zeros", name="bias")
        self.dense = fan_in_dense(self.channels, self.channels, name="dense")
        self.dense.build((None, self.channels))

    def call(self, inputs: keras.KerasTensor, memory: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        frames = inputs.shape[1]
        heard = keras.ops.concatenate([memory, inputs], axis=1)
        convolved = self.bias
        for i in range(self.kernel_size):
            first = i * self.dilation
            convolved = convolved + self.taps[i] * heard[:, first : first + frames]
        flat = keras.ops.reshape(keras.ops.relu(convolved), (-1, self.channels))
        added = keras.ops.reshape(self.dense(flat), (-1, frames, self.channels))
        return keras.ops.relu(inputs + added), heard[:, frames:]


class BandConvolution(keras.layers.Layer):
    """A convolution over the bands of each frame, and ReLU.

    Call arguments:
        inputs: float32 `[n, bands, channels]`.

    Returns:
        float32 `[n, bands / stride, units]`, >= 0 where it has a ReLU.

    Args:
        channels: Channels of the input; at least 1.
        units: Channels of the output; at least 1.
        kernel_size: Bands that it sees; at least 1.
        stride: Bands from one output to the next; at least 1.
        relu: Whether negative outputs become zero.
    """

    def __init__(
        self, channels: int, units: int, kernel_size: int, stride: int = 1, *, relu: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        limit = 1 / math.sqrt(channels * kernel_size)
        self.convolution = keras.layers.Conv2D(
            units,
            (1, kernel_size),
            (1, stride),
            padding="same",
            activation="relu" if relu else None,
            kernel_initializer=fan_in_uniform(),
            bias_initializer=keras.initializers.RandomUniform(-limit, limit),
            name="convolution",
        )

    def build(self, input_shape: Any = None) -> None:
        self.convolution.build((None, 1, None, self.channels))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        return self.convolution(inputs[:, None])[:, 0]


class FrameDense(keras.layers.Layer):
    """A dense layer over the last axis, as one product of matrices whatever axes come before.

    Call arguments:
        inputs: float32 `[..., features]`.

    Returns:
        float32 `[..., units]`.

    Args:
        features: Size of the input's last axis.
        units: Size of the output's last axis.
        relu: Whether negative outputs become zero.
    """

    def __init__(self, features: int, units: int, *, relu: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.units = units
        self.dense = fan_in_dense(features, units, activation="relu" if relu else None, name="dense")

    def build(self, input_shape: Any = None) -> None:
        self.dense.build((None, self.features))

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        outputs = self.dense(keras.ops.reshape(inputs, (-1, self.features)))
        return keras.ops.reshape(outputs, (-1, *inputs.shape[1:-1], self.units))
