"""A development server on two ports, in this process: what `python -m export.serve` runs."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from export.devserver import rpc as serve_grpc
from export.devserver.config import ServedModel
from export.devserver.rest import RestServer
from export.devserver.store import ModelStore
from vae_bss_tf.errors import ConfigError

MAX_MESSAGE_BYTES = 256 * 2**20
_POLL_SECONDS = 0.05  # between looks at whether to stop


class DevelopmentServer:
    """Serves models over gRPC and REST from `start` to `stop`, or as long as a `with` block lasts.

    Args:
        models: What to serve.
        host: Address to listen on.
        port: Port of gRPC; 0 picks a free one.
        rest_port: Port of REST; 0 picks a free one.
        max_message_bytes: Longest request and, over gRPC, longest answer.
        read_seconds: How long a REST client may take to send a request, and to take its answer.
        workers: gRPC requests that run at once.
        models_root: The folder that stands for `/models` in configurations sent over gRPC; None for none.
        report: Told of each version that a `poll` of the store loads or drops, in one line.

    Attributes:
        port: Port of gRPC.
        rest_port: Port of REST.
        store: The models.

    Raises:
        ConfigError: A port cannot be had.
        CheckpointError: A model cannot be loaded, or fails on its own warm-up requests.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_port: int = 0,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        read_seconds: float = 30.0,
        workers: int = 8,
        models_root: Path | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.store = ModelStore(report)
        # Both ports are taken before the models are loaded, which takes longer.
        try:
            self._rest = RestServer((host, rest_port), self.store, max_message_bytes, read_seconds)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigError(
                f"{host}:{rest_port} cannot be had ({reason}); choose another --rest-port, or 0."
            ) from error
        self.rest_port: int = self._rest.server_port
        self._grpc = serve_grpc.make_server(self.store, max_message_bytes, workers, models_root)
        try:
            self.port: int = self._grpc.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            self._rest.server_close()
            raise ConfigError(f"{host}:{port} cannot be had; choose another --port, or 0.") from error
        try:
            self.store.serve(models)
        except BaseException:
            self._rest.server_close()
            self._grpc.stop(None)
            raise

    def start(self) -> None:
        """Begins to answer."""
        self._grpc.start()
        self._rest.server_activate()
        threading.Thread(target=self._rest.serve_forever, args=[_POLL_SECONDS], daemon=True).start()

    def stop(self, grace_seconds: float) -> None:
        """Refuses new requests and waits so long for those in progress."""
        finished = self._grpc.stop(grace_seconds)
        self._rest.stop(grace_seconds)
        finished.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(grace_seconds=5.0)
