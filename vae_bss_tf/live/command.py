"""What `python -m vae_bss_tf.live` does: sound in, sources out, while it comes."""

import argparse
import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import numpy.typing as npt

from vae_bss_tf.audio import recordings, stems
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.files import refuse_existing, replacing
from vae_bss_tf.live import devices
from vae_bss_tf.live.resampling import Resampler
from vae_bss_tf.live.runtime import LiveSeparator, load
from vae_bss_tf.startup import silenced

Array = npt.NDArray[np.float32]

PIPE = Path("-")
MAX_GAIN_DB = 40.0
_READ = 4_096  # bytes at once, at most
_PORTION = 1_024  # samples of a recording
_METER_SECONDS, _METER_WIDTH, _METER_FLOOR_DB = 0.1, 20, -60.0


class Gains:
    """A gain for each source, which may change while sound runs: a change takes effect with the next block.

    Args:
        count: Number of sources.
        text: Gains in dB with commas between, such as "0,-6" or "0,-inf"; None takes 0 dB for each.

    Raises:
        ConfigError: There are not as many as sources, or one is no number up to 40.
    """

    def __init__(self, count: int, text: str | None) -> None:
        parts = ["0"] * count if text is None else text.split(",")
        if len(parts) != count:
            raise ConfigError(f"{len(parts)} gains were given; the model has {count} sources.")
        self._factors = np.ones(count, np.float32)
        for k, part in enumerate(parts, start=1):
            self.change(f"{k} {part}")

    def change(self, line: str) -> None:
        """Changes one gain.

        Args:
            line: The source's number, from 1, and its gain in dB, such as "2 -6" or "1 -inf".

        Raises:
            ConfigError: It is another text.
        """
        try:
            number, gain = line.split()
            source, decibels = int(number), float(gain)
        except ValueError:
            source, decibels = 0, math.nan
        if not 1 <= source <= len(self._factors) or not decibels <= MAX_GAIN_DB:
            raise ConfigError(
                f"{line.strip()!r} is no source from 1 to {len(self._factors)} and a gain up to {MAX_GAIN_DB:g} dB, "
                "such as 2 -6."
            )
        factors = self._factors.copy()
        factors[source - 1] = 10 ** (decibels / 20)
        self._factors = factors

    def mixed(self, sources: Array) -> Array:
        """The sum of the sources with their gains.

        Args:
            sources: float32 `[num_sources, n]`.

        Returns:
            float32 `[n]`.
        """
        return np.asarray(self._factors @ sources, np.float32)


class Meters:
    """Levels of the sources in the terminal, and what is counted: the time that the separation takes, what is clipped.

    Args:
        rate: The model's rate, Hz.
        shown: Whether they are drawn.
    """

    def __init__(self, rate: float, shown: bool) -> None:
        self.rate = rate
        self.seconds = 0.0
        self.busy: list[float] = []
        self.underruns: int | None = None  # of a microphone and headphones alone
        self.clipped = 0
        self._shown = shown
        self._drawn = 0.0

    def add(self, sources: Array, busy: float) -> None:
        """Counts a portion.

        Args:
            sources: float32 `[num_sources, n]`.
            busy: Seconds that its separation took.
        """
        if not sources.shape[1]:
            return
        self.seconds += sources.shape[1] / self.rate
        self.busy.append(busy * self.rate / sources.shape[1])
        if len(self.busy) > 100_000:
            del self.busy[: len(self.busy) // 2]
        now = time.perf_counter()
        if self._shown and now - self._drawn > _METER_SECONDS:
            self._drawn = now
            bars = "  ".join(f"{k} {_bar(source)}" for k, source in enumerate(sources, start=1))
            print(
                f"\r{bars}  {100 * self.busy[-1]:3.0f}% busy, {self.underruns or 0} under-runs ",
                end="",
                file=sys.stderr,
            )

    def limited(self, samples: Array) -> Array:
        """Clips what goes where nothing above full scale can, and counts it.

        Args:
            samples: float32, any shape.

        Returns:
            float32 of the same shape, in [-1, 1].
        """
        self.clipped += int((np.abs(samples) > 1).sum())
        return np.clip(samples, -1, 1)

    def summary(self) -> str:
        """One line about the whole, of which something was separated."""
        median, high = np.percentile(self.busy, [50, 99])
        return (
            f"{self.seconds:.1f} s separated; a portion took {100 * median:.1f}% of its time (median), "
            f"{100 * high:.1f}% (99th percentile)"
            + ("" if self.underruns is None else f"; {self.underruns} under-runs")
            + (f"; {self.clipped:,} samples exceeded full scale and were clipped" if self.clipped else "")
        )


def separate_live(options: argparse.Namespace) -> None:
    """Runs the command.

    Args:
        options: As the command's parser gives them.

    Raises:
        VaeBssError: The model, the input or an option is bad, or a file to write exists.
    """
    if options.list_devices:
        print(devices.listed())
        return
    if options.model is None:
        raise ConfigError("give --model a live separator, such as saved_models/live.")
    if options.seconds is not None and not 0 <= options.seconds < math.inf:
        raise ConfigError(f"--seconds is {options.seconds:g}; give 0 or more.")
    with silenced():  # TensorFlow Lite tells of its delegate at the first step
        separator = LiveSeparator(load(options.model))
    config = separator.model.config
    gains = Gains(config.num_sources, options.gains)
    tell = sys.stderr if options.output == PIPE else sys.stdout
    meters = Meters(config.sample_rate, sys.stderr.isatty() and not options.quiet)
    latency = 2_000 * config.hop_length / config.sample_rate
    print(f"model: {options.model}, {config.num_sources} sources, {config.sample_rate:g} Hz, latency {latency:.1f} ms",
          file=tell, flush=True)  # fmt: skip

    def separated(samples: Array) -> Array:
        started = time.perf_counter()
        sources = separator.process(samples)
        meters.add(sources, time.perf_counter() - started)
        return sources

    if options.input is None and options.output is None:
        _headphones(options, separated, separator, gains, meters)
    else:
        if options.input is None:
            raise ConfigError("--output needs --input, a recording or - for raw samples on standard input.")
        if options.output is None:
            raise ConfigError("give --output a folder, or - for raw samples on standard output.")
        if options.seconds is not None:
            raise ConfigError("--seconds ends what comes from the microphone; leave it out with --input.")
        portions = _samples(options, config.sample_rate, tell)
        if options.input == PIPE:
            portions = _until_interrupted(portions)
        # Where the reader of --output - has gone, it has what it wanted.
        with _sink(options, separator, gains, meters, tell) as write, contextlib.suppress(BrokenPipeError):
            skipped = separator.delay
            for samples in portions:
                sources = separated(samples)
                write(sources[:, skipped:])
                skipped = max(0, skipped - sources.shape[1])
            write(separator.finish()[:, skipped:])
    if meters.busy:
        print(("\n" if sys.stderr.isatty() and not options.quiet else "") + meters.summary(), file=tell)


def _samples(options: argparse.Namespace, rate: float, tell: TextIO) -> Iterator[Array]:
    """The input at the model's rate, in portions as they come; it is checked before any portion is asked for."""
    if options.input != PIPE:
        recording = recordings.describe(options.input)
        recordings.check_channels(str(options.input), recording.num_channels)
        if recording.num_channels > 1:
            print(f"the mean of {recording.num_channels} channels is separated", file=tell)
        _tell_rate(recording.sample_rate, rate, tell)
        blocks = recordings.mono(recording, rate)
        return (block[i : i + _PORTION] for block in blocks for i in range(0, len(block), _PORTION))
    recordings.check_rate(options.rate, "--rate")
    if sys.stdin is None:
        raise DataError("standard input is closed; pipe raw samples of one channel into it.")
    _tell_rate(options.rate, rate, tell)
    return _resampled(_raw(sys.stdin.buffer, options.sample_format), Resampler(options.rate, rate))


def _until_interrupted(portions: Iterator[Array]) -> Iterator[Array]:
    """The portions until Ctrl-C, which ends a pipe that has no end of its own, between two portions."""
    waiting = pressed = False

    def press(*_: object) -> None:
        nonlocal pressed
        pressed = True
        if waiting:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        while not pressed:
            waiting = True
            samples = next(portions, None)
            waiting = False
            if samples is None:
                return
            yield samples
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGINT, before)


def _resampled(portions: Iterator[Array], resampler: Resampler) -> Iterator[Array]:
    for samples in portions:
        yield resampler(samples)
    yield resampler(np.zeros(0, np.float32), last=True)


def _raw(stream: BinaryIO, sample_format: str) -> Iterator[Array]:
    kind = np.dtype("<i2") if sample_format == "s16" else np.dtype("<f4")
    rest, some = b"", False
    while data := stream.read1(_READ):  # type: ignore[attr-defined]
        data = rest + data
        whole = len(data) // kind.itemsize * kind.itemsize
        some, rest = some or whole > 0, data[whole:]
        values = np.frombuffer(data[:whole], kind).astype(np.float32)
        yield values / np.float32(32_768) if sample_format == "s16" else values
    if not some:
        raise DataError("standard input holds no sample; pipe raw samples of one channel into it.")


def _tell_rate(given: float, rate: float, tell: TextIO) -> None:
    if given != rate:
        print(f"the input has {given:g} Hz and is resampled; the sources have {rate:g} Hz", file=tell)


@contextlib.contextmanager
def _sink(
    options: argparse.Namespace, separator: LiveSeparator, gains: Gains, meters: Meters, tell: TextIO
) -> Iterator[Callable[[Array], None]]:
    """A function that takes the sources, `[num_sources, n]`."""
    if options.output == PIPE:
        if options.gains is not None:
            raise ConfigError("--gains makes a mix to hear or a file of it; leave it out with --output -.")

        def pipe(sources: Array) -> None:
            if options.sample_format == "s16":
                sys.stdout.buffer.write(np.round(meters.limited(sources.T) * 32_767).astype("<i2").tobytes())
            else:
                sys.stdout.buffer.write(sources.T.astype("<f4").tobytes())
            sys.stdout.buffer.flush()

        yield pipe
        return
    folder, name = options.output, Path("live") if options.input == PIPE else options.input
    count, rate = separator.model.config.num_sources, separator.model.config.sample_rate
    written = recordings.Recording(name, round(rate), 1, 0, "WAV", "FLOAT")
    places, remix = stems.places(written, folder, count, "wav")
    if options.gains is not None:
        places.append(remix)
    refuse_existing(places, force=options.force)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        partial = [stack.enter_context(replacing(place)) for place in places]
        files = [stack.enter_context(stems.StemFile(part, written, "wav")) for part in partial]

        def write(sources: Array) -> None:
            columns = list(sources) if len(files) == count else [*sources, gains.mixed(sources)]
            for file, samples in zip(files, columns, strict=True):
                file.write(samples[:, np.newaxis])

        yield write
        for file in files:
            file.finish()
    for place in places:
        print(place, file=tell)


def _headphones(
    options: argparse.Namespace,
    separated: Callable[[Array], Array],
    separator: LiveSeparator,
    gains: Gains,
    meters: Meters,
) -> None:
    config = separator.model.config

    def control() -> None:
        for line in sys.stdin:
            try:
                gains.change(line)
            except ConfigError as error:
                print(f"\n{error}", file=sys.stderr)

    print("type a source's number and a gain in dB, such as: 2 -20   (Ctrl-C ends)", flush=True)
    if sys.stdin is not None and sys.stdin.isatty():
        threading.Thread(target=control, daemon=True).start()
    until = math.inf if options.seconds is None else time.monotonic() + options.seconds

    def running(health: devices.Health) -> bool:
        meters.underruns = health.underruns
        return time.monotonic() < until

    with contextlib.suppress(KeyboardInterrupt):
        health = devices.run(
            lambda samples: meters.limited(gains.mixed(separated(samples))),
            config.sample_rate,
            config.hop_length,
            input_device=options.input_device,
            output_device=options.output_device,
            running=running,
        )
        meters.underruns = health.underruns


def _bar(source: Array) -> str:
    level = 20 * math.log10(max(float(np.sqrt(np.mean(np.square(source)))), 1e-9))
    filled = round(_METER_WIDTH * min(1.0, max(0.0, 1 - level / _METER_FLOOR_DB)))
    return f"{'#' * filled:<{_METER_WIDTH}} {max(level, -99):4.0f} dB"
