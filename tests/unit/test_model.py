import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from training.learner import Learner
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.objectives import Elbo
from vae_bss_tf.presets import get_preset
from vae_bss_tf.refinement import search


@pytest.fixture(scope="module")
def mixtures():
    return evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=40).mixtures


def trained(model, kl_weight=0.1):
    learner = Learner(model, Elbo(lambda step: tf.constant(kl_weight)), ("encoder", "decoder"))
    learner.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=32, seed=0)
    learner.fit(data, epochs=1, steps_per_epoch=64, verbose=0, shuffle=False)


def test_mnist_paper_has_the_papers_size():
    assert MultiSourceVAE.from_preset("mnist-paper").num_parameters == 3_223_464


def test_mums_has_the_papers_size():
    dims = [32768, *get_preset("mums").model.hidden_units]
    latent = get_preset("mums").model.latent_dim
    hidden = sum(a * b + 3 * b for a, b in itertools.pairwise(dims))
    mirrored = sum(a * b + 3 * b for a, b in zip([latent, *dims[:0:-1]], dims[:0:-1], strict=False))
    expected = hidden + (512 + 1) * 2 * 2 * latent + mirrored + (2560 + 1) * 32768
    with tf.Graph().as_default():  # its weights are described, and not drawn
        assert MultiSourceVAE.from_preset("mums").num_parameters == expected
    assert expected / 1e6 == pytest.approx(189, abs=0.5)


def test_saved_model_is_the_same_model(tiny_config, mixtures, tmp_path):
    model = MultiSourceVAE(tiny_config, prior_weight=0.3)
    trained(model)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert (loaded.config, loaded.prior_weight) == (tiny_config, 0.3)
    for a, b in zip(
        model.predict(mixtures, verbose=0).values(), loaded.predict(mixtures, verbose=0).values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_the_model_is_a_function_of_its_inputs(tiny_config, mixtures):
    """Nothing is drawn at random, and nothing but the moments of batch normalisation is kept from a call."""
    model = MultiSourceVAE(tiny_config)
    weights = [weight.copy() for weight in model.get_weights()]
    first, second = (model({"mixture": mixtures}) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
    for weight, before in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_separate_masks_and_takes_one_or_many(tiny_config, mixtures):
    model = MultiSourceVAE(tiny_config)
    sources = model.separate(mixtures)
    assert sources.shape == (40, 3, 8, 8)
    np.testing.assert_allclose(sources.sum(axis=1), mixtures, atol=1e-6)
    np.testing.assert_allclose(model.separate(mixtures[7]), sources[7], atol=1e-6)
    np.testing.assert_array_equal(model.separate(np.zeros((8, 8))), np.zeros((3, 8, 8)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 9, 8)), "shape"),
        (np.zeros((2, 3, 8, 8)), "shape"),
        (np.zeros((0, 8, 8)), "no mixtures"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.full((8, 8), 255.0), "scale"),
        (np.full((8, 8), -0.1), "scale"),
    ],
)
def test_separate_refuses_what_it_cannot_separate(tiny_config, bad, message):
    with pytest.raises(DataError, match=message):
        MultiSourceVAE(tiny_config).separate(bad)


def test_presets_are_checked():
    assert MultiSourceVAE.from_preset("digits", num_sources=3).config.num_sources == 3
    with pytest.raises(ConfigError, match="digits"):
        MultiSourceVAE.from_preset("digit")
    with pytest.raises(ConfigError, match="num_sources"):
        MultiSourceVAE.from_preset("digits", num_sources=0)


def test_refinement_explains_the_mixture_better_and_still_sums_to_it(tiny_config, mixtures):
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(tiny_config, prior_weight=0.05)
    trained(model, kl_weight=0.05)

    def objective(latents):
        estimate = model.decode(latents).numpy().sum(axis=1)
        misfit = np.abs(mixtures - estimate).sum(axis=(1, 2)) / tiny_config.likelihood_scale
        return misfit + 0.05 * 0.5 * (np.asarray(latents) ** 2).sum(axis=(1, 2))

    start = model.encode(mixtures)[0]
    found = search(
        lambda latents: (
            tf.reduce_sum(tf.abs(mixtures - tf.reduce_sum(model.decode(latents), 1)), [1, 2])
            / tiny_config.likelihood_scale
            + 0.05 * 0.5 * tf.reduce_sum(latents**2, [1, 2])
        ),
        start,
        tf.constant(50.0),
        0.05,
    )
    assert np.mean(objective(found) < objective(start)) > 0.95
    refined = model.separate(mixtures, refine=50)
    np.testing.assert_allclose(refined.sum(axis=1), mixtures, atol=1e-6)
    np.testing.assert_allclose(refined, model.mask(model.decode(found), mixtures), atol=2e-3)
    for options in ({"refine": -1}, {"batch_size": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            model.separate(mixtures, **options)
