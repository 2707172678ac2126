"""Image data sets through tensorflow-datasets, with a short way out where there is no network."""

import socket
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError

_BUILDERS = {"mnist": "mnist", "fashion-mnist": "fashion_mnist"}
_CONNECT_SECONDS = 8.0


def images(dataset: str, part: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Loads a part of an image data set, fetching it first where it was not fetched before.

    Args:
        dataset: "mnist" or "fashion-mnist".
        part: "train" or "test".

    Returns:
        uint8 `[num_items, 28, 28]` and int64 `[num_items]`.

    Raises:
        DataError: It was not fetched before and its server cannot be reached within some seconds.
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder(_BUILDERS[dataset])
    if not builder.data_path.exists():
        _check_network(dataset, _download_host(builder))
        try:
            builder.download_and_prepare()
        except Exception as error:  # tensorflow-datasets raises errors of several network libraries
            raise DataError(f"{dataset} could not be fetched ({type(error).__name__}); {_ways_out()}") from error
    batches = list(tfds.as_numpy(builder.as_dataset(split=part, batch_size=1_000)))
    images = np.concatenate([batch["image"] for batch in batches])[..., 0]
    return images, np.concatenate([batch["label"] for batch in batches]).astype(np.int64)


def _download_host(builder: object) -> tuple[str, int]:
    url = urlsplit(next(iter(builder.url_infos)))  # type: ignore[attr-defined]
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _check_network(dataset: str, address: tuple[str, int]) -> None:
    # Without this, the fetch retries for minutes before it says that there is no network.
    try:
        socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise DataError(f"no network: {dataset} cannot be fetched ({error}); {_ways_out()}") from error


def _ways_out() -> str:
    return "give --data-dir the folder of its four IDX files, or use --dataset digits, which needs no download."
