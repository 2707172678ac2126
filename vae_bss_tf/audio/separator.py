"""Waveforms and recordings of any length in, one waveform or file for each source out."""

import collections
import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio import familiarity, order, recordings, spectrogram, stems
from vae_bss_tf.audio.context import ContextNetwork
from vae_bss_tf.audio.familiarity import Familiarity, WindowSample
from vae_bss_tf.audio.overlap_add import Orders, overlap_add, windows
from vae_bss_tf.audio.shares import Shares
from vae_bss_tf.audio.stems import SeparatedFile, StemFile
from vae_bss_tf.checks import check, check_numbers
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.files import refuse_existing, replacing
from vae_bss_tf.runtime.remote.options import ServerOptions

Array = npt.NDArray[np.float32]

SILENT_SOURCE_DB = -40.0
MAX_GAIN_DB = 100.0


class SeparationModel(Protocol):
    """What a separator needs of a model: a run, or any exported form as `runtime.load` gives it.

    How well a recording is explained is told of models that have `outputs`, too, as `runtime.LoadedModel` has.
    """

    def separate(self, mixtures: npt.ArrayLike) -> Array:
        """Separates spectrograms, float32 `[n, frames, bins]`, into `[n, num_sources, frames, bins]`."""
        ...


class Separator:
    """Separates recordings of any length, rate and one or two channels.

    The recording is brought to the model's rate as the mean of its channels and cut into windows that overlap by three
    quarters. What is separated in them is averaged, and what strays counts less (`overlap_add`). Which source is which
    is decided by the whole recording, in a first pass (`find_orders`), and in a stream by inner products with the
    windows before. Of whole recordings a context network, where the model has one, corrects what the windows give.
    The masks come from the mean of the channels and act on each of them, so a source keeps its place between left and
    right. What the model cannot hear, above half its rate, is shared among the sources in proportion to their energy at
    the time: the sources sum to the recording.

    Args:
        model: The model.
        audio: The audio settings that it was trained with.
        usual: How well it explains and separates mixtures like those of its training, as `familiarity.usual` reads it.
        context: Corrects the sources of whole recordings; None leaves them as the windows give them.

    Attributes:
        num_sources: Sources of the model.

    Example:
        >>> separator = Separator.load("saved_models/notes")
        >>> waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100)
        >>> first, second = separator.separate(waveform, 44_100)
        >>> first.shape
        (44100,)
    """

    def __init__(
        self,
        model: SeparationModel,
        audio: AudioConfig,
        usual: Familiarity = familiarity.UNKNOWN,
        context: ContextNetwork | None = None,
    ) -> None:
        self.model = model
        self.audio = audio
        self.usual = usual
        self.context = context
        frames, bins = audio.feature_shape
        self.num_sources = self.model.separate(np.zeros((1, frames, bins), np.float32)).shape[1]

    @classmethod
    def load(cls, path: Path | str, server: ServerOptions | None = None) -> "Separator":
        """Loads a separator.

        Args:
            path: A run folder, a SavedModel, a `.tflite` or an `.onnx` of a model of audio, or a URL of one on a
                server, as `runtime.load` takes it.
            server: Deadline, retries and the like, for a URL; None takes the defaults.

        Returns:
            The separator.

        Raises:
            CheckpointError: There is no model, or it or its context network is damaged.
            ConfigError: It is no model of audio.
            ServerError: The server cannot be reached, or has no such model.
        """
        from vae_bss_tf import runtime

        model = runtime.load(path, server=server)
        preset = model.metadata.preset
        if preset is None and runtime.is_url(path):
            raise ConfigError(f"{path} does not say its settings; give the manifest.json of its export (--manifest).")
        if preset is None or preset.audio is None:
            raise ConfigError(f"{path} is no model of audio; give one trained on tones, notes or mixtures.")
        return cls(model, preset.audio, familiarity.usual(path), ContextNetwork.load(path, preset.audio))

    def separate(self, waveform: npt.ArrayLike, sample_rate: float) -> Array:
        """Separates a waveform.

        Args:
            waveform: `[samples]` or `[channels, samples]`, finite, in [-1, 1], one or two channels, at least 0.1 s.
            sample_rate: Its rate, Hz, from 1 kHz to 1 MHz.

        Returns:
            float32 `[num_sources, samples]` or `[num_sources, channels, samples]`, at the same rate, of sum
            `waveform`.

        Raises:
            DataError: The waveform is silent, too short, not finite, beyond 2^31, no array of real numbers, or has more
                than two channels; or the rate is out of its range.
        """
        recordings.check_rate(sample_rate, "the waveform")
        array = check_numbers(waveform, "samples")
        if array.dtype.kind == "b" or array.ndim not in (1, 2):
            raise DataError(
                f"the waveform has shape {array.shape} and type {array.dtype}; it must be real numbers, [samples] or "
                "[channels, samples]."
            )
        with np.errstate(over="ignore"):  # becomes infinite, which is refused below
            channels = np.atleast_2d(array).astype(np.float32)
        recordings.check_channels("the waveform", len(channels))
        if channels.shape[1] < recordings.MIN_SECONDS * sample_rate:
            raise DataError(f"the waveform holds {channels.shape[1]} samples; at least 0.1 s are needed.")
        block = int(recordings.BLOCK_SECONDS * sample_rate)
        blocks = [channels.T[i : i + block] for i in range(0, channels.shape[1], block)]
        orders, _ = self.find_orders(blocks, sample_rate, len(channels), "the waveform")
        separated = self.stream(blocks, sample_rate, len(channels), "the waveform", orders=orders)
        sources = np.concatenate(list(separated))
        sources = sources.transpose(1, 2, 0)
        return sources if array.ndim == 2 else sources[:, 0]

    def separate_file(
        self,
        path: Path | str,
        output: Path | str,
        *,
        file_format: str | None = None,
        gains_db: Sequence[float] | None = None,
        skip_silent: bool = False,
        allow_truncated: bool = False,
        force: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> SeparatedFile:
        """Separates a recording from disk to disk, in memory that grows with its length by some kB a window alone.

        Writes `{name}_source{k}.{format}` for k = 1 ... K, with the recording's rate, channels and length, and
        `{name}_remix.{format}` where gains are given. Nothing is written when it fails.

        Args:
            path: The recording.
            output: Folder to write to; made if missing.
            file_format: A key of `stems.FORMATS`; None takes the recording's own. Samples are coded as the recording's
                where the format allows it.
            gains_db: A gain for each source in the remix, at most 100 dB; -inf leaves a source out.
            skip_silent: Whether sources more than 40 dB below the mixture are left out.
            allow_truncated: Whether a truncated WAV, AIFF or Ogg file is separated as far as it goes.
            force: Whether existing files are replaced.
            progress: Called with the seconds of the recording done since the last call.

        Returns:
            The files and the sources' levels.

        Raises:
            DataError: The recording is missing, damaged, truncated, silent, too short, no audio, holds NaN, or has more
                than two channels; or a file could not be written in full.
            ConfigError: The format is unknown or cannot hold the sample rate, there are not as many gains as sources,
                or a gain is out of its range.
            OutputExistsError: A file to write exists.
        """
        path, output = Path(path), Path(output)
        recording = recordings.describe(path, allow_truncated=allow_truncated)
        recordings.check_channels(str(path), recording.num_channels)
        factors = None if gains_db is None else self._factors(gains_db)
        suffix = stems.choose_format(recording, file_format)
        places, remix = stems.places(recording, output, self.num_sources, suffix)
        every_place = places if factors is None else [*places, remix]
        refuse_existing(every_place, force=force)
        output.mkdir(parents=True, exist_ok=True)
        rate, num_channels = recording.sample_rate, recording.num_channels

        passes = 1 if self.num_sources > order.MAX_SOURCES else 2

        def blocks() -> Iterator[Array]:
            """The recording's blocks; each pass is as much work."""
            for block in recordings.blocks(recording):
                yield block
                if progress is not None:
                    progress(len(block) / (passes * rate))

        sample = WindowSample()
        orders, certainty = self.find_orders(blocks(), rate, num_channels, str(path), sample)
        known = None if orders is None else self.familiarity(sample)
        energy, mixture_energy = np.zeros(self.num_sources), 0.0
        with contextlib.ExitStack() as stack:
            partial = [stack.enter_context(replacing(place)) for place in every_place]
            files = [stack.enter_context(StemFile(part, recording, suffix)) for part in partial]
            for block in self.stream(blocks(), rate, num_channels, str(path), orders=orders):
                energy += np.square(block).sum(axis=(0, 2))
                mixture_energy += float(np.square(block.sum(axis=1)).sum())
                parts = list(block.transpose(1, 0, 2))
                if factors is not None:
                    parts.append(np.einsum("k,nkc->nc", factors, block))
                for file, part in zip(files, parts, strict=True):
                    file.write(part)
            for file in files:
                file.finish()
        levels = 10 * np.log10(np.maximum(energy, 1e-30) / mixture_energy)
        silent = set(np.flatnonzero(levels < SILENT_SOURCE_DB)) if skip_silent else set()
        for k in silent:
            places[k].unlink()
        return SeparatedFile(
            sources={k + 1: place for k, place in enumerate(places) if k not in silent},
            remix=None if factors is None else remix,
            levels=tuple(float(level) for level in levels),
            clipped=sum(file.clipped for file in files),
            certainty=certainty,
            familiarity=known,
        )

    def stream(
        self,
        blocks: Iterable[Array],
        sample_rate: float,
        num_channels: int,
        name: str = "the stream",
        *,
        orders: Iterable[Orders] | None = None,
    ) -> Iterator[Array]:
        """Separates a stream of blocks as they come.

        The first samples come out when the blocks so far fill one of the model's windows; from then on the output stays
        at most a window and a half behind the input. Resampling adds up to 0.4 s. Where orders are given, a context
        network corrects the sources, and adds up to four of its pieces of 512 frames.

        Args:
            blocks: float32 `[samples, num_channels]`, of any lengths.
            sample_rate: Their rate, Hz.
            num_channels: Their channels, one or two.
            name: What the stream is, for messages.
            orders: The order of the sources in each window, as `find_orders` finds it in the whole recording; None
                matches each window to the one before, as is all that can be done with sound that is still to come.

        Yields:
            float32 `[samples, num_sources, num_channels]`, of sum the input; in all as many samples.

        Raises:
            DataError: Every sample is zero, a sample is not finite or beyond 2^31, a block is of another shape or type,
                the rate is out of its range; or as `blocks`.
        """
        recordings.check_rate(sample_rate, name)
        recordings.check_channels(name, num_channels)
        pending: collections.deque[Array] = collections.deque()
        rate, columns = self.audio.sample_rate, self.num_sources * num_channels

        def remembered() -> Iterator[Array]:
            for block in recordings.checked(blocks, num_channels, name):
                pending.append(np.array(block))  # the caller may use its own for what comes next
                yield block

        shares = Shares(self.num_sources, rate)
        low = recordings.resampled(remembered(), sample_rate, rate, num_channels)
        added = overlap_add(self._separated(low, num_channels), orders)
        if orders is not None and self.context is not None:
            added = self.context.corrected(added)
        separated = (block.reshape(-1, columns) for block in shares.observed(added))
        high = recordings.resampled(separated, rate, sample_rate, columns)
        position = 0
        # The last block stands for the samples that resampling there and back has rounded away.
        for block in itertools.chain(high, [np.zeros((math.ceil(2 * sample_rate / rate), columns), np.float32)]):
            mixture = _take(pending, len(block), num_channels)
            if not len(mixture):
                continue
            sources = block[: len(mixture)].reshape(-1, self.num_sources, num_channels)
            rest = mixture - sources.sum(axis=1)
            share = shares.at(position, len(mixture), sample_rate)
            yield sources + share[:, :, np.newaxis] * rest[:, np.newaxis]
            position += len(mixture)

    def find_orders(
        self,
        blocks: Iterable[Array],
        sample_rate: float,
        num_channels: int,
        name: str = "the recording",
        sample: WindowSample | None = None,
    ) -> tuple[Orders | None, npt.NDArray[np.float64] | None]:
        """Finds which source is which in each window of a whole recording (see `audio.order`).

        Args:
            blocks: As `stream` takes them, of the whole recording.
            sample_rate: Their rate, Hz.
            num_channels: Their channels, one or two.
            name: What the recording is, for messages.
            sample: Is given the separated windows of the mean of the channels.

        Returns:
            int64 `[windows, num_sources]`, to be given to `stream`; and how sure each is, float64 `[windows]` in
            [0, 1]. Both None for a model of more sources than `order.MAX_SOURCES`.

        Raises:
            DataError: As `stream`.
        """
        recordings.check_rate(sample_rate, name)
        recordings.check_channels(name, num_channels)
        if self.num_sources > order.MAX_SOURCES:
            return None, None
        rate = self.audio.sample_rate
        heard = (block.mean(axis=1, keepdims=True) for block in recordings.checked(blocks, num_channels, name))
        low = recordings.resampled(heard, sample_rate, rate, 1)
        found, before = [], np.zeros((2, self.audio.num_samples, self.num_sources), np.float32)
        for batch, _ in self._separated(low, 1):
            separated = batch[..., 0]
            found.append(order.features(separated, before, rate))
            before = np.concatenate([before, separated])[-2:]
            if sample is not None:
                sample.add(separated)
        return order.consistent_orders(order.WindowFeatures(*map(np.concatenate, zip(*found, strict=True))))

    def familiarity(self, sample: WindowSample) -> Familiarity:
        """Tells how well the model knows a recording.

        Args:
            sample: Separated windows of it, as `find_orders` gives them.

        Returns:
            How well, as far as it shows without true sources.
        """
        windows = sample.windows

        def separate(mixtures: Array) -> Array:
            return self.separate_windows(mixtures[:, np.newaxis])[..., 0]

        outputs = getattr(self.model, "outputs", None)
        return Familiarity(
            None if outputs is None else familiarity.sum_si_sdr(windows.sum(axis=2), outputs, self.audio),
            familiarity.remix_si_sdri(windows, separate),
        )

    def separate_windows(self, windows: Array) -> Array:
        """Separates windows one by one, each with its sources in an order of its own.

        Args:
            windows: float32 `[n, channels, num_samples]`, at the model's rate.

        Returns:
            float32 `[n, num_samples, num_sources, channels]`, of sum `windows`.
        """
        audio = self.audio
        spectra = [spectrogram.stft(windows[:, c], audio) for c in range(windows.shape[1])]
        real, imaginary = (sum(parts) / len(spectra) for parts in zip(*spectra, strict=True))
        masks = spectrogram.source_masks(self.model.separate(spectrogram.features(real, imaginary, audio)), audio)
        masks = masks[:, : max(1, self.num_sources - 1)]  # the last source is what the others leave
        channels = [spectrogram.apply_masks(*spectrum, masks, audio) for spectrum in spectra]
        parts = np.stack(channels, axis=-1).transpose(0, 2, 1, 3)
        rest = windows.transpose(0, 2, 1)[:, :, np.newaxis] - parts.sum(axis=2, keepdims=True)
        return np.concatenate([parts, rest], axis=2)[:, :, : self.num_sources]

    def _factors(self, gains_db: Sequence[float]) -> Array:
        check(not isinstance(gains_db, str), "gains_db", gains_db, "numbers in dB, one for each source")
        if len(gains_db) != self.num_sources:
            raise ConfigError(f"{len(gains_db)} gains were given; the model has {self.num_sources} sources.")
        if not all(gain <= MAX_GAIN_DB for gain in gains_db):  # NaN included
            raise ConfigError(f"gains are {', '.join(map(str, gains_db))} dB; the largest allowed is {MAX_GAIN_DB:g}.")
        return np.asarray([10 ** (gain / 20) for gain in gains_db], np.float32)

    def _separated(self, blocks: Iterator[Array], num_channels: int) -> Iterator[tuple[Array, float]]:
        """Turns blocks at the model's rate, `[samples, channels]`, into what `overlap_add` takes."""
        for batch, end in windows(blocks, self.audio.num_samples, num_channels):
            yield self.separate_windows(batch), end


def _take(pending: collections.deque[Array], count: int, num_channels: int) -> Array:
    """Takes up to `count` samples from the front of a queue of blocks `[samples, num_channels]`."""
    parts = [np.zeros((0, num_channels), np.float32)]
    while pending and count > 0:
        block = pending.popleft()
        if len(block) > count:
            pending.appendleft(block[count:])
            block = block[:count]
        parts.append(block)
        count -= len(block)
    return np.concatenate(parts)
