"""Microphone and headphones, through PortAudio (the library sounddevice)."""

import dataclasses
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.live.resampling import Resampler

Array = npt.NDArray[np.float32]

_CHECK_SECONDS = 0.2


@dataclasses.dataclass
class Health:
    """What a running stream counts.

    Attributes:
        underruns: Times that the headphones had to wait for samples, or the microphone lost some.
        error: What the separation raised, which ends the stream.
    """

    underruns: int = 0
    error: Exception | None = None


def listed() -> str:
    """The devices as PortAudio numbers them, one a line.

    Raises:
        ConfigError: sounddevice or PortAudio is not installed.
    """
    return str(_library().query_devices()) or "no sound devices"


def run(
    process: Callable[[Array], Array],
    rate: float,
    block: int,
    *,
    input_device: str | None,
    output_device: str | None,
    running: Callable[[Health], bool],
) -> Health:
    """Feeds a microphone through a function to the headphones until it is told to stop.

    Devices that do not take the rate run at their own, and are resampled.

    Args:
        process: Takes samples, float32 `[n]`, and gives what is heard, float32 `[m]`.
        rate: The function's rate, Hz.
        block: Samples that the function takes at once.
        input_device: Number or part of the name of the microphone; None takes the system's.
        output_device: The same of the headphones.
        running: Asked five times a second whether to go on.

    Returns:
        What was counted.

    Raises:
        ConfigError: sounddevice is not installed, or there is no such device.
        DataError: A device is gone.
    """
    library = _library()
    health, devices = Health(), (_named(input_device), _named(output_device))
    try:
        device_rate = _common_rate(library, devices, rate)
        size = round(block * device_rate / rate)
        down, up = Resampler(device_rate, rate), Resampler(rate, device_rate)
        heard = np.zeros(0, np.float32)

        def callback(indata: Array, outdata: Array, frames: int, _: Any, status: Any) -> None:
            nonlocal heard
            health.underruns += bool(status.output_underflow) + bool(status.input_overflow)
            try:
                heard = np.concatenate([heard, up(process(down(indata.mean(axis=1))))])
            except Exception as error:
                health.error = error
                raise library.CallbackAbort from error
            missing = frames - len(heard)
            outdata[:] = np.pad(heard[:frames], (max(missing, 0), 0))[:, None]
            heard = heard[frames:]

        with library.Stream(
            samplerate=device_rate, blocksize=size, device=devices, channels=(1, 2), dtype="float32", latency="low",
            callback=callback,
        ) as stream:  # fmt: skip
            while running(health) and health.error is None and stream.active:
                library.sleep(int(1000 * _CHECK_SECONDS))
            gone = not stream.active and health.error is None
    except (library.PortAudioError, ValueError) as error:  # ValueError where a name fits no device, or several
        raise ConfigError(f"the sound device does not open ({error}); see --list-devices.") from error
    if health.error is not None:
        raise health.error
    if gone:
        raise DataError("the sound device is gone; connect it again, or choose another by --list-devices.")
    return health


def _common_rate(library: types.ModuleType, devices: tuple[Any, Any], rate: float) -> float:
    try:
        library.check_input_settings(device=devices[0], channels=1, dtype="float32", samplerate=rate)
        library.check_output_settings(device=devices[1], channels=2, dtype="float32", samplerate=rate)
    except library.PortAudioError:
        return float(library.query_devices(devices[0], "input")["default_samplerate"])
    return rate


def _named(device: str | None) -> int | str | None:
    return int(device) if device is not None and device.isdecimal() else device


def _library() -> types.ModuleType:
    try:
        import sounddevice
    except ImportError as error:
        raise ConfigError("sound devices need sounddevice; pip install 'vae-bss-tf[live]' brings it.") from error
    except OSError as error:
        raise ConfigError(f"sounddevice finds no PortAudio ({error}); install libportaudio2.") from error
    return sounddevice
