"""A live separator's weights as NumPy arrays: no code and no pickle in them."""

import zipfile
from pathlib import Path

import numpy as np

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import replacing
from vae_bss_tf.live.config import LiveConfig
from vae_bss_tf.live.model import LiveVAE


def save_weights(model: LiveVAE, path: Path) -> None:
    """Writes a model's weights.

    Args:
        model: The model.
        path: The `.npz` to write.
    """
    arrays = {variable.path: np.asarray(variable, np.float32) for variable in model.trainable_variables}
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_weights(path: Path, config: LiveConfig) -> LiveVAE:
    """Loads a model from the weights that `save_weights` wrote.

    Args:
        path: The `.npz`.
        config: The model's settings.

    Raises:
        CheckpointError: The file is missing, damaged or of other settings, or a weight is not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not there; finish the training by the same command with --resume.")
    model = LiveVAE(config)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
                raise ValueError("it declares more than it holds")
        with np.load(path, allow_pickle=False) as arrays:
            for variable in model.trainable_variables:
                value = arrays[variable.path]
                if value.shape != tuple(variable.shape) or not np.isfinite(value).all():
                    raise ValueError(variable.path)
                variable.assign(value.astype(np.float32))
    except Exception as error:  # numpy and zipfile raise many kinds
        raise CheckpointError(f"{path} does not hold the weights of its config.json; it is damaged.") from error
    return model
