import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.presets import get_preset
from vae_bss_tf.refinement import search


@pytest.fixture(scope="module")
def mixtures():
    return evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=40).mixtures


def training_data(batch_size=32):
    return training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=batch_size, seed=0)


def num_trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_mnist_paper_has_the_papers_size():
    assert num_trainable(MultiSourceVAE.from_preset("mnist-paper")) == 3_223_464


def test_mums_has_the_papers_size():
    dims = [32768, *get_preset("mums").model.hidden_units]
    latent = get_preset("mums").model.latent_dim
    hidden = sum(a * b + 3 * b for a, b in itertools.pairwise(dims))
    mirrored = sum(a * b + 3 * b for a, b in zip([latent, *dims[:0:-1]], dims[:0:-1], strict=False))
    expected = hidden + (512 + 1) * 2 * 2 * latent + mirrored + (2560 + 1) * 32768
    assert num_trainable(MultiSourceVAE.from_preset("mums")) == expected
    assert expected / 1e6 == pytest.approx(189, abs=0.5)


@pytest.mark.parametrize("likelihood", ["laplace", "normal", "bernoulli"])
@pytest.mark.parametrize("prior", ["normal", "laplace"])
def test_loss_is_the_negative_elbo(tiny_config, mixtures, likelihood, prior):
    model = MultiSourceVAE(tiny_config.replace(likelihood=likelihood, prior=prior), kl_weight=0.3, elbo_kl_weight=0.7)
    model.compile()
    losses = model.evaluate({"mixture": mixtures}, verbose=0, return_dict=True, batch_size=len(mixtures))
    outputs = model({"mixture": mixtures})
    total, scale = outputs["estimates"].numpy().sum(axis=1), tiny_config.likelihood_scale
    clipped = np.clip(total, 1e-6, 1 - 1e-6)
    log_prob = {
        "laplace": -np.abs(mixtures - total) / scale - np.log(2 * scale),
        "normal": -0.5 * ((mixtures - total) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi)),
        "bernoulli": mixtures * np.log(clipped) + (1 - mixtures) * np.log1p(-clipped),
    }[likelihood]
    assert losses["log_likelihood"] == pytest.approx(log_prob.sum(axis=(1, 2)).mean(), rel=1e-4)
    assert losses["loss"] == pytest.approx(0.3 * losses["kl"] - losses["log_likelihood"], rel=1e-5)
    assert losses["elbo"] == pytest.approx(losses["log_likelihood"] - 0.7 * losses["kl"], rel=1e-5)
    if prior == "normal":
        mean, log_variance = outputs["latent_mean"].numpy(), outputs["latent_log_variance"].numpy()
        kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=(1, 2)).mean()
        assert losses["kl"] == pytest.approx(kl, rel=1e-4)


def test_autoencoder_has_no_kl_and_no_noise(tiny_config, mixtures):
    model = MultiSourceVAE(tiny_config.replace(variational=False))
    model.compile()
    assert model.evaluate({"mixture": mixtures}, verbose=0, return_dict=True)["kl"] == 0
    first, second = (model({"mixture": mixtures}, training=True)["estimates"].numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_is_remixed_differs_from_step_to_step_without_noise_too(tiny_config, mixtures):
    model = MultiSourceVAE(tiny_config.replace(variational=False))
    model(mixtures, training=False)
    for step in (1, 2):
        model(mixtures, training=True)
        assert int(model.sampler.step.value) == step


def test_variational_training_samples(tiny_config, mixtures):
    model = MultiSourceVAE(tiny_config)
    first, second = (model({"mixture": mixtures}, training=True)["estimates"].numpy() for _ in range(2))
    assert not np.allclose(first, second)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_fit_lowers_the_loss_compiled_and_in_every_precision(tiny_config, policy):
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(tiny_config, kl_weight=0.05, dtype=policy)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=True, steps_per_execution=4)
    history = model.fit(training_data(), epochs=3, steps_per_epoch=16, verbose=0, shuffle=False).history["loss"]
    assert history[-1] < history[0] - 10
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)


def test_saved_model_is_the_same_model_and_goes_on_training(tiny_config, mixtures, tmp_path):
    model = MultiSourceVAE(tiny_config, kl_weight=0.1, seed=4)
    model.compile(optimizer=keras.optimizers.Adam(1e-3))
    model.fit(training_data(), epochs=1, steps_per_epoch=4, verbose=0, shuffle=False)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for a, b in zip(
        model.predict(mixtures, verbose=0).values(), loaded.predict(mixtures, verbose=0).values(), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    later = [
        m.fit(training_data(), steps_per_epoch=4, verbose=0, shuffle=False).history["loss"] for m in (model, loaded)
    ]
    assert later[0] == later[1]


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


def test_gradient_reaches_every_weight(tiny_config, mixtures):
    model = MultiSourceVAE(tiny_config)
    model.compile()
    with tf.GradientTape() as tape:
        loss = model.compute_loss({"mixture": mixtures}, y_pred=model({"mixture": mixtures}, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)


def test_refinement_explains_the_mixture_better_and_still_sums_to_it(tiny_config, mixtures):
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(tiny_config, kl_weight=0.05, elbo_kl_weight=0.05)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), steps_per_execution=8)
    model.fit(training_data(), epochs=2, steps_per_epoch=32, verbose=0, shuffle=False)

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
    with pytest.raises(ConfigError, match="refine"):
        model.separate(mixtures, refine=-1)
