"""How fast a machine trains each phase of a recipe."""

import time
from typing import TYPE_CHECKING

import keras

from training.recipe import Speed
from training.warm_start import begin_from
from vae_bss_tf.datasets import pipeline

if TYPE_CHECKING:
    from training.trainer import Trainer
    from vae_bss_tf.model import MultiSourceVAE

_MOST_CALLS = 400
_LITTLE = 1e-6


def measured(trainer: "Trainer", source: "MultiSourceVAE | None" = None, seconds: float = 4.0) -> dict[str, Speed]:
    """Trains a few steps of each phase, on a model that is thrown away.

    Of a phase of several rounds the last is measured, whose teacher has a mask network too.

    Args:
        trainer: The trainer of a run whose training has not begun.
        source: The model whose weights the training begins with; None where it begins anew.
        seconds: How long each phase is trained at least, unless it takes 400 calls in less.

    Returns:
        The speed of each phase, by name.
    """
    speeds: dict[str, Speed] = {}
    with trainer.distribution.scope():
        model = trainer.model_for(trainer.plan[0])
        if source is not None:
            begin_from(model, source)
    for planned in {planned.phase.name: planned for planned in trainer.plan}.values():
        phase = planned.phase
        with trainer.distribution.scope():
            model = trainer.model_for(planned, model)
            if planned.round > 1 and phase.objective == "masked_remix":
                _begin_masks(model)
            learner = trainer.learner(planned, model)
        calls = min(phase.steps_per_execution, planned.steps_per_epoch)
        data = pipeline.training_data(trainer.preset, trainer.banks["train"], batch_size=phase.batch_size)
        started = time.perf_counter()
        learner.fit(data, epochs=1, steps_per_epoch=calls, verbose=0, shuffle=False)
        trainer.validate(planned, learner)
        start_up = time.perf_counter() - started
        started = time.perf_counter()
        trainer.validate(planned, learner)
        between_epochs = time.perf_counter() - started
        at_once = max(1, 16 // calls)
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds and done < _MOST_CALLS:
            learner.fit(data, epochs=1, steps_per_epoch=calls * at_once, verbose=0, shuffle=False)
            done += at_once
        mixtures = done * calls * phase.batch_size
        speeds[phase.name] = Speed(mixtures / (time.perf_counter() - started), start_up, between_epochs)
    return speeds


def _begin_masks(model: "MultiSourceVAE") -> None:
    """Makes the mask network one that has begun to learn."""
    assert model.mask_network is not None
    head = model.mask_network.head.kernel
    head.assign(keras.ops.full(head.shape, _LITTLE))
