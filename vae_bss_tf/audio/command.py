"""Separation of recordings on the command line; `vae_bss_tf.separate` is the command."""

import argparse
import collections
import functools
import itertools
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from vae_bss_tf.audio import recordings, stems
from vae_bss_tf.audio.familiarity import Familiarity
from vae_bss_tf.audio.overlap_add import hop_length
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.audio.stems import SeparatedFile
from vae_bss_tf.errors import ConfigError, DataError
from vae_bss_tf.files import refuse_existing, replacing
from vae_bss_tf.runtime.remote.options import ServerOptions
from vae_bss_tf.startup import silenced

_PICTURED_SECONDS = 30
_DOUBTFUL = 0.7  # share of windows of a sure order
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total:.0f} s of sound, {remaining} left"


def separate_recordings(options: argparse.Namespace, server: ServerOptions | None) -> None:
    """Separates the recordings that the command names.

    Args:
        options: As the command's parser gives them.
        server: Deadline and manifest for a model on a server; None takes the defaults.

    Raises:
        VaeBssError: A recording, the model or an option is bad, or a file to write exists.
    """
    found = [recordings.describe(path, allow_truncated=options.allow_truncated) for path in _inputs(options)]
    for recording in found:
        recordings.check_channels(str(recording.path), recording.num_channels)
    suffixes = [stems.choose_format(recording, options.format) for recording in found]
    gains = None if options.gains is None else _gains(options.gains)
    if options.figure:
        import matplotlib  # noqa: F401 - a missing library is told before anything is computed
    with silenced():
        separator = Separator.load(options.model, server=server)
    for recording, suffix in zip(found, suffixes, strict=True):
        places, remix = stems.places(recording, options.output, separator.num_sources, suffix)
        figures = [_figure_place(recording.path, options.output)] if options.figure else []
        refuse_existing([*places, *figures, *([] if gains is None else [remix])], force=options.force)
    options.output.mkdir(parents=True, exist_ok=True)
    corrected = "" if separator.context is None else ", corrected by its context network"
    print(f"model: {options.model}, {separator.num_sources} sources{corrected}")
    print(f"writing to: {options.output}", flush=True)
    if any(recording.sample_rate > separator.audio.sample_rate for recording in found):
        print(
            f"the model hears up to {separator.audio.highest_frequency:,.0f} Hz; what is above is shared out by energy"
        )
    left_out = 0
    for recording in found:
        try:
            with tqdm(total=recording.seconds, desc=recording.path.name, bar_format=_BAR, disable=options.quiet) as bar:
                result = separator.separate_file(
                    recording.path,
                    options.output,
                    file_format=options.format,
                    gains_db=gains,
                    skip_silent=options.skip_silent,
                    allow_truncated=options.allow_truncated,
                    force=options.force,
                    progress=functools.partial(_advance, bar),
                )
        except DataError as error:
            if len(found) == 1:
                raise
            left_out += 1
            print(f"left out: {error}", file=sys.stderr)
            continue
        _report(recording.path, result, separator.usual)
        if options.figure:
            place = _figure_place(recording.path, options.output)
            _save_figure(recording.path, result, separator, place)
            print(f"  {place}")
    if left_out:
        raise DataError(f"{left_out} of {len(found)} recordings were left out; see above.")
    print(f"next: listen to {options.output}" + ("; --gains 0,-inf writes a remix" if gains is None else ""))


def _advance(bar: tqdm, seconds: float) -> None:
    bar.update(min(seconds, bar.total - bar.n))  # the sum of rounded parts may exceed the total


def _figure_place(path: Path, output: Path) -> Path:
    return output / f"{path.stem}_sources.png"


def _inputs(options: argparse.Namespace) -> list[Path]:
    given = ((recordings.find(p, output=options.output) if p.is_dir() else [p]) for p in options.inputs)
    paths = list(itertools.chain.from_iterable(given))
    repeated = [stem for stem, count in collections.Counter(path.stem for path in paths).items() if count > 1]
    if repeated:
        raise DataError(
            f"several inputs are named {repeated[0]!r}; separate them one by one into folders of their own."
        )
    return paths


def _gains(text: str) -> tuple[float, ...]:
    try:
        gains = tuple(float(part) for part in text.split(","))
    except ValueError:
        gains = (float("nan"),)
    if not all(gain < float("inf") for gain in gains):  # NaN included
        raise ConfigError(f"gains {text!r} are not numbers in dB with commas between, such as 0,-6,-inf.")
    return gains


def _report(path: Path, result: SeparatedFile, usual: Familiarity) -> None:
    print(path)
    for k, level in enumerate(result.levels, start=1):
        if k in result.sources:
            print(f"  {result.sources[k]}  {level:+.1f} dB against the recording")
        else:
            print(f"  source {k} is silent ({level:+.1f} dB against the recording) and was left out")
    if result.remix is not None:
        print(f"  {result.remix}")
    if result.sure is not None:
        print(f"  each file keeps to one source for sure in {result.sure:.0%} of the windows; suspected exchanges: "
              f"{result.suspected_exchanges}")  # fmt: skip
    if result.familiarity is not None:
        _report_familiarity(path, result.familiarity, usual)
    if result.sure is not None and result.sure < _DOUBTFUL:
        print(f"warning: in {1 - result.sure:.0%} of {path} the sources may have changed places; the model may not "
              "know such recordings.", file=sys.stderr)  # fmt: skip
    if result.clipped:
        print(f"warning: {result.clipped} samples exceeded full scale and were clipped; use --format wav on a "
              "recording of floats, or a quieter one.", file=sys.stderr)  # fmt: skip


def _report_familiarity(path: Path, known: Familiarity, usual: Familiarity) -> None:
    if known.sum_si_sdr is not None:
        expected = "" if usual.sum_si_sdr is None else f" (in training {usual.sum_si_sdr:.1f} dB)"
        print(f"  sum of the model's estimates against the recording: SI-SDR {known.sum_si_sdr:.1f} dB{expected}")
    if known.remix_si_sdri is not None:
        print(f"  separating remixes of these sources: SI-SDRi {known.remix_si_sdri:.1f} dB (nothing separated: 0)")
    if doubts := known.doubts(usual):
        print(f"warning: {path} is not what the model knows: {', and '.join(doubts)}. Its sources may be wrong.",
              file=sys.stderr)  # fmt: skip


def _save_figure(path: Path, result: SeparatedFile, separator: Separator, place: Path) -> None:
    from vae_bss_tf.audio.figures import spectrograms

    audio = separator.audio
    files = {"mixture": path, **{f"source {k}": source for k, source in result.sources.items()}}
    waveforms = {title: _beginning(file, audio.sample_rate) for title, file in files.items()}
    hop = hop_length(audio.num_samples) / audio.sample_rate
    certainty = None if result.certainty is None else (result.certainty, hop)
    figure = spectrograms(
        waveforms, audio.sample_rate, n_fft=audio.n_fft, hop_length=audio.hop_length, certainty=certainty
    )
    if result.familiarity is not None and (doubts := result.familiarity.doubts(separator.usual)):
        figure.suptitle("\n".join(["The model does not know such recordings:", *doubts]), fontsize="medium")
    with replacing(place) as partial:
        figure.savefig(partial)


def _beginning(path: Path, rate: float) -> npt.NDArray[np.float32]:
    """The first seconds of a recording at another rate: float32 `[samples]`."""
    waveform, missing = [np.zeros(0, np.float32)], int(_PICTURED_SECONDS * rate)
    for block in recordings.mono(recordings.describe(path, allow_truncated=True), rate):
        waveform.append(block[:missing])
        missing -= len(waveform[-1])
        if missing == 0:
            break
    return np.concatenate(waveform)
