"""The gRPC API of TensorFlow Serving, for a development server."""

from concurrent import futures
from typing import Any

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tensorflow_serving.apis import model_service_pb2_grpc as model_service
from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction_service

from export.devserver.store import DEFAULT_SIGNATURE, ModelStore, RequestError, Servable, read_inputs
from vae_bss_tf.runtime.remote.tensors import fill_proto

_METADATA = "signature_def"
_AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE


def make_server(store: ModelStore, max_message_bytes: int) -> grpc.Server:
    """Makes a gRPC server of a store, bound to no port yet, of messages of at most so many bytes."""
    options = [(f"grpc.max_{way}_message_length", max_message_bytes) for way in ("receive", "send")]
    options.append(("grpc.so_reuseport", 0))  # two servers on one port would each get some of the requests
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=options)
    prediction_service.add_PredictionServiceServicer_to_server(_Services(store), server)
    model_service.add_ModelServiceServicer_to_server(_Services(store), server)
    return server


def model_status(store: ModelStore, name: str, version: int | None, label: str | None) -> Any:
    """The `GetModelStatusResponse` of a model, or a `RequestError` where `store.versions` raises one."""
    answer = get_model_status_pb2.GetModelStatusResponse()
    for number in store.versions(name, version, label):
        answer.model_version_status.add(version=number, state=_AVAILABLE).status.SetInParent()
    return answer


def _answers(method: Any) -> Any:
    """Turns errors of a request into status codes."""

    def answered(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request)
        except RequestError as error:
            return context.abort(error.code, error.message)

    return answered


class _Services(prediction_service.PredictionServiceServicer, model_service.ModelServiceServicer):
    def __init__(self, store: ModelStore) -> None:
        self._store = store

    @_answers
    def Predict(self, request: Any) -> Any:
        answer = predict_pb2.PredictResponse()
        servable = self._find(request, answer)
        name = request.model_spec.signature_name
        for output, array in servable.run(name, read_inputs(request), request.output_filter).items():
            fill_proto(answer.outputs[output], array)
        answer.model_spec.signature_name = name or DEFAULT_SIGNATURE
        return answer

    @_answers
    def GetModelMetadata(self, request: Any) -> Any:
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        servable = self._find(request, answer)
        if list(request.metadata_field) != [_METADATA]:
            raise RequestError(f"metadata_field is {list(request.metadata_field)[:3]}; expected ['{_METADATA}']")
        answer.metadata[_METADATA].Pack(get_model_metadata_pb2.SignatureDefMap(signature_def=servable.definitions))
        return answer

    @_answers
    def GetModelStatus(self, request: Any) -> Any:
        return model_status(self._store, *_which(request.model_spec))

    def _find(self, request: Any, answer: Any) -> Servable:
        version, servable = self._store.find(*_which(request.model_spec))
        answer.model_spec.name = request.model_spec.name
        answer.model_spec.version.value = version
        return servable


def _which(spec: Any) -> tuple[str, int | None, str | None]:
    return spec.name, spec.version.value if spec.HasField("version") else None, spec.version_label or None
