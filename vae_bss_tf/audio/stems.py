"""One file for each source of a recording: where it goes, how it is coded, and whether it was written whole."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from vae_bss_tf.audio import FORMATS
from vae_bss_tf.audio.familiarity import Familiarity
from vae_bss_tf.audio.recordings import Recording
from vae_bss_tf.checks import check_choice
from vae_bss_tf.errors import ConfigError, DataError

MAX_BYTES = 4_000_000_000  # that the headers of WAV and AIFF can say
_WIDTHS = {"PCM_S8": 1, "PCM_U8": 1, "ULAW": 1, "ALAW": 1, "PCM_16": 2, "PCM_24": 3, "DOUBLE": 8}  # bytes; else 4
_READ_BACK = 1 << 16  # samples at once
_SURE = 0.99  # certainty of a window's order from which on it counts as sure
_DOUBTED = 0.95  # certainty below which a window's order is doubted
_SUSPICIOUS = 5  # windows; fewer are often doubted where notes change
# Codings of groups of samples, which pad the last group and of which some cannot be sought in.
_GROUPED = ("IMA_", "MS_", "GSM", "NMS_", "G72", "VOX_", "DWVW_")
# What the encoders take. Vorbis' crashes above its largest rate in place of refusing it.
_MAX_OGG_RATE = 200_000
_MAX_FLAC_RATE = 655_350
_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclasses.dataclass(frozen=True)
class SeparatedFile:
    """What came of one recording.

    Attributes:
        sources: The files written, by number of the source, from 1; silent ones are missing if left out.
        remix: The remix's file, if gains were given.
        levels: Level of each source against the mixture's, dB.
        clipped: Samples that exceeded full scale in a format that cannot hold them.
        certainty: float64 `[windows]` in [0, 1], how sure the order of the sources is in each window, as
            `order.consistent_orders` tells it; None where windows were only matched to those before.
        familiarity: How well the model knows the recording; None where `certainty` is.
    """

    sources: dict[int, Path]
    remix: Path | None
    levels: tuple[float, ...]
    clipped: int
    certainty: npt.NDArray[np.float64] | None
    familiarity: Familiarity | None

    @property
    def sure(self) -> float | None:
        """Share of the windows, in [0, 1], whose order is sure: has a certainty of 99 % or more."""
        return None if self.certainty is None else float((self.certainty >= _SURE).mean())

    @property
    def suspected_exchanges(self) -> int | None:
        """Stretches of five windows or more in which the order has a probability below 95 %."""
        if self.certainty is None:
            return None
        stretches = [(doubted, len(list(part))) for doubted, part in itertools.groupby(self.certainty < _DOUBTED)]
        return sum(doubted and length >= _SUSPICIOUS for doubted, length in stretches)


def choose_format(recording: Recording, file_format: str | None = None) -> str:
    """Chooses the format of a recording's stems and checks that it can hold them.

    Args:
        recording: The recording.
        file_format: A key of `FORMATS`; None takes the recording's own, or "wav" where that is none of them.

    Returns:
        A key of `FORMATS`, which is the files' suffix.

    Raises:
        ConfigError: The format is unknown, or cannot hold the recording's sample rate or length.
    """
    own = next((suffix for suffix, name in FORMATS.items() if name == recording.format), "wav")
    suffix = check_choice("format", file_format or own, FORMATS)
    rate = recording.sample_rate
    allowed = {
        "ogg": rate <= _MAX_OGG_RATE,
        "flac": rate <= _MAX_FLAC_RATE and (rate <= 0xFFFF or rate % 10 == 0),
        "mp3": rate in _MP3_RATES,
    }
    if not allowed.get(suffix, True):
        raise ConfigError(f"{recording.path} has a sample rate of {rate:,} Hz, which {suffix} cannot hold; "
                          "use --format wav.")  # fmt: skip
    if suffix == "aif" and _num_bytes(recording, FORMATS[suffix]) > MAX_BYTES:
        raise ConfigError(f"{recording.path} is longer than {suffix} can hold; use --format wav.")
    return suffix


def _subtype(recording: Recording, container: str) -> str:
    """How the samples of a recording's stems are coded."""
    kept = soundfile.check_format(container, recording.subtype) and not recording.subtype.startswith(_GROUPED)
    return recording.subtype if kept else soundfile.default_subtype(container)


def _num_bytes(recording: Recording, container: str) -> int:
    """How long a stem in a container without compression is."""
    return recording.num_samples * recording.num_channels * _WIDTHS.get(_subtype(recording, container), 4)


def places(recording: Recording, output: Path, num_sources: int, suffix: str) -> tuple[list[Path], Path]:
    """Says where a recording's stems go.

    Args:
        recording: The recording.
        output: The folder.
        num_sources: Sources of the model.
        suffix: As `choose_format` gives it.

    Returns:
        The file of each source, `{name}_source{k}.{suffix}`, and of the remix, `{name}_remix.{suffix}`.
    """
    name = recording.path.stem
    sources = [output / f"{name}_source{k + 1}.{suffix}" for k in range(num_sources)]
    return sources, output / f"{name}_remix.{suffix}"


class StemFile:
    """A file of sound that is written block by block and checked when it is done.

    Args:
        path: The file to write.
        recording: The recording whose rate, channels and, where the format allows it, coding it takes; codings of
            groups of samples, such as ADPCM and GSM, become the format's own.
        suffix: As `choose_format` gives it.

    Raises:
        DataError: The file cannot be created.

    Attributes:
        clipped: Samples so far that exceeded full scale, where the coding cannot hold them.

    Example:
        >>> with StemFile(path, recording, "wav") as stem:
        ...     stem.write(block)
        ...     stem.finish()
    """

    def __init__(self, path: Path, recording: Recording, suffix: str) -> None:
        self.clipped = 0
        self._path = path
        self._num_samples = 0
        container = FORMATS[suffix]
        if container == "WAV" and _num_bytes(recording, container) > MAX_BYTES:
            container = "RF64"
        coded = recording.num_channels, _subtype(recording, container)
        with self._told():
            self._file = soundfile.SoundFile(os.fsencode(path), "w", recording.sample_rate, *coded, format=container)
        self._limited = self._file.subtype not in ("FLOAT", "DOUBLE")

    def __enter__(self) -> "StemFile":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(soundfile.SoundFileError):  # `finish` tells it; here an error is on its way already
            self._file.close()

    def write(self, block: npt.NDArray[np.float32]) -> None:
        """Writes samples, float32 `[samples, num_channels]`; what exceeds full scale is clipped where it must be.

        Raises:
            DataError: They cannot be written.
        """
        if self._limited:
            self.clipped += int((np.abs(block) > 1).sum())
            block = np.clip(block, -1, 1)  # which libsndfile does for PCM alone
        with self._told():
            self._file.write(block)
        self._num_samples += len(block)

    def finish(self) -> None:
        """Closes the file, has the system write it to the disk, and reads it back.

        Raises:
            DataError: It does not hold every sample that was written.
        """
        with self._told():
            self._file.close()
        descriptor = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            with soundfile.SoundFile(os.fsencode(self._path)) as file:
                found = sum(map(len, file.blocks(_READ_BACK, dtype="float32")))
        except soundfile.SoundFileError:
            found = -1
        if found != self._num_samples:
            raise self._incomplete()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.SoundFileError, AssertionError) as error:  # soundfile asserts that all was written
            raise self._incomplete() from error

    def _incomplete(self) -> DataError:
        return DataError(
            f"{self._path.name} could not be written in full; free space on the disk of {self._path.parent.parent}, or "
            "choose another --output."
        )
