"""Settings of a model, its data and its training, as frozen dataclasses, and the presets."""

import dataclasses
import difflib
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

from vae_bss_tf.errors import ConfigError

PRIORS = ("normal", "laplace")
LIKELIHOODS = ("laplace", "normal", "bernoulli")
NETWORKS = ("dense", "conv")
KL_SCHEDULES = ("constant", "linear", "cyclical", "decay")
LEARNING_RATE_SCHEDULES = ("constant", "cosine", "exponential")
COMPRESSIONS = ("power", "log")
LAPLACE_SCALE = math.sqrt(0.5)  # unit variance, as in the paper


def check_choice(name: str, value: str, choices: Iterable[str]) -> str:
    """Returns `value` when it is one of `choices`.

    Args:
        name: What the value is, for the message.
        value: The value received.
        choices: The values allowed.

    Returns:
        `value`.

    Raises:
        ConfigError: `value` is not allowed; the message names the nearest choice and all of them.
    """
    choices = tuple(choices)
    if value in choices:
        return value
    nearest = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigError(f"unknown {name} {value!r}.{hint} Choose one of: {', '.join(choices)}.")


def _check_kind(name: str, value: Any, default: Any) -> None:
    """Refuses a value of another kind than a field's default, which is what JSON and --set may bring."""
    if isinstance(default, tuple):
        kinds = (int,) if all(type(item) is int for item in default) else (int, float)
        fits = isinstance(value, tuple) and all(type(item) in kinds for item in value)
        allowed = f"{'whole ' if kinds == (int,) else ''}numbers in brackets, such as [1, 2]"
    elif isinstance(default, (bool, str)):
        fits, allowed = type(value) is type(default), "true or false" if isinstance(default, bool) else "text"
    elif isinstance(default, int):
        fits, allowed = type(value) is int, "a whole number"
    else:
        fits, allowed = type(value) in (int, float) or (value is None and default is None), "a number"
    _check(fits, name, value, allowed)


def _check(condition: bool, name: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {allowed}.")


class _Config:
    """JSON round trip and checked construction, shared by the dataclasses below."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds the settings from a mapping as `to_dict` or JSON gives it.

        Args:
            values: Field names and values; lists stand for tuples.

        Returns:
            The settings.

        Raises:
            ConfigError: A field is unknown, or a value is of another kind or out of its range.
        """
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            check_choice(f"{cls.__name__} field", name, names)
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            if field.name in given:
                _check_kind(field.name, given[field.name], field.default)
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a dictionary that JSON can hold."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def replace(self, **changes: Any) -> Self:
        """Returns a copy with some fields changed and all of them checked again."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


@dataclasses.dataclass(frozen=True)
class ModelConfig(_Config):
    """The network and its distributions (paper, section 2 and table 1).

    Attributes:
        input_shape: Shape of one mixture: `(height, width)` or `(frames, bins)`.
        num_sources: K, the number of sources the model emits; at least 1.
        latent_dim: Dimensions of one source's latent.
        hidden_units: Units of the encoder's hidden layers; the decoder mirrors them, and mirrors only the last two
            of a "conv" network.
        convolutions: Channels of each convolution (4 x 4 pixels, stride 2) before the encoder's hidden layers; of a
            "dense" network only.
        encoder_units: Units of the encoder's hidden layers where they are not `hidden_units`, which are then the
            decoder's alone; of a "dense" network only.
        corrector_convolutions: Channels of each convolution of the corrector; see `corrector_units`.
        corrector_units: Units of the hidden layers of a network that corrects each source's posterior, after its
            convolutions (see `corrector.LatentCorrector`); empty does without. It learns from remixed sources judged
            masked; `training.fit` leaves it out where there are none.
        corrector_iterations: How often the corrector corrects; at least 1. Each costs a pass of the decoder, the way
            back through it, and the corrector's own; its weights are the same ones.
        corrector_training_iterations: How often it does so in training, where each is dearer; at least 1. What it
            learned to do a few times it can do more often: the corrections become small (docs/quality.md).
        network: Kind of encoder and decoder: "dense", the paper's, or "conv" for spectrograms; see `conv_layers`.
        variational: True for a VAE; False for an AE (latent = posterior mean, no KL).
        prior: Prior of each latent dimension: "normal" N(0, 1) or "laplace" (unit variance).
        likelihood: Likelihood of a pixel given the sum of sources: "laplace", "normal" or "bernoulli".
        likelihood_scale: Scale b of the Laplace, standard deviation of the Normal; > 0, unused for Bernoulli.
        mask_exponent: Exponent of the estimates in the mask; > 0. Sources that add up are shared by their values, with
            1, the paper's; those of sound, which do not, better by their powers, with 2, as by the ideal ratio mask.
            Training remixes with 1, and judges with 1 what a mask network does not rescale.
        mask_channels: Channels at each resolution of a network that rescales the estimates before they are masked (see
            `mask_network.MaskNetwork`), each half as high and wide as the one before; empty does without. Where there
            is one it is all that is trained, by `training.fit --init`: encoder, decoder and corrector stay as they
            are, with `corrector_training_iterations`, and it learns from their remixed sources judged masked.
    """

    input_shape: tuple[int, ...] = (28, 28)
    num_sources: int = 2
    latent_dim: int = 20
    hidden_units: tuple[int, ...] = (700, 600, 500, 400, 300)
    convolutions: tuple[int, ...] = ()
    encoder_units: tuple[int, ...] = ()
    corrector_convolutions: tuple[int, ...] = ()
    corrector_units: tuple[int, ...] = ()
    corrector_iterations: int = 2
    corrector_training_iterations: int = 2
    network: str = "dense"
    variational: bool = True
    prior: str = "normal"
    likelihood: str = "laplace"
    likelihood_scale: float = LAPLACE_SCALE
    mask_exponent: float = 1.0
    mask_channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check(
            len(self.input_shape) == 2 and all(n >= 1 for n in self.input_shape),
            "input_shape",
            self.input_shape,
            "two positive sizes",
        )
        _check(self.num_sources >= 1, "num_sources", self.num_sources, "at least 1")
        _check(self.latent_dim >= 1, "latent_dim", self.latent_dim, "at least 1")
        for name in ("corrector_iterations", "corrector_training_iterations"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(
            len(self.hidden_units) >= 1 and all(n >= 1 for n in self.hidden_units),
            "hidden_units",
            self.hidden_units,
            "one or more positive sizes",
        )
        check_choice("network", self.network, NETWORKS)
        for name in ("convolutions", "encoder_units", "corrector_convolutions", "corrector_units", "mask_channels"):
            sizes = getattr(self, name)
            _check(all(n >= 1 for n in sizes), name, sizes, "positive sizes")
        for name in ("convolutions", "encoder_units"):
            sizes = getattr(self, name)
            _check(not sizes or self.network == "dense", name, sizes, 'empty for a "conv" network')
        _check(
            bool(self.corrector_units) or not self.corrector_convolutions,
            "corrector_convolutions",
            self.corrector_convolutions,
            "empty where corrector_units is",
        )
        step = 2 ** max(0, len(self.mask_channels) - 1)
        _check(
            all(n % step == 0 for n in self.input_shape),
            "mask_channels",
            self.mask_channels,
            f"so few that both sizes of input_shape, {self.input_shape}, can be halved for each but the first",
        )
        check_choice("prior", self.prior, PRIORS)
        check_choice("likelihood", self.likelihood, LIKELIHOODS)
        for name in ("likelihood_scale", "mask_exponent"):
            _check(getattr(self, name) > 0, name, getattr(self, name), "greater than 0")


@dataclasses.dataclass(frozen=True)
class DataConfig(_Config):
    """Which sources are mixed, and how.

    Attributes:
        dataset: Name of a data set, one of `datasets.DATASETS`.
        num_mixed: The counts M of sources in a mixture, drawn with equal chance; each from 1 to 4.
            Every source is scaled by 1 / max(num_mixed), the paper's (d1 + d2) / 2 for `(2,)`, so that
            a mixture stays in [0, 1] and a source has one level whatever its mixture's count.
    """

    dataset: str = "digits"
    num_mixed: tuple[int, ...] = (2,)

    def __post_init__(self) -> None:
        _check(
            len(self.num_mixed) >= 1 and all(1 <= m <= 4 for m in self.num_mixed),
            "num_mixed",
            self.num_mixed,
            "one or more counts from 1 to 4",
        )

    @property
    def max_mixed(self) -> int:
        """The largest count of sources in a mixture."""
        return max(self.num_mixed)


@dataclasses.dataclass(frozen=True)
class TrainConfig(_Config):
    """How a model is trained.

    Attributes:
        epochs: Number of epochs.
        mixtures_per_epoch: Fresh mixtures an epoch, rounded up to a whole number of compiled calls.
        batch_size: Mixtures a step, over all replicas.
        learning_rate: Adam's learning rate at the start.
        learning_rate_schedule: "constant", "cosine" (to zero at the last step) or "exponential"
            (multiplied by `learning_rate_decay` after each epoch while above `learning_rate_floor`).
        learning_rate_decay: Factor an epoch, in (0, 1], of "exponential".
        learning_rate_floor: Least learning rate of "exponential".
        kl_schedule: Course of the KL weight (beta), one of `KL_SCHEDULES`; see
            `training.schedules.KLWeightSchedule`.
        kl_weight: The weight it starts from, or rises to ("linear", "cyclical"); >= 0.
        kl_weight_end: The weight "decay" ends with; >= 0.
        kl_warmup_epochs: Epochs over which the weight first rises linearly from zero.
        kl_cycles: Number of cycles of "cyclical".
        kl_decay_start: Share of the training, in [0, 1], after which "decay" begins.
        kl_decay_end: Share of the training, in [0, 1], after which "decay" has ended.
        remix_weight: Weight of the remixed mixtures' loss beside that of the mixtures (see
            `model.MultiSourceVAE`); 0 does without them. For K of 4 or less, and even batches.
        remix_silence: Share of a mixture's energy, in [0, 1), below which a separated source is taken for silence
            before it is remixed: it teaches the outputs that a mixture does not need to stay silent.
        remix_start: Share of the training, in [0, 1], after which remixing begins: once the sources have parted.
        remix_mask_start: Share of the training, from `remix_start` to 1, after which remixed sources are judged masked
            too. Before the sources are good it does harm: the mask hides estimates that are far from any digit. From
            there on the last model is kept, before it that of the best validation ELBO.
        remix_mask_learning_rate: Learning rate, at most `learning_rate`, from which "cosine" starts anew there; 0 goes
            on with the first one.
        validation_mixtures: Fixed held-out mixtures that the ELBO is measured on after each epoch.
        steps_per_execution: Steps in one compiled call.
        jit_compile: Whether the step is compiled by XLA.
        mixed_precision: Keras' dtype policy: "float32", "mixed_bfloat16" or "mixed_float16".
        early_stopping: Epochs without a better validation ELBO before training stops, whatever stage it has reached; 0
            never stops.
        seed: Seed of initialisation, mixtures and latents; below 2**31 - 2**24.
    """

    epochs: int = 30
    mixtures_per_epoch: int = 30_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    learning_rate_schedule: str = "cosine"
    learning_rate_decay: float = 0.9998
    learning_rate_floor: float = 1e-5
    kl_schedule: str = "decay"
    kl_weight: float = 0.5
    kl_weight_end: float = 0.1
    kl_warmup_epochs: float = 0.5
    kl_cycles: int = 4
    kl_decay_start: float = 0.5
    kl_decay_end: float = 0.8
    remix_weight: float = 0.0
    remix_silence: float = 0.0
    remix_start: float = 0.3
    remix_mask_start: float = 1.0
    remix_mask_learning_rate: float = 0.0
    validation_mixtures: int = 1_000
    steps_per_execution: int = 32
    jit_compile: bool = True
    mixed_precision: str = "float32"
    early_stopping: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "mixtures_per_epoch", "batch_size", "kl_cycles", "validation_mixtures",
                     "steps_per_execution"):  # fmt: skip
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "greater than 0")
        _check(0 < self.learning_rate_decay <= 1, "learning_rate_decay", self.learning_rate_decay, "in (0, 1]")
        for name in ("learning_rate_floor", "kl_weight", "kl_weight_end", "kl_warmup_epochs", "early_stopping",
                     "seed"):  # fmt: skip
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _check(self.seed < 2**31 - 2**24, "seed", self.seed, f"below {2**31 - 2**24}")
        for name in ("remix_weight", "remix_mask_learning_rate"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _check(0 <= self.remix_silence < 1, "remix_silence", self.remix_silence, "in [0, 1)")
        _check(
            self.remix_weight == 0 or self.batch_size % 2 == 0,
            "batch_size",
            self.batch_size,
            "even for remixing, which pairs mixtures (--set train.remix_weight=0 does without)",
        )
        _check(
            0 <= self.remix_start <= self.remix_mask_start <= 1,
            "remix_start, remix_mask_start",
            (self.remix_start, self.remix_mask_start),
            "shares of the training, in order, in [0, 1]",
        )
        _check(
            0 <= self.kl_decay_start <= self.kl_decay_end <= 1,
            "kl_decay_start, kl_decay_end",
            (self.kl_decay_start, self.kl_decay_end),
            "shares of the training, in order, in [0, 1]",
        )
        check_choice("learning_rate_schedule", self.learning_rate_schedule, LEARNING_RATE_SCHEDULES)
        check_choice("kl_schedule", self.kl_schedule, KL_SCHEDULES)
        check_choice("mixed_precision", self.mixed_precision, ("float32", "mixed_bfloat16", "mixed_float16"))

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch: `mixtures_per_epoch / batch_size`, rounded up to whole compiled calls."""
        steps = math.ceil(self.mixtures_per_epoch / self.batch_size)
        calls = math.ceil(steps / self.steps_per_execution)
        return calls * min(self.steps_per_execution, steps)

    @property
    def remix_epoch(self) -> int:
        """The first epoch, from 0, with remixing; `epochs` if there is none."""
        return self._remix_epoch_after(self.remix_start)

    @property
    def remix_mask_epoch(self) -> int:
        """The first epoch, from 0, in which remixed sources are judged masked too; `epochs` if there is none."""
        return self._remix_epoch_after(self.remix_mask_start)

    def _remix_epoch_after(self, share: float) -> int:
        return math.ceil(round(share * self.epochs, 6)) if self.remix_weight else self.epochs

    @property
    def final_kl_weight(self) -> float:
        """The KL weight that the training ends with."""
        return self.kl_weight_end if self.kl_schedule == "decay" else self.kl_weight


@dataclasses.dataclass(frozen=True)
class AudioConfig(_Config):
    """How waveforms are mixed and what a model sees of them; the defaults are the paper's spectrogram.

    Attributes:
        sample_rate: Rate that the model works at, in Hz; recordings are resampled to it.
        n_fft: Length of the Fourier transform and its window, in samples; a multiple of `hop_length`.
        hop_length: Samples from one frame to the next; at most a quarter of `n_fft`.
        num_frames: Frames of one window; it holds `num_frames * hop_length` samples.
        num_bins: Frequency bins that the model sees, from 0 Hz up; at most `n_fft / 2 + 1`.
        frame_pooling: Neighbouring frames averaged into one for the model; divides `num_frames`.
        compression: "power" (magnitude to the power `power`) or "log".
        power: Exponent of "power", in (0, 1].
        gain_range_db: Each source's gain is drawn from +- this many dB; >= 0.
        max_onset: Each source starts at a random place in this first share of the window; in [0, 1).
        noise_db: Level of white background noise against the mixture's, in dB; None for none.
        pitch_shifts: Recordings to train on are heard at each of these pitches, in semitones, played faster or
            slower; validation and test hear them as they are.
    """

    sample_rate: float = 5_512.5
    n_fft: int = 512
    hop_length: int = 64
    num_frames: int = 128
    num_bins: int = 256
    frame_pooling: int = 1
    compression: str = "power"
    power: float = 1.0
    gain_range_db: float = 0.0
    max_onset: float = 0.4
    noise_db: float | None = None
    pitch_shifts: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        for name in ("sample_rate", "num_frames", "hop_length"):
            _check(getattr(self, name) > 0, name, getattr(self, name), "greater than 0")
        _check(
            self.n_fft >= 4 * self.hop_length and self.n_fft % self.hop_length == 0 and self.n_fft % 2 == 0,
            "n_fft",
            self.n_fft,
            f"even, a multiple of hop_length ({self.hop_length}) and at least four times it",
        )
        _check(
            1 <= self.num_bins <= self.num_frequencies,
            "num_bins",
            self.num_bins,
            f"from 1 to n_fft / 2 + 1 = {self.num_frequencies}",
        )
        _check(
            self.frame_pooling >= 1 and self.num_frames % self.frame_pooling == 0,
            "frame_pooling",
            self.frame_pooling,
            f"a divisor of num_frames ({self.num_frames})",
        )
        check_choice("compression", self.compression, COMPRESSIONS)
        _check(0 < self.power <= 1, "power", self.power, "in (0, 1]")
        _check(self.gain_range_db >= 0, "gain_range_db", self.gain_range_db, "0 or more")
        _check(0 <= self.max_onset < 1, "max_onset", self.max_onset, "in [0, 1)")
        _check(
            len(self.pitch_shifts) > 0 and all(abs(shift) <= 12 for shift in self.pitch_shifts),
            "pitch_shifts",
            self.pitch_shifts,
            "one or more semitones, each from -12 to 12",
        )

    @property
    def num_samples(self) -> int:
        """Samples of one window."""
        return self.num_frames * self.hop_length

    @property
    def num_frequencies(self) -> int:
        """Frequency bins of the Fourier transform."""
        return self.n_fft // 2 + 1

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Shape `(frames, bins)` of what the model sees of one window."""
        return self.num_frames // self.frame_pooling, self.num_bins


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named, complete configuration: the model, its data, its training and, for audio, its waveforms."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    audio: AudioConfig | None = None

    def __post_init__(self) -> None:
        if self.train.remix_weight:
            allowed = "at most 4; --set train.remix_weight=0 does without remixing"
            _check(self.model.num_sources <= 4, "num_sources", self.model.num_sources, allowed)
        if self.audio is not None:
            _check(
                self.model.input_shape == self.audio.feature_shape,
                "input_shape",
                self.model.input_shape,
                f"{self.audio.feature_shape}, the frames and bins that the audio settings give",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Mapping[str, Any]]) -> "Preset":
        """Builds a preset from `{"model": {...}, "data": {...}, "train": {...}}`, and `"audio"` where it has it."""
        return cls(
            ModelConfig.from_dict(values["model"]),
            DataConfig.from_dict(values["data"]),
            TrainConfig.from_dict(values["train"]),
            AudioConfig.from_dict(values["audio"]) if "audio" in values else None,
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Returns the parts as dictionaries that JSON can hold."""
        parts = {"model": self.model, "data": self.data, "train": self.train, "audio": self.audio}
        return {name: part.to_dict() for name, part in parts.items() if part is not None}

    def config_hash(self) -> str:
        """Returns a hash that changes with any setting: 16 hexadecimal digits of SHA-256."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_PAPER_TRAINING = TrainConfig(
    epochs=3_000,
    batch_size=32,
    learning_rate=2e-4,
    learning_rate_schedule="exponential",
    kl_schedule="linear",
    kl_weight=0.5,
    kl_warmup_epochs=50,
)

_IMAGE_MODEL = ModelConfig(convolutions=(24, 48), encoder_units=(400, 300))
_IMAGE_TRAINING = TrainConfig(epochs=90, kl_weight_end=0.25, remix_weight=1.0, remix_mask_start=0.6)

# Going on from a finished run, by remixing whose sources are judged masked from the start.
_CORRECTING: dict[str, Any] = {
    "learning_rate": 7e-4,
    "kl_schedule": "constant",
    "kl_warmup_epochs": 0.0,
    "remix_start": 0.0,
    "remix_mask_start": 0.0,
}

_CORRECTED_IMAGE_MODEL = _IMAGE_MODEL.replace(
    corrector_convolutions=(24, 48), corrector_units=(300,), corrector_iterations=8, corrector_training_iterations=3
)
_CORRECTED_IMAGE_TRAINING = _IMAGE_TRAINING.replace(epochs=10, kl_weight=0.25, **_CORRECTING)

# A mask network on a finished run. XLA compiles its convolutions badly inside a loop of steps.
_MASKED_IMAGE_MODEL = _CORRECTED_IMAGE_MODEL.replace(mask_channels=(16, 32, 64))
_MASKED_IMAGE_TRAINING = _CORRECTED_IMAGE_TRAINING.replace(epochs=4, learning_rate=2e-3, steps_per_execution=1)

# Squared error and a mild compression make a model of sound learn the partials of notes first; the Laplace
# likelihood on strongly compressed magnitudes spends its latents on the noise between them.
_TONES_AUDIO = AudioConfig(frame_pooling=4, power=0.7)
_TONES_MODEL = ModelConfig(
    input_shape=(32, 256),
    latent_dim=8,
    network="conv",
    hidden_units=(96, 96, 96, 96, 192, 128),
    likelihood="normal",
    likelihood_scale=0.1,
)
_TONES_TRAINING = TrainConfig(
    epochs=28,
    mixtures_per_epoch=10_000,
    batch_size=32,
    learning_rate=7e-4,
    kl_weight_end=0.2,
    validation_mixtures=500,
    steps_per_execution=16,
)
# Some thousand recordings are few: heard at five pitches they bear a wider network, and notes of a pitch that no
# recording of the instrument has are separated as well as those it was trained on.
_NOTES_AUDIO = _TONES_AUDIO.replace(pitch_shifts=(-2, -1, 0, 1, 2))
_NOTES_MODEL = _TONES_MODEL.replace(latent_dim=12, hidden_units=(192, 192, 192, 192, 384, 256))
_NOTES_TRAINING = _TONES_TRAINING.replace(epochs=60)
_CORRECTED_NOTES_MODEL = _NOTES_MODEL.replace(
    corrector_convolutions=(64, 128, 128), corrector_units=(256,), corrector_iterations=4, mask_exponent=2.0
)
_CORRECTED_NOTES_TRAINING = _NOTES_TRAINING.replace(epochs=10, kl_weight=0.2, remix_weight=1.0, **_CORRECTING)

PRESETS: dict[str, Preset] = {
    # The paper's image network and published settings, unchanged.
    "mnist-paper": Preset(ModelConfig(), DataConfig("mnist"), _PAPER_TRAINING),
    # That network with the settings that separate: a KL term that is strong from the start and relaxed once
    # the sources have parted, a larger learning rate that falls to zero, larger batches.
    "mnist-dense": Preset(ModelConfig(), DataConfig("mnist"), TrainConfig(epochs=120)),
    # What gave the most (docs/quality.md). Two convolutions in place of the encoder's first three hidden layers learn
    # from a quarter of the mixtures; they also learn to code both digits in one latent, so the KL weight stays higher,
    # and remixing teaches the encoder what belongs to one digit, in the end by the squared error of what is used, the
    # masked sources. The decoder is the paper's: a stronger one takes both digits.
    "mnist": Preset(_IMAGE_MODEL, DataConfig("mnist"), _IMAGE_TRAINING),
    # What a finished run of the preset that `BEGUN_FROM` names goes on to: a corrector learns to improve the latents,
    # which more epochs of the encoder, or a wider one, do far less (docs/quality.md). Sources that are not good yet
    # teach it nothing, so none of these begins anew.
    "mnist-corrected": Preset(_CORRECTED_IMAGE_MODEL, DataConfig("mnist"), _CORRECTED_IMAGE_TRAINING),
    # A source too many for pairs, added to a finished run of "mnist-corrected". For an epoch the ELBO alone teaches it
    # to stay silent; what is faint is then never exchanged.
    "mnist-corrected-k3": Preset(
        _CORRECTED_IMAGE_MODEL.replace(num_sources=3),
        DataConfig("mnist"),
        _CORRECTED_IMAGE_TRAINING.replace(remix_start=0.1, remix_mask_start=0.1, remix_silence=0.05),
    ),
    # What finished runs of those two go on to: all stays as it is, and a network learns to sharpen the estimates before
    # they are masked (docs/quality.md).
    "mnist-masked": Preset(_MASKED_IMAGE_MODEL, DataConfig("mnist"), _MASKED_IMAGE_TRAINING),
    "mnist-masked-k3": Preset(
        _MASKED_IMAGE_MODEL.replace(num_sources=3),
        DataConfig("mnist"),
        _MASKED_IMAGE_TRAINING.replace(remix_silence=0.05),
    ),
    # A source too many for pairs. Trained on pairs alone, two outputs come to share one digit; mixtures of one to three
    # digits, all at one level, teach a spare output to stay silent, and so does remixing, which takes what is faint for
    # silence. Mixtures of three give a digit the level 1/3.
    "mnist-k3": Preset(
        _IMAGE_MODEL.replace(num_sources=3),
        DataConfig("mnist", (1, 2, 3)),
        _IMAGE_TRAINING.replace(epochs=20, remix_silence=0.05),
    ),
    "fashion-mnist": Preset(ModelConfig(), DataConfig("fashion-mnist"), TrainConfig(epochs=120)),
    # The digits that ship inside scikit-learn: no download. A twelfth of MNIST's pixels bear the same KL, so its
    # weight is a fifth.
    "digits": Preset(
        ModelConfig(input_shape=(8, 8), latent_dim=10, hidden_units=(256, 192, 128)),
        DataConfig("digits"),
        TrainConfig(epochs=30, kl_weight=0.1, kl_weight_end=0.03),
    ),
    # The paper's audio network and published settings, unchanged: about 189 M parameters.
    "mums": Preset(
        ModelConfig(input_shape=(128, 256), latent_dim=64, hidden_units=(2560, 2048, 1536, 1024, 512)),
        DataConfig("notes"),
        _PAPER_TRAINING,
        AudioConfig(),
    ),
    # Compact networks on spectrograms whose frames are pooled by four.
    "tones": Preset(_TONES_MODEL, DataConfig("tones"), _TONES_TRAINING, _TONES_AUDIO),
    "notes": Preset(_NOTES_MODEL, DataConfig("notes"), _NOTES_TRAINING, _NOTES_AUDIO),
    "notes-corrected": Preset(_CORRECTED_NOTES_MODEL, DataConfig("notes"), _CORRECTED_NOTES_TRAINING, _NOTES_AUDIO),
    "notes-masked": Preset(
        _CORRECTED_NOTES_MODEL.replace(mask_channels=(8, 16, 24, 32)),
        DataConfig("notes"),
        _CORRECTED_NOTES_TRAINING.replace(epochs=8, learning_rate=2e-3, steps_per_execution=1),
        _NOTES_AUDIO,
    ),
    "nsynth": Preset(_NOTES_MODEL, DataConfig("nsynth"), _NOTES_TRAINING, _NOTES_AUDIO),
    "mixtures": Preset(
        _NOTES_MODEL, DataConfig("mixtures", (1,)), _NOTES_TRAINING, _NOTES_AUDIO.replace(max_onset=0.0)
    ),
}

# What a training of a preset goes on from: a finished run of another.
BEGUN_FROM: dict[str, str] = {
    "mnist-corrected": "mnist",
    "mnist-masked": "mnist-corrected",
    "mnist-corrected-k3": "mnist-corrected",
    "mnist-masked-k3": "mnist-corrected-k3",
    "notes-corrected": "notes",
    "notes-masked": "notes-corrected",
}


def get_preset(name: str) -> Preset:
    """Returns a preset by name.

    `mnist-paper` and `mums` are as published. What `mnist`, `mnist-k3` and `notes` change of the paper, and why
    (docs/quality.md has the figures):

    - The KL weight is at its strongest almost from the start and relaxes once the sources have parted; the paper's
      rises over 50 epochs. With a weak one a latent learns the whole mixture, and does not give it back.
    - The learning rate is 3.5 to 5 times the paper's and falls to zero along a cosine: hours in place of days.
    - `mnist`, `mnist-k3`: two convolutions in the encoder, which learn from fewer mixtures, and remixing, which teaches
      what belongs to one source, in the end by the error of the masked sources. The decoder is the paper's: a stronger
      one takes both digits. `mnist-k3` is taught by one to three digits that a spare output is to stay silent.
    - `notes`: frames pooled by four and a decoder of one spectrum times its course in place of dense layers of 189
      million weights, a milder compression, and a Normal likelihood in place of the Laplace: they learn partials
      first, not the noise between them. Each recording is heard at five pitches: some thousand of them are few.

    The presets of `BEGUN_FROM` go on from these: "corrected" adds a network that improves the latents, "masked" one
    that makes the masks.

    Args:
        name: A key of `PRESETS`.

    Returns:
        The preset.

    Raises:
        ConfigError: There is no such preset; the message names the nearest.
    """
    return PRESETS[check_choice("preset", name, PRESETS)]
