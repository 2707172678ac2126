"""Which numbers a machine computes in fast."""

from pathlib import Path

import tensorflow as tf

from vae_bss_tf.config import Preset

_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_LEAST_GPU = (8, 0)  # compute capability of the first GPUs with bfloat16


def resolved_precision(name: str) -> str:
    """Says which dtype policy a phase is trained with.

    Args:
        name: One of `phases.PRECISIONS`.

    Returns:
        Keras' name of the policy: for "auto", "mixed_bfloat16" where the GPU or the processor computes in bfloat16
        and "float32" elsewhere.
    """
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if tuple(capability) >= _LEAST_GPU else "float32"
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        flags = set()
    return "mixed_bfloat16" if _CPU_FLAGS & flags else "float32"


def with_resolved_precision(preset: Preset) -> Preset:
    """Says which dtype policy each phase is trained with.

    Args:
        preset: The settings.

    Returns:
        The settings with what "auto" is on this machine, which a training writes down.
    """
    phases = preset.recipe.phases
    resolved = [phase.replace(mixed_precision=resolved_precision(phase.mixed_precision)) for phase in phases]
    return preset.replace(recipe=preset.recipe.replace(phases=tuple(resolved)))
