"""`python -m export.benchmark`: size, load time, latency, throughput, memory and quality of every exported file.

Each file runs in a process of its own, at each number of threads. All of them are started first, then timed in
turns, a few calls at a time: whatever else the machine does falls on all of them alike.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export.formats import FORMATS
from export.gate.workers import Worker
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command, path
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import CheckpointError, ConfigError
from vae_bss_tf.files import refuse_existing, write_json
from vae_bss_tf.runtime.manifest import MANIFEST, checked_manifest
from vae_bss_tf.runtime.trusted import check_operations

_ROUNDS = 20
_BATCH = 32  # of `run_file.py`
KERAS_ROWS = {"keras_predict": "Keras, predict_on_batch", "keras_call": "Keras, plain call"}


def measure(
    folder: Path, *, run: Path | None = None, threads: Sequence[int] = (1, 2), calls: int = 20
) -> list[dict[str, Any]]:
    """Times the files of an export.

    Args:
        folder: The export.
        run: The run it was made from; with it, the Keras model is timed too.
        threads: Numbers of threads.
        calls: Calls with one mixture in each of 20 rounds; a tenth as many, at least 1, with a batch of 32.

    Returns:
        One row for each file and number of threads: `format`, `threads`, `bytes`, `load_seconds` (the first call
        included), `median_ms` and `p95_ms` of one mixture, `mixtures_per_second` at batch 32, `peak_memory_bytes`
        of the whole process (Linux), `si_sdr_db` and `psnr_db` of the held-out mixtures as the manifest has them;
        for files that take waveforms `algorithmic_latency_seconds`, the length of a window, and `real_time_factor`,
        the median over that length.

    Raises:
        ConfigError: `calls` or `threads` is below 1.
        CheckpointError: `folder` is no export, or `run` has no model.
        ExportError: A file does not run.
    """
    if calls < 1 or not threads or min(threads) < 1:
        raise ConfigError("calls and threads must be at least 1.")
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} is no export: it has no {MANIFEST}. Make one: python -m export")
    manifest = checked_manifest(folder)
    for entry in manifest["formats"].values():
        if (folder / entry["path"]).is_dir():
            check_operations(folder / entry["path"])
    rows = [
        {
            "format": name,
            "path": str(folder.resolve() / entry["path"]),
            "bytes": entry["bytes"],
            **{f"{score}_db": entry["scores_db"].get(score) for score in ("si_sdr", "psnr")},
        }
        for name, entry in manifest["formats"].items()
    ]
    audio = manifest["preset"].get("audio")
    if run is not None:
        rows += _keras_rows(run, manifest)
    rows = [{**row, "threads": count} for row in rows for count in threads]
    with contextlib.ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers = [
            stack.enter_context(Worker(row["path"], row["threads"], logs / f"{i}.txt")) for i, row in enumerate(rows)
        ]
        times: list[dict[str, list[float]]] = [{"one": [], "batch": []} for _ in rows]
        for _ in range(_ROUNDS):
            for worker, seconds in zip(workers, times, strict=True):
                seconds["one"] += worker.ask(do="one", calls=calls)["seconds"]
                seconds["batch"] += worker.ask(do="batch", calls=max(1, calls // 10))["seconds"]
        for row, worker, seconds in zip(rows, workers, times, strict=True):
            del row["path"]
            row["load_seconds"] = worker.load_seconds
            row["median_ms"], row["p95_ms"] = (1e3 * np.percentile(seconds["one"], [50, 95])).tolist()
            row["mixtures_per_second"] = _BATCH / float(np.median(seconds["batch"]))
            row["peak_memory_bytes"] = worker.ask(do="memory")["bytes"]
            if row["format"] in FORMATS and FORMATS[row["format"]].waveform:
                window = AudioConfig.from_dict(audio).num_samples / audio["sample_rate"]
                row["algorithmic_latency_seconds"] = window
                row["real_time_factor"] = row["median_ms"] / 1e3 / window
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lays rows of `measure` out as a Markdown table."""
    headings = (
        "format | threads | MB | load s | median ms | 95 % ms | mixtures/s at batch 32 | memory MB | SI-SDR | PSNR"
    )
    lines: list[list[Any]] = [headings.split(" | ")]
    for row in rows:
        cells = [
            KERAS_ROWS.get(row["format"], row["format"]),
            row["threads"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['load_seconds']:.2f}",
            f"{row['median_ms']:.3f}",
            f"{row['p95_ms']:.3f}",
            f"{row['mixtures_per_second']:,.0f}",
            f"{row['peak_memory_bytes'] / 1e6:.0f}",
            *("" if row[score] is None else f"{row[score]:.2f}" for score in ("si_sdr_db", "psnr_db")),
        ]
        lines.append(cells)
    return "\n".join(to_markdown(lines))


def _command(options: argparse.Namespace) -> None:
    if options.json:
        refuse_existing([options.json], force=options.force, option="--json")
    print(f"timing the files of {options.export} on the CPU")
    rows = measure(options.export, run=options.run, threads=options.threads, calls=options.calls)
    print(table(rows))
    for row in rows:
        if "real_time_factor" in row:
            print(
                f"{row['format']}, {row['threads']} thread(s): real-time factor {row['real_time_factor']:.5f}, "
                f"algorithmic latency {row['algorithmic_latency_seconds']:.2f} s"
            )
    if options.json:
        write_json(options.json, rows)
        print(f"wrote {options.json}")


def _keras_rows(run: Path, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    from training.run import Run  # it loads TensorFlow, which --help needs not
    from vae_bss_tf.config import Preset

    model = run.resolve() / "model.keras"
    if not model.is_file():
        raise CheckpointError(f"{run} has no model.keras; give --run the run that the export was made from.")
    if Run.load(run).preset != Preset.from_dict(manifest["preset"]):
        raise ConfigError(f"{run} has other settings than the run that the export was made from; give --run that one.")
    scores = {f"{score}_db": manifest["reference"]["scores_db"].get(score) for score in ("si_sdr", "psnr")}
    size, path = model.stat().st_size, run.resolve()
    return [{"format": kind, "path": f"{kind}:{path}", "bytes": size, **scores} for kind in KERAS_ROWS]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m export.benchmark",
        description="Times every file of an export, each in a process of its own, in turns.",
        epilog="example: python -m export.benchmark exported/mnist --run runs/mnist-k2-seed0 --json latency.json",
    )
    parser.add_argument("export", type=path, help="folder that `python -m export` made")
    parser.add_argument("--run", type=path, help="the run it was made from, to time the Keras model too")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads (default: 1 2)")
    parser.add_argument("--calls", type=int, default=20, help="calls a round, of 20 rounds (default: %(default)s)")
    parser.add_argument("--json", type=path, help="file for the same rows as JSON")
    parser.add_argument("--force", action="store_true", help="replace the file of --json")
    return parser


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
