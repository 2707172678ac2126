"""Notes that the package synthesises: harmonic tones of random pitch, timbre and envelope. No file is needed."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.errors import DataError

NUM_NOTES = {"train": 3_000, "validation": 500, "test": 1_000}
LOWEST_PITCH, HIGHEST_PITCH = 48, 84  # MIDI: 131 Hz to 1,047 Hz
_SEEDS = {"train": 0, "validation": 1, "test": 2}
_NUM_HARMONICS = 12
_CHUNK = 250  # notes synthesised at once

Array = npt.NDArray[np.float32]


def load(split: str, data_dir: Path | None, audio: AudioConfig) -> SourceBank:
    """Synthesises a split: 3,000 notes to train on, 500 for validation, 1,000 for the test, always the same.

    Args:
        split: "train", "validation" or "test".
        data_dir: Must be None: nothing is read.
        audio: Rate and length of the window.

    Returns:
        float32 `[num_notes, num_samples]`, with a peak of 1; the label is the semitone above the lowest pitch.

    Raises:
        DataError: A data folder is given.
    """
    if data_dir is not None:
        raise DataError("tones are synthesised and take no --data-dir; leave it out, or use --dataset notes.")
    rng = np.random.default_rng(_SEEDS[split])
    notes = [synthesise(rng, _CHUNK, audio) for _ in range(NUM_NOTES[split] // _CHUNK)]
    items, labels = (np.concatenate(parts) for parts in zip(*notes, strict=True))
    return SourceBank("tones", split, items, labels, 1.0)


def synthesise(rng: np.random.Generator, num_notes: int, audio: AudioConfig) -> tuple[Array, npt.NDArray[np.int64]]:
    """Synthesises notes, each of its own pitch, timbre, envelope, vibrato and attack noise.

    A note is the sum of its harmonics below half the sample rate; their levels fall by 3 to 15 dB an octave, even
    ones may be weak, and in a plucked note the high ones fade first. The pitch is a tempered semitone up to
    15 cents off, with a vibrato of 4 to 7 Hz and up to 25 cents in two notes of three.

    Args:
        rng: Source of all randomness.
        num_notes: How many.
        audio: Rate and length of the window.

    Returns:
        float32 `[num_notes, num_samples]` with a peak of 1, starting at the first sample, and int64 `[num_notes]`,
        semitones above the lowest pitch.
    """

    def uniform(low: float, high: float) -> npt.NDArray[np.float64]:
        return rng.uniform(low, high, size=(num_notes, 1))

    rate = audio.sample_rate
    time = np.arange(audio.num_samples)[np.newaxis] / rate
    semitones = rng.integers(HIGHEST_PITCH - LOWEST_PITCH + 1, size=(num_notes, 1))
    frequency = 440 * 2 ** ((LOWEST_PITCH + semitones + uniform(-0.15, 0.15) - 69) / 12)
    depth = np.where(uniform(0, 1) < 2 / 3, uniform(0, 0.25), 0) / 12  # octaves
    vibrato = np.sin(2 * np.pi * uniform(4, 7) * time + uniform(0, 2 * np.pi)) * np.minimum(time / 0.3, 1)
    phase = 2 * np.pi * np.cumsum(frequency * 2 ** (depth * vibrato), axis=1) / rate

    plucked = uniform(0, 1) < 0.4
    attack = np.where(plucked, uniform(0.002, 0.01), uniform(0.02, 0.12))
    duration = uniform(0.4, 1.4)
    fade = np.where(plucked, uniform(2, 7), uniform(0, 1))  # 1/s
    tilt = uniform(0.5, 2.5)
    even = np.where(uniform(0, 1) < 0.4, uniform(0.05, 0.5), 1)
    sustain = np.minimum(time / attack, 1) * np.clip((duration - time) / 0.08, 0, 1) * np.exp(-fade * time)

    # sin((h + 1) x) = 2 cos(x) sin(h x) - sin((h - 1) x)
    twice_cosine, current, previous = 2 * np.cos(phase), np.sin(phase), np.zeros_like(phase)
    waveform = np.zeros_like(phase)
    fading = np.exp(-0.5 * fade * plucked * time)
    for harmonic in range(1, _NUM_HARMONICS + 1):
        level = harmonic**-tilt * uniform(0.5, 1) * np.where(harmonic % 2, 1, even)
        audible = harmonic * frequency * 2**0.03 < rate / 2
        waveform += level * audible * current * fading ** (harmonic - 1)
        current, previous = twice_cosine * current - previous, current
    burst = rng.normal(size=phase.shape) * np.exp(-time / uniform(0.005, 0.02)) * uniform(0, 0.1)
    waveform = (waveform / np.abs(waveform).max(axis=1, keepdims=True) + burst) * sustain
    waveform /= np.abs(waveform).max(axis=1, keepdims=True)
    return waveform.astype(np.float32), semitones[:, 0].astype(np.int64)
