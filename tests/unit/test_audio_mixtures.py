"""Mixing on the fly: onsets, gains, noise, counts, and the same draw from the same seed."""

import numpy as np
import pytest

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import pipeline
from vae_bss_tf.datasets import sound_mixtures as audio_mixtures
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Recipe

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=64, num_bins=32, frame_pooling=4, power=0.5)


def make_bank(name: str = "notes", num_items: int = 6) -> SourceBank:
    items = np.random.default_rng(0).uniform(-1, 1, (num_items, AUDIO.num_samples)).astype(np.float32)
    return SourceBank(name, "train", items, np.arange(num_items), 1.0, has_truth=name != "mixtures")


def test_training_yields_spectrograms_of_mixtures_alone() -> None:
    dataset = audio_mixtures.training_mixtures(make_bank(), AUDIO, num_mixed=(2,), batch_size=5, seed=1)
    batches = [{name: value.numpy() for name, value in batch.items()} for batch in dataset.take(3)]
    for batch in batches:
        assert set(batch) == {"mixture"}
        assert batch["mixture"].shape == (5, 16, 32)
        assert batch["mixture"].dtype == np.float32
        assert batch["mixture"].min() >= 0
        assert batch["mixture"].max(axis=(1, 2)) == pytest.approx(1)
    assert not np.array_equal(batches[0]["mixture"], batches[1]["mixture"])
    later = audio_mixtures.training_mixtures(make_bank(), AUDIO, num_mixed=(2,), batch_size=5, seed=1, start_step=2)
    assert np.array_equal(next(iter(later))["mixture"].numpy(), batches[2]["mixture"])


def test_evaluation_mixtures_are_the_sum_of_their_sources() -> None:
    chosen = {"num_mixed": (1, 2, 3), "num_mixtures": 40, "seed": 3}
    drawn = audio_mixtures.evaluation_mixtures(make_bank(), AUDIO, **chosen)
    assert np.abs(drawn.source_waveforms.sum(axis=1) - drawn.waveforms).max() < 1e-6
    assert drawn.mixtures.shape == (40, 16, 32)
    assert drawn.sources.shape == (40, 3, 16, 32)
    present = drawn.source_waveforms.any(axis=2)
    assert np.array_equal(present.sum(axis=1), drawn.counts)
    assert np.array_equal(present, drawn.labels >= 0)
    assert set(drawn.counts) == {1, 2, 3}
    for labels in drawn.labels:
        assert len(set(labels[labels >= 0])) == (labels >= 0).sum()
    single = drawn.counts == 1
    assert np.abs(drawn.sources[single, 0] - drawn.mixtures[single]).max() < 1e-5
    again = audio_mixtures.evaluation_mixtures(make_bank(), AUDIO, **chosen)
    assert np.array_equal(again.waveforms, drawn.waveforms)


def test_features_of_the_evaluation_are_those_of_its_waveforms() -> None:
    drawn = audio_mixtures.evaluation_mixtures(make_bank(), AUDIO, num_mixed=(2,), num_mixtures=3)
    expected = spectrogram.features(*spectrogram.stft(drawn.waveforms, AUDIO), AUDIO)
    assert np.array_equal(drawn.mixtures, expected)


def test_onsets_and_gains_stay_in_their_ranges() -> None:
    config = AUDIO.replace(gain_range_db=6.0, max_onset=0.25)
    bank = SourceBank("notes", "train", np.ones((2, config.num_samples), np.float32), np.arange(2), 1.0)
    drawn = audio_mixtures.evaluation_mixtures(bank, config, num_mixed=(2,), num_mixtures=400)
    onsets = (drawn.source_waveforms == 0).sum(axis=2)
    gains = 20 * np.log10(2 * drawn.source_waveforms[:, :, -1])
    assert (onsets.min(), onsets.max()) == pytest.approx((0, 0.25 * config.num_samples), abs=4)
    assert (gains.min(), gains.max()) == pytest.approx((-6, 6), abs=0.1)


def test_noise_has_the_level_asked_for_and_belongs_to_no_source() -> None:
    config = AUDIO.replace(noise_db=-20.0)
    drawn = audio_mixtures.evaluation_mixtures(make_bank(), config, num_mixed=(2,), num_mixtures=20)
    clean = drawn.source_waveforms.sum(axis=1)
    level = 20 * np.log10((drawn.waveforms - clean).std(axis=1) / clean.std(axis=1))
    assert level == pytest.approx(-20, abs=0.5)


def test_recordings_of_mixtures_are_not_mixed_again() -> None:
    with pytest.raises(ConfigError, match="not mixed again"):
        audio_mixtures.training_mixtures(make_bank("mixtures"), AUDIO, num_mixed=(2,), batch_size=2, seed=0)
    still = AUDIO.replace(max_onset=0.0)
    bank = make_bank("mixtures")
    drawn = audio_mixtures.evaluation_mixtures(bank, still, num_mixed=(1,), num_mixtures=4)
    for label, waveform in zip(drawn.labels[:, 0], drawn.waveforms, strict=True):
        assert np.array_equal(waveform, bank.items[label])


def test_a_recording_of_mixtures_is_judged_once() -> None:
    bank = make_bank("mixtures", 7)
    labels = audio_mixtures.evaluation_mixtures(bank, AUDIO, num_mixed=(1,), num_mixtures=10).labels[:, 0]
    assert sorted(labels[:7]) == list(range(7))
    preset = Preset(ModelConfig(input_shape=AUDIO.feature_shape), DataConfig("mixtures", (1,)), Recipe(), AUDIO)
    assert pipeline.num_distinct(preset, bank, 5_000) == 7
