"""Bulk separation measured: `python -m benchmarks.bulk --model saved_models/notes --files 2000`.

Recordings of synthesised notes are separated three times: by bare separators, one process for each worker; by
`vae_bss_tf.bulk`; and by the same job killed (SIGKILL) several times and run again. Throughput is that between the
first and the last file, so that neither side's start counts, and with the start beside it. The bytes of all runs are
compared, and the damaged recordings among them must be in `failures.jsonl` and nowhere else.
"""

import argparse
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

from vae_bss_tf.errors import ConfigError, DataError, run_command
from vae_bss_tf.files import write_json

RATE = 16_000
_NOTES = 40
_LOOK_SECONDS = 0.5


def write_recordings(folder: Path, count: int, damaged: int, longest: float) -> float:
    """Writes recordings of 1 s to `longest` seconds, two notes at a time, in ten folders.

    Args:
        folder: Where to.
        count: How many intact ones.
        damaged: How many further ones are cut off in the middle.
        longest: Seconds of the longest.

    Returns:
        Seconds of sound in the intact ones.
    """
    import soundfile

    from vae_bss_tf.config import AudioConfig
    from vae_bss_tf.datasets import tones

    rng = np.random.default_rng(0)
    notes, _ = tones.synthesise(
        rng, _NOTES, AudioConfig(sample_rate=float(RATE), n_fft=512, hop_length=128, num_frames=128)
    )
    total = 0
    for index in range(count + damaged):
        place = folder / f"{index % 10}" / f"{index:05}.wav"
        place.parent.mkdir(parents=True, exist_ok=True)
        length = int(RATE * rng.uniform(1, longest))
        chosen = rng.integers(_NOTES, size=(2, -(-length // notes.shape[1])))
        soundfile.write(place, 0.4 * notes[chosen].sum(axis=0).reshape(-1)[:length], RATE)
        if index < damaged:
            place.write_bytes(place.read_bytes()[:length])  # half of its samples
        else:
            total += length
    return total / RATE


def separate_bare(model: str, paths: Sequence[Path], root: Path, output: Path, start: Any) -> tuple[float, float]:
    """Separates recordings one after the other, as any loop would.

    Args:
        model: The model.
        paths: The recordings.
        root: The folder of all.
        output: The folder to write to.
        start: A barrier at which all processes meet when they have loaded the model.

    Returns:
        When it began and ended, seconds.
    """
    from vae_bss_tf.audio.separator import Separator

    separator = Separator.load(model)
    start.wait()
    began = time.time()
    for path in paths:
        separator.separate_file(path, output / path.parent.relative_to(root))
    return began, time.time()


def bare(model: str, takes: Path, output: Path, workers: int, damaged: int) -> dict[str, float]:
    """Separates all intact recordings in several processes; returns seconds with and without their start."""
    paths = [path for path in sorted(takes.rglob("*.wav")) if int(path.stem) >= damaged]
    began = time.time()
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        start = manager.Barrier(workers)
        jobs = [pool.submit(separate_bare, model, paths[i::workers], takes, output, start) for i in range(workers)]
        spans = [job.result() for job in jobs]
    return {"seconds": time.time() - began, "steady_seconds": max(b for _, b in spans) - min(a for a, _ in spans)}


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


def run(options: argparse.Namespace) -> None:
    """Measures, prints the table and writes the JSON file."""
    if min(options.files, options.workers) < 1 or options.damaged < 0 or not 1 <= options.longest < math.inf:
        raise ConfigError("there must be at least one file and one worker, and --longest must be 1 s or more.")
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        takes, folders = Path(scratch) / "takes", [Path(scratch) / name for name in ("bare", "bulk", "killed")]
        sound = write_recordings(takes, options.files, options.damaged, options.longest)
        print(f"{options.files} recordings, {sound / 3600:.2f} h of sound", flush=True)
        rows = {"bare separators": bare(options.model, takes, folders[0], options.workers, options.damaged)}
        print("bare separators: done", flush=True)
        rows["vae_bss_tf.bulk"] = bulk(options.model, takes, folders[1], options.workers)
        print("vae_bss_tf.bulk: done", flush=True)
        at_kills = killed(options.model, takes, folders[2], options.workers, options.kills, options.files)
        failed = [json.loads(line)["path"] for line in (folders[2] / "failures.jsonl").read_text().splitlines()]
        expected = contents(folders[0])
        same = [contents(folder) == expected for folder in folders[1:]]
        right = sorted(int(Path(path).stem) for path in failed) == list(range(options.damaged))
    ratio, whole = (
        rows["bare separators"][key] / rows["vae_bss_tf.bulk"][key] for key in ("steady_seconds", "seconds")
    )
    lines = ["| | sound per second | with the start |", "| --- | --- | --- |"]
    lines += [f"| {n} | {sound / r['steady_seconds']:.1f} | {sound / r['seconds']:.1f} |" for n, r in rows.items()]
    print("\n".join(lines))
    print(f"throughput of the job against bare separators: {ratio:.2f}, with the start {whole:.2f}")
    print(f"memory of the largest worker by quarter of the job, MB: {rows['vae_bss_tf.bulk']['megabytes_by_quarter']}")
    print(f"bytes equal, uninterrupted and killed {options.kills} times: {same}; damaged files told: {right}")
    found = {
        "command": f"python -m benchmarks.bulk --model {options.model} --files {options.files} "
        f"--damaged {options.damaged} --longest {options.longest:g} --workers {options.workers} "
        f"--kills {options.kills}",
        "cores": len(os.sched_getaffinity(0)),
        "load_average": load_average,
        "seconds_of_sound": sound,
        "rows": rows,
        "ratio": ratio,
        "ratio_with_start": whole,
        "files_done_at_kills": at_kills,
        "bytes_equal": all(same),
        "damaged_files_told": right,
    }
    write_json(options.json, found)
    print(f"written: {options.json}")
    if not (all(same) and right):
        raise DataError("the outputs differ, or a damaged file was not told; see above.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    parser = argparse.ArgumentParser(
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
    parser.add_argument(
        "--json", type=Path, default=Path("benchmarks/results/bulk.json"), help="file to write (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    return run_command(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
