"""The formats an export can hold: their files, and how far each may be from the model."""

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterable, Iterator
from typing import Any

from vae_bss_tf.checks import check_choice
from vae_bss_tf.errors import ConfigError, VaeBssError


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
        waveform: Whether it takes waveforms and gives waveforms, the transform inside; for models of audio only.

    Example:
        >>> FORMATS["tflite_float32"].path
        'float32.tflite'
    """

    name: str
    path: str
    description: str
    max_error: float | None
    max_change_db: float
    waveform: bool = False


_FLOAT32: dict[str, Any] = {"max_error": 1e-5, "max_change_db": 0.01}
_FLOAT16: dict[str, Any] = {"max_error": 5e-3, "max_change_db": 0.01}
_INT8: dict[str, Any] = {"max_error": None, "max_change_db": 0.3}
_FULL_INT8: dict[str, Any] = {"max_error": None, "max_change_db": 1.0}

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
            **_INT8,
        ),
        Format(
            "tflite_full_int8",
            "full_int8.tflite",
            "LiteRT, int8 weights and activations, sigmoid and mask in float32",
            **_FULL_INT8,
        ),
        Format("onnx_float32", "float32.onnx", "onnxruntime, exact", **_FLOAT32),
        Format("onnx_int8", "int8.onnx", "onnxruntime, int8 weights, activations quantised as they come", **_INT8),
        Format("saved_model_waveform", "saved_model_waveform/1", "TensorFlow, waveforms", **_FLOAT32, waveform=True),
        Format("tflite_waveform", "waveform.tflite", "LiteRT, waveforms", **_FLOAT32, waveform=True),
        Format(
            "tflite_waveform_float16",
            "waveform_float16.tflite",
            "LiteRT, waveforms, the network of half precision",
            **_FLOAT16,
            waveform=True,
        ),
        Format("onnx_waveform", "waveform.onnx", "onnxruntime, waveforms", **_FLOAT32, waveform=True),
    )
}


_LIBRARIES = {
    "tflite": ("ai_edge_quantizer", "ai_edge_litert"),
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
}


def check_libraries(names: Iterable[str]) -> None:
    """Refuses formats whose libraries are not installed, before anything is computed.

    Args:
        names: Of formats, which begin with their kind: "saved_model", "tflite" or "onnx".

    Raises:
        ModuleNotFoundError: A library is missing; `errors.explained` names the extra that brings it.
    """
    for kind in dict.fromkeys(name.split("_")[0] for name in names):
        for library in _LIBRARIES.get(kind, ()):
            if importlib.util.find_spec(library) is None:
                raise ModuleNotFoundError(f"No module named {library!r}", name=library)


def get_formats(names: Iterable[str] | None, *, audio: bool) -> list[Format]:
    """Returns formats by name, in the order of `FORMATS`.

    Args:
        names: Keys of `FORMATS`; None takes all that the model has.
        audio: Whether the model is one of audio.

    Returns:
        The formats, each once.

    Raises:
        ConfigError: A name is unknown, or a form for waveforms is wanted of a model of images.
    """
    if names is None:
        return [f for f in FORMATS.values() if audio or not f.waveform]
    wanted = {check_choice("format", name, FORMATS) for name in names}
    found = [f for name, f in FORMATS.items() if name in wanted]
    if not audio and any(f.waveform for f in found):
        raise ConfigError("the model is one of images and has no form for waveforms; leave it out of --formats.")
    return found


@contextlib.contextmanager
def failures_of(name: str) -> Iterator[None]:
    """Turns whatever a library raises into an `ExportError` that names the format."""
    try:
        yield
    except Exception as error:  # each converter raises its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{name}: {lines[0]}") from error
