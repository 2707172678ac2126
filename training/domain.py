"""What a mixture is, images or sound: which scores it is judged by and how it is drawn."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from vae_bss_tf.baselines import oracle
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets.image_mixtures import EvaluationSet

Float32 = npt.NDArray[np.float32]

_UNMASKED = ("vae", "ae")
_ORACLES = {"ibm": oracle.ideal_binary_mask, "irm": oracle.ideal_ratio_mask}


@dataclasses.dataclass(frozen=True)
class Images:
    """The domain of images."""

    kind: ClassVar[str] = "images"
    paired_score: ClassVar[str] = "psnr"

    def judged(self, system: str, outputs: Float32, truth: Any) -> tuple[Float32, Float32]:
        """The pictures as they are; arguments as `Sound.judged` takes them."""
        return outputs, truth.sources

    def upright(self, pictures: Float32) -> Float32:
        """The pictures as they are."""
        return pictures


@dataclasses.dataclass(frozen=True)
class Sound:
    """The domain of sound.

    Args:
        audio: The spectrogram's settings.
    """

    audio: AudioConfig

    kind: ClassVar[str] = "sound"
    paired_score: ClassVar[str] = "si_sdr"

    def judged(self, system: str, outputs: Float32, truth: Any) -> tuple[Float32, Float32]:
        """Waveforms, on which the ratios SI-SDR, SI-SIR and SI-SAR are taken.

        Args:
            system: What gave the outputs; those of "vae" and "ae" are magnitudes, of all others shares of the mixture.
                The oracles "ibm" and "irm" act on all of the sound's STFT, whatever the outputs.
            outputs: float32 `[num_mixtures, num_sources, *shape]`, all of a mixture's outputs.
            truth: The `AudioEvaluationSet`.

        Returns:
            The outputs, float32 `[num_mixtures, num_sources, num_samples]`, and the true sources, float32
            `[num_mixtures, max_mixed, num_samples]`.
        """
        if system in _ORACLES:
            return truth.oracle_waveforms(_ORACLES[system]), truth.source_waveforms
        to_waveforms = truth.decoded_waveforms if system in _UNMASKED else truth.masked_waveforms
        return to_waveforms(outputs), truth.source_waveforms

    def upright(self, pictures: Float32) -> Float32:
        """Turns `[..., frames, bins]` into `[..., bins, frames]`, the lowest bin last."""
        return pictures.swapaxes(-1, -2)[..., ::-1, :]


def domain_of(audio: AudioConfig | None) -> Images | Sound:
    """Returns the domain that a preset's audio settings name: images where there are none."""
    return Images() if audio is None else Sound(audio)


def audio_of(truth: EvaluationSet) -> AudioConfig | None:
    """Returns the spectrogram's settings of test mixtures; None for images."""
    return getattr(truth, "audio", None)
