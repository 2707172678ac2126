"""Data sets of sources. Each gives a `SourceBank` for a split; `mixtures` draws from it."""

from collections.abc import Callable
from pathlib import Path

from vae_bss_tf.config import AudioConfig, check_choice
from vae_bss_tf.datasets import digits, idx, nsynth, tones
from vae_bss_tf.datasets import recordings as audio_folder
from vae_bss_tf.datasets.bank import SPLITS, SourceBank

__all__ = ["AUDIO_DATASETS", "DATASETS", "SPLITS", "SourceBank", "load_bank"]

DATASETS: dict[str, Callable[[str, Path | None], SourceBank]] = {
    "digits": digits.load,
    "mnist": lambda split, data_dir: idx.load("mnist", split, data_dir),
    "fashion-mnist": lambda split, data_dir: idx.load("fashion-mnist", split, data_dir),
}

AUDIO_DATASETS: dict[str, Callable[[str, Path | None, AudioConfig], SourceBank]] = {
    "tones": tones.load,
    "notes": audio_folder.load_notes,
    "nsynth": nsynth.load,
    "mixtures": audio_folder.load_mixtures,
}


def load_bank(
    dataset: str, split: str, data_dir: Path | str | None = None, *, audio: AudioConfig | None = None
) -> SourceBank:
    """Loads the sources of one split.

    Args:
        dataset: Name of a data set, a key of `DATASETS` or `AUDIO_DATASETS`.
        split: "train", "validation" or "test". No source stands in two of them.
        data_dir: Folder of the data set's files. None takes what ships with a package ("digits"), is
            synthesised ("tones"), or fetches the data set through tensorflow-datasets; "nsynth" must have been
            prepared by it before.
        audio: Rate and length of the waveforms of an audio data set; None takes the defaults.

    Returns:
        The sources, in the data set's own order.

    Raises:
        ConfigError: The data set or the split is unknown.
        DataError: Files are missing or damaged, or the data set cannot be fetched.
    """
    check_choice("split", split, SPLITS)
    check_choice("data set", dataset, [*DATASETS, *AUDIO_DATASETS])
    folder = None if data_dir is None else Path(data_dir)
    if dataset in AUDIO_DATASETS:
        return AUDIO_DATASETS[dataset](split, folder, audio or AudioConfig())
    return DATASETS[dataset](split, folder)
