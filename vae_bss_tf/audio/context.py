"""The context network: what the seconds around tell of the sources of a recording.

A separator of short windows does not know what its sources sound like elsewhere. The context network sees 512 frames of
the recording and of its separated sources at once, twelve seconds at the presets' rate, and corrects their masks: an
instrument is told from another by its own notes before and after. It is a U-Net (Ronneberger, Fischer, Brox, MICCAI
2015) with the mean over time at its coarsest resolution. It is applied to each source on its own, so it knows no order
of the sources.

The network is defined once, on two sets of operations: `NUMPY`, by which recordings are corrected wherever the package
is installed, and those of Keras, by which it learns (`training.context`).
"""

import collections
import dataclasses
import itertools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio.overlap_add import half_sine
from vae_bss_tf.checks import check
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import CheckpointError
from vae_bss_tf.files import parse_json
from vae_bss_tf.runtime.manifest import MANIFEST
from vae_bss_tf.settings import Settings
from vae_bss_tf.weights import read_weights

Float32 = npt.NDArray[np.float32]
Array = Any  # a NumPy array or a tensor, as the operations say
Weights = Mapping[str, Array]
Item = TypeVar("Item")
Result = TypeVar("Result")

FOLDER, WEIGHTS, CONFIG, METRICS = "context", "weights.npz", "config.json", "metrics.json"
OF_A_CONTEXT = (METRICS, CONFIG, WEIGHTS, "history.csv")  # what an export holds of its run's
_FRAMES = 512  # of a spectrogram, at most
_HOPS = 4  # in a frame
_PATCH = 2  # side of the square of bins and frames that the finest resolution takes as one
_VIEWS = 4
_POWER = 0.3  # magnitudes are compressed by
_FAINT = 1e-4
_FAINTEST_ENERGY = 1e-5
_SHARPNESS = 4.0  # of what the network adds to logarithms of energies


@dataclasses.dataclass(frozen=True)
class ContextConfig(Settings):
    """Settings of a context network.

    Attributes:
        channels: Channels at each resolution, from the finest; each next one halves frames and bins. Two or more.

    Example:
        >>> ContextConfig().shapes()["head"]
        (3, 3, 24, 4)
    """

    channels: tuple[int, ...] = (24, 32, 48, 64, 96)

    MOST_CHANNELS: ClassVar[int] = 4_096

    def __post_init__(self) -> None:
        check(2 <= len(self.channels) <= 6, "channels", self.channels, "two to six numbers")
        valid = all(isinstance(n, int) and 1 <= n <= self.MOST_CHANNELS for n in self.channels)
        check(valid, "channels", self.channels, f"whole numbers from 1 to {self.MOST_CHANNELS:,}")

    @property
    def divisor(self) -> int:
        """What the numbers of frames and bins must be divisible by."""
        return _PATCH << (len(self.channels) - 1)

    def fits(self, audio: AudioConfig) -> bool:
        """Whether the network can see the spectrograms of a model with these settings."""
        return audio.n_fft % _HOPS == 0 and audio.num_bins % self.divisor == 0 and audio.num_bins <= audio.n_fft // 2

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the kernels by name; each `NAME` has a bias, `NAME_bias`, as long as its last axis."""
        finest, coarsest = self.channels[0], self.channels[-1]
        shapes: dict[str, tuple[int, ...]] = {"inlet": (3, 3, _VIEWS * _PATCH**2, finest)}
        for level, (fine, coarse) in enumerate(itertools.pairwise(self.channels)):
            shapes |= {f"down_{level}": (3, 3, fine, coarse), f"down_{level}_more": (3, 3, coarse, coarse)}
            shapes |= {f"up_{level}": (coarse, fine * 4), f"up_{level}_joined": (3, 3, 2 * fine, fine)}
        shapes |= {"mean": (coarsest, coarsest), "joined": (3, 3, 2 * coarsest, coarsest)}
        return shapes | {"more": (3, 3, coarsest, coarsest), "head": (3, 3, finest, _PATCH**2)}


def context_of(audio: AudioConfig) -> tuple[int, int]:
    """Length of a frame of the spectrograms, and of the most that the network sees at once, in samples."""
    hop = audio.n_fft // _HOPS
    return audio.n_fft, (_FRAMES + 1) * hop - audio.n_fft


def log_masks(
    weights: Weights, config: ContextConfig, mixture: Array, own: Array, others: Array, ops: types.SimpleNamespace
) -> Array:
    """The logarithms, up to a constant at each place, of the masks that share the mixture among the sources.

    Args:
        weights: As `ContextConfig.shapes` names them.
        config: The network's settings.
        mixture: Magnitudes of the mixture, float32 `[batch, 1, frames, bins]`, >= 0.
        own: Magnitudes of each source, float32 `[batch, num_sources, frames, bins]`.
        others: Magnitudes of the sum of the other sources, shaped as `own`.
        ops: `NUMPY`, or the same operations of Keras.

    Returns:
        float32, shaped as `own`; their softmax over the sources is the masks.
    """
    scale = 1 / (ops.sqrt(ops.mean(mixture * mixture, axis=(2, 3), keepdims=True)) + 1e-6)
    mixture, own, others = mixture * scale, own * scale, others * scale

    def compressed(magnitudes: Array) -> Array:
        return (magnitudes + _FAINT) ** _POWER - _POWER

    energy, rest = (ops.log(m * m + _FAINTEST_ENERGY) for m in (own, others))
    views = [compressed(mixture) + ops.zeros_like(own), compressed(own), compressed(others), 0.25 * (energy - rest)]
    num_sources, frames, bins = own.shape[1:]
    seen = ops.reshape(ops.stack(views, axis=-1), (-1, frames, bins, _VIEWS))
    added = ops.reshape(_u_net(weights, len(config.channels), seen, ops), (-1, num_sources, frames, bins))
    return energy + _SHARPNESS * added


def _u_net(weights: Weights, levels: int, seen: Array, ops: types.SimpleNamespace) -> Array:
    def convolved(name: str, inputs: Array, stride: int = 1) -> Array:
        return ops.convolution(inputs, weights[name], stride) + weights[f"{name}_bias"]

    def layer(name: str, inputs: Array, stride: int = 1) -> Array:
        return ops.relu(convolved(name, inputs, stride))

    hidden = layer("inlet", _to_depth(seen, ops))
    passed = []
    for level in range(levels - 1):
        passed.append(hidden)
        hidden = layer(f"down_{level}_more", layer(f"down_{level}", hidden, 2))
    mean = ops.mean(hidden, axis=1, keepdims=True)
    mean = ops.relu(ops.matmul(mean, weights["mean"]) + weights["mean_bias"]) + ops.zeros_like(hidden)
    hidden = layer("more", layer("joined", ops.concatenate([hidden, mean], axis=-1)))
    for level in reversed(range(levels - 1)):
        widened = _from_depth(ops.matmul(hidden, weights[f"up_{level}"]) + weights[f"up_{level}_bias"], ops)
        hidden = layer(f"up_{level}_joined", ops.concatenate([widened, passed[level]], axis=-1))
    return _from_depth(convolved("head", hidden), ops)


def _to_depth(inputs: Array, ops: types.SimpleNamespace) -> Array:
    """Takes squares of 2 x 2 places as one, in four times the channels."""
    frames, bins, channels = inputs.shape[1:]
    squares = ops.reshape(inputs, (-1, frames // _PATCH, _PATCH, bins // _PATCH, _PATCH, channels))
    squares = ops.transpose(squares, (0, 1, 3, 2, 4, 5))
    return ops.reshape(squares, (-1, frames // _PATCH, bins // _PATCH, _PATCH**2 * channels))


def _from_depth(inputs: Array, ops: types.SimpleNamespace) -> Array:
    """The inverse of `_to_depth`."""
    frames, bins, channels = inputs.shape[1:]
    squares = ops.reshape(inputs, (-1, frames, bins, _PATCH, _PATCH, channels // _PATCH**2))
    squares = ops.transpose(squares, (0, 1, 3, 2, 4, 5))
    return ops.reshape(squares, (-1, frames * _PATCH, bins * _PATCH, channels // _PATCH**2))


class ContextNetwork:
    """Corrects the separated sources of recordings.

    Args:
        weights: As `ContextConfig.shapes` names them.
        config: The network's settings.
        audio: The audio settings of the separator.

    Example:
        >>> network = ContextNetwork.load("saved_models/duets", AudioConfig(num_frames=32))
        >>> sources = np.random.default_rng(0).normal(size=(20_000, 2, 1)).astype(np.float32)
        >>> corrected = np.concatenate(list(network.corrected([sources])))
        >>> corrected.shape, bool(np.allclose(corrected.sum(axis=1), sources.sum(axis=1), atol=1e-4))
        ((20000, 2, 1), True)
    """

    def __init__(self, weights: Weights, config: ContextConfig, audio: AudioConfig) -> None:
        self.weights = weights
        self.config = config
        self._frame, self._length = context_of(audio)
        self._hop = self._frame // _HOPS
        self._bins = audio.num_bins
        self._window = half_sine(self._frame)

    @classmethod
    def load(cls, model: Path | str, audio: AudioConfig) -> "ContextNetwork | None":
        """Loads the context network of a model.

        Args:
            model: As `runtime.load` takes it: the network stands in the folder `context` of its run or export.
            audio: The audio settings of the model.

        Returns:
            The network; None where the model has none, and for a URL.

        Raises:
            CheckpointError: It is damaged, or is of a model with other audio settings.
        """
        weights = weights_of(model)
        return None if weights is None else cls(*read(weights.parent, audio), audio)

    def corrected(self, blocks: Iterable[Float32]) -> Iterator[Float32]:
        """Corrects separated sources, in pieces of 512 frames that overlap by an eighth.

        Args:
            blocks: float32 `[samples, num_sources, channels]`, at the model's rate, of any lengths.

        Yields:
            Blocks of the same, of the same sum over the sources; in all as many samples.
        """
        total = weights = np.zeros(0, np.float32)
        begun = 0
        for start, part, weight in _in_advance(self._weighted, self._pieces(blocks)):
            if start > begun:
                yield total[: start - begun] / weights[: start - begun]
                total, weights, begun = total[start - begun :], weights[start - begun :], start
            total, weights = _added(total, part), _added(weights, weight)
        if len(total):
            yield total / weights

    def _pieces(self, blocks: Iterable[Float32]) -> Iterator[tuple[int, Float32]]:
        """The pieces that are corrected at once, `[samples, num_sources, channels]`, each with where it begins."""
        hop = self._length - self._length // 8
        rest, start = None, 0
        for block in _gathered(blocks, self._length // 8):
            rest = block if rest is None else np.concatenate([rest, block])
            while len(rest) >= self._length + hop:
                yield start, rest[: self._length]
                rest, start = rest[hop:], start + hop
        if rest is not None and len(rest):
            yield start, rest[: self._length]
            if len(rest) > self._length:
                yield start + len(rest) - self._length, rest[-self._length :]

    def _weighted(self, piece: tuple[int, Float32]) -> tuple[int, Float32, Float32]:
        """Where a piece begins, its corrected sources times weights that fall towards its edges, and the weights."""
        start, sources = piece
        ramp = np.arange(len(sources), dtype=np.float32) + 0.5
        weight = np.minimum(ramp, ramp[::-1])[:, np.newaxis, np.newaxis] / len(sources)
        return start, weight * self._of_piece(sources), weight

    def _of_piece(self, sources: Float32) -> Float32:
        """Corrects a piece, float32 `[samples, num_sources, channels]`."""
        if sources.shape[1] == 1:
            return sources
        mixture, means = sources.sum(axis=1), sources.mean(axis=2).T
        own = self._spectra(means)
        views = own.sum(axis=0, keepdims=True), own, own.sum(axis=0) - own
        seen, alone, rest = (np.abs(spectra)[np.newaxis, ..., : self._bins] for spectra in views)
        logits = log_masks(self.weights, self.config, seen, alone, rest, NUMPY)[0]
        masks = np.exp(logits - logits.max(axis=0))
        masks /= masks.sum(axis=0)
        channels = self._spectra(mixture.T)
        unseen = channels.shape[-1] - self._bins
        masks = np.pad(masks, [(0, 0), (0, 0), (0, unseen)], mode="edge")
        parts = self._waveforms(masks[:-1, np.newaxis] * channels, len(mixture)).transpose(2, 0, 1)
        return np.concatenate([parts, (mixture - parts.sum(axis=1))[:, np.newaxis]], axis=1)

    def _spectra(self, waveforms: Float32) -> npt.NDArray[np.complex64]:
        """Spectra of frames, complex64 `[n, frames, frame / 2 + 1]`; frames are added until they can be halved."""
        lead = self._frame - self._hop
        count = -(-(waveforms.shape[1] + lead) // self._hop)
        count += -count % self.config.divisor
        padded = np.pad(waveforms, [(0, 0), (lead, (count - 1) * self._hop + self._frame - lead - waveforms.shape[1])])
        frames = np.lib.stride_tricks.sliding_window_view(padded, self._frame, axis=1)[:, :: self._hop]
        return np.fft.rfft(frames * self._window).astype(np.complex64)

    def _waveforms(self, spectra: npt.NDArray[np.complex64], number: int) -> Float32:
        """The inverse of `_spectra`, float32 `[..., number]`."""
        frames = np.fft.irfft(spectra, self._frame).astype(np.float32) * self._window
        count, lead = frames.shape[-2], self._frame - self._hop
        total = np.zeros((*frames.shape[:-2], count + _HOPS - 1, self._hop), np.float32)
        for part in range(_HOPS):
            total[..., part : part + count, :] += frames[..., part * self._hop : (part + 1) * self._hop]
        whole = total.reshape(*total.shape[:-2], -1) / np.float32(_HOPS / 2)  # squares of the window sum up to it
        return np.asarray(whole[..., lead : lead + number], np.float32)


def _in_advance(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Calls a function on items, in a thread beside what makes the next item and what uses the result before."""
    pending: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(1) as pool:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _added(total: Float32, part: Float32) -> Float32:
    """Adds a part to the beginning of a sum, which becomes as long as the part at least."""
    missing = len(part) - len(total)
    if missing > 0:
        total = np.concatenate([total.reshape(-1, *part.shape[1:]), np.zeros((missing, *part.shape[1:]), np.float32)])
    total[: len(part)] += part
    return total


def _gathered(blocks: Iterable[Float32], least: int) -> Iterator[Float32]:
    """Joins blocks until each but the last has so many samples."""
    held: list[Float32] = []
    number = 0
    for block in blocks:
        held.append(block)
        number += len(block)
        if number >= least:
            yield np.concatenate(held)
            held, number = [], 0
    if held:
        yield np.concatenate(held)


def weights_of(model: Path | str) -> Path | None:
    """Finds the weights of a model's context network.

    Args:
        model: As `runtime.load` takes it.

    Returns:
        The `weights.npz` in the folder `context` of its run or export; None where there is none, and for a URL.
    """
    path = Path(model).resolve()
    roots = [path]
    if not any((path / name).is_file() for name in (CONFIG, MANIFEST)):  # a file or folder of an export
        roots += [parent for parent in path.parents[:2] if (parent / MANIFEST).is_file()]
    found = (root / FOLDER / WEIGHTS for root in roots)
    return next((weights for weights in found if weights.is_file()), None)


def heard(audio: AudioConfig) -> dict[str, float]:
    """What a context network depends on of its model's audio settings, as JSON can hold it."""
    return {"sample_rate": audio.sample_rate, "n_fft": audio.n_fft, "num_bins": audio.num_bins}


def read(folder: Path, audio: AudioConfig) -> tuple[dict[str, Float32], ContextConfig]:
    """Reads a context network's files. No code and no pickle is read.

    Args:
        folder: The folder `context` of a run or an export.
        audio: The audio settings of the model.

    Returns:
        The weights, float32, and the settings.

    Raises:
        CheckpointError: They are damaged, a weight is not finite, or the network is of other audio settings.
    """
    try:
        content = parse_json((folder / CONFIG).read_text(encoding="utf-8"))
        config, learned = ContextConfig.from_dict(content["network"]), content["audio"]
        shapes = config.shapes()
        wanted = shapes | {f"{name}_bias": shape[-1:] for name, shape in shapes.items()}
        found = dict(read_weights(folder / WEIGHTS, wanted))
    except Exception as error:  # JSON and settings raise many kinds
        reason = error if isinstance(error, CheckpointError) else type(error).__name__
        raise CheckpointError(
            f"the context network in {folder} is damaged ({reason}); copy or train it again, or delete the folder."
        ) from error
    if learned != heard(audio) or not config.fits(audio):
        raise CheckpointError(
            f"the context network in {folder} is of a model with other audio settings; train one for this model."
        )
    return found, config


def _convolution(inputs: Float32, kernel: Float32, stride: int) -> Float32:
    """A convolution of 3 x 3 places, float32 `[batch, height, width, channels]`, padded with zeros as TensorFlow's."""
    first = int(stride == 1)  # a stride of 2 reaches over the end alone
    padded = np.pad(inputs, [(0, 0), (first, 1), (first, 1), (0, 0)])
    height, width = inputs.shape[1] // stride, inputs.shape[2] // stride
    total = np.zeros((len(inputs), height, width, kernel.shape[-1]), np.float32)
    for row, column in itertools.product(range(3), range(3)):
        rows = slice(row, row + height * stride, stride)
        total += padded[:, rows, column : column + width * stride : stride] @ kernel[row, column]
    return total


NUMPY = types.SimpleNamespace(
    concatenate=np.concatenate,
    convolution=_convolution,
    log=np.log,
    matmul=np.matmul,
    mean=np.mean,
    relu=lambda values: np.maximum(values, 0),
    reshape=np.reshape,
    sqrt=np.sqrt,
    stack=np.stack,
    transpose=np.transpose,
    zeros_like=np.zeros_like,
)
