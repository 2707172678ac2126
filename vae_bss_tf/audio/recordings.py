"""Recordings on disk: checked, decoded in blocks, resampled as a stream."""

import dataclasses
import functools
import math
import numbers
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from vae_bss_tf.audio import SUFFIXES
from vae_bss_tf.errors import DataError
from vae_bss_tf.files import find_files

MIN_SECONDS = 0.1
SILENCE = 1e-5  # of full scale: -100 dB
MAX_CHANNELS = 2
BLOCK_SECONDS = 10
MIN_RATE, MAX_RATE = 1_000, 1_000_000  # Hz
MAX_SAMPLE = 2.0**31  # full scale of 32-bit integers that were taken for floats
_MAX_BLOCK = 4_000_000  # samples of all channels
_CANCELLED = 1e-3  # of the loudest sample
_STREAM_BYTES = 0x7FFFF000  # and above: what programs write that do not know the length yet
_PAGE_HEADER, _LARGEST_PAGE = 27, 65_307  # bytes of a page of Ogg: before its table of segments, and of all of it
_LAST_PAGE = 4  # flag in the header
# What libsndfile logs of a header that promises more than the file holds.
_SHORT_DATA = re.compile(r"^\s*(?:data|SSND) : (\d+) \(should be (\d+)\)", re.MULTILINE)
_SHORT_FRAMES = re.compile(r"frame count (\d+) does not match value from 'ds64' chunk of (\d+)")


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


find = functools.partial(find_files, suffixes=SUFFIXES, what="recording")
"""Lists the recordings under a folder, in the order of their paths; see `files.find_files`."""


def describe(path: Path, *, allow_truncated: bool = False) -> Recording:
    """Reads a recording's header.

    Args:
        path: The file.
        allow_truncated: Whether a WAV or AIFF file may hold fewer samples than its header states, and an Ogg file may
            lack its last page; it then counts as a recording of the samples that are there.

    Returns:
        What the header says.

    Raises:
        DataError: The file is missing, unreadable, empty, truncated or no audio, lasts less than 0.1 s, or has a
            sample rate outside 1 kHz to 1 MHz.
    """
    try:
        if not path.is_file():
            raise DataError(f"no file {path}.")
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path} is empty (0 bytes); give a recording.")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); give a recording.") from error
    try:
        info = soundfile.info(os.fsencode(path), verbose=True)
    except soundfile.SoundFileError as error:
        raise DataError(f"{path} cannot be read as audio ({_first_line(error)}); give a recording.") from error
    check_rate(info.samplerate, str(path))
    recording = Recording(path, info.samplerate, info.channels, info.frames, info.format, info.subtype)
    share = _share_present(info.extra_info)
    if share < 1 and not allow_truncated:
        raise DataError(
            f"{path} is truncated: it holds {100 * share:.3g}% of the samples that its header states; fetch it again, "
            "or separate what is there by --allow-truncated of vae_bss_tf.separate."
        )
    if info.format == "OGG" and not allow_truncated and not _ends_as_ogg(path):
        raise DataError(
            f"{path} is truncated: it lacks the last page of an Ogg stream; fetch it again, or separate what is there "
            "by --allow-truncated of vae_bss_tf.separate."
        )
    if recording.seconds < MIN_SECONDS:
        raise DataError(f"{path} holds {info.frames} samples ({recording.seconds:.4f} s); at least 0.1 s are needed.")
    return recording


def blocks(recording: Recording) -> Iterator[npt.NDArray[np.float32]]:
    """Decodes a recording, at most 10 seconds at a time.

    Args:
        recording: As `describe` gives it.

    Yields:
        float32 `[samples, num_channels]`, in [-1, 1].

    Raises:
        DataError: The file is damaged, ends before its header says, or holds samples that `check_samples` refuses.
    """
    path, read = recording.path, 0
    length = max(1, min(BLOCK_SECONDS * recording.sample_rate, _MAX_BLOCK // recording.num_channels))
    try:
        with soundfile.SoundFile(os.fsencode(path)) as file:
            while len(block := file.read(length, "float32", always_2d=True)):
                check_samples(block, str(path))
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


def check_rate(sample_rate: float, name: str) -> None:
    """Checks a sample rate.

    Args:
        sample_rate: The rate, Hz.
        name: What has it, for the message.

    Raises:
        DataError: It is no number from 1 kHz to 1 MHz.
    """
    if not isinstance(sample_rate, numbers.Real) or not MIN_RATE <= sample_rate <= MAX_RATE:  # NaN included
        raise DataError(f"{name} has a sample rate of {sample_rate!r} Hz; give {MIN_RATE:,} to {MAX_RATE:,}.")


def check_channels(name: str, num_channels: int) -> None:
    """Refuses what has another number of channels than a separator takes.

    Args:
        name: What it is, for the message.
        num_channels: Its channels.

    Raises:
        DataError: They are not one or two.
    """
    if not 1 <= num_channels <= MAX_CHANNELS:
        raise DataError(f"{name} has {num_channels} channels; one or two are separated: mix it down first.")


def check_samples(block: npt.NDArray[np.float32], name: str) -> None:
    """Checks samples.

    Args:
        block: float32, any shape.
        name: Where they come from, for the message.

    Raises:
        DataError: A sample is NaN, infinite, or above 2^31 in magnitude, where full scale is 1.
    """
    peak = float(np.abs(block).max(initial=0))
    if not math.isfinite(peak):
        raise DataError(f"{name} holds NaN or infinite samples; repair it, or leave it out.")
    if peak > MAX_SAMPLE:
        raise DataError(f"{name} holds a sample of {peak:.3g}; scale it to [-1, 1] first.")


def checked(
    given: Iterable[npt.NDArray[np.float32]], num_channels: int, name: str
) -> Iterator[npt.NDArray[np.float32]]:
    """Passes on blocks, and refuses what cannot be separated.

    Args:
        given: What should be float32 `[samples, num_channels]`.
        num_channels: Channels of each block.
        name: What they are of, for the message.

    Yields:
        The blocks.

    Raises:
        DataError: A block is of another shape or type, or as `check_samples`; at their end, every sample is silent, or
            the channels cancel each other out.
    """
    return not_cancelled(_sounding(given, num_channels, name), name)


def _sounding(
    given: Iterable[npt.NDArray[np.float32]], num_channels: int, name: str
) -> Iterator[npt.NDArray[np.float32]]:
    silent = True
    for block in given:
        if not isinstance(block, np.ndarray) or block.dtype != np.float32:
            kind = block.dtype if isinstance(block, np.ndarray) else type(block).__name__
            raise DataError(f"a block of {name} is of type {kind}; give float32 arrays.")
        if block.ndim != 2 or block.shape[1] != num_channels:
            raise DataError(f"a block of {name} has shape {block.shape}; it must be [n, {num_channels}].")
        check_samples(block, name)
        silent = silent and np.abs(block).max(initial=0) < SILENCE
        yield block
    if silent:
        raise DataError(f"{name} is silent; there is nothing to separate.")


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
        yield resampler.resample_chunk(block).reshape(-1, num_channels)
    yield resampler.resample_chunk(np.zeros((0, num_channels), np.float32), last=True).reshape(-1, num_channels)


def mono(recording: Recording, sample_rate: float) -> Iterator[npt.NDArray[np.float32]]:
    """Decodes a recording as the mean of its channels, at another rate.

    Args:
        recording: As `describe` gives it.
        sample_rate: Rate wanted, Hz.

    Yields:
        float32 `[samples]`, in blocks.

    Raises:
        DataError: As `blocks`; or the channels cancel each other out.
    """
    heard = not_cancelled(blocks(recording), str(recording.path))
    mixed = (block.mean(axis=1, keepdims=True) for block in heard)
    for block in resampled(mixed, recording.sample_rate, sample_rate, 1):
        yield block[:, 0]


def not_cancelled(given: Iterable[npt.NDArray[np.float32]], name: str) -> Iterator[npt.NDArray[np.float32]]:
    """Passes on blocks, and refuses at their end channels of which the mean holds no more than what rounding leaves.

    Args:
        given: float32 `[samples, channels]`.
        name: Of the recording, for the message.

    Yields:
        The blocks.

    Raises:
        DataError: The channels cancel each other out.
    """
    loudest = loudest_mean = 0.0
    for block in given:
        loudest = max(loudest, float(np.abs(block).max(initial=0)))
        loudest_mean = max(loudest_mean, float(np.abs(block.mean(axis=1)).max(initial=0)))
        yield block
    if loudest_mean < _CANCELLED * loudest:
        raise DataError(f"the channels of {name} cancel each other out; take one of them alone.")


def _share_present(log: str) -> float:
    """The share of the samples stated in a header that is in the file, from libsndfile's log of it."""
    if match := _SHORT_DATA.search(log):
        stated, present = int(match[1]), int(match[2])
        return 1.0 if stated >= _STREAM_BYTES else min(1.0, present / max(stated, 1))
    if match := _SHORT_FRAMES.search(log):
        return min(1.0, int(match[1]) / max(int(match[2]), 1))
    return 1.0


def _ends_as_ogg(path: Path) -> bool:
    """Whether the last page of an Ogg file is there in full and says that it is the last (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LARGEST_PAGE))
        page = file.read()[-_LARGEST_PAGE:]
    page = page[max(page.rfind(b"OggS"), 0) :]
    if len(page) < _PAGE_HEADER or not page.startswith(b"OggS") or not page[5] & _LAST_PAGE:
        return False
    count = page[_PAGE_HEADER - 1]  # of segments; a last page may have none
    segments = page[_PAGE_HEADER : _PAGE_HEADER + count]
    return len(page) >= _PAGE_HEADER + count + sum(segments)


def _first_line(error: Exception) -> str:
    text = getattr(error, "error_string", str(error)).strip() or "the decoder gives no reason"
    return text.splitlines()[0].removeprefix("Error : ").rstrip(".")
