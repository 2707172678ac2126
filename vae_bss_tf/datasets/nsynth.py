"""NSynth (Engel et al. 2017) through tensorflow-datasets: 305,979 notes of four seconds at 16 kHz."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import recordings
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.decoded import decoded
from vae_bss_tf.errors import DataError

SAMPLE_RATE = 16_000
_PARTS = {"train": "train", "validation": "valid", "test": "test"}


def load(split: str, data_dir: Path | None, audio: AudioConfig) -> SourceBank:
    """Loads a split of NSynth, whose training instruments are in no other split.

    A source is a note as `recordings.load_notes` makes it of a recording; silent notes are left out, since NSynth holds
    some. Validation and test share instruments: the test leaves out the notes of an instrument and pitch that is in
    both.

    Args:
        split: "train", "validation" or "test".
        data_dir: Folder of tensorflow-datasets' prepared data sets; None takes its own default.
        audio: Rate and length of the window, and the pitch shifts.

    Returns:
        float32 `[num_notes, num_samples]` in [-1, 1], a row for each note and pitch shift, memory-mapped; the label
        is the instrument's number in NSynth.

    Raises:
        DataError: The data set has not been prepared there, or a note holds NaN.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder("nsynth/full", data_dir=data_dir)
    if not builder.data_path.exists():
        raise DataError(
            f"NSynth is not prepared in {builder.data_path}; run `tfds build nsynth/full` (needs apache-beam and "
            "73 GB), name the folder by --data-dir, or give its WAV files to --dataset notes."
        )
    known = _notes(builder, "validation") if split == "test" else []
    seen = {recordings.identity(Path(name)) for name, _ in known}
    notes = _notes(builder, split)
    chosen = [i for i, (name, _) in enumerate(notes) if recordings.identity(Path(name)) not in seen]
    pitches = recordings.versions(split, audio)
    audios = _Audios(builder, split)

    def decode(index: int) -> Iterator[npt.NDArray[np.float32]]:
        waveform = audios.at(index)
        if not np.isfinite(waveform).all():
            raise DataError(f"note {notes[index][0]} of NSynth holds NaN or infinite samples; prepare it again.")
        for version in pitches:
            note = recordings.as_note(soxr.resample(waveform, SAMPLE_RATE, version.sample_rate), version)
            if note is not None:
                yield note

    rates = [version.sample_rate for version in pitches]
    identity = ["nsynth", str(builder.data_path), split, len(chosen), rates, audio.num_samples]
    items, owners = decoded(chosen, decode, lambda _: len(pitches), identity, audio.num_samples)
    labels = np.asarray([notes[i][1] for i in chosen], np.int64)[owners]
    return SourceBank("nsynth", split, items, labels, 1.0)


def _notes(builder: Any, split: str) -> list[tuple[str, int]]:
    """Name and instrument of each note, without decoding its sound."""
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding({"id": True, "instrument": {"label": True}})
    notes = builder.as_dataset(split=_PARTS[split], decoders=decoders, shuffle_files=False)
    return [(note["id"].decode(), int(note["instrument"]["label"])) for note in tfds.as_numpy(notes)]


class _Audios:
    """The waveforms of a split, read in order: a call may skip some, but none is read twice."""

    def __init__(self, builder: Any, split: str) -> None:
        self._builder, self._split = builder, split
        self._next = 0
        self._waveforms: Iterator[Any] | None = None

    def at(self, index: int) -> npt.NDArray[np.float32]:
        import tensorflow_datasets as tfds

        if self._waveforms is None:
            notes = self._builder.as_dataset(split=_PARTS[self._split], shuffle_files=False)
            self._waveforms, self._next = iter(tfds.as_numpy(notes.skip(index))), index
        while self._next <= index:
            note = next(self._waveforms)
            self._next += 1
        return note["audio"]
