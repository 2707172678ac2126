"""The layers of the multi-source VAE. Axes: `[batch, num_sources, ...]`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from vae_bss_tf.masking import ratio_mask

PACKAGE = "vae_bss_tf"
PullBack = Callable[[keras.KerasTensor], keras.KerasTensor]

RELU_RAMP = 0.1

_IMAGE_KERNEL_SIZE, _IMAGE_STRIDE = 4, 2


def fan_in_uniform() -> keras.initializers.Initializer:
    """Kernel initialiser: uniform in +-1/sqrt(fan_in). Keras' default, Glorot, does not part the sources."""
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


def batch_normalization(policy: keras.DTypePolicy) -> keras.layers.BatchNormalization:
    """Batch normalisation of the last axis, over the batch of all replicas where a strategy has several.

    Args:
        policy: The layer's dtype policy.

    Returns:
        The layer, not yet built.
    """
    synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
    return keras.layers.BatchNormalization(epsilon=1e-5, synchronized=synchronized, dtype=policy, name="normalization")


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
        self.normalization = batch_normalization(self.dtype_policy)
        self.normalization.build((None, self.units))

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return keras.ops.relu(self.normalization(self.dense(inputs), training=training))

    def pull_back(self, outputs: keras.KerasTensor, cotangent: keras.KerasTensor) -> keras.KerasTensor:
        """Gradient with respect to the inputs, the normalisation being by the moving moments.

        The derivative of the ReLU rises from 0 to 1 over outputs from 0 to 0.1 (normalised, they are about 1), so that
        rounding does not switch it: what is computed with the gradient is the same wherever it is computed.

        Args:
            outputs: float `[batch, units]`, what `call` returned without training.
            cotangent: float32 `[batch, units]`, the gradient with respect to them.

        Returns:
            float32 `[batch, features]`.
        """
        outputs = keras.ops.cast(outputs, cotangent.dtype)
        slope = 1 - keras.ops.relu(1 - outputs / RELU_RAMP)
        norm = self.normalization
        scale = norm.gamma * keras.ops.rsqrt(norm.moving_variance + norm.epsilon)
        return keras.ops.matmul(cotangent * slope * scale, keras.ops.transpose(self.dense.kernel))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def linearize_blocks(blocks: Sequence[DenseBlock], latents: keras.KerasTensor) -> tuple[keras.KerasTensor, PullBack]:
    """What a decoder's blocks make of latents, without training, and the way back.

    Args:
        blocks: The blocks, in order.
        latents: float32 `[batch, num_sources, latent_dim]`.

    Returns:
        The last block's output, float `[batch * num_sources, units]`, and a function that takes a gradient with respect
        to it to the gradient with respect to the latents.
    """
    num_sources, latent_dim = latents.shape[1:]
    hidden = keras.ops.reshape(latents, (-1, latent_dim))
    outputs = []
    for block in blocks:
        hidden = block(hidden, training=False)  # whatever the model's own call is for
        outputs.append(hidden)

    def pull_back(gradient: keras.KerasTensor) -> keras.KerasTensor:
        for block, output in zip(reversed(blocks), reversed(outputs), strict=True):
            gradient = block.pull_back(output, gradient)
        return keras.ops.reshape(gradient, (-1, num_sources, latent_dim))

    return hidden, pull_back


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
        limit = 1 / math.sqrt(_IMAGE_KERNEL_SIZE**2 * int(input_shape[-1] or 0))
        self.convolution = keras.layers.Conv2D(
            self.units,
            _IMAGE_KERNEL_SIZE,
            strides=_IMAGE_STRIDE,
            padding="same",
            kernel_initializer=fan_in_uniform(),
            bias_initializer=keras.initializers.RandomUniform(-limit, limit),
            dtype=self.dtype_policy,
            name="convolution",
        )
        self.convolution.build(input_shape)
        self.normalization = batch_normalization(self.dtype_policy)
        self.normalization.build((None, None, None, self.units))

    def call(self, inputs: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        return keras.ops.relu(self.normalization(self.convolution(inputs), training=training))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return batch, -(-(height or 0) // _IMAGE_STRIDE), -(-(width or 0) // _IMAGE_STRIDE), self.units

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(PACKAGE)
class MultiSourceEncoder(keras.layers.Layer):
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
        shape: tuple[int | None, ...] = (*input_shape, 1)
        self.convolution_blocks = [
            ImageConvolutionBlock(u, dtype=self.dtype_policy, name=f"convolution_{i}")
            for i, u in enumerate(self.convolutions)
        ]
        for convolution in self.convolution_blocks:
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
        width = math.prod(n or 0 for n in shape[1:])
        self.flatten = keras.layers.Reshape((width,), dtype=self.dtype_policy)
        self.blocks = [
            DenseBlock(u, dtype=self.dtype_policy, name=f"block_{i}") for i, u in enumerate(self.hidden_units)
        ]
        for block in self.blocks:
            block.build((None, width))
            width = block.units
        self.head = fan_in_dense(width, 2 * self.num_sources * self.latent_dim, dtype="float32", name="head")
        self.head.build((None, width))

    def call(self, mixture: keras.KerasTensor, training: bool = False) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        hidden = mixture
        if self.convolutions:
            hidden = keras.ops.expand_dims(keras.ops.cast(mixture, self.compute_dtype), -1)
        for convolution in self.convolution_blocks:
            hidden = convolution(hidden, training=training)
        hidden = self.flatten(hidden)
        for block in self.blocks:
            hidden = block(hidden, training=training)
        moments = keras.ops.reshape(self.head(hidden), (-1, 2, self.num_sources, self.latent_dim))
        return moments[:, 0], moments[:, 1]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[tuple[int | None, ...], ...]:
        shape = (input_shape[0], self.num_sources, self.latent_dim)
        return shape, shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_sources": self.num_sources,
            "latent_dim": self.latent_dim,
            "hidden_units": self.hidden_units,
            "convolutions": self.convolutions,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class SourceDecoder(keras.layers.Layer):
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
        width = int(input_shape[-1] or 0)
        self.blocks = [
            DenseBlock(u, dtype=self.dtype_policy, name=f"block_{i}") for i, u in enumerate(self.hidden_units)
        ]
        for block in self.blocks:
            block.build((None, width))
            width = block.units
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

    def linearize(self, latents: keras.KerasTensor) -> tuple[keras.KerasTensor, PullBack]:
        """Source estimates, as `call` gives them without training, and the way back from them.

        Args:
            latents: float32 `[batch, num_sources, latent_dim]`.

        Returns:
            The estimates, float32 `[batch, num_sources, *source_shape]`, and a function that takes a gradient with
            respect to them to the gradient with respect to the latents (`DenseBlock.pull_back` says how exactly).
        """
        hidden, pull_back_hidden = linearize_blocks(self.blocks, latents)
        pixels = self.head(hidden)

        def pull_back(cotangent: keras.KerasTensor) -> keras.KerasTensor:
            gradient = keras.ops.reshape(cotangent, (-1, pixels.shape[-1])) * pixels * (1 - pixels)
            return pull_back_hidden(keras.ops.matmul(gradient, keras.ops.transpose(self.head.kernel)))

        return keras.ops.reshape(pixels, (-1, latents.shape[1], *self.source_shape)), pull_back

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], input_shape[1], *self.source_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "source_shape": self.source_shape, "hidden_units": self.hidden_units}


def replica_noise(batch: tf.Tensor, shape: tuple[int, ...], seed: tf.Tensor) -> tf.Tensor:
    """This replica's part of standard normal noise for a batch that several replicas share.

    Args:
        batch: int32 scalar, size of this replica's part.
        shape: Shape of one example's noise.
        seed: int32 `[2]`; the noise of the whole batch is a function of it alone.

    Returns:
        float32 `[batch, *shape]`.
    """
    replica = tf.distribute.get_replica_context()
    noise = tfp.distributions.Normal(0.0, 1.0).sample([replica.num_replicas_in_sync * batch, *shape], seed=seed)
    first = tf.cast(replica.replica_id_in_sync_group, tf.int32) * batch
    return noise[first : first + batch]


@keras.saving.register_keras_serializable(PACKAGE)
class GaussianSampler(keras.layers.Layer):
    """Samples z = mean + sigma * noise in training, and returns the mean otherwise.

    The noise is a function of the seed and the number of the training step alone: a resumed training draws the
    same, and so do several replicas that share one batch, each drawing the whole and taking its own part.

    Call arguments:
        mean: float32 `[batch, num_sources, latent_dim]`.
        log_variance: float32 `[batch, num_sources, latent_dim]`.
        training: Whether to sample.

    Returns:
        Latents, float32 `[batch, num_sources, latent_dim]`.

    Args:
        seed: Seed of the noise; 0 or more.
    """

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed

    def build(self, *input_shapes: Any) -> None:
        self.step = self.add_weight(
            name="step",
            shape=(),
            dtype="int32",
            initializer="zeros",
            trainable=False,
            aggregation="only_first_replica",
        )

    def call(
        self, mean: keras.KerasTensor, log_variance: keras.KerasTensor, training: bool = False
    ) -> keras.KerasTensor:
        if not training:
            return mean
        noise = replica_noise(tf.shape(mean)[0], mean.shape[1:], tf.stack([self.seed, self.step.value]))
        self.advance()
        return mean + tf.exp(0.5 * log_variance) * noise

    def advance(self) -> None:
        """Counts a step, for one that samples nothing but draws other noise by this count."""
        self.step.assign_add(1)

    def compute_output_shape(
        self, mean_shape: tuple[int | None, ...], log_variance_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return mean_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}


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
        return ratio_mask(estimates, mixture, self.exponent)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "exponent": self.exponent}

    def compute_output_shape(
        self, estimates_shape: tuple[int | None, ...], mixture_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        return estimates_shape
