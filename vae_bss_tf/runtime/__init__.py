"""One interface over a run, a SavedModel, a TFLite file, an ONNX file and a model server: the same names in, the
same arrays out.

    model = load("saved_models/mnist")
    model = load("http://127.0.0.1:8501/v1/models/mnist")
    sources = model.separate(mixture)

TensorFlow is imported for a run, a SavedModel and a server spoken to over gRPC. A `.tflite` needs ai-edge-litert and
NumPy, an `.onnx` needs onnxruntime and NumPy, a server spoken to over HTTP needs NumPy alone.
"""

import abc
import contextlib
import dataclasses
import importlib
import importlib.util
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.checks import check_mixtures
from vae_bss_tf.config import Preset
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import sha256

if TYPE_CHECKING:
    from vae_bss_tf.runtime.remote import ServerOptions

Array = npt.NDArray[np.float32]

INPUT = "mixture"
OUTPUTS = ("sources", "estimates", "latent_mean", "latent_log_variance")
SIGNATURE = "separate"
SETTINGS = "settings"
MANIFEST = "manifest.json"

# The file that stands for an export folder: the most exact one whose runtime is installed.
_PREFERENCE = (
    "onnx_float32",
    "tflite_float32",
    "saved_model",
    "tflite_float16",
    "onnx_int8",
    "tflite_dynamic_int8",
    "tflite_full_int8",
)
_LIBRARIES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert", "saved": "tensorflow"}


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a loaded model is.

    Attributes:
        format: "keras", "saved_model", "tflite", "onnx", or of a server "rest" or "grpc".
        path: The file or folder it was loaded from, or the server's URL.
        input_shape: Shape of one mixture.
        num_sources: K.
        latent_dim: Dimensions of one source's latent.
        preset: All settings, audio ones included; None for a file that no `manifest.json` stands beside and a server
            whose model does not say them.
    """

    format: str
    path: Path | str
    input_shape: tuple[int, ...]
    num_sources: int
    latent_dim: int
    preset: Preset | None


class LoadedModel(abc.ABC):
    """A separator in any format.

    Attributes:
        metadata: What it is.
    """

    metadata: ModelMetadata

    @abc.abstractmethod
    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        """Runs one batch, float32 `[batch, *input_shape]`, and returns at least the arrays of these of `OUTPUTS`."""

    def outputs(self, mixtures: npt.ArrayLike, batch_size: int = 256) -> dict[str, Array]:
        """Everything the model says about some mixtures.

        Args:
            mixtures: `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures a call; at least 1.

        Returns:
            float32 arrays by name: `sources` and `estimates` `[num_mixtures, num_sources, *input_shape]`,
            `latent_mean` and `latent_log_variance` `[num_mixtures, num_sources, latent_dim]`.

        Raises:
            DataError: The shape is another, a value is not finite, or a value is outside [0, 1].
            ServerError: The model is a server's, and it gave no answer.
        """
        return self._collect(mixtures, batch_size, OUTPUTS)

    def separate(self, mixtures: npt.ArrayLike, batch_size: int = 256) -> Array:
        """Separates mixtures: posterior mean, decoder, mask over all sources (VAEM).

        Args:
            mixtures: `[*input_shape]` or `[num_mixtures, *input_shape]`, finite, in [0, 1].
            batch_size: Mixtures a call; at least 1.

        Returns:
            float32 `[num_sources, *input_shape]` or `[num_mixtures, num_sources, *input_shape]`; the sources
            of a mixture sum to it.

        Raises:
            DataError: The shape is another, a value is not finite, or a value is outside [0, 1].
            ServerError: The model is a server's, and it gave no answer.
        """
        sources = self._collect(mixtures, batch_size, ("sources",))["sources"]
        return sources if np.ndim(mixtures) > len(self.metadata.input_shape) else sources[0]

    def _collect(self, mixtures: npt.ArrayLike, batch_size: int, names: Sequence[str]) -> dict[str, Array]:
        shape = self.metadata.input_shape
        batch = check_mixtures(mixtures, shape).reshape(-1, *shape)
        parts = [self._run(batch[i : i + batch_size], names) for i in range(0, len(batch), batch_size)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


class KerasRun(LoadedModel):
    """The `model.keras` of a run folder."""

    def __init__(self, path: Path) -> None:
        keras = import_library("keras", "train")
        # Registers the classes that the file names.
        import_library("vae_bss_tf.model", "train")
        with _damage(path):
            preset = Preset.from_dict(json.loads((path / "config.json").read_text(encoding="utf-8")))
            if not (path / "model.keras").is_file():
                raise CheckpointError(f"{path} has no model.keras; end its training first.")
            self._model = keras.models.load_model(path / "model.keras", compile=False)
        config = preset.model
        self.metadata = ModelMetadata("keras", path, config.input_shape, config.num_sources, config.latent_dim, preset)

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        return self._model.predict_on_batch({INPUT: mixtures})


class SavedModel(LoadedModel):
    """A folder with a `saved_model.pb`."""

    def __init__(self, path: Path) -> None:
        tensorflow = import_library("tensorflow", "train")
        with _damage(path):
            self._loaded = tensorflow.saved_model.load(str(path))
            self._function = self._loaded.signatures[SIGNATURE]
            _, keywords = self._function.structured_input_signature
            self.metadata = _file_metadata(
                "saved_model",
                path,
                keywords[INPUT].shape.as_list(),
                {name: spec.shape.as_list() for name, spec in self._function.structured_outputs.items()},
            )
        self._constant = tensorflow.constant

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        outputs = self._function(**{INPUT: self._constant(mixtures)})
        return {name: outputs[name].numpy() for name in names}


class TFLiteModel(LoadedModel):
    """A `.tflite` file under LiteRT; one of fixed shape takes its mixtures one at a time."""

    def __init__(self, path: Path, num_threads: int | None) -> None:
        interpreter = import_library("ai_edge_litert.interpreter", "tflite")
        with _damage(path):
            self._interpreter = interpreter.Interpreter(model_path=str(path), num_threads=num_threads)
            self._runner = self._interpreter.get_signature_runner(SIGNATURE)
            details = self._runner.get_input_details()[INPUT]
            self.metadata = _file_metadata(
                "tflite",
                path,
                details["shape_signature"].tolist(),
                {name: d["shape_signature"].tolist() for name, d in self._runner.get_output_details().items()},
            )
        self._fixed = bool(details["shape_signature"][0] == 1)

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        if not self._fixed:
            return self._runner(**{INPUT: mixtures})
        parts = [self._runner(**{INPUT: mixtures[i : i + 1]}) for i in range(len(mixtures))]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


class OnnxModel(LoadedModel):
    """An `.onnx` file under onnxruntime, on the CPU."""

    def __init__(self, path: Path, num_threads: int | None) -> None:
        onnxruntime = import_library("onnxruntime", "onnx")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads or 0
        with _damage(path):
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            inputs = {value.name: value.shape for value in self._session.get_inputs()}
            outputs = {value.name: value.shape for value in self._session.get_outputs()}
            self.metadata = _file_metadata("onnx", path, inputs[INPUT], outputs)

    def _run(self, mixtures: Array, names: Sequence[str]) -> Mapping[str, Array]:
        return dict(zip(names, self._session.run(names, {INPUT: mixtures}), strict=True))


def load(model: Path | str, *, num_threads: int | None = None, server: "ServerOptions | None" = None) -> LoadedModel:
    """Loads a separator, in the runtime that its suffix or the folder's content calls for, or a server's.

    Args:
        model: A run folder, an export folder, a SavedModel folder (or its parent of numbered versions: the
            latest), a `.tflite` or an `.onnx` file. Of an export folder the most exact file is taken whose
            runtime is installed. Or a model of TensorFlow Serving: `http://HOST:PORT/v1/models/NAME` or
            `grpc://HOST:PORT/NAME`, either with `/versions/2` or `/labels/stable` after it.
        num_threads: Threads of LiteRT and onnxruntime; None leaves it to them. TensorFlow has settings of its
            own (`tf.config.threading`).
        server: Deadline, retries and the like, for a URL; None takes the defaults.

    Returns:
        The model.

    Raises:
        CheckpointError: It is missing, is none of these, is damaged, or differs from its manifest.
        ConfigError: Its runtime is not installed, or the URL is no such URL.
        ServerError: The server cannot be reached, has no such model, or is no TensorFlow Serving.
    """
    if is_url(model):
        from vae_bss_tf.runtime import remote

        return remote.connect(str(model), server or remote.ServerOptions())
    if server is not None:
        raise ConfigError(f"settings of a server were given, and {model} is no URL of one.")
    path = Path(model)
    if not path.exists():
        raise CheckpointError(f"there is no model {path}; give a run, an export, a SavedModel, a .tflite or an .onnx.")
    if (path / MANIFEST).is_file():
        path = _choose(path)
    path = _latest_version(path)
    _check_against_manifest(path)
    if path.suffix == ".tflite":
        return TFLiteModel(path, num_threads)
    if path.suffix == ".onnx":
        return OnnxModel(path, num_threads)
    if (path / "saved_model.pb").is_file():
        return SavedModel(path)
    if (path / "config.json").is_file():
        return KerasRun(path)
    raise CheckpointError(f"{path} is no run, export, SavedModel, .tflite or .onnx of this package.")


def is_url(model: Path | str) -> bool:
    """Whether a model is named by a URL rather than a path."""
    return isinstance(model, str) and "://" in model


def read_manifest(path: Path) -> dict[str, Any]:
    """Reads the `manifest.json` of an export.

    Raises:
        CheckpointError: It is missing, damaged, or another kind of file.
    """
    with _damage(path):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if "formats" not in manifest:
            raise ValueError("it lists no formats")
        return manifest


def make_metadata(
    kind: str,
    path: Path | str,
    input_shape: Sequence[Any],
    output_shapes: Mapping[str, Sequence[Any]],
    preset: Preset | None,
) -> ModelMetadata:
    """Describes a model by its signature.

    Args:
        kind: See `ModelMetadata.format`.
        path: See `ModelMetadata.path`.
        input_shape: Shape of the input, the batch first.
        output_shapes: Shapes of the outputs by name, the batch first.
        preset: Its settings, where they are known.

    Returns:
        The description.

    Raises:
        CheckpointError: An output of `OUTPUTS` is missing.
    """
    missing = [name for name in OUTPUTS if name not in output_shapes]
    if missing:
        raise CheckpointError(
            f"{path} has no output {missing[0]!r}; it is not ours, or takes waveforms: load its form for spectrograms."
        )
    num_sources, latent_dim = output_shapes["latent_mean"][1:]
    return ModelMetadata(kind, path, tuple(input_shape[1:]), num_sources, latent_dim, preset)


def import_library(module: str, extra: str) -> types.ModuleType:
    """Imports a library that an extra of this package brings.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"this model needs {error.name}; pip install 'vae-bss-tf[{extra}]' brings it.") from error


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except (CheckpointError, ConfigError):
        raise
    except Exception as error:  # every runtime raises its own
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{path} cannot be loaded ({reason[0]}); it is damaged or not ours.") from error


def _choose(folder: Path) -> Path:
    formats = read_manifest(folder / MANIFEST)["formats"]
    for name in _PREFERENCE:
        if name in formats and importlib.util.find_spec(_LIBRARIES[name.split("_")[0]]):
            return folder / formats[name]["path"]
    raise ConfigError(
        f"{folder} holds {', '.join(formats)}, and the runtime of none is installed; "
        "pip install 'vae-bss-tf[tflite]' or 'vae-bss-tf[onnx]'."
    )


def _latest_version(path: Path) -> Path:
    if not path.is_dir():
        return path
    versions = [p for p in path.iterdir() if p.name.isdigit() and (p / "saved_model.pb").is_file()]
    return max(versions, key=lambda p: int(p.name)) if versions else path


def _find_manifest(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The export folder that a file or SavedModel belongs to, and the manifest's entry of it."""
    for folder in path.parents[:2]:
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder / MANIFEST)
            for entry in manifest["formats"].values():
                if folder / entry["path"] == path:
                    return folder, {**manifest, "entry": entry}
    return None


def _check_against_manifest(path: Path) -> None:
    found = _find_manifest(path)
    if found is None:
        return
    folder, manifest = found
    for name, file in manifest["entry"]["files"].items():
        if not (folder / name).is_file() or sha256(folder / name) != file["sha256"]:
            raise CheckpointError(f"{folder / name} is not the file that {folder / MANIFEST} lists; copy it again.")


def _file_metadata(kind: str, path: Path, input_shape: list[Any], output_shapes: dict[str, list[Any]]) -> ModelMetadata:
    found = _find_manifest(path)
    preset = Preset.from_dict(found[1]["preset"]) if found else None
    return make_metadata(kind, path, input_shape, output_shapes, preset)
