"""How fast a mask network is trained: step for step beside that of release 0.1, in one run.

    python -m benchmarks.mask_network --data-dir DIR

Every variant trains on the same batches with the same frozen encoder, decoder and teacher; the variants take turns, so
that whatever else the machine does slows all of them alike. The baseline is release 0.1's: the U-Net of 16, 32 and 64
channels on single pixels, compiled by XLA, in float32.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import add_json, write_results
from benchmarks.train_throughput import measured
from training.memory import keep_freed_memory
from training.tables import to_markdown
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.datasets import load_bank
from vae_bss_tf.domains import Images
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import get_preset
from vae_bss_tf.startup import import_tensorflow

BATCH = 64


class Variant(NamedTuple):
    """A way to train a mask network.

    Attributes:
        channels: As `ModelConfig.mask_channels`.
        patch: As `ModelConfig.mask_patch`.
        jit_compile: Whether XLA compiles the step.
        precision: Keras' dtype policy, or "auto".
    """

    channels: tuple[int, ...]
    patch: int
    jit_compile: bool
    precision: str = "float32"


VARIANTS = {
    "release 0.1": Variant((16, 32, 64), 1, True),
    "release 0.1, without XLA": Variant((16, 32, 64), 1, False),
    "release 0.1, without XLA, in bfloat16": Variant((16, 32, 64), 1, False, "mixed_bfloat16"),
    "twice the channels": Variant((32, 64, 128), 1, False, "auto"),
    "half as much again": Variant((24, 48, 96), 1, False, "auto"),
    "patches": Variant((32, 64), 2, False, "auto"),
    "wide patches": Variant((64, 128), 2, False, "auto"),
}


def step_of(variant: Variant, data: Any) -> Callable[[], Any]:
    """Compiles a training step of a variant.

    Args:
        variant: The variant.
        data: A batch, `{"mixture": float32 [batch, 28, 28]}`.

    Returns:
        A function that trains one step.
    """
    import keras
    import tensorflow as tf

    from training.learner import Learner
    from training.precision import resolved_precision
    from vae_bss_tf.model import MultiSourceVAE
    from vae_bss_tf.objectives import MaskedRemix

    preset = get_preset("mnist")
    config = preset.model.replace(mask_channels=variant.channels, mask_patch=variant.patch)
    model = MultiSourceVAE(config, dtype=resolved_precision(variant.precision))
    learner = Learner(model, MaskedRemix(model.copy(), Images()), ("mask_network",))
    learner.compile(keras.optimizers.Adam(1e-3), jit_compile=variant.jit_compile)
    learner.optimizer.build(learner.trainable_variables)
    step = tf.function(lambda: learner.train_step(data), jit_compile=variant.jit_compile)
    return lambda: step()["loss"].numpy()


def run(options: argparse.Namespace) -> None:
    """Measures all variants, prints the table and writes the JSON file."""
    rounds, seconds = options.rounds, options.seconds
    if rounds < 1 or not seconds > 0:
        raise ConfigError(f"--rounds is {rounds} and --seconds {seconds:g}; both must be greater than 0.")
    keep_freed_memory()
    import_tensorflow()
    from training.precision import resolved_precision
    from vae_bss_tf.datasets.image_mixtures import training_mixtures

    bank = load_bank("mnist", "train", options.data_dir)
    data = next(iter(training_mixtures(bank, num_mixed=(2,), batch_size=BATCH, seed=0)))
    steps = {name: step_of(variant, data) for name, variant in VARIANTS.items()}
    for step in steps.values():
        step()
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            rates[name].append(measured(step, BATCH, seconds))
    baseline = next(iter(rates))
    rows = [
        {
            "variant": name,
            **VARIANTS[name]._asdict(),
            "precision": resolved_precision(VARIANTS[name].precision),
            "mixtures_per_second": round(statistics.median(found)),
            "ratio": round(statistics.median(a / b for a, b in zip(found, rates[baseline], strict=True)), 2),
        }
        for name, found in rates.items()
    ]
    print("\n".join(to_markdown([list(rows[0]), *([str(value) for value in row.values()] for row in rows)])))
    write_results(options.json, command=options.command, batch=BATCH, seconds=seconds, rounds=rounds, rows=rows)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.mask_network", description=__doc__)
    parser.add_argument("--data-dir", type=Path, help="folder of MNIST's files; without it they are fetched")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each variant in each round")
    parser.add_argument("--rounds", type=int, default=3)
    add_json(parser, "mask_network")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
