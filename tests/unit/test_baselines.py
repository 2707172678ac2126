"""Baselines: losses against brute force, saved and loaded models, what they can separate, bad input."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vae_bss_tf import baselines, metrics
from vae_bss_tf.baselines import oracle
from vae_bss_tf.baselines.glo import GLO
from vae_bss_tf.baselines.mixit import assignments, hidden_width, keep_strongest, mixit_loss
from vae_bss_tf.baselines.nmf import ImageNMF
from vae_bss_tf.config import ModelConfig
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures, training_mixtures
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.nn.blocks import num_parameters


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return ModelConfig(input_shape=(8, 8), num_sources=2, latent_dim=4, hidden_units=(32, 24))


@pytest.fixture(scope="module")
def mixtures() -> np.ndarray:
    return evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=12).mixtures


def _fit(model: keras.Model, steps: int = 4, epochs: int = 3) -> keras.callbacks.History:
    data = training_mixtures(load_bank("digits", "train"), num_mixed=(2,), batch_size=32, seed=0)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=True, steps_per_execution=4)
    return model.fit(data, epochs=epochs, steps_per_epoch=steps, verbose=0, shuffle=False)


def test_mixit_loss_is_the_least_over_all_assignments() -> None:
    rng = np.random.default_rng(0)
    pair = rng.uniform(size=(3, 2, 40)).astype(np.float32)
    outputs = rng.uniform(size=(3, 4, 40)).astype(np.float32)
    found = mixit_loss(tf.constant(pair), tf.constant(outputs), snr_max=30.0).numpy()
    for row in range(3):
        losses = []
        for choice in itertools.product((0, 1), repeat=4):
            matrix = np.array([choice, 1 - np.array(choice)])
            error = np.sum((pair[row] - matrix @ outputs[row]) ** 2, axis=1)
            energy = np.sum(pair[row] ** 2, axis=1)
            losses.append(np.sum(10 * np.log10((error + 1e-3 * energy) / energy)))
        assert found[row] == pytest.approx(min(losses), abs=1e-3)


def test_mixit_loss_of_the_true_sources_is_the_threshold() -> None:
    sources = np.random.default_rng(1).uniform(size=(2, 4, 40)).astype(np.float32)
    pair = np.stack([sources[:, [0, 3]].sum(1), sources[:, [1, 2]].sum(1)], 1)
    loss = mixit_loss(tf.constant(pair), tf.constant(sources), snr_max=20.0).numpy()
    np.testing.assert_allclose(loss, 2 * -20.0, atol=1e-2)


def test_assignments_give_each_output_to_one_mixture() -> None:
    matrices = assignments(3)
    assert matrices.shape == (8, 2, 3)
    assert len(np.unique(matrices, axis=0)) == 8
    np.testing.assert_array_equal(matrices.sum(axis=1), 1)


def test_mixit_has_the_parameters_of_the_vae() -> None:
    paper = ModelConfig()
    wanted = MultiSourceVAE(paper).num_parameters
    model = baselines.build("mixit", paper)
    found = num_parameters(model)
    assert 0.99 * wanted < found <= wanted
    with pytest.raises(ConfigError, match="its least"):
        hidden_width(paper, 1_000)


def test_keep_strongest_shares_the_mixture_among_the_kept() -> None:
    outputs = np.array([[[0.1, 0.0], [0.6, 0.2], [0.3, 0.4]]], np.float32)[..., None]
    sources = keep_strongest(outputs, outputs.sum(axis=1), 2, np)
    np.testing.assert_allclose(sources[0, :, 0, 0], [2 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(sources.sum(axis=1), outputs.sum(axis=1), rtol=1e-6)


@pytest.mark.parametrize("system", ["glo", "mixit"])
def test_trained_baselines_learn_are_saved_and_sum_to_the_mixture(system, config, mixtures, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = GLO(config, pool_size=64) if system == "glo" else baselines.build(system, config)
    losses = _fit(model, epochs=6).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
    sources = model.separate(mixtures)
    assert sources.shape == (12, 2, 8, 8)
    assert sources.dtype == np.float32
    assert sources.min() >= 0
    np.testing.assert_allclose(sources.sum(axis=1), mixtures, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(loaded.separate(mixtures), sources, atol=1e-5)


def test_glo_finds_latents_of_mixtures_that_its_decoder_made(config) -> None:  # type: ignore[no-untyped-def]
    keras.utils.set_random_seed(0)
    model = GLO(config)
    latents = 2 * np.random.default_rng(2).normal(size=(6, 2, 4)).astype(np.float32)
    mixtures = np.asarray(model.decoder(latents)).sum(axis=1)
    start = np.random.default_rng(3).normal(0, 0.1, latents.shape).astype(np.float32)
    _, objective = model.fit_latents(tf.constant(mixtures), tf.constant(start))
    before = model.objective(tf.constant(mixtures), tf.constant(start), training=False)
    truth = model.objective(tf.constant(mixtures), tf.constant(latents), training=False)
    assert np.all(objective < before)
    assert np.mean(objective) <= np.mean(truth) + 0.1


def test_nmf_groups_the_parts_that_come_and_go_together() -> None:
    """Sources of two bars each, drawn independently: the bars of one source come and go together."""
    rng = np.random.default_rng(4)
    bars = 0.5 * np.eye(8)[:, :, None].repeat(8, axis=2)
    gains = rng.uniform(0.1, 1, (400, 2, 2))
    pairs = np.argsort(rng.uniform(size=(400, 4)), axis=1)[:, :2]
    sources = gains[..., :1, None] * bars[2 * pairs] + gains[..., 1:, None] * bars[2 * pairs + 1]
    nmf = ImageNMF(num_components=8).fit(sources.sum(axis=1))
    estimates = nmf.separate(sources[:50].sum(axis=1), num_sources=2)
    assignment = metrics.match_sources(-metrics.pairwise_mse(estimates, sources[:50]))
    scores = metrics.si_bss_eval(metrics.take_matched(estimates, assignment), sources[:50]).sdr
    assert np.mean(scores) > 50
    with_oracle = nmf.separate_oracle(sources[:50].sum(axis=1), sources[:50])
    assert metrics.si_bss_eval(with_oracle, sources[:50]).sdr.mean() > 50
    np.testing.assert_allclose(estimates.sum(axis=1), sources[:50].sum(axis=1), atol=1e-5)


def test_nmf_refuses_bad_input() -> None:
    nmf = ImageNMF(num_components=2)
    with pytest.raises(DataError, match="learned nothing"):
        nmf.separate(np.zeros((1, 8, 8)), num_sources=2)
    with pytest.raises(ConfigError, match="from 1 to 2"):
        nmf.separate(np.zeros((1, 8, 8)), num_sources=3)
    with pytest.raises(ConfigError, match="at least 1"):
        ImageNMF(num_components=0)


def test_oracle_masks_of_a_hand_made_mixture() -> None:
    sources = np.array([[[0.3, 0.0], [0.1, 0.0]]])
    mixtures = sources.sum(axis=1)
    np.testing.assert_allclose(oracle.ideal_binary_mask(mixtures, sources), [[[0.4, 0.0], [0.0, 0.0]]])
    np.testing.assert_allclose(oracle.ideal_ratio_mask(mixtures, sources), [[[0.36, 0.0], [0.04, 0.0]]])
    np.testing.assert_allclose(oracle.ideal_ratio_mask(mixtures, sources, exponent=1.0), sources)
    with pytest.raises(DataError, match="do not belong"):
        oracle.ideal_ratio_mask(mixtures, mixtures)


def test_oracle_masks_keep_the_phase_of_a_spectrogram() -> None:
    rng = np.random.default_rng(5)
    sources = rng.normal(size=(2, 3, 4, 5)) + 1j * rng.normal(size=(2, 3, 4, 5))
    mixtures = sources.sum(axis=1)
    for mask in (oracle.ideal_binary_mask, oracle.ideal_ratio_mask):
        estimates = mask(mixtures, sources)
        assert np.iscomplexobj(estimates)
        np.testing.assert_allclose(estimates.sum(axis=1), mixtures)


def test_trivial_estimates() -> None:
    mixtures = np.ones((3, 4, 4), np.float32)
    values = {name: float(e[0, 0, 0, 0]) for name, e in oracle.trivial_estimates(mixtures, 2).items()}
    assert values == {"zeros": 0.0, "mixture": 1.0, "mixture/k": 0.5}


@pytest.mark.parametrize(("system", "most"), [("mixit", 8), ("remixit", 4), ("self-remixing", 4)])
def test_more_sources_than_can_be_tried_in_all_orders_are_refused(config, system, most) -> None:  # type: ignore[no-untyped-def]
    baselines.build(system, config.replace(num_sources=most))
    with pytest.raises(ConfigError, match=f"at most {most} for {system}"):
        baselines.build(system, config.replace(num_sources=most + 1))


def test_an_unknown_baseline_is_refused(config) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="glo"):
        baselines.build("gloo", config)
