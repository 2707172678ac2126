"""Folders of recordings: single sources to be mixed ("notes"), or recordings that are mixtures ("mixtures")."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio.recordings import Recording, describe, find, mono
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.decoded import decoded
from vae_bss_tf.datasets.splits import split_folder
from vae_bss_tf.errors import DataError

SILENCE = 1e-4  # of full scale: -80 dB
# <instrument>_<pitch>_..., such as cello_As3_1_forte, and NSynth's <instrument>-<pitch>-<velocity>
_IDENTITY_PATTERNS = (r"^([^_]+)_([A-G][s#b]?-?\d)(?=_|$)", r"^(.+_\d{3})-(\d{3})-\d{3}$")


def load_notes(split: str, data_dir: Path | None, audio: AudioConfig) -> SourceBank:
    """Loads a split of a folder in which each recording is one source.

    The folder's own `train/`, `validation/` and `test/` are the splits where it has `train/` and `test/`; without
    `validation/` a tenth of the identities of `train/` replaces it. A folder without them is split by a seeded
    hash of the identities: a tenth each, and at least two, for validation and test. An identity is an instrument and
    a pitch where the file's name says so (`cello_As3_1_forte.flac`, NSynth's `bass_acoustic_000-024-050.wav`), and
    the file's name otherwise; no identity is in two splits.

    A source is the mean of its channels at the model's rate, from where it first exceeds -80 dB of its peak,
    with a peak of 1, cut or filled with zeros to the window's length. The training split holds each recording once
    at each of `audio.pitch_shifts`.

    Args:
        split: "train", "validation" or "test".
        data_dir: The folder.
        audio: Rate and length of the window, and the pitch shifts.

    Returns:
        float32 `[num_recordings, num_samples]` in [-1, 1], in the training split a row for each recording and shift;
        a label for each instrument, or 0 for every file where the names do not say.

    Raises:
        DataError: The folder is missing, holds too few identities to split, or a recording is damaged, silent,
            shorter than 0.1 s, or holds NaN.
    """
    recordings = [describe(path) for path in split_files(_folder(data_dir, "notes"), split)]
    pitches = versions(split, audio)

    def decode(recording: Recording) -> Iterator[npt.NDArray[np.float32]]:
        return (_decode_note(recording, version) for version in pitches)

    identity = _cache_identity("notes", recordings, pitches)
    items, owners = decoded(recordings, decode, lambda _: len(pitches), identity, audio.num_samples)
    instruments = [_instrument(r.path) for r in recordings]
    names = sorted(set(instruments))
    labels = np.asarray([names.index(name) for name in instruments], np.int64)[owners]
    return SourceBank("notes", split, items, labels, 1.0, class_names=tuple(name or "unnamed" for name in names))


def load_mixtures(split: str, data_dir: Path | None, audio: AudioConfig) -> SourceBank:
    """Loads a split of a folder in which each recording is a mixture already, cut into windows.

    Split as `load_notes` splits, by the files' paths; all windows of a recording are in one split. Windows below -80 dB
    of full scale throughout are left out.

    Args:
        split: "train", "validation" or "test".
        data_dir: The folder.
        audio: Rate and length of the window.

    Returns:
        float32 `[num_windows, num_samples]` in [-1, 1]; the label is the recording.

    Raises:
        DataError: As `load_notes`.
    """
    recordings = [describe(path) for path in split_files(_folder(data_dir, "mixtures"), split, of_mixtures=True)]
    pitches = versions(split, audio)

    def decode(recording: Recording) -> Iterator[npt.NDArray[np.float32]]:
        windows = [window for version in pitches for window in _windows(recording, version)]
        if not windows:
            raise DataError(f"{recording.path} is silent; leave it out of the folder.")
        yield from windows

    def capacity(recording: Recording) -> int:
        return sum(int(recording.seconds * v.sample_rate / v.num_samples) + 1 for v in pitches)

    identity = _cache_identity("mixtures", recordings, pitches)
    items, owners = decoded(recordings, decode, capacity, identity, audio.num_samples)
    return SourceBank("mixtures", split, items, owners, 1.0, has_truth=False)


def identity(path: Path) -> str:
    """Returns what must not be in two splits: instrument and pitch where the name says so, or the name.

    Args:
        path: A recording's file.

    Returns:
        Such as "cello_As3", or the file's name without its suffix.
    """
    for pattern in _IDENTITY_PATTERNS:
        if match := re.match(pattern, path.stem):
            return f"{match[1]}_{match[2]}"
    return path.stem


def split_files(folder: Path, split: str, *, of_mixtures: bool = False) -> list[Path]:
    """Lists the recordings of one split; see `load_notes` for how a folder is split.

    Args:
        folder: The folder.
        split: "train", "validation" or "test".
        of_mixtures: Whether each file is a mixture of its own, whatever its name says, as in `NAME/mixture.wav`.

    Returns:
        The files, in the order of their paths.

    Raises:
        DataError: The folder is missing, or holds too few identities to split.
    """
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give --data-dir the folder that holds the recordings.")
    if of_mixtures:
        return split_folder(folder, split, find, _place, "recordings of {} names")
    return split_folder(folder, split, find, lambda path, _: identity(path), "recordings of {} sources")


def _place(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _folder(data_dir: Path | None, dataset: str) -> Path:
    if data_dir is None:
        raise DataError(f"{dataset} needs --data-dir, a folder of recordings; --dataset tones needs no file.")
    return data_dir


def versions(split: str, audio: AudioConfig) -> list[AudioConfig]:
    """Gives the settings to decode a recording with, one for each pitch shift.

    Args:
        split: "train" takes all of `audio.pitch_shifts`, the others the recording as it is.
        audio: The settings.

    Returns:
        The settings with the sample rate that gives each pitch, when it is then taken for the model's.
    """
    shifts = audio.pitch_shifts if split == "train" else (0.0,)
    return [audio.replace(sample_rate=audio.sample_rate * 2 ** (-shift / 12)) for shift in shifts]


def _cache_identity(kind: str, recordings: list[Recording], versions: list[AudioConfig]) -> list[Any]:
    rates = [version.sample_rate for version in versions]
    files = [(str(r.path.resolve()), r.path.stat().st_size, r.path.stat().st_mtime_ns) for r in recordings]
    return [kind, rates, versions[0].num_samples, files]


def _instrument(path: Path) -> str:
    name = identity(path)
    return "" if name == path.stem else name.rsplit("_", 1)[0]


def _decode_note(recording: Recording, audio: AudioConfig) -> npt.NDArray[np.float32]:
    note = as_note(np.concatenate(list(mono(recording, audio.sample_rate))), audio)
    if note is None:
        raise DataError(f"{recording.path} is silent; leave it out of the folder.")
    return note


def as_note(waveform: npt.NDArray[np.float32], audio: AudioConfig) -> npt.NDArray[np.float32] | None:
    """Brings one source to the form that banks hold.

    Args:
        waveform: float32 `[samples]` at the model's rate, one or more.
        audio: Length of the window.

    Returns:
        float32 `[num_samples]`: from where it first exceeds -80 dB of its peak, with a peak of 1, cut or filled with
        zeros; None where it is silent, below -80 dB of full scale throughout.
    """
    peak = np.abs(waveform).max(initial=0)
    if peak < SILENCE:
        return None
    onset = int(np.argmax(np.abs(waveform) > SILENCE * peak))
    note = waveform[onset : onset + audio.num_samples]
    return np.pad(note / np.abs(note).max(), (0, audio.num_samples - len(note)))


def _windows(recording: Recording, audio: AudioConfig) -> Iterator[npt.NDArray[np.float32]]:
    length, rest = audio.num_samples, np.zeros(0, np.float32)
    for block in mono(recording, audio.sample_rate):
        rest = np.concatenate([rest, block])
        whole = len(rest) // length * length
        for window in rest[:whole].reshape(-1, length):
            if np.abs(window).max() >= SILENCE:
                yield window
        rest = rest[whole:]
    if np.abs(rest).max(initial=0) >= SILENCE:
        yield np.pad(rest, (0, length - len(rest)))
