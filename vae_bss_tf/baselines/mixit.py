"""MixIT: mixture invariant training (Wisdom, Tzinis, Erdogan, Weiss, Wilson, Hershey 2020)."""

import itertools
import math
import types
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from vae_bss_tf import legacy
from vae_bss_tf.checks import check_mixtures
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.nn.blocks import PACKAGE, DenseBlock, fan_in_dense

SNR_MAX_DB = 30.0
_SILENCE = 1e-8


def assignments(num_outputs: int) -> npt.NDArray[np.float32]:
    """All ways to give each output to one of two mixtures.

    Args:
        num_outputs: Outputs of the network; at least 1.

    Returns:
        float32 `[2 ** num_outputs, 2, num_outputs]` of zeros and ones; each column sums to 1.
    """
    first = np.array(list(itertools.product((0, 1), repeat=num_outputs)), np.float32)
    return np.stack([first, 1 - first], axis=1)


def mixit_loss(mixtures: tf.Tensor, outputs: tf.Tensor, snr_max: float = SNR_MAX_DB) -> tf.Tensor:
    """Negative thresholded SNR of two mixtures, least over all assignments of the outputs to them.

    min_A sum_i 10 log10(|x_i - [A s]_i|^2 + tau |x_i|^2) - 10 log10 |x_i|^2, tau = 10^(-snr_max / 10)
    (equations 2 and 3). The minimum is exact: all 2^N assignments are tried, from the outputs' Gram matrix.

    Args:
        mixtures: float32 `[batch, 2, size]`, the two mixtures that were added.
        outputs: float32 `[batch, num_outputs, size]`.
        snr_max: Threshold in dB above which a better fit no longer counts.

    Returns:
        float32 `[batch]`, dB.
    """
    choices = tf.constant(assignments(outputs.shape[1]))
    gram = tf.matmul(outputs, outputs, transpose_b=True)
    cross = tf.matmul(mixtures, outputs, transpose_b=True)
    energy = tf.reduce_sum(tf.square(mixtures), -1)[:, tf.newaxis] + _SILENCE
    projected = tf.einsum("ain,bin->bai", choices, cross)
    estimated = tf.einsum("ain,bnm,aim->bai", choices, gram, choices)
    error = tf.maximum(energy - 2 * projected + estimated, 0.0)
    tau = 10 ** (-snr_max / 10)
    decibels = 10 / math.log(10) * (tf.math.log(error + tau * energy) - tf.math.log(energy))
    return tf.reduce_min(tf.reduce_sum(decibels, -1), -1)


def hidden_width(config: ModelConfig, num_parameters: int) -> int:
    """The largest width of the hidden layers with which the network does not exceed a number of parameters.

    Args:
        config: Gives the size of a mixture, the number of sources and of hidden layers.
        num_parameters: Trainable parameters wanted.

    Returns:
        The width, at least 1.

    Raises:
        ConfigError: The output layer alone is larger, however narrow the network.
    """
    size, depth = math.prod(config.input_shape), len(config.hidden_units)
    outputs = 2 * config.num_sources * size

    def count(width: int) -> int:
        blocks = (size + 3) * width + (depth - 1) * (width + 3) * width
        return blocks + (width + 1) * outputs

    if count(1) > num_parameters:
        raise ConfigError(f"MixIT cannot have {num_parameters} parameters; its least is {count(1)}.")
    width = 1
    while count(width + 1) <= num_parameters:
        width += 1
    return width


@keras.saving.register_keras_serializable(PACKAGE)
class MixIT(keras.Model):
    """A masking network that is trained on sums of two mixtures, with as many parameters as `MultiSourceVAE`.

    The network reads an image, passes it through dense blocks (as many as the VAE has hidden layers, all of one
    width), and emits 2K masks by a softmax over the outputs, so that the outputs sum to what it read. In training
    it reads the sum of each mixture of the batch and its neighbour, and must explain either from its outputs
    (`mixit_loss`). `fit` takes a data set of `{"mixture": ...}`, as the VAE's.

    At test it reads one mixture. Of the 2K outputs the K with the most energy are kept, and the mixture is shared
    among them in proportion to them, so that the K sources sum to it.

    Call arguments:
        inputs: float32 `[batch, *input_shape]`, or a dictionary with it under "mixture".
        training: Whether the batch's own moments normalise.

    Returns:
        `{"outputs": float32 [batch, 2 * num_sources, *input_shape]}`; they sum to the input.

    Args:
        config: `input_shape`, `num_sources` and the number of `hidden_units` are used.
        width: Units of every hidden layer.
    """

    def __init__(self, config: ModelConfig, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.width = width
        size = math.prod(config.input_shape)
        self.num_outputs = 2 * config.num_sources
        self.flatten = keras.layers.Reshape((size,))
        self.blocks = [DenseBlock(width, name=f"block_{i}") for i in range(len(config.hidden_units))]
        self.head = fan_in_dense(width, self.num_outputs * size, dtype="float32", name="head")
        self.unflatten = keras.layers.Reshape((self.num_outputs, *config.input_shape))
        self.build((None, *config.input_shape))

    def build(self, input_shape: Any = None) -> None:
        features = math.prod(self.config.input_shape)
        for block in self.blocks:
            block.build((None, features))
            features = self.width
        self.head.build((None, features))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> dict[str, keras.KerasTensor]:
        mixture = inputs["mixture"] if isinstance(inputs, dict) else inputs
        hidden = self.flatten(mixture)
        for block in self.blocks:
            hidden = block(hidden, training=training)
        masks = keras.ops.softmax(self.unflatten(self.head(hidden)), axis=1)
        return {"outputs": masks * keras.ops.expand_dims(mixture, 1)}

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        mixtures, size = data["mixture"], math.prod(self.config.input_shape)
        neighbours = tf.roll(mixtures, 1, axis=0)
        pairs = tf.reshape(tf.stack([mixtures, neighbours], 1), [-1, 2, size])
        with tf.GradientTape() as tape:
            outputs = self(mixtures + neighbours, training=True)["outputs"]
            loss = tf.reduce_mean(mixit_loss(pairs, tf.reshape(outputs, [-1, self.num_outputs, size])))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self._loss_tracker.update_state(loss)
        return self.get_metrics_result()

    @tf.function(reduce_retracing=True)
    def _outputs(self, mixture: tf.Tensor) -> tf.Tensor:
        return self(mixture)["outputs"]

    def separate(self, mixtures: npt.ArrayLike, batch_size: int = 256) -> npt.NDArray[np.float32]:
        """Separates mixtures into the K strongest of the 2K outputs, which share the mixture among them.

        Args:
            mixtures: `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures a call.

        Returns:
            float32 `[num_mixtures, num_sources, *input_shape]`; the sources of a mixture sum to it.

        Raises:
            DataError: The mixtures' shape or range is wrong.
        """
        mixtures = check_mixtures(mixtures, self.config.input_shape)
        parts = [tf.constant(mixtures[first : first + batch_size]) for first in range(0, len(mixtures), batch_size)]
        outputs = np.concatenate([self._outputs(part).numpy() for part in parts])
        return keep_strongest(outputs, mixtures, self.config.num_sources, np)

    def separated(self, mixtures: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Separates mixtures as `separate` does, through which gradients flow.

        Args:
            mixtures: float32 `[batch, *input_shape]`, >= 0.
            training: Whether the batch's own moments normalise.

        Returns:
            float32 `[batch, num_sources, *input_shape]`.
        """
        return keep_strongest(self(mixtures, training=training)["outputs"], mixtures, self.config.num_sources)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "width": self.width}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "MixIT":
        return cls(**{**config, "config": ModelConfig.from_dict(legacy.upgraded_model(config["config"]))})


def keep_strongest(outputs: Any, mixtures: Any, num_sources: int, ops: types.ModuleType = keras.ops) -> Any:
    """Keeps the outputs with the most energy and shares the mixture among them in proportion to them.

    Args:
        outputs: float32 `[batch, num_outputs, *shape]`, >= 0.
        mixtures: float32 `[batch, *shape]`.
        num_sources: Outputs to keep.
        ops: `numpy` or `keras.ops`.

    Returns:
        float32 `[batch, num_sources, *shape]`, strongest first, of sum `mixtures` over axis 1.
    """
    energy = ops.sum(ops.square(outputs), axis=tuple(range(2, len(outputs.shape))))
    order = ops.argsort(-energy, axis=1)[:, :num_sources]
    order = ops.reshape(order, (-1, num_sources, *[1] * (len(outputs.shape) - 2)))
    return ratio_mask(ops.take_along_axis(outputs, order, axis=1), mixtures, ops=ops)
