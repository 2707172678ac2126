import keras
import numpy as np
import pytest
from vae_bss_tf.learning_rates import CosineRestart, FlooredExponentialDecay

from training.schedules import KLWeightSchedule, learning_rate_schedule
from vae_bss_tf.phases import Recipe

BASE = Recipe(epochs=10, mixtures_per_epoch=1000, batch_size=10, steps_per_execution=10, kl_weight=0.5)


def weights(**changes):
    schedule = KLWeightSchedule(BASE.replace(**changes))
    return np.array([schedule(step) for step in range(1000)])


def test_constant():
    assert set(weights(kl_schedule="constant")) == {0.5}


def test_linear_is_the_papers_warm_up():
    course = weights(kl_schedule="linear", kl_warmup_epochs=5)
    np.testing.assert_allclose(course[:500], np.arange(1, 501) / 500 * 0.5)
    np.testing.assert_allclose(course[500:], 0.5)


def test_decay_starts_strong_and_relaxes():
    course = weights(kl_schedule="decay", kl_warmup_epochs=0.5, kl_weight_end=0.1, kl_decay_start=0.5, kl_decay_end=0.8)
    np.testing.assert_allclose(course[50:500], 0.5)
    np.testing.assert_allclose(course[650], 0.3)
    np.testing.assert_allclose(course[800:], 0.1)
    assert (np.diff(course[50:]) <= 0).all()


def test_cyclical_rises_in_each_cycle():
    course = weights(kl_schedule="cyclical", kl_cycles=4).reshape(4, 250)
    np.testing.assert_allclose(course, np.broadcast_to(course[0], (4, 250)), atol=1e-12)
    assert course[0, 0] == 0
    np.testing.assert_allclose(course[0, 125:], 0.5)


def test_papers_learning_rate_falls_each_epoch_to_its_floor():
    schedule = FlooredExponentialDecay(2e-4, 0.5, 100, 1e-5)
    rates = [float(schedule(step)) for step in (0, 99, 100, 250, 5000)]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 1e-4, 5e-5, 1e-5], rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential"])
def test_learning_rates_survive_a_saved_optimizer(name):
    rate = learning_rate_schedule(BASE.replace(learning_rate_schedule=name, learning_rate=1e-3))
    optimizer = keras.optimizers.Adam(rate)
    again = keras.optimizers.Adam.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


def test_cosine_warms_up_and_ends_at_zero():
    schedule = learning_rate_schedule(BASE.replace(learning_rate_schedule="cosine", learning_rate=1e-3))
    rates = np.array([float(schedule(step)) for step in range(1001)])
    assert rates.argmax() == 100
    assert rates.max() == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


RESTARTED = {"remix_weight": 1.0, "remix_mask_start": 0.6, "remix_mask_learning_rate": 7e-4}


def test_the_cosine_starts_anew_where_sources_are_judged_masked():
    plain, restarted = (learning_rate_schedule(BASE.replace(**changes)) for changes in ({}, RESTARTED))
    steps = np.arange(1000)
    course = np.array([float(restarted(step)) for step in steps])
    np.testing.assert_array_equal(course[:600], [float(plain(step)) for step in steps[:600]])
    np.testing.assert_allclose(
        course[600:], 7e-4 * 0.5 * (1 + np.cos(np.pi * np.arange(400) / 400)), rtol=1e-5, atol=1e-10
    )
    again = CosineRestart.from_config(restarted.get_config())
    assert float(again(10)) == course[10]
    assert float(again(700)) == course[700]
    slow = learning_rate_schedule(BASE.replace(**RESTARTED, learning_rate=1e-4))
    assert float(slow(600)) == pytest.approx(1e-4)
    assert learning_rate_schedule(BASE.replace(**RESTARTED, learning_rate_schedule="constant")) == BASE.learning_rate
