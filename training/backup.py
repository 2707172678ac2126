"""The state of a training after each epoch, from which a killed one goes on as if nothing had happened.

Keras' `BackupAndRestore` writes in place: a kill while it writes leaves a damaged state. Here each state is a folder
that appears complete or not at all, carries the hash of its content and of the settings it belongs to, and the last
two are kept.
"""

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import keras

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import replacing, sha256, write_json

LATEST = "latest"
_KEPT = 2


class EpochBackup(keras.callbacks.Callback):
    """Saves weights and optimizer state after each epoch with a finite loss, and keeps the last two states.

    Args:
        folder: Where the states stand, each in its own folder `epoch-NNNNN`.
        config_hash: Hash of the settings they belong to.
        seconds: How long the training took before this `fit`.
    """

    def __init__(self, folder: Path, config_hash: str, seconds: float = 0.0) -> None:
        super().__init__()
        self.folder = folder
        self.config_hash = config_hash
        self.seconds = seconds

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        for unfinished in self.folder.glob(".partial-*"):  # of a process that was killed
            shutil.rmtree(unfinished)
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            return
        self.folder.mkdir(exist_ok=True)
        place = self.folder / f"epoch-{epoch + 1:05d}"
        if place.exists():
            shutil.rmtree(place)
        with replacing(place) as partial:
            partial.mkdir()
            weights = partial / "state.weights.h5"
            self.model.save_weights(weights)
            write_json(
                partial / "state.json",
                {
                    "epoch": epoch + 1,
                    "seconds": self.seconds + time.perf_counter() - self.began,
                    "config_hash": self.config_hash,
                    "sha256": sha256(weights),
                },
            )
        for old in _states(self.folder)[:-_KEPT]:
            shutil.rmtree(old)


def restore(model: keras.Model, folder: Path, config_hash: str, name: str = LATEST) -> tuple[int, float]:
    """Loads a state into a compiled model.

    Args:
        model: The model, built and compiled with the settings of the state.
        folder: Where the states stand.
        config_hash: Hash of the settings of this training.
        name: A state's folder name, or "latest".

    Returns:
        The number of epochs done and the seconds that they took; zeros where no state was written before the
        training ended.

    Raises:
        CheckpointError: The state is missing, damaged, or belongs to other settings.
    """
    states = _states(folder)
    if name == LATEST and not states:
        return 0, 0.0
    state = states[-1] if name == LATEST else folder / name
    problem = _problem(state, config_hash)
    if problem is not None:
        good = [other.name for other in states if other != state and _problem(other, config_hash) is None]
        offer = f"an older good one is there: --resume {good[-1]}" if good else "start again with --force"
        raise CheckpointError(f"backup {state} {problem}; {offer}.")
    model.optimizer.build(model.trainable_variables)
    model.load_weights(state / "state.weights.h5")
    for later in states:
        if later.name > state.name:
            shutil.rmtree(later)
    description = json.loads((state / "state.json").read_text(encoding="utf-8"))
    return int(description["epoch"]), float(description.get("seconds", 0.0))


def has_state(folder: Path) -> bool:
    """Whether there is a state to go on from.

    Args:
        folder: Where the states stand.
    """
    return bool(_states(folder))


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("epoch-*"))


def _problem(state: Path, config_hash: str) -> str | None:
    try:
        description = json.loads((state / "state.json").read_text(encoding="utf-8"))
        intact = description["sha256"] == sha256(state / "state.weights.h5")
        own = description["config_hash"] == config_hash
    except FileNotFoundError as error:
        return f"lacks {Path(error.filename).name}"
    except (ValueError, KeyError, TypeError):
        return "has an unreadable state.json"
    if not intact:
        return "is damaged (its SHA-256 differs)"
    return None if own else "belongs to a training with other settings"
