"""TensorFlow Serving's REST API, with the standard library."""

import collections
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import DataError, DeadlineError, ServerError, ServerUnavailableError
from vae_bss_tf.files import parse_json
from vae_bss_tf.runtime.remote.address import Address
from vae_bss_tf.runtime.remote.json_numbers import nested_lists
from vae_bss_tf.runtime.remote.options import ServerOptions
from vae_bss_tf.runtime.remote.signatures import Signature, parse_signatures
from vae_bss_tf.runtime.remote.timed_socket import TimedSocket, seconds_until

_IDLE_CONNECTIONS = 16
# What reading JSON of another kind raises.
_WRONG_CONTENT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class RestTransport:
    """Speaks to one model over HTTP/1.1, on connections that are kept.

    Args:
        address: Where the model is.
        options: The longest message.
    """

    def __init__(self, address: Address, options: ServerOptions) -> None:
        self._address = address
        self._options = options
        self._idle: collections.deque[_Connection] = collections.deque(maxlen=_IDLE_CONNECTIONS)

    def signatures(self, seconds: float) -> dict[str, Signature]:
        """Reads the model's signatures; see `Transport`."""
        answer = self._exchange("GET", "/metadata", None, seconds)
        try:
            return parse_signatures(answer["metadata"]["signature_def"]["signature_def"])
        except _WRONG_CONTENT:
            self._refuse_answer()

    def predict(
        self, signature: str, array: npt.NDArray[Any], described: Signature, names: Sequence[str], seconds: float
    ) -> Mapping[str, npt.NDArray[Any]]:
        """Runs a signature; see `Transport`."""
        end = time.monotonic() + seconds
        values = json.dumps(array.astype(str).tolist()) if array.dtype == object else nested_lists(array)
        name = json.dumps(signature)
        body = f'{{"signature_name": {name}, "instances": {values}}}'.encode()
        if len(body) > self._options.max_message_bytes:
            raise DataError(
                f"the request is {len(body)} bytes long, more than max_message_bytes "
                f"({self._options.max_message_bytes}); use a smaller batch_size, or gRPC."
            )
        answer = self._exchange("POST", ":predict", body, end - time.monotonic())
        dtypes = {name: np.float32 if described.outputs[name].dtype == "float32" else object for name in names}
        alone = len(described.outputs) == 1
        try:
            rows = answer["predictions"]
            with np.errstate(over="ignore"):  # of a number beyond float32, which becomes infinite
                return {
                    name: np.asarray(rows if alone else [row[name] for row in rows], dtypes[name]) for name in names
                }
        except _WRONG_CONTENT:
            self._refuse_answer()

    def close(self) -> None:
        """Closes the connections."""
        while self._idle:
            self._idle.pop().close()

    def _exchange(self, method: str, suffix: str, body: bytes | None, seconds: float) -> dict[str, Any]:
        """Sends a request and returns the answer's JSON."""
        end = time.monotonic() + seconds
        path = self._address.rest_path + suffix
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = None
        if connection is not None:
            # A server may close a connection that waits for the next request, and what is sent on it is lost.
            with contextlib.suppress(_DroppedError):
                return self._send(connection, method, path, body, end)
        return self._send(_Connection(self._address.host, self._address.port), method, path, body, end)

    def _send(
        self, connection: "_Connection", method: str, path: str, body: bytes | None, end: float
    ) -> dict[str, Any]:
        try:
            try:
                status, content, keep = connection.exchange(method, path, body, end, self._options.max_message_bytes)
            except BaseException:
                connection.close()
                raise
        except TimeoutError as error:
            raise DeadlineError(
                f"{self._address.url} did not answer within the deadline; allow more, or use a smaller batch_size."
            ) from error
        except (http.client.RemoteDisconnected, http.client.IncompleteRead, ConnectionError) as error:
            raise _DroppedError(_reason(error)) from error
        except http.client.HTTPException as error:
            raise ServerError(
                f"{self._address.url} does not speak HTTP/1.1; it is no REST port of TensorFlow Serving."
            ) from error
        except (OSError, UnicodeError) as error:  # the latter of a host's name
            raise ServerUnavailableError(_reason(error)) from error
        if keep and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()
        if content is None:
            raise ServerError(
                f"{self._address.url}: the answer is longer than max_message_bytes "
                f"({self._options.max_message_bytes}); use a smaller batch_size."
            )
        return self._read(status, content)

    def _read(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            answer = parse_json(content)
        except ValueError:
            answer = None
        if status == 200 and isinstance(answer, dict) and "error" not in answer:
            return answer
        text = answer.get("error") if isinstance(answer, dict) else None
        if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
            raise ServerUnavailableError(f"it says {_line(text)}" if isinstance(text, str) else "it answers 503")
        if not isinstance(text, str):
            self._refuse_answer(f" with status {status}")
        if status == http.HTTPStatus.NOT_FOUND:
            raise ServerError(f"{self._address.url}: the server has no such model, version or label: {_line(text)}")
        raise ServerError(f"{self._address.url}: the server refused the request ({status}): {_line(text)}")

    def _refuse_answer(self, detail: str = "") -> NoReturn:
        raise ServerError(
            f"{self._address.url} answered{detail}, but not as TensorFlow Serving does; check host, port and path."
        )


class _DroppedError(ServerUnavailableError):
    """The connection was refused or broke."""


class _Connection(http.client.HTTPConnection):
    """A connection whose exchanges end at a given time, however slowly the other side sends."""

    def exchange(
        self, method: str, path: str, body: bytes | None, end: float, max_bytes: int
    ) -> tuple[int, bytes | None, bool]:
        """Sends a request and reads the answer.

        Returns:
            Status, content (None when it is longer than `max_bytes`) and whether the connection can be used again.
        """
        if self.sock is None:
            self._open(end)
        self.sock.settimeout(seconds_until(end))
        self.sock.end = end
        headers = {} if body is None else {"Content-Type": "application/json"}
        # A server that refuses a long request may answer and close before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.request(method, path, body, headers)
        response = self.getresponse()
        if (response.length or 0) > max_bytes:
            content = None
        else:
            content = response.read(max_bytes + 1) if response.length is None else response.read()
            if len(content) > max_bytes:
                content = None
        return response.status, content, content is not None and not response.will_close

    def _open(self, end: float) -> None:
        plain = self._connected(end)
        self.sock: Any = TimedSocket(fileno=plain.detach())
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _connected(self, end: float) -> socket.socket:
        """Connects to the first of the host's addresses that answers, all of them within the time."""
        failed: OSError = TimeoutError("the time is over")
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        for left, (family, kind, protocol, _, address) in zip(range(len(found), 0, -1), found, strict=True):
            try:  # an address that never answers leaves time for the others
                return _connected_to(address, socket.socket(family, kind, protocol), seconds_until(end) / left)
            except OSError as error:
                failed = error
        raise failed


def _connected_to(address: Any, plain: socket.socket, seconds: float) -> socket.socket:
    try:
        plain.settimeout(seconds)
        plain.connect(address)
    except OSError:
        plain.close()
        raise
    return plain


def _reason(error: Exception) -> str:
    return _line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
