"""What a server needs: `python -m benchmarks.sizing`.

`load`, the C++ program of `deploy/serving/loader`, runs SavedModels in the loader that TensorFlow Serving is built on,
and counts requests a second, their latency and the memory of the process. Two questions are asked:

1. Which batching parameters? The same SavedModel is wrapped in TensorFlow's batching operation, whose scheduler is the
   one of TensorFlow Serving and takes the same parameters; every setting meets the same clients.
2. How much does one server carry? With the parameters of `export/deployment/templates/batching_parameters.txt.in`, for
   each network and each size of request.

The network's calls over gRPC or REST are not part of it: `benchmarks/serving.py` measures those of the development
server.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import add_json, write_results
from training.tables import to_markdown
from vae_bss_tf import runtime
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import get_preset
from vae_bss_tf.startup import import_tensorflow

LOADER = Path(__file__).resolve().parents[1] / "deploy" / "serving" / "loader"
PRESETS = ("mnist-dense", "mnist", "notes")
SIZES = (1, 8, 32, 128, 256)
TIMEOUTS = (0, 200, 1_000, 5_000)
THREADS = (1, 2, 4)
CROWDS = ((1, 1), (1, 8), (1, 64), (32, 8))  # mixtures a request, clients
CLIENTS = 8
_SIGNATURE = "separate"


def built(folder: Path) -> Path:
    """Compiles the C++ program.

    Args:
        folder: Where to.

    Returns:
        Its path.

    Raises:
        ConfigError: There is no compiler, or it failed.
    """
    program = folder / "load"
    command = ["make", "--silent", "-C", str(LOADER), f"PYTHON={sys.executable}", f"BUILD={folder}", str(program)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError("make is not installed; the benchmark compiles a C++ program.") from error
    if done.returncode:
        raise ConfigError(f"the C++ program cannot be compiled: {done.stderr.strip()[-300:]}")
    return program


def untrained(preset_name: str, folder: Path) -> Path:
    """Writes a preset's network with its initial weights, which are as fast as trained ones, as a SavedModel.

    Args:
        preset_name: The preset.
        folder: Folder to make.

    Returns:
        The folder.
    """
    from export.writers import saved_model
    from vae_bss_tf.model import MultiSourceVAE

    preset = get_preset(preset_name)
    model = MultiSourceVAE(preset.model)
    model({runtime.INPUT: np.zeros((1, *preset.model.input_shape), np.float32)})
    saved_model.write(model, folder, preset=preset)
    return folder


def parameters(cpus: int) -> dict[str, Any]:
    """Reads the batching parameters that a deployment folder gets.

    Args:
        cpus: Processors of the server.

    Returns:
        Values by name; `allowed_batch_sizes` is a list.
    """
    template = resources.files("export.deployment") / "templates" / "batching_parameters.txt.in"
    text = template.read_text(encoding="utf-8").replace("@cpus", str(cpus))
    found: dict[str, Any] = {name: int(value) for name, value in re.findall(r"^(\w+) \{ value: (\d+) \}", text, re.M)}
    found["allowed_batch_sizes"] = [int(size) for size in re.findall(r"^allowed_batch_sizes: (\d+)", text, re.M)]
    return found


def batched(model: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """Wraps a SavedModel in TensorFlow's batching operation.

    Args:
        model: The SavedModel.
        folder: Folder to make.
        settings: Batching parameters by name, as `parameters` gives them.

    Returns:
        The folder.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(str(model))
    separate = loaded.signatures[_SIGNATURE]
    names = sorted(separate.structured_outputs)
    (given,) = separate.structured_input_signature[1].values()

    @tf.nondifferentiable_batch_function(**settings, enable_large_batch_splitting=False)
    def together(mixture: tf.Tensor) -> list[tf.Tensor]:
        outputs = separate(mixture)
        return [outputs[name] for name in names]

    wrapper = tf.Module()
    wrapper.model = loaded
    wrapper.call = tf.function(
        lambda mixture: dict(zip(names, together(mixture), strict=True)), input_signature=[given]
    )
    tf.saved_model.save(wrapper, str(folder), signatures={_SIGNATURE: wrapper.call})
    return folder


def measured(
    program: Path, model: Path, cpus: int, seconds: float, crowds: Iterable[tuple[int, int]]
) -> list[dict[str, Any]]:
    """Runs the C++ program in a process of its own.

    Args:
        program: Its path.
        model: The SavedModel.
        cpus: TensorFlow's threads.
        seconds: Of each measurement.
        crowds: Pairs of mixtures a request and clients.

    Returns:
        What it counted for each pair, with the requests and mixtures a second.
    """
    pairs = [str(number) for crowd in crowds for number in crowd]
    command = [str(program), str(model), _SIGNATURE, str(cpus), f"{seconds:g}", *pairs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(f"the C++ program failed: {done.stderr.strip()[-300:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        row["requests_per_second"] = row["requests"] / row["seconds"]
        row["mixtures_per_second"] = row["batch"] * row["requests_per_second"]
    return rows


def choices(program: Path, model: Path, cpus: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Measures every setting of the batching.

    Args:
        program: The C++ program.
        model: The SavedModel.
        cpus: TensorFlow's threads.
        seconds: Of each measurement.

    Yields:
        The setting, None for none, and a row for each of `CROWDS`.
    """
    yield {"batching": None, "rows": measured(program, model, cpus, seconds, CROWDS)}
    own = parameters(cpus)
    for threads, timeout in itertools.product(THREADS, TIMEOUTS):
        settings = {**own, "num_batch_threads": threads, "batch_timeout_micros": timeout}
        with tempfile.TemporaryDirectory() as folder:
            wrapped = batched(model, Path(folder) / "1", settings)
            found = measured(program, wrapped, cpus, seconds, CROWDS)
        yield {"batching": {"num_batch_threads": threads, "batch_timeout_micros": timeout}, "rows": found}


def choice_table(found: Sequence[dict[str, Any]]) -> str:
    """Lays out the settings of the batching as a Markdown table: mixtures a second, and percentiles."""
    heads = [f"{batch} x {clients}: mixtures/s, 50 % / 99 % ms" for batch, clients in CROWDS]
    rows = [["threads", "timeout, us", *heads]]
    for choice in found:
        batching = choice["batching"] or {}
        cells = [str(batching.get(name, "-")) for name in ("num_batch_threads", "batch_timeout_micros")]
        cells += [
            f"{row['mixtures_per_second']:,.0f}, {row['p50_ms']:.2f} / {row['p99_ms']:.2f}" for row in choice["rows"]
        ]
        rows.append(cells)
    return "\n".join(to_markdown(rows))


def size_table(found: Sequence[dict[str, Any]], cpus: int) -> str:
    """Lays out what a server carries as a Markdown table."""
    headings = (
        f"network | mixtures a request | one client: 50 % / 99 % ms | {CLIENTS} clients: 50 % / 99 % ms | "
        "requests/s a core | mixtures/s a core | MB"
    )
    table = [headings.split(" | ")]
    for preset, rows in ((each["preset"], each["rows"]) for each in found):
        for alone, crowd in zip(rows[::2], rows[1::2], strict=True):
            cells = [
                preset,
                str(alone["batch"]),
                *(f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}" for row in (alone, crowd)),
                f"{crowd['requests_per_second'] / cpus:,.1f}",
                f"{crowd['mixtures_per_second'] / cpus:,.0f}",
                f"{crowd['most_megabytes']:,.0f}",
            ]
            table.append(cells)
    return "\n".join(to_markdown(table))


def run(options: argparse.Namespace) -> None:
    """Measures, prints the tables and writes the JSON file."""
    tensorflow = import_tensorflow()
    cpus = len(os.sched_getaffinity(0))
    load_average = os.getloadavg()
    crowds = [(size, clients) for size in SIZES for clients in (1, CLIENTS)]
    chosen: list[dict[str, Any]] = []
    sizes: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        program = built(Path(scratch))
        models = {name: untrained(name, Path(scratch) / name / "1") for name in options.presets}
        if not options.no_choice:
            for choice in choices(program, models[options.presets[0]], cpus, options.seconds):
                chosen.append(choice)
                print(f"batching: {choice['batching']}", flush=True)
            print(choice_table(chosen))
        for name, model in models.items():
            with tempfile.TemporaryDirectory() as folder:
                wrapped = batched(model, Path(folder) / "1", parameters(cpus))
                sizes.append({"preset": name, "rows": measured(program, wrapped, cpus, options.seconds, crowds)})
            print(f"{name}: done", flush=True)
    print(size_table(sizes, cpus))
    write_results(
        options.json,
        command=options.command,
        server="deploy/serving/loader/load.cc: TensorFlow's C++ loader and batching, without a network",
        model="networks of the presets, untrained: weights do not matter for speed",
        load_average=load_average,
        tensorflow=tensorflow.__version__,
        batching=parameters(cpus),
        choices=chosen,
        sizes=sizes,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.sizing",
        description="Batching parameters, and requests a second, latency and memory of a served model.",
        epilog="example: python -m benchmarks.sizing --presets mnist --seconds 3",
    )
    parser.add_argument("--presets", nargs="+", default=list(PRESETS), help="networks (default: %(default)s)")
    parser.add_argument("--no-choice", action="store_true", help="leave out the choice of the batching parameters")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default: %(default)s)")
    add_json(parser, "sizing")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
