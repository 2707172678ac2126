"""The live separator: a multi-source VAE for each frame, causal, with all that it remembers as tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import numpy.typing as npt

from vae_bss_tf.live import transform
from vae_bss_tf.live.config import N_FFT, LiveConfig
from vae_bss_tf.live.network import BandConvolution, CausalBlock, FrameDense
from vae_bss_tf.masking import ratio_shares

State = dict[str, Any]

_HEARD = 2  # views of each band beside its moving averages: this frame's and the last one's
_FLOOR = 1e-4  # of full scale: what is quieter is silence
_LEAST_ESTIMATE = 1e-3
_SPAN = 512  # frames whose moving averages are one product
_MOST_CHANGE = 3.0  # of the logarithm of the level, from frame to frame


class Heard(NamedTuple):
    """What the encoder heard of each frame, for the masks.

    Attributes:
        views: This frame's features, the last one's and the moving averages, float32
            `[batch * frames, num_bands, views]`.
        bands: What each convolution over bands gave, float32 `[batch * frames, bands, channels]`, finest first.
        frames: float32 `[batch, frames, channels]`.
    """

    views: keras.KerasTensor
    bands: list[keras.KerasTensor]
    frames: keras.KerasTensor


class LiveVAE(keras.Model):
    """Separates blocks of a waveform as they come; the paper's VAE with posteriors for each frame.

    An encoder of causal convolutions emits K latents a frame, one shared decoder turns each into the compressed
    magnitudes of a source, and a mask network rescales them by what the encoder heard. The masks act on the spectrum
    of `transform`. The last source is what the others leave of the mixture, so the sources sum to it.

    Offline and live are one function: `step` takes any number of blocks, and gives the same in whatever portions a
    signal is cut.

    Args:
        config: The settings.

    Example:
        >>> model = LiveVAE(LiveConfig())
        >>> sources, state = model.step(np.zeros((1, 88), np.float32), model.initial_state())
        >>> sources.shape
        TensorShape([1, 2, 88])
    """

    def __init__(self, config: LiveConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        bands, channels, latent = config.num_bands, config.channels, config.latent_dim
        sizes, top = config.band_channels, config.mask_channels
        coarse = bands // 16 * sizes[-1]
        traces = len(config.trace_seconds)
        self.down = [
            BandConvolution(_HEARD + traces, sizes[0], 5, 2, name="down_0"),
            BandConvolution(sizes[0], sizes[1], 5, 2, name="down_1"),
            BandConvolution(sizes[1], sizes[2], 5, 2, name="down_2"),
            BandConvolution(sizes[2], sizes[3], 3, 2, name="down_3"),
        ]
        self.inlet = FrameDense(coarse + 1, channels, relu=True, name="inlet")
        self.blocks = [
            CausalBlock(channels, config.kernel_size, dilation, name=f"block_{i}")
            for i, dilation in enumerate(config.dilations)
        ]
        self.posterior = FrameDense(channels, 2 * config.num_sources * latent, name="posterior")
        self.decoder_hidden = FrameDense(latent, config.decoder_units, relu=True, name="decoder_hidden")
        self.decoder_head = FrameDense(config.decoder_units, bands, name="decoder_head")
        self.outlet = FrameDense(channels + config.num_sources * latent, coarse, relu=True, name="outlet")
        finer = [top, *sizes[:-1]]
        self.up = [BandConvolution(2 * sizes[i], 2 * finer[i], 3, name=f"up_{i}") for i in reversed(range(4))]
        self.mask_head = BandConvolution(
            top + 1 + config.num_sources + traces, config.num_sources, 3, relu=False, name="mask_head"
        )
        self.analysis, self.synthesis = transform.windows(config.hop_length)
        dense = [self.inlet, self.posterior, self.decoder_hidden, self.decoder_head, self.outlet]
        parts: list[keras.layers.Layer] = [*self.down, *self.blocks, *dense, *self.up, self.mask_head]
        for part in parts:
            part.build()
        self.built = True

    @property
    def num_parameters(self) -> int:
        """Number of values that training finds."""
        return sum(int(np.prod(variable.shape)) for variable in self.trainable_variables)

    def initial_state(self) -> dict[str, npt.NDArray[np.float32]]:
        """What the model remembers of one signal before the first block.

        Returns:
            Arrays of zeros by name, float32 `[1, *shape]` with the shapes of `LiveConfig.state_shapes`.
        """
        return {name: np.zeros((1, *shape), np.float32) for name, shape in self.config.state_shapes.items()}

    def spectrum(self, waveforms: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Spectrum of the frames that end at each block's end.

        Args:
            waveforms: float32 `[batch, 1024 - hop + frames * hop]`.

        Returns:
            The real and the imaginary part, each float32 `[batch, frames, 513]`.
        """
        hop = self.config.hop_length
        frames = (waveforms.shape[1] - N_FFT) // hop + 1
        places = np.arange(frames)[:, None] * hop + np.arange(N_FFT)[None, :]
        framed = waveforms if frames == 1 else keras.ops.take(waveforms, places.reshape(-1).astype(np.int32), axis=1)
        framed = keras.ops.reshape(framed, (-1, N_FFT)) * self.analysis
        shape = (-1, frames, N_FFT // 2 + 1)
        real, imaginary = transform.spectrum(framed)
        return keras.ops.reshape(real, shape), keras.ops.reshape(imaginary, shape)

    def bands(self, real: keras.KerasTensor, imaginary: keras.KerasTensor) -> keras.KerasTensor:
        """Magnitudes of the bands: of single bins at the bottom, means of several above.

        Args:
            real: float32 `[..., frames, 513]`.
            imaginary: The same shape.

        Returns:
            float32 `[..., frames, num_bands]`, >= 0.
        """
        low, per_band = self.config.low_bins, self.config.bins_per_band
        magnitude = keras.ops.sqrt(keras.ops.square(real) + keras.ops.square(imaginary))
        upper = magnitude[..., low : N_FFT // 2]
        upper = keras.ops.mean(
            keras.ops.reshape(upper, (-1, *upper.shape[1:-1], upper.shape[-1] // per_band, per_band)), axis=-1
        )
        return keras.ops.concatenate([magnitude[..., :low], upper], axis=-1)

    def scale(self, bands: keras.KerasTensor) -> keras.KerasTensor:
        """The magnitude that stands for 1 in each frame: its largest, or 1e-4 of full scale.

        Args:
            bands: float32 `[batch, frames, num_bands]`.

        Returns:
            float32 `[batch, frames, 1]`.
        """
        return keras.ops.maximum(keras.ops.max(bands, axis=-1, keepdims=True), _FLOOR)

    def compress(self, bands: keras.KerasTensor, scale: keras.KerasTensor) -> keras.KerasTensor:
        """Compressed magnitudes on a frame's scale.

        Args:
            bands: float32 `[..., frames, num_bands]`, >= 0.
            scale: float32 `[..., frames, 1]`, as `scale` gives it.

        Returns:
            float32 of the shape of `bands`, >= 0; at most 1 for the mixture that the scale is of.
        """
        return keras.ops.power(keras.ops.maximum(bands / scale, 1e-8), self.config.power)

    def encode(
        self, features: keras.KerasTensor, scale: keras.KerasTensor, state: State
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, Heard, State]:
        """Posterior of the latents of each frame, given it and the frames before.

        Args:
            features: float32 `[batch, frames, num_bands]`, as `compress` gives them.
            scale: float32 `[batch, frames, 1]`.
            state: As `initial_state` or the call before gives it: "level", "features", any "traces" and the memories.

        Returns:
            Mean and log variance, each float32 `[batch, frames, num_sources, latent_dim]`; what the encoder heard, for
            the masks; and the new state.
        """
        frames, count = features.shape[1], self.config.num_sources
        level = keras.ops.log(scale)[:, :, 0]
        change = level - _shifted(state["level"], level)
        change = keras.ops.clip(change, -_MOST_CHANGE, _MOST_CHANGE)[:, :, None]
        seen = [features, _shifted(state["features"], features)]
        new: State = {"level": level[:, -1:], "features": features[:, -1:]}
        if self.config.trace_seconds:
            traces = _moving_averages(state["traces"], features, self.config.trace_decays)
            seen += [traces[:, i] for i in range(len(self.config.trace_seconds))]
            new["traces"] = traces[:, :, -1]
        views = keras.ops.reshape(keras.ops.stack(seen, axis=-1), (-1, self.config.num_bands, len(seen)))
        hidden, passed = views, []
        for convolution in self.down:
            hidden = convolution(hidden)
            passed.append(hidden)
        coarse = keras.ops.reshape(hidden, (-1, frames, hidden.shape[1] * hidden.shape[2]))
        heard = self.inlet(keras.ops.concatenate([coarse, change], axis=-1))
        for i, block in enumerate(self.blocks):
            heard, new[f"memory_{i}"] = block(heard, state[f"memory_{i}"])
        moments = keras.ops.reshape(self.posterior(heard), (-1, frames, 2 * count, self.config.latent_dim))
        return moments[:, :, :count], moments[:, :, count:], Heard(views, passed, heard), new

    def decode(self, latents: keras.KerasTensor) -> keras.KerasTensor:
        """Source estimates from latents, each source and frame on its own.

        Args:
            latents: float32 `[..., latent_dim]`.

        Returns:
            Compressed magnitudes on the mixture's scale, float32 `[..., num_bands]`, in (0, 1).
        """
        return keras.ops.sigmoid(self.decoder_head(self.decoder_hidden(latents)))

    def masks(self, latents: keras.KerasTensor, estimates: keras.KerasTensor, heard: Heard) -> keras.KerasTensor:
        """The sources' shares of each band.

        Args:
            latents: float32 `[batch, frames, num_sources, latent_dim]`.
            estimates: float32 `[batch, frames, num_sources, num_bands]`, as `decode` gives them.
            heard: As `encode` gives it.

        Returns:
            float32 `[batch, num_sources, frames, num_bands]`, in [0, 1], of sum 1 over the sources.
        """
        config, frames = self.config, latents.shape[1]
        known = keras.ops.reshape(latents, (-1, frames, config.num_sources * config.latent_dim))
        hidden = self.outlet(keras.ops.concatenate([heard.frames, known], axis=-1))
        hidden = keras.ops.reshape(hidden, (-1, *heard.bands[-1].shape[1:]))
        for convolution, passed in zip(self.up, reversed(heard.bands), strict=True):
            hidden = convolution(keras.ops.concatenate([hidden, passed], axis=-1))
            # Twice the channels become twice the bands (sub-pixel convolution: Shi et al., CVPR 2016).
            hidden = keras.ops.reshape(hidden, (-1, 2 * hidden.shape[1], hidden.shape[2] // 2))
        estimates = keras.ops.transpose(estimates, (0, 1, 3, 2))
        flat = (-1, config.num_bands, config.num_sources)
        views = [hidden, heard.views[..., :1], keras.ops.reshape(estimates, flat)]
        if config.trace_seconds:
            views.append(heard.views[..., _HEARD:])
        logits = keras.ops.reshape(self.mask_head(keras.ops.concatenate(views, axis=-1)), (-1, frames, *flat[1:]))
        rescaled = (estimates + _LEAST_ESTIMATE) * keras.ops.sigmoid(logits)
        return ratio_shares(keras.ops.transpose(rescaled, (0, 3, 1, 2)), 2.0)

    def spread(self, masks: keras.KerasTensor) -> keras.KerasTensor:
        """Masks of bins from masks of bands.

        Args:
            masks: float32 `[..., num_bands]`.

        Returns:
            float32 `[..., 513]`.
        """
        low = self.config.low_bins
        upper = keras.ops.repeat(masks[..., low:], self.config.bins_per_band, axis=-1)
        return keras.ops.concatenate([masks[..., :low], upper, masks[..., -1:]], axis=-1)

    def step(self, samples: keras.KerasTensor, state: State) -> tuple[keras.KerasTensor, State]:
        """Separates the next blocks of a signal.

        Args:
            samples: float32 `[batch, frames * hop]`, in [-1, 1].
            state: As `initial_state` or the step before gives it.

        Returns:
            Sources, float32 `[batch, num_sources, frames * hop]`: one block behind `samples`, which they sum to then;
            and the new state.
        """
        hop, count = self.config.hop_length, self.config.num_sources
        frames = samples.shape[1] // hop
        signal = keras.ops.concatenate([state["samples"], samples], axis=1)
        real, imaginary = self.spectrum(signal)
        bands = self.bands(real, imaginary)
        scale = self.scale(bands)
        mean, _, heard, new = self.encode(self.compress(bands, scale), scale, state)
        masks = self.spread(self.masks(mean, self.decode(mean), heard)[:, : count - 1])
        flat = (-1, N_FFT // 2 + 1)
        masked_real = keras.ops.reshape(masks * real[:, None], flat)
        masked_imaginary = keras.ops.reshape(masks * imaginary[:, None], flat)
        tails = transform.signal(masked_real, masked_imaginary, 2 * hop) * self.synthesis
        tails = keras.ops.reshape(tails, (-1, count - 1, frames, 2 * hop))
        added = (
            keras.ops.concatenate([state["overlap"][:, :, None], tails[:, :, :-1, hop:]], axis=2)
            if frames > 1
            else state["overlap"][:, :, None]
        )
        first = keras.ops.reshape(tails[..., :hop] + added, (-1, count - 1, frames * hop))
        delayed = signal[:, N_FFT - 2 * hop : N_FFT - 2 * hop + frames * hop]
        last = delayed[:, None] - keras.ops.sum(first, axis=1, keepdims=True)
        new["samples"] = signal[:, frames * hop :]
        new["overlap"] = tails[:, :, -1, hop:]
        return keras.ops.concatenate([first, last], axis=1), {name: new[name] for name in state}


def _shifted(before: keras.KerasTensor, values: keras.KerasTensor) -> keras.KerasTensor:
    """The values of the frames before, `[batch, frames, ...]`, given the last of the step before."""
    if values.shape[1] == 1:
        return before
    return keras.ops.concatenate([before, values[:, :-1]], axis=1)


def _moving_averages(
    before: keras.KerasTensor, values: keras.KerasTensor, decays: Sequence[float]
) -> keras.KerasTensor:
    """What each decay leaves of the average before, and the rest of each frame's values.

    Args:
        before: float32 `[batch, decays, bands]`.
        values: float32 `[batch, frames, bands]`.
        decays: In (0, 1).

    Returns:
        float32 `[batch, decays, frames, bands]`.
    """
    bands, parts = values.shape[2], []
    rates = np.asarray(decays)[:, None, None]
    for first in range(0, values.shape[1], _SPAN):
        part = values[:, first : first + _SPAN]
        frames = part.shape[1]
        ages = np.subtract.outer(np.arange(frames), np.arange(frames))
        weights = ((1 - rates) * rates ** np.maximum(ages, 0.0) * (ages >= 0)).astype(np.float32)
        left = (rates ** (np.arange(frames) + 1.0)[:, None]).astype(np.float32)
        if frames == 1:
            added = weights * part[:, None]
        else:
            added = keras.ops.matmul(weights.reshape(-1, frames), part)
            added = keras.ops.reshape(added, (-1, len(decays), frames, bands))
        parts.append(left * before[:, :, None] + added)
        before = parts[-1][:, :, -1]
    return keras.ops.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
