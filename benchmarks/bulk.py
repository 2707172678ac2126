"""Bulk separation measured: `python -m benchmarks.bulk --model saved_models/notes --files 2000`.

Recordings of synthesised notes are separated by one bare separator on one core (every tenth of them), by as many as
there are workers, by `vae_bss_tf.bulk`, and by the same job killed (SIGKILL) several times and run again. Throughput is
that between the first and the last file, so that neither side's start counts, and with the start beside it. The bytes
of all runs are compared, and the damaged recordings among them must be in `failures.jsonl` and nowhere else.

With `--folder` the steps may be taken one by one, at times when the machine does nothing else:
`--steps one`, then `bare`, `bulk`, and `killed`, which compares.
"""

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import add_json, write_results
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.files import write_json

RATE = 16_000
STEPS = ("one", "bare", "bulk", "killed")
_NOTES = 40
_LOOK_SECONDS = 0.5


def write_recordings(folder: Path, count: int, damaged: int, longest: float) -> None:
    """Writes recordings of 1 s to `longest` seconds, two notes at a time, in ten folders.

    Args:
        folder: Where to.
        count: How many intact ones.
        damaged: How many further ones are cut off in the middle.
        longest: Seconds of the longest.
    """
    import soundfile

    from vae_bss_tf.config import AudioConfig
    from vae_bss_tf.datasets import tones

    rng = np.random.default_rng(0)
    notes, _ = tones.synthesise(
        rng, _NOTES, AudioConfig(sample_rate=float(RATE), n_fft=512, hop_length=128, num_frames=128)
    )
    for index in range(count + damaged):
        place = folder / f"{index % 10}" / f"{index:05}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        length = int(RATE * rng.uniform(1, longest))
        chosen = rng.integers(_NOTES, size=(2, -(-length // notes.shape[1])))
        soundfile.write(place, 0.4 * notes[chosen].sum(axis=0).reshape(-1)[:length], RATE)
        if index < damaged:
            place.write_bytes(place.read_bytes()[:length])  # half of its samples


def separate_bare(
    model: str, paths: Sequence[Path], root: Path, output: Path, start: Any, core: int | None
) -> tuple[float, float]:
    """Separates recordings one after the other, as any loop would.

    Args:
        model: The model.
        paths: The recordings.
        root: The folder of all.
        output: The folder to write to.
        start: A barrier at which all processes meet when they have loaded the model.
        core: The core that it keeps to; None for any.

    Returns:
        When it began and ended, seconds.
    """
    from vae_bss_tf.audio.separator import Separator

    if core is not None:
        os.sched_setaffinity(0, [core])
    separator = Separator.load(model)
    start.wait()
    began = time.time()
    for path in paths:
        separator.separate_file(path, output / path.parent.relative_to(root))
    return began, time.time()


def bare(model: str, takes: Path, output: Path, workers: int, paths: Sequence[Path]) -> dict[str, float]:
    """Separates recordings in several processes; returns seconds of sound, and of work with and without their start."""
    import soundfile

    began = time.time()
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        start = manager.Barrier(workers)
        core = min(os.sched_getaffinity(0)) if workers == 1 else None
        parts = [paths[i::workers] for i in range(workers)]
        jobs = [pool.submit(separate_bare, model, part, takes, output, start, core) for part in parts]
        spans = [job.result() for job in jobs]
    seconds = time.time() - began
    steady = max(b for _, b in spans) - min(a for a, _ in spans)
    sound = sum(soundfile.info(path).duration for path in paths)
    return {"sound": sound, "seconds": seconds, "steady_seconds": steady}


def start_job(model: str, takes: Path, output: Path, workers: int) -> subprocess.Popen[bytes]:
    """Starts the command."""
    words = ["--input", takes, "--model", model, "--output", output, "--workers", workers]
    return subprocess.Popen([sys.executable, "-m", "vae_bss_tf.bulk", *map(str, words)], stdout=subprocess.DEVNULL)


def bulk(model: str, takes: Path, output: Path, workers: int) -> dict[str, Any]:
    """Runs the job to its end and watches the memory of its workers."""
    import psutil

    began, megabytes = time.time(), []
    process = start_job(model, takes, output, workers)
    job = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            held = [child.memory_info().rss for child in job.children(recursive=True)]
        except psutil.Error:
            held = []
        if held and num_done(output):
            megabytes.append(max(held) / 1e6)
        time.sleep(_LOOK_SECONDS)
    seconds = time.time() - began
    if process.returncode:
        raise DataError("the job failed; see above.")
    written = [path.stat().st_mtime for path in output.rglob("*_source2.wav")]
    quarters = [round(max(part.tolist(), default=0.0)) for part in np.array_split(np.asarray(megabytes), 4)]
    # The time from the first file to the last is that of all files but each worker's first.
    steady = (max(written) - min(written)) * len(written) / max(len(written) - workers, 1)
    return {"seconds": seconds, "steady_seconds": steady, "megabytes_by_quarter": quarters}


def num_done(output: Path) -> int:
    """Counts the files that are separated; folders may come and go meanwhile."""
    return sum(name.endswith("_source2.wav") for _, _, names in os.walk(output) for name in names)


def killed(model: str, takes: Path, output: Path, workers: int, kills: int, files: int) -> list[int]:
    """Kills the job at random several times, then runs it to its end; returns how many files were done at each kill."""
    chance, counts = random.Random(0), []
    for attempt in range(kills):
        process = start_job(model, takes, output, workers)
        wanted = int(files * (attempt + chance.uniform(0.2, 0.8)) / (kills + 1))
        while process.poll() is None and num_done(output) < wanted:
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(2 * _LOOK_SECONDS)  # its workers end by themselves
        counts.append(num_done(output))
    if start_job(model, takes, output, workers).wait():
        raise DataError("the job failed after it was killed; see above.")
    return counts


def contents(folder: Path) -> dict[str, bytes]:
    """What was separated into a folder, and what should not be there."""
    own = {"job.json", "summary.json", "failures.jsonl"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in own]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def take(step: str, options: argparse.Namespace, folder: Path, intact: Sequence[Path]) -> dict[str, Any]:
    """Takes one of the steps.

    Args:
        step: One of `STEPS`.
        options: The command's.
        folder: Where the recordings are, and the outputs come to be.
        intact: The recordings that are not damaged.

    Returns:
        What it found.
    """
    takes, model, workers = folder / "takes", options.model, options.workers
    if step == "one":
        return bare(model, takes, folder / "one", 1, intact[::10])
    if step == "bare":
        return bare(model, takes, folder / "bare", workers, intact)
    if step == "bulk":
        return bulk(model, takes, folder / "bulk", workers)
    return {"files_done": killed(model, takes, folder / "killed", workers, options.kills, options.files)}


def compared(folder: Path, damaged: int) -> dict[str, bool]:
    """Compares the bytes of all outputs with those of the bare separators, and what was told with what is damaged."""
    expected = contents(folder / "bare")
    right = True
    for name in ("bulk", "killed"):
        failed = [json.loads(line)["path"] for line in (folder / name / "failures.jsonl").read_text().splitlines()]
        right &= sorted(int(Path(path).stem) for path in failed) == list(range(damaged))
    same = all(contents(folder / name) == expected for name in ("bulk", "killed"))
    return {"bytes_equal": same, "damaged_files_told": right}


def told(found: dict[str, Any]) -> None:
    """Prints what the steps found."""
    everything, job = found["bare"], found["bulk"]
    print("| | seconds of sound a second | with the start |\n| --- | --- | --- |")
    named = {"one bare separator, on one core": found["one"], f"{found['workers']} bare separators": everything}
    for name, row in {**named, "vae_bss_tf.bulk": {"sound": everything["sound"], **job}}.items():
        print(f"| {name} | {row['sound'] / row['steady_seconds']:.1f} | {row['sound'] / row['seconds']:.1f} |")
    print(
        f"throughput of the job: {found['ratio']:.2f} of as many bare separators at once, "
        f"{found['ratio_with_start']:.2f} with the start; {found['ratio_to_one']:.2f} of one core's times the workers"
    )
    print(f"memory of the largest worker by quarter of the job, MB: {job['megabytes_by_quarter']}")
    print(f"files done when it was killed: {found['killed']['files_done']}")
    print(f"bytes equal: {found['bytes_equal']}; damaged files told: {found['damaged_files_told']}")


def run(options: argparse.Namespace) -> None:
    """Takes the steps, and after the last prints the table and writes the JSON file."""
    if min(options.files, options.workers) < 1 or options.damaged < 0 or not 1 <= options.longest < math.inf:
        raise ConfigError("there must be at least one file and one worker, and --longest must be 1 s or more.")
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        takes, notes = folder / "takes", folder / "steps.json"
        if not takes.is_dir():
            write_recordings(takes, options.files, options.damaged, options.longest)
        intact = [path for path in sorted(takes.rglob("*.wav")) if int(path.stem) >= options.damaged]
        found: dict[str, Any] = json.loads(notes.read_text()) if notes.is_file() else {}
        for step in options.steps:
            load_average = os.getloadavg()[0]
            found[step] = {**take(step, options, folder, intact), "load_average": load_average}
            write_json(notes, found)
            print(f"{step}: done", flush=True)
        missing = [step for step in STEPS if step not in found]
        if missing:
            print(f"next: the same command with --steps {' '.join(missing)}")
            return
        found |= compared(folder, options.damaged)
    one, everything, job = found["one"], found["bare"], found["bulk"]
    found |= {
        "command": options.command,
        "workers": options.workers,
        "ratio": everything["steady_seconds"] / job["steady_seconds"],
        "ratio_with_start": everything["seconds"] / job["seconds"],
        "ratio_to_one": (everything["sound"] / job["steady_seconds"])
        / (options.workers * one["sound"] / one["steady_seconds"]),
    }
    told(found)
    write_results(options.json, **found)
    if not (found["bytes_equal"] and found["damaged_files_told"]):
        raise DataError("the outputs differ, or a damaged file was not told; see above.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.bulk",
        description="Measures bulk separation against bare separators, and kills it. Needs the extra bulk and psutil.",
        epilog="example: python -m benchmarks.bulk --model saved_models/notes --files 2000 --damaged 20",
    )
    parser.add_argument("--model", default="saved_models/notes", help="model of sound (default: %(default)s)")
    parser.add_argument("--files", type=int, default=2000, help="intact recordings (default: %(default)s)")
    parser.add_argument("--damaged", type=int, default=20, help="damaged ones besides (default: %(default)s)")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds of the longest (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="times that the job is killed (default: %(default)s)")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="what to do (default: all)")
    parser.add_argument("--folder", type=Path, help="where recordings and outputs are kept (default: nowhere)")
    add_json(parser, "bulk")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
