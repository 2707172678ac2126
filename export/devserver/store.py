"""The models of a development server: loaded SavedModels, their versions, and requests run on them."""

import dataclasses
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy.typing as npt
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from export.deployment.warmup import WARMUP_FILE
from export.devserver.config import ServedModel
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.runtime.remote.signatures import Signature, Tensor, parse_signatures
from vae_bss_tf.runtime.remote.tensors import read_proto

Arrays = Mapping[str, npt.NDArray[Any]]

DEFAULT_SIGNATURE = "serving_default"
_MAX_REQUESTS = 1000  # of a warm-up file
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        code: Name of a status code of gRPC.
        message: What is wrong, in one line.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Servable:
    """One loaded version of a model.

    Args:
        path: Its SavedModel.

    Raises:
        CheckpointError: It cannot be loaded, or fails on its own warm-up requests.
    """

    def __init__(self, path: Path) -> None:
        try:
            description = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
            self.definitions = description.meta_graphs[0].signature_def
            self._signatures = {
                name: parse_signatures({name: json_format.MessageToDict(value, preserving_proto_field_name=True)})[name]
                for name, value in self.definitions.items()
            }
            # The functions hold no weights: the loaded model must live as long as they do.
            self._loaded = tf.saved_model.load(str(path))
        except Exception as error:  # TensorFlow and protobuf raise their own
            raise CheckpointError(f"{path} cannot be loaded ({_line(error)}).") from error
        self.warmed_up = self._warm_up(path)

    def signature(self, name: str) -> Signature:
        """Finds a signature; an empty name stands for `serving_default`.

        Raises:
            RequestError: There is none of that name.
        """
        key = name or DEFAULT_SIGNATURE
        if key not in self._loaded.signatures:
            raise RequestError("FAILED_PRECONDITION", f'Serving signature key "{key}" not found.')
        return self._signatures[key]

    def run(self, name: str, inputs: Arrays, output_filter: Collection[str] = ()) -> dict[str, npt.NDArray[Any]]:
        """Runs a signature.

        Args:
            name: Its name; empty for `serving_default`.
            inputs: Its inputs by name: float32, or objects of type `bytes`.
            output_filter: Outputs to return; empty for all.

        Returns:
            Outputs by name.

        Raises:
            RequestError: Names, dtypes or shapes are wrong, or TensorFlow raises.
        """
        signature = self.signature(name)
        _check_inputs(inputs, signature)
        unknown = [output for output in output_filter if output not in signature.outputs]
        if unknown:
            raise RequestError("INVALID_ARGUMENT", f"output tensor alias not found in signature: {unknown[0]}")
        try:
            outputs = self._loaded.signatures[name or DEFAULT_SIGNATURE](
                **{key: tf.constant(array) for key, array in inputs.items()}
            )
            return {key: outputs[key].numpy() for key in output_filter or outputs}
        except tf.errors.OpError as error:
            raise RequestError(_CODES.get(error.error_code, "INTERNAL"), _line(error)) from error

    def _warm_up(self, path: Path) -> int:
        """Replays the requests that TensorFlow Serving would, and returns their number."""
        if not (path / WARMUP_FILE).is_file():
            return 0
        count = 0
        try:
            for record in tf.data.TFRecordDataset(str(path / WARMUP_FILE)).take(_MAX_REQUESTS).as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                if log.WhichOneof("log_type") != "predict_log":
                    raise ValueError("a record is no predict_log")
                request = log.predict_log.request
                inputs = {key: read_proto(proto) for key, proto in request.inputs.items()}
                self.run(request.model_spec.signature_name, inputs, request.output_filter)
                count += 1
        except Exception as error:  # TensorFlow and protobuf raise their own
            raise CheckpointError(f"{path / WARMUP_FILE} cannot be replayed ({_line(error)}).") from error
        return count


@dataclasses.dataclass(frozen=True)
class VersionState:
    """What became of a version: loaded, or why not."""

    servable: Servable | None
    error: str
    fingerprint: tuple[int, int]


class ModelStore:
    """The models that are served; safe to use from several threads.

    Args:
        report: Told of each version that `poll` loads, drops or finds broken, in one line.
    """

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._models: dict[str, ServedModel] = {}
        self._versions: dict[str, dict[int, VersionState]] = {}
        self._changing = threading.Lock()

    def serve(self, models: Sequence[ServedModel]) -> None:
        """Serves these models, and no others, from now on.

        Raises:
            CheckpointError: A version cannot be loaded; what was served before is served still.
            ConfigError: A label in use would move to a version that is not loaded yet, which TensorFlow Serving
                refuses too.
        """
        with self._changing:
            for model in models:
                self._check_labels(model)
            versions = {model.name: self._load(model) for model in models}
            broken = [state.error for states in versions.values() for state in states.values() if state.error]
            if broken:
                raise CheckpointError(broken[0])
            self._models = {model.name: model for model in models}
            self._versions = versions

    def poll(self) -> None:
        """Looks for new and removed versions. Without any left, those that are loaded stay."""
        with self._changing:
            for name, model in self._models.items():
                versions = self._load(model)
                if versions:
                    before = self._versions[name]
                    self._versions = {**self._versions, name: versions}
                    self._report_changes(name, before, versions)

    def find(self, name: str, version: int | None = None, label: str | None = None) -> tuple[int, Servable]:
        """Finds a loaded version: the given one, that of a label, or the latest.

        Raises:
            RequestError: It is not served.
        """
        loaded = {v: s.servable for v, s in self._versions.get(name, {}).items() if s.servable is not None}
        if label is not None:
            model = self._models.get(name)
            if model is not None and label not in model.labels:
                raise RequestError("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
            version = None if model is None else model.labels[label]
        if not loaded or (version is not None and version not in loaded):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError("NOT_FOUND", f"Servable not found for request: {wanted}")
        version = max(loaded) if version is None else version
        return version, loaded[version]

    def states(self, name: str, version: int | None = None, label: str | None = None) -> dict[int, VersionState]:
        """The versions of a model, or one of them, the latest first.

        Raises:
            RequestError: There is none.
        """
        states = self._versions.get(name, {})
        if label is not None:
            version = self.find(name, label=label)[0]
        if version is not None:
            states = {number: state for number, state in states.items() if number == version}
        if not states:
            which = "" if version is None else f" with version {version}"
            raise RequestError("NOT_FOUND", f"Could not find any versions of model {name}{which}")
        return dict(sorted(states.items(), reverse=True))

    def describe(self) -> list[str]:
        """One line for each model: its versions, labels and warm-up."""
        lines = []
        for name, states in self._versions.items():
            model = self._models[name]
            warmed_up = sum(state.servable.warmed_up for state in states.values() if state.servable is not None)
            words = [f"{name}: version {', '.join(str(version) for version in sorted(states))}"]
            words += [f"label {label} = {version}" for label, version in model.labels.items()]
            words += [f"{warmed_up} warm-up requests replayed"] if warmed_up else []
            lines.append("; ".join(words))
        return lines

    def _check_labels(self, model: ServedModel) -> None:
        known = self._models.get(model.name)
        if known is None:
            return
        loaded = {v for v, state in self._versions[model.name].items() if state.servable is not None}
        for label, version in model.labels.items():
            if known.labels.get(label, version) != version and version not in loaded:
                raise ConfigError(
                    f"{model.name}: the label {label} cannot move to version {version}, which is not loaded; serve "
                    "that version first."
                )

    def _load(self, model: ServedModel) -> dict[int, VersionState]:
        before = self._versions.get(model.name, {})
        known = self._models.get(model.name)
        if known is None or known.base_path != model.base_path:
            before = {}
        after = {}
        for version in model.aspired():
            path = model.base_path / str(version)
            fingerprint = _fingerprint(path)
            state = before.get(version)
            # A loaded version stays as it is; a broken one is tried again when its files have changed.
            if state is None or (state.servable is None and state.fingerprint != fingerprint):
                try:
                    state = VersionState(Servable(path), "", fingerprint)
                except CheckpointError as error:
                    state = VersionState(None, str(error), fingerprint)
            after[version] = state
        return after

    def _report_changes(self, name: str, before: dict[int, VersionState], after: dict[int, VersionState]) -> None:
        for version, state in after.items():
            if state is not before.get(version):
                self._report(f"{name}: {state.error or f'version {version} loaded'}")
        for version in before.keys() - after.keys():
            self._report(f"{name}: version {version} dropped")


def _check_inputs(inputs: Arrays, signature: Signature) -> None:
    if inputs.keys() != signature.inputs.keys():
        extra, missing = (
            sorted(inputs.keys() - signature.inputs.keys()),
            sorted(signature.inputs.keys() - inputs.keys()),
        )
        raise RequestError(
            "INVALID_ARGUMENT",
            "input does not match the signature: "
            f"sent extra: {{{', '.join(extra)}}}, missing but required: {{{', '.join(missing)}}}",
        )
    for name, array in inputs.items():
        expected = signature.inputs[name]
        dtype = "string" if array.dtype == object else str(array.dtype)
        if dtype != expected.dtype:
            raise RequestError("INVALID_ARGUMENT", f"{name} has dtype {dtype}; expected {expected.dtype}")
        if not _fits(array.shape, expected):
            sizes = ",".join("?" if size is None else str(size) for size in expected.shape or ())
            shape = ",".join(str(size) for size in array.shape)
            raise RequestError("INVALID_ARGUMENT", f"{name} has shape [{shape}]; expected [{sizes}]")


def _fits(shape: tuple[int, ...], expected: Tensor) -> bool:
    if expected.shape is None:
        return True
    return len(shape) == len(expected.shape) and all(
        size is None or size == given for size, given in zip(expected.shape, shape, strict=True)
    )


def _fingerprint(path: Path) -> tuple[int, int]:
    """Changes when a file of a folder does: the sum of sizes and the latest time of change."""
    try:
        stats = [file.stat() for file in path.rglob("*") if file.is_file()]
    except OSError:  # deleted in between
        return 0, 0
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _line(error: Exception) -> str:
    message = error.message if isinstance(error, tf.errors.OpError) else str(error)
    return " ".join(message.split())[:300] or type(error).__name__
