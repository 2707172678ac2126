"""The separator on waveforms and files: length, rate, channels, sums, order of the sources, memory, bad input."""

import contextlib
import dataclasses
import itertools
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vae_bss_tf.audio import separator, stems
from vae_bss_tf.audio.recordings import Recording
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.audio.stems import SeparatedFile
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.errors import ConfigError, DataError, OutputExistsError

AUDIO = AudioConfig(sample_rate=4_000, n_fft=256, hop_length=64, num_frames=32, num_bins=128)


class BandSplit:
    """Gives the bins below 500 Hz to one source and the others to the next, in an order that changes each time."""

    def __init__(self, num_sources: int = 2, alternate: bool = True) -> None:
        self.num_sources = num_sources
        self.calls = itertools.count()
        self.alternate = alternate

    def separate(self, mixtures: np.ndarray) -> np.ndarray:
        frames, bins = AUDIO.feature_shape
        sources = np.zeros((len(mixtures), self.num_sources, frames, bins), np.float32)
        low = np.arange(bins) * AUDIO.sample_rate / AUDIO.n_fft < 500
        for separated, mixture in zip(sources, mixtures, strict=True):
            first = next(self.calls) % 2 if self.alternate else 0
            separated[first] = mixture * low
            separated[1 - first] = mixture * ~low
        return sources


@pytest.fixture
def two_bands() -> Separator:
    return Separator(BandSplit(), AUDIO)


def chord(sample_rate: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * 0.7 * time)
    low, high = 0.3 * np.sin(2 * np.pi * 220 * time) * swell, 0.3 * np.sin(2 * np.pi * 1_200 * time)
    return low.astype(np.float32), high.astype(np.float32)


@pytest.mark.parametrize("sample_rate", [4_000, 8_000, 11_025, 44_100, 48_000])
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.6, 5.13])
def test_length_and_sum_are_the_inputs(two_bands: Separator, sample_rate: int, seconds: float) -> None:
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, int(sample_rate * seconds) + 1).astype(np.float32)
    sources = two_bands.separate(waveform, sample_rate)
    assert sources.shape == (2, len(waveform))
    assert sources.dtype == np.float32
    assert np.abs(sources.sum(axis=0) - waveform).max() < 1e-5


@pytest.mark.parametrize(("sample_rate", "num_sources"), [(4_000, 2), (44_100, 2), (4_000, 7)])
def test_sources_keep_their_order_from_window_to_window(sample_rate: int, num_sources: int) -> None:
    low, high = chord(sample_rate, 40)
    sources = Separator(BandSplit(num_sources), AUDIO).separate(low + high, sample_rate)
    inner = slice(sample_rate // 10, -sample_rate // 10)
    error = min(np.abs(sources[order] - [low, high])[:, inner].max() for order in ([0, 1], [1, 0]))
    assert error < 0.01


def test_block_lengths_do_not_matter(two_bands: Separator) -> None:
    waveform = np.random.default_rng(1).uniform(-0.5, 0.5, (30_000, 1)).astype(np.float32)

    def blocks(length: int) -> Iterator[np.ndarray]:
        return (waveform[i : i + length] for i in range(0, len(waveform), length))

    whole, pieces = (
        np.concatenate(list(Separator(BandSplit(alternate=False), AUDIO).stream(blocks(n), 8_000, 1, "it")))
        for n in (30_000, 777)
    )
    assert whole.shape == (30_000, 2, 1)
    assert np.abs(whole - pieces).max() < 1e-6


@pytest.mark.parametrize("sample_rate", [8_000, 44_100])
def test_a_stream_is_answered_after_one_window_and_stays_close(two_bands: Separator, sample_rate: int) -> None:
    waveform = np.random.default_rng(1).uniform(-0.5, 0.5, (20 * sample_rate, 1)).astype(np.float32)
    read, written, latest = 0, 0, []

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        for block in np.split(waveform, 1_000):  # of 20 ms
            read += len(block)
            yield block

    for block in two_bands.stream(blocks(), sample_rate, 1):
        if len(block):
            latest.append((read - written) / sample_rate)
            written += len(block)
    window = AUDIO.num_samples / AUDIO.sample_rate
    assert written == len(waveform)
    assert latest[0] < window + 0.2
    assert max(latest) < 1.5 * window + 0.4


def test_channels_are_separated_by_one_mask(two_bands: Separator) -> None:
    low, high = chord(8_000, 3)
    sources = two_bands.separate(np.stack([low + high, 0.5 * low]), 8_000)
    assert sources.shape == (2, 2, 24_000)
    order = np.argsort([np.abs(np.fft.rfft(source[0]))[:1_500].sum() for source in sources])[::-1]
    inner = slice(800, -800)
    assert np.abs(sources[order[0]] - [low, 0.5 * low])[:, inner].max() < 0.01
    assert np.abs(sources[order[1]] - [high, 0 * high])[:, inner].max() < 0.01


def test_what_the_model_cannot_hear_follows_the_louder_source(two_bands: Separator) -> None:
    low, _ = chord(44_100, 3)
    hiss = 0.01 * np.sin(2 * np.pi * 9_000 * np.arange(len(low)) / 44_100)
    sources = two_bands.separate(low + hiss, 44_100)
    levels = np.abs(np.fft.rfft(sources[:, 44_100:88_200]))[:, 9_000]
    assert levels.max() > 100 * levels.min()


def write(path: Path, samples: np.ndarray, sample_rate: int = 8_000, **options: str) -> Path:
    soundfile.write(path, samples, sample_rate, **options)
    return path


@pytest.mark.parametrize(("suffix", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24")])
def test_files_keep_rate_channels_length_and_coding(
    two_bands: Separator, tmp_path: Path, suffix: str, subtype: str
) -> None:
    low, high = chord(11_025, 2.3)
    path = write(tmp_path / f"duet.{suffix}", np.stack([low + high, low], axis=1), 11_025, subtype=subtype)
    seconds: list[float] = []
    result = two_bands.separate_file(path, tmp_path / "stems", progress=seconds.append)
    assert [p.name for p in result.sources.values()] == [f"duet_source1.{suffix}", f"duet_source2.{suffix}"]
    assert sum(seconds) == pytest.approx(2.3, abs=1e-3)
    info = [soundfile.info(p) for p in result.sources.values()]
    assert {(i.samplerate, i.channels, i.frames, i.subtype) for i in info} == {(11_025, 2, len(low), subtype)}
    sources = [soundfile.read(p)[0] for p in result.sources.values()]
    assert np.abs(sum(sources) - soundfile.read(path)[0]).max() < 1e-4
    assert sorted(p.name for p in (tmp_path / "stems").iterdir()) == sorted(p.name for p in result.sources.values())


@pytest.mark.parametrize(("file_format", "expected"), [("flac", "FLAC"), ("ogg", "OGG"), ("mp3", "MP3")])
def test_another_format_can_be_asked_for(two_bands: Separator, tmp_path: Path, file_format: str, expected: str) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(16_000, 1)), 16_000)
    result = two_bands.separate_file(path, tmp_path, file_format=file_format)
    assert {soundfile.info(p).format for p in result.sources.values()} == {expected}
    assert {p.suffix for p in result.sources.values()} == {f".{file_format}"}


def test_a_remix_is_the_weighted_sum(two_bands: Separator, tmp_path: Path) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(8_000, 2)), subtype="FLOAT")
    result = two_bands.separate_file(path, tmp_path, gains_db=(-6, float("-inf")))
    first = soundfile.read(result.sources[1])[0]
    assert result.remix is not None
    assert np.abs(soundfile.read(result.remix)[0] - first * 10 ** (-6 / 20)).max() < 1e-6
    with pytest.raises(ConfigError, match="3 gains were given; the model has 2 sources"):
        two_bands.separate_file(path, tmp_path, gains_db=(0, 0, 0), force=True)


@pytest.mark.parametrize("gain", [1e308, 101, float("inf"), float("nan")])
def test_gains_out_of_range_are_refused(two_bands: Separator, tmp_path: Path, gain: float) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(8_000, 0.5)))
    with pytest.raises(ConfigError, match="the largest allowed is 100"):
        two_bands.separate_file(path, tmp_path, gains_db=(0, gain))
    assert os.listdir(tmp_path) == ["duet.wav"]


def test_silent_sources_are_left_out_on_demand(tmp_path: Path) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(8_000, 2)))
    three = Separator(BandSplit(3), AUDIO)
    result = three.separate_file(path, tmp_path / "stems", skip_silent=True)
    assert sorted(result.sources) == [1, 2]
    assert result.levels[2] < separator.SILENT_SOURCE_DB
    assert len(list((tmp_path / "stems").iterdir())) == 2


def test_existing_files_are_not_overwritten(two_bands: Separator, tmp_path: Path) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(8_000, 1)))
    two_bands.separate_file(path, tmp_path)
    with pytest.raises(OutputExistsError, match="--force"):
        two_bands.separate_file(path, tmp_path)
    two_bands.separate_file(path, tmp_path, force=True)
    (tmp_path / "duet_source1.wav").unlink()
    (tmp_path / "duet_source1.wav").symlink_to("nowhere")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="duet_source1"):
            two_bands.separate_file(path, tmp_path, force=force)
    assert os.readlink(tmp_path / "duet_source1.wav") == "nowhere"


@contextlib.contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Writing to a file beyond a size fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file_format", stems.FORMATS)
def test_a_disk_that_fills_up_is_told_and_leaves_nothing(
    two_bands: Separator, tmp_path: Path, file_format: str
) -> None:
    path = write(tmp_path / "duet.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), 16_000)
    whole = two_bands.separate_file(path, tmp_path / "whole", file_format=file_format)
    size = min(place.stat().st_size for place in whole.sources.values())
    for limit in (size - 1, size - 100, size // 2, 64, 0):
        with largest_file(limit), pytest.raises(DataError, match=r"could not be written in full; free space"):
            two_bands.separate_file(path, tmp_path / "stems", file_format=file_format)
        assert not list((tmp_path / "stems").iterdir())


@pytest.mark.parametrize("file_format", stems.FORMATS)
@pytest.mark.parametrize("num_samples", [801, 1_152, 4_096, 10_007])
def test_every_format_holds_every_sample(
    two_bands: Separator, tmp_path: Path, file_format: str, num_samples: int
) -> None:
    path = write(tmp_path / "duet.wav", np.random.default_rng(0).uniform(-0.5, 0.5, num_samples))
    result = two_bands.separate_file(path, tmp_path / "stems", file_format=file_format)
    assert {len(soundfile.read(place)[0]) for place in result.sources.values()} == {num_samples}


@pytest.mark.parametrize(
    ("file_format", "rate"),
    [("ogg", 200_001), ("ogg", 250_000), ("mp3", 96_000), ("mp3", 5_512), ("flac", 655_360), ("flac", 70_001)],
)
def test_rates_that_a_format_cannot_hold_are_refused(
    two_bands: Separator, tmp_path: Path, file_format: str, rate: int
) -> None:
    path = write(tmp_path / "duet.wav", np.full(rate // 5, 0.1), rate)
    with pytest.raises(ConfigError, match=f"{rate:,} Hz, which {file_format} cannot hold; use --format wav"):
        two_bands.separate_file(path, tmp_path / "stems", file_format=file_format)
    assert not (tmp_path / "stems").exists()


@pytest.mark.parametrize(("file_format", "rate"), [("ogg", 200_000), ("flac", 655_350), ("mp3", 48_000)])
def test_the_largest_rate_of_a_format_works(two_bands: Separator, tmp_path: Path, file_format: str, rate: int) -> None:
    path = write(tmp_path / "duet.wav", np.random.default_rng(0).uniform(-0.5, 0.5, rate // 5), rate)
    result = two_bands.separate_file(path, tmp_path / "stems", file_format=file_format)
    assert {soundfile.info(place).samplerate for place in result.sources.values()} == {rate}


def test_a_stream_keeps_its_own_copy_of_a_block(two_bands: Separator) -> None:
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, (20_000, 1)).astype(np.float32)
    buffer = np.zeros((1_000, 1), np.float32)

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, len(waveform), len(buffer)):
            buffer[:] = waveform[first : first + len(buffer)]
            yield buffer

    sources = np.concatenate(list(two_bands.stream(blocks(), 4_000, 1)))
    np.testing.assert_allclose(sources.sum(axis=1), waveform, atol=1e-5)


@pytest.mark.parametrize("subtype", ["ULAW", "ALAW", "IMA_ADPCM", "GSM610", "PCM_16"])
def test_every_coding_is_clipped_and_read_back(tmp_path: Path, subtype: str) -> None:
    """The logarithmic ones wrap round above full scale, and those of groups of samples become PCM."""
    block = np.linspace(-3, 3, 16_000, dtype=np.float32)[:, np.newaxis]
    recording = Recording(tmp_path / "given.wav", 8_000, 1, len(block), "WAV", subtype)
    with stems.StemFile(tmp_path / "written.wav", recording, "wav") as stem:
        stem.write(block)
        stem.finish()
    assert stem.clipped == (np.abs(block) > 1).sum()
    found, _ = soundfile.read(tmp_path / "written.wav")
    np.testing.assert_allclose(found, np.clip(block[:, 0], -1, 1), atol=0.03)
    assert soundfile.info(tmp_path / "written.wav").subtype == (subtype if "LAW" in subtype else "PCM_16")


@pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64", "AIFF"])
def test_truncated_recordings_are_refused_unless_allowed(two_bands: Separator, tmp_path: Path, container: str) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(8_000, 2)), format=container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"is truncated: it holds (49|50).*% of the samples.*--allow-truncated"):
        two_bands.separate_file(path, tmp_path / "stems")
    assert not (tmp_path / "stems").exists()
    result = two_bands.separate_file(path, tmp_path / "stems", allow_truncated=True, file_format="wav")
    assert soundfile.info(result.sources[1]).frames == pytest.approx(8_000, abs=50)


def test_an_ogg_file_without_its_end_is_refused_unless_allowed(two_bands: Separator, tmp_path: Path) -> None:
    path = write(tmp_path / "duet.ogg", sum(chord(40_000, 2)), format="OGG")
    assert two_bands.separate_file(path, tmp_path / "whole").sources
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"is truncated: it lacks the last page.*--allow-truncated"):
            two_bands.separate_file(path, tmp_path / "stems")
    result = two_bands.separate_file(path, tmp_path / "stems", allow_truncated=True, file_format="wav")
    assert soundfile.info(result.sources[1]).frames > 8_000


def test_an_ogg_file_may_end_in_a_page_that_holds_nothing(two_bands: Separator, tmp_path: Path) -> None:
    """RFC 3533, section 4: the end of a stream may be a page of its own, without a segment."""

    def sealed(page: bytearray) -> bytes:
        page[22:26], checksum = bytes(4), 0
        for byte in page:
            checksum ^= byte << 24
            for _ in range(8):
                checksum = (checksum << 1 ^ 0x04C11DB7 * (checksum >> 31)) & 0xFFFFFFFF
        page[22:26] = checksum.to_bytes(4, "little")
        return bytes(page)

    path = write(tmp_path / "duet.ogg", sum(chord(40_000, 2)), format="OGG")
    content = path.read_bytes()
    start = content.rfind(b"OggS")
    last = bytearray(content[start:])
    assert sealed(bytearray(last)) == last
    end = last[:27]
    end[18:22], end[26] = (int.from_bytes(end[18:22], "little") + 1).to_bytes(4, "little"), 0
    last[5] &= ~4
    path.write_bytes(content[:start] + sealed(last) + sealed(end))
    result = two_bands.separate_file(path, tmp_path / "stems", file_format="wav")
    assert soundfile.info(result.sources[1]).frames == 80_000


def test_stems_that_a_header_cannot_hold_are_written_otherwise_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stems, "MAX_BYTES", 10_000)
    block = np.zeros((1_500, 1), np.float32)
    for subtype, container in (("DOUBLE", "RF64"), ("FLOAT", "WAV"), ("PCM_16", "WAV")):
        recording = Recording(tmp_path / "a", 8_000, 1, len(block), "WAV", subtype)
        with stems.StemFile(tmp_path / "a.wav", recording, "wav") as stem:
            stem.write(block)
            stem.finish()
        assert soundfile.info(tmp_path / "a.wav").format == container
        assert soundfile.info(tmp_path / "a.wav").subtype == subtype
    assert stems.choose_format(recording, "aif") == "aif"
    longer = dataclasses.replace(recording, num_samples=6_000)
    with pytest.raises(ConfigError, match="longer than aif can hold; use --format wav"):
        stems.choose_format(longer, "aif")


@pytest.mark.parametrize(
    "block", [np.ones((9, 1)), np.ones((9, 1), np.int16), [[0.0]]], ids=["float64", "int16", "list"]
)
def test_a_block_of_another_type_is_refused(two_bands: Separator, block: np.ndarray) -> None:
    with pytest.raises(DataError, match="give float32 arrays"):
        list(two_bands.stream([block], 8_000, 1))


def test_a_header_of_unknown_length_is_no_truncation(two_bands: Separator, tmp_path: Path) -> None:
    path = write(tmp_path / "duet.wav", sum(chord(8_000, 2)))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff\xff\xff\xff"  # as programs write to a pipe
    path.write_bytes(content)
    result = two_bands.separate_file(path, tmp_path / "stems")
    assert soundfile.info(result.sources[1]).frames == 16_000


def test_memory_does_not_grow_with_the_recording() -> None:
    read = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal read
        rng = np.random.default_rng(2)
        for _ in range(200):
            read += 80_000
            yield rng.uniform(-0.1, 0.1, (80_000, 1)).astype(np.float32)

    written, furthest = 0, 0
    for block in Separator(BandSplit(), AUDIO).stream(blocks(), 8_000, 1, "it"):
        written += len(block)
        furthest = max(furthest, read - written)
    assert written == 200 * 80_000
    assert furthest < 5 * 80_000


def truncated(path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 80_000)
    write(path.with_name("whole.flac"), noise)
    content = path.with_name("whole.flac").read_bytes()
    path.write_bytes(content[: len(content) // 2])


BAD: dict[str, Callable[[Path], object]] = {
    "empty": Path.touch,
    "is silent": lambda path: write(path, np.zeros(8_000)),
    "cannot be read as audio": lambda path: path.write_bytes(b"no audio at all"),
    "damaged|truncated": truncated,
    "NaN": lambda path: write(path, np.where(np.arange(8_000) == 7_000, np.nan, 0.1), subtype="FLOAT"),
    "8 channels": lambda path: write(path, np.full((8_000, 8), 0.1)),
    "1 samples": lambda path: write(path, np.ones(1)),
    "no file": lambda path: None,
}


@pytest.mark.parametrize(("message", "spoil"), BAD.items(), ids=list(BAD))
def test_bad_recordings_are_refused_and_nothing_is_left_behind(
    two_bands: Separator, tmp_path: Path, message: str, spoil: Callable[[Path], object]
) -> None:
    path = tmp_path / ("bad.flac" if spoil is truncated else "bad.wav")
    spoil(path)
    with pytest.raises(DataError, match=message) as error:
        two_bands.separate_file(path, tmp_path / "stems")
    assert "bad" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "stems").glob("*"))


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(8_000), "silent"),
        (np.outer([1, -1], np.ones(8_000)), "cancel each other out"),
        (np.outer([1, -1], np.ones(8_000)) + np.outer([0, 2**-15], np.ones(8_000)), "cancel each other out"),
        (np.ones((8, 8_000)), "8 channels"),
        (np.ones(1), "1 samples"),
        (np.full(8_000, np.nan), "NaN"),
        (np.ones((1, 1, 8_000)), "shape"),
        (np.full(8_000, 1e18), "a sample of 1e\\+18"),
        (np.full(8_000, 1e300), "infinite"),
        (np.full(8_000, "a"), "real numbers"),
        (np.full(8_000, 1j), "real numbers"),
        (np.full(8_000, None), "real numbers"),
        ([[0.0], [0.0, 1.0]], "no array"),
        (0.5, "shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_waveforms_are_refused(two_bands: Separator, waveform: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        two_bands.separate(waveform, 8_000)


@pytest.mark.parametrize("rate", [0, -8_000, float("nan"), float("inf"), 1, 1e9, "8000", None, 8_000 + 0j])
def test_bad_rates_are_refused(two_bands: Separator, rate: object) -> None:
    waveform = np.full(8_000, 0.1, np.float32)
    with pytest.raises(DataError, match=r"sample rate of .* Hz; give 1,000 to 1,000,000"):
        two_bands.separate(waveform, rate)
    with pytest.raises(DataError, match="sample rate"):
        next(two_bands.stream(iter([waveform[:, None]]), rate, 1))


@pytest.mark.parametrize("rate", [1_000, 1_000_000, np.int64(8_000), np.float32(8_000)])
def test_the_limits_of_the_rate_work(two_bands: Separator, rate: float) -> None:
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, int(rate) // 5).astype(np.float32)
    assert two_bands.separate(waveform, rate).sum(axis=0) == pytest.approx(waveform, abs=1e-5)


def test_blocks_of_another_shape_or_of_nan_are_refused(two_bands: Separator) -> None:
    for block, message in ((np.ones(100), "shape"), (np.ones((100, 2)), "shape"), (np.full((9, 1), np.nan), "NaN")):
        with pytest.raises(DataError, match=message):
            list(two_bands.stream(iter([block.astype(np.float32)]), 8_000, 1))


def test_integers_of_16_bits_are_separated_at_their_own_scale(two_bands: Separator) -> None:
    waveform = (1e4 * sum(chord(8_000, 1))).astype(np.int16)
    assert two_bands.separate(waveform, 8_000).sum(axis=0) == pytest.approx(waveform, abs=0.1)


def test_long_stretches_of_a_doubtful_order_are_suspected_exchanges(tmp_path: Path) -> None:
    certainty = np.concatenate([np.ones(4), np.full(5, 0.94), [0.995], np.zeros(4), np.full(9, 0.96), np.zeros(8)])
    result = SeparatedFile({1: tmp_path}, None, (0.0,), 0, certainty, None)
    assert result.suspected_exchanges == 2
    assert result.sure == pytest.approx(5 / 31)
    unknown = SeparatedFile({1: tmp_path}, None, (0.0,), 0, None, None)
    assert unknown.sure is None
    assert unknown.suspected_exchanges is None


def test_a_recording_that_grows_while_it_is_read_is_told(two_bands: Separator, tmp_path: Path) -> None:
    path = tmp_path / "grows.wav"
    soundfile.write(path, chord(8_000, 4.0)[0], 8_000)
    longer = chord(8_000, 9.0)[0]
    find_orders = two_bands.find_orders

    def written_meanwhile(*words: object) -> object:
        found = find_orders(*words)
        soundfile.write(path, longer, 8_000)
        return found

    two_bands.find_orders = written_meanwhile
    with pytest.raises(DataError, match="longer while it was read"):
        two_bands.separate_file(path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
