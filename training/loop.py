"""Keras' `fit` for several hosts.

Keras 3 hands what several workers hold to its models as one tensor, and fails (keras issue 20585). This loop runs the
learner's own step on every replica and calls the same callbacks at the same times.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from training.cluster import losses_told
from training.learner import Learner


def fit(
    learner: Learner,
    data: tf.data.Dataset,
    *,
    epochs: int,
    initial_epoch: int,
    steps_per_epoch: int,
    validation_data: tf.data.Dataset,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Trains a learner under its strategy, as `fit` does with the same arguments.

    Every worker draws all batches and takes its own part of each, so that together they see what one process would.
    XLA is not used.

    Args:
        learner: What is trained, compiled under the strategy.
        data: Endless batches of all replicas together.
        epochs: Index of the last epoch, plus one.
        initial_epoch: Index of the first one.
        steps_per_epoch: Batches an epoch.
        validation_data: Batches of held-out mixtures of one size.
        callbacks: Keras callbacks; every worker calls its own, with the same values.

    Raises:
        JobError: A worker was lost.
    """
    strategy = learner.distribute_strategy
    metrics = learner.objective.metrics
    train = _means(strategy, learner.descend, ("loss", *metrics))
    validate = _means(strategy, lambda mixture: learner.objective.validate(learner.separator, mixture), metrics)
    batches, held_out = (_distributed(strategy, found) for found in (data, validation_data.repeat()))
    validation_steps = int(validation_data.cardinality())
    told = keras.callbacks.CallbackList(
        list(callbacks), model=learner, epochs=epochs, steps=steps_per_epoch, verbose=0, add_history=False
    )
    with losses_told():
        learner.stop_training = False
        told.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            told.on_epoch_begin(epoch)
            logs = _trained(learner, train, batches, steps_per_epoch, told)
            scores = validate(batches=held_out, steps=validation_steps)
            logs |= {f"val_{name}": value / validation_steps for name, value in scores.items()}
            told.on_epoch_end(epoch, logs)
            if learner.stop_training:
                break
        told.on_train_end()


Means = Callable[..., dict[str, float]]


def _trained(
    learner: Learner, train: Means, batches: Any, steps: int, told: keras.callbacks.CallbackList
) -> dict[str, float]:
    """Trains an epoch and returns the means of the loss and the metrics."""
    totals: dict[str, float] = {}
    done = 0
    while done < steps and not learner.stop_training:
        count = min(learner.steps_per_execution, steps - done)
        told.on_train_batch_begin(done)
        for name, value in train(batches=batches, steps=count).items():
            totals[name] = totals.get(name, 0.0) + value
        done += count
        told.on_train_batch_end(done - 1, {name: value / done for name, value in totals.items()})
    return {name: value / done for name, value in totals.items()}


def _means(
    strategy: tf.distribute.Strategy, step: Callable[[tf.Tensor], dict[str, tf.Tensor]], names: Sequence[str]
) -> Means:
    """Makes a function that runs a step on several batches and returns the sums of its means over all replicas."""

    def on_replica(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        values = step(batch["mixture"])
        return tf.stack([tf.reduce_mean(tf.cast(values[name], tf.float32)) for name in names])

    @tf.function
    def several(batches: Any, steps: tf.Tensor) -> tf.Tensor:
        totals = tf.zeros(len(names))
        for _ in tf.range(steps):
            of_replicas = strategy.run(on_replica, args=(next(batches),))
            totals += strategy.reduce(tf.distribute.ReduceOp.MEAN, of_replicas, axis=None)
        return totals

    def run(batches: Any, steps: int) -> dict[str, float]:
        return dict(zip(names, map(float, several(batches, tf.constant(steps)).numpy()), strict=True))

    return run


def _distributed(strategy: tf.distribute.Strategy, data: tf.data.Dataset) -> Any:
    """An iterator over every replica's part of each batch, in the order of the replicas."""

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = context.num_replicas_in_sync // context.num_input_pipelines

        def part(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            mixture = batch["mixture"]
            each = mixture.shape[0] // context.num_replicas_in_sync
            first = context.input_pipeline_id * local * each
            own = mixture[first : first + local * each]
            return {"mixture": tf.reshape(own, [local, each, *mixture.shape[1:]])}

        return data.map(part).unbatch()

    return iter(strategy.distribute_datasets_from_function(of_worker))
