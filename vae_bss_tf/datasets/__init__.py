"""Data sets of sources. Each gives a `SourceBank` for a split; `mixtures` draws from it."""

from collections.abc import Callable
from pathlib import Path

from vae_bss_tf.config import check_choice
from vae_bss_tf.datasets import digits, idx
from vae_bss_tf.datasets.bank import SPLITS, SourceBank

__all__ = ["DATASETS", "SPLITS", "SourceBank", "load_bank"]

DATASETS: dict[str, Callable[[str, Path | None], SourceBank]] = {
    "digits": digits.load,
    "mnist": lambda split, data_dir: idx.load("mnist", split, data_dir),
    "fashion-mnist": lambda split, data_dir: idx.load("fashion-mnist", split, data_dir),
}


def load_bank(dataset: str, split: str, data_dir: Path | str | None = None) -> SourceBank:
    """Loads the sources of one split.

    Args:
        dataset: Name of a data set, a key of `DATASETS`.
        split: "train", "validation" or "test". No source stands in two of them.
        data_dir: Folder of the data set's files. None takes what ships with a package ("digits") or fetches
            the data set through tensorflow-datasets.

    Returns:
        The sources, in the data set's own order.

    Raises:
        ConfigError: The data set or the split is unknown.
        DataError: Files are missing or damaged, or the data set cannot be fetched.
    """
    check_choice("split", split, SPLITS)
    loader = DATASETS[check_choice("data set", dataset, DATASETS)]
    return loader(split, None if data_dir is None else Path(data_dir))
