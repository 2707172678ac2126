"""Sound: waveforms that add up, seen as compressed magnitudes that do not."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vae_bss_tf.baselines import oracle
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import sound_mixtures
from vae_bss_tf.datasets.bank import SourceBank
from vae_bss_tf.datasets.image_mixtures import EvaluationSet
from vae_bss_tf.datasets.sound_mixtures import AudioEvaluationSet
from vae_bss_tf.domains.base import Float32, Float64

if TYPE_CHECKING:
    import tensorflow as tf

    from vae_bss_tf.domains.sound_remixing import SoundMixtures

_UNMASKED = ("vae", "ae")
_PHASE_SEED = (1 << 21, 0)


@dataclasses.dataclass(frozen=True)
class Sound:
    """The domain of sound; see `domains.base.Domain`.

    Args:
        audio: How waveforms are mixed and what a model sees of them.

    Example:
        >>> Sound(AudioConfig()).bank_shape((128, 256))
        (8192,)
    """

    audio: AudioConfig

    kind: ClassVar[str] = "sound"
    paired_score: ClassVar[str] = "si_sdr"

    def bank_shape(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of one source in a bank: the samples of a window."""
        return (self.audio.num_samples,)

    def training_mixtures(
        self, bank: SourceBank, *, num_mixed: Sequence[int], batch_size: int, seed: int, start_step: int
    ) -> "tf.data.Dataset":
        """Endless batches of the spectrograms of mixtures; see `datasets.sound_mixtures.training_mixtures`."""
        return sound_mixtures.training_mixtures(
            bank, self.audio, num_mixed=num_mixed, batch_size=batch_size, seed=seed, start_step=start_step
        )

    def evaluation_mixtures(
        self, bank: SourceBank, *, num_mixed: Sequence[int], num_mixtures: int, seed: int, gain: float
    ) -> AudioEvaluationSet:
        """A fixed set of mixtures with their sources; spectrograms have a largest value of 1 whatever the gain."""
        return sound_mixtures.evaluation_mixtures(
            bank, self.audio, num_mixed=num_mixed, num_mixtures=num_mixtures, seed=seed
        )

    def exchangeable(self, sources: "tf.Tensor", mixture: "tf.Tensor") -> "tf.Tensor":
        """Magnitudes of the sources as the mask on the mixture's STFT gives them."""
        from vae_bss_tf.domains import sound_remixing

        return sound_remixing.source_magnitudes(sources, mixture, self.audio)

    def remix(self, sources: "tf.Tensor", seed: "tf.Tensor") -> "SoundMixtures":
        """Adds sources up as STFTs of random phases; see `domains.sound_remixing.mix_sound`."""
        import tensorflow as tf

        from vae_bss_tf.domains import sound_remixing
        from vae_bss_tf.nn.sampling import replica_noise

        shape = (sources.shape[1] - 1, self.audio.num_bins, 2)
        noise = replica_noise(tf.shape(sources)[0], shape, seed + _PHASE_SEED)
        return sound_remixing.mix_sound(sources, noise, self.audio)

    def masked_log_likelihood(self, estimates: "tf.Tensor", mixed: "SoundMixtures") -> "tf.Tensor":
        """Log likelihood of each known source under each masked estimate, nats."""
        from vae_bss_tf.domains import sound_remixing

        return sound_remixing.masked_sound_log_likelihood(estimates, mixed, self.audio)

    def mask_score(self, fits: "tf.Tensor", estimates: "tf.Tensor", mixed: "SoundMixtures") -> "tf.Tensor":
        """The signal-to-distortion ratio of each masked estimate against each known source, dB; `fits` is not used."""
        from vae_bss_tf.domains import sound_remixing

        return sound_remixing.masked_sound_sdr(estimates, mixed, self.audio)

    def remixed_si_sdr(self, separated: Float32, mixed: "SoundMixtures") -> Float64:
        """SI-SDR of the masked STFTs, float64 `[batch, num_outputs, num_sources (known)]`, dB."""
        from vae_bss_tf.domains import sound_remixing

        return np.asarray(sound_remixing.masked_sound_si_sdr(separated, mixed, self.audio), np.float64)

    def judged(self, system: str, outputs: Float32, truth: EvaluationSet) -> tuple[Float32, Float32]:
        """Waveforms: of masked sources by ratio masks on the STFT, of others by their magnitudes as they are."""
        assert isinstance(truth, AudioEvaluationSet)
        if system in oracle.MASKS:
            return truth.oracle_waveforms(oracle.MASKS[system]), truth.source_waveforms
        to_waveforms = truth.decoded_waveforms if system in _UNMASKED else truth.masked_waveforms
        return to_waveforms(outputs), truth.source_waveforms

    def upright(self, pictures: Float32) -> Float32:
        """Turns `[..., frames, bins]` into `[..., bins, frames]`, the lowest bin last."""
        return pictures.swapaxes(-1, -2)[..., ::-1, :]
