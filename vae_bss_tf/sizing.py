"""The sizes of a model, from those of its data: a picture's size or the sample rate of sound."""

import math

from vae_bss_tf.checks import check
from vae_bss_tf.config import ModelConfig, Preset
from vae_bss_tf.errors import ConfigError

_SMALLEST = 8  # what the encoder's convolutions halve the longer side to, or below
_CONVOLUTIONS = (24, 48, 64)  # channels; further ones have as many as the last
_ENCODER_UNITS = (400, 300)
_DECODER_UNITS = (700, 600, 500, 400, 300)
_LARGE_SIDE = 32  # above it the decoder ends in transposed convolutions, and the mask network takes squares of pixels
_LARGE_DECODER_UNITS = (400, 300)
_LARGE_LATENT_DIM = 8
_LARGE_SCALE = 0.25  # of the Normal likelihood
_UPSAMPLING = (64, 32, 16)  # channels before the last doublings; those before have as many as the first
_RATES = (2_000.0, 96_000.0)  # Hz


def sized(input_shape: tuple[int, ...], base: ModelConfig) -> ModelConfig:
    """Makes the network for pictures of a size.

    - The encoder has as many convolutions as it takes to halve the longer side to 8 or less: two for 28 pixels, three
      for 64, four for 128.
    - The decoder is the paper's up to 32 pixels a side. For larger pictures two dense layers draw one of 8 pixels a
      side or less, which transposed convolutions double as often as the encoder halves: dense layers learned nothing of
      small objects at random places. With the Laplace likelihood the best single guess of such a picture is black, so
      larger pictures have the Normal; and a latent that is wide enough for two objects takes both, so theirs is narrow.
    - The mask network takes squares of pixels as one: of 2 pixels a side for pictures above 32 pixels, of 4 above 64,
      and so on. It has no more resolutions than height and width can be halved for; with an odd side it has one. No
      picture is padded.

    Args:
        input_shape: `(height, width)` or `(height, width, channels)`.
        base: Whatever else a model has, and the mask network for pictures of up to 32 pixels.

    Returns:
        The settings: 1.7 to 4.6 million weights of encoder and decoder for sides of 28 to 128 pixels.

    Example:
        >>> sized((64, 64, 3), ModelConfig()).convolutions
        (24, 48, 64)
    """
    height, width = input_shape[:2]
    longer = max(height, width)
    halvings = max(0, math.ceil(math.log2(longer / _SMALLEST)))
    large = longer > _LARGE_SIDE
    wanted = base.mask_patch << max(0, math.ceil(math.log2(longer / _LARGE_SIDE)))
    divisor = math.gcd(height, width)
    divisor &= -divisor  # the largest power of two in both
    patch = min(wanted, divisor)
    resolutions = (divisor // patch).bit_length()  # one more than it can be halved
    if large:
        base = base.replace(
            upsampling=(*_UPSAMPLING[:1] * (halvings - len(_UPSAMPLING)), *_UPSAMPLING),
            latent_dim=_LARGE_LATENT_DIM,
            likelihood="normal",
            likelihood_scale=_LARGE_SCALE,
        )
    return base.replace(
        input_shape=tuple(input_shape),
        convolutions=(*_CONVOLUTIONS, *_CONVOLUTIONS[-1:] * halvings)[:halvings],
        encoder_units=_ENCODER_UNITS,
        hidden_units=_LARGE_DECODER_UNITS if large else _DECODER_UNITS,
        mask_channels=base.mask_channels[:resolutions],
        mask_patch=patch,
    )


def at_sample_rate(preset: Preset, sample_rate: float) -> Preset:
    """Makes the settings for sound of another sample rate, and so of another band.

    Transform, hop and number of bins are multiplied by the power of two that is nearest to the ratio of the rates, so
    that frames and bins stay about as long and as wide in seconds and Hz, and the bins reach up to half the rate.

    Args:
        preset: Settings of a model of sound.
        sample_rate: Rate that the model shall work at, in Hz, from 2,000 to 96,000.

    Returns:
        The settings.

    Raises:
        ConfigError: The settings are of pictures, or the rate is out of its range.

    Example:
        >>> from vae_bss_tf.presets import get_preset
        >>> at_sample_rate(get_preset("mixtures"), 11_025).model.input_shape
        (8, 512)
    """
    if preset.audio is None:
        raise ConfigError("--sample-rate is for sound; leave it out for pictures.")
    least, most = _RATES
    check(least <= sample_rate <= most, "--sample-rate", sample_rate, f"from {least:,.0f} to {most:,.0f} Hz")
    audio = preset.audio
    factor = 2.0 ** round(math.log2(sample_rate / audio.sample_rate))
    n_fft, hop_length, num_bins = (int(n * factor) for n in (audio.n_fft, audio.hop_length, audio.num_bins))
    audio = audio.replace(sample_rate=sample_rate, n_fft=n_fft, hop_length=hop_length, num_bins=num_bins)
    return preset.replace(audio=audio, model=preset.model.replace(input_shape=audio.feature_shape))
