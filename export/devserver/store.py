"""The models of a development server: loaded SavedModels, their versions, and requests run on them."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf import saved_model_pb2

from export.devserver.config import ServedModel
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.runtime.remote.tensors import read_proto
from vae_bss_tf.runtime.trusted import check_operations

Arrays = dict[str, npt.NDArray[Any]]

DEFAULT_SIGNATURE = "serving_default"
_MAX_NUMBERS, _MAX_STRINGS, _MAX_AXES = 2**24, 1_000, 8  # of an input
_CODES = {code.value[0]: code for code in StatusCode}


class RequestError(Exception):
    """A request that cannot be answered.

    Args:
        message: What is wrong, in one line.
        code: gRPC's status code, from which REST's follows.
    """

    def __init__(self, message: str, code: StatusCode = StatusCode.INVALID_ARGUMENT) -> None:
        super().__init__(message)
        self.message, self.code = message, code


def check_size(name: str, numbers: int, strings: int) -> None:
    """Raises a `RequestError` for more than 2^24 numbers (64 MiB) or 1,000 strings in an input."""
    if numbers > _MAX_NUMBERS or strings > _MAX_STRINGS:
        raise RequestError(f"{name} holds too many values: {_MAX_NUMBERS} numbers or {_MAX_STRINGS} strings are taken")


def read_inputs(request: Any) -> Arrays:
    """Reads the inputs of a `PredictRequest`; one value that stands for many is refused before it is filled in.

    Args:
        request: The message.

    Returns:
        float32, or objects of type `bytes`, by name.

    Raises:
        RequestError: The values are not as many as the shape says, are too many, or of another dtype.
    """
    inputs = {}
    for name, proto in request.inputs.items():
        numbers, strings = len(proto.tensor_content) // 4 + len(proto.float_val), len(proto.string_val)
        check_size(name, numbers, strings)
        shape = [dimension.size for dimension in proto.tensor_shape.dim[: _MAX_AXES + 1]]
        if len(shape) > _MAX_AXES or math.prod(shape) > numbers + strings:
            raise RequestError(f"{name} has the shape {shape} and holds only {numbers + strings} values")
        try:
            inputs[name] = read_proto(proto)
        except ValueError as error:
            raise RequestError(f"{name}: {error}") from error
    return inputs


class Servable:
    """One loaded version of a model.

    Args:
        path: Its SavedModel.

    Attributes:
        definitions: Its `SignatureDef` messages by name.

    Raises:
        CheckpointError: It cannot be loaded, or its graph holds operations that no export has.

    Example:
        >>> sorted(Servable(Path("exported/mnist/saved_model/1")).run("encode", {"mixture": mixtures}))
        ['latent_log_variance', 'latent_mean']
    """

    def __init__(self, path: Path) -> None:
        check_operations(path)
        try:
            description = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
            self.definitions = description.meta_graphs[0].signature_def
            # The functions hold no weights: the loaded model must live as long as they do.
            self._loaded = tf.saved_model.load(str(path))
        except Exception as error:  # TensorFlow and protobuf raise their own
            raise CheckpointError(f"{path} cannot be loaded ({' '.join(str(error).split())[:300]}).") from error

    def function(self, signature: str) -> Any:
        """The function of a signature, or a `RequestError` where there is none; empty stands for `serving_default`."""
        key = signature or DEFAULT_SIGNATURE
        if key not in self._loaded.signatures:
            raise RequestError(f'Serving signature key "{key}" not found.', StatusCode.FAILED_PRECONDITION)
        return self._loaded.signatures[key]

    def run(self, signature: str, inputs: Arrays, output_filter: Collection[str] = ()) -> Arrays:
        """Runs a signature.

        Args:
            signature: Its name, as `function` takes it.
            inputs: Its inputs by name: float32, or objects of type `bytes`.
            output_filter: Outputs to return; empty for all.

        Returns:
            Outputs by name.

        Raises:
            RequestError: There is no such signature, names, dtypes or shapes are wrong, or TensorFlow raises.
        """
        function = self.function(signature)
        specs = function.structured_input_signature[1]
        if inputs.keys() != specs.keys():
            raise RequestError(f"the inputs are {sorted(inputs)}; expected {sorted(specs)}")
        for name, spec in specs.items():
            dtype, shape = tf.as_dtype(inputs[name].dtype), inputs[name].shape
            if dtype != spec.dtype or not spec.shape.is_compatible_with(shape):
                raise RequestError(f"{name} is {dtype.name} {shape}; expected {spec.dtype.name} {spec.shape}")
        for name in output_filter:
            if name not in function.structured_outputs:
                raise RequestError(f"there is no output {name}; expected of {sorted(function.structured_outputs)}")
        try:
            outputs = function(**{name: tf.constant(array) for name, array in inputs.items()})
        except tf.errors.OpError as error:
            message = " ".join(error.message.split())[:300]
            raise RequestError(message, _CODES.get(error.error_code, StatusCode.INTERNAL)) from error
        return {name: outputs[name].numpy() for name in output_filter or outputs}


class ModelStore:
    """The models that are served. One thread may change them while others read.

    Example:
        >>> store = ModelStore()
        >>> store.serve(named_models(["mnist=exported/mnist"]))
        >>> version, servable = store.find("mnist")
    """

    def __init__(self) -> None:
        self._served: dict[str, tuple[ServedModel, dict[int, Servable]]] = {}

    def serve(self, models: Sequence[ServedModel]) -> None:
        """Serves these models, and no others, from now on: loads what is new in their folders, drops what is gone.

        Args:
            models: The models. Without any version left in its folder, a model keeps those that are loaded.

        Raises:
            ConfigError: A label in use would move to a version that is not loaded yet, which TensorFlow Serving
                refuses too. What was served before is served still.
            CheckpointError: A version cannot be loaded. The others are served.
        """
        served, broken = {}, None
        for model in models:
            known, loaded = self._served.get(model.name, (model, {}))
            for label, version in model.labels.items():
                if known.labels.get(label, version) != version and version not in loaded:
                    raise ConfigError(f"{model.name}: label {label} cannot move to version {version}: load that first.")
            before, after = loaded if known.base_path == model.base_path else {}, {}
            for version in model.aspired():
                try:
                    after[version] = before.get(version) or Servable(model.base_path / str(version))
                except CheckpointError as error:
                    broken = error
            served[model.name] = model, after or before
        self._served = served
        if broken is not None:
            raise broken

    def versions(self, name: str, version: int | None = None, label: str | None = None) -> dict[int, Servable]:
        """The loaded versions of a model, the latest first.

        Args:
            name: The model.
            version: The only version that is wanted; None for all, or that of `label`.
            label: The label of the only version that is wanted; None for none.

        Raises:
            RequestError: There is none.
        """
        model, loaded = self._served.get(name, (None, {}))
        if label is not None and model is not None:
            if label not in model.labels:
                raise RequestError(f"Unrecognized servable version label: {label}")
            version = model.labels[label]
        found = {number: loaded[number] for number in sorted(loaded, reverse=True) if version in (None, number)}
        if not found:
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise RequestError(f"Servable not found for request: {which}", StatusCode.NOT_FOUND)
        return found

    def find(self, *which: Any) -> tuple[int, Servable]:
        """Returns the latest of the versions that `versions` gives, and takes and raises what it does."""
        return next(iter(self.versions(*which).items()))

    def describe(self) -> list[str]:
        """One line for each model, which says its versions and labels."""
        return [
            f"{name}: version {', '.join(map(str, sorted(loaded)))}"
            + "".join(f"; label {label} = {version}" for label, version in model.labels.items())
            for name, (model, loaded) in self._served.items()
        ]
