"""The models of the quality studies: each changes what it says, trains, and is the same when reloaded."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import quality, quality_variants
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.model import MultiSourceVAE

TRAINING = quality.preset_of("dense-capacity-6", seed=0).train
STEPS = TRAINING.epochs * TRAINING.steps_per_epoch
CONFIG = ModelConfig(latent_dim=6, hidden_units=(16, 16))
MIXTURES = np.random.default_rng(0).uniform(size=(16, 28, 28)).astype(np.float32)


def _variant(name: str) -> MultiSourceVAE:
    keras.utils.set_random_seed(0)
    return quality_variants.VARIANTS[name](CONFIG, kl_weight=0.5)


@pytest.mark.parametrize("name", quality_variants.VARIANTS)
def test_a_variant_learns_and_is_the_same_when_reloaded(name: str, tmp_path: Path) -> None:
    model = _variant(name)
    model.compile(optimizer=keras.optimizers.Adam(3e-3))
    data = tf.data.Dataset.from_tensors({"mixture": MIXTURES}).repeat()
    losses = model.fit(data, steps_per_epoch=20, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    model.save(tmp_path / "model.keras")
    reloaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert type(reloaded) is type(model)
    np.testing.assert_allclose(reloaded(MIXTURES)["sources"], model(MIXTURES)["sources"], atol=1e-6)
    np.testing.assert_allclose(model.separate(MIXTURES[:1], refine=1).sum(axis=1), MIXTURES[:1], atol=1e-5)


def test_kl_terms() -> None:
    kl = tf.constant([[2.0, 11.0], [7.0, 8.0]])
    np.testing.assert_allclose(_variant("FreeBits").kl_term(kl), [0.5 * (5 + 11), 0.5 * (7 + 8)])
    capacity = _variant("CapacityTarget")
    capacity.sampler.step.assign(STEPS // 2)  # the target stands at half of 30 nats
    np.testing.assert_allclose(capacity.kl_term(kl), [0.5 * 2, 0.0], atol=1e-6)


def test_a_closed_dimension_says_nothing_until_it_opens() -> None:
    model = _variant("WideningLatent")
    latents = np.zeros((1, 2, 6), np.float32)
    changed = latents + np.float32([0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(model.decode(latents), model.decode(changed))
    mean, log_variance = model.encode(MIXTURES)
    assert not np.any(mean[..., 4:])
    assert not np.any(log_variance[..., 4:])  # the prior's own: no KL
    model.sampler.step.assign(STEPS // 2)
    assert not np.allclose(model.decode(latents), model.decode(changed))


def test_improved_latents_have_a_better_objective() -> None:
    model = _variant("SemiAmortised")
    mean, _ = model.encode(MIXTURES)
    improved = model._improved(MIXTURES, mean)

    def objective(latents: tf.Tensor) -> np.ndarray:
        residual = tf.reduce_sum(model.decode(latents), 1) - MIXTURES
        fit = tf.reduce_sum(tf.abs(residual), (1, 2)) / CONFIG.likelihood_scale
        return (fit + 0.25 * tf.reduce_sum(tf.square(latents), (1, 2))).numpy()

    assert np.all(objective(improved) < objective(mean))


def test_initialisation_is_that_of_keras() -> None:
    kernels = [weight for weight in _variant("KerasInitialisation").encoder.weights if weight.name == "kernel"]
    for kernel in kernels:
        assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / sum(kernel.shape)), rel=0.05)


@pytest.mark.parametrize(("steps", "averaged"), [(4, True), (3, False)])
def test_weights_become_their_average_at_the_end_of_an_epoch(
    steps: int, averaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality_variants, "_AVERAGED_STEPS", 4)
    model = _variant("WeightAverage")
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    equal = []

    def compare(*_: Any) -> None:  # `fit` averages at its own end, too
        averages = model.optimizer._model_variables_moving_average
        equal.append(all(np.array_equal(*pair) for pair in zip(model.trainable_variables, averages, strict=True)))

    data = tf.data.Dataset.from_tensors({"mixture": MIXTURES}).repeat()
    model.fit(data, steps_per_epoch=steps, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=compare)])
    assert equal == [averaged]


def test_the_scale_is_learned() -> None:
    model = _variant("LearnedScale")
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(tf.data.Dataset.from_tensors({"mixture": MIXTURES}).repeat(), steps_per_epoch=10, verbose=0)
    residual = float(np.abs(model(MIXTURES)["estimates"].numpy().sum(1) - MIXTURES).mean())
    start, learned = CONFIG.likelihood_scale, float(model.likelihood_scale())
    assert abs(learned - residual) < abs(start - residual)  # the best scale of a Laplace is the mean absolute error


def test_every_study_has_settings_and_a_model() -> None:
    for name, study in quality.STUDIES.items():
        assert quality.preset_of(name, seed=3).train.seed == 3
        assert study.variant is None or study.variant in quality_variants.VARIANTS
        if study.begun_from is not None:
            base = quality.preset_of(study.begun_from, seed=3)
            without = {"corrector_convolutions": (), "corrector_units": ()}
            without |= {"corrector_iterations": 1, "corrector_training_iterations": 1, "mask_channels": ()}
            ours, theirs = (part.model.replace(**without) for part in (quality.preset_of(name, seed=3), base))
            assert ours.num_sources >= theirs.num_sources
            assert ours.replace(num_sources=theirs.num_sources) == theirs
