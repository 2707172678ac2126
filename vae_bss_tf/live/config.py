"""Settings of a live separator."""

import dataclasses
import math

from vae_bss_tf.checks import check
from vae_bss_tf.settings import Settings

LATENCIES = (8.0, 16.0, 32.0, 64.0)  # ms
N_FFT = 1024  # 32 x 32, which `transform` factors
_CONTEXT_SECONDS = 2.5  # of what the network remembers, at least


@dataclasses.dataclass(frozen=True)
class LiveConfig(Settings):
    """The network, its bands and its latency.

    Attributes:
        sample_rate: Rate that the model works at, in Hz.
        latency_ms: From a sample's arrival to the same sample in the sources, in ms, when the computation takes no
            time: one of `LATENCIES`. A block is half of it.
        num_sources: K; at least 2.
        latent_dim: Dimensions of one source's latent in one frame; at least 1.
        band_channels: Channels of the four convolutions over bands, each of which halves the bands.
        channels: Units of the layers over time; at least 1.
        decoder_units: Units of the decoder's hidden layer; at least 1.
        mask_channels: Channels of the mask network at the bands' own resolution; at least 1.
        kernel_size: Frames that each convolution over time sees; at least 2.
        trace_seconds: Time constants of the moving averages of each band that the network sees, in s: up to eight,
            each from 0.001 to 100.
        low_bins: Bins from 0 Hz up that are bands of their own.
        bins_per_band: Bins of each further band; divides the rest of the 512.
        power: Exponent that compresses the magnitudes, in (0, 1].
        likelihood_scale: Standard deviation of a band's compressed magnitude given the sum of the sources; > 0.

    Example:
        >>> LiveConfig(latency_ms=32.0).hop_length
        176
    """

    sample_rate: float = 11_025.0
    latency_ms: float = 16.0
    num_sources: int = 2
    latent_dim: int = 8
    band_channels: tuple[int, ...] = (8, 16, 20, 12)
    channels: int = 96
    decoder_units: int = 48
    mask_channels: int = 8
    kernel_size: int = 5
    trace_seconds: tuple[float, ...] = (0.1, 0.6)
    low_bins: int = 192
    bins_per_band: int = 5
    power: float = 0.5
    likelihood_scale: float = 0.1

    def __post_init__(self) -> None:
        check(4_000 <= self.sample_rate <= 48_000, "sample_rate", self.sample_rate, "from 4,000 to 48,000")
        check(self.latency_ms in LATENCIES, "latency_ms", self.latency_ms, f"one of {LATENCIES}")
        fits = 5 * self.hop_length <= 2 * N_FFT
        check(fits, "latency_ms", self.latency_ms, f"at most {800 * N_FFT / self.sample_rate:.0f} at this rate")
        check(2 <= self.num_sources <= 4, "num_sources", self.num_sources, "from 2 to 4")
        fits = len(self.band_channels) == 4 and all(1 <= n <= 1024 for n in self.band_channels)
        check(fits, "band_channels", self.band_channels, "four sizes from 1 to 1,024")
        for name in ("latent_dim", "channels", "decoder_units", "mask_channels"):
            check(1 <= getattr(self, name) <= 4096, name, getattr(self, name), "from 1 to 4,096")
        check(2 <= self.kernel_size <= 16, "kernel_size", self.kernel_size, "from 2 to 16")
        fits = len(self.trace_seconds) <= 8 and all(0.001 <= seconds <= 100 for seconds in self.trace_seconds)
        check(fits, "trace_seconds", self.trace_seconds, "up to eight times from 0.001 to 100")
        rest = N_FFT // 2 - self.low_bins
        fits = 1 <= self.low_bins < N_FFT // 2 and self.bins_per_band >= 1 and rest % self.bins_per_band == 0
        check(fits, "bins_per_band", self.bins_per_band, f"a divisor of the {rest} bins above low_bins")
        check(self.num_bands % 16 == 0, "low_bins", self.low_bins, "such that 16 divides the number of bands")
        check(0 < self.power <= 1, "power", self.power, "in (0, 1]")
        check(self.likelihood_scale > 0, "likelihood_scale", self.likelihood_scale, "greater than 0")

    @property
    def hop_length(self) -> int:
        """Samples of a block, and from one frame to the next."""
        return int(self.sample_rate * self.latency_ms / 2_000)

    @property
    def num_bands(self) -> int:
        """Bands that the network sees and shares out."""
        return self.low_bins + (N_FFT // 2 - self.low_bins) // self.bins_per_band

    @property
    def dilations(self) -> tuple[int, ...]:
        """Frames from one tap of a convolution to the next, for each convolution: what they remember is 2.5 s or more.

        They grow by four from convolution to convolution, and there are three or more.
        """
        needed = _CONTEXT_SECONDS * self.sample_rate / self.hop_length
        dilations, seen = [1, 4], 1 + 5 * (self.kernel_size - 1)
        while seen < needed:
            dilations.append(4 * dilations[-1])
            seen += (self.kernel_size - 1) * dilations[-1]
        return tuple(dilations)

    @property
    def trace_decays(self) -> tuple[float, ...]:
        """What of each moving average is left after a frame, in (0, 1)."""
        return tuple(math.exp(-self.hop_length / self.sample_rate / seconds) for seconds in self.trace_seconds)

    @property
    def state_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what the model remembers of one signal, by name.

        "samples" are those that the next frame begins with, "overlap" is what is still to be added to the next block,
        "level" and "features" are of the last frame, "traces" are the bands' moving averages, and "memory_i" holds what
        each convolution over time has heard.
        """
        return {
            "samples": (N_FFT - self.hop_length,),
            "overlap": (self.num_sources - 1, self.hop_length),
            "level": (1,),
            "features": (1, self.num_bands),
            **({"traces": (len(self.trace_seconds), self.num_bands)} if self.trace_seconds else {}),
            **{f"memory_{i}": ((self.kernel_size - 1) * d, self.channels) for i, d in enumerate(self.dilations)},
        }
