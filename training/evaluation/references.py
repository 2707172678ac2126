"""Systems that need no trained run, on whole files whose sources are known."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training import systems
from vae_bss_tf.baselines import oracle
from vae_bss_tf.checks import check_choice
from vae_bss_tf.config import AudioConfig

Float32 = npt.NDArray[np.float32]
Separate = Callable[[Float32, Any, Float32], Float32]
"""Takes a mixture, `[channels, samples]` or a picture, its form (with the sample rate last for sound), and its true
sources `[num_sources, ...]`, which only an oracle uses; returns `[num_outputs, ...]`."""


def mixture_itself(mixture: Float32, form: Any, sources: Float32) -> Float32:
    """The mixture in place of each source: what no separation scores."""
    return np.stack([mixture] * len(sources))


def of_model(model: Any, audio: AudioConfig | None, run: Path | None = None) -> Separate:
    """Separates with a model, pictures at once and recordings of any length by `Separator`.

    Args:
        model: Anything with the `separate` of `MultiSourceVAE`.
        audio: The settings of its spectrograms; None for a model of pictures.
        run: The folder of its run, whose context network corrects recordings; None takes none.
    """
    if audio is None:
        return lambda mixture, form, sources: model.separate(mixture[np.newaxis])[0]
    from vae_bss_tf.audio.context import ContextNetwork
    from vae_bss_tf.audio.separator import Separator

    separator = Separator(model, audio, context=None if run is None else ContextNetwork.load(run, audio))
    return lambda mixture, form, sources: separator.separate(mixture, form[-1])


def find(name: str, audio: AudioConfig | None, num_sources: int) -> tuple[str, Separate]:
    """Returns the title of a system that needs no run, and how it separates whole files.

    NMF sees the same windows as the model beside it, joined in the same order. The oracles' masks act on the STFT of
    the whole recording, with windows that are as long as the model's.

    Args:
        name: "ibm" or "irm", and for sound "nmf" or "nmf-kl".
        audio: The settings of the spectrograms; None for pictures.
        num_sources: K of NMF.

    Raises:
        ConfigError: There is no such system, or it needs a run or training mixtures.
    """
    beside = [*oracle.MASKS, *(systems.DIVERGENCES if audio is not None else ())]
    check_choice("system for --truth", name, beside)
    title = systems.find(name, "images" if audio is None else "sound").title
    if name in oracle.MASKS:
        mask = oracle.MASKS[name]
        return title, _masked_pictures(mask) if audio is None else functools.partial(_masked_sound, mask, audio)
    from vae_bss_tf.baselines.nmf_spectrogram import SpectrogramNMF

    assert audio is not None
    return title, of_model(SpectrogramNMF(audio, num_sources, systems.DIVERGENCES[name]), audio)


def _masked_pictures(mask: oracle.Mask) -> Separate:
    return lambda mixture, form, sources: mask(mixture[np.newaxis], sources[np.newaxis])[0]


def _masked_sound(mask: oracle.Mask, audio: AudioConfig, mixture: Float32, form: Any, sources: Float32) -> Float32:
    from vae_bss_tf.audio import spectrogram

    length, rate = mixture.shape[-1], form[-1]
    hop = max(1, round(audio.hop_length * rate / audio.sample_rate))
    n_fft = hop * (audio.n_fft // audio.hop_length)
    frames = math.ceil(length / hop)
    config = AudioConfig(sample_rate=rate, n_fft=n_fft, hop_length=hop, num_frames=frames, num_bins=n_fft // 2)
    padded = [np.pad(waveform, [(0, 0), (0, config.num_samples - length)]) for waveform in (mixture, *sources)]
    spectra = [real + 1j * imaginary for real, imaginary in (spectrogram.stft(one, config) for one in padded)]
    masked = mask(spectra[0], np.stack(spectra[1:], axis=1)).swapaxes(0, 1)
    return np.stack([spectrogram.istft(one.real, one.imag, config)[:, :length] for one in masked]).astype(np.float32)
