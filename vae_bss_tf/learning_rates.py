"""Learning rate schedules beyond Keras' own; a compiled model's file holds its schedule and needs the class to load."""

import math
from typing import Any

import keras

from vae_bss_tf.nn.images import PACKAGE


@keras.saving.register_keras_serializable(PACKAGE)
class FlooredExponentialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies the learning rate by a factor after each epoch while above a floor (the paper's schedule).

    Args:
        learning_rate: The rate of the first epoch; > 0.
        factor: In (0, 1].
        steps_per_epoch: Steps an epoch; at least 1.
        floor: Least rate; >= 0.
    """

    def __init__(self, learning_rate: float, factor: float, steps_per_epoch: int, floor: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.factor = factor
        self.steps_per_epoch = steps_per_epoch
        self.floor = floor

    def __call__(self, step: Any) -> Any:
        epoch = keras.ops.cast(keras.ops.floor_divide(step, self.steps_per_epoch), "float32")
        return keras.ops.maximum(self.learning_rate * keras.ops.power(self.factor, epoch), self.floor)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "factor": self.factor,
            "steps_per_epoch": self.steps_per_epoch,
            "floor": self.floor,
        }


@keras.saving.register_keras_serializable(PACKAGE)
class CosineRestart(keras.optimizers.schedules.LearningRateSchedule):
    """Goes over from a cosine decay to another, from a rate of its own to zero (Loshchilov and Hutter, ICLR 2017).

    Args:
        first: The decay before.
        learning_rate: The rate of the first step of the other; > 0.
        start: That step, from 0.
        steps: Steps of the other decay; at least 1.
    """

    def __init__(
        self, first: keras.optimizers.schedules.CosineDecay, learning_rate: float, start: int, steps: int
    ) -> None:
        super().__init__()
        self.first = first
        self.learning_rate = learning_rate
        self.start = start
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        share = keras.ops.cast(step - self.start, "float32") / self.steps
        other = self.learning_rate * 0.5 * (1 + keras.ops.cos(math.pi * keras.ops.clip(share, 0.0, 1.0)))
        return keras.ops.where(share < 0, self.first(step), other)

    def get_config(self) -> dict[str, Any]:
        return {
            "first": keras.saving.serialize_keras_object(self.first),
            "learning_rate": self.learning_rate,
            "start": self.start,
            "steps": self.steps,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CosineRestart":
        return cls(**{**config, "first": keras.saving.deserialize_keras_object(config["first"])})
