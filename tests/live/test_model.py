"""The live model: its transform, its causality, and that blocks give what the whole signal gives."""

import numpy as np
import pytest
import tensorflow as tf

from training.live.trainer import begin_from
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.live import model as live_model
from vae_bss_tf.live import transform
from vae_bss_tf.live.config import LATENCIES, LiveConfig


def test_the_factored_transform_is_the_fourier_transform():
    frames = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32)
    real, imaginary = transform.spectrum(frames)
    expected = np.fft.rfft(frames)
    np.testing.assert_allclose(real, expected.real, atol=1e-4)
    np.testing.assert_allclose(imaginary, expected.imag, atol=1e-4)
    np.testing.assert_allclose(transform.signal(real, imaginary), frames, atol=1e-5)
    np.testing.assert_allclose(transform.signal(real, imaginary, 100), frames[:, -100:], atol=1e-5)


@pytest.mark.parametrize("latency", LATENCIES)
def test_the_windows_reconstruct_and_measure_amplitudes(latency):
    hop = LiveConfig(latency_ms=latency).hop_length
    analysis, synthesis = transform.windows(hop)
    product = analysis[-2 * hop :] * synthesis
    np.testing.assert_allclose(product[:hop] + product[hop:], 1, atol=1e-6)
    sine = np.cos(2 * np.pi * 100 * np.arange(1024) / 1024 + 0.3)
    assert np.hypot(*transform.spectrum((sine * analysis)[np.newaxis].astype(np.float32)))[0, 100] == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize("latency", LATENCIES)
def test_any_portions_give_what_the_whole_signal_gives(tiny_model, latency, sound):
    model = tiny_model(latency_ms=latency)
    hop, rng = model.config.hop_length, np.random.default_rng(1)
    whole = sound[np.newaxis, : len(sound) // hop * hop]
    expected = np.asarray(model.step(whole, model.initial_state())[0])
    step = tf.function(model.step, autograph=False)  # traced once for each length
    for _ in range(3):
        state, first, found = model.initial_state(), 0, []
        while first < whole.shape[1]:
            hops = int(rng.choice([1, 2, 11])) if first + 11 * hop <= whole.shape[1] else 1
            portion = whole[:, first : first + hop * hops]
            sources, state = step(tf.constant(portion), state)
            found.append(np.asarray(sources))
            first += portion.shape[1]
        np.testing.assert_allclose(np.concatenate(found, axis=2), expected, atol=1e-6)


def test_the_moving_averages_of_bands_go_on_from_portion_to_portion(tiny_model, monkeypatch):
    """The recursion frame by frame, and products of any span."""
    model = tiny_model()
    config = model.config
    features = np.random.default_rng(0).uniform(size=(1, 700, config.num_bands)).astype(np.float32)
    scale, state = np.ones((1, 700, 1), np.float32), model.initial_state()
    expected = np.zeros((len(config.trace_decays), config.num_bands))
    decays = np.asarray(config.trace_decays)[:, None]
    for frame in features[0]:
        expected = decays * expected + (1 - decays) * frame
    np.testing.assert_allclose(model.encode(features, scale, state)[3]["traces"][0], expected, atol=1e-5)
    monkeypatch.setattr(live_model, "_SPAN", 7)
    np.testing.assert_allclose(model.encode(features, scale, state)[3]["traces"][0], expected, atol=1e-5)


def test_nothing_that_comes_later_changes_what_was_answered(tiny_model, sound):
    model = tiny_model()
    hop = model.config.hop_length
    whole = sound[np.newaxis, : 40 * hop].copy()
    before = np.asarray(model.step(whole, model.initial_state())[0])
    whole[:, 25 * hop :] = np.random.default_rng(0).uniform(-1, 1, 15 * hop)
    after = np.asarray(model.step(whole, model.initial_state())[0])
    np.testing.assert_array_equal(before[:, :, : 25 * hop], after[:, :, : 25 * hop])
    assert np.abs(before[:, :, 25 * hop :] - after[:, :, 25 * hop :]).max() > 0.1


def test_the_answer_comes_after_the_latency_and_sums_to_the_mixture(tiny_model, sound):
    model = tiny_model()
    hop = model.config.hop_length
    assert 2_000 * hop / model.config.sample_rate <= 16.0
    whole = sound[np.newaxis, : 40 * hop]
    sources = np.asarray(model.step(whole, model.initial_state())[0])
    np.testing.assert_allclose(sources.sum(axis=1)[:, hop:], whole[:, :-hop], atol=1e-6)
    assert np.abs(sources[:, 0]).max() > 0.01  # neither source is empty
    assert np.abs(sources[:, 1]).max() > 0.01


def test_three_sources_sum_to_the_mixture_too(tiny_model, sound):
    model = tiny_model(num_sources=3)
    hop = model.config.hop_length
    sources = np.asarray(model.step(sound[np.newaxis, : 20 * hop], model.initial_state())[0])
    assert sources.shape == (1, 3, 20 * hop)
    np.testing.assert_allclose(sources.sum(axis=1)[:, hop:], sound[np.newaxis, : 19 * hop], atol=1e-6)


def test_loudness_changes_nothing_but_the_loudness(tiny_model, sound):
    model = tiny_model()
    whole = sound[np.newaxis, : 100 * model.config.hop_length]
    loud = np.asarray(model.step(whole, model.initial_state())[0])
    quiet = np.asarray(model.step(0.25 * whole, model.initial_state())[0])
    later = slice(
        20 * model.config.hop_length, None
    )  # at first the level rises from silence, which is remembered for a while
    np.testing.assert_allclose(quiet[:, :, later], 0.25 * loud[:, :, later], atol=3e-3)


def test_a_shorter_latency_begins_with_a_longer_ones_weights(tiny_model):
    source, model = tiny_model(latency_ms=64.0), tiny_model(latency_ms=16.0)
    begin_from(model, source)
    taps = {d * 352: block.taps.numpy() for d, block in zip(source.config.dilations, source.blocks, strict=True)}
    for dilation, block in zip(model.config.dilations, model.blocks, strict=True):
        if dilation * 88 in taps:
            np.testing.assert_array_equal(block.taps.numpy(), taps[dilation * 88])
        else:
            assert not np.any(block.dense.get_weights()[0])
    with pytest.raises(ConfigError, match="only the latency may differ"):
        begin_from(model, tiny_model(channels=12))


def test_moving_averages_that_the_source_lacks_have_no_say_at_first(tiny_model, sound):
    source, model = tiny_model(trace_seconds=()), tiny_model()
    assert "traces" not in source.initial_state()
    begin_from(model, source)
    whole = sound[np.newaxis, : 40 * model.config.hop_length]
    expected = np.asarray(source.step(whole, source.initial_state())[0])
    np.testing.assert_allclose(model.step(whole, model.initial_state())[0], expected, atol=1e-6)
    with pytest.raises(ConfigError, match="only the latency may differ"):
        begin_from(source, model)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("latency_ms", 5.0),
        ("trace_seconds", (0.1, 0.0)),
        ("sample_rate", 1.0),
        ("num_sources", 1),
        ("band_channels", (1, 2)),
        ("bins_per_band", 7),
        ("low_bins", 200),
        ("power", 0.0),
        ("channels", 0),
    ],
)
def test_settings_out_of_their_range_are_named(setting, value):
    with pytest.raises(ConfigError, match=setting if setting != "low_bins" else "low_bins|bins_per_band"):
        LiveConfig().replace(**{setting: value})
