"""Memory that a step frees is kept for the next step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's parameters, of <malloc.h>
_THRESHOLDS = (2**31 - 1, 32 << 20)  # older releases take no block above 32 MiB


def keep_freed_memory() -> bool:
    """Tells the C library to keep the large blocks that the process frees for its next demand.

    A training step takes and frees the same few megabytes every time. By default glibc maps blocks of that size from
    the system and gives them back at once, and the processor spends its time on clearing fresh pages. What a
    command frees stays with its process until it ends. Meant for commands; a library leaves its host's memory alone.

    Returns:
        Whether the C library took the setting; False where it is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # Either setting stops glibc from adapting the other, so none is made alone.
    if not any(mallopt(_MMAP_THRESHOLD, threshold) for threshold in _THRESHOLDS):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _THRESHOLDS[0]))
