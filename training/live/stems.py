"""What the offline separator makes of recordings: the stems that a live one learns from."""

import dataclasses
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio.context import weights_of
from vae_bss_tf.audio.recordings import Recording, describe, mono
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.datasets.decoded import decoded
from vae_bss_tf.datasets.recordings import split_files
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.live.runtime import LiveSeparator, is_live
from vae_bss_tf.live.runtime import load as load_live

Float32 = npt.NDArray[np.float32]

SECONDS = 3.0  # of an excerpt
SILENCE = 1e-4  # of full scale
PITCH_SHIFTS = (-2.0, 0.0, 2.0)  # semitones, of what is trained on
_LOWEST, _HIGHEST = 50.0, 1_600.0  # Hz
_FRAME = 1_024  # samples that a pitch is measured on
_LOUD = 0.1  # of the loudest frame's level: quieter ones have no say in the pitch


@dataclasses.dataclass(frozen=True)
class Stems:
    """Excerpts of separated recordings, which stay on the disk until they are drawn.

    Attributes:
        parts: The excerpts of each folder, float32 `[excerpts, num_sources, samples]`, in [-1, 1].
        recordings: int64 `[num_excerpts]`, the recording that each is of.
        pitches: float64 `[num_excerpts, num_sources]`, the median pitch in semitones above 1 Hz; NaN for silence.
    """

    parts: tuple[Float32, ...]
    recordings: npt.NDArray[np.int64]
    pitches: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of sources and samples of an excerpt."""
        return self.parts[0].shape[1:]

    def excerpt(self, index: int) -> Float32:
        """One excerpt, float32 `[num_sources, samples]`."""
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    @property
    def checksum(self) -> int:
        """Of the pitches of all excerpts and of the recordings that these are of: other recordings have another."""
        return zlib.crc32(self.pitches.tobytes() + self.recordings.tobytes())

    @classmethod
    def joined(cls, stems: Sequence["Stems"]) -> "Stems":
        """Puts the stems of several folders together.

        Args:
            stems: One or more.

        Raises:
            ConfigError: Their teachers have different numbers of sources.
        """
        if len({one.shape for one in stems}) > 1:
            raise ConfigError("the teachers have different numbers of sources; give those of one number.")
        first = np.cumsum([0, *(int(one.recordings.max()) + 1 for one in stems[:-1])])
        return cls(
            tuple(part for one in stems for part in one.parts),
            np.concatenate([one.recordings + offset for one, offset in zip(stems, first, strict=True)]),
            np.concatenate([one.pitches for one in stems]),
        )


def load(data_dir: Path, teacher: Path, split: str, sample_rate: float) -> Stems:
    """Separates the recordings of a split, once: later trainings open what is in the cache.

    Args:
        data_dir: A folder of recordings that are mixtures, split as `--dataset mixtures` splits it.
        teacher: The model that separates them: offline, as `Separator.load` takes it, or live, as its run or export.
        split: "train" or "validation".
        sample_rate: Rate of the stems, Hz.

    Returns:
        Excerpts of 3 s; the last of a recording is filled up with zeros. Those to train on stand there at several
        pitches.

    Raises:
        CheckpointError: There is no teacher, or it is damaged.
        ConfigError: The teacher is no model of audio.
        DataError: The folder is missing or holds too little, or a recording is damaged or silent.
    """
    recordings = [describe(path) for path in split_files(data_dir, split, of_mixtures=True)]
    separator = LiveSeparator(load_live(teacher)) if is_live(teacher) else Separator.load(teacher)
    shifts = PITCH_SHIFTS if split == "train" else (0.0,)
    length = int(SECONDS * sample_rate)

    def decode(recording: Recording) -> Iterator[Float32]:
        return _excerpts(recording, separator, [sample_rate * 2 ** (-shift / 12) for shift in shifts], length)

    def capacity(recording: Recording) -> int:
        lengths = [recording.seconds * sample_rate * 2 ** (-shift / 12) for shift in shifts]
        return separator.num_sources * sum(int(n / length) + 1 for n in lengths)

    files = [(str(r.path.resolve()), r.path.stat().st_size, r.path.stat().st_mtime_ns) for r in recordings]
    identity = ["stems", sample_rate, shifts, length, checksum_of(teacher), files]
    count = separator.num_sources
    rows, owners = decoded(recordings, decode, capacity, identity, length)
    found, _ = decoded(
        list(rows), lambda stem: iter([np.asarray([median_pitch(stem, sample_rate)])]), lambda _: 1,
        ["pitches", *identity], 1, np.float64, "stem",
    )  # fmt: skip
    return Stems((rows.reshape(-1, count, length),), owners[::count], found.reshape(-1, count))


def median_pitch(stem: Float32, sample_rate: float) -> float:
    """Median pitch of the loud frames of a stem (YIN: de Cheveigné and Kawahara, JASA 2002).

    Args:
        stem: float32 `[samples]`, at least 1,024.
        sample_rate: Its rate, Hz.

    Returns:
        Semitones above 1 Hz; NaN where it is silent.
    """
    import librosa

    if np.abs(stem).max() < SILENCE:
        return float("nan")
    hop = _FRAME
    pitches = librosa.yin(
        stem, fmin=_LOWEST, fmax=_HIGHEST, sr=sample_rate, frame_length=_FRAME, hop_length=hop, center=False
    )
    starts = np.arange(len(pitches)) * hop
    levels = np.asarray([np.sqrt(np.mean(np.square(stem[start : start + _FRAME]))) for start in starts])
    return float(12 * np.log2(np.median(pitches[levels >= _LOUD * levels.max()])))


def _excerpts(
    recording: Recording, separator: LiveSeparator | Separator, rates: Sequence[float], length: int
) -> Iterator[Float32]:
    """Excerpts of one recording's stems, source after source of each."""
    import soxr

    mixture = np.concatenate(list(mono(recording, recording.sample_rate)))
    if np.abs(mixture).max(initial=0) < SILENCE:
        raise DataError(f"{recording.path} is silent; leave it out of the folder.")
    stems = separator.separate(mixture, recording.sample_rate)
    for rate in rates:
        columns = soxr.resample(stems.T, recording.sample_rate, rate)
        columns = np.pad(columns, [(0, -len(columns) % length), (0, 0)])
        for excerpt in columns.reshape(-1, length, len(stems)):
            if np.abs(excerpt.sum(axis=1)).max() >= SILENCE:
                yield from excerpt.T


def checksum_of(teacher: Path, *, context: bool = True) -> str:
    """What stems depend on of a teacher.

    Args:
        teacher: A run of any kind or an export.
        context: Whether a context network that it has corrects them.

    Returns:
        The SHA-256 of an export's manifest, or of a run's settings and weights.

    Raises:
        ConfigError: It is none of these.
    """
    weights = "weights.npz" if is_live(teacher) else "model.keras"
    described = [path for name in ("config.json", weights) if (path := teacher / name).is_file()]
    if len(described) < 2:
        manifests = [folder / "manifest.json" for folder in (teacher, *teacher.resolve().parents[:2])]
        described = [path for path in manifests if path.is_file()][:1]
    if not described:
        raise ConfigError(f"{teacher} is no run and no export; give --teacher one of a model of sound.")
    if context and (found := weights_of(teacher)) is not None:
        described.append(found)
    digest = hashlib.sha256(teacher.name.encode())
    for path in described:
        digest.update(path.read_bytes())
    return digest.hexdigest()
