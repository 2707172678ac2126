"""Training throughput: mixtures per second of `fit`, of the bare step, of the pipeline, and of plain PyTorch.

    python -m benchmarks.train_throughput --data-dir DIR

All in one run, interleaved over several rounds, as medians and as ratios of the medians; for the `mnist-paper` network
at K = 2 and batches of 32, 128 and 512. The float32 matrix-multiply rate is the best that TensorFlow reaches here on
large square matrices; a mixture costs three times its forward pass (forward, and backward for
weights and inputs), less the gradient of the mixture itself.
"""

import argparse
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import add_json, write_results
from vae_bss_tf.arguments import Parser, command
from vae_bss_tf.checks import check
from vae_bss_tf.config import Preset
from vae_bss_tf.datasets import SourceBank, load_bank
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.presets import get_preset
from vae_bss_tf.startup import import_tensorflow

if TYPE_CHECKING:
    from training.learner import Learner

BATCHES = (32, 128, 512)
Measure = Callable[[], float]


def measured(step: Callable[[], Any], mixtures: int, seconds: float) -> float:
    """Calls `step` for some seconds.

    Args:
        step: One call.
        mixtures: Mixtures that a call handles.
        seconds: At least so long.

    Returns:
        Mixtures per second.
    """
    started, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        step()
        calls += 1
    return calls * mixtures / elapsed


def matmul_rate(seconds: float, size: int = 2048) -> float:
    """Floating-point operations per second of float32 matrix products of side `size`."""
    import tensorflow as tf

    a, b = tf.random.normal([size, size]), tf.random.normal([size, size])
    product = tf.function(lambda: tf.linalg.matmul(a, b))
    product()
    return measured(product, 1, seconds) * 2 * size**3


def flops_per_mixture(preset: Preset) -> float:
    """Floating-point operations of one mixture's training step, matrix products alone."""
    widths = [int(np.prod(preset.model.input_shape)), *preset.model.hidden_units]
    latents = preset.model.latent_dim
    encoder = sum(a * b for a, b in itertools.pairwise(widths))
    decoder = encoder + latents * widths[-1]
    encoder += widths[-1] * 2 * latents * preset.model.num_sources
    # The first layer needs no gradient of its input.
    backward_of_inputs = encoder - widths[0] * widths[1] + decoder * preset.model.num_sources
    return 2.0 * (2 * (encoder + preset.model.num_sources * decoder) + backward_of_inputs)


def compiled_learner(preset: Preset, steps_per_execution: int) -> "Learner":
    """The preset's model with the objective of its first phase, compiled as `training.trainer` compiles it."""
    import keras
    import tensorflow as tf

    from training.learner import Learner
    from vae_bss_tf import MultiSourceVAE
    from vae_bss_tf.objectives import Elbo

    phase = preset.recipe.phases[0]
    learner = Learner(MultiSourceVAE(preset.model), Elbo(lambda step: tf.constant(phase.kl_weight)), phase.trains)
    learner.compile(
        optimizer=keras.optimizers.Adam(phase.learning_rate), jit_compile=True, steps_per_execution=steps_per_execution
    )
    return learner


def fit_measure(preset: Preset, bank: SourceBank, batch: int, calls: int) -> Measure:
    """Keras' `fit` on the real pipeline; the first epoch compiles and is not measured."""
    import keras

    from vae_bss_tf.datasets.image_mixtures import training_mixtures

    steps = preset.recipe.phases[0].steps_per_execution
    model = compiled_learner(preset, steps)
    data = training_mixtures(bank, num_mixed=(2,), batch_size=batch, seed=0)

    class Clock(keras.callbacks.Callback):
        """Time from the first to the last call of an epoch."""

        def on_train_batch_end(self, index: int, logs: dict[str, Any] | None = None) -> None:
            self.times = [*getattr(self, "times", []), time.perf_counter()]

    model.fit(data, epochs=1, steps_per_epoch=2 * steps, verbose=0, shuffle=False)

    def measure() -> float:
        clock = Clock()
        model.fit(data, epochs=1, steps_per_epoch=(calls + 1) * steps, verbose=0, shuffle=False, callbacks=[clock])
        return calls * steps * batch / (clock.times[-1] - clock.times[0])

    return measure


def step_measure(preset: Preset, bank: SourceBank, batch: int, seconds: float) -> Measure:
    """The same model's `train_step` on one batch, in a compiled loop of as many steps a call."""
    import tensorflow as tf

    from vae_bss_tf.datasets.image_mixtures import training_mixtures

    steps = preset.recipe.phases[0].steps_per_execution
    model = compiled_learner(preset, steps)
    mixtures = next(iter(training_mixtures(bank, num_mixed=(2,), batch_size=batch, seed=0)))
    model.optimizer.build(model.trainable_variables)
    step = tf.function(lambda: model.train_step(mixtures), jit_compile=True)

    @tf.function
    def many() -> Any:
        for _ in tf.range(steps):
            step()
        return model.optimizer.iterations.value

    many()
    return lambda: measured(many, steps * batch, seconds)


def pipeline_measure(bank: SourceBank, batch: int, seconds: float) -> Measure:
    """The `tf.data` pipeline alone."""
    from vae_bss_tf.datasets.image_mixtures import training_mixtures

    batches = iter(training_mixtures(bank, num_mixed=(2,), batch_size=batch, seed=0))
    next(batches)
    return lambda: measured(lambda: next(batches), batch, seconds)


def torch_measure(preset: Preset, bank: SourceBank, batch: int, seconds: float) -> Measure:
    """A plain PyTorch training loop of the same layers, from the paper: eager, float32, as many threads."""
    import torch
    from torch import nn

    config = preset.model
    pixels, latents = int(np.prod(config.input_shape)), config.latent_dim

    def blocks(widths: list[int]) -> Iterator[nn.Module]:
        for a, b in itertools.pairwise(widths):
            yield from (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())

    widths = [pixels, *config.hidden_units]
    encoder = nn.Sequential(*blocks(widths), nn.Linear(widths[-1], 2 * config.num_sources * latents))
    decoder = nn.Sequential(*blocks([latents, *widths[:0:-1]]), nn.Linear(widths[1], pixels), nn.Sigmoid())
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=preset.recipe.phases[0].learning_rate)
    items = torch.tensor(bank.items.reshape(len(bank), pixels))

    def step() -> None:
        pair = torch.randint(len(items), (2, batch))
        mixture = (items[pair[0]].float() + items[pair[1]].float()) / 510.0
        mean, log_variance = encoder(mixture).reshape(batch, 2, config.num_sources, latents).unbind(1)
        sample = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        estimate = decoder(sample.reshape(-1, latents)).reshape(batch, config.num_sources, pixels).sum(1)
        error = (mixture - estimate).abs().sum(1).mean() / config.likelihood_scale
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum((1, 2)).mean()
        optimizer.zero_grad()
        (error + preset.recipe.phases[0].kl_weight * kl).backward()
        optimizer.step()

    step()
    return lambda: measured(step, batch, seconds)


def run(options: argparse.Namespace) -> None:
    """Measures everything, prints the table and writes the JSON file."""
    seconds, with_torch = options.seconds, not options.no_torch
    check(options.rounds >= 1, "--rounds", options.rounds, "at least 1")
    tensorflow = import_tensorflow()
    preset = get_preset("mnist-paper")
    bank = load_bank("mnist", "train", options.data_dir)
    if with_torch:
        try:
            import torch
        except ImportError as error:
            raise ConfigError("PyTorch is not installed: pip install -e '.[bench]', or give --no-torch.") from error

        torch.set_num_threads(len(os.sched_getaffinity(0)))
    flops = flops_per_mixture(preset)
    rows = []
    for batch in BATCHES:
        calls = max(2, round(seconds * 5000 / batch / preset.recipe.phases[0].steps_per_execution))
        measures = {
            "fit": fit_measure(preset, bank, batch, calls),
            "bare step": step_measure(preset, bank, batch, seconds),
            "pipeline": pipeline_measure(bank, batch, seconds),
            **({"PyTorch": torch_measure(preset, bank, batch, seconds)} if with_torch else {}),
            "matmul": lambda: matmul_rate(seconds),
        }
        found: dict[str, list[float]] = {name: [] for name in measures}
        for _ in range(options.rounds):
            for name, measure in measures.items():
                found[name].append(measure())
        rates = {name: statistics.median(values) for name, values in found.items()}
        row = {
            "batch": batch,
            **{f"{name} (mixtures/s)": round(rate) for name, rate in rates.items() if name != "matmul"},
            "fit / bare step": rates["fit"] / rates["bare step"],
            "pipeline / fit": rates["pipeline"] / rates["fit"],
            **({"fit / PyTorch": rates["fit"] / rates["PyTorch"]} if with_torch else {}),
            **({"bare step / PyTorch": rates["bare step"] / rates["PyTorch"]} if with_torch else {}),
            "matmul (GFLOP/s)": round(rates["matmul"] / 1e9),
            "bare step / matmul": rates["bare step"] * flops / rates["matmul"],
        }
        rows.append(row)
        print("  ".join(f"{k} {v:,.2f}" if isinstance(v, float) else f"{k} {v:,}" for k, v in row.items()), flush=True)
    write_results(
        options.json,
        command=options.command,
        load_average=os.getloadavg(),
        tensorflow=tensorflow.__version__,
        mflop_per_mixture=flops / 1e6,
        rounds=options.rounds,
        rows=rows,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.train_throughput", description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder of MNIST's four IDX files")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default: %(default)s)")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    add_json(parser, "train_throughput")
    return parser


main = command(_parser, run)


if __name__ == "__main__":
    sys.exit(main())
