"""RemixIT and Self-Remixing: the shuffle, the losses of separators that are known, and what is trained."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.fit import completed
from vae_bss_tf import baselines
from vae_bss_tf.baselines.remixing import (
    TEACHER_STEPS,
    Remixing,
    RemixIT,
    SelfRemixing,
    best_order,
    negative_snr,
    shuffled,
    shuffled_rows,
    sorted_back,
)
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.presets import get_preset

CONFIG = ModelConfig(input_shape=(4, 4), num_sources=2, latent_dim=4, hidden_units=(16, 12))
LIMIT = -30.0  # dB, of a perfect estimate


class Halves:
    """Separates the upper from the lower half of a picture: the truth where the sources are such halves."""

    def __init__(self, swapped: bool = False) -> None:
        self.swapped = swapped

    def separated(self, mixtures: tf.Tensor, training: bool = False) -> tf.Tensor:
        upper = tf.reshape(tf.constant([1.0, 1.0, 0.0, 0.0]), [1, 4, 1])
        halves = [mixtures * upper, mixtures * (1 - upper)]
        return tf.stack(halves[::-1] if self.swapped else halves, axis=1)


class Shared:
    """Gives each output half of the mixture."""

    def separated(self, mixtures: tf.Tensor, training: bool = False) -> tf.Tensor:
        return tf.stack([mixtures / 2, mixtures / 2], axis=1)


def of(kind: type[Remixing], teacher: object, student: object) -> Remixing:
    made = kind(baselines.build("remixit", CONFIG))
    made.teacher, made.student = teacher, student
    return made


def batch(number: int = 8) -> tuple[tf.Tensor, tf.Tensor]:
    rng = np.random.default_rng(0)
    return tf.constant(rng.uniform(0.1, 1, (number, 4, 4)), tf.float32), tf.constant(
        rng.normal(size=number), tf.float32
    )


@pytest.mark.parametrize(("number", "num_sources"), [(8, 2), (7, 3), (4, 4)])
def test_sources_are_shuffled_between_different_mixtures_and_sorted_back(number: int, num_sources: int) -> None:
    rows = shuffled_rows(tf.random.stateless_normal([number], (1, 2)), num_sources)
    for column in rows.numpy().T:
        assert sorted(column) == list(range(number))
    for row in rows.numpy():
        assert len(set(row)) == num_sources
    sources = tf.random.stateless_uniform([number, num_sources, 3], (3, 4))
    moved = shuffled(sources, rows)
    assert np.array_equal(moved[2, 1], sources[rows[2, 1], 1])
    assert not np.array_equal(moved, sources)
    assert np.array_equal(sorted_back(moved, rows), sources)


def test_the_order_of_the_least_loss_is_found() -> None:
    losses = np.random.default_rng(1).normal(size=(5, 3, 3)).astype(np.float32)
    orders = list(itertools.permutations(range(3)))
    for loss, order in zip(losses, best_order(tf.constant(losses)).numpy(), strict=True):
        totals = [sum(loss[estimate, source] for source, estimate in enumerate(found)) for found in orders]
        assert tuple(order) == orders[int(np.argmin(totals))]


def test_the_snr_of_known_estimates() -> None:
    source = np.ones((1, 1, 10), np.float32)
    estimates = np.concatenate([source, 0 * source, 1.1 * source], axis=1)
    found = negative_snr(tf.constant(estimates), tf.constant(source)).numpy()[0, :, 0]
    np.testing.assert_allclose(found, [LIMIT, 10 * np.log10(1.001), 10 * np.log10(0.011)], atol=1e-3)
    silent = negative_snr(tf.constant(estimates), tf.constant(np.concatenate([source, 0 * source], axis=1))).numpy()
    assert np.isfinite(silent).all()
    assert silent[0, 1, 1] == pytest.approx(LIMIT, abs=1e-3)  # silence found as silence


@pytest.mark.parametrize("kind", [RemixIT, SelfRemixing])
def test_the_true_separator_has_the_least_loss_in_any_order(kind: type[Remixing]) -> None:
    mixtures, scores = batch()
    for swapped in (False, True):
        loss = of(kind, Halves(), Halves(swapped)).loss_of(mixtures, scores, training=False)
        assert float(loss) == pytest.approx(LIMIT, abs=1e-3)


def test_a_student_that_shares_everything_equally_is_far_from_it() -> None:
    mixtures, scores = batch()
    losses = [float(of(kind, Halves(), Shared()).loss_of(mixtures, scores, False)) for kind in (RemixIT, SelfRemixing)]
    assert min(losses) > LIMIT + 15


def test_self_remixing_asks_for_the_mixture_and_remixit_for_the_teachers_sources() -> None:
    """A teacher without a clue makes sources that are no sources; only RemixIT takes them for the truth."""
    mixtures, scores = batch()
    taught, own = (
        float(of(kind, Shared(), Halves()).loss_of(mixtures, scores, False)) for kind in (RemixIT, SelfRemixing)
    )
    rows = shuffled_rows(scores, 2).numpy()
    halves = np.asarray(mixtures) / 2
    new = halves[rows[:, 0]] + halves[rows[:, 1]]
    upper = np.array([1.0, 1.0, 0.0, 0.0])[:, np.newaxis]
    parts = np.stack([new * upper, new * (1 - upper)], axis=1).astype(np.float32)
    targets = np.stack([halves[rows[:, k]] for k in range(2)], axis=1).reshape(8, 2, -1)
    pairs = negative_snr(tf.constant(parts.reshape(8, 2, -1)), tf.constant(targets)).numpy()
    orders = [pairs[:, [0, 1], [0, 1]], pairs[:, [1, 0], [0, 1]]]
    assert taught == pytest.approx(np.minimum(*(order.mean(axis=1) for order in orders)).mean(), abs=1e-4)
    assert own != pytest.approx(taught, abs=0.1)


@pytest.mark.parametrize("system", ["remixit", "self-remixing"])
def test_only_the_student_is_trained_and_the_teacher_follows_slowly(system: str) -> None:
    keras.utils.set_random_seed(0)
    student = baselines.build(system, CONFIG)
    learner = baselines.learner(baselines.OBJECTIVES[system][1], student)
    assert {id(v) for v in learner.trainable_variables} == {id(v) for v in student.trainable_variables}
    learner.compile(keras.optimizers.Adam(1e-2), jit_compile=system == "remixit", steps_per_execution=2)
    before = student.get_weights()
    mixtures = np.random.default_rng(0).uniform(size=(64, 4, 4)).astype(np.float32)
    data = tf.data.Dataset.from_tensors({"mixture": mixtures}).repeat()
    learner.fit(data, epochs=1, steps_per_epoch=2, verbose=0)
    moved, followed = (
        np.concatenate([np.ravel(now - old) for now, old in zip(model.get_weights(), before, strict=True)])
        for model in (student, learner.teacher)
    )
    assert np.abs(moved).max() > 1e-3
    assert 0 < np.abs(followed).max() < 3 / TEACHER_STEPS * np.abs(moved).max()
    np.testing.assert_array_equal(learner.student.separate(mixtures), student.separate(mixtures))


@pytest.mark.parametrize("system", ["remixit", "self-remixing"])
def test_their_recipe_is_mixit_and_then_the_remixing(system: str) -> None:
    phases = completed(get_preset("digits"), system).recipe.phases
    assert [phase.objective for phase in phases] == ["own", system.replace("-", "_")]
