"""How the KL weight and the learning rate change over a phase."""

from typing import Any

import keras
import tensorflow as tf

from vae_bss_tf.nn.blocks import PACKAGE
from vae_bss_tf.objectives.base import Schedule
from vae_bss_tf.phases import Phase

_COSINE_WARMUP_STEPS = 200


def kl_weight_schedule(phase: Phase, steps_per_epoch: int, num_steps: int) -> Schedule:
    """Builds the KL weight (beta) as a function of the step.

    "constant": `kl_weight` throughout. "linear": from zero to `kl_weight` over `kl_warmup_epochs`, then constant
    (the paper's). "decay": up as "linear", then linearly to `kl_weight_end` between the shares `kl_decay_start` and
    `kl_decay_end` of the phase.

    Args:
        phase: The phase's settings.
        steps_per_epoch: Steps an epoch; at least 1.
        num_steps: Steps of the whole phase; at least 1.

    Returns:
        From the step in the phase, int32 scalar from 0, to beta, float32 scalar >= 0.
    """
    warmup = 0.0 if phase.kl_schedule == "constant" else phase.kl_warmup_epochs * steps_per_epoch
    start, end = (share * num_steps for share in (phase.kl_decay_start, phase.kl_decay_end))

    def weight(step: tf.Tensor) -> tf.Tensor:
        done = tf.cast(step, tf.float32)
        risen = phase.kl_weight * (tf.minimum(1.0, (done + 1) / warmup) if warmup else 1.0)
        if phase.kl_schedule != "decay":
            return tf.convert_to_tensor(risen, tf.float32)
        decayed = tf.clip_by_value((done - start) / max(end - start, 1e-6), 0.0, 1.0)
        return risen + (phase.kl_weight_end - risen) * decayed

    return weight


def learning_rate_schedule(
    phase: Phase, steps_per_epoch: int, num_steps: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Builds the learning rate that a phase's settings name.

    "cosine" rises linearly over the first 200 steps (a tenth of the phase where that is shorter) and then falls to
    `learning_rate_floor` as a half cosine (Loshchilov and Hutter, ICLR 2017).

    Args:
        phase: The phase's settings.
        steps_per_epoch: Steps an epoch; at least 1.
        num_steps: Steps of the whole phase; at least 1.

    Returns:
        What a Keras optimizer takes.
    """
    if phase.learning_rate_schedule == "constant":
        return phase.learning_rate
    if phase.learning_rate_schedule == "exponential":
        return FlooredExponentialDecay(
            phase.learning_rate, phase.learning_rate_decay, steps_per_epoch, phase.learning_rate_floor
        )
    warmup_steps = min(_COSINE_WARMUP_STEPS, num_steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        max(num_steps - warmup_steps, 1),
        alpha=min(phase.learning_rate_floor / phase.learning_rate, 1.0),
        warmup_target=phase.learning_rate,
        warmup_steps=warmup_steps,
    )


@keras.saving.register_keras_serializable(PACKAGE)
class FlooredExponentialDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplies the learning rate by a factor after each epoch while above a floor (the paper's schedule).

    Args:
        learning_rate: The rate of the first epoch; > 0.
        factor: In (0, 1].
        steps_per_epoch: Steps an epoch; at least 1.
        floor: Least rate; >= 0.

    Example:
        >>> float(FlooredExponentialDecay(2e-4, 0.5, 10, 1e-5)(10))
        9.999999747378752e-05
    """

    def __init__(self, learning_rate: float, factor: float, steps_per_epoch: int, floor: float) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.factor = factor
        self.steps_per_epoch = steps_per_epoch
        self.floor = floor

    def __call__(self, step: Any) -> Any:
        """Returns the rate of a step, counted from 0."""
        epoch = keras.ops.cast(keras.ops.floor_divide(step, self.steps_per_epoch), "float32")
        return keras.ops.maximum(self.learning_rate * keras.ops.power(self.factor, epoch), self.floor)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "factor": self.factor,
            "steps_per_epoch": self.steps_per_epoch,
            "floor": self.floor,
        }
