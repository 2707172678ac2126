"""`python -m export.serve`: a development server that speaks TensorFlow Serving's REST and gRPC API.

It is for trying out models, clients and configurations where TensorFlow Serving is not at hand, not for production:
it runs in Python, batches nothing, authenticates nobody, and listens on loopback unless told otherwise. In production
run TensorFlow Serving itself, on the same folders and the same configuration.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vae_bss_tf.errors import ConfigError, VaeBssError, run_command
from vae_bss_tf.runtime import import_library

if TYPE_CHECKING:
    from export.devserver.server import DevelopmentServer

_LONGEST = 1_000_000  # seconds; the system's timers end somewhere


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command until SIGTERM or SIGINT; requests in progress are finished.

    Args:
        arguments: Its words; those of the process by default.

    Returns:
        The exit code: 0, or 2 for bad input.
    """
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return run_command(lambda: _command(options))


def _command(options: argparse.Namespace) -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    print("development server: not for production; there, run TensorFlow Serving on the same folders", flush=True)
    from export.devserver.config import named_models, read_config

    import_library("tensorflow_serving.apis.predict_pb2", "serving")
    content = _content(options.models_config)
    if options.models_config is not None:
        models = read_config(options.models_config, options.models_root)
    elif options.models_root is not None:
        raise ConfigError("--models-root goes with --models-config; name the folder itself: --model NAME=PATH")
    else:
        models = named_models(options.model)
    # After the words have been checked: this imports TensorFlow.
    from export.devserver.server import DevelopmentServer

    server = DevelopmentServer(
        models,
        host=options.host,
        port=options.port,
        rest_port=options.rest_port,
        max_message_bytes=options.max_message_bytes,
        read_seconds=options.read_seconds,
        workers=options.workers,
        models_root=options.models_root,
        report=lambda line: print(line, flush=True),
    )
    server.start()
    for line in server.store.describe():
        print(line)
    for model in models:
        print(f"ready: grpc://{options.host}:{server.port}/{model.name}")
        print(f"ready: http://{options.host}:{server.rest_port}/v1/models/{model.name}")
    print("stop it with Ctrl-C or SIGTERM", flush=True)
    while not stopping.wait(options.poll_seconds):
        now = _content(options.models_config)
        if now is not None and now != content:
            content = now
            _serve_anew(server, options)
        server.store.poll()
    print("stopping: finishing the requests in progress", flush=True)
    server.stop(options.grace_seconds)


def _content(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError:
        return None


def _serve_anew(server: "DevelopmentServer", options: argparse.Namespace) -> None:
    from export.devserver.config import read_config

    try:
        server.store.serve(read_config(options.models_config, options.models_root))
    except VaeBssError as error:
        print(f"{error} What was served before is served still.", flush=True)
        return
    print(f"{options.models_config} has changed and was read again", flush=True)
    for line in server.store.describe():
        print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.serve",
        description="Serves SavedModels over TensorFlow Serving's REST and gRPC API. For development, not for "
        "production: there, run TensorFlow Serving on the same folders and configuration.",
        epilog="example: python -m export.serve --model mnist=exported/mnist",
    )
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--models-config", type=Path, help="file as TensorFlow Serving's --model_config_file takes it")
    models.add_argument(
        "--model",
        action="append",
        metavar="NAME=PATH",
        help="an export folder or a folder of numbered versions, all of which are served; may be repeated",
    )
    parser.add_argument(
        "--models-root",
        type=Path,
        metavar="DIR",
        help="folder that stands for /models in --models-config, as a container has it mounted",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8500, help="of gRPC; 0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--rest-port", type=_port, default=8501, help="of REST; 0 picks a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--max-message-bytes",
        type=_message_bytes,
        default=256 * 2**20,
        help="longest request and, over gRPC, longest answer (default: %(default)s)",
    )
    parser.add_argument(
        "--poll-seconds",
        type=_seconds,
        default=2.0,
        help="how often new versions and a changed configuration are looked for (default: %(default)s)",
    )
    parser.add_argument(
        "--read-seconds",
        type=_seconds,
        default=30.0,
        help="how long a REST client may take to send a request or to take its answer (default: %(default)s)",
    )
    parser.add_argument(
        "--grace-seconds",
        type=_seconds,
        default=30.0,
        help="for requests in progress at the end (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=_count, default=8, help="gRPC requests that run at once (default: %(default)s)"
    )
    return parser


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _message_bytes(text: str) -> int:
    return _whole(text, 1, 2**31 - 1)


def _count(text: str) -> int:
    return _whole(text, 1, 1_000)


def _whole(text: str, least: int, most: int) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0 and up to {_LONGEST:,}")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
