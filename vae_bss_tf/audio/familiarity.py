"""How well a model knows a recording, as far as that shows without true sources.

Two signs: whether the model's estimates add up to the recording, which they do for the sounds that it was trained on
and hardly for others, and whether it separates mixtures of its own separated sources, as `metrics.consistency` asks.
Noise is explained and not separated; music of four parts is separated a little and not explained.
"""

import contextlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.files import parse_json

Array = npt.NDArray[np.float32]

MOST_WINDOWS = 128
_LIMIT_DB = 30.0
_SOUNDING = 0.01  # of the mean energy: mixtures below it are silent
_LEAST_SHARE = 0.01  # of a new mixture's energy, that a source needs to be one
_LEAST_REMIXES = 16  # new mixtures whose sources all sound: of fewer nothing is said
_BATCH = 32  # windows at once
_WORSE_DB = 3.0  # below what the model reaches on mixtures like those of its training
_SEPARATED_DB = 3.0  # of remixes: where the model reaches far more in training, what is less is no separation


class Familiarity(NamedTuple):
    """How well a model knows a recording, or the mixtures of its training.

    Attributes:
        sum_si_sdr: SI-SDR of the sum of the estimates before they are masked against the mixture, mean over windows,
            dB; None where the model has no `outputs`, and where it is not known.
        remix_si_sdri: Improvement of SI-SDR of mixtures of its own separated sources, dB, of which 0 means that nothing
            is separated; None where too few windows hold as many sources as the model gives, and where it is not known.
    """

    sum_si_sdr: float | None
    remix_si_sdri: float | None

    def doubts(self, usual: "Familiarity") -> list[str]:
        """What speaks against the model knowing a recording.

        Args:
            usual: The same of the mixtures of its training.

        Returns:
            Parts of a sentence; empty where nothing does.
        """
        found = []
        reached, expected = self.sum_si_sdr, usual.sum_si_sdr
        if reached is not None and expected is not None and reached < expected - _WORSE_DB:
            found.append("the model's estimates do not add up to it")
        least = _SEPARATED_DB if usual.remix_si_sdri is None else min(_SEPARATED_DB, usual.remix_si_sdri - _WORSE_DB)
        if self.remix_si_sdri is not None and self.remix_si_sdri < least:
            found.append("the model hardly separates new mixtures of its sources")
        return found


UNKNOWN = Familiarity(None, None)


class WindowSample:
    """Separated windows of a recording of unknown length, evenly spread over it, in constant memory.

    Example:
        >>> sample = WindowSample()
        >>> for first in range(0, 320, 32):
        ...     sample.add(np.arange(first, first + 32).reshape(32, 1, 1))
        >>> sample.windows[:4, 0, 0].tolist()
        [0, 4, 8, 12]
    """

    def __init__(self) -> None:
        self._kept: list[Array] = []
        self._stride = 1
        self._seen = 0

    def add(self, windows: Array) -> None:
        """Takes the next windows, float32 `[n, samples, num_sources]`."""
        for window in windows:
            if self._seen % self._stride == 0:
                self._kept.append(np.array(window))
            self._seen += 1
            if len(self._kept) > MOST_WINDOWS:
                self._kept = self._kept[::2]
                self._stride *= 2

    @property
    def windows(self) -> Array:
        """At most 128 of all windows so far, float32 `[windows, samples, num_sources]`; at least one was added."""
        return np.stack(self._kept)


def sum_si_sdr(mixtures: Array, outputs: Callable[[Array], dict[str, Array]], audio: AudioConfig) -> float | None:
    """How well a model's estimates add up to mixtures.

    Args:
        mixtures: float32 `[n, audio.num_samples]`.
        outputs: As `LoadedModel.outputs`.
        audio: The audio settings of the model.

    Returns:
        SI-SDR of the sum of the estimates, at the mixture's phases, in dB: the mean over mixtures that sound, and None
        where none does.
    """
    energy = np.square(mixtures, dtype=np.float64).sum(axis=1)
    mixtures = mixtures[energy > _SOUNDING * energy.mean()]
    if not len(mixtures):
        return None
    batches = [mixtures[i : i + _BATCH] for i in range(0, len(mixtures), _BATCH)]
    return float(np.concatenate([_sums_si_sdr(batch, outputs, audio) for batch in batches]).mean())


def _sums_si_sdr(
    mixtures: Array, outputs: Callable[[Array], dict[str, Array]], audio: AudioConfig
) -> npt.NDArray[np.float64]:
    features = spectrogram.features(*spectrogram.stft(mixtures, audio), audio)
    decoded = spectrogram.decode_waveforms(mixtures, outputs(features)["estimates"], audio)
    return _si_sdr(decoded.sum(axis=1), mixtures)


def remix_si_sdri(sources: Array, separate: Callable[[Array], Array]) -> float | None:
    """How well a model separates mixtures of its own separated sources.

    Windows of the first half of a recording exchange half of their sources with those of the second half, once with
    sources from the same outputs and once from different ones, so that a fixed division between the outputs, such as
    into low and high frequencies, is not taken for a separation.

    Args:
        sources: float32 `[windows, samples, num_sources]`, the windows in order of time, the sources of each in any
            order; at most four sources.
        separate: Takes mixtures, float32 `[n, samples]`, and gives sources as above.

    Returns:
        Mean improvement of SI-SDR, dB, of the worse of the two ways; None where fewer than 16 new mixtures hold sources
        that all sound, and for a model of one source.
    """
    half, num_sources = len(sources) // 2, sources.shape[2]
    given = num_sources // 2
    if not half or not given:
        return None
    first, second = (part.swapaxes(1, 2) for part in (sources[:half], sources[half : 2 * half]))
    kept, spare = first[:, given:], num_sources - given
    scores = []
    for received, left in ((second[:, :given], second[:, given:]), (second[:, spare:], second[:, :spare])):
        truth = np.concatenate([np.hstack([received, kept]), np.hstack([first[:, :given], left])])
        energy = np.square(truth, dtype=np.float64).sum(axis=2)
        truth = truth[energy.min(axis=1) > _LEAST_SHARE * energy.sum(axis=1)]
        if len(truth) < _LEAST_REMIXES:
            return None
        mixtures = truth.sum(axis=1)
        batches = [mixtures[i : i + _BATCH] for i in range(0, len(mixtures), _BATCH)]
        found = np.concatenate([separate(batch) for batch in batches]).swapaxes(1, 2)
        orders = itertools.permutations(range(num_sources))
        best = np.max([_si_sdr(found[:, order], truth).mean(axis=1) for order in map(list, orders)], axis=0)
        scores.append(float((best - _si_sdr(mixtures[:, np.newaxis], truth).mean(axis=1)).mean()))
    return min(scores)


def usual(model: Path | str) -> Familiarity:
    """Reads how well a model knows the test mixtures of its training.

    Args:
        model: As `runtime.load` takes it.

    Returns:
        The values in the `metrics.json` of the run or the export; `UNKNOWN` where there is none, and for a URL.
    """
    path = Path(model)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, StopIteration):
        found = next(folder for folder in (path, *path.parents[:2]) if (folder / "metrics.json").is_file())
        scores = parse_json((found / "metrics.json").read_text(encoding="utf-8"))["test"]["without_truth"]
        return Familiarity(float(scores["sum_si_sdr"]), float(scores["remix_si_sdri"]))
    return UNKNOWN


def _si_sdr(estimates: Array, sources: Array) -> npt.NDArray[np.float64]:
    """SI-SDR (Le Roux, Wisdom, Erdogan, Hershey 2019) over the last axis, dB in [-30, 30].

    `metrics` has it beside SI-SIR and SI-SAR, by SciPy, which the light install lacks.
    """
    estimates, sources = np.broadcast_arrays(estimates.astype(np.float64), sources)
    products = (estimates * sources).sum(axis=-1)
    target = products**2 / np.maximum(np.square(sources, dtype=np.float64).sum(axis=-1), 1e-30)
    rest = np.maximum(np.square(estimates).sum(axis=-1) - target, 0)
    decibels = 10 * np.log10(np.maximum(target, 1e-30) / np.maximum(rest, 1e-30))
    return np.asarray(np.clip(decibels, -_LIMIT_DB, _LIMIT_DB))
