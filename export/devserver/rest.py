"""The REST API of TensorFlow Serving, for a development server."""

import contextlib
import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from export.devserver.rest_json import predict
from export.devserver.rpc import model_status
from export.devserver.store import ModelStore, RequestError
from vae_bss_tf.runtime.remote.timed_socket import TimedSocket

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,18})|/labels/([^/:]+))?(/metadata|:predict)?")
_STATUSES = {
    "TOO_LONG": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "RESOURCE_EXHAUSTED": HTTPStatus.SERVICE_UNAVAILABLE,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "UNIMPLEMENTED": HTTPStatus.NOT_IMPLEMENTED,
}
_TOO_LONG = "TOO_LONG"  # no code of gRPC, which has RESOURCE_EXHAUSTED for this and for being busy
_MAX_CONNECTIONS = 256
_LINGER_SECONDS = 2.0


class RestServer(http.server.ThreadingHTTPServer):
    """An HTTP server bound to its port; it listens from `server_activate` on.

    Args:
        address: Host and port; port 0 picks a free one.
        store: The models.
        max_message_bytes: Longest body of a request.
        read_seconds: How long a client may take to send a request, and to take its answer.

    Raises:
        OSError: The port cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128  # of connections not yet accepted; beyond it a client waits a second
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], store: ModelStore, max_message_bytes: int, read_seconds: float
    ) -> None:
        super().__init__(address, _Handler, bind_and_activate=False)
        self.store = store
        self.max_message_bytes = max_message_bytes
        self.read_seconds = read_seconds
        self._connections = threading.Semaphore(_MAX_CONNECTIONS)
        self._changed = threading.Condition()
        self._in_progress = 0
        self._stopping = False
        try:
            self.server_bind()
        except BaseException:
            self.server_close()
            raise

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts a connection, whose requests must come in time."""
        plain, address = super().get_request()
        return TimedSocket(fileno=plain.detach()), address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts a thread for a connection, unless there are too many."""
        if self._connections.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serves a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks concerns nobody else."""

    @contextlib.contextmanager
    def in_progress(self) -> Iterator[None]:
        """Counts a request while it is answered.

        Raises:
            RequestError: The server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise RequestError("UNAVAILABLE", "the server is stopping")
            self._in_progress += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_progress -= 1
                self._changed.notify_all()

    def stop(self, grace_seconds: float) -> None:
        """Accepts nothing more and waits for the requests in progress."""
        with self._changed:
            self._stopping = True
        self.shutdown()
        self.server_close()
        with self._changed:
            self._changed.wait_for(lambda: self._in_progress == 0, grace_seconds)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.1"
    server_version = "vae-bss-development"
    disable_nagle_algorithm = True
    server: RestServer
    connection: Any

    def handle_one_request(self) -> None:
        self.connection.end = time.monotonic() + self.server.read_seconds
        super().handle_one_request()

    def do_GET(self) -> None:
        # The body that such a request has no use for must not be taken for the next one.
        self.close_connection = self.close_connection or "Content-Length" in self.headers
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.close_connection = True
        self._send(code, json.dumps({"error": message or HTTPStatus(code).phrase}))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def _respond(self, answer: Any) -> None:
        try:
            with self.server.in_progress():
                self._send(HTTPStatus.OK, answer())
        except RequestError as error:
            # The body of such a request has not been read and must not be taken for the next one.
            self.close_connection = self.close_connection or error.code in (_TOO_LONG, "UNAVAILABLE")
            self._send(
                _STATUSES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR), json.dumps({"error": error.message})
            )
            if error.code == _TOO_LONG:
                self._linger()

    def _linger(self) -> None:
        """Takes what is still being sent: closing on it would lose the answer."""
        self.connection.end = time.monotonic() + _LINGER_SECONDS
        self.connection.shutdown(socket.SHUT_WR)
        buffer = bytearray(2**16)
        with contextlib.suppress(OSError):
            while self.connection.recv_into(buffer):
                pass

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.connection.settimeout(self.server.read_seconds)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _parse_path(self) -> tuple[str, int | None, str | None, str | None]:
        found = _PATH.fullmatch(self.path)
        if found is None:
            raise RequestError("INVALID_ARGUMENT", f"Malformed request: {self.command} {self.path[:200]}")
        name, version, label, action = found.groups()
        return name, None if version is None else int(version), label, action

    def _get(self) -> str:
        name, version, label, action = self._parse_path()
        if action is None:
            return json.dumps(_json(model_status(self.server.store, name, version, label)))
        if action != "/metadata":
            raise RequestError("INVALID_ARGUMENT", f"Malformed request: GET {self.path[:200]}")
        number, servable = self.server.store.find(name, version, label)
        definitions = get_model_metadata_pb2.SignatureDefMap()
        for key, definition in servable.definitions.items():
            definitions.signature_def[key].CopyFrom(definition)
        spec = {"name": name, "signature_name": "", "version": str(number)}
        return json.dumps({"model_spec": spec, "metadata": {"signature_def": _json(definitions)}})

    def _post(self) -> str:
        body = self._read_body()
        name, version, label, action = self._parse_path()
        if action != ":predict":
            raise RequestError("INVALID_ARGUMENT", f"Malformed request: POST {self.path[:200]}")
        _, servable = self.server.store.find(name, version, label)
        return predict(servable, body)

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self.close_connection = True
            raise RequestError("INVALID_ARGUMENT", "Content-Length is missing")
        if int(length) > self.server.max_message_bytes:
            raise RequestError(_TOO_LONG, f"the body is longer than {self.server.max_message_bytes} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise RequestError("INVALID_ARGUMENT", "the body is shorter than Content-Length")
        return body


def _json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
