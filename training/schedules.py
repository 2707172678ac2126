"""Courses of the KL weight and of the learning rate over a training."""

import math
from typing import Any

import keras

from vae_bss_tf.config import TrainConfig
from vae_bss_tf.layers import PACKAGE

_COSINE_WARMUP_STEPS = 200


class KLWeightSchedule:
    """The KL weight (beta) of each step.

    "constant": `kl_weight` throughout. "linear": from zero to `kl_weight` over `kl_warmup_epochs`, then constant
    (the paper's). "cyclical": `kl_cycles` times from zero to `kl_weight` over half a cycle, constant over the other
    half (Fu et al., NAACL 2019). "decay": up as "linear", then linearly to `kl_weight_end` between the shares
    `kl_decay_start` and `kl_decay_end` of the training.

    Args:
        config: The training's settings.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.total_steps = config.epochs * config.steps_per_epoch

    def __call__(self, step: int) -> float:
        """Returns the weight of a step.

        Args:
            step: Number of steps done before, from 0.

        Returns:
            Beta, >= 0.
        """
        config = self.config
        if config.kl_schedule == "constant":
            return config.kl_weight
        if config.kl_schedule == "cyclical":
            phase = step * config.kl_cycles / self.total_steps % 1.0
            return config.kl_weight * min(1.0, 2 * phase)
        warmup_steps = config.kl_warmup_epochs * config.steps_per_epoch
        risen = config.kl_weight * (min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0)
        if config.kl_schedule == "linear":
            return risen
        start, end = (share * self.total_steps for share in (config.kl_decay_start, config.kl_decay_end))
        if step < start:
            return risen
        decayed = min(1.0, (step - start) / (end - start)) if end > start else 1.0
        return risen + (config.kl_weight_end - risen) * decayed


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


def learning_rate_schedule(config: TrainConfig) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Builds the learning rate that a training's settings name.

    "cosine" rises linearly over the first 200 steps (a tenth of the training where that is shorter) and then falls
    to zero as a half cosine (Loshchilov and Hutter, ICLR 2017). With `remix_mask_learning_rate` it starts anew from
    that rate where remixed sources begin to be judged masked.

    Args:
        config: The training's settings.

    Returns:
        What a Keras optimizer takes.
    """
    if config.learning_rate_schedule == "constant":
        return config.learning_rate
    if config.learning_rate_schedule == "exponential":
        return FlooredExponentialDecay(
            config.learning_rate, config.learning_rate_decay, config.steps_per_epoch, config.learning_rate_floor
        )
    total_steps = config.epochs * config.steps_per_epoch
    warmup_steps = min(_COSINE_WARMUP_STEPS, total_steps // 10)
    decay = keras.optimizers.schedules.CosineDecay(
        0.0, total_steps - warmup_steps, warmup_target=config.learning_rate, warmup_steps=warmup_steps
    )
    start = config.remix_mask_epoch * config.steps_per_epoch
    if config.remix_mask_learning_rate and start < total_steps:
        return CosineRestart(decay, config.remix_mask_learning_rate, start, total_steps - start)
    return decay
