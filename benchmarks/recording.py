"""How fast a long recording is separated, disk to disk: `python -m benchmarks.recording --models MODEL ...`.

The recording is made of synthesised notes, two channels at 44.1 kHz. `vae_bss_tf.separate` runs on it in a process of
its own, start and libraries included, for one model after the other and round after round, so that whatever else the
machine does falls on all of them alike. The samples that come out are counted.
"""

import argparse
import concurrent.futures
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

from benchmarks import add_json, write_results
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import tones
from vae_bss_tf.errors import ConfigError, DataError

RATE = 44_100
_AUDIO = AudioConfig(sample_rate=float(RATE), n_fft=1024, hop_length=256, num_frames=344)  # windows of 2 s
_NOTES = 20


class Cost(NamedTuple):
    """What one separation took.

    Attributes:
        seconds: Wall time.
        peak_megabytes: The process' largest resident memory, 10^6 bytes.
    """

    seconds: float
    peak_megabytes: float


def write_recording(path: Path, seconds: float) -> int:
    """Writes a WAV file of synthesised notes, two at a time, other ones in each channel.

    Args:
        path: The file.
        seconds: Its duration; rounded up to whole windows of 2 s.

    Returns:
        Its number of samples in each channel.
    """
    rng = np.random.default_rng(0)
    notes, _ = tones.synthesise(rng, _NOTES, _AUDIO)
    windows = -int(-seconds // (notes.shape[1] / RATE))
    with soundfile.SoundFile(path, "w", RATE, 2, "PCM_16") as file:
        for _ in range(windows):
            drawn = notes[rng.integers(_NOTES, size=(2, 2))]  # [channel, source, samples]
            file.write(0.4 * drawn.sum(axis=1).T)
    return windows * notes.shape[1]


def separated(recording: Path, model: str, folder: Path, num_samples: int) -> Cost:
    """Separates the recording by the command and measures it.

    Args:
        recording: The file.
        model: As the command's `--model`.
        folder: Where the sources go.
        num_samples: Samples that each source must have.

    Returns:
        What it took.

    Raises:
        ConfigError: The command failed.
        DataError: A source has another number of samples, or there are fewer than two.
    """
    words = ["-m", "vae_bss_tf.separate", str(recording), "--model", model, "--output", str(folder), "--quiet"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for above
    if process.returncode:
        raise ConfigError(f"separating with {model} failed; see above.")
    found = [soundfile.info(path).frames for path in sorted(folder.glob("*_source*"))]
    if len(found) < 2 or set(found) != {num_samples}:
        raise DataError(f"{model} made sources of {found} samples of a recording of {num_samples}.")
    return Cost(seconds, usage.ru_maxrss * 1024 / 1e6)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lays rows out as a Markdown table."""
    cells = [["model", "seconds", "faster than real time", "memory at the peak", "times as fast as the first"]]
    for row in rows:
        times = f"{row['seconds']:.0f}", f"{row['faster_than_real_time']:.1f}"
        compared = f"{rows[0]['seconds'] / row['seconds']:.2f}"
        cells.append([row["model"], *times, f"{row['peak_megabytes']:.0f} MB", compared])
    return "\n".join(to_markdown(cells))


def run(options: argparse.Namespace) -> None:
    """Measures, prints the table and writes the JSON file; of a model's rounds the median counts."""
    if not 0 < options.minutes < math.inf or options.rounds < 1:
        raise ConfigError("minutes and rounds must be above 0.")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        recording = Path(scratch) / "recording.wav"
        # In a process of its own: a command's memory is never found to be below that of the process that starts it.
        with concurrent.futures.ProcessPoolExecutor(1) as pool:
            num_samples = pool.submit(write_recording, recording, 60 * options.minutes).result()
        costs: dict[str, list[Cost]] = {model: [] for model in options.models}
        for _ in range(options.rounds):
            for model, found in costs.items():
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    found.append(separated(recording, model, Path(folder), num_samples))
                print(f"{model}: {found[-1].seconds:.0f} s", flush=True)
    rows = []
    for model, found in costs.items():
        seconds = float(np.median([cost.seconds for cost in found]))
        rows.append(
            {
                "model": model,
                "seconds": seconds,
                "faster_than_real_time": num_samples / RATE / seconds,
                "peak_megabytes": max(cost.peak_megabytes for cost in found),
            }
        )
    print(table(rows))
    write_results(
        options.json,
        command=options.command,
        recording=f"{num_samples / RATE:.0f} s of synthesised notes, 2 channels, {RATE} Hz, 16 bits",
        load_average=load_average,
        rows=rows,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.recording",
        description="Wall time and memory of separating a long recording, disk to disk, for models of two sources of "
        "sound.",
    )
    parser.add_argument("--models", nargs="+", default=["saved_models/notes"], help="run folders or exported models")
    parser.add_argument("--minutes", type=float, default=60.0, help="of the recording (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="separations by each model (default: %(default)s)")
    add_json(parser, "recording")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
