"""`load`: a separator from a path or a URL."""

import contextlib
import os
import re
from pathlib import Path

from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import parse_json
from vae_bss_tf.runtime.base import LoadedModel, check_count, refusing_damage
from vae_bss_tf.runtime.files import KerasRun, OnnxModel, SavedModel, TFLiteModel
from vae_bss_tf.runtime.manifest import MANIFEST, check_file, choose
from vae_bss_tf.runtime.remote import ServerOptions, connect

_VERSION = re.compile("[0-9]{1,18}")


def load(
    model: Path | str, *, num_threads: int | None = None, server: ServerOptions | None = None, trust: bool = False
) -> LoadedModel:
    """Loads a separator, in the runtime that its suffix or the folder's content calls for, or connects to a server's.

    Several threads may call one loaded model at the same time. Do not `fork` after a run or a SavedModel was loaded:
    TensorFlow's threads do not survive it and the child hangs; start processes by "spawn" and load the model there.

    To load a run's `model.keras` by `keras.models.load_model` instead, `import vae_bss_tf.model` first: Keras knows
    the model's classes only from then on.

    Args:
        model: A run folder, an export folder, a SavedModel folder (or its parent of numbered versions: the
            latest), a `.tflite` or an `.onnx` file. Of an export folder the most exact file is taken whose
            runtime is installed. Or a model of TensorFlow Serving: `http://HOST:PORT/v1/models/NAME` or
            `grpc://HOST:PORT/NAME`, either with `/versions/2` or `/labels/stable` after it.
        num_threads: Threads of LiteRT and onnxruntime, at least 1; None leaves it to them. TensorFlow has settings
            of its own (`tf.config.threading`).
        server: Deadline, retries and the like, for a URL; None takes the defaults.
        trust: Whether a SavedModel is loaded without a check of its graph. TensorFlow runs parts of a graph when it
            loads it, and an operation in it may read and write files; by default only operations that our own
            exports use are loaded (see `trusted.check_operations`).

    Returns:
        The model.

    Raises:
        CheckpointError: It is missing, is none of these, is damaged, holds foreign operations, or differs from its
            manifest or its settings.
        ConfigError: Its runtime is not installed, the URL is no such URL, or an argument is of the wrong kind.
        ServerError: The server cannot be reached, has no such model, or is no TensorFlow Serving.

    Example:
        >>> model = load("saved_models/mnist", num_threads=1)
        >>> model.separate(np.zeros((10, 28, 28), np.float32)).shape
        (10, 2, 28, 28)
    """
    if not isinstance(model, str | os.PathLike):
        raise ConfigError(f"the model is {model!r}; give a path or a URL.")
    if num_threads is not None:
        check_count("num_threads", num_threads)
    if is_url(model):
        return connect(str(model), server or ServerOptions())
    if server is not None:
        raise ConfigError(f"settings of a server were given, and {model} is no URL of one.")
    path = Path(model)
    with refusing_damage(path):
        if not path.exists():
            raise CheckpointError(
                f"there is no model {path}; give a run, an export, a SavedModel, a .tflite or an .onnx."
            )
        if (path / MANIFEST).is_file():
            path = choose(path)
        path = latest_version(path)
        if path.suffix == ".tflite":
            return TFLiteModel(path, check_file(path), num_threads)
        if path.suffix == ".onnx":
            return OnnxModel(path, check_file(path), num_threads)
        if (path / "saved_model.pb").is_file():
            return SavedModel(path, check_file(path), trust=trust)
        if (path / "config.json").is_file():
            return KerasRun(path)
    raise CheckpointError(f"{path} is no run, export, SavedModel, .tflite or .onnx of this package.")


def described(model: Path | str) -> Preset | None:
    """Reads the settings of a model without loading it.

    Args:
        model: As `load` takes it, or the manifest of an export, `NAME.json`.

    Returns:
        The settings in the `config.json` of a run, or in the `manifest.json` in or beside an export; None where there
        is neither, where it is damaged, and for a URL.
    """
    if is_url(model):
        return None
    path = Path(model)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, StopIteration):  # `load` says what is wrong
        if path.is_file() and path.suffix == ".json":
            return Preset.from_dict(parse_json(path.read_text(encoding="utf-8"))["preset"])
        if (path / MANIFEST).is_file() or not (path / "config.json").is_file():
            found = next(folder for folder in (path, *path.parents[:2]) if (folder / MANIFEST).is_file())
            return Preset.from_dict(parse_json((found / MANIFEST).read_text(encoding="utf-8"))["preset"])
        return Preset.from_dict(parse_json((path / "config.json").read_text(encoding="utf-8")))
    return None


def is_url(model: Path | str) -> bool:
    """Whether a model is named by a URL rather than a path."""
    return isinstance(model, str) and "://" in model


def latest_version(path: Path) -> Path:
    """The highest version of a folder of numbered SavedModels; the folder itself where it holds none."""
    if not path.is_dir():
        return path
    versions = [p for p in path.iterdir() if _VERSION.fullmatch(p.name) and (p / "saved_model.pb").is_file()]
    return max(versions, key=lambda p: int(p.name)) if versions else path
