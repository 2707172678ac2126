"""Settings of a model, its data and its sound, as frozen dataclasses, and the preset that holds them all."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from vae_bss_tf import legacy
from vae_bss_tf.checks import check, check_choice
from vae_bss_tf.errors import ConfigError
from vae_bss_tf.phases import Recipe
from vae_bss_tf.settings import Settings

PRIORS = ("normal", "laplace")
LIKELIHOODS = ("laplace", "normal", "bernoulli")
NETWORKS = ("image", "spectrogram")
LAPLACE_SCALE = math.sqrt(0.5)  # unit variance, as in the paper


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
    """The network and its distributions (paper, section 2 and table 1).

    Attributes:
        input_shape: Shape of one mixture: `(height, width)`, `(height, width, channels)` for pictures in colour, or
            `(frames, bins)`.
        num_sources: K, the number of sources the model emits; at least 1.
        latent_dim: Dimensions of one source's latent.
        hidden_units: Units of the encoder's hidden layers; the decoder mirrors them, and mirrors only the last two of
            a "spectrogram" network.
        convolutions: Channels of each convolution (4 x 4 pixels, stride 2) before the encoder's hidden layers; of an
            "image" network only.
        encoder_units: Units of the encoder's hidden layers where they are not `hidden_units`, which are then the
            decoder's alone; of an "image" network only.
        upsampling: Channels before each doubling of height and width at the end of the decoder (transposed convolutions
            of 4 x 4 pixels); empty ends it in a dense layer; of an "image" network only.
        network: Kind of encoder and decoder, called after what they read: "image", the paper's, or "spectrogram".
        variational: True for a VAE; False for an AE (latent = posterior mean, no KL).
        prior: Prior of each latent dimension: "normal" N(0, 1) or "laplace" (unit variance).
        likelihood: Likelihood of a pixel given the sum of sources: "laplace", "normal" or "bernoulli".
        likelihood_scale: Scale b of the Laplace, standard deviation of the Normal; > 0, unused for Bernoulli.
        mask_exponent: Exponent of the estimates in the mask; > 0. Sources that add up, such as pixels, are shared by
            their values, with 1, the paper's; those of sound, which do not, better by their powers, with 2, as by the
            ideal ratio mask.
        mask_channels: Channels at each resolution of a network that rescales the estimates before they are masked (see
            `nn.mask_network.MaskNetwork`), each half as high and wide as the one before; empty does without.
        mask_patch: Side of the square of pixels that the finest of these resolutions takes as one; at least 1.

    Example:
        >>> ModelConfig(input_shape=(28, 28), num_sources=3).replace(latent_dim=10).latent_dim
        10
    """

    input_shape: tuple[int, ...] = (28, 28)
    num_sources: int = 2
    latent_dim: int = 20
    hidden_units: tuple[int, ...] = (700, 600, 500, 400, 300)
    convolutions: tuple[int, ...] = ()
    encoder_units: tuple[int, ...] = ()
    upsampling: tuple[int, ...] = ()
    network: str = "image"
    variational: bool = True
    prior: str = "normal"
    likelihood: str = "laplace"
    likelihood_scale: float = LAPLACE_SCALE
    mask_exponent: float = 1.0
    mask_channels: tuple[int, ...] = ()
    mask_patch: int = 1

    def __post_init__(self) -> None:
        sizes, ranks = self.input_shape, (2, 3) if self.network == "image" else (2,)
        check(len(sizes) in ranks and all(n >= 1 for n in sizes), "input_shape", sizes,
              "two positive sizes, and the channels where pictures are in colour")  # fmt: skip
        check(self.num_sources >= 1, "num_sources", self.num_sources, "at least 1")
        check(self.latent_dim >= 1, "latent_dim", self.latent_dim, "at least 1")
        check(len(self.hidden_units) >= 1, "hidden_units", self.hidden_units, "one or more positive sizes")
        check_choice("network", self.network, NETWORKS)
        for name in ("hidden_units", "convolutions", "encoder_units", "upsampling", "mask_channels"):
            sizes = getattr(self, name)
            check(all(n >= 1 for n in sizes), name, sizes, "positive sizes")
        for name in ("convolutions", "encoder_units", "upsampling"):
            sizes = getattr(self, name)
            check(not sizes or self.network == "image", name, sizes, 'empty for a "spectrogram" network')
        check(self.mask_patch >= 1, "mask_patch", self.mask_patch, "at least 1")
        step = self.mask_patch * 2 ** max(0, len(self.mask_channels) - 1) if self.mask_channels else 1
        check(
            all(n % step == 0 for n in self.input_shape[:2]),
            "mask_channels",
            self.mask_channels,
            f"so few that height and width of {self.input_shape}, over mask_patch, halve for each but the first",
        )
        check_choice("prior", self.prior, PRIORS)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        for name in ("likelihood_scale", "mask_exponent"):
            check(getattr(self, name) > 0, name, getattr(self, name), "greater than 0")


_OF_PICTURES = ("size", "channels", "max_shift", "mirror", "min_gain")  # fields for a folder of pictures alone


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Which sources are mixed, and how.

    Attributes:
        dataset: Name of a data set, one of `datasets.DATASETS`.
        num_mixed: The counts M of sources in a mixture, drawn with equal chance; each from 1 to 4.
            Every source is scaled by 1 / max(num_mixed), the paper's (d1 + d2) / 2 for `(2,)`, so that a mixture stays
            in [0, 1] and a source has one level whatever its mixture's count.
        size: Height and width that pictures of a folder ("images") are brought to; empty takes them as they are.
        channels: Channels that they are brought to: 1 for grey, 3 for colour, 0 takes them as they are.
        max_shift: Pixels that each of their mixtures to train on is moved by at most, up or down and left or right.
        mirror: Whether half of these are mirrored, left to right.
        min_gain: The least factor, in (0, 1], that these are darkened by; 1 leaves them as they are.

    Example:
        >>> DataConfig("mnist", num_mixed=(1, 2, 3)).max_mixed
        3
    """

    dataset: str = "digits"
    num_mixed: tuple[int, ...] = (2,)
    size: tuple[int, ...] = ()
    channels: int = 0
    max_shift: int = 0
    mirror: bool = False
    min_gain: float = 1.0

    def __post_init__(self) -> None:
        counts = self.num_mixed
        check(bool(counts) and all(1 <= m <= 4 for m in counts), "num_mixed", counts, "one or more counts from 1 to 4")
        fits = not self.size or (len(self.size) == 2 and all(n >= 1 for n in self.size))
        check(fits, "size", self.size, "empty, or height and width in pixels")
        check(self.channels in (0, 1, 3), "channels", self.channels, "0, 1 or 3")
        check(self.max_shift >= 0, "max_shift", self.max_shift, "0 or more pixels")
        check(0 < self.min_gain <= 1, "min_gain", self.min_gain, "in (0, 1]")
        check(self.dataset == "images" or not self.augments, "max_shift, mirror, min_gain", "given",
              'left out but for a folder of pictures, "images"')  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a dictionary that JSON can hold, those of pictures only where pictures are read."""
        values = super().to_dict()
        if self.dataset != "images":
            values = {name: value for name, value in values.items() if name not in _OF_PICTURES}
        return values

    @property
    def augments(self) -> bool:
        """Whether mixtures to train on are moved, mirrored or darkened."""
        return self.max_shift > 0 or self.mirror or self.min_gain < 1

    @property
    def max_mixed(self) -> int:
        """The largest count of sources in a mixture."""
        return max(self.num_mixed)


@dataclasses.dataclass(frozen=True)
class AudioConfig(Settings):
    """How waveforms are mixed and what a model sees of them; the defaults are the paper's spectrogram.

    Attributes:
        sample_rate: Rate that the model works at, in Hz; recordings are resampled to it.
        n_fft: Length of the Fourier transform and its window, in samples; a multiple of `hop_length`.
        hop_length: Samples from one frame to the next; at most a quarter of `n_fft`.
        num_frames: Frames of one window; it holds `num_frames * hop_length` samples.
        num_bins: Frequency bins that the model sees, from 0 Hz up; at most `n_fft / 2 + 1`.
        frame_pooling: Neighbouring frames averaged into one for the model; divides `num_frames`.
        power: Exponent that compresses the magnitudes, in (0, 1].
        gain_range_db: Each source's gain is drawn from +- this many dB; >= 0.
        max_onset: Each source starts at a random place in this first share of the window; in [0, 1).
        noise_db: Level of white background noise against the mixture's, in dB; None for none.
        pitch_shifts: Recordings to train on are heard at each of these pitches, in semitones, played faster or
            slower; validation and test hear them as they are.

    Example:
        >>> AudioConfig(sample_rate=8_000, frame_pooling=4).feature_shape
        (32, 256)
    """

    sample_rate: float = 5_512.5
    n_fft: int = 512
    hop_length: int = 64
    num_frames: int = 128
    num_bins: int = 256
    frame_pooling: int = 1
    power: float = 1.0
    gain_range_db: float = 0.0
    max_onset: float = 0.4
    noise_db: float | None = None
    pitch_shifts: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_frames", "hop_length"):
            check(getattr(self, name) > 0, name, getattr(self, name), "greater than 0")
        hop, frequencies = self.hop_length, self.num_frequencies
        fits = self.n_fft >= 4 * hop and self.n_fft % hop == 0 and self.n_fft % 2 == 0
        check(fits, "n_fft", self.n_fft, f"even, a multiple of hop_length ({hop}) and at least four times it")
        check(1 <= self.num_bins <= frequencies, "num_bins", self.num_bins, f"from 1 to n_fft / 2 + 1 = {frequencies}")
        fits = self.frame_pooling >= 1 and self.num_frames % self.frame_pooling == 0
        check(fits, "frame_pooling", self.frame_pooling, f"a divisor of num_frames ({self.num_frames})")
        check(0 < self.power <= 1, "power", self.power, "in (0, 1]")
        check(self.gain_range_db >= 0, "gain_range_db", self.gain_range_db, "0 or more")
        check(0 <= self.max_onset < 1, "max_onset", self.max_onset, "in [0, 1)")
        fits = len(self.pitch_shifts) > 0 and all(abs(shift) <= 12 for shift in self.pitch_shifts)
        check(fits, "pitch_shifts", self.pitch_shifts, "one or more semitones, each from -12 to 12")

    @property
    def num_samples(self) -> int:
        """Samples of one window."""
        return self.num_frames * self.hop_length

    @property
    def num_frequencies(self) -> int:
        """Frequency bins of the Fourier transform."""
        return self.n_fft // 2 + 1

    @property
    def highest_frequency(self) -> float:
        """What the model hears up to, in Hz."""
        return self.num_bins * self.sample_rate / self.n_fft

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Shape `(frames, bins)` of what the model sees of one window."""
        return self.num_frames // self.frame_pooling, self.num_bins


@dataclasses.dataclass(frozen=True)
class Preset:
    """A complete configuration: the model, its data, its recipe and, for sound, its waveforms.

    Attributes:
        model: The network and its distributions.
        data: What is mixed.
        recipe: How the model is trained.
        audio: The waveforms and their spectrogram; None for pictures.

    Example:
        >>> preset = get_preset("notes")
        >>> preset.replace(model=preset.model.replace(latent_dim=8)).model.latent_dim
        8
    """

    model: ModelConfig
    data: DataConfig
    recipe: Recipe
    audio: AudioConfig | None = None

    def __post_init__(self) -> None:
        for phase in self.recipe.phases:
            if phase.remixes:
                check(self.model.num_sources <= 4, "num_sources", self.model.num_sources,
                      f"at most 4 for the phase {phase.name}, which remixes")  # fmt: skip
            if phase.objective == "masked_remix":
                check(bool(self.model.mask_channels), "mask_channels", self.model.mask_channels,
                      f"given for the phase {phase.name}, which trains a mask network")  # fmt: skip
        *size, channels = (*self.model.input_shape, 1)[:3]
        fits = self.data.size in ((), tuple(size)) and self.data.channels in (0, channels)
        check(fits, "size, channels", (self.data.size, self.data.channels),
              f"those of the model's input, {self.model.input_shape}; --size and --channels set both")  # fmt: skip
        if self.audio is not None:
            shape = self.audio.feature_shape
            check(self.model.input_shape == shape, "input_shape", self.model.input_shape,
                  f"{shape}, the frames and bins that the audio settings give")  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preset":
        """Builds a preset from what `to_dict` gives, or from what earlier releases wrote (see `legacy`).

        Args:
            values: `{"model": {...}, "data": {...}, "recipe": {...}}`, and `"audio"` where it has it.

        Raises:
            ConfigError: A part is missing, or a setting is unknown, of another kind or out of its range.
        """
        values = legacy.upgraded_preset(values)
        for part in ("model", "data", "recipe"):
            if part not in values:
                raise ConfigError(f"the settings have no {part!r}; they are damaged or of another program.")
        return cls(
            ModelConfig.from_dict(values["model"]),
            DataConfig.from_dict(values["data"]),
            Recipe.from_dict(values["recipe"]),
            AudioConfig.from_dict(values["audio"]) if values.get("audio") is not None else None,
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the parts as dictionaries that JSON can hold."""
        parts = {"model": self.model, "data": self.data, "recipe": self.recipe, "audio": self.audio}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}

    def replace(self, **changes: Any) -> "Preset":
        """Returns a copy with some parts changed and all of them checked again."""
        return dataclasses.replace(self, **changes)

    def config_hash(self) -> str:
        """Returns a hash that changes with any setting: 16 hexadecimal digits of SHA-256."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
