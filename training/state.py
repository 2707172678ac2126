"""What a training with a loop of its own resumes from: one file, written after each epoch."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import parse_json, replacing

Rows = list[dict[str, float]]


def save(path: Path, variables: Iterable[Any], rows: Rows, seconds: float, checksum: int) -> None:
    """Writes a state.

    Args:
        path: The `.npz`.
        variables: Weights and the optimizer's moments, Keras variables.
        rows: The history so far.
        seconds: How long the training has taken.
        checksum: Of what it learns from.
    """
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, *map(np.asarray, variables), rows=json.dumps(rows), seconds=seconds, checksum=checksum)


def load(path: Path, variables: Iterable[Any], checksum: int) -> tuple[Rows, float]:
    """Reads a state. No code and no pickle is read.

    Args:
        path: The `.npz`.
        variables: What `save` was given; they are assigned.
        checksum: Of what is learned from now.

    Returns:
        The history and the seconds so far.

    Raises:
        CheckpointError: The state is damaged, or belongs to other recordings.
    """
    try:
        with np.load(path, allow_pickle=False) as state:
            for i, variable in enumerate(variables):
                variable.assign(state[f"arr_{i}"])
            if int(state["checksum"]) != checksum:
                raise CheckpointError(
                    f"{path.parent} learned from other recordings than there are now; bring those back, or train "
                    "anew: into another folder, or by --force."
                )
            return parse_json(str(state["rows"])), float(state["seconds"])
    except CheckpointError:
        raise
    except Exception as error:  # numpy, zipfile and Keras raise many kinds
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); it is damaged: train anew by --force."
        ) from error
