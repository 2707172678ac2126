"""Proof that a live separator's files are the model: a minute of sound through each, block by block."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from export.formats import ExportError
from export.live.writers import LIVE_ONNX_OPERATIONS, LIVE_TFLITE_OPERATIONS
from export.writers import onnx, tflite
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.live.runtime import LiveModel, LiveSeparator, State

Float32 = npt.NDArray[np.float32]

SECONDS = 60.0
MAX_ERROR = {"tflite_float32": 1e-5, "onnx_float32": 1e-5, "tflite_float16": 5e-3}
_CALIBRATION_STEPS = 400
LEAST_LIKENESS_DB = 20.0  # of int8's sources to the model's: far above what separation reaches


def program(sample_rate: float) -> Float32:
    """A minute of made sound: two voices of harmonic notes with pauses, a second of noise, and silence.

    Args:
        sample_rate: Hz.

    Returns:
        float32 `[60 * sample_rate]`, in [-1, 1].
    """
    rng = np.random.default_rng(0)
    length = int(SECONDS * sample_rate)
    mixture = np.zeros(length)
    for lowest in (110.0, 330.0):
        start = 0
        while start < length:
            samples = int(rng.uniform(0.2, 1.0) * sample_rate)
            t = np.arange(min(samples, length - start)) / sample_rate
            if rng.uniform() < 0.85:
                pitch = lowest * 2 ** (rng.integers(0, 13) / 12)
                partials = [rng.uniform(0.2, 1) / n * np.sin(2 * np.pi * n * pitch * t) for n in range(1, 12)]
                mixture[start : start + len(t)] += 0.15 * np.exp(-2 * t) * np.sum(partials, axis=0)
            start += samples
    second = int(sample_rate)
    mixture[10 * second : 11 * second] = rng.uniform(-1, 1, second)
    mixture[20 * second : 22 * second] = 0
    return np.clip(mixture, -1, 1).astype(np.float32)


def calibration(model: LiveVAE, waveform: Float32) -> list[State]:
    """Inputs of some steps over a waveform, spread over its whole length.

    Args:
        model: The model.
        waveform: float32 `[samples]`.

    Returns:
        The block and the state before each step, by name.
    """
    import tensorflow as tf

    from vae_bss_tf.live.runtime import BLOCK

    hop = model.config.hop_length
    step = tf.function(model.step, autograph=False)
    state = {name: tf.constant(zero) for name, zero in model.initial_state().items()}
    blocks = len(waveform) // hop
    every, found = max(1, blocks // _CALIBRATION_STEPS), []
    for i in range(blocks):
        block = waveform[np.newaxis, i * hop : (i + 1) * hop]
        if i % every == 0:
            found.append({BLOCK: block, **{name: value.numpy() for name, value in state.items()}})
        _, state = step(tf.constant(block), state)
    return found


def offline(model: LiveVAE, waveform: Float32) -> Float32:
    """What the model makes of a whole waveform in one step.

    Args:
        model: The model.
        waveform: float32 `[samples]`.

    Returns:
        float32 `[num_sources, samples]`, whole blocks.
    """
    hop = model.config.hop_length
    whole = waveform[np.newaxis, : len(waveform) // hop * hop]
    return np.asarray(model.step(whole, model.initial_state())[0])[0]


def check(name: str, loaded: LiveModel, waveform: Float32, expected: Float32) -> dict[str, Any]:
    """Runs a file over a waveform in random portions and compares it with the model.

    Args:
        name: The format.
        loaded: The file.
        waveform: float32 `[samples]`.
        expected: What `offline` gives.

    Returns:
        "max_abs_error", "likeness_db" (SDR of its sources against the model's), "ms_per_block" (median of the process'
        own time), "sum_error" and "operations".

    Raises:
        ExportError: It differs, its sources do not sum to the mixture, or it has an operation that is not allowed.
    """
    is_tflite = name.startswith("tflite")
    operations = tflite.operations(loaded.path) if is_tflite else onnx.operations(loaded.path)
    unknown = set(operations) - (LIVE_TFLITE_OPERATIONS if is_tflite else LIVE_ONNX_OPERATIONS)
    if unknown:
        raise ExportError(f"{name}: has the operations {', '.join(sorted(unknown))}, which are not allowed.")
    separator, rng, found = LiveSeparator(loaded), np.random.default_rng(0), []
    hop, first = loaded.config.hop_length, 0
    started = time.process_time()
    while first < len(waveform):
        portion = waveform[first : first + int(rng.integers(1, 4 * hop))]
        found.append(separator.process(portion))
        first += len(portion)
    seconds = time.process_time() - started
    separated = np.concatenate(found, axis=1)
    error = float(np.abs(separated - expected).max())
    distortion = float(np.square(separated - expected).sum())
    likeness = 10 * np.log10(float(np.square(expected).sum()) / max(distortion, 1e-20))
    delayed = np.concatenate([np.zeros(hop, np.float32), waveform])[: separated.shape[1]]
    sum_error = float(np.abs(separated.sum(axis=0) - delayed).max())
    if not np.isfinite(separated).all() or sum_error > 1e-5:
        raise ExportError(f"{name}: its sources do not sum to the mixture (by {sum_error:.2g}).")
    if name in MAX_ERROR and error > MAX_ERROR[name]:
        raise ExportError(f"{name}: differs from the model by {error:.2g}; at most {MAX_ERROR[name]:g} is allowed.")
    if likeness < LEAST_LIKENESS_DB:
        raise ExportError(f"{name}: its sources are like the model's by {likeness:.1f} dB only.")
    return {
        "max_abs_error": error,
        "likeness_db": round(likeness, 2),
        "sum_error": sum_error,
        "ms_per_block": round(1e3 * seconds / (separated.shape[1] // hop), 4),
        "operations": operations,
    }
