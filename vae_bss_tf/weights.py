"""Weights as NumPy arrays in an `.npz` file: no code and no pickle in it, and no more declared than it holds."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import replacing


def halved(arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, npt.NDArray[np.floating]]:
    """Rounds weights to half of their size.

    Args:
        arrays: float32 weights by name.

    Returns:
        The same; matrices and kernels in float16, vectors in float32.

    Raises:
        CheckpointError: A weight is beyond what float16 holds.
    """
    with np.errstate(over="ignore"):  # becomes infinite, which is refused below
        halves = {name: value.astype(np.float16) if value.ndim > 1 else value for name, value in arrays.items()}
    for name, value in halves.items():
        if not np.isfinite(value).all():
            raise CheckpointError(
                f"{name} has values that float16 does not hold, beyond 65,504 or NaN; train with a lower learning rate."
            )
    return halves


def write_weights(path: Path, arrays: Mapping[str, npt.NDArray[np.floating]]) -> None:
    """Writes weights.

    Args:
        path: The `.npz` to write.
        arrays: The weights by name, as they are to be stored.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Reads weights that `write_weights` wrote, one after the other.

    Args:
        path: The `.npz`.
        shapes: What it must hold: shapes by name.

    Yields:
        Names and weights, float32, finite, of the shapes.

    Raises:
        CheckpointError: The file is damaged, or does not hold a weight of its shape, or one is not finite.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > size:
                raise CheckpointError(
                    f"{path} has {size:,} bytes and declares more; it is damaged: copy it again, or train again."
                )
        with np.load(path, allow_pickle=False) as arrays:
            for name, shape in shapes.items():
                value = arrays[name].astype(np.float32)
                if value.shape != shape or not np.isfinite(value).all():
                    raise CheckpointError(
                        f"{path} does not hold {name} of its config.json; copy it again, or train again."
                    )
                yield name, value
    except CheckpointError:
        raise
    except Exception as error:  # numpy and zipfile raise many kinds
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); it is damaged: copy it again, or train again."
        ) from error
