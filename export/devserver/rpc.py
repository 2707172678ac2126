"""The gRPC API of TensorFlow Serving, for a development server."""

import functools
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export.devserver.config import parse_config
from export.devserver.store import ModelStore, RequestError, Servable
from vae_bss_tf.errors import VaeBssError
from vae_bss_tf.runtime.remote.tensors import fill_proto, read_proto

_METADATA = "signature_def"
_STATES = get_model_status_pb2.ModelVersionStatus.State

Method = Callable[[Any, Any, grpc.ServicerContext], Any]


def make_server(store: ModelStore, max_message_bytes: int, workers: int, models_root: Path | None) -> grpc.Server:
    """Makes a server of the prediction and the model service, bound to no port yet.

    Args:
        store: The models.
        max_message_bytes: Longest request and answer.
        workers: Requests that run at once.
        models_root: The folder that stands for `/models` in configurations that are sent; None for none.
    """
    server = grpc.server(
        futures.ThreadPoolExecutor(workers),
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Two servers on one port would each get some of the requests.
            ("grpc.so_reuseport", 0),
        ],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(store), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(store, models_root), server)
    return server


def _answers(method: Method) -> Method:
    """Turns errors of a request into status codes."""

    @functools.wraps(method)
    def answered(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except RequestError as error:
            return context.abort(grpc.StatusCode[error.code], error.message)

    return answered


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata; the other methods answer UNIMPLEMENTED."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    @_answers
    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Runs a signature."""
        version, servable = _find(self._store, request.model_spec)
        try:
            inputs = {name: read_proto(proto) for name, proto in request.inputs.items()}
        except ValueError as error:
            raise RequestError("INVALID_ARGUMENT", str(error)) from error
        name = request.model_spec.signature_name
        answer = predict_pb2.PredictResponse()
        for output, array in servable.run(name, inputs, request.output_filter).items():
            fill_proto(answer.outputs[output], array)
        _describe(answer.model_spec, request, version)
        answer.model_spec.signature_name = name or "serving_default"
        return answer

    @_answers
    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the signatures."""
        version, servable = _find(self._store, request.model_spec)
        unknown = [field for field in request.metadata_field if field != _METADATA]
        if unknown or not request.metadata_field:
            raise RequestError(
                "INVALID_ARGUMENT", f"Metadata field {unknown[:1] or 'is missing: name it'} signature_def"
            )
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for name, definition in servable.definitions.items():
            definitions.signature_def[name].CopyFrom(definition)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata[_METADATA].Pack(definitions)
        _describe(answer.model_spec, request, version)
        return answer


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    def __init__(self, store: ModelStore, models_root: Path | None) -> None:
        self._store = store
        self._models_root = models_root

    @_answers
    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Returns the state of each version."""
        return model_status(self._store, *_which(request.model_spec))

    @_answers
    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Serves what another configuration says."""
        answer = model_management_pb2.ReloadConfigResponse()
        try:
            self._store.serve(parse_config(request.config, self._models_root))
        except VaeBssError as error:
            answer.status.error_code = grpc.StatusCode.INVALID_ARGUMENT.value[0]
            answer.status.error_message = str(error)
        return answer


def model_status(store: ModelStore, name: str, version: int | None, label: str | None) -> Any:
    """The `GetModelStatusResponse` of a model.

    Raises:
        RequestError: There is no such model, version or label.
    """
    answer = get_model_status_pb2.GetModelStatusResponse()
    for number, state in store.states(name, version, label).items():
        status = answer.model_version_status.add(version=number)
        status.state = _STATES.AVAILABLE if state.servable is not None else _STATES.END
        status.status.SetInParent()
        if state.servable is None:
            status.status.error_code = grpc.StatusCode.UNKNOWN.value[0]
            status.status.error_message = state.error
    return answer


def _which(spec: Any) -> tuple[str, int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _find(store: ModelStore, spec: Any) -> tuple[int, Servable]:
    return store.find(*_which(spec))


def _describe(spec: Any, request: Any, version: int) -> None:
    spec.name = request.model_spec.name
    spec.version.value = version
