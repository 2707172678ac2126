"""How fast a served model is: `python -m benchmarks.serving`.

The development server runs in a process of its own, on loopback. Each client is a thread of this process that sends
one batch after the other and waits for its sources. At each batch size and number of clients three systems take turns,
a round each, so that whatever else the machine does falls on all of them alike: the server over gRPC, the server over
REST, and the same SavedModel called directly, in this process, by as many threads.
"""

import argparse
import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import add_json, write_results
from benchmarks.sizing import untrained
from training.tables import to_markdown
from vae_bss_tf import runtime
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.startup import import_tensorflow

CLIENTS = (1, 4, 16)
BATCHES = (1, 8, 32, 128)
_NAME = "measured"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[dict[str, str]]:
    """Starts the development server.

    Args:
        folder: Folder of versions.

    Yields:
        URLs by protocol, "grpc" and "rest".

    Raises:
        CheckpointError: It did not start.
    """
    words = ["--model", f"{_NAME}={folder}", "--port", "0", "--rest-port", "0", "--poll-seconds", "3600"]
    process = subprocess.Popen([sys.executable, "-m", "export.serve", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        urls = {}
        for line in process.stdout:
            if line.startswith("ready: "):
                url = line.split()[1]
                urls["grpc" if url.startswith("grpc") else "rest"] = url
            if line.startswith("stop it"):
                break
        if len(urls) != 2:
            raise CheckpointError(f"the development server did not start with {folder}; see above.")
        yield urls
    finally:
        process.terminate()
        process.wait()


def measured(request: Callable[[], Any], clients: int, seconds: float) -> tuple[list[float], float]:
    """Lets clients send requests for some time.

    Args:
        request: Sends one and waits for its answer.
        clients: Threads that do so at once.
        seconds: How long; a request that has begun is finished.

    Returns:
        Seconds of each request, and seconds from the first one's start to the last one's end.
    """
    together = threading.Barrier(clients + 1)
    found: list[list[float]] = [[] for _ in range(clients)]
    errors: list[BaseException] = []

    def client(mine: list[float]) -> None:
        together.wait()
        end = time.perf_counter() + seconds
        try:
            while True:
                start = time.perf_counter()
                request()
                done = time.perf_counter()
                mine.append(done - start)
                if done > end:
                    return
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=[mine]) for mine in found]
    for thread in threads:
        thread.start()
    together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [second for mine in found for second in mine], time.perf_counter() - start


def rows(folder: Path, urls: dict[str, str], seconds: float, rounds: int) -> Iterator[dict[str, Any]]:
    """Measures everything.

    Args:
        folder: Folder of versions that the server serves.
        urls: Its URLs by protocol.
        seconds: Of each measurement.
        rounds: Measurements of each.

    Yields:
        One row for each batch size and number of clients: for each system requests and mixtures per second over all
        rounds and the 50th, 95th and 99th percentile of a request's milliseconds, and the ratios to the direct calls.
    """
    models = {name: runtime.load(url) for name, url in urls.items()} | {"direct": runtime.load(folder)}
    shape = models["direct"].metadata.input_shape
    for batch in BATCHES:
        mixtures = np.random.default_rng(0).random((batch, *shape), np.float32)
        expected = models["direct"].separate(mixtures)
        for name in urls:
            np.testing.assert_allclose(models[name].separate(mixtures), expected, atol=1e-5)
        for clients in CLIENTS:
            latencies: dict[str, list[float]] = {name: [] for name in models}
            spent = dict.fromkeys(models, 0.0)
            for _ in range(rounds):
                for name, model in models.items():
                    request = functools.partial(model.separate, mixtures, batch_size=batch)
                    took, elapsed = measured(request, clients, seconds)
                    latencies[name] += took
                    spent[name] += elapsed
            row: dict[str, Any] = {"batch": batch, "clients": clients}
            for name, took in latencies.items():
                p50, p95, p99 = (1e3 * np.percentile(took, [50, 95, 99])).tolist()
                row[name] = {
                    "requests": len(took),
                    "requests_per_second": len(took) / spent[name],
                    "mixtures_per_second": batch * len(took) / spent[name],
                    "p50_ms": p50,
                    "p95_ms": p95,
                    "p99_ms": p99,
                }
            for name in urls:
                row[f"{name} / direct"] = row[name]["requests_per_second"] / row["direct"]["requests_per_second"]
            yield row


def table(found: Sequence[dict[str, Any]]) -> str:
    """Lays rows out as a Markdown table."""
    headings = "batch | clients | system | requests/s | mixtures/s | 50 % ms | 95 % ms | 99 % ms | of direct"
    lines: list[list[Any]] = [headings.split(" | ")]
    for row in found:
        for name in ("grpc", "rest", "direct"):
            figures = row[name]
            ratio = row.get(f"{name} / direct", 1.0)
            cells = [
                row["batch"],
                row["clients"],
                {"grpc": "gRPC", "rest": "REST", "direct": "direct call"}[name],
                f"{figures['requests_per_second']:,.1f}",
                f"{figures['mixtures_per_second']:,.0f}",
                *(f"{figures[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
                f"{ratio:.2f}",
            ]
            lines.append(cells)
    return "\n".join(to_markdown(lines))


def run(options: argparse.Namespace) -> None:
    """Measures, prints the table and writes the JSON file."""
    tensorflow = import_tensorflow()
    model = options.model
    with contextlib.ExitStack() as stack:
        if model is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            untrained("mnist-dense", folder / "1")
        else:
            folder = model / "saved_model" if (model / "saved_model").is_dir() else model
        urls = stack.enter_context(serving(folder))
        load_average = os.getloadavg()
        found = []
        for row in rows(folder, urls, options.seconds, options.rounds):
            found.append(row)
            print(
                f"batch {row['batch']}, {row['clients']} clients: of direct calls "
                f"{row['grpc / direct']:.2f} over gRPC, {row['rest / direct']:.2f} over REST",
                flush=True,
            )
    print(table(found))
    write_results(
        options.json,
        command=options.command,
        server="python -m export.serve (the development server), a process of its own on the same machine",
        model="network of the preset mnist-dense, untrained: weights do not matter for speed"
        if model is None
        else str(model),
        clients="threads of one process; the direct calls are made by as many threads",
        load_average=load_average,
        tensorflow=tensorflow.__version__,
        seconds=options.seconds,
        rounds=options.rounds,
        rows=found,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.serving",
        description="Requests per second and latency of a served model, over gRPC and REST, against direct calls.",
    )
    parser.add_argument(
        "--model", type=Path, help="export with a SavedModel (default: mnist-dense's network, untrained)"
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: %(default)s)")
    add_json(parser, "serving")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
