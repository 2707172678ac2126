"""Makes the sample picture and recording of the repository: `python -m benchmarks.sample --output sample`."""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.files import refuse_existing, replacing

DIGITS = (817, 1_358)  # of scikit-learn's: a four and a five, a pair that separates well
STROKE = (0.4, 0.73)  # brightness that becomes black, and white: enlarged, the digits are blurred
SIDE, DIGIT_SIDE = 112, 80  # pixels

SAMPLE_RATE = 11_025  # Hz
BEAT = 0.6  # seconds
PEAK = 0.9


@dataclasses.dataclass(frozen=True)
class Part:
    """What one instrument of the duet plays, and how it sounds.

    Attributes:
        keynote: Its keynote as a MIDI number.
        notes: Pitch in semitones above the keynote, and length in beats, of each note.
        tilt: The level of harmonic h is h to the power of -tilt.
        attack: Seconds in which a note sets in.
        decay: Rate at which a note fades, 1/s.
        vibrato: Depth of the vibrato of 5 Hz, cents.
    """

    keynote: int
    notes: tuple[tuple[int, float], ...]
    tilt: float
    attack: float
    decay: float
    vibrato: float


# The first phrase of Beethoven's "Ode to Joy" in A major, over a bass line.
FLUTE = Part(
    81,
    (
        *((4, 1), (4, 1), (5, 1), (7, 1), (7, 1), (5, 1), (4, 1), (2, 1)),
        *((0, 1), (0, 1), (2, 1), (4, 1), (4, 1.5), (2, 0.5), (2, 2)),
    ),
    tilt=3,
    attack=0.06,
    decay=0.3,
    vibrato=15,
)
BASS = Part(
    45,
    ((0, 2), (2, 1), (4, 1), (7, 2), (-5, 2), (-3, 2), (-5, 1), (0, 1), (-5, 1.5), (7, 0.5), (-5, 2)),
    tilt=2,
    attack=0.06,
    decay=0.8,
    vibrato=0,
)


def overlay() -> npt.NDArray[np.uint8]:
    """Lays two of scikit-learn's digits over each other, each at half its brightness.

    Returns:
        uint8 `[112, 112]`. In the middle 80 x 80 pixels are the digits, enlarged from 8 x 8 by bicubic interpolation,
        with more contrast.
    """
    from sklearn.datasets import load_digits

    images = load_digits().images
    margin = (SIDE - DIGIT_SIDE) // 2
    mixture = np.zeros((SIDE, SIDE), np.float32)
    for index in DIGITS:
        small = Image.fromarray((images[index] / 16).astype(np.float32))
        digit = np.asarray(small.resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC))
        drawn = np.clip((np.asarray(digit) - STROKE[0]) / (STROKE[1] - STROKE[0]), 0, 1)
        mixture[margin : margin + DIGIT_SIDE, margin : margin + DIGIT_SIDE] += drawn / 2
    return np.round(255 * mixture).astype(np.uint8)


def duet() -> npt.NDArray[np.float64]:
    """Synthesises a duet: a melody as of a flute, and a bass line.

    Returns:
        float64 `[2, 105840]`, the two instruments at 11,025 Hz, each of the same mean power. Their sum is the recording
        and has a peak of 0.9.
    """
    parts = np.stack([_played(part) for part in (FLUTE, BASS)])
    parts /= np.sqrt(np.mean(np.square(parts), axis=1, keepdims=True))
    return PEAK * parts / np.abs(parts.sum(axis=0)).max()


def _played(part: Part) -> npt.NDArray[np.float64]:
    """The notes of a part, one after the other."""
    notes = [_note(part, part.keynote + semitones, beats * BEAT) for semitones, beats in part.notes]
    return np.concatenate(notes)


def _note(part: Part, pitch: int, seconds: float) -> npt.NDArray[np.float64]:
    """One note of a MIDI number, with a mean power of 1 before it sets in and fades."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = 440 * 2 ** ((pitch - 69) / 12)
    octaves = part.vibrato / 1200 * np.sin(2 * np.pi * 5 * time) * np.minimum(time / 0.3, 1)
    phase = 2 * np.pi * np.cumsum(frequency * 2**octaves) / SAMPLE_RATE
    harmonics = np.arange(1, int(SAMPLE_RATE / 2 / (1.03 * frequency)) + 1.0)[:, np.newaxis]
    # Each harmonic begins at a phase of its own, so that the waveform has no pulses.
    waveform = np.sum(harmonics**-part.tilt * np.sin(harmonics * phase + 1.3 * harmonics**2), axis=0)
    envelope = np.minimum(time / part.attack, 1) * np.clip((seconds - time) / 0.06, 0, 1) * np.exp(-part.decay * time)
    return waveform / np.sqrt(np.mean(np.square(waveform))) * envelope


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.sample",
        description="Makes the samples: an overlay of two digits that ship with scikit-learn, a synthesised duet.",
        epilog="example: python -m benchmarks.sample --output sample",
    )
    parser.add_argument("--output", required=True, type=Path, help="folder to write overlay.png and duet.wav to")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    return parser


def _write(options: argparse.Namespace) -> None:
    import soundfile

    folder: Path = options.output
    picture, recording = folder / "overlay.png", folder / "duet.wav"
    refuse_existing([picture, recording], force=options.force)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(picture) as partial:
        Image.fromarray(overlay()).save(partial, format="PNG", optimize=True)
    with replacing(recording) as partial:
        soundfile.write(partial, duet().sum(axis=0), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    print(f"{picture}\n{recording}")
    print(f"next: python -m vae_bss_tf.separate {recording} --model saved_models/duets --output stems")


main = command(_parser, _write)


if __name__ == "__main__":
    sys.exit(main())
