"""The warm-up requests: read back with TensorFlow Serving's own messages and answered by the SavedModel."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from export.deployment.warmup import BATCH_SIZES, WARMUP_FILE, warmup_mixtures, write_warmup
from export.writers import saved_model
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.datasets.image_mixtures import evaluation_mixtures
from vae_bss_tf.errors import DataError
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.phases import Recipe

AUDIO = AudioConfig(sample_rate=4_000.0, n_fft=128, hop_length=32, num_frames=8, num_bins=16, power=0.5)


@pytest.fixture(scope="module")
def preset(manifest):
    return Preset.from_dict(manifest["preset"])


def requests(folder):
    """The requests of a warm-up file, and their mixtures."""
    for record in tf.data.TFRecordDataset(str(folder / WARMUP_FILE)).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        yield log.predict_log.request, tf.make_ndarray(log.predict_log.request.inputs["mixture"])


def test_each_batch_size_is_asked_for_and_answered(exported, preset, tmp_path):
    folder = shutil.copytree(exported / "saved_model/1", tmp_path / "1")
    mixtures, waveforms = warmup_mixtures(preset, folder, None)
    assert waveforms is None
    write_warmup(folder, "digits", mixtures)
    loaded, sizes = tf.saved_model.load(folder), []
    for request, asked in requests(folder):
        assert request.model_spec.name == "digits"
        assert request.model_spec.WhichOneof("version_choice") is None
        assert list(request.inputs) == ["mixture"]
        assert asked.dtype == np.float32
        sources = loaded.signatures[request.model_spec.signature_name](mixture=tf.constant(asked))["sources"].numpy()
        assert sources.shape == (len(asked), 2, 8, 8)
        np.testing.assert_allclose(sources.sum(axis=1), asked, atol=1e-5)
        sizes.append(len(asked))
    assert tuple(sizes) == BATCH_SIZES
    assert list(BATCH_SIZES) == sorted(set(BATCH_SIZES))


def test_digits_warm_up_on_held_out_digits(exported, preset):
    mixtures, _ = warmup_mixtures(preset, exported / "saved_model/1", None)
    held_out = evaluation_mixtures(load_bank("digits", "test"), num_mixed=(2,), num_mixtures=BATCH_SIZES[-1])
    np.testing.assert_array_equal(mixtures, held_out.mixtures)


def test_without_the_data_the_model_makes_them(exported, preset):
    elsewhere = Preset(preset.model, DataConfig("mnist"), preset.recipe)
    folder = exported / "saved_model/1"
    mixtures, _ = warmup_mixtures(elsewhere, folder, None)
    latents = np.random.default_rng(0).standard_normal((BATCH_SIZES[-1], 2, 5)).astype(np.float32)
    estimates = tf.saved_model.load(folder).signatures["decode"](latents=tf.constant(latents))["estimates"].numpy()
    np.testing.assert_allclose(mixtures, np.clip(estimates.sum(axis=1), 0, 1), atol=1e-6)
    assert mixtures.dtype == np.float32
    assert mixtures.std(axis=0).max() > 0.01


def test_a_folder_without_the_data_is_said(exported, preset, tmp_path):
    elsewhere = Preset(ModelConfig(input_shape=(28, 28)), DataConfig("mnist"), preset.recipe)
    with pytest.raises(DataError, match=str(tmp_path)):
        warmup_mixtures(elsewhere, exported / "saved_model/1", tmp_path)


def test_sound_warms_up_on_tones_whatever_it_was_trained_on(tmp_path):
    preset = Preset(
        ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=3, hidden_units=(8,)),
        DataConfig("notes"),
        Recipe(),
        AUDIO,
    )
    spectrograms, waveforms = warmup_mixtures(preset, tmp_path, None)
    assert spectrograms.shape == (BATCH_SIZES[-1], *AUDIO.feature_shape)
    assert waveforms.shape == (BATCH_SIZES[-1], AUDIO.num_samples)
    np.testing.assert_allclose(
        spectrograms, spectrogram.features(*spectrogram.stft(waveforms, AUDIO), AUDIO), atol=1e-6
    )
    assert np.abs(waveforms).max() > 0.1

    model = MultiSourceVAE(preset.model)
    saved_model.write_waveform(model, AUDIO, tmp_path / "1")
    write_warmup(tmp_path / "1", "tones-waveform", waveforms)
    separate = tf.saved_model.load(tmp_path / "1").signatures["separate"]
    for _, asked in requests(tmp_path / "1"):
        sources = separate(mixture=tf.constant(asked))["sources"].numpy()
        np.testing.assert_allclose(sources.sum(axis=1), asked, atol=1e-5)


def test_the_served_folder_is_still_a_saved_model(exported, preset, tmp_path, model, mixtures):
    folder = shutil.copytree(exported / "saved_model/1", tmp_path / "1")
    before = {p.relative_to(folder) for p in folder.rglob("*")}
    write_warmup(folder, "digits", np.zeros((BATCH_SIZES[-1], 8, 8), np.float32))
    assert {p.relative_to(folder) for p in folder.rglob("*")} - before == {WARMUP_FILE.parent, WARMUP_FILE}
    found = tf.saved_model.load(folder).signatures["separate"](mixture=tf.constant(mixtures))["sources"]
    np.testing.assert_allclose(found, model({"mixture": mixtures})["sources"], atol=1e-5)
