"""Mixtures made of separated sources, and their likelihood."""

import itertools

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.domains import Images, Sound, sound_remixing
from vae_bss_tf.domains.image import MASKED_SCALE, RemixedImages
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.masking import ratio_mask
from vae_bss_tf.objectives import remixing
from vae_bss_tf.presets import get_preset

SEED = tf.constant([0, 1])


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
    densities = scipy.stats.norm.logpdf(sources[:, None], masked[:, :, None], MASKED_SCALE)
    np.testing.assert_allclose(
        Images().masked_log_likelihood(estimates, RemixedImages(mixture, sources)),
        densities.astype(np.float64).sum((-2, -1)),
        rtol=1e-4,
    )


def test_the_masked_likelihood_has_a_gradient_where_all_estimates_vanish() -> None:
    logits = tf.fill([2, 2, 8, 8], -60.0)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        mixed = RemixedImages(tf.fill([2, 8, 8], 0.5), tf.fill([2, 2, 8, 8], 0.25))
        fit = Images().masked_log_likelihood(tf.sigmoid(logits) + remixing.MASK_FLOOR, mixed)
    assert np.isfinite(tape.gradient(fit, logits)).all()


def test_faint_sources_are_taken_for_silence() -> None:
    sources = np.ones((2, 3, 4, 4), np.float32) * np.sqrt([[0.9, 0.08, 0.02], [0.4, 0.3, 0.3]])[..., None, None]
    silenced = remixing.silence_faint(tf.constant(sources, tf.float32), 0.05).numpy()
    np.testing.assert_array_equal(silenced[0, 2], 0.0)
    silenced[0, 2] = sources[0, 2]
    np.testing.assert_array_equal(silenced, sources.astype(np.float32))


def test_new_mixtures_take_faint_sources_for_silence() -> None:
    sources = np.random.default_rng(9).uniform(size=(16, 3, 8, 8)).astype(np.float32)
    energy = np.square(sources).sum((2, 3))
    faint = energy < 1 / 3 * energy.sum(1, keepdims=True)
    mixed = remixing.remixed(Images(), tf.constant(sources), tf.zeros([16, 8, 8]), SEED, silence=1 / 3)
    silent = ~np.any(mixed.sources, axis=(2, 3))
    assert 0 < silent.sum() < 48
    assert silent.sum() == faint.sum()


def test_new_images_are_the_sums_of_exchanged_sources() -> None:
    """What the neighbours have in all is what they had: nothing is lost in an exchange."""
    sources = np.random.default_rng(2).uniform(size=(4, 2, 8, 8)).astype(np.float32) / 2
    mixed = remixing.remixed(Images(), tf.constant(sources), tf.reduce_sum(sources, 1), SEED, silence=0.0)
    np.testing.assert_allclose(mixed.mixture, np.sum(mixed.sources, axis=1), atol=1e-6)
    np.testing.assert_allclose(
        np.reshape(mixed.mixture, (2, 2, 8, 8)).sum(1), sources.sum(1).reshape(2, 2, 8, 8).sum(1), atol=1e-5
    )
    assert np.abs(mixed.mixture - sources.sum(1)).max(axis=(1, 2)).min() > 0.1
    bright = remixing.remixed(Images(), tf.ones([2, 2, 8, 8]), tf.ones([2, 8, 8]), SEED, silence=0.0)
    np.testing.assert_array_equal(bright.mixture, 1.0)


def test_new_mixtures_are_drawn_from_the_mixtures_that_hold_the_fewest_sources() -> None:
    """Sources of 1 to 3 digits, each pixel its own number: those of the mixtures of one digit fill all of them."""
    counts = np.array([1, 2, 3, 1, 3, 2, 1, 3, 1, 3, 2, 3])
    numbers = 1.0 + np.arange(36).reshape(12, 3)
    numbers[np.arange(3) >= counts[:, None]] = 0.0
    sources = np.broadcast_to(numbers[..., None, None] / 200, (12, 3, 4, 4)).astype(np.float32)
    mixed = remixing.remixed(Images(), tf.constant(sources), tf.zeros([12, 4, 4]), SEED, silence=0.0, origin="sparsest")
    np.testing.assert_allclose(mixed.mixture, np.sum(mixed.sources, axis=1), atol=1e-6)
    drawn = np.rint(mixed.sources.numpy()[:, :, 0, 0] * 200)
    np.testing.assert_array_equal((drawn > 0).sum(1), counts)
    assert set(drawn[drawn > 0]) == set(numbers[counts == 1, 0])
    assert all(len(set(row[row > 0])) == count for row, count in zip(drawn, counts, strict=True))
    assert len({tuple(sorted(row)) for row in drawn[counts == 3]}) > 1
    with_others = remixing.remixed(
        Images(), tf.constant(sources[[1, 2, 4, 5]]), tf.zeros([4, 4, 4]), SEED, silence=0.0, origin="sparsest"
    )
    assert set(np.rint(np.ravel(with_others.sources.numpy()[:, :, 0, 0]) * 200)) <= {0, *numbers[[1, 5], :2].ravel()}


def test_a_batch_smaller_than_the_number_of_sources_can_be_drawn_from() -> None:
    sources = tf.constant(np.random.default_rng(3).uniform(0.1, 0.2, size=(2, 4, 4, 4)), tf.float32)
    mixed = remixing.remixed(Images(), sources, tf.zeros([2, 4, 4]), SEED, silence=0.0, origin="sparsest")
    given = {row.tobytes() for row in np.reshape(sources, (8, -1))}
    assert {row.tobytes() for row in np.reshape(mixed.sources, (8, -1))} <= given


def test_no_gradient_flows_into_what_is_remixed() -> None:
    sources = tf.random.uniform([4, 2, 8, 8])
    with tf.GradientTape() as tape:
        tape.watch(sources)
        mixed = remixing.remixed(Images(), sources, tf.reduce_sum(sources, 1), SEED, silence=0.1)
        total = tf.reduce_sum(mixed.mixture) + tf.reduce_sum(mixed.sources)
    assert tape.gradient(total, sources) is None


def test_an_odd_batch_cannot_be_paired() -> None:
    with pytest.raises(ConfigError, match="even"):
        remixing.remixed(Images(), tf.zeros([3, 2, 8, 8]), tf.zeros([3, 8, 8]), SEED, silence=0.0)


def test_an_unknown_origin_of_sources_is_refused() -> None:
    with pytest.raises(ConfigError, match="sparsest"):
        remixing.remixed(Images(), tf.zeros([4, 2, 8, 8]), tf.zeros([4, 8, 8]), SEED, silence=0.0, origin="sparse")


AUDIO = get_preset("notes").audio
assert AUDIO is not None


def test_magnitudes_of_separated_sound_are_those_of_the_mask_on_the_mixture() -> None:
    rng = np.random.default_rng(6)
    estimates = rng.uniform(size=(2, 3, 32, 256)).astype(np.float32)
    mixture = rng.uniform(size=(2, 32, 256)).astype(np.float32)
    sources = mixture[:, None] * estimates / estimates.sum(1, keepdims=True)
    pooled = spectrogram.source_masks(sources, AUDIO)[:, :, :: AUDIO.frame_pooling, : AUDIO.num_bins]
    expected = pooled * spectrogram.expand(mixture, AUDIO)[:, None]
    np.testing.assert_allclose(sound_remixing.source_magnitudes(sources, mixture, AUDIO), expected, atol=1e-5)


def test_powers_of_sound_add_and_a_lone_source_stays_as_it_is() -> None:
    """With independent phases the mean power of a sum is the sum of the powers; its range is that of the phasors."""
    rng = np.random.default_rng(7)
    unpooled = AUDIO.replace(frame_pooling=1)
    magnitudes = np.broadcast_to(np.float32([0.5, 0.3, 0.2])[:, None, None], (40, 3, 64, 256)).copy()
    noise = rng.normal(size=(40, 2, 256, 2)).astype(np.float32)
    mixture, sources = (part.numpy() for part in sound_remixing.mix_sound(magnitudes, noise, unpooled)[:2])
    assert mixture.max() == pytest.approx(1.0)
    scale = magnitudes[:, 0] / spectrogram.expand(sources, AUDIO)[:, 0]
    power = np.square(spectrogram.expand(mixture, AUDIO) * scale)
    assert power.mean() == pytest.approx(0.25 + 0.09 + 0.04, rel=0.01)
    assert power.min() < 1e-3
    assert np.sqrt(power.max()) == pytest.approx(1.0, abs=1e-3)
    # A uniform phase: the share of each quarter of the circle between the first source and the second.
    pair = sound_remixing.mix_sound(magnitudes[:, :2], noise[:, :1], unpooled)[0].numpy()
    cosine = (np.square(spectrogram.expand(pair, AUDIO) * 0.8) - 0.34) / 0.3
    np.testing.assert_allclose(
        np.quantile(cosine, [0.25, 0.5, 0.75]), np.cos(np.pi * np.array([0.75, 0.5, 0.25])), atol=0.02
    )

    alone = rng.uniform(0.1, 1.0, size=(2, 1, 32, 256)).astype(np.float32)
    mixed = sound_remixing.mix_sound(alone, np.zeros((2, 0, 256, 2), np.float32), AUDIO)
    mixture, sources = mixed.mixture.numpy(), mixed.sources.numpy()
    np.testing.assert_allclose(mixture, sources[:, 0], rtol=1e-5)
    silent = sound_remixing.mix_sound(0 * alone, np.zeros((2, 0, 256, 2), np.float32), AUDIO)
    for part in silent:
        assert not np.any(part)


def test_masked_sound_is_judged_by_the_error_of_its_stft() -> None:
    """Against complex STFTs that are written out frame by frame, at the phases that the noise stands for."""
    rng = np.random.default_rng(5)
    audio = AUDIO.replace(num_frames=16)
    magnitudes = rng.uniform(size=(2, 3, 4, 256)).astype(np.float32)
    noise = rng.normal(size=(2, 2, 256, 2)).astype(np.float32)
    mixed = sound_remixing.mix_sound(magnitudes, noise, audio)
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
    found = sound_remixing.masked_sound_log_likelihood(estimates, mixed, audio)
    np.testing.assert_allclose(found, -errors / (2 * sound_remixing.MASKED_SOUND_SCALE**2), rtol=1e-3)
    energies = (np.abs(sources) ** 2 / scale**2).reshape(2, 3, 4, 4, 256).mean(3).sum((2, 3))
    ratios = 10 * np.log10(energies[:, None] / (errors + 1e-3 * energies[:, None]))
    np.testing.assert_allclose(sound_remixing.masked_sound_sdr(estimates, mixed, audio), ratios, atol=0.01)


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
    mixture = spectrogram.expand(sound_remixing.mix_sound(magnitudes, noise, AUDIO)[0].numpy(), AUDIO)[0, :, 0]
    assert pooled.min() < 0.8 * pooled.max()
    np.testing.assert_allclose(mixture, pooled / pooled.max(), atol=1e-4)


def test_new_mixtures_of_sound_lie_between_the_sum_and_the_difference_of_their_sources() -> None:
    mixture = np.random.default_rng(8).uniform(size=(4, 32, 256)).astype(np.float32)
    estimates = np.random.default_rng(9).uniform(size=(4, 2, 32, 256)).astype(np.float32)
    separated = ratio_mask(estimates, mixture)
    known = remixing.remixed(Sound(AUDIO), separated, tf.constant(mixture), SEED, silence=0.0)
    remixed, sources = known.mixture.numpy(), known.sources.numpy()
    np.testing.assert_allclose(remixed.max((1, 2)), 1.0, rtol=1e-6)
    loud, quiet = np.sort(spectrogram.expand(sources, AUDIO), axis=1)[:, ::-1].swapaxes(0, 1)
    magnitude = spectrogram.expand(remixed, AUDIO)
    inside = loud < 1  # a louder one was cut
    assert np.all((magnitude <= loud + quiet + 1e-4)[inside])
    assert np.all((magnitude >= loud - quiet - 1e-4)[inside])
