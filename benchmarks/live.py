"""What a live separator costs and how well it separates: the budget of a device, and scores beside the offline models.

    python -m benchmarks.live saved_models/live saved_models/live64 --truth duets=DUETS/test:saved_models/duets

For each model and format: parameters, multiplications a second, bytes of weights and of state, latency, and the time of
a block as a share of the block (median and 99th percentile, one thread, over `--minutes` of made sound), and how much
the process' memory grew meanwhile. For each `--truth NAME=FOLDER[:OFFLINE]`, a folder in the layout of
`training.evaluate --truth`: SI-SDR over whole files of the live models, of the offline model, and of the
mixture itself, and how many half seconds are out of the file's order.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.files import write_json
from vae_bss_tf.live.config import N_FFT, LiveConfig
from vae_bss_tf.live.runtime import LiveSeparator, load

RESULTS = Path("benchmarks/results/live.json")
_WARM_BLOCKS = 200

Float32 = npt.NDArray[np.float32]


def multiplications(config: LiveConfig) -> float:
    """Multiplications a second of the network's and the transform's products, in millions.

    Args:
        config: The model's settings.

    Returns:
        Millions a second.
    """
    side, rows = 32, 17
    transform = rows * side * side * 2 + rows * side * side * 4
    answered = side - (N_FFT - 2 * config.hop_length) // side
    inverse = (config.num_sources - 1) * (rows * side * side * 4 + answered * rows * side * 2)
    bands, sizes, channels, latent = config.num_bands, config.band_channels, config.channels, config.latent_dim
    coarse = bands // 16 * sizes[3]
    down = (
        bands // 2 * (2 + len(config.trace_seconds)) * 5 * sizes[0]
        + bands // 4 * sizes[0] * 5 * sizes[1]
        + bands // 8 * sizes[1] * 5 * sizes[2]
        + bands // 16 * sizes[2] * 3 * sizes[3]
    )
    finer = [config.mask_channels, *sizes[:3]]
    up = sum(bands // 2 ** (i + 1) * 2 * sizes[i] * 3 * 2 * finer[i] for i in range(4))
    head = bands * (config.mask_channels + 1 + len(config.trace_seconds) + config.num_sources) * 3 * config.num_sources
    over_time = len(config.dilations) * channels * (channels + config.kernel_size)
    dense = (coarse + 1) * channels + channels * 2 * config.num_sources * latent
    dense += (channels + config.num_sources * latent) * coarse
    decoder = config.num_sources * config.decoder_units * (latent + bands)
    total = transform + inverse + down + up + head + over_time + dense + decoder
    return total * config.sample_rate / config.hop_length / 1e6


def cost(path: Path, minutes: float) -> dict[str, Any]:
    """Times a file block by block on made sound.

    Args:
        path: A `.tflite` or `.onnx` file of an export.
        minutes: How much sound.

    Returns:
        Shares of a block's time ("median", "p99", "largest"), blocks that took longer than a block ("under_runs"),
        and the growth of the process' memory in MB.
    """
    import psutil

    model = load(path)
    config, state = model.config, dict(model.zeros)
    hop, rng = config.hop_length, np.random.default_rng(0)
    blocks = int(minutes * 60 * config.sample_rate / hop)
    sound = rng.uniform(-0.5, 0.5, (64, 1, hop)).astype(np.float32)
    for i in range(_WARM_BLOCKS):
        _, state = model.run(sound[i % 64], state)
    gc.collect()
    before = psutil.Process().memory_info().rss
    seconds = np.zeros(blocks)
    for i in range(blocks):
        started = time.perf_counter()
        _, state = model.run(sound[i % 64], state)
        seconds[i] = time.perf_counter() - started
    grown = psutil.Process().memory_info().rss - before
    share = seconds * config.sample_rate / hop
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "median": round(float(np.median(share)), 4),
        "p99": round(float(np.percentile(share, 99)), 4),
        "largest": round(float(share.max()), 3),
        "under_runs": int((share > 1).sum()),
        "blocks": blocks,
        "grown_mb": round((grown - seconds.nbytes) / 1e6, 2),
    }


def quality(folder: Path, systems: dict[str, Callable[[Float32, float], Float32]]) -> dict[str, Any]:
    """Scores systems on folders of a mixture and its sources.

    Args:
        folder: As `training.evaluate --truth` takes it.
        systems: By name, as `truth_folder.judge_separators` takes them.

    Returns:
        "files", their number; and the means over them by system, of "the mixture itself" too: "si_sdr" over whole files
        in dB, and "exchanged", the share of half seconds whose best order is not the file's.
    """
    from training.evaluation.truth_folder import judge_separators

    judged = judge_separators(systems, folder)
    means = {
        score: {system.title: round(float(system.scores[score].mean()), 3) for system in judged}
        for score in ("si_sdr", "exchanged")
    }
    return {"files": len(judged[0].scores["si_sdr"]), **means}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.live", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("models", nargs="+", type=Path, help="exports of live separators, or runs for scores alone")
    parser.add_argument(
        "--truth", action="append", default=[], metavar="NAME=FOLDER[:OFFLINE]", help="what to score on"
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="made sound for the times (default: 1)")
    parser.add_argument("--all-formats", action="store_true", help="score every format, not the first alone")
    parser.add_argument("--json", type=Path, help=f"where to write the results, such as {RESULTS}")
    return parser


def _command(options: argparse.Namespace) -> None:
    from vae_bss_tf.audio.separator import Separator

    results: dict[str, Any] = {"models": {}, "quality": {}}
    for path in options.models:
        model = load(path)
        config = model.config
        frames = sum((config.kernel_size - 1) * dilation for dilation in config.dilations)
        row: dict[str, Any] = {
            "latency_ms": round(2_000 * config.hop_length / config.sample_rate, 2),
            "mmacs_per_second": round(multiplications(config), 1),
            "state_bytes": int(sum(zero.nbytes for zero in model.zeros.values())),
            "context_seconds": round((frames * config.hop_length + N_FFT) / config.sample_rate, 2),
        }
        files = sorted([*path.glob("*.tflite"), *path.glob("*.onnx")])
        row["formats"] = [cost(file, options.minutes) for file in files]
        results["models"][path.name] = row
        print(f"{path.name}: {row['latency_ms']} ms, {row['mmacs_per_second']} M multiplications/s, "
              f"{row['state_bytes']:,} bytes of state")  # fmt: skip
        for entry in row["formats"]:
            print(f"  {entry['file']:22} {entry['bytes']:>9,} bytes  {100 * entry['median']:5.2f}% median  "
                  f"{100 * entry['p99']:5.2f}% p99  {entry['under_runs']} of {entry['blocks']:,} blocks late  "
                  f"{entry['grown_mb']:+.2f} MB", flush=True)  # fmt: skip
    for text in options.truth:
        name, _, rest = text.partition("=")
        folder, _, offline = rest.partition(":")
        if not folder:
            raise ConfigError(f"--truth {text}: give NAME=FOLDER, or NAME=FOLDER:OFFLINE with an offline model.")
        systems: dict[str, Callable[[Float32, float], Float32]] = {}
        for path in options.models:
            files = sorted([*path.glob("*.tflite"), *path.glob("*.onnx")]) if options.all_formats else [path]
            systems |= {
                f"{path.name}/{file.name}" if file != path else path.name: LiveSeparator(load(file)).separate
                for file in files
            }
        if offline:
            systems[f"{Path(offline).name} (offline)"] = Separator.load(Path(offline)).separate
        results["quality"][name] = quality(Path(folder), systems)
        found = results["quality"][name]
        print(f"{name}: {found['files']} files")
        for system, decibels in found["si_sdr"].items():
            print(
                f"  {system:32} {decibels:6.2f} dB  {found['exchanged'][system]:.1%} of half seconds exchanged",
                flush=True,
            )
    if options.json is not None:
        write_json(options.json, results)


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
