"""The training of a live separator: one run folder, and a state after each epoch to resume from.

config.json    settings of the model and of the training, the teachers, the seed, versions of the libraries
weights.npz    the model as the last epoch left it, float32
history.csv    loss, signal-to-distortion ratios, ELBO and KL of each epoch
metrics.json   time and scores; only a finished training has it
state.npz      weights, the optimizer's moments, the epochs so far and a checksum of what it learns from
"""

import dataclasses
import importlib.metadata
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training import state
from training.live import objective
from training.live.data import batches, own_mixtures
from training.live.stems import Stems
from training.run import LIBRARIES, exclusive
from training.tables import to_csv
from vae_bss_tf.checks import check
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError, OutputExistsError
from vae_bss_tf.files import parse_json, write_json, write_text
from vae_bss_tf.live.config import LiveConfig
from vae_bss_tf.live.model import LiveVAE
from vae_bss_tf.live.runtime import MANIFEST, is_live
from vae_bss_tf.live.saved import load_weights, save_weights
from vae_bss_tf.settings import Settings

STEPS_PER_EPOCH, MOST_EPOCHS = 100, 10_000_000
NUM_VALIDATION = 128
_VALIDATION_BATCH = 16
_MEASURED_STEPS = 8
_RESERVE = 0.95  # of the minutes, for what is not a training step
_STATE, _WEIGHTS = "state.npz", "weights.npz"
_COLUMNS = ("epoch", "loss", "sdr", "elbo", "kl", "known", "val_sdr", "val_elbo", "val_kl")


@dataclasses.dataclass(frozen=True)
class LiveTraining(Settings):
    """How a live separator is trained.

    Attributes:
        epochs: Epochs of 100 steps; at least 1.
        batch_size: Mixtures of 3 s a step; at least 1.
        learning_rate: Adam's at the beginning; it falls to zero along a cosine; > 0.
        seed: Seed of initialisation, mixtures and noise.

    Example:
        >>> LiveTraining(epochs=10).batch_size
        16
    """

    epochs: int = 60
    batch_size: int = 16
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check(1 <= self.epochs <= MOST_EPOCHS, "epochs", self.epochs, f"from 1 to {MOST_EPOCHS:,}")
        check(1 <= self.batch_size <= 4_096, "batch_size", self.batch_size, "from 1 to 4,096")
        check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "in (0, 1]")
        check(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2^31 - 1")


class LiveTrainer:
    """Trains one live separator.

    Args:
        config: Settings of the model.
        training: Settings of the training.
        stems: What to train on.
        held_out: What to validate on.
        init: A model to begin with, of any latency; None begins anew.
    """

    def __init__(
        self,
        config: LiveConfig,
        training: LiveTraining,
        stems: Stems,
        held_out: Stems,
        init: LiveVAE | None = None,
    ) -> None:
        self.config = config
        self.init = init
        self.training = training
        self.stems = stems
        self.held_out = own_mixtures(held_out, config, NUM_VALIDATION)
        self._begin()

    def _begin(self) -> None:
        keras.utils.set_random_seed(self.training.seed)
        self.model = LiveVAE(self.config)
        if self.init is not None:
            begin_from(self.model, self.init)
        steps = self.training.epochs * STEPS_PER_EPOCH
        schedule = keras.optimizers.schedules.CosineDecay(self.training.learning_rate, steps)
        self.optimizer = keras.optimizers.Adam(schedule, global_clipnorm=5.0)
        self.optimizer.build(self.model.trainable_variables)
        self._step = tf.function(self._train_step)
        self._validation_step = tf.function(self._mean_values)

    def _train_step(self, sources: tf.Tensor, sure: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            values = objective.values(self.model, sources, sure, seed)
            loss = values.loss()
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return tf.stack([loss, *(tf.reduce_mean(value) for value in values)])

    def _mean_values(self, sources: tf.Tensor, sure: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.reduce_mean(value) for value in objective.values(self.model, sources, sure, None)])

    def within(self, minutes: float) -> LiveTraining:
        """Plans a training: measures some steps and a validation, and begins anew.

        Args:
            minutes: How long the training may take.

        Returns:
            The settings with as many epochs as fit, at least one.
        """
        data = iter(batches(self.stems, self.config, self.training.batch_size, self.training.seed))
        self._train_once(data, 0)  # traces and compiles
        started = time.perf_counter()
        for step in range(1, _MEASURED_STEPS + 1):
            self._train_once(data, step)
        seconds = (time.perf_counter() - started) / _MEASURED_STEPS * STEPS_PER_EPOCH
        self._validate()  # traces it
        started = time.perf_counter()
        self._validate()
        seconds += time.perf_counter() - started
        epochs = min(max(1, int(_RESERVE * 60 * minutes / seconds)), MOST_EPOCHS)
        self.training = self.training.replace(epochs=epochs)
        self._begin()
        return self.training

    def _train_once(self, data: Any, step: int) -> tf.Tensor:
        sources, sure = next(data)
        return self._step(sources, sure, tf.constant([self.training.seed, step]))

    def train(self, path: Path, *, report: Any = print) -> dict[str, Any]:
        """Trains all epochs that are left, and writes the run's files.

        Args:
            path: The run folder.
            report: Told of each epoch in one line.

        Returns:
            "epochs", "seconds" and the last validation's scores.

        Raises:
            CheckpointError: The state is damaged, or belongs to other recordings.
            DataError: The loss is not finite any more.
        """
        rows: state.Rows = []
        seconds = 0.0
        if (path / _STATE).exists():
            rows, seconds = state.load(path / _STATE, self._variables(), self.stems.checksum)
        else:  # a training that is killed in its first epoch still begins with what it began with
            self._save(path, rows, seconds)
        first = len(rows)
        data = iter(
            batches(self.stems, self.config, self.training.batch_size, self.training.seed, first * STEPS_PER_EPOCH)
        )
        for epoch in range(first, self.training.epochs):
            started = time.perf_counter()
            totals = [self._train_once(data, epoch * STEPS_PER_EPOCH + i) for i in range(STEPS_PER_EPOCH)]
            means = np.mean([total.numpy() for total in totals], axis=0)
            if not np.isfinite(means).all():
                raise DataError(f"the loss is not finite any more in epoch {epoch + 1}; lower --learning-rate.")
            rows.append(
                {"epoch": epoch, **dict(zip(_COLUMNS[1:], [*map(float, means), *self._validate()], strict=True))}
            )
            seconds += time.perf_counter() - started
            self._save(path, rows, seconds)
            left = (time.perf_counter() - started) * (self.training.epochs - epoch - 1) / 60
            report(
                f"epoch {epoch + 1}/{self.training.epochs}  loss {means[0]:.2f}  sdr {means[1]:.2f} dB  "
                f"val_sdr {rows[-1]['val_sdr']:.2f} dB  {left:.0f} min left"
            )
        save_weights(self.model, path / _WEIGHTS)
        scores = {name: round(value, 3) for name, value in rows[-1].items() if name.startswith("val_")}
        trained = {"epochs": len(rows), "seconds": round(seconds, 1), "parameters": self.model.num_parameters}
        metrics = {**trained, **scores}
        write_json(path / "metrics.json", metrics)
        return metrics

    def _validate(self) -> list[float]:
        sources, sure = self.held_out
        parts = [
            self._validation_step(sources[i : i + _VALIDATION_BATCH], sure[i : i + _VALIDATION_BATCH]).numpy()
            for i in range(0, len(sources), _VALIDATION_BATCH)
        ]
        return [float(value) for value in np.mean(parts, axis=0)[:3]]

    def _save(self, path: Path, rows: state.Rows, seconds: float) -> None:
        state.save(path / _STATE, self._variables(), rows, seconds, self.stems.checksum)
        write_text(path / "history.csv", to_csv([_COLUMNS, *([row[name] for name in _COLUMNS] for row in rows)]))

    def _variables(self) -> list[Any]:
        return [*self.model.trainable_variables, *self.optimizer.variables]


def begin_from(model: LiveVAE, source: LiveVAE) -> None:
    """Gives a model the weights of one that may have another latency.

    Convolutions over time are matched by the seconds between their taps; those that the source lacks pass on what they
    are given until they are trained. Moving averages that it lacks have no say until then.

    Args:
        model: The model to change.
        source: Where the weights come from.

    Raises:
        ConfigError: The models differ in more than the latency, and moving averages that the source has none of.
    """
    settings = source.config.replace(latency_ms=model.config.latency_ms)
    if not settings.trace_seconds:
        settings = settings.replace(trace_seconds=model.config.trace_seconds)
    if settings != model.config:
        raise ConfigError("the run to begin with has other settings; only the latency may differ.")
    blocks = {dilation * source.config.hop_length: block for dilation, block in zip(
        source.config.dilations, source.blocks, strict=True)}  # fmt: skip
    for dilation, block in zip(model.config.dilations, model.blocks, strict=True):
        like = blocks.get(dilation * model.config.hop_length)
        if like is not None:
            block.set_weights(like.get_weights())
        else:
            block.dense.set_weights([np.zeros_like(weights) for weights in block.dense.get_weights()])
    for name in ("inlet", "posterior", "decoder_hidden", "decoder_head", "outlet"):
        getattr(model, name).set_weights(getattr(source, name).get_weights())
    layers = zip([*model.down, *model.up, model.mask_head], [*source.down, *source.up, source.mask_head], strict=True)
    for layer, like in layers:
        kernel, bias = like.get_weights()
        more = layer.convolution.kernel.shape[2] - kernel.shape[2]  # the moving averages are the last inputs
        layer.set_weights([np.pad(kernel, [(0, 0), (0, 0), (0, more), (0, 0)]), bias])


def create(path: Path, config: LiveConfig, training: LiveTraining, sources: list[dict[str, str]], force: bool) -> None:
    """Makes a new run folder with its settings.

    Args:
        path: The folder.
        config: Settings of the model.
        training: Settings of the training.
        sources: The folders of mixtures and the teachers.
        force: Whether an earlier run there is replaced.

    Raises:
        OutputExistsError: The folder holds something else, or an earlier run and not `force`.
    """
    check_new(path, force=force)
    if path.exists():
        with exclusive(path):
            for name in (_STATE, _WEIGHTS, "history.csv", "metrics.json"):
                (path / name).unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    write_json(
        path / "config.json",
        {"system": "live", "live": config.to_dict(), "training": training.to_dict(), "learned_from": sources,
         "versions": versions},
    )  # fmt: skip


def check_new(path: Path, *, force: bool) -> None:
    """Refuses a folder that `create` would refuse.

    Args:
        path: As `create` takes it.
        force: As `create` takes it.

    Raises:
        OutputExistsError: The folder holds something else, or an earlier run and not `force`.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if (path / MANIFEST).exists():
        raise OutputExistsError(f"{path} is an export, which no training replaces; choose another --output.")
    if not is_live(path):
        raise OutputExistsError(f"{path} exists and is no run of a live separator; choose another --output.")
    if not force:
        raise OutputExistsError(f"{path} holds an earlier run; resume it by --resume, or replace it by --force.")


def check_resumable(path: Path) -> None:
    """Refuses to train on where a training would begin anew over what is there.

    Args:
        path: The run folder.

    Raises:
        CheckpointError: It is no run, or an export, or holds weights without the state that they came from.
    """
    settings_of(path)
    if (path / MANIFEST).exists():
        raise CheckpointError(f"{path} is an export, which no training resumes; begin with it by --init.")
    if (path / _WEIGHTS).exists() and not (path / _STATE).exists():
        raise CheckpointError(f"{path} has lost its {_STATE}; train into another --output, with --init {path}.")


def settings_of(path: Path) -> tuple[LiveConfig, LiveTraining, list[dict[str, str]]]:
    """Reads a run's settings.

    Args:
        path: The run folder.

    Returns:
        Those of the model and of the training, and what it learned from.

    Raises:
        CheckpointError: It is no run of a live separator, or damaged.
    """
    if not is_live(path):
        raise CheckpointError(f"{path} is no run of a live separator; train one: python -m training.live")
    content = parse_json((path / "config.json").read_text(encoding="utf-8"))
    try:
        return (
            LiveConfig.from_dict(content["live"]),
            LiveTraining.from_dict(content["training"]),
            [dict(entry) for entry in content["learned_from"]],
        )
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'config.json'} cannot be read ({error}); it is damaged.") from error


def load_model(path: Path) -> LiveVAE:
    """Loads a finished run's model.

    Args:
        path: The run folder.

    Raises:
        CheckpointError: It is no finished run of a live separator, or damaged.
    """
    config, _, _ = settings_of(path)
    return load_weights(path / _WEIGHTS, config)
