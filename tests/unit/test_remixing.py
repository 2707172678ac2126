"""Mixtures made of separated sources, and their likelihood."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.callbacks import Remixing
from vae_bss_tf import MultiSourceVAE, distributions, remixing
from vae_bss_tf.config import ConfigError, ModelConfig, TrainConfig, get_preset

CONFIG = ModelConfig(input_shape=(8, 8), latent_dim=4, hidden_units=(24, 16))


def labelled_sources(batch: int, num_sources: int) -> tf.Tensor:
    """Source k of mixture i holds the number 10 i + k everywhere."""
    labels = 10 * np.arange(batch)[:, None] + np.arange(num_sources)
    return tf.constant(np.broadcast_to(labels[..., None, None], (batch, num_sources, 8, 8)), tf.float32)


@pytest.mark.parametrize("num_sources", [1, 2, 3, 4])
def test_neighbours_exchange_the_sources_of_the_largest_scores(num_sources: int) -> None:
    scores = np.random.default_rng(0).normal(size=(6, num_sources)).astype(np.float32)
    exchanged = remixing.exchange(labelled_sources(6, num_sources), scores).numpy()[..., 0, 0]
    given = max(1, num_sources // 2)
    for i in range(6):
        own, others = np.argsort(-scores[i]), np.argsort(-scores[i ^ 1])
        expected = {*(10 * i + own[given:]), *(10 * (i ^ 1) + others[:given])}
        assert set(exchanged[i]) == expected


def test_the_likelihood_of_known_sources_is_that_of_their_best_order() -> None:
    rng = np.random.default_rng(1)
    estimates = rng.uniform(size=(5, 3, 8, 8)).astype(np.float32)
    sources = rng.uniform(size=(5, 3, 8, 8)).astype(np.float32)
    found = remixing.log_likelihood("laplace", 0.4, estimates, sources).numpy()
    densities = -np.abs(estimates[:, :, None] - sources[:, None]) / 0.4 - np.log(0.8)
    pairs = densities.astype(np.float64).sum((-2, -1))
    expected = [max(sum(pair[k, o[k]] for k in range(3)) for o in itertools.permutations(range(3))) for pair in pairs]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_loss_adds_that_of_the_remixed_mixtures() -> None:
    """With `remixing` the loss is the ELBO's on the mixtures and, weighted, the sources' on the remixed ones."""
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(CONFIG, kl_weight=0.5, remix_weight=0.25, seed=3)
    mixture = np.random.default_rng(2).uniform(size=(4, 8, 8)).astype(np.float32)
    inputs = model._with_remixed({"mixture": mixture})
    assert inputs["mixture"].shape == (8, 8, 8)
    np.testing.assert_array_equal(inputs["mixture"][::2], mixture)
    np.testing.assert_allclose(
        inputs["mixture"][1::2], np.clip(tf.reduce_sum(inputs["remixed_sources"], 1), 0, 1), atol=1e-6
    )
    # What the neighbours have in all is what they had: nothing is lost in an exchange.
    np.testing.assert_allclose(
        tf.reduce_sum(inputs["remixed_sources"], 1).numpy().reshape(2, 2, 8, 8).sum(1),
        mixture.reshape(2, 2, 8, 8).sum(1),
        atol=1e-5,
    )
    outputs = model(inputs, training=False)
    first, second = (
        {name: value[half] for name, value in outputs.items()} for half in (slice(0, None, 2), slice(1, None, 2))
    )
    plain = model.compute_loss(x={"mixture": mixture}, y_pred=first)
    kl = distributions.kl_divergence(
        distributions.latent_posterior(second["latent_mean"], second["latent_log_variance"]),
        distributions.latent_prior("normal", 2, 4),
    )
    fit = remixing.log_likelihood("laplace", CONFIG.likelihood_scale, second["estimates"], inputs["remixed_sources"])
    expected = plain + 0.25 * tf.reduce_mean(0.5 * kl - fit)
    np.testing.assert_allclose(model.compute_loss(x=inputs, y_pred=outputs), expected, rtol=1e-5)


def test_training_begins_to_remix_at_its_epoch() -> None:
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(CONFIG, remix_weight=1.0)
    model.compile(optimizer=keras.optimizers.Adam(), jit_compile=True, steps_per_execution=2)
    mixtures = np.random.default_rng(3).uniform(size=(16, 8, 8)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices({"mixture": mixtures}).batch(4, drop_remainder=True).repeat()
    was: list[bool] = []
    recorder = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: was.append(model.remixing))
    history = model.fit(data, epochs=4, steps_per_epoch=4, callbacks=[Remixing(2), recorder], verbose=0).history
    assert was == [False, False, True, True]
    # The loss then holds a second mixture's for each; the reported terms are those of the real ones alone.
    assert history["loss"][2] > 1.5 * history["loss"][1]
    assert history["elbo"][2] > 1.2 * history["elbo"][0]


@pytest.mark.parametrize("num_sources", [1, 3])
def test_a_remixing_step_of_other_numbers_of_sources(num_sources: int) -> None:
    keras.utils.set_random_seed(0)
    config = CONFIG.replace(num_sources=num_sources, convolutions=(4,), encoder_units=(12,))
    model = MultiSourceVAE(config, remix_weight=1.0)
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.remixing = True
    mixtures = np.random.default_rng(4).uniform(size=(32, 8, 8))  # float64, as numpy gives it
    losses = model.fit(mixtures, batch_size=8, epochs=6, verbose=0).history["loss"]
    assert losses[-1] < 0.98 * losses[0]


def test_a_change_between_two_fits_takes_effect() -> None:
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(CONFIG, remix_weight=1.0)
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    mixtures = np.random.default_rng(5).uniform(size=(16, 8, 8)).astype(np.float32)

    def loss() -> float:
        return model.fit(mixtures, batch_size=8, verbose=0, shuffle=False).history["loss"][0]

    plain = loss()
    model.remixing = True
    assert loss() > 1.5 * plain
    model.remixing = False
    assert loss() < 1.1 * plain


def test_an_odd_batch_cannot_be_paired() -> None:
    model = MultiSourceVAE(CONFIG, remix_weight=1.0)
    with pytest.raises(ConfigError, match="even"):
        model._with_remixed(np.zeros((3, 8, 8), np.float32))


def test_the_weight_reaches_the_model_and_its_file(tmp_path: Path) -> None:
    model = MultiSourceVAE.for_training(CONFIG.replace(convolutions=(4,)), TrainConfig(remix_weight=0.25, seed=5))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert (loaded.remix_weight, loaded.seed, loaded.config.convolutions) == (0.25, 5, (4,))
    mixture = np.random.default_rng(6).uniform(size=(2, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(loaded.separate(mixture), model.separate(mixture))


def test_settings_of_remixing_are_checked() -> None:
    assert TrainConfig(epochs=10).remix_epoch == 10
    assert TrainConfig(epochs=10, remix_weight=1.0, remix_start=0.25).remix_epoch == 3
    assert TrainConfig(epochs=100, remix_weight=1.0, remix_start=0.07).remix_epoch == 7
    with pytest.raises(ConfigError, match="even"):
        TrainConfig(batch_size=33, remix_weight=1.0)
    with pytest.raises(ConfigError, match="remix_start"):
        TrainConfig(remix_start=1.5)
    assert get_preset("mnist-paper").train.remix_weight == 0
