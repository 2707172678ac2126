"""Which numbers a machine computes in fast."""

import functools
import time
from pathlib import Path

import tensorflow as tf

from vae_bss_tf.config import Preset
from vae_bss_tf.phases import Phase

_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_LEAST_GPU = (8, 0)  # compute capability of the first GPUs with bfloat16
_TRIES = 8


def resolved_precision(name: str) -> str:
    """Says which dtype policy a phase is trained with.

    Args:
        name: One of `phases.PRECISIONS`.

    Returns:
        Keras' name of the policy: for "auto", "mixed_bfloat16" where the GPU computes in bfloat16 or the processor
        does so faster than in float32, and "float32" elsewhere.
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
    return "mixed_bfloat16" if _CPU_FLAGS & flags and faster_in_bfloat16() else "float32"


@functools.cache
def faster_in_bfloat16() -> bool:
    """Measures whether the processor convolves faster in bfloat16 than in float32.

    A flag does not tell: on a processor with AVX-512's bfloat16 and no AMX, mask networks learned in bfloat16 at 0.6
    times the speed of float32.

    Returns:
        Whether a convolution as a mask network has takes less time in bfloat16, in the best of a few tries each.
    """
    with tf.device("CPU"):
        images = tf.random.stateless_normal([16, 28, 28, 64], [0, 0])
        kernel = tf.random.stateless_normal([3, 3, 64, 64], [0, 1])
        operands = {dtype: (tf.cast(images, dtype), tf.cast(kernel, dtype)) for dtype in ("float32", "bfloat16")}
        seconds: dict[str, list[float]] = {dtype: [] for dtype in operands}
        for _ in range(_TRIES):
            for dtype, (values, weights) in operands.items():
                started = time.perf_counter()
                tf.nn.conv2d(values, weights, strides=1, padding="SAME").numpy()
                seconds[dtype].append(time.perf_counter() - started)
    return min(seconds["bfloat16"]) < min(seconds["float32"])


def with_resolved_precision(preset: Preset, stored: Preset | None = None) -> Preset:
    """Says which dtype policy each phase is trained with.

    Args:
        preset: The settings.
        stored: Those of the run that is resumed, maybe on another machine than it was begun on: it keeps its policies.

    Returns:
        The settings with what "auto" is on this machine or in the run, which a training writes down.
    """
    kept = {} if stored is None else {phase.name: phase.mixed_precision for phase in stored.recipe.phases}

    def resolved(phase: Phase) -> Phase:
        if phase.mixed_precision != "auto":
            return phase
        return phase.replace(mixed_precision=kept.get(phase.name) or resolved_precision("auto"))

    return preset.replace(recipe=preset.recipe.replace(phases=tuple(map(resolved, preset.recipe.phases))))
