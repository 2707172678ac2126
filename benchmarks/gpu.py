"""What a GPU brings: `python -m benchmarks.gpu --preset mnist --data-dir DIR`.

Trains every phase of a preset's recipe for some seconds, separates mixtures, and trains, exports and checks a small
run, on the CPU and on what else it finds: one GPU, one GPU in mixed precision, all GPUs together. Each is a process of
its own. The table holds the ratios to the CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import add_json, write_results
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.checks import check
from vae_bss_tf.errors import ConfigError, DataError

_SEPARATED = 4096
_EXPORTED_MIXTURES = 1024  # an epoch of the run that is exported
_HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1"}  # from TensorFlow: the CPU alone is left
# The devices: what is hidden, the strategy, the precision.
_SETUPS: dict[str, tuple[dict[str, str], str, str]] = {
    "CPU": (_HIDDEN, "single", "float32"),
    "GPU": ({}, "single", "float32"),
    "GPU, mixed_bfloat16": ({}, "single", "mixed_bfloat16"),
    "all GPUs, mirrored": ({}, "mirrored", "float32"),
}


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Measures one setup, in this process.

    Args:
        options: As the parser gives them, with the setup in `setup`.

    Returns:
        "train PHASE" and "separate" in mixtures per second, and "export" in seconds, of training a small run too.
    """
    from vae_bss_tf.startup import import_tensorflow

    import_tensorflow()
    import numpy as np

    from export import __main__ as export
    from training import fit, speed
    from training.run import Run
    from training.strategy import make_strategy
    from training.trainer import Trainer
    from vae_bss_tf.datasets import pipeline
    from vae_bss_tf.presets import get_preset

    _, strategy, precision = _SETUPS[options.setup]
    preset = get_preset(options.preset)
    phases = tuple(
        phase.replace(mixed_precision=precision, batch_size=options.batch_size or phase.batch_size)
        for phase in preset.recipe.phases
    )
    recipe = preset.recipe.replace(phases=phases, epochs=max(preset.recipe.epochs, len(phases)))
    preset = fit.completed(preset.replace(recipe=recipe), "vae")
    distribution = make_strategy(strategy)
    banks = pipeline.load_banks(preset, options.data_dir)
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(Run(Path(scratch), preset, "vae"), banks, distribution, quiet=True)
        for name, of_phase in speed.measured(trainer, seconds=options.seconds).items():
            found[f"train {name}"] = of_phase.mixtures_per_second
        model = trainer.model_for(trainer.plan[-1])
        mixtures = np.resize(trainer.validation, (_SEPARATED, *preset.model.input_shape))
        model.separate(mixtures)  # compiles
        started = time.perf_counter()
        model.separate(mixtures)
        found["separate"] = _SEPARATED / (time.perf_counter() - started)
        started = time.perf_counter()
        batch = max(phase.batch_size for phase in preset.recipe.phases)
        small = preset.recipe.replace(
            epochs=sum(phase.rounds for phase in preset.recipe.phases),
            mixtures_per_epoch=max(_EXPORTED_MIXTURES, batch),
            validation_mixtures=batch,
        )
        run, exported = Path(scratch) / "run", Path(scratch) / "exported"
        fit.train(preset.replace(recipe=small), output=run, data_dir=options.data_dir, strategy=strategy)
        words = ["--run", str(run), "--to", str(exported)]
        if export.main(words if options.data_dir is None else [*words, "--data-dir", str(options.data_dir)]):
            raise DataError("the export failed; see above.")
        found["export"] = time.perf_counter() - started
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """Lays the figures and their ratios to the CPU's out as a Markdown table; more is better in every ratio."""
    rows = [["", *found]]
    for name, base in found["CPU"].items():
        cells = []
        for values in found.values():
            ratio = base / values[name] if name == "export" else values[name] / base
            cells.append(f"{values[name]:,.0f} ({ratio:.2f})")
        unit = "s" if name == "export" else "mixtures/s"
        rows.append([f"{name}, {unit}", *cells])
    return "\n".join(to_markdown(rows))


def run(options: argparse.Namespace) -> None:
    """Measures every setup that can be had, prints the table and writes the JSON file."""
    if not options.seconds > 0:
        raise ConfigError(f"--seconds is {options.seconds:g}; it must be greater than 0.")
    count = "import tensorflow as tf; print(len(tf.config.list_physical_devices('GPU')))"
    gpus = int(_output([sys.executable, "-c", count], {}))
    print(f"GPUs found: {gpus}", flush=True)
    given = ["--preset", options.preset, "--seconds", str(options.seconds)]
    given += [] if options.data_dir is None else ["--data-dir", str(options.data_dir)]
    given += [] if options.batch_size is None else ["--batch-size", str(options.batch_size)]
    found = {}
    for setup in list(_SETUPS)[: 1 if gpus == 0 else 3 if gpus == 1 else 4]:
        words = [sys.executable, "-m", "benchmarks.gpu", "--setup", setup, *given]
        found[setup] = json.loads(_output(words, _SETUPS[setup][0]))
        print(f"{setup}: done", flush=True)
    print(table(found))
    if gpus == 0:
        print("no GPU was found: pip install 'tensorflow[and-cuda]' brings CUDA's libraries, not the driver")
    write_results(options.json, command=options.command, gpus=gpus, found=found)


def _output(words: Sequence[str], environment: dict[str, str]) -> str:
    """The last line that a command prints."""
    process = subprocess.run(
        words, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=False
    )  # fmt: skip
    if process.returncode:
        raise DataError("a measurement failed; see above.")
    return process.stdout.splitlines()[-1]


def _command(options: argparse.Namespace) -> None:
    if options.setup is None:
        run(options)
        return
    check(options.setup in _SETUPS, "--setup", options.setup, f"one of {', '.join(_SETUPS)}")
    found: dict[str, Any] = measured(options)
    print(json.dumps(found))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.gpu",
        description="Trains, separates and exports on the CPU and on the GPUs that are found, and compares them.",
        epilog="example: python -m benchmarks.gpu --preset mnist --data-dir DIR --batch-size 256",
    )
    parser.add_argument("--preset", default="digits", help="settings to train with (default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, help="folder of the data set's files; without it they are fetched")
    parser.add_argument("--batch-size", type=int, help="mixtures a step in every phase (default: the preset's)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase (default: %(default)s)")
    parser.add_argument("--setup", help="measure this one alone, in this process, and print its figures as JSON")
    add_json(parser, "gpu")
    return parser


main = command(_parser, _command)


if __name__ == "__main__":
    sys.exit(main())
