"""A trained model's files, `config.json`, `model.keras` and `weights.npz`: only what fits the settings is loaded."""

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.errors import CheckpointError, VaeBssError
from vae_bss_tf.files import parse_json
from vae_bss_tf.weights import halved, read_weights, write_weights

_FLOAT_BYTES = 4
_HALF_BYTES = 2


def read_settings(run: Path) -> dict[str, Any]:
    """Reads the `config.json` of a run, whose values are not checked yet.

    Args:
        run: The run folder.

    Returns:
        Its content.

    Raises:
        CheckpointError: It is a run of a live separator.
        OSError: It cannot be read.
        ValueError: It is no JSON object.
    """
    content = parse_json((run / "config.json").read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if content.get("system") == "live":
        raise CheckpointError(f"{run} is a live separator: python -m vae_bss_tf.live takes it.")
    return content


def save_weights(model: Any, path: Path) -> None:
    """Writes a model's weights as NumPy arrays: matrices and kernels in float16, vectors in float32.

    Args:
        model: The Keras model.
        path: The `.npz` to write.

    Raises:
        CheckpointError: A weight is beyond what float16 holds.
    """
    write_weights(path, halved({_name_in_model(v): np.asarray(v, np.float32) for v in model.variables}))


def load_weights(path: Path, preset: Preset) -> Any:
    """Loads a multi-source VAE from the weights that `save_weights` wrote. No code and no pickle is read.

    Args:
        path: The `.npz`.
        preset: The settings of the model and of its training, which tell the weight of the prior.

    Returns:
        The `MultiSourceVAE`, in float32.

    Raises:
        CheckpointError: The file is damaged, is of other settings, or a weight is not finite.
    """
    import tensorflow as tf

    from vae_bss_tf.model import MultiSourceVAE

    try:
        size = path.stat().st_size
        with tf.Graph().as_default():  # only described there, so that settings of any size take no memory
            needed = sum(math.prod(variable.shape) for variable in MultiSourceVAE(preset.model).variables)
        if _HALF_BYTES * needed > size:
            raise CheckpointError(
                f"{path} has {size:,} bytes, and the model of its config.json needs more; copy the folder again."
            )
        model = MultiSourceVAE(preset.model, preset.recipe.final_kl_weight)
        variables = {_name_in_model(variable): variable for variable in model.variables}
        for name, value in read_weights(path, {name: tuple(v.shape) for name, v in variables.items()}):
            variables[name].assign(value)
    except VaeBssError:
        raise
    except Exception as error:  # Keras and TensorFlow raise many kinds
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__}); copy the export again.") from error
    return model


def _name_in_model(variable: Any) -> str:
    """A variable's path without the model's own name, which Keras numbers."""
    return str(variable.path.split("/", 1)[1])


def load_keras_model(path: Path, config: ModelConfig) -> Any:
    """Loads a model that `training.fit` saved, after checking that it is the one its run's settings describe.

    The file's own settings are read first. A file whose settings or whose arrays need more memory than it has bytes
    is refused before any of it is allocated: Keras stores weights as they are, uncompressed.

    Args:
        path: The `model.keras`.
        config: The model's settings in the run's `config.json`.

    Returns:
        The Keras model, not compiled.

    Raises:
        CheckpointError: The file is damaged or declares more than it holds, its settings are not `config`, or a
            weight is not finite.

    Example:
        >>> load_keras_model(Path("runs/mnist-k2-seed0/model.keras"), Run.load("runs/mnist-k2-seed0").preset.model)
        <MultiSourceVAE name=multi_source_vae, built=True>
    """
    import keras

    # They register the classes that the file names.
    import vae_bss_tf.baselines.glo
    import vae_bss_tf.baselines.mixit
    import vae_bss_tf.model  # noqa: F401

    try:
        _check_size(path)
        model = keras.models.load_model(path, compile=False)
        stored, wanted = model.config.to_dict(), config.to_dict()
        different = [f"{name} {stored[name]}, not {wanted[name]}" for name in wanted if stored[name] != wanted[name]]
        if different:
            raise CheckpointError(f"{path} is not the model of its config.json: it has {'; '.join(different)}.")
        for variable in model.variables:
            if not np.isfinite(keras.ops.convert_to_numpy(variable)).all():
                raise CheckpointError(f"{path} holds NaN or infinite values in {variable.path}; train again.")
    except VaeBssError:
        raise
    except Exception as error:  # h5py, zipfile and Keras each raise their own
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); it is damaged or of another version: train again."
        ) from error
    return model


def _check_size(path: Path) -> None:
    import h5py
    import keras
    import tensorflow as tf

    size = path.stat().st_size

    def check(what: str, num_bytes: int) -> None:
        if num_bytes > size:
            raise CheckpointError(f"{path} has {size:,} bytes, and its {what} need {num_bytes:,}; it is damaged.")

    with zipfile.ZipFile(path) as archive:
        check("parts", sum(info.file_size for info in archive.infolist()))
        described = parse_json(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    declared = 0

    def add(_: str, item: Any) -> None:
        nonlocal declared
        if isinstance(item, h5py.Dataset):
            declared += math.prod(item.shape) * item.dtype.itemsize

    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(add)
    check("arrays", declared)
    # In a graph the variables are only described, so that settings of any size take no memory.
    with tf.Graph().as_default():
        model = keras.saving.deserialize_keras_object({**described, "compile_config": None})
        count = sum(math.prod(variable.shape) for variable in model.variables)
    check("weights", _FLOAT_BYTES * count)
