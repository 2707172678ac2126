"""The protocol of an objective, and the noise of its steps."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import tensorflow as tf

if TYPE_CHECKING:
    from vae_bss_tf.model import MultiSourceVAE

Schedule = Callable[[tf.Tensor], tf.Tensor]
Values = dict[str, tf.Tensor]

_REMIX_SEED = 1 << 20  # added to the seed, for draws of their own


class Objective(Protocol):
    """What one training step minimises, given a model and mixtures. It is no part of the model.

    Attributes:
        metrics: Names of the values that a step reports beside its loss.
        monitor: The metric that says which of two models is better, the higher the better.
    """

    metrics: ClassVar[tuple[str, ...]]
    monitor: ClassVar[str]

    def __call__(self, model: "MultiSourceVAE", mixture: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, Values]:
        """The loss of a training step.

        Args:
            model: The model.
            mixture: float32 `[batch, *input_shape]` in [0, 1], this replica's part.
            step: int32 scalar, the number of the step in its phase, from 0.

        Returns:
            The loss, float32 scalar, the mean over this replica's mixtures; and the metrics, float32 `[n]` each.
        """

    def validate(self, model: "MultiSourceVAE", mixture: tf.Tensor) -> Values:
        """The metrics on held-out mixtures, with nothing drawn at random: float32 `[n]` each."""


class Noise(NamedTuple):
    """Where a phase's random draws come from: each step's are a function of these and the step alone.

    Attributes:
        seed: Seed of the training.
        first_step: Steps of the training before the phase.
    """

    seed: int = 0
    first_step: int = 0

    def latents(self, step: tf.Tensor) -> tf.Tensor:
        """Seed of the latents' noise in a step: int32 `[2]`."""
        return tf.stack([self.seed, tf.cast(step, tf.int32) + self.first_step])

    def remix(self, step: tf.Tensor) -> tf.Tensor:
        """Seed of what is exchanged between mixtures in a step: int32 `[2]`."""
        return tf.stack([self.seed + _REMIX_SEED, tf.cast(step, tf.int32) + self.first_step])
