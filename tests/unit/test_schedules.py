import keras
import numpy as np
import pytest

from training.schedules import FlooredExponentialDecay, kl_weight_schedule, learning_rate_schedule
from vae_bss_tf.phases import Phase

EPOCHS, STEPS = 10, 100  # in the phase, in an epoch


def weights(**changes):
    schedule = kl_weight_schedule(Phase(kl_weight=0.5, **changes), STEPS, EPOCHS * STEPS)
    return np.array([schedule(np.int32(step)) for step in range(EPOCHS * STEPS)])


def rate(**changes):
    return learning_rate_schedule(Phase(learning_rate=1e-3, **changes), STEPS, EPOCHS * STEPS)


def test_constant():
    assert set(weights(kl_schedule="constant", kl_warmup_epochs=3)) == {0.5}


def test_linear_is_the_papers_warm_up():
    found = weights(kl_schedule="linear", kl_warmup_epochs=5)
    np.testing.assert_allclose(found[:500], np.arange(1, 501) / 500 * 0.5, rtol=1e-6)
    np.testing.assert_allclose(found[500:], 0.5)


def test_decay_starts_strong_and_relaxes():
    found = weights(kl_schedule="decay", kl_warmup_epochs=0.5, kl_weight_end=0.1, kl_decay_start=0.5, kl_decay_end=0.8)
    np.testing.assert_allclose(found[50:500], 0.5)
    np.testing.assert_allclose(found[650], 0.3, rtol=1e-6)
    np.testing.assert_allclose(found[800:], 0.1, rtol=1e-6)
    assert (np.diff(found[50:]) <= 0).all()


def test_papers_learning_rate_falls_each_epoch_to_its_floor():
    schedule = FlooredExponentialDecay(2e-4, 0.5, 100, 1e-5)
    rates = [float(schedule(step)) for step in (0, 99, 100, 250, 5000)]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 1e-4, 5e-5, 1e-5], rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "cosine", "exponential"])
def test_learning_rates_survive_a_saved_optimizer(name):
    optimizer = keras.optimizers.Adam(rate(learning_rate_schedule=name))
    again = keras.optimizers.Adam.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("floor", [0.0, 7e-4])
def test_cosine_warms_up_and_ends_at_its_floor(floor):
    schedule = rate(learning_rate_schedule="cosine", learning_rate_floor=floor)
    rates = np.array([float(schedule(step)) for step in range(1001)])
    assert rates.argmax() == 100
    assert rates.max() == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(floor, abs=1e-9)
    assert (np.diff(rates[100:]) <= 0).all()
