"""The training of a context network, in a folder of its run, with a state after each epoch to resume from.

context/config.json    settings of the network and of the training, the teacher, versions of the libraries
context/weights.npz    the network: kernels in float16, biases in float32
context/history.csv    signal-to-distortion ratios of each epoch
context/metrics.json   time and scores; only a finished training has it
context/state.npz      weights, the optimizer's moments, the epochs so far and a checksum of what it learns from
"""

import dataclasses
import importlib.metadata
import math
import time
import types
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training import state
from training.run import LIBRARIES
from training.tables import to_csv
from vae_bss_tf.audio.context import CONFIG, METRICS, WEIGHTS, ContextConfig, context_of, heard, log_masks, read
from vae_bss_tf.audio.overlap_add import half_sine
from vae_bss_tf.checks import check
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import CheckpointError, DataError
from vae_bss_tf.files import parse_json, replacing_folder, write_json, write_text
from vae_bss_tf.settings import Settings
from vae_bss_tf.weights import halved, write_weights

Float32 = npt.NDArray[np.float32]

STEPS_PER_EPOCH, MOST_EPOCHS, MOST_REMIXES = 100, 1_000_000, 1_000_000
_PARTS = 4  # of an excerpt that one step in four is given, in as many more mixtures
_SILENT = 1e-3  # of a batch's energy: of what is quieter nothing is learned
_FAINTEST = 1e-8  # where all of a batch is silence
_MEASURED_STEPS = 4
_RESERVE = 0.95  # of the minutes, for what is not a training step
_STATE = "state.npz"
_COLUMNS = ("epoch", "sdr", "val_sdr")


@dataclasses.dataclass(frozen=True)
class ContextTraining(Settings):
    """How a context network is trained.

    Attributes:
        epochs: Epochs of 100 steps; at least 1.
        remixes: Mixtures of 512 frames that are made of the separated recordings; at least 1.
        batch_size: Mixtures a step; at least 1.
        learning_rate: Adam's at the beginning; it falls to zero along a cosine; > 0.
        seed: Seed of initialisation and mixtures.

    Example:
        >>> ContextTraining(epochs=10).batch_size
        4
    """

    epochs: int = 15
    remixes: int = 1_200
    batch_size: int = 4
    learning_rate: float = 2e-3
    seed: int = 0

    def __post_init__(self) -> None:
        check(1 <= self.epochs <= MOST_EPOCHS, "epochs", self.epochs, f"from 1 to {MOST_EPOCHS:,}")
        check(1 <= self.remixes <= MOST_REMIXES, "remixes", self.remixes, f"from 1 to {MOST_REMIXES:,}")
        check(1 <= self.batch_size <= 1_024, "batch_size", self.batch_size, "from 1 to 1,024")
        check(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "in (0, 1]")
        check(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2^31 - 1")


def _convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    return keras.ops.conv(inputs, kernel, stride, padding="same")


_NAMES = ("concatenate", "log", "matmul", "mean", "relu", "reshape", "sqrt", "stack", "transpose", "zeros_like")
KERAS = types.SimpleNamespace(convolution=_convolution, **{name: getattr(keras.ops, name) for name in _NAMES})


class ContextTrainer:
    """Trains one context network.

    Args:
        config: Settings of the network.
        training: Settings of the training.
        audio: The audio settings of the separator.
        remixes: What to train on, as `remixes.remixed` makes it.
        held_out: What to validate on, in the same form.
    """

    def __init__(
        self, config: ContextConfig, training: ContextTraining, audio: AudioConfig, remixes: Float32, held_out: Float32
    ) -> None:
        self.config = config
        self.training = training
        self.remixes = remixes
        self.held_out = held_out
        self._frame, self._length = context_of(audio)
        self._hop, self._bins = self._frame // 4, audio.num_bins
        self._window = half_sine(self._frame)
        self._begin()

    def _begin(self) -> None:
        rng = np.random.default_rng(self.training.seed)
        self.weights: dict[str, keras.Variable] = {}
        for name, shape in self.config.shapes().items():
            limit = 0.0 if name == "head" else math.sqrt(6 / math.prod(shape[:-1]))  # He et al., ICCV 2015
            values = rng.uniform(-limit, limit, shape).astype(np.float32)
            self.weights[name] = keras.Variable(values, name=name)
            self.weights[f"{name}_bias"] = keras.Variable(np.zeros(shape[-1:], np.float32), name=f"{name}_bias")
        schedule = keras.optimizers.schedules.CosineDecay(
            self.training.learning_rate, self.training.epochs * STEPS_PER_EPOCH
        )
        self.optimizer = keras.optimizers.Adam(schedule, global_clipnorm=5.0)
        self.optimizer.build(list(self.weights.values()))
        self._step = tf.function(self._train_step)
        self._validation_step = tf.function(self._mean_ratio)

    @property
    def num_parameters(self) -> int:
        """Weights of the network."""
        return sum(math.prod(weight.shape) for weight in self.weights.values())

    def _spectra(self, waveforms: tf.Tensor) -> tf.Tensor:
        """As the network's own spectra of a piece of that length."""
        lead = self._frame - self._hop
        padded = tf.pad(waveforms, [[0, 0], [0, 0], [lead, lead]])
        frames = tf.signal.frame(padded, self._frame, self._hop) * self._window
        return tf.signal.rfft(frames)[..., : self._bins]

    def _ratios(self, remixes: tf.Tensor) -> tf.Tensor:
        """Signal-to-distortion ratios of the masked sources, dB.

        Args:
            remixes: float32 `[batch, 2, num_sources, samples]`, the sources and what was separated.

        Returns:
            float32 `[batch, num_sources]`, at most 30.
        """
        sources, own = self._spectra(remixes[:, 0]), self._spectra(remixes[:, 1])
        mixture, heard = (tf.reduce_sum(spectra, axis=1, keepdims=True) for spectra in (sources, own))
        seen, alone, rest = (tf.abs(spectra) for spectra in (mixture, own, heard - own))
        masks = tf.nn.softmax(log_masks(self.weights, self.config, seen, alone, rest, KERAS), axis=1)
        errors = tf.abs(sources - tf.complex(masks, tf.zeros_like(masks)) * mixture)
        energy, error = (tf.reduce_sum(tf.square(m), axis=[2, 3]) for m in (tf.abs(sources), errors))
        least = _SILENT * tf.reduce_mean(energy) + _FAINTEST
        return 10 / math.log(10) * tf.math.log((energy + least) / (error + 1e-3 * energy + least))

    def _train_step(self, remixes: tf.Tensor) -> tf.Tensor:
        variables = list(self.weights.values())
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self._ratios(remixes))
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return -loss

    def _mean_ratio(self, remixes: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(self._ratios(remixes))

    def _batch(self, step: int) -> Float32:
        """The mixtures of a step, which depend on the seed and the step alone."""
        rng = np.random.default_rng([self.training.seed, step])
        chosen = np.sort(rng.integers(len(self.remixes), size=self.training.batch_size))
        batch = self.remixes[chosen]
        if step % _PARTS == 0:  # recordings may be shorter than what the network sees at once
            length = (self._length + self._frame - self._hop) // _PARTS + self._hop - self._frame
            starts = rng.integers(self._length - length, size=_PARTS)
            batch = np.concatenate([batch[..., start : start + length] for start in starts])
        return batch

    def within(self, minutes: float) -> ContextTraining:
        """Plans a training: measures some steps and a validation, and begins anew.

        Args:
            minutes: How long the training may take.

        Returns:
            The settings with as many epochs as fit, at least one.
        """
        for step in range(2):  # traces both lengths
            self._step(self._batch(step))
        started = time.perf_counter()
        for step in range(_MEASURED_STEPS):
            self._step(self._batch(step)).numpy()
        seconds = (time.perf_counter() - started) / _MEASURED_STEPS * STEPS_PER_EPOCH
        self._validation_step(self.held_out[:1])  # traces it
        started = time.perf_counter()
        self._validate()
        seconds += time.perf_counter() - started
        epochs = min(max(1, int(_RESERVE * 60 * minutes / seconds)), MOST_EPOCHS)
        self.training = self.training.replace(epochs=epochs)
        self._begin()
        return self.training

    def train(self, folder: Path, *, report: Callable[[str], None] = print) -> dict[str, Any]:
        """Trains all epochs that are left, and writes the network's files.

        Args:
            folder: The folder `context` of the run.
            report: Told of each epoch in one line.

        Returns:
            "epochs", "seconds", "parameters", "val_sdr", and "val_sdr_before", that of the ratio masks of what was
            separated.

        Raises:
            CheckpointError: The state is damaged, or belongs to other recordings; or a weight is
                beyond what float16 holds.
            DataError: The loss is not finite any more.
        """
        rows: state.Rows = []
        seconds = 0.0
        before = self._validate()  # an untrained network changes no mask
        if (folder / _STATE).exists():
            rows, seconds = state.load(folder / _STATE, self._variables(), self._checksum)
        for epoch in range(len(rows), self.training.epochs):
            started = time.perf_counter()
            steps = range(epoch * STEPS_PER_EPOCH, (epoch + 1) * STEPS_PER_EPOCH)
            reached = float(np.mean([self._step(self._batch(step)).numpy() for step in steps]))
            validated = self._validate()
            if not math.isfinite(reached + validated):
                raise DataError(f"the loss is not finite any more in epoch {epoch + 1}; lower --learning-rate.")
            rows.append(dict(zip(_COLUMNS, [epoch, reached, validated], strict=True)))
            seconds += time.perf_counter() - started
            state.save(folder / _STATE, self._variables(), rows, seconds, self._checksum)
            _write_history(folder, rows)
            left = (time.perf_counter() - started) * (self.training.epochs - epoch - 1) / 60
            report(
                f"epoch {epoch + 1}/{self.training.epochs}  sdr {reached:.2f} dB  "
                f"val_sdr {rows[-1]['val_sdr']:.2f} dB  {left:.0f} min left"
            )
        metrics = {
            "epochs": len(rows),
            "seconds": round(seconds, 1),
            "parameters": self.num_parameters,
            "val_sdr": round(rows[-1]["val_sdr"], 3),
            "val_sdr_before": round(before, 3),
        }
        _write_history(folder, rows)
        write_json(folder / METRICS, metrics)
        arrays = {name: np.asarray(weight) for name, weight in self.weights.items()}
        write_weights(folder / WEIGHTS, halved(arrays))  # the last: with it the training has ended
        return metrics

    def _validate(self) -> float:
        return float(np.mean([self._validation_step(one[np.newaxis]).numpy() for one in self.held_out]))

    @property
    def _checksum(self) -> int:
        return zlib.crc32(np.ascontiguousarray(self.remixes[..., :: self._frame]).tobytes())

    def _variables(self) -> list[Any]:
        return [*self.weights.values(), *self.optimizer.variables]


def _write_history(folder: Path, rows: state.Rows) -> None:
    write_text(folder / "history.csv", to_csv([_COLUMNS, *([row[name] for name in _COLUMNS] for row in rows)]))


def create(
    folder: Path, config: ContextConfig, training: ContextTraining, audio: AudioConfig, teacher: str | None
) -> None:
    """Makes the folder of a network with its settings; it takes the place of an earlier one.

    Args:
        folder: The folder `context` of a run.
        config: Settings of the network.
        training: Settings of the training.
        audio: The audio settings of the model.
        teacher: What found the sources of the recordings, as it was given; None for the run itself.
    """
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    content = {"network": config.to_dict(), "audio": heard(audio), "training": training.to_dict(), "teacher": teacher}
    with replacing_folder(folder) as staging:
        write_json(staging / CONFIG, {**content, "versions": versions})


def check_resumable(folder: Path) -> None:
    """Refuses to train on where a training would begin anew over what is there.

    Args:
        folder: The folder `context` of a run.

    Raises:
        CheckpointError: It holds weights without the state that they came from.
    """
    if (folder / WEIGHTS).exists() and not (folder / _STATE).exists():
        raise CheckpointError(f"{folder} has lost its {_STATE}; train anew by --force.")


def settings_of(folder: Path) -> tuple[ContextConfig, ContextTraining, str | None]:
    """Reads what `create` wrote.

    Args:
        folder: The folder `context` of a run.

    Returns:
        Settings of the network and of the training, and the teacher.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    try:
        content = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
        teacher = content["teacher"]
        check(teacher is None or isinstance(teacher, str), "teacher", teacher, "the name of a run or an export")
        return ContextConfig.from_dict(content["network"]), ContextTraining.from_dict(content["training"]), teacher
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no training to resume; begin one by --force.") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} cannot be read ({error}); it is damaged: train anew by --force."
        ) from error


def scores_of(folder: Path, audio: AudioConfig) -> dict[str, float]:
    """Reads the scores of a network whose training has ended.

    Args:
        folder: The folder `context` of a run.
        audio: The audio settings of the model.

    Returns:
        "val_sdr" and "val_sdr_before" in dB, as `ContextTrainer.train` gives them.

    Raises:
        CheckpointError: Its training has not ended, or it is damaged.
    """
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"the context network in {folder} is not finished; resume its training, or delete it.")
    read(folder, audio)
    settings_of(folder)
    try:
        metrics = parse_json((folder / METRICS).read_text(encoding="utf-8"))
        return {name: float(metrics[name]) for name in ("val_sdr", "val_sdr_before")}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / METRICS} cannot be read ({error}); train anew by --force.") from error
