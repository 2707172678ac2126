"""The gate: every file, loaded in a fresh process by its own runtime, must say what the model says."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from export.formats import ExportError, Format, failures_of
from export.gate import int8_weights as weights
from export.gate.workers import Worker
from export.writers import onnx, tflite
from training.scores import mean_scores
from vae_bss_tf.datasets.image_mixtures import EvaluationSet

Array = npt.NDArray[np.float32]
Arrays = dict[str, Array]
Kernels = list[tuple[Array, Array]]

_SUM_ERROR = 1e-5
_ALLOWED = {
    ".tflite": (tflite.operations, tflite.ALLOWED_OPERATIONS),
    ".onnx": (onnx.operations, onnx.ALLOWED_OPERATIONS),
}


@dataclasses.dataclass(frozen=True)
class Reference:
    """What the model says about held-out mixtures, and about extreme ones after them.

    Attributes:
        held_out: Mixtures of the test split with their sources.
        mixtures: float32 `[num_mixtures, *shape]`, the held-out mixtures and then the extreme ones.
        outputs: The model's outputs for `mixtures`, by name.
        scores: Mean scores, in dB, of the model's sources for the held-out mixtures; see `mean_scores`.
        kernels: The model's weights; see `weights.kernels`.

    Example:
        >>> reference = Reference.of(separate, held_out, extreme_mixtures((28, 28)), weights.kernels(model))
        >>> report = check(FORMATS["onnx_float32"], Path("float32.onnx"), reference, work)
    """

    held_out: EvaluationSet
    mixtures: Array
    outputs: Arrays
    scores: dict[str, float]
    kernels: Kernels

    @classmethod
    def of(
        cls,
        separate: Callable[[npt.NDArray[np.float32]], Arrays],
        held_out: EvaluationSet,
        extreme: Array,
        kernels: Kernels,
    ) -> Self:
        """Runs the model on the held-out and the extreme mixtures.

        Args:
            separate: Takes mixtures and returns the model's outputs by name, `sources` among them.
            held_out: Mixtures of the test split with their sources.
            extreme: float32 `[num_extreme, *shape]`, as `extreme_mixtures` or `extreme_waveforms` gives them.
            kernels: The model's weights.
        """
        mixtures = np.concatenate([held_out.mixtures, extreme])
        outputs = {name: np.asarray(value) for name, value in separate(mixtures).items()}
        scores = mean_scores(outputs["sources"][: len(held_out.mixtures)], held_out)
        return cls(held_out, mixtures, outputs, scores, kernels)


def extreme_mixtures(shape: tuple[int, ...]) -> Array:
    """Mixtures that no data set holds.

    Args:
        shape: Shape of one mixture.

    Returns:
        float32 `[6, *shape]` in [0, 1]: silence, full scale everywhere, one full-scale value, a checkerboard,
        noise, and noise of level 1e-6.
    """
    point = np.zeros(shape)
    point[tuple(n // 2 for n in shape)] = 1
    checkerboard = np.indices(shape).sum(axis=0) % 2
    noise = np.random.default_rng(0).random(shape)
    return np.stack([np.zeros(shape), np.ones(shape), point, checkerboard, noise, 1e-6 * noise]).astype(np.float32)


def extreme_waveforms(num_samples: int) -> Array:
    """Waveforms that are no recording.

    A constant, and a sign that alternates with each sample, are not among them: the bins that a model reads then hold
    the rounding of the transform and nothing else.

    Args:
        num_samples: Samples of one.

    Returns:
        float32 `[6, num_samples]` in [-1, 1]: silence, one full-scale sample, square waves of full scale of a period of
        50 and of 4 samples, noise, and noise of level 1e-6.
    """
    time = np.arange(num_samples)
    noise = np.random.default_rng(0).uniform(-1, 1, num_samples)
    squares = [np.where(time // half % 2, 1, -1) for half in (25, 2)]
    return np.stack([0 * time, time == num_samples // 2, *squares, noise, 1e-6 * noise]).astype(np.float32)


def check(fmt: Format, path: Path, reference: Reference, work: Path) -> dict[str, Any]:
    """Holds one file against the model.

    Args:
        fmt: Its format, with the bounds.
        path: The file or folder.
        reference: What the model says.
        work: An empty folder for arrays in passing.

    Returns:
        What was measured: `operations`, `max_abs_error` and `mean_abs_error` by output,
        `scores_db`, `changes_db`, and `latency_ms`, the median of one mixture on one thread.

    Raises:
        ExportError: The file does not run, lacks an output, uses an operation outside the allow-list, or
            differs from the model by more than the format allows. The message names the format.
    """
    report = _check_operations(fmt, path)
    with Worker(path, num_threads=1, log=work / "log.txt") as worker:
        np.save(work / "mixtures.npy", reference.mixtures)
        found = worker.ask(do="outputs", mixtures=str(work / "mixtures.npy"), to=str(work / "outputs.npz"))
        if found["imported"]:
            raise ExportError(f"{fmt.name}: it needs {found['imported'][0]} to be loaded.")
        with np.load(work / "outputs.npz") as stored:
            outputs = {name: stored[name] for name in stored.files}
        report |= compare(fmt, outputs, reference)
        if fmt.max_error is None:
            weights.check_int8(fmt.name, path, reference.kernels)
        report["latency_ms"] = 1e3 * float(np.median(worker.ask(do="one", calls=200)["seconds"]))
    return report


def compare(fmt: Format, outputs: Arrays, reference: Reference) -> dict[str, Any]:
    """Compares a file's outputs with the model's; see `check`."""
    _check_shapes(fmt, outputs, reference)
    errors = {name: np.abs(outputs[name] - reference.outputs[name]) for name in reference.outputs}
    num_held_out = len(reference.held_out.mixtures)
    scores = mean_scores(outputs["sources"][:num_held_out], reference.held_out)
    changes = {name: score - reference.scores[name] for name, score in scores.items()}
    report: dict[str, Any] = {
        "max_abs_error": {name: float(error.max()) for name, error in errors.items()},
        "mean_abs_error": {name: float(error.mean()) for name, error in errors.items()},
        "scores_db": scores,
        "changes_db": changes,
    }
    sum_error = float(np.abs(outputs["sources"].sum(axis=1) - reference.mixtures).max())
    _bound(fmt, "the sources' sum differs from the mixture by", sum_error, _SUM_ERROR)
    if fmt.max_error is not None:
        for name, expected in reference.outputs.items():
            # A value above 1 has as much more rounding, so its error is relative to it.
            error = float((errors[name] / np.maximum(1, np.abs(expected))).max())
            _bound(fmt, f"{name} differs from the model by", error, fmt.max_error)
    for name, change in changes.items():
        _bound(fmt, f"{name} changes by dB", abs(change), fmt.max_change_db)
    return report


def _check_operations(fmt: Format, path: Path) -> dict[str, Any]:
    if path.suffix not in _ALLOWED:
        return {}
    list_operations, allowed = _ALLOWED[path.suffix]
    with failures_of(fmt.name):
        operations = list_operations(path)
    foreign = [name for name in operations if name not in allowed]
    if foreign:
        raise ExportError(f"{fmt.name}: {', '.join(foreign)} is not on the list of operations every runtime has.")
    return {"operations": operations}


def _check_shapes(fmt: Format, outputs: Arrays, reference: Reference) -> None:
    if set(outputs) != set(reference.outputs):
        expected_names = ", ".join(reference.outputs)
        raise ExportError(f"{fmt.name}: its outputs are {', '.join(sorted(outputs))}; expected {expected_names}.")
    for name in reference.outputs:
        found, expected = outputs[name], reference.outputs[name]
        if found.shape != expected.shape or found.dtype != np.float32:
            raise ExportError(
                f"{fmt.name}: {name} is {found.dtype} {found.shape}; the model gives float32 {expected.shape}."
            )
        if not np.isfinite(found).all():
            raise ExportError(f"{fmt.name}: {name} holds NaN or infinity.")


def _bound(fmt: Format, what: str, value: float, limit: float) -> None:
    if not value <= limit:
        raise ExportError(f"{fmt.name}: {what} {value:.3g}; at most {limit:g} is allowed. Nothing was written.")
