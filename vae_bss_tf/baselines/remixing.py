"""RemixIT and Self-Remixing: a separator that learns from mixtures of its teacher's separated sources.

A teacher separates a batch of mixtures, its sources are shuffled within the batch and added up again, and a student
separates these new mixtures:

- RemixIT (Tzinis, Adi, Ithapu, Xu, Smaragdis, Kumar 2022): the student's estimates should be the teacher's sources.
- Self-Remixing (Saijo, Ogawa 2022): the student's estimates, sorted back to where they came from and added up, should
  be the original mixtures, which are known, and not only as good as the teacher.

Both begin with a trained `MixIT` network as the teacher and as the student, and the teacher follows as the moving
average of the student's weights. Mixtures add up as MixIT adds them: pixels and, of sound, compressed magnitudes.
"""

import itertools
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vae_bss_tf.baselines.mixit import SNR_MAX_DB, MixIT
from vae_bss_tf.nn.sampling import replica_noise

TEACHER_STEPS = 50  # that the teacher averages the student over; of 50, 200 and 1,000 the best on training mixtures

_SILENT_SHARE = 1e-3  # of its mixture's energy, which the error of a silent source is relative to
_SILENCE = 1e-8


def shuffled_rows(scores: tf.Tensor, num_sources: int) -> tf.Tensor:
    """Draws which mixtures the sources of new mixtures come from.

    No two sources of a new mixture come from the same one, as long as there are as many mixtures as sources.

    Args:
        scores: float32 `[batch]`, random.
        num_sources: K.

    Returns:
        int32 `[batch, num_sources]`; source k of new mixture i is source k of mixture `rows[i, k]`. Each column is a
        permutation.
    """
    order = tf.argsort(scores)
    places = tf.argsort(order)
    batch = tf.shape(scores)[0]
    return tf.stack([tf.gather(order, (places + k) % batch) for k in range(num_sources)], axis=1)


def shuffled(sources: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Moves sources to other mixtures.

    Args:
        sources: float32 `[batch, num_sources, *shape]`.
        rows: As `shuffled_rows` gives them.

    Returns:
        float32 of the same shape, the sources of the new mixtures.
    """
    return tf.stack([tf.gather(sources[:, k], rows[:, k]) for k in range(sources.shape[1])], axis=1)


def sorted_back(sources: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Undoes `shuffled`.

    Args:
        sources: float32 `[batch, num_sources, *shape]`.
        rows: As `shuffled` took them.

    Returns:
        float32 of the same shape.
    """
    return shuffled(sources, tf.argsort(rows, axis=0))


def negative_snr(estimates: tf.Tensor, sources: tf.Tensor) -> tf.Tensor:
    """Negative thresholded SNR of each estimate against each source, as MixIT's loss has it.

    Args:
        estimates: float32 `[batch, num_estimates, size]`.
        sources: float32 `[batch, num_sources, size]`.

    Returns:
        float32 `[batch, num_estimates, num_sources]`, dB, at least -30.
    """
    energies = tf.reduce_sum(tf.square(sources), axis=2)
    silent = _SILENT_SHARE * tf.reduce_sum(energies, axis=1, keepdims=True) + _SILENCE
    energies = tf.maximum(energies, silent)[:, tf.newaxis]
    errors = tf.reduce_sum(tf.square(estimates[:, :, tf.newaxis] - sources[:, tf.newaxis]), axis=3)
    return 10 / math.log(10) * tf.math.log(errors / energies + 10 ** (-SNR_MAX_DB / 10))


def best_order(losses: tf.Tensor) -> tf.Tensor:
    """The order of the estimates that has the least total loss.

    Args:
        losses: float32 `[batch, num_sources (estimates), num_sources (sources)]`.

    Returns:
        int32 `[batch, num_sources]`, the estimate for each source.
    """
    num_sources = losses.shape[1]
    orders = np.array(list(itertools.permutations(range(num_sources))), np.int32)
    totals = [tf.add_n([losses[:, order[k], k] for k in range(num_sources)]) for order in orders]
    return tf.gather(tf.constant(orders), tf.argmin(tf.stack(totals, axis=1), axis=1))


class Remixing(keras.Model):
    """What RemixIT and Self-Remixing share: the teacher, the shuffle, and the student's step.

    `fit` takes a data set of `{"mixture": float32 [batch, *input_shape]}` and trains the student in place.

    Args:
        student: A trained separator, which the teacher is a copy of.
        seed: Seed of the shuffles; each is a function of it and of the step.
    """

    def __init__(self, student: MixIT, seed: int = 0) -> None:
        super().__init__()
        self.student = student
        self.teacher = MixIT.from_config(student.get_config())
        self.teacher.set_weights(student.get_weights())
        self.teacher.trainable = False
        self.seed = seed
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.student(inputs, training=training)

    def loss_of(self, mixtures: tf.Tensor, scores: tf.Tensor, training: bool) -> tf.Tensor:
        """The loss of a batch.

        Args:
            mixtures: float32 `[batch, *input_shape]`.
            scores: float32 `[batch]`, random: what `shuffled_rows` shuffles by.
            training: Whether the batch's own moments normalise the student.

        Returns:
            float32 scalar, dB, the mean.
        """
        taught = tf.stop_gradient(self.teacher.separated(mixtures))
        rows = shuffled_rows(scores, taught.shape[1])
        sources = shuffled(taught, rows)
        estimates = self.student.separated(tf.reduce_sum(sources, axis=1), training=training)
        losses = negative_snr(_flat(estimates), _flat(sources))
        order = best_order(losses)
        losses, estimates = (tf.gather(values, order, batch_dims=1) for values in (losses, estimates))
        return tf.reduce_mean(self.misfit(losses, estimates, mixtures, rows))

    def misfit(self, losses: tf.Tensor, estimates: tf.Tensor, mixtures: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """What the student's estimates lack.

        Args:
            losses: float32 `[batch, num_sources (estimates), num_sources (sources)]`, negative SNR, dB.
            estimates: float32 `[batch, num_sources, *input_shape]`, in the order of the shuffled sources.
            mixtures: float32 `[batch, *input_shape]`, the original ones.
            rows: As `shuffled_rows` gives them.

        Returns:
            float32 `[batch, ...]`, dB.
        """
        raise NotImplementedError

    def train_step(self, data: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        mixtures = data["mixture"]
        step = tf.cast(self.optimizer.iterations.value, tf.int32)
        scores = replica_noise(tf.shape(mixtures)[0], (), tf.stack([self.seed, step]))
        variables = self.student.trainable_variables
        with tf.GradientTape() as tape:
            loss = self.loss_of(mixtures, scores, training=True)
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        for taught, learned in zip(self.teacher.weights, self.student.weights, strict=True):
            taught.assign_add((learned - taught) / TEACHER_STEPS)
        self._loss_tracker.update_state(loss)
        return self.get_metrics_result()


class RemixIT(Remixing):
    """The student's estimates should be the teacher's sources; see `Remixing`."""

    def misfit(self, losses: tf.Tensor, estimates: tf.Tensor, mixtures: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        return tf.linalg.diag_part(losses)


class SelfRemixing(Remixing):
    """The student's estimates, sorted back and added up, should be the original mixtures; see `Remixing`."""

    def misfit(self, losses: tf.Tensor, estimates: tf.Tensor, mixtures: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        remixed = tf.reduce_sum(sorted_back(estimates, rows), axis=1, keepdims=True)
        return negative_snr(_flat(remixed), _flat(mixtures[:, tf.newaxis]))


def _flat(signals: tf.Tensor) -> tf.Tensor:
    """`[batch, num_signals, *shape]` as `[batch, num_signals, size]`."""
    return tf.reshape(signals, [-1, signals.shape[1], math.prod(signals.shape[2:])])
