"""Non-negative matrix factorisation of one spectrogram: a spectrum and its activation over time for each source."""

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio import spectrogram
from vae_bss_tf.checks import check, check_choice, check_mixtures
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.masking import ratio_mask

Float32 = npt.NDArray[np.float32]

FLOOR = 1e-3  # -30 dB; of 1e-6 to 1e-2 the best on mixtures to train on, together with 1e-2
_UPDATES = 200
DIVERGENCES = ("itakura-saito", "kullback-leibler")


class SpectrogramNMF:
    """NMF of each mixture's spectrogram, one component a source: nothing is learned from other mixtures.

    scikit-learn's NMF, multiplicative updates, started by NNDSVD. A note is nearly one spectrum that swells and fades,
    so a component is a source and needs no grouping. The components share the mixture in proportion to what they
    model, as a Wiener filter does.

    - "itakura-saito" (Fevotte, Bertin, Durrieu 2009) models powers, lifted to at least `FLOOR` of the largest, since
      the divergence knows no zero. It weighs all levels alike, and of a recorded note most bins are noise.
    - "kullback-leibler" models magnitudes.

    Args:
        audio: How the spectrograms are compressed.
        num_sources: K, at least 1.
        divergence: One of `DIVERGENCES`.

    Raises:
        ConfigError: The divergence is another, or `num_sources` is below 1.

    Example:
        >>> audio = AudioConfig()
        >>> mixtures = np.random.default_rng(0).uniform(size=(3, *audio.feature_shape)).astype(np.float32)
        >>> SpectrogramNMF(audio, num_sources=2).separate(mixtures).shape == (3, 2, *audio.feature_shape)
        True
    """

    def __init__(self, audio: AudioConfig, num_sources: int = 2, divergence: str = "itakura-saito") -> None:
        most = min(audio.feature_shape)
        check(1 <= num_sources <= most, "num_sources", num_sources, f"from 1 to {most} for NMF of these spectrograms")
        self.audio = audio
        self.num_sources = num_sources
        self.divergence = check_choice("divergence", divergence, DIVERGENCES)

    def separate(self, mixtures: npt.ArrayLike) -> Float32:
        """Separates mixtures.

        Args:
            mixtures: float32 `[n, frames, bins]`, compressed, in [0, 1].

        Returns:
            float32 `[n, num_sources, frames, bins]`, compressed; shares of the mixture's magnitudes that sum to them.

        Raises:
            DataError: The mixtures' shape or range is wrong.
        """
        from sklearn.decomposition import NMF

        array = check_mixtures(mixtures, self.audio.feature_shape)
        sources = np.empty((len(array), self.num_sources, *self.audio.feature_shape), np.float32)
        for i, magnitude in enumerate(spectrogram.expand(array, self.audio)):
            factorisation = NMF(
                self.num_sources,
                init="nndsvda",
                solver="mu",
                beta_loss=self.divergence,
                max_iter=_UPDATES,
                tol=0.0,
                random_state=0,
            )
            activations = factorisation.fit_transform(self._modelled(magnitude.astype(np.float64)))
            parts = activations.T[:, :, np.newaxis] * factorisation.components_[:, np.newaxis]
            sources[i] = ratio_mask(parts[np.newaxis], magnitude[np.newaxis], ops=np)[0]
        return spectrogram.compress(np.clip(sources, 0, 1), self.audio)

    def _modelled(self, magnitude: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.divergence == "kullback-leibler":
            return magnitude
        power = np.square(magnitude)
        return np.maximum(power, FLOOR * max(power.max(), spectrogram.SILENCE))
