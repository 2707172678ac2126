"""A development server on two ports, in this process: what `python -m export.serve` runs."""

import asyncio
import errno
import socket
import threading
from collections.abc import Sequence
from typing import Any, Self

from export.devserver import rest, rpc
from export.devserver.config import ServedModel
from export.devserver.store import ModelStore
from vae_bss_tf.errors import ConfigError

_GRACE_SECONDS = 30.0


class DevelopmentServer:
    """Serves models over gRPC and REST from `start` to `stop`, or as long as a `with` block lasts.

    Args:
        models: What to serve.
        host: Address to listen on.
        port: Port of gRPC; 0 picks a free one.
        rest_port: Port of REST; 0 picks a free one.
        max_message_bytes: Longest request and, over gRPC, longest answer.

    Attributes:
        port: Port of gRPC.
        rest_port: Port of REST.
        store: The models.

    Raises:
        ConfigError: A port cannot be had.
        CheckpointError: A model cannot be loaded.

    Example:
        >>> with DevelopmentServer(named_models(["mnist=exported/mnist"])) as server:
        ...     model = load(f"grpc://127.0.0.1:{server.port}/mnist")
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_port: int = 0,
        max_message_bytes: int = 2**28,
    ) -> None:
        self.store = ModelStore()
        self._rest = rest.RestServer(self.store, max_message_bytes, _GRACE_SECONDS)
        self._grpc = rpc.make_server(self.store, max_message_bytes)
        self._loop = asyncio.new_event_loop()
        # Both ports are taken before the models are loaded, which takes longer.
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, rest_port), family=family)
            self.port: int = self._grpc.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except (OSError, OverflowError, RuntimeError) as error:
            if isinstance(error, OSError) and error.errno != errno.EADDRINUSE:
                raise ConfigError(f"{host} cannot be listened on ({error.strerror}): choose another --host.") from error
            raise ConfigError(f"a port of {host} is taken ({error}): choose another --port or --rest-port.") from error
        self.rest_port: int = self._socket.getsockname()[1]
        self.store.serve(models)

    def start(self) -> Self:
        """Begins to answer."""
        self._grpc.start()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._wait_for(self._rest.start(self._socket))
        return self

    def stop(self) -> None:
        """Refuses new requests and waits for those in progress, for 30 seconds at most."""
        finished = self._grpc.stop(_GRACE_SECONDS)
        self._wait_for(self._rest.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        finished.wait()

    def _wait_for(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
