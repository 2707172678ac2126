"""The state of a training: an interrupted one resumes from it as if nothing had happened.

Keras' `BackupAndRestore` writes in place: a kill while it writes leaves a damaged state. Here each state is a folder
that appears complete or not at all, and that carries the hash of its content and the identity of its settings and data.
There are three kinds:

phase-NNN        the model as a phase of the plan begins with it, which a resumed round's teacher is made of
epoch-NNNNN      weights and optimizer after an epoch of that phase; the last two are kept
best-NNNNN       the model of the best validation score of that phase, where the phase keeps the best one

Weights are stored by NumPy: HDF5 ends the process with a segmentation fault where the disk fills up as it writes.
"""

import math
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from training.recipe import PlannedPhase
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import parse_json, replacing_folder, sha256, write_json

LATEST = "latest"
_KEPT = 2
_WEIGHTS = "state.npz"
_DESCRIBED = ("phase", "epochs", "trained", "mixtures", "seconds", "scores")


class Progress(NamedTuple):
    """How far a training has come.

    Attributes:
        phase: Index of the phase in the plan.
        epochs: Epochs of the plan that are done or, where a phase ended early, left out.
        trained: Epochs trained.
        mixtures: Mixtures trained on.
        seconds: How long that took.
        scores: The phase's validation score after each of its epochs so far, where it has one.
        state: Folder to restore the learner from; None where the phase has only begun.
    """

    phase: int = 0
    epochs: int = 0
    trained: int = 0
    mixtures: int = 0
    seconds: float = 0.0
    scores: tuple[float, ...] = ()
    state: Path | None = None

    def after(self, epoch: int, planned: PlannedPhase) -> "Progress":
        """How far the training has come with another epoch of the phase.

        Args:
            epoch: Its index in the plan.
            planned: The phase.
        """
        more = epoch + 1 - self.epochs
        return self._replace(
            epochs=epoch + 1,
            trained=self.trained + more,
            mixtures=self.mixtures + more * planned.mixtures_per_epoch,
        )


class Backup:
    """The states of one training.

    Args:
        folder: Where they are.
        identity: Names the settings and the data that they belong to.

    Example:
        >>> Backup(Path("runs/none/backup"), "0" * 16).progress() is None
        True
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity

    @property
    def has_begun(self) -> bool:
        """Whether anything was saved yet."""
        return bool(self._states("phase"))

    def begin_phase(self, done: Progress, model: keras.Model) -> None:
        """Saves the model that a phase begins with, and removes the states of the phase before.

        Args:
            done: How far the training has come before it.
            model: The model.
        """
        self._save(f"phase-{done.phase:03d}", model, done)
        for old in (*self._states("epoch"), *self._states("best"), *self._states("phase")[:-1]):
            shutil.rmtree(old)

    def end_epoch(self, done: Progress, learner: keras.Model) -> None:
        """Saves the learner after an epoch, its optimizer included, and removes all but the last two such states.

        Of the best models those are kept that a training resumed from either of the two needs.

        Args:
            done: How far the training has come with it.
            learner: What is trained, compiled.
        """
        self._save(f"epoch-{done.epochs:05d}", learner, done)
        states = self._states("epoch")
        earlier = [best for best in self._states("best") if _number(best) <= _number(states[-_KEPT:][0])]
        for old in (*states[:-_KEPT], *earlier[:-1]):
            shutil.rmtree(old)

    def keep_best(self, phase: int, epochs: int, model: keras.Model) -> None:
        """Saves the model of the best validation score so far.

        Args:
            phase: Index of the phase in the plan.
            epochs: Epochs of the plan that are done.
            model: The model.
        """
        self._save(f"best-{epochs:05d}", model, Progress(phase, epochs))

    def progress(self, name: str = LATEST) -> Progress | None:
        """Says where a training resumes.

        Args:
            name: Folder name of a state of the current phase, `epoch-NNNNN` or `phase-NNN`, or "latest".

        Returns:
            How far it has come; None where nothing was saved yet.

        Raises:
            CheckpointError: The state is missing, damaged, or belongs to other settings or data.
        """
        begun = self._states("phase")
        if not begun:
            if name != LATEST:
                raise CheckpointError(
                    f"{self.folder} has no state {name}; start again by --force in place of --resume."
                )
            return None
        try:
            start = self._read(begun[-1])
        except CheckpointError as error:
            raise CheckpointError(f"{error}; start again by --force in place of --resume.") from error
        states = [state for state in self._states("epoch") if _number(state) > start.epochs]
        if name != LATEST and not name.startswith(("epoch-", "phase-")):
            raise CheckpointError(f"{name} is no state to resume from; {self._offer(None, [begun[-1], *states])}.")
        state = self.folder / name
        if name == LATEST:
            state = states[-1] if states else begun[-1]
        try:
            found = self._read(state)
            if found.phase != start.phase:
                raise CheckpointError(f"backup {state} belongs to an earlier phase")
        except CheckpointError as error:
            raise CheckpointError(f"{error}; {self._offer(state, [begun[-1], *states])}.") from error
        return found._replace(state=state if state.name.startswith("epoch-") else None)

    def discard_after(self, epochs: int) -> None:
        """Deletes the states of more epochs, which are trained again.

        Args:
            epochs: Whole epochs, over all phases.
        """
        for later in (*self._states("epoch"), *self._states("best")):
            if _number(later) > epochs:
                shutil.rmtree(later)

    def load_begin(self, model: keras.Model) -> None:
        """Gives a model the weights that the current phase begins with."""
        _load(model, self._states("phase")[-1])

    def load_best(self, model: keras.Model) -> None:
        """Gives a model the weights of the best validation score of the current phase, where any are saved."""
        best = self._states("best")
        if best:
            self._read(best[-1])
            _load(model, best[-1])

    def load_epoch(self, learner: keras.Model, state: Path) -> None:
        """Gives a compiled learner the weights and the optimizer of a state.

        Raises:
            CheckpointError: Another version of the package made it, whose optimizer has other variables.
        """
        learner.optimizer.build(learner.trainable_variables)
        _load(learner, state)

    def _save(self, name: str, model: keras.Model, done: Progress) -> None:
        self.folder.mkdir(exist_ok=True)
        description = {field: getattr(done, field) for field in _DESCRIBED}
        with replacing_folder(self.folder / name) as partial:
            np.savez(partial / _WEIGHTS, *map(keras.ops.convert_to_numpy, _variables(model)))
            digest = sha256(partial / _WEIGHTS)
            write_json(partial / "state.json", {**description, "identity": self.identity, "sha256": digest})

    def _states(self, kind: str) -> list[Path]:
        """The states of a kind, oldest first."""
        return sorted((path for path in self.folder.glob(f"{kind}-*") if _number(path) >= 0), key=_number)

    def _read(self, state: Path) -> Progress:
        """How far the training has come with an intact state of these settings."""
        try:
            description = parse_json((state / "state.json").read_text(encoding="utf-8"))
            intact = description["sha256"] == sha256(state / _WEIGHTS)
            own = description["identity"] == self.identity
            phase, epochs, trained, mixtures = (int(description[name]) for name in _DESCRIBED[:4])
            seconds, scores = float(description["seconds"]), tuple(map(float, description["scores"]))
            found = Progress(phase, epochs, trained, mixtures, seconds, scores)
        except FileNotFoundError as error:
            raise CheckpointError(f"backup {state} lacks {Path(error.filename).name}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"backup {state} has an unreadable state.json") from error
        if not intact:
            raise CheckpointError(f"backup {state} is damaged (its SHA-256 differs)")
        if not own:
            raise CheckpointError(f"backup {state} belongs to a training with other settings or other data")
        return found

    def _offer(self, bad: Path | None, others: list[Path]) -> str:
        for other in reversed(others):
            if other == bad:
                continue
            try:
                self._read(other)
            except CheckpointError:
                continue
            return f"an older good one is there: --resume {other.name}"
        return "start again by --force in place of --resume"


def _number(state: Path) -> int:
    """The number in the name of a state; -1 where it has none."""
    number = state.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.weights, *(model.optimizer.variables if model.compiled else ())]


def _load(model: keras.Model, state: Path) -> None:
    variables = _variables(model)
    with np.load(state / _WEIGHTS) as stored:
        values = list(stored.values())
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise CheckpointError(
            f"backup {state} was made by another version of this package, which alone can resume it; start again with "
            "--force."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class EpochBackup(keras.callbacks.Callback):
    """Saves the state after each epoch with a finite loss.

    Args:
        backup: The states of the training.
        planned: What is trained.
        done: How far the training has come before this `fit`.
        monitor: Name of the phase's validation score; None where it has none.

    Attributes:
        done: How far it has come.
    """

    def __init__(self, backup: Backup, planned: PlannedPhase, done: Progress, monitor: str | None = None) -> None:
        super().__init__()
        self.backup = backup
        self.planned = planned
        self.done = done
        self.monitor = monitor
        self.seconds_before = done.seconds

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            return
        scores = self.done.scores + ((float(logs[self.monitor]),) if self.monitor in logs else ())
        seconds = self.seconds_before + time.perf_counter() - self.began
        self.done = self.done.after(epoch, self.planned)._replace(seconds=seconds, scores=scores)
        self.backup.end_epoch(self.done, self.model)
