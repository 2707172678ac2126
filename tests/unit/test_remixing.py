"""Mixtures made of separated sources, and their likelihood."""

import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from training.callbacks import BestModel, EarlyStopping, Remixing
from vae_bss_tf import MultiSourceVAE
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.objectives import distributions, remixing
from vae_bss_tf.phases import Recipe
from vae_bss_tf.presets import get_preset

CONFIG = ModelConfig(input_shape=(8, 8), latent_dim=4, hidden_units=(24, 16))


def labelled_sources(batch: int, num_sources: int) -> tf.Tensor:
    """Source k of mixture i holds the number 10 i + k + 1 everywhere."""
    labels = 10 * np.arange(batch)[:, None] + np.arange(1, num_sources + 1)
    return tf.constant(np.broadcast_to(labels[..., None, None], (batch, num_sources, 8, 8)), tf.float32)


@pytest.mark.parametrize("num_sources", [1, 2, 3, 4])
def test_neighbours_exchange_the_sources_of_the_largest_scores(num_sources: int) -> None:
    scores = np.random.default_rng(0).normal(size=(6, num_sources)).astype(np.float32)
    exchanged = remixing.exchange(labelled_sources(6, num_sources), scores).numpy()[..., 0, 0]
    given = max(1, num_sources // 2)
    for i in range(6):
        own, others = np.argsort(-scores[i]), np.argsort(-scores[i ^ 1])
        expected = {*(10 * i + own[given:] + 1), *(10 * (i ^ 1) + others[:given] + 1)}
        assert set(exchanged[i]) == expected


def test_silent_sources_are_exchanged_for_want_of_others() -> None:
    """Of each pair of neighbours, how many sources sound in both before and after, for every place of the silence."""
    for silent in itertools.product([False, True], repeat=6):
        mask = np.float32(np.logical_not(silent)).reshape(2, 3, 1, 1)
        sources = labelled_sources(2, 3) * mask
        for seed in range(5):
            scores = np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)
            exchanged = remixing.exchange(sources, scores).numpy()[..., 0, 0]
            np.testing.assert_array_equal(np.sort(exchanged, None), np.sort(sources.numpy()[..., 0, 0], None))
            counts, before = np.sum(exchanged > 0, 1), np.sum(mask, (1, 2, 3))
            expected = before if before.all() else np.where(before, before - 1, before[::-1] > 0)
            np.testing.assert_array_equal(counts, expected)


def test_the_likelihood_of_known_sources_is_that_of_their_best_order() -> None:
    rng = np.random.default_rng(1)
    estimates = rng.uniform(size=(5, 3, 8, 8)).astype(np.float32)
    sources = rng.uniform(size=(5, 3, 8, 8)).astype(np.float32)
    mixture = rng.uniform(size=(5, 8, 8)).astype(np.float32)
    found = remixing.log_likelihood("laplace", 0.4, estimates, sources)
    pairs = scipy.stats.laplace.logpdf(sources[:, None], estimates[:, :, None], 0.4).astype(np.float64).sum((-2, -1))
    np.testing.assert_allclose(found, pairs, rtol=1e-4)
    expected = [max(sum(pair[k, o[k]] for k in range(3)) for o in itertools.permutations(range(3))) for pair in pairs]
    np.testing.assert_allclose(remixing.best_order(found), expected, rtol=1e-4)

    masked = mixture[:, None] * estimates / estimates.sum(1, keepdims=True)
    densities = scipy.stats.norm.logpdf(sources[:, None], masked[:, :, None], remixing.MASKED_SCALE)
    np.testing.assert_allclose(
        remixing.masked_log_likelihood(estimates, mixture, sources),
        densities.astype(np.float64).sum((-2, -1)),
        rtol=1e-4,
    )


def test_the_masked_likelihood_has_a_gradient_where_all_estimates_vanish() -> None:
    logits = tf.fill([2, 2, 8, 8], -60.0)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        fit = remixing.masked_log_likelihood(tf.sigmoid(logits), tf.fill([2, 8, 8], 0.5), tf.fill([2, 2, 8, 8], 0.25))
    assert np.isfinite(tape.gradient(fit, logits)).all()


def test_faint_sources_are_taken_for_silence() -> None:
    sources = np.ones((2, 3, 4, 4), np.float32) * np.sqrt([[0.9, 0.08, 0.02], [0.4, 0.3, 0.3]])[..., None, None]
    silenced = remixing.silence_faint(tf.constant(sources, tf.float32), 0.05).numpy()
    np.testing.assert_array_equal(silenced[0, 2], 0.0)
    silenced[0, 2] = sources[0, 2]
    np.testing.assert_array_equal(silenced, sources.astype(np.float32))


def test_a_step_takes_faint_sources_for_silence() -> None:
    keras.utils.set_random_seed(0)
    train = Recipe(remix_weight=1, remix_silence=1 / 3)
    model = MultiSourceVAE.for_training(CONFIG.replace(num_sources=3), train)
    assert MultiSourceVAE.from_config(model.get_config()).remix_silence == 1 / 3
    mixture = np.random.default_rng(9).uniform(size=(16, 8, 8)).astype(np.float32)
    energy = np.square(model(mixture)["sources"]).sum((2, 3))
    faint = energy < 1 / 3 * energy.sum(1, keepdims=True)
    silent = ~np.any(model._with_remixed({"mixture": mixture})["remixed_sources"], axis=(2, 3))
    assert 0 < silent.sum() < 48
    assert silent.sum() == faint.sum()


AUDIO = get_preset("notes").audio
assert AUDIO is not None


def test_magnitudes_of_separated_sound_are_those_of_the_mask_on_the_mixture() -> None:
    rng = np.random.default_rng(6)
    estimates = rng.uniform(size=(2, 3, 32, 256)).astype(np.float32)
    mixture = rng.uniform(size=(2, 32, 256)).astype(np.float32)
    sources = mixture[:, None] * estimates / estimates.sum(1, keepdims=True)
    pooled = spectrogram.source_masks(sources, AUDIO)[:, :, :: AUDIO.frame_pooling, : AUDIO.num_bins]
    expected = pooled * spectrogram.expand(mixture, AUDIO)[:, None]
    np.testing.assert_allclose(remixing.source_magnitudes(sources, mixture, AUDIO), expected, atol=1e-5)


def test_powers_of_sound_add_and_a_lone_source_stays_as_it_is() -> None:
    """With independent phases the mean power of a sum is the sum of the powers; its range is that of the phasors."""
    rng = np.random.default_rng(7)
    unpooled = AUDIO.replace(frame_pooling=1)
    magnitudes = np.broadcast_to(np.float32([0.5, 0.3, 0.2])[:, None, None], (40, 3, 64, 256)).copy()
    noise = rng.normal(size=(40, 2, 256, 2)).astype(np.float32)
    mixture, sources = (part.numpy() for part in remixing.mix_sound(magnitudes, noise, unpooled)[:2])
    assert mixture.max() == pytest.approx(1.0)
    scale = magnitudes[:, 0] / spectrogram.expand(sources, AUDIO)[:, 0]
    power = np.square(spectrogram.expand(mixture, AUDIO) * scale)
    assert power.mean() == pytest.approx(0.25 + 0.09 + 0.04, rel=0.01)
    assert power.min() < 1e-3
    assert np.sqrt(power.max()) == pytest.approx(1.0, abs=1e-3)
    # A uniform phase: the share of each quarter of the circle between the first source and the second.
    pair = remixing.mix_sound(magnitudes[:, :2], noise[:, :1], unpooled)[0].numpy()
    cosine = (np.square(spectrogram.expand(pair, AUDIO) * 0.8) - 0.34) / 0.3
    np.testing.assert_allclose(
        np.quantile(cosine, [0.25, 0.5, 0.75]), np.cos(np.pi * np.array([0.75, 0.5, 0.25])), atol=0.02
    )

    alone = rng.uniform(0.1, 1.0, size=(2, 1, 32, 256)).astype(np.float32)
    mixed = remixing.mix_sound(alone, np.zeros((2, 0, 256, 2), np.float32), AUDIO)
    mixture, sources = mixed.mixture.numpy(), mixed.sources.numpy()
    np.testing.assert_allclose(mixture, sources[:, 0], rtol=1e-5)
    silent = remixing.mix_sound(0 * alone, np.zeros((2, 0, 256, 2), np.float32), AUDIO)
    for part in silent:
        assert not np.any(part)


def test_masked_sound_is_judged_by_the_error_of_its_stft() -> None:
    """Against complex STFTs that are written out frame by frame, at the phases that the noise stands for."""
    rng = np.random.default_rng(5)
    audio = AUDIO.replace(num_frames=16)
    magnitudes = rng.uniform(size=(2, 3, 4, 256)).astype(np.float32)
    noise = rng.normal(size=(2, 2, 256, 2)).astype(np.float32)
    mixed = remixing.mix_sound(magnitudes, noise, audio)
    frames = np.arange(16)[:, None]
    turns = noise[:, :, None, :, 0] + frames * noise[:, :, None, :, 1] * audio.hop_length / audio.n_fft
    sources = np.repeat(magnitudes, 4, axis=2).astype(np.complex128)
    sources[:, 1:] *= np.exp(2j * np.pi * turns)
    mixture = sources.sum(1)
    scale = np.abs(mixture).reshape(2, 4, 4, 256).mean(2).max((1, 2))[:, None, None, None]
    np.testing.assert_allclose(
        spectrogram.expand(mixed.mixture.numpy(), audio),
        np.abs(mixture).reshape(2, 4, 4, 256).mean(2) / scale[:, 0],
        atol=1e-4,
    )
    estimates = rng.uniform(0.1, 1.0, size=(2, 3, 4, 256)).astype(np.float32)
    shared = ratio_mask(estimates, mixed.mixture).numpy()  # as a model gives them
    masked = spectrogram.source_masks(shared, audio)[..., :256] * mixture[:, None]
    errors = np.abs(masked[:, :, None] - sources[:, None]) ** 2 / scale[:, None] ** 2
    errors = errors.reshape(2, 3, 3, 4, 4, 256).mean(4).sum((3, 4))
    found = remixing.masked_sound_log_likelihood(estimates, mixed, audio)
    np.testing.assert_allclose(found, -errors / (2 * remixing.MASKED_SOUND_SCALE**2), rtol=1e-3)
    energies = (np.abs(sources) ** 2 / scale**2).reshape(2, 3, 4, 4, 256).mean(3).sum((2, 3))
    ratios = 10 * np.log10(energies[:, None] / (errors + 1e-3 * energies[:, None]))
    np.testing.assert_allclose(remixing.masked_sound_sdr(estimates, mixed, audio), ratios, atol=0.01)


def test_remixed_sources_beat_as_sines_a_bin_apart_do() -> None:
    """Two sines between which a bin lies: their STFT in the middle of them, pooled, against remixed magnitudes."""
    count = AUDIO.num_frames * AUDIO.hop_length + AUDIO.n_fft
    radians = 2 * np.pi * np.arange(count) / AUDIO.n_fft
    frames = np.lib.stride_tricks.sliding_window_view(
        np.stack([np.sin(40 * radians), np.sin(41 * radians)]), AUDIO.n_fft, 1
    )
    frames = frames[:, : AUDIO.num_frames * AUDIO.hop_length : AUDIO.hop_length] * np.hanning(AUDIO.n_fft + 1)[:-1]
    stft = np.fft.rfft(frames)[..., 40]
    start = np.angle(stft[1, 0] / stft[0, 0])
    pooled = np.abs(stft.sum(0)).reshape(-1, AUDIO.frame_pooling).mean(1)

    magnitudes = np.abs(stft).reshape(1, 2, -1, AUDIO.frame_pooling).mean(-1)[..., None].astype(np.float32)
    noise = np.array([start / (2 * np.pi), 1.0], np.float32).reshape(1, 1, 1, 2)
    mixture = spectrogram.expand(remixing.mix_sound(magnitudes, noise, AUDIO)[0].numpy(), AUDIO)[0, :, 0]
    assert pooled.min() < 0.8 * pooled.max()
    np.testing.assert_allclose(mixture, pooled / pooled.max(), atol=1e-4)


def test_a_remixing_step_of_sound_sees_whole_spectrograms() -> None:
    keras.utils.set_random_seed(0)
    config = ModelConfig((32, 256), 2, 4, (8, 8, 12), network="spectrogram", likelihood="normal", likelihood_scale=0.1)
    model = MultiSourceVAE(config, remix_weight=1.0, audio=AUDIO, seed=1)
    mixture = np.random.default_rng(8).uniform(size=(4, 32, 256)).astype(np.float32)
    inputs = model._with_remixed({"mixture": mixture})
    remixed, known = inputs["mixture"].numpy()[1::2], inputs["remixed_sources"]
    sources = known.sources.numpy()
    np.testing.assert_array_equal(inputs["mixture"][::2], mixture)
    np.testing.assert_array_equal(known.mixture, remixed)
    np.testing.assert_allclose(remixed.max((1, 2)), 1.0, rtol=1e-6)
    loud, quiet = np.sort(spectrogram.expand(sources, AUDIO), axis=1)[:, ::-1].swapaxes(0, 1)
    magnitude = spectrogram.expand(remixed, AUDIO)
    inside = loud < 1  # a louder one was cut
    assert np.all((magnitude <= loud + quiet + 1e-4)[inside])
    assert np.all((magnitude >= loud - quiet - 1e-4)[inside])
    model.remixing, model.remix_masked = True, True
    outputs = model(inputs, training=False)
    second = outputs["estimates"][1::2]
    kl = model._kl(outputs["latent_mean"], outputs["latent_log_variance"])[1::2]
    fits = remixing.log_likelihood("normal", 0.1, second, sources)
    fits += remixing.masked_sound_log_likelihood(second, known, AUDIO)
    plain = model.compute_loss(x=mixture, y_pred={name: value[::2] for name, value in outputs.items()})
    expected = plain + tf.reduce_mean(kl - remixing.best_order(fits))
    np.testing.assert_allclose(model.compute_loss(x=inputs, y_pred=outputs), expected, rtol=1e-5)


@pytest.mark.parametrize("num_sources", [1, 2])
def test_remixed_sound_trains(num_sources: int) -> None:
    """Pairs compiled by XLA."""
    keras.utils.set_random_seed(0)
    sizes = ((32, 256), num_sources, 4, (8, 8, 12))
    config = ModelConfig(*sizes, corrector_units=(8,), network="spectrogram", likelihood="normal", likelihood_scale=0.1)
    model = MultiSourceVAE(config, remix_weight=1.0, audio=AUDIO)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=num_sources == 2)
    model.remixing, model.remix_masked = True, True
    mixtures = np.random.default_rng(10).uniform(size=(16, 32, 256)).astype(np.float32)
    losses = model.fit(mixtures, batch_size=4, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.98 * losses[0]


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
    sources = inputs["remixed_sources"]
    fits = remixing.log_likelihood("laplace", CONFIG.likelihood_scale, second["estimates"], sources)

    def loss_with(fits: tf.Tensor) -> tf.Tensor:
        return plain + 0.25 * tf.reduce_mean(0.5 * kl - remixing.best_order(fits))

    np.testing.assert_allclose(model.compute_loss(x=inputs, y_pred=outputs), loss_with(fits), rtol=1e-5)
    model.remix_masked = True
    fits += remixing.masked_log_likelihood(second["estimates"], inputs["mixture"][1::2], sources)
    np.testing.assert_allclose(model.compute_loss(x=inputs, y_pred=outputs), loss_with(fits), rtol=1e-5)


def test_training_begins_to_remix_and_to_mask_at_their_epochs() -> None:
    keras.utils.set_random_seed(0)
    model = MultiSourceVAE(CONFIG, remix_weight=1.0)
    model.compile(optimizer=keras.optimizers.Adam(), jit_compile=False, steps_per_execution=2)
    mixtures = np.random.default_rng(3).uniform(size=(16, 8, 8)).astype(np.float32)
    data = tf.data.Dataset.from_tensor_slices({"mixture": mixtures}).batch(4, drop_remainder=True).repeat()
    was: list[tuple[bool, bool]] = []
    recorder = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: was.append((model.remixing, model.remix_masked))
    )
    history = model.fit(data, epochs=4, steps_per_epoch=4, callbacks=[Remixing(2, 3), recorder], verbose=0).history
    assert was == [(False, False), (False, False), (True, False), (True, True)]
    # The loss then holds a second mixture's for each; the reported terms are those of the real ones alone.
    plain = -np.asarray(history["elbo"])
    np.testing.assert_allclose(history["loss"][:2], plain[:2], rtol=1e-5)
    assert np.all(np.abs(history["loss"][2:] - plain[2:]) > 0.1 * np.abs(plain[2:]))


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
    remixed = loss()
    assert abs(remixed - plain) > 0.1 * abs(plain)
    model.remix_masked = True
    assert abs(loss() - remixed) > 0.1 * abs(remixed)
    model.remixing = False
    assert abs(loss() - plain) < 0.05 * abs(plain)


def test_models_before_and_after_masking_do_not_compete(tmp_path: Path) -> None:
    """Before masking the best is kept, then the last, though an earlier one had a better ELBO; a resume knows it."""
    model = MultiSourceVAE(CONFIG)

    def kept(elbos: list[float], past: list[float]) -> list[bool]:
        best = BestModel(tmp_path / "m.keras", past, mask_epoch=2)
        stopping = EarlyStopping(2, past, mask_epoch=2)
        for callback in (best, stopping):
            callback.set_model(model)
            callback.on_train_begin()
        written = []
        for epoch, elbo in enumerate(elbos, start=len(past)):
            (tmp_path / "m.keras").unlink(missing_ok=True)
            for callback in (best, stopping):
                callback.on_epoch_begin(epoch)
                callback.on_epoch_end(epoch, {"val_elbo": elbo})
            written.append((tmp_path / "m.keras").exists())
        assert stopping.stopped_epoch == 0
        return written

    elbos = [-5.0, -9.0, -8.0, -8.5, -7.0]
    expected = [True, False, True, True, True]
    assert kept(elbos, []) == expected
    for done in (1, 2, 3, 4):
        assert kept(elbos[done:], elbos[:done]) == expected[done:]


def test_an_odd_batch_cannot_be_paired() -> None:
    model = MultiSourceVAE(CONFIG, remix_weight=1.0)
    with pytest.raises(ConfigError, match="even"):
        model._with_remixed(np.zeros((3, 8, 8), np.float32))


def test_the_weight_reaches_the_model_and_its_file(tmp_path: Path) -> None:
    model = MultiSourceVAE.for_training(CONFIG.replace(convolutions=(4,)), Recipe(remix_weight=0.25, seed=5))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert (loaded.remix_weight, loaded.seed, loaded.config.convolutions) == (0.25, 5, (4,))
    mixture = np.random.default_rng(6).uniform(size=(2, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(loaded.separate(mixture), model.separate(mixture))


def test_settings_of_remixing_are_checked() -> None:
    assert Recipe(epochs=10).remix_epoch == 10
    assert Recipe(epochs=10, remix_weight=1.0, remix_start=0.25).remix_epoch == 3
    assert Recipe(epochs=100, remix_weight=1.0, remix_start=0.07).remix_epoch == 7
    with pytest.raises(ConfigError, match="even"):
        Recipe(batch_size=33, remix_weight=1.0)
    assert Recipe(epochs=10, remix_weight=1.0, remix_mask_start=0.75).remix_mask_epoch == 8
    assert Recipe(epochs=10, remix_mask_start=0.5).remix_mask_epoch == 10
    for shares in ({"remix_mask_start": 1.5}, {"remix_start": 0.7, "remix_mask_start": 0.6}, {"remix_start": -0.1}):
        with pytest.raises(ConfigError, match="remix_start"):
            Recipe(**shares)
    assert get_preset("mnist-paper").train.remix_weight == 0


def test_a_run_from_before_masking_is_one_without() -> None:
    settings = get_preset("mnist").to_dict()
    assert Preset.from_dict(settings).train.remix_mask_epoch == 54
    del settings["train"]["remix_mask_start"]
    assert Preset.from_dict(settings).train.remix_mask_epoch == 90
