"""Callbacks of a training: the best model, early stopping, pictures and progress."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tqdm

from training import figures
from training.backup import Backup
from training.recipe import PlannedPhase
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.domains import domain_of

_SHOWN = {"loss": 1, "val_elbo": 1, "val_score": 1, "val_remix_si_sdri": 2}  # with so many decimals


class RemixScore(keras.callbacks.Callback):
    """Adds the score that needs no true sources to what the callbacks after it see of an epoch.

    Args:
        measure: Gives the score of what separates mixtures, dB.
    """

    NAME = "remix_si_sdri"

    def __init__(
        self, measure: Callable[[Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]], float]
    ) -> None:
        super().__init__()
        self.measure = measure

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and math.isfinite(logs.get("loss", 0.0)):
            logs[f"val_{self.NAME}"] = self.measure(self.model.separator.separate)


class BestModel(keras.callbacks.Callback):
    """Keeps the model of the best validation score of a phase, and gives it back when the phase ends.

    Args:
        backup: The states of the training.
        planned: What is trained.
        monitor: Name of the validation score, the higher the better.
        past: Its value in each epoch of the phase before a resume.
    """

    def __init__(self, backup: Backup, planned: PlannedPhase, monitor: str, past: Sequence[float]) -> None:
        super().__init__()
        self.backup = backup
        self.planned = planned
        self.monitor = monitor
        self.best = max(past, default=-math.inf)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        score = (logs or {}).get(self.monitor, -math.inf)
        if score > self.best:
            self.best = score
            self.backup.keep_best(self.planned.index, epoch + 1, self.model.separator)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.backup.load_best(self.model.separator)


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras' early stopping on a validation score, which counts the epochs before a resume too.

    Args:
        patience: Epochs without a better score before the phase ends; at least 1.
        monitor: Name of the validation score, the higher the better.
        past: Its value in each epoch of the phase before a resume.
    """

    def __init__(self, patience: int, monitor: str, past: Sequence[float]) -> None:
        super().__init__(monitor=monitor, mode="max", patience=patience)
        self.past = past

    @staticmethod
    def has_ended(patience: int, scores: Sequence[float]) -> bool:
        """Says whether a phase with these scores, one for each epoch, has been stopped.

        Args:
            patience: As the class takes it.
            scores: The validation scores, the higher the better.
        """
        if not scores:
            return False
        best = max(scores)
        return scores.index(best) < len(scores) - patience

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for epoch, score in enumerate(self.past):
            self.on_epoch_end(epoch, {self.monitor: score})


class SeparationSummaries(keras.callbacks.Callback):
    """Writes separated mixtures to TensorBoard after each tenth of the training: a picture and, of sound, the sound.

    The sound of a mixture and of its sources is that of a column of the picture.

    Args:
        folder: TensorBoard's folder.
        shown: The mixtures.
        separate: Gives the sources of mixtures.
        epochs: Epochs of the whole training.
    """

    def __init__(
        self,
        folder: Path,
        shown: EvaluationSet,
        separate: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]],
        epochs: int,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.shown = shown
        self.separate = separate
        self.every = max(1, epochs // 10)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        audio, sources = self.shown.audio, self.separate(self.shown.mixtures)
        figure = figures.separation(self.shown.mixtures, sources, audio=audio)
        writer = tf.summary.create_file_writer(str(self.folder))
        with writer.as_default(step=epoch + 1):
            tf.summary.image("separation", figures.to_array(figure)[np.newaxis])
            if audio is not None:
                waveforms = domain_of(audio).judged("vaem", sources, self.shown)[0]
                heard = {f"source {k + 1}": waveforms[:, k] for k in range(waveforms.shape[1])}
                for name, sounds in ({"mixture": waveforms.sum(axis=1)} | heard).items():
                    channels = sounds[: figures.SPECTROGRAMS, :, np.newaxis]
                    tf.summary.audio(name, channels, round(audio.sample_rate), max_outputs=len(channels))
        writer.close()


class ProgressBar(keras.callbacks.Callback):
    """One progress bar over all phases: phase, epoch, mixtures per second and the time left.

    It is passed to the `fit` of each phase in turn.

    Args:
        plan: The phases of the training.
        epochs_done: Epochs before a resume.
        quiet: Whether to print one plain line an epoch instead.
        rates: Mixtures per second of the phases whose speed is known; what a phase is found to take replaces it.
    """

    def __init__(self, plan: Sequence[PlannedPhase], epochs_done: int, quiet: bool, rates: Mapping[str, float]) -> None:
        super().__init__()
        self.plan = plan
        self.quiet = quiet
        self.epochs = sum(planned.epochs for planned in plan)
        self.rates = dict(rates)
        self.seconds, self.mixtures = 0.0, 0
        self.between_epochs = 0.0
        self.called: float | None = None
        done = sum(min(max(epochs_done - p.first_epoch, 0), p.epochs) * p.mixtures_per_epoch for p in plan)
        self.bar = tqdm.tqdm(
            total=sum(planned.num_mixtures for planned in plan),
            initial=done,
            disable=quiet,
            bar_format="{desc} {percentage:3.0f}%|{bar}|{postfix}",
        )

    def begin(self, planned: PlannedPhase) -> None:
        """Says which phase the next `fit` is of."""
        self.planned = planned
        self.phase_seconds, self.phase_mixtures = 0.0, 0
        self.compiling = True
        self.called = None
        self.bar.set_description(planned.title)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        if self.called is not None:  # what follows an epoch: validation, a backup, pictures
            self.between_epochs = now - self.called
        self.steps_seen = 0
        self.called = now

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        assert self.called is not None
        now = time.perf_counter()
        mixtures = (batch + 1 - self.steps_seen) * self.planned.phase.batch_size
        self.steps_seen = batch + 1
        if self.compiling:  # the first call of a phase compiles
            self.compiling = False
        else:
            self.phase_seconds += now - self.called
            self.phase_mixtures += mixtures
            self.seconds += now - self.called
            self.mixtures += mixtures
            self.rates[self.planned.phase.name] = self.phase_mixtures / max(self.phase_seconds, 1e-9)
        self.called = now
        self.bar.update(mixtures)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if math.isnan((logs or {}).get("loss", 0.0)):
            return
        scores = {name: value for name, value in (logs or {}).items() if name in _SHOWN}
        shown = "  ".join(f"{name} {value:.{_SHOWN[name]}f}" for name, value in scores.items())
        rate = self.rates.get(self.planned.phase.name, 0.0)
        left = self._seconds_left(epoch + 1)
        told = f"epoch {epoch + 1}/{self.epochs}  {shown}  {rate:,.0f} mixtures/s"
        if left is not None:
            told += f"  {math.ceil(left / 60)} min left"
        if self.quiet:
            print(f"{self.planned.title}  {told}", flush=True)
        else:
            self.bar.set_postfix_str(told)

    def _seconds_left(self, epochs_done: int) -> float | None:
        rate = self.rates.get(self.planned.phase.name)
        if not rate:
            return None
        left = self.between_epochs * (self.epochs - epochs_done)
        for planned in self.plan:
            epochs = planned.first_epoch + planned.epochs - max(epochs_done, planned.first_epoch)
            mixtures = max(epochs, 0) * planned.mixtures_per_epoch
            left += mixtures / self.rates.get(planned.phase.name, rate)
        return left

    def close(self) -> None:
        """Ends the bar."""
        self.bar.close()

    @property
    def mixtures_per_second(self) -> float:
        """Mixtures per second in all calls but those that compile; 0 before the first."""
        return self.mixtures / self.seconds if self.seconds else 0.0
