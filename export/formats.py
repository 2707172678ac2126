"""The formats an export can hold: their files, and how far each may be from the model."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

from vae_bss_tf.config import check_choice
from vae_bss_tf.errors import VaeBssError


class ExportError(VaeBssError):
    """A format cannot be written, does not run in its runtime, or differs from the model."""


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        name: Its name in commands and in the manifest.
        path: Its file or folder inside the export.
        description: What it is for, in a few words.
        max_error: Largest absolute difference from the model that an output may have; None for int8, whose
            weights are compared one by one instead.
        max_change_db: Largest change of the mean SI-SDR and of the mean PSNR, in dB.
    """

    name: str
    path: str
    description: str
    max_error: float | None
    max_change_db: float


_FLOAT32 = {"max_error": 1e-5, "max_change_db": 0.01}
_FLOAT16 = {"max_error": 5e-3, "max_change_db": 0.01}

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("saved_model", "saved_model/1", "TensorFlow, TensorFlow Serving", **_FLOAT32),
        Format("tflite_float32", "float32.tflite", "LiteRT, exact", **_FLOAT32),
        Format("tflite_float16", "float16.tflite", "LiteRT, half the size, phones' GPUs", **_FLOAT16),
        Format(
            "tflite_dynamic_int8",
            "dynamic_int8.tflite",
            "LiteRT, int8 weights, activations quantised as they come",
            max_error=None,
            max_change_db=0.3,
        ),
        Format(
            "tflite_full_int8",
            "full_int8.tflite",
            "LiteRT, int8 weights and activations, sigmoid and mask in float32",
            max_error=None,
            max_change_db=1.0,
        ),
        Format("onnx_float32", "float32.onnx", "onnxruntime, exact", **_FLOAT32),
        Format(
            "onnx_int8",
            "int8.onnx",
            "onnxruntime, int8 weights, activations quantised as they come",
            max_error=None,
            max_change_db=0.3,
        ),
    )
}


def get_formats(names: Iterable[str]) -> list[Format]:
    """Returns formats by name, in the order of `FORMATS`.

    Args:
        names: Keys of `FORMATS`.

    Returns:
        The formats, each once.

    Raises:
        ConfigError: A name is unknown.
    """
    wanted = {check_choice("format", name, FORMATS) for name in names}
    return [f for name, f in FORMATS.items() if name in wanted]


@contextlib.contextmanager
def failures_of(name: str) -> Iterator[None]:
    """Turns whatever a library raises into an `ExportError` that names the format."""
    try:
        yield
    except Exception as error:  # each converter raises its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{name}: {lines[0]}") from error
