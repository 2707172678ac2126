"""A live separator's weights as NumPy arrays: no code and no pickle in them."""

from pathlib import Path

import numpy as np

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.live.config import LiveConfig
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.weights import read_weights, write_weights


def save_weights(model: LiveVAE, path: Path) -> None:
    """Writes a model's weights.

    Args:
        model: The model.
        path: The `.npz` to write.
    """
    write_weights(path, {variable.path: np.asarray(variable, np.float32) for variable in model.trainable_variables})


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
    variables = {variable.path: variable for variable in model.trainable_variables}
    for name, value in read_weights(path, {name: tuple(v.shape) for name, v in variables.items()}):
        variables[name].assign(value)
    return model
