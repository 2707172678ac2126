"""`history.csv`: one row for each epoch of a training, over all its phases."""

import csv
import io
from pathlib import Path
from typing import Any

import keras

from training.recipe import PlannedPhase
from vae_bss_tf.files import write_text

_VALUES = ("loss", "elbo", "log_likelihood", "kl", "score")
COLUMNS = ("phase", "epoch", "mixtures", *_VALUES, *(f"val_{name}" for name in _VALUES[1:]))
_WHOLE = ("epoch", "mixtures")

Row = dict[str, Any]


def read_history(path: Path) -> list[Row]:
    """Reads `history.csv`.

    Args:
        path: The file; need not exist.

    Returns:
        A dictionary for each epoch: "phase" is text, all else a float; what a phase does not measure is missing. Files
        of release 0.1 have no "phase" and no "mixtures".
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: value if name == "phase" else float(value) for name, value in row.items() if value not in ("", "NA")}
        for row in rows
    ]


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
    """

    def __init__(self, path: Path, planned: PlannedPhase) -> None:
        super().__init__()
        self.path = path
        self.planned = planned

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        done = epoch + 1 - self.planned.first_epoch
        mixtures = self.planned.first_mixture + done * self.planned.steps_per_epoch * self.planned.phase.batch_size
        values = {name: float(value) for name, value in (logs or {}).items() if name in COLUMNS}
        past = [row for row in read_history(self.path) if row["epoch"] < epoch]
        rows = [*past, {"phase": self.planned.title, "epoch": epoch, "mixtures": mixtures}]
        rows[-1].update(values)
        write_history(self.path, rows)
