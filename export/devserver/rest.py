"""TensorFlow Serving's REST API, for a development server. HTTP is aiohttp's, which refuses ambiguous requests."""

import asyncio
import functools
import json
import logging
import re
import socket
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from aiohttp import web
from google.protobuf import json_format
from grpc import StatusCode
from tensorflow_serving.apis import get_model_metadata_pb2

from export.devserver.rpc import model_status
from export.devserver.store import ModelStore, RequestError, Servable, check_size
from vae_bss_tf.runtime.remote.json_numbers import list_of_objects, nested_lists

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d{1,18})|/labels/([^/:]+))?(/metadata|:predict)?")
_STATUSES = {StatusCode.NOT_FOUND: 404, StatusCode.INTERNAL: 500}
_JSON = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
READ_SECONDS = 30.0  # for the body of a request
IDLE_SECONDS = 30.0  # for the headers of a request, from the connection's start or the last answer
LINGERING_SECONDS = 10.0  # for what is left of a body that was refused
MAX_CONNECTIONS = 500
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class RestServer:
    """An HTTP server of a store, on a socket that listens already.

    Args:
        store: The models.
        max_message_bytes: Longest body of a request.
        grace_seconds: How long `stop` waits for requests in progress.
    """

    def __init__(self, store: ModelStore, max_message_bytes: int, grace_seconds: float) -> None:
        application = web.Application(client_max_size=max_message_bytes)
        application.router.add_route("*", "/{path:.*}", functools.partial(_answer, store, max_message_bytes))
        self._runner = web.AppRunner(
            application,
            logger=logging.Logger("rest", logging.CRITICAL),  # a malformed request concerns nobody but its sender
            auto_decompress=False,
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=grace_seconds,
            lingering_time=LINGERING_SECONDS,
        )
        self._listening: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        """Begins to answer."""
        await self._runner.setup()
        self._listening = await asyncio.get_running_loop().create_server(self._connection, sock=listening)

    async def stop(self) -> None:
        """Refuses new connections and waits for requests in progress."""
        if self._listening is not None:
            self._listening.close()
        await self._runner.cleanup()

    def _connection(self) -> web.RequestHandler:
        assert self._runner.server is not None
        handler = self._runner.server()
        # asyncio makes the connection, and aiohttp counts it, before the loop comes to its timers.
        asyncio.get_running_loop().call_later(0, self._limit, handler)
        return handler

    def _limit(self, handler: web.RequestHandler) -> None:
        server, transport = self._runner.server, handler.transport
        if transport is not None:  # an answer is finished when all of it is sent, and `stop` waits for that
            transport.set_write_buffer_limits(high=0)
        if self._listening is not None and not self._listening.is_serving():
            handler.force_close()  # it came as `stop` began: aiohttp would wait for it, and drop what it asks
        elif server is not None and transport is not None and handler in server.connections[MAX_CONNECTIONS:]:
            transport.write(_BUSY)
            handler.force_close()


async def _answer(store: ModelStore, max_bytes: int, request: web.Request) -> web.Response:
    try:
        if request.method != "POST" and request.body_exists:
            raise RequestError(f"a {request.method} request takes no body")
        if (request.content_length or 0) > max_bytes:
            raise web.HTTPRequestEntityTooLarge(max_bytes, max_bytes + 1)
        async with asyncio.timeout(READ_SECONDS):
            body = await request.read()
        text = await asyncio.to_thread(_respond, store, request.method, request.raw_path, body)
        return web.Response(text=text, content_type="application/json")
    except RequestError as error:
        status, message = _STATUSES.get(error.code, 400), error.message
    except web.HTTPRequestEntityTooLarge:
        status, message = 413, f"the body is longer than {max_bytes} bytes"
    except TimeoutError:
        status, message = 408, f"the body did not come within {READ_SECONDS:g} seconds"
    response = web.json_response({"error": message}, status=status)
    response.force_close()  # the body may not have been read
    return response


def _respond(store: ModelStore, method: str, path: str, body: bytes) -> str:
    found = _PATH.fullmatch(path)
    if found is None or (method, found[4]) not in (("GET", None), ("GET", "/metadata"), ("POST", ":predict")):
        raise RequestError(f"Malformed request: {method} {path[:200]}")
    which = found[1], None if found[2] is None else int(found[2]), found[3]
    if found[4] is None:
        return json_format.MessageToJson(model_status(store, *which), **_JSON)
    version, servable = store.find(*which)
    if method == "POST":
        return _predict(servable, body)
    definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.definitions)
    metadata = {"signature_def": json_format.MessageToDict(definitions, **_JSON)}
    spec = {"name": which[0], "signature_name": "", "version": str(version)}
    return json.dumps({"model_spec": spec, "metadata": metadata})


def _predict(servable: Servable, body: bytes) -> str:
    # Each value of JSON but the first stands behind one of these marks.
    check_size("the request", sum(body.count(mark) for mark in (b",", b"[", b"{")), 0)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"JSON Parse error: {error}") from error
    name = request.get("signature_name", "") if isinstance(request, dict) else None
    if not isinstance(name, str):
        raise RequestError("the request is no JSON object, or its 'signature_name' is no string")
    by_row = "instances" in request
    if by_row == ("inputs" in request):
        raise RequestError("both 'inputs' and 'instances'" if by_row else "Missing 'inputs' or 'instances' key")
    specs = servable.function(name).structured_input_signature[1]
    columns = _columns(request["instances" if by_row else "inputs"], by_row, specs)
    outputs = servable.run(name, {key: _array(key, value, specs) for key, value in columns.items()})
    first, *more = outputs.values()
    if not more:  # strings too: the exports' only ones are the one output of `settings`
        text = json.dumps(first.tolist(), default=lambda text: text.decode(errors="replace"))
    elif by_row:
        text = list_of_objects(outputs)
    else:
        text = f"{{{', '.join(f'{json.dumps(key)}: {nested_lists(array)}' for key, array in outputs.items())}}}"
    return f'{{"{"predictions" if by_row else "outputs"}": {text}}}'


def _columns(value: Any, by_row: bool, specs: Any) -> dict[str, Any]:
    """Inputs by name, from rows or from columns; the only input of a signature may come without its name."""
    rows = value if by_row else [value]
    if not isinstance(rows, list) or not rows:
        raise RequestError("'instances' is no list, or an empty one")
    alone = next(iter(specs)) if len(specs) == 1 else ""
    named = [row if isinstance(row, dict) else {alone: row} for row in rows]
    if any(row.keys() != named[0].keys() for row in named):
        raise RequestError("the instances do not all have the same keys")
    return {key: [row[key] for row in named] for key in named[0]} if by_row else named[0]


def _array(name: str, value: Any, specs: Any) -> npt.NDArray[Any]:
    try:
        if name in specs and specs[name].dtype == tf.string:
            strings = np.array(value, object)
            check_size(name, 0, strings.size)
            return np.array(np.frompyfunc(str.encode, 1, 1)(strings), object)
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            raise ValueError("a value is no number, or the lists differ in length")
        return array.astype(np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"JSON Value of {name}: {' '.join(str(error).split())[:200]}") from error
