"""Recordings on disk: checked, decoded in blocks, resampled as a stream."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from vae_bss_tf.errors import DataError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif")
MIN_SECONDS = 0.1
BLOCK_SECONDS = 10


@dataclasses.dataclass(frozen=True)
class Recording:
    """What a recording's header says.

    Attributes:
        path: The file.
        sample_rate: Samples a second, Hz.
        num_channels: Channels.
        num_samples: Samples of one channel.
        format: The container, as soundfile names it, such as "WAV".
        subtype: The coding of a sample, as soundfile names it, such as "PCM_16".
    """

    path: Path
    sample_rate: int
    num_channels: int
    num_samples: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.num_samples / self.sample_rate


def find(folder: Path) -> list[Path]:
    """Lists the recordings under a folder, in the order of their paths.

    Args:
        folder: The folder; those inside it are searched too.

    Returns:
        Files whose name ends in one of `SUFFIXES`, in either case.

    Raises:
        DataError: There is no such folder, or no recording under it.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; name one that holds recordings ({', '.join(SUFFIXES)}).")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise DataError(f"{folder} holds no recording ({', '.join(SUFFIXES)}); name the folder that does.")
    return paths


def describe(path: Path) -> Recording:
    """Reads a recording's header.

    Args:
        path: The file.

    Returns:
        What it says.

    Raises:
        DataError: There is no such file, it is empty, it is no audio, or it is shorter than 0.1 s.
    """
    if not path.is_file():
        raise DataError(f"no file {path}.")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); give a recording.")
    try:
        info = soundfile.info(path)
    except soundfile.SoundFileError as error:
        raise DataError(f"{path} cannot be read as audio ({_first_line(error)}); give a recording.") from error
    recording = Recording(path, info.samplerate, info.channels, info.frames, info.format, info.subtype)
    if recording.seconds < MIN_SECONDS:
        raise DataError(f"{path} holds {info.frames} samples ({recording.seconds:.4f} s); at least 0.1 s are needed.")
    return recording


def blocks(recording: Recording) -> Iterator[npt.NDArray[np.float32]]:
    """Decodes a recording, 10 seconds at a time.

    Args:
        recording: As `describe` gives it.

    Yields:
        float32 `[samples, num_channels]`, in [-1, 1].

    Raises:
        DataError: The file is damaged, ends before its header says, or holds NaN or infinite values.
    """
    path, read = recording.path, 0
    try:
        with soundfile.SoundFile(path) as file:
            while len(block := file.read(BLOCK_SECONDS * recording.sample_rate, "float32", always_2d=True)):
                if not np.isfinite(block).all():
                    raise DataError(f"{path} holds NaN or infinite samples; repair or leave out the file.")
                read += len(block)
                yield block
    except soundfile.SoundFileError as error:
        raise DataError(
            f"{path} is damaged after {read / recording.sample_rate:.1f} s ({_first_line(error)}); fetch it again."
        ) from error
    if read < recording.num_samples:
        raise DataError(
            f"{path} is truncated: {read:,} samples of the {recording.num_samples:,} that its header states; "
            "fetch it again."
        )


def resampled(
    stream: Iterator[npt.NDArray[np.float32]], from_rate: float, to_rate: float, num_channels: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Changes the rate of a stream of blocks (soxr, high quality; the delay is taken out).

    Args:
        stream: Blocks, float32 `[samples, num_channels]`.
        from_rate: Rate of the blocks, Hz.
        to_rate: Rate wanted, Hz.
        num_channels: Channels of a block.

    Yields:
        float32 `[samples, num_channels]`; in all `to_rate / from_rate` times as many samples, rounded.
    """
    resampler = soxr.ResampleStream(from_rate, to_rate, num_channels, dtype="float32", quality="HQ")
    for block in stream:
        yield _as_columns(resampler.resample_chunk(block), num_channels)
    yield _as_columns(resampler.resample_chunk(np.zeros((0, num_channels), np.float32), last=True), num_channels)


def mono(recording: Recording, sample_rate: float) -> Iterator[npt.NDArray[np.float32]]:
    """Decodes a recording as the mean of its channels, at another rate.

    Args:
        recording: As `describe` gives it.
        sample_rate: Rate wanted, Hz.

    Yields:
        float32 `[samples]`, in blocks.

    Raises:
        DataError: As `blocks`.
    """
    mixed = (block.mean(axis=1, keepdims=True) for block in blocks(recording))
    for block in resampled(mixed, recording.sample_rate, sample_rate, 1):
        yield block[:, 0]


def _as_columns(block: npt.NDArray[np.float32], num_channels: int) -> npt.NDArray[np.float32]:
    return block.reshape(-1, num_channels)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].removeprefix("Error : ").rstrip(".")
