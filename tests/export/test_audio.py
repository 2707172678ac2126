"""A model of audio is exported as a graph from waveform to waveforms too, the transform inside."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import soundfile
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from export import benchmark
from export.__main__ import main
from export.writers.onnx import ALLOWED_OPERATIONS, operations
from training.run import Run
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import write_json
from vae_bss_tf.model import MultiSourceVAE
from vae_bss_tf.phases import Recipe
from vae_bss_tf.runtime import load

AUDIO = AudioConfig(
    sample_rate=4_000.0, n_fft=128, hop_length=32, num_frames=32, num_bins=60, frame_pooling=4, power=0.5
)


@pytest.fixture(scope="module")
def audio_run(tmp_path_factory):
    config = ModelConfig(
        input_shape=AUDIO.feature_shape,
        latent_dim=4,
        hidden_units=(24, 24, 16),
        network="spectrogram",
        mask_exponent=2.0,
        mask_channels=(4, 6, 8),
    )
    preset = Preset(config, DataConfig("tones"), Recipe(), AUDIO)
    run = Run.create(tmp_path_factory.mktemp("runs") / "tones", preset, "vae")
    keras.utils.set_random_seed(1)
    model = MultiSourceVAE(config)
    head = model.mask_network.head.kernel  # zero at the start
    head.assign(np.random.default_rng(2).normal(scale=2.0, size=head.shape))
    model.save(run.path / "model.keras")
    write_json(run.path / "metrics.json", {"mixtures": 1})
    return run


@pytest.fixture(scope="module")
def exported_audio(audio_run, tmp_path_factory):
    target = tmp_path_factory.mktemp("exports") / "tones"
    spectrograms = ["tflite_float32", "tflite_float16", "tflite_full_int8"]
    formats = [*spectrograms, "tflite_waveform", "tflite_waveform_float16", "onnx_waveform"]
    assert main(["--run", str(audio_run.path), "--to", str(target), "--formats", *formats]) == 0
    return target


@pytest.fixture(scope="module")
def waveforms():
    return np.random.default_rng(3).uniform(-1, 1, (3, AUDIO.num_samples)).astype(np.float32)


@pytest.fixture(scope="module")
def expected(audio_run, waveforms):
    return spectrogram.separate_waveforms(waveforms, audio_run.model().separate, AUDIO)


@pytest.mark.parametrize(("file", "tolerance"), [("waveform", 1e-5), ("waveform_float16", 5e-3)])
def test_tflite_from_waveform_to_waveforms(file, tolerance, exported_audio, waveforms, expected):
    separate = Interpreter(model_path=str(exported_audio / f"{file}.tflite")).get_signature_runner("separate")
    found = np.concatenate([separate(mixture=waveform[np.newaxis])["sources"] for waveform in waveforms])
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(found.sum(axis=1), waveforms, atol=1e-5)


def test_onnx_from_waveform_to_waveforms(exported_audio, waveforms, expected):
    session = onnxruntime.InferenceSession(exported_audio / "waveform.onnx")
    (found,) = session.run(["sources"], {"mixture": waveforms})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert set(operations(exported_audio / "waveform.onnx")) <= ALLOWED_OPERATIONS


def test_the_guide_puts_windows_together_as_a_stream_is(exported_audio, monkeypatch):
    guide = (Path(__file__).parents[2] / "docs/export.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "put_together" in block)
    names: dict = {}
    exec(code.replace("exported/takes", str(exported_audio)), names)
    separator = Separator(load(exported_audio / "float32.tflite"), AUDIO)
    for length in (AUDIO.num_samples // 2, 5_000, 7 * AUDIO.num_samples):
        waveform = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
        expected = np.concatenate(list(separator.stream([waveform[:, np.newaxis]], AUDIO.sample_rate, 1)))
        found, hop = names["put_together"](waveform), AUDIO.num_samples // 4
        at_once = slice(hop, 2 * hop)  # which a stream answers from the first window alone
        np.testing.assert_allclose(*(np.delete(x, at_once, axis=1) for x in (found, expected[..., 0].T)), atol=1e-3)


def test_of_waveforms_half_precision_is_that_of_the_network_alone(exported_audio, weight_types):
    """The transform's matrices in float16 would not give the mixture back."""
    types = weight_types(exported_audio / "waveform_float16.tflite", schema.BuiltinOperator.FULLY_CONNECTED)
    assert types == {schema.TensorType.FLOAT16, schema.TensorType.FLOAT32}
    sizes = [(exported_audio / f"{name}.tflite").stat().st_size for name in ("waveform_float16", "waveform")]
    assert sizes[0] < sizes[1]


def test_half_precision_is_that_of_every_matrix(exported_audio, weight_types):
    file = exported_audio / "float16.tflite"
    assert weight_types(file, schema.BuiltinOperator.FULLY_CONNECTED) == {schema.TensorType.FLOAT16}


def test_the_manifest_has_the_settings_of_the_sound(exported_audio):
    manifest = json.loads((exported_audio / "manifest.json").read_text())
    assert manifest["preset"]["audio"] == AUDIO.to_dict()
    assert manifest["signatures"]["waveform"]["inputs"]["mixture"]["shape"] == ["batch", AUDIO.num_samples]
    assert manifest["formats"]["tflite_waveform"]["max_abs_error"]["sources"] <= 1e-5
    assert load(exported_audio / "float32.tflite").metadata.preset.audio == AUDIO


def test_the_runtime_takes_spectrograms(exported_audio):
    with pytest.raises(CheckpointError, match="load its form for spectrograms"):
        load(exported_audio / "waveform.onnx")


def test_an_export_of_waveform_files_alone_says_what_it_lacks(exported_audio, tmp_path):
    manifest = json.loads((exported_audio / "manifest.json").read_text())
    formats = {"tflite_waveform": manifest["formats"]["tflite_waveform"]}
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "formats": formats}))
    with pytest.raises(ConfigError, match="tflite_waveform alone, which take waveforms"):
        load(tmp_path)


def test_the_card_tells_which_files_take_waveforms(exported_audio):
    card = " ".join((exported_audio / "README.md").read_text().split())
    assert "Every file but those that take waveforms in [-1, 1] and give `sources` alone has the same names" in card


def test_the_card_has_band_window_licence_and_code_that_separates_a_recording(exported_audio, tmp_path, monkeypatch):
    card = (exported_audio / "README.md").read_text()
    told = " ".join(card.split())
    assert "hears up to 1,875 Hz: it works at 4,000.0 Hz, in windows of 0.26 s (1,024 samples)" in told
    assert "The training data: Apache-2.0, synthesised by vae-bss-tf." in told
    (code,) = (part.split("```")[0] for part in card.split("```python\n") if "Separator" in part.split("```")[0])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tones").symlink_to(exported_audio)
    recording = np.random.default_rng(4).uniform(-0.5, 0.5, 8_000)
    soundfile.write("recording.wav", recording, 8_000)
    exec(code, {})
    sources = [soundfile.read(f"stems/recording_source{k}.wav")[0] for k in (1, 2)]
    np.testing.assert_allclose(sum(sources), recording, atol=1e-4)


def test_the_benchmark_says_how_fast_against_the_sound(exported_audio):
    rows = {row["format"]: row for row in benchmark.measure(exported_audio, threads=[1], calls=1)}
    window = AUDIO.num_samples / AUDIO.sample_rate
    assert rows["onnx_waveform"]["algorithmic_latency_seconds"] == window
    assert rows["onnx_waveform"]["real_time_factor"] == rows["onnx_waveform"]["median_ms"] / 1e3 / window
    assert "real_time_factor" not in rows["tflite_float32"]


def test_images_have_no_waveform(run, capsys, tmp_path):
    arguments = ["--run", str(run.path), "--to", str(tmp_path / "out"), "--formats", "tflite_waveform"]
    assert main(arguments) == 2
    assert "no form for waveforms" in capsys.readouterr().err
