"""Courses of the KL weight and of the learning rate over a training."""

import keras

from vae_bss_tf.config import TrainConfig
from vae_bss_tf.learning_rates import CosineRestart, FlooredExponentialDecay

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


def learning_rate_schedule(config: TrainConfig) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Builds the learning rate that a training's settings name.

    "cosine" rises linearly over the first 200 steps (a tenth of the training where that is shorter) and then falls
    to zero as a half cosine (Loshchilov and Hutter, ICLR 2017). With `remix_mask_learning_rate` it starts anew from
    that rate, or from `learning_rate` if that is less, where remixed sources begin to be judged masked.

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
        restarted = min(config.remix_mask_learning_rate, config.learning_rate)
        return CosineRestart(decay, restarted, start, total_steps - start)
    return decay
