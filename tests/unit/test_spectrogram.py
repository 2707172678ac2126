"""The spectrogram against librosa and scipy, in NumPy and in TensorFlow, and through TFLite and ONNX."""

import types
from pathlib import Path

import keras
import librosa
import numpy as np
import pytest
import scipy.signal
import tensorflow as tf

from export.writers.tflite import operations
from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import ConfigError

PAPER = AudioConfig()
FORMS = pytest.mark.parametrize(
    ("ops", "fft"),
    [(np, True), (np, False), (keras.ops, True), (keras.ops, False)],
    ids=["numpy-fft", "numpy-product", "tensorflow-fft", "tensorflow-product"],
)
TINY = AudioConfig(n_fft=16, hop_length=4, num_frames=8, num_bins=8, frame_pooling=2, power=0.5)


@pytest.fixture(scope="module")
def waveforms() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).normal(size=(2, PAPER.num_samples))).astype(np.float32)


@FORMS
def test_stft_equals_librosa_and_scipy(waveforms: np.ndarray, ops: types.ModuleType, fft: bool) -> None:
    real, imaginary = (np.asarray(part) for part in spectrogram.stft(waveforms, PAPER, ops, fft=fft))
    assert real.dtype == np.float32
    assert real.shape == (2, 128, 257)
    expected = librosa.stft(waveforms, n_fft=512, hop_length=64, center=True, pad_mode="constant")
    expected = expected[:, :, :128].transpose(0, 2, 1)
    assert np.abs(real + 1j * imaginary - expected).max() < 1e-5
    window = scipy.signal.get_window("hann", 512)
    transform = scipy.signal.ShortTimeFFT(window, hop=64, fs=PAPER.sample_rate)
    expected = transform.stft(waveforms, p0=0, p1=128).transpose(0, 2, 1)
    # scipy takes each frame's phase from the window's start or centre; the magnitude is free of that choice.
    assert np.abs(np.hypot(real, imaginary) - np.abs(expected)).max() < 1e-5


@FORMS
@pytest.mark.parametrize("config", [PAPER, TINY], ids=["paper", "tiny"])
def test_inverse_is_exact(waveforms: np.ndarray, config: AudioConfig, ops: types.ModuleType, fft: bool) -> None:
    window = waveforms[:, : config.num_samples]
    real, imaginary = spectrogram.stft(window, config, ops, fft=fft)
    restored = np.asarray(spectrogram.istft(real, imaginary, config, ops, fft=fft))
    assert restored.shape == window.shape
    assert restored.dtype == np.float32
    assert np.abs(restored - window).max() < 1e-6


def test_inverse_equals_librosa(waveforms: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    real, imaginary = spectrogram.stft(waveforms, PAPER)
    mask = rng.uniform(size=real.shape).astype(np.float32)
    restored = spectrogram.istft(real * mask, imaginary * mask, PAPER)
    masked = ((real + 1j * imaginary) * mask).transpose(0, 2, 1)
    expected = librosa.istft(masked, hop_length=64, n_fft=512, center=True, length=PAPER.num_samples)
    assert np.abs(restored - expected).max() < 1e-5


def test_features_are_in_the_unit_interval_and_do_not_depend_on_level(waveforms: np.ndarray) -> None:
    config = PAPER.replace(power=0.5, frame_pooling=4)
    loud = spectrogram.features(*spectrogram.stft(waveforms, config), config)
    quiet = spectrogram.features(*spectrogram.stft(waveforms * np.float32(0.01), config), config)
    assert loud.shape == (2, *config.feature_shape) == (2, 32, 256)
    assert loud.dtype == np.float32
    assert loud.min() >= 0
    assert loud.max(axis=(1, 2)) == pytest.approx(1)
    assert np.abs(loud - quiet).max() < 1e-5


def test_features_of_silence_are_zero() -> None:
    silence = np.zeros((1, TINY.num_samples), np.float32)
    assert not spectrogram.features(*spectrogram.stft(silence, TINY), TINY).any()


def test_expand_undoes_compress() -> None:
    config = TINY.replace(power=0.3)
    magnitude = np.linspace(0, 1, 101, dtype=np.float32)
    compressed = spectrogram.compress(magnitude, config)
    assert compressed[[0, -1]] == pytest.approx([0, 1])
    assert np.abs(spectrogram.expand(compressed, config) - magnitude).max() < 1e-5


def test_masks_are_the_sources_share_of_the_magnitude() -> None:
    sources = np.random.default_rng(2).uniform(size=(1, 3, *TINY.feature_shape)).astype(np.float32)
    sources[:, :, 0] = 0
    masks = spectrogram.source_masks(sources, TINY)
    assert masks.shape == (1, 3, 8, 9)
    assert masks.sum(axis=1) == pytest.approx(1)
    assert masks[0, :, 1] == pytest.approx(1 / 3)
    magnitude = sources**2
    expected = magnitude[:, :, 1] / magnitude[:, :, 1].sum(axis=1, keepdims=True)
    assert masks[:, :, 2, :8] == pytest.approx(expected, abs=1e-5)
    assert np.array_equal(masks[:, :, 2, 8], masks[:, :, 3, 7])


@FORMS
def test_separated_waveforms_sum_to_the_mixture(waveforms: np.ndarray, ops: types.ModuleType, fft: bool) -> None:
    weights = np.random.default_rng(3).uniform(size=(1, 3, 1, 256)).astype(np.float32)

    def separate(mixtures: np.ndarray) -> np.ndarray:
        return ops.expand_dims(mixtures, 1) * weights

    sources = np.asarray(spectrogram.separate_waveforms(waveforms, separate, PAPER, ops, fft=fft))
    assert sources.shape == (2, 3, PAPER.num_samples)
    assert np.abs(sources.sum(axis=1) - waveforms).max() < 1e-5


@pytest.mark.parametrize(
    "changes",
    [{"n_fft": 10}, {"n_fft": 4}, {"num_bins": 10}, {"frame_pooling": 3}, {"power": 0}],
    ids=lambda changes: next(iter(changes)),
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        TINY.replace(**changes)


def test_waveform_to_waveform_converts_with_builtin_operations(tmp_path: Path) -> None:
    import onnxruntime
    import tf2onnx
    from ai_edge_litert.interpreter import Interpreter

    weights = np.linspace(0.1, 1, 2 * TINY.num_bins, dtype=np.float32).reshape(1, 2, 1, -1)

    @tf.function(input_signature=[tf.TensorSpec([1, TINY.num_samples], tf.float32, name="mixture")])
    def separate(mixture: tf.Tensor) -> dict[str, tf.Tensor]:
        def model(mixtures: tf.Tensor) -> tf.Tensor:
            return keras.ops.expand_dims(mixtures, 1) * weights

        return {"sources": spectrogram.separate_waveforms(mixture, model, TINY, keras.ops, fft=False)}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([separate.get_concrete_function()])
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    tf2onnx.convert.from_function(separate, separate.input_signature, opset=18, output_path=tmp_path / "model.onnx")
    mixture = np.random.default_rng(4).uniform(-1, 1, (1, TINY.num_samples)).astype(np.float32)
    expected = spectrogram.separate_waveforms(mixture, lambda x: x[:, None] * weights, TINY)

    interpreter = Interpreter(str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    assert not any(name.startswith(("Flex", "CUSTOM")) for name in operations(tmp_path / "model.tflite"))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], mixture)
    interpreter.invoke()
    tflite = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert np.abs(tflite - expected).max() < 1e-5

    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    onnx = session.run(None, {session.get_inputs()[0].name: mixture})[0]
    assert np.abs(onnx - expected).max() < 1e-5
