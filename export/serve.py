"""`python -m export.serve`: a development server that speaks TensorFlow Serving's REST and gRPC API.

Not for production: it runs in Python, batches nothing, authenticates nobody, and listens on loopback unless told
otherwise. In production run TensorFlow Serving itself, on the same folders and the same configuration.
"""

import argparse
import signal
import sys
import threading
from functools import partial

from export.devserver.config import named_models, read_config
from vae_bss_tf.arguments import Parser, command, path
from vae_bss_tf.errors import ConfigError, VaeBssError
from vae_bss_tf.startup import import_tensorflow


def _command(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT; requests in progress are finished."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    print("development server: not for production; there, run TensorFlow Serving on the same folders", flush=True)
    if options.models_root is not None and options.model:
        raise ConfigError("--models-root goes with --models-config; name the folder itself: --model NAME=PATH")
    if not (0 < options.poll_seconds <= 1e6 and all(0 <= port < 2**16 for port in (options.port, options.rest_port))):
        raise ConfigError("a port must be from 0 to 65535, and --poll-seconds above 0 and at most 1,000,000.")
    config = partial(read_config, options.models_config, options.models_root)
    wanted = partial(named_models, options.model) if options.model else config
    models = wanted()
    import_tensorflow()
    from export.devserver.server import DevelopmentServer  # imports TensorFlow

    server = DevelopmentServer(models, host=options.host, port=options.port, rest_port=options.rest_port).start()
    told = server.store.describe()
    print(*told, sep="\n")
    host = f"[{options.host}]" if ":" in options.host else options.host
    for model in models:
        print(f"ready: grpc://{host}:{server.port}/{model.name}")
        print(f"ready: http://{host}:{server.rest_port}/v1/models/{model.name}")
    print("stop it with Ctrl-C or SIGTERM", flush=True)
    while not stopping.wait(options.poll_seconds):
        problems = []
        try:
            server.store.serve(wanted())
        except (VaeBssError, OSError) as error:
            problems = [f"{error} What was served before is served still."]
        lines = server.store.describe() + problems
        for line in (line for line in lines if line not in told):
            print(line, flush=True)
        told = lines
    print("stopping: finishing the requests in progress", flush=True)
    server.stop()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.serve",
        description="Serves SavedModels over TensorFlow Serving's REST and gRPC API. For development, not for "
        "production: there, run TensorFlow Serving on the same folders and configuration.",
        epilog="example: python -m export.serve --model mnist=exported/mnist",
    )
    models = parser.add_mutually_exclusive_group(required=True)
    models.add_argument("--models-config", type=path, help="file as TensorFlow Serving's --model_config_file takes it")
    models.add_argument("--model", action="append", metavar="NAME=PATH", help="an export or a folder of versions")
    parser.add_argument("--models-root", type=path, metavar="DIR", help="stands for /models in --models-config")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    free = "0 picks a free one (default: %(default)s)"
    parser.add_argument("--port", type=int, default=8500, help=f"port of gRPC; {free}")
    parser.add_argument("--rest-port", type=int, default=8501, help=f"port of REST; {free}")
    polls = "how often new versions and a changed configuration are looked for (default: %(default)s)"
    parser.add_argument("--poll-seconds", type=float, default=2.0, help=polls)
    return parser


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
