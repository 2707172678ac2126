"""TensorFlow Serving's gRPC API, with the stubs of tensorflow-serving-api."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from vae_bss_tf.errors import DataError, DeadlineError, ServerError, ServerUnavailableError
from vae_bss_tf.runtime.base import import_library
from vae_bss_tf.runtime.remote.address import Address
from vae_bss_tf.runtime.remote.options import ServerOptions
from vae_bss_tf.runtime.remote.signatures import Signature, Tensor, parse_signatures
from vae_bss_tf.runtime.remote.tensors import fill_proto, read_proto

_METADATA = "signature_def"


class GrpcTransport:
    """Speaks to one model over one channel.

    Args:
        address: Where the model is.
        options: The longest message.

    Raises:
        ConfigError: tensorflow-serving-api is not installed.
    """

    def __init__(self, address: Address, options: ServerOptions) -> None:
        self._grpc = import_library("grpc", "serving")
        self._predict_pb2 = import_library("tensorflow_serving.apis.predict_pb2", "serving")
        self._metadata_pb2 = import_library("tensorflow_serving.apis.get_model_metadata_pb2", "serving")
        service = import_library("tensorflow_serving.apis.prediction_service_pb2_grpc", "serving")
        self._address = address
        self._max_bytes = options.max_message_bytes
        self._channel = self._grpc.insecure_channel(
            f"[{address.host}]:{address.port}" if ":" in address.host else f"{address.host}:{address.port}",
            options=[
                ("grpc.max_send_message_length", self._max_bytes),
                ("grpc.max_receive_message_length", self._max_bytes),
                # Retries are the model's; a broken channel connects anew as fast as they come.
                ("grpc.enable_retries", 0),
                ("grpc.initial_reconnect_backoff_ms", round(1e3 * options.backoff)),
                ("grpc.max_reconnect_backoff_ms", round(1e3 * options.max_backoff)),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._stub = service.PredictionServiceStub(self._channel)

    def signatures(self, seconds: float) -> dict[str, Signature]:
        """Reads the model's signatures; see `Transport`."""
        from google.protobuf import json_format

        request = self._metadata_pb2.GetModelMetadataRequest(metadata_field=[_METADATA])
        self._name(request.model_spec)
        answer = self._call(self._stub.GetModelMetadata, request, seconds)
        definitions = self._metadata_pb2.SignatureDefMap()
        if not answer.metadata[_METADATA].Unpack(definitions):
            raise ServerError(f"{self._address.url} sent no signatures; it is no TensorFlow Serving.")
        text = json_format.MessageToJson(definitions, preserving_proto_field_name=True)
        return parse_signatures(json.loads(text).get(_METADATA, {}))

    def predict(
        self, signature: str, array: npt.NDArray[Any], described: Signature, names: Sequence[str], seconds: float
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Runs a signature; see `Transport`."""
        request = self._predict_pb2.PredictRequest(output_filter=names)
        self._name(request.model_spec)
        request.model_spec.signature_name = signature
        (name,) = described.inputs
        fill_proto(request.inputs[name], array)
        if request.ByteSize() > self._max_bytes:
            raise DataError(
                f"the request is {request.ByteSize()} bytes long, more than max_message_bytes ({self._max_bytes}); "
                "use a smaller batch_size."
            )
        answer = self._call(self._stub.Predict, request, seconds)
        try:
            return {
                name: read_proto(answer.outputs[name], _num_values(len(array), described.outputs[name]))
                for name in names
                if name in answer.outputs
            }
        except ValueError as error:
            raise ServerError(f"{self._address.url}: the answer cannot be read: {error}.") from error

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()

    def _name(self, spec: Any) -> None:
        spec.name = self._address.name
        if self._address.version is not None:
            spec.version.value = self._address.version
        elif self._address.label is not None:
            spec.version_label = self._address.label

    def _call(self, method: Callable[..., Any], request: Any, seconds: float) -> Any:
        try:
            return method(request, timeout=max(seconds, 0.0))
        except self._grpc.RpcError as error:
            raise self._error(error.code(), " ".join((error.details() or "").split())[:300]) from error

    def _error(self, code: Any, details: str) -> ServerError:
        url, codes = self._address.url, self._grpc.StatusCode
        if code == codes.UNAVAILABLE:
            return ServerUnavailableError(details)
        if code == codes.DEADLINE_EXCEEDED:
            return DeadlineError(f"{url} did not answer within the deadline; allow more, or use a smaller batch_size.")
        if code == codes.NOT_FOUND:
            return ServerError(f"{url}: the server has no such model, version or label: {details}")
        if code == codes.RESOURCE_EXHAUSTED:
            return ServerError(f"{url}: a message is too long or the server too busy: {details}")
        if code == codes.UNIMPLEMENTED:
            return ServerError(f"{url} is no TensorFlow Serving: {details}")
        return ServerError(f"{url}: the server refused the request ({code.name}): {details}")


def _num_values(batch: int, tensor: Tensor) -> int:
    return batch * math.prod(size or 1 for size in (tensor.shape or ())[1:])
