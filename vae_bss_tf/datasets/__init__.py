"""Data sets of sources. Each gives a `SourceBank` for a split; `pipeline` draws mixtures from it."""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import AudioConfig, DataConfig
from vae_bss_tf.datasets.bank import SPLITS, SourceBank

__all__ = ["DATASETS", "SPLITS", "Dataset", "SourceBank", "load_bank"]


class Dataset(NamedTuple):
    """A data set that the package knows.

    Attributes:
        kind: "images" or "sound", the kind of its domain.
        module: The module that loads it, imported on use: the libraries that it needs may not be installed.
        function: The function that loads it.
        names: What the function is told before the rest.
        licence: The licence of its data, and whose data it is; empty where that depends on the user's folder.
    """

    kind: str
    module: str
    function: str = "load"
    names: tuple[str, ...] = ()
    licence: str = ""

    def load(self, *arguments: Any) -> SourceBank:
        """Loads a bank.

        Args:
            *arguments: The split, the folder and, of sound, the settings of its waveforms; of a folder of pictures,
                the settings of the data and the model's input shape.

        Returns:
            The bank.
        """
        module = importlib.import_module(f"{__name__}.{self.module}")
        return getattr(module, self.function)(*self.names, *arguments)


DATASETS: dict[str, Dataset] = {
    "digits": Dataset("images", "digits", licence="CC BY 4.0, E. Alpaydin and C. Kaynak"),
    "mnist": Dataset("images", "idx", names=("mnist",), licence="CC BY-SA 3.0, Y. LeCun, C. Cortes and C. Burges"),
    "fashion-mnist": Dataset("images", "idx", names=("fashion-mnist",), licence="MIT, Zalando SE"),
    "images": Dataset("images", "own_pictures"),
    "tones": Dataset("sound", "tones", licence="Apache-2.0, synthesised by vae-bss-tf"),
    "notes": Dataset("sound", "recordings", "load_notes"),
    "nsynth": Dataset("sound", "nsynth", licence="CC BY 4.0, Google Inc."),
    "mixtures": Dataset("sound", "recordings", "load_mixtures"),
}


def load_bank(
    dataset: str,
    split: str,
    data_dir: Path | str | None = None,
    *,
    audio: AudioConfig | None = None,
    data: DataConfig | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> SourceBank:
    """Loads the sources of one split.

    Args:
        dataset: Name of a data set, a key of `DATASETS`.
        split: "train", "validation" or "test". No source stands in two of them.
        data_dir: Folder of the data set's files. None takes what ships with a package ("digits"), is
            synthesised ("tones"), or fetches the data set through tensorflow-datasets; "nsynth" must have been
            prepared by it before.
        audio: Rate and length of the waveforms of an audio data set; None takes the defaults.
        data: Of a folder of pictures ("images"), the size and channels that they are brought to and whether they are
            mixtures; None takes mixtures as they are.
        input_shape: Of a folder of pictures, the shape of one; None takes that of the first.

    Returns:
        The sources, in the data set's own order.

    Raises:
        ConfigError: The data set or the split is unknown.
        DataError: Files are missing or damaged, or the data set cannot be fetched.

    Example:
        >>> load_bank("digits", "train").items.shape[1:]
        (8, 8)
    """
    check_choice("split", split, SPLITS)
    found = DATASETS[check_choice("data set", dataset, DATASETS)]
    folder = None if data_dir is None else Path(data_dir)
    if found.kind == "sound":
        return found.load(split, folder, audio or AudioConfig())
    if dataset == "images":
        return found.load(split, folder, data, input_shape)
    return found.load(split, folder)
