"""Callbacks of a training: the KL weight, the best model, pictures, progress, and their state after a resume."""

import csv
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tqdm

from training import figures
from training.schedules import KLWeightSchedule
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.files import replacing, write_text

MONITOR = "val_elbo"


class KLWeightCallback(keras.callbacks.Callback):
    """Sets the model's KL weight from a schedule before each compiled call.

    Args:
        schedule: The weight as a function of the steps done.
    """

    def __init__(self, schedule: KLWeightSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        steps_done = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.model.kl_weight.assign(self.schedule(steps_done))


class Remixing(keras.callbacks.Callback):
    """Has the model remix from an epoch on, and judge what it remixes masked from another; its step is compiled again.

    Args:
        epoch: The first epoch, from 0, with remixing.
        mask_epoch: The first epoch, from 0, with masked sources too.
    """

    def __init__(self, epoch: int, mask_epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.mask_epoch = mask_epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.model.remixing != (epoch >= self.epoch):
            self.model.remixing = epoch >= self.epoch
        if self.model.remix_masked != (epoch >= self.mask_epoch):
            self.model.remix_masked = epoch >= self.mask_epoch


class BestModel(keras.callbacks.ModelCheckpoint):
    """Keeps the model of the best validation ELBO; a file appears whole or not at all.

    Judging masked sources makes separation better and the ELBO a little worse: from there on it does not tell which
    model is the better one, and the last is kept.

    Args:
        path: Where the model stands, ending in ".keras".
        past: Validation ELBO of each epoch before a resume; empty without one.
        mask_epoch: As `Remixing` takes it.
    """

    def __init__(self, path: Path, past: list[float], mask_epoch: int) -> None:
        self.path = path
        self.partial = path.with_name(f".partial-{path.name}")
        self.mask_epoch = mask_epoch
        best = max(past, default=None)
        super().__init__(self.partial, monitor=MONITOR, mode="max", save_best_only=True, initial_value_threshold=best)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if epoch >= self.mask_epoch:
            self.best = -np.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            return
        super().on_epoch_end(epoch, logs)
        if self.partial.exists():
            self.partial.replace(self.path)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras' early stopping on the validation ELBO, which counts the epochs before a resume too.

    Args:
        patience: Epochs without a better ELBO before training stops; at least 1. The count begins anew, with the ELBO,
            where masked sources begin to be judged.
        past: Validation ELBO of each epoch before a resume; empty without one.
        mask_epoch: As `Remixing` takes it.
    """

    def __init__(self, patience: int, past: list[float], mask_epoch: int) -> None:
        super().__init__(monitor=MONITOR, mode="max", patience=patience)
        self.past = past
        self.mask_epoch = mask_epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for epoch, elbo in enumerate(self.past):
            self.on_epoch_end(epoch, {MONITOR: elbo})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if epoch == self.mask_epoch:
            self.best, self.wait = -np.inf, 0
        super().on_epoch_end(epoch, logs)


class SeparationPictures(keras.callbacks.Callback):
    """Writes a picture of separated mixtures to TensorBoard after each tenth of the training.

    Args:
        folder: TensorBoard's folder.
        mixtures: float32 `[num_mixtures, *shape]`.
        separate: Gives the sources of mixtures, `[num_mixtures, num_sources, *shape]`.
        epochs: Epochs of the whole training.
        audio: The spectrogram's settings, as `figures.separation` takes them.
    """

    def __init__(
        self,
        folder: Path,
        mixtures: npt.NDArray[np.float32],
        separate: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
        epochs: int,
        *,
        audio: AudioConfig | None = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.mixtures = mixtures
        self.separate = separate
        self.every = max(1, epochs // 10)
        self.audio = audio

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.writer = tf.summary.create_file_writer(str(self.folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        figure = figures.separation(self.mixtures, self.separate(self.mixtures), audio=self.audio)
        with self.writer.as_default(step=epoch + 1):
            tf.summary.image("separation", figures.to_array(figure)[np.newaxis])

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.writer.close()


class Progress(keras.callbacks.Callback):
    """A progress bar over the whole training, with mixtures per second and the time left.

    Args:
        batch_size: Mixtures a step.
        total: Mixtures of the whole training.
        done: Mixtures before the resume.
        quiet: Whether to print one plain line an epoch instead.
        compiled_at: The epochs, from 0, that begin with another compilation of the step.
    """

    def __init__(self, batch_size: int, total: int, done: int, quiet: bool, compiled_at: Collection[int] = ()) -> None:
        super().__init__()
        self.compiled_at = compiled_at
        self.batch_size = batch_size
        self.total = total
        self.done = done
        self.quiet = quiet
        self.seconds = 0.0
        self.compile_seconds = 0.0
        self.mixtures = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.bar = tqdm.tqdm(
            total=self.total, initial=self.done, unit=" mixtures", unit_scale=True, disable=self.quiet, smoothing=0.05
        )
        self.compiling = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.compiling = self.compiling or epoch in self.compiled_at
        self.steps_seen = 0
        self.called = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        mixtures = (batch + 1 - self.steps_seen) * self.batch_size
        self.steps_seen = batch + 1
        if self.compiling:
            self.compile_seconds += now - self.called
            self.compiling = False
        else:
            self.seconds += now - self.called
            self.mixtures += mixtures
        self.called = now
        self.bar.update(mixtures)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        values = {name: f"{value:.1f}" for name, value in (logs or {}).items() if name in ("val_elbo", "val_kl")}
        if self.quiet:
            shown = "  ".join(f"{name} {value}" for name, value in values.items())
            print(f"epoch {epoch + 1}  {shown}  {self.mixtures_per_second:,.0f} mixtures/s", flush=True)
        else:
            self.bar.set_postfix({"epoch": epoch + 1, **values})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.bar.close()

    @property
    def mixtures_per_second(self) -> float:
        """Mixtures per second in all calls but those that compile; 0 before the first."""
        return self.mixtures / self.seconds if self.seconds else 0.0


def read_history(path: Path) -> list[dict[str, float]]:
    """Reads `history.csv`.

    Args:
        path: The file; need not exist.

    Returns:
        A dictionary for each epoch, without what Keras had no value for.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value != "NA"} for row in rows]


def truncate_history(path: Path, epochs: int) -> None:
    """Cuts `history.csv` back to the epochs that a resumed training keeps.

    Args:
        path: The file; need not exist.
        epochs: Number of epochs kept.
    """
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(lines[: epochs + 1]) if epochs else "")


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a model in one move.

    Args:
        model: The model.
        path: Where it shall stand, ending in ".keras".
    """
    with replacing(path) as partial:
        model.save(partial)
