"""`history.csv`: one row for each epoch of a training, over all its phases."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import keras

from training.backup import Progress
from training.recipe import PlannedPhase
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import write_text

_VALUES = ("loss", "elbo", "log_likelihood", "kl", "score")
COLUMNS = ("phase", "epoch", "mixtures", *_VALUES, *(f"val_{name}" for name in _VALUES[1:]), "val_remix_si_sdri")
_WHOLE = ("epoch", "mixtures")

Row = dict[str, Any]


def read_history(path: Path) -> list[Row]:
    """Reads `history.csv`.

    Args:
        path: The file; need not exist.

    Returns:
        A dictionary for each epoch: "phase" is text, all else a float; what a phase does not measure is missing. Files
        of release 0.1 have no "phase" and no "mixtures".

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_values(row) for row in csv.DictReader(file, strict=True)]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, csv.Error) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); it is damaged: remove it, and what is resumed writes the rest of it."
        ) from error
    return rows


def _values(row: dict[str, str]) -> Row:
    values: Row = {
        name: text if name == "phase" else float(text) for name, text in row.items() if text not in ("", "NA")
    }
    if not math.isfinite(values.get("epoch", math.nan)):
        raise ValueError("a row has no epoch")
    return values


def write_history(path: Path, rows: list[Row]) -> None:
    """Writes `history.csv`, in one move.

    Args:
        path: The file.
        rows: A dictionary for each epoch, with any of `COLUMNS`.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: int(value) if name in _WHOLE else value for name, value in row.items()})
    write_text(path, text.getvalue())


class History(keras.callbacks.Callback):
    """Adds a row to `history.csv` after each epoch.

    Args:
        path: The file.
        planned: What is trained.
        done: How far the training has come before this `fit`.
    """

    def __init__(self, path: Path, planned: PlannedPhase, done: Progress) -> None:
        super().__init__()
        self.path = path
        self.planned = planned
        self.done = done

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        mixtures = self.done.after(epoch, self.planned).mixtures
        values = {name: float(value) for name, value in (logs or {}).items() if name in COLUMNS}
        past = [row for row in read_history(self.path) if row["epoch"] < epoch]
        rows = [*past, {"phase": self.planned.title, "epoch": epoch, "mixtures": mixtures}]
        rows[-1].update(values)
        write_history(self.path, rows)
