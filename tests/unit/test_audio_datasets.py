"""Folders of recordings: decoding, splits, the cache, and every way in which a recording can be bad."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pytest
import soundfile

from vae_bss_tf.audio.recordings import Recording, describe, find, mono
from vae_bss_tf.config import AudioConfig
from vae_bss_tf.datasets import decoded, load_bank, recordings
from vae_bss_tf.errors import DataError

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=64, num_bins=32)

PITCHES = {f"{letter}{octave}": 300.0 + 100 * i + 40 * octave for octave in (4, 5) for i, letter in enumerate("ABCD")}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(folder))
    return folder


def tone(frequency: float, sample_rate: int, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * sample_rate)) / sample_rate)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Eight notes of two instruments, each at two loudnesses, in four formats and rates."""
    folder = tmp_path / "notes"
    forms = itertools.cycle([("wav", 44_100, 1), ("flac", 11_025, 2), ("ogg", 22_050, 1), ("mp3", 16_000, 2)])
    for instrument, pitch, level in itertools.product(["cello", "flute"], PITCHES, ["piano", "forte"]):
        suffix, rate, channels = next(forms)
        samples = np.tile(tone(PITCHES[pitch], rate)[:, None], (1, channels))
        path = folder / instrument / f"{instrument}_{pitch}_1_{level}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate)
    return folder


def test_every_format_rate_and_channel_count_decodes_to_the_same_note(notes: Path) -> None:
    bank = load_bank("notes", "train", notes, audio=AUDIO)
    paths = recordings.split_files(notes, "train")
    assert bank.items.shape == (len(paths), AUDIO.num_samples)
    assert bank.items.dtype == np.float32
    assert isinstance(bank.items, np.memmap)
    for path, item in zip(paths, bank.items, strict=True):
        assert np.abs(item).max() == pytest.approx(1)
        magnitude = np.abs(np.fft.rfft(item))
        pitch = path.stem.split("_")[1]
        assert np.argmax(magnitude) * 4_000 / AUDIO.num_samples == pytest.approx(PITCHES[pitch], abs=4)
    assert set(bank.labels) == {0, 1}


def test_recordings_to_train_on_are_heard_at_each_pitch_shift(notes: Path) -> None:
    shifts = (-3.0, 0.0, 2.0)
    shifted = load_bank("notes", "train", notes, audio=AUDIO.replace(pitch_shifts=shifts))
    plain = load_bank("notes", "train", notes, audio=AUDIO)
    assert np.array_equal(shifted.items[1::3], plain.items)
    assert np.array_equal(shifted.labels[::3], plain.labels)
    for i, shift in enumerate(shifts):
        for item, original in zip(shifted.items[i::3], plain.items, strict=True):
            pitch, expected = (np.argmax(np.abs(np.fft.rfft(x, 1 << 16))) for x in (item, original))
            assert 12 * np.log2(pitch / expected) == pytest.approx(shift, abs=0.1)
    for split in ("validation", "test"):
        heard = load_bank("notes", split, notes, audio=AUDIO.replace(pitch_shifts=shifts))
        assert np.array_equal(heard.items, load_bank("notes", split, notes, audio=AUDIO).items)


def test_two_that_decode_the_same_do_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path))
    done, begun = [], threading.Event()

    def decode(item: int) -> Iterator[np.ndarray]:
        begun.set()
        time.sleep(0.05)
        done.append(item)
        yield np.full(4, item, np.float32)

    def both() -> tuple[np.ndarray, np.ndarray]:
        return decoded.decoded(range(1, 6), decode, lambda item: 1, "same", 4)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(both)
        begun.wait()
        results = [both(), first.result()]
    assert done == [1, 2, 3, 4, 5]
    for waveforms, owners in results:
        assert np.array_equal(waveforms, np.repeat(np.arange(1, 6), 4).reshape(5, 4))
        assert np.array_equal(owners, range(5))


def test_another_process_may_make_the_folder_at_any_moment(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def raced(answer: Callable[[object], bool]) -> Callable[[object], bool]:
        def answered(path: object) -> bool:
            found = answer(path)
            if Path(str(path)).parent == cache:
                os.makedirs(str(path), exist_ok=True)
            return found

        return answered

    monkeypatch.setattr(os.path, "lexists", raced(os.path.lexists))
    monkeypatch.setattr(Path, "is_dir", raced(Path.is_dir))
    waveforms, _ = decoded.decoded([7], lambda item: iter([np.full(4, item, np.float32)]), lambda item: 1, "same", 4)
    assert waveforms.tolist() == [[7, 7, 7, 7]]


def test_resampling_agrees_with_librosa(notes: Path) -> None:
    path = notes / "cello" / "cello_A4_1_piano.wav"
    ours = np.concatenate(list(mono(describe(path), 5_512.5)))
    expected, _ = librosa.load(path, sr=5_512.5, mono=True)
    assert abs(len(ours) - len(expected)) <= 1
    length = min(len(ours), len(expected))
    assert np.abs(ours[:length] - expected[:length]).max() < 1e-3


def test_no_source_stands_in_two_splits(notes: Path) -> None:
    splits = {split: recordings.split_files(notes, split) for split in ("train", "validation", "test")}
    identities = {split: {recordings.identity(path) for path in paths} for split, paths in splits.items()}
    assert {split: len(names) for split, names in identities.items()} == {"train": 12, "validation": 2, "test": 2}
    assert sum(map(len, splits.values())) == 32
    for one, other in itertools.combinations(identities.values(), 2):
        assert not one & other
    assert splits == {split: recordings.split_files(notes, split) for split in splits}


def test_a_folder_of_train_and_test_keeps_its_own_splits(notes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    (notes / "cello").rename(folder / "train")
    (notes / "flute").rename(folder / "test")
    test = recordings.split_files(folder, "test")
    train, validation = recordings.split_files(folder, "train"), recordings.split_files(folder, "validation")
    assert {p.parent.name for p in test} == {"test"}
    assert {p.parent.name for p in train + validation} == {"train"}
    assert (len(train), len(validation), len(test)) == (12, 4, 16)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bass-clarinet_As3_15_forte.flac", "bass-clarinet_As3"),
        ("bass_acoustic_000-024-050.wav", "bass_acoustic_000_024"),
        ("Violin bowed C4.wav", "Violin bowed C4"),
        ("take_2.wav", "take_2"),
    ],
)
def test_identity_is_instrument_and_pitch_or_the_name(name: str, expected: str) -> None:
    assert recordings.identity(Path(name)) == expected


def test_decoding_happens_once_and_resumes_where_it_stopped(
    notes: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = np.array(load_bank("notes", "train", notes, audio=AUDIO).items)
    heard = []

    def counting(recording: Recording, sample_rate: float) -> Iterator[np.ndarray]:
        heard.append(recording.path)
        if len(heard) == 7:
            raise KeyboardInterrupt
        return mono(recording, sample_rate)

    monkeypatch.setattr(recordings, "mono", counting)
    monkeypatch.setattr(decoded, "SAVE_EVERY", 3)
    assert np.array_equal(load_bank("notes", "train", notes, audio=AUDIO).items, expected)
    assert not heard
    longer = AUDIO.replace(num_frames=128)
    with pytest.raises(KeyboardInterrupt):
        load_bank("notes", "train", notes, audio=longer)
    items = load_bank("notes", "train", notes, audio=longer).items
    assert len(heard) == 7 + len(items) - 6
    assert not list(notes.rglob("*.npy"))
    assert len(list(cache.iterdir())) == 2
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(cache / "anew"))
    assert np.array_equal(load_bank("notes", "train", notes, audio=longer).items, items)


def test_a_disk_without_space_is_said(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))
    with pytest.raises(DataError, match=f"no space left.*{decoded.CACHE_VARIABLE}"):
        load_bank("notes", "train", notes, audio=AUDIO)


def test_recordings_of_mixtures_are_cut_into_windows(tmp_path: Path) -> None:
    for i in range(8):
        samples = np.concatenate([tone(400 + 50 * i, 8_000, 0.6), np.zeros(8_000), tone(300, 8_000, 0.2)])
        soundfile.write(tmp_path / f"take_{i}.wav", samples, 8_000)
    bank = load_bank("mixtures", "train", tmp_path, audio=AUDIO)
    # 1.8 s make 8 windows of 0.256 s, of which those in the second of silence are left out.
    assert np.bincount(bank.labels).tolist() == [5, 5, 5, 5]
    assert bank.items.shape == (20, AUDIO.num_samples)
    path = recordings.split_files(tmp_path, "train")[0]
    whole = np.concatenate(list(mono(describe(path), 4_000)))
    assert np.array_equal(bank.items[:3].ravel(), whole[: 3 * AUDIO.num_samples])


def write_noise(path: Path, **options: object) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.5, 0.5, 8_000), 8_000, **options)


def truncated_flac(path: Path) -> None:
    write_noise(path.with_suffix(".flac"))
    content = path.with_suffix(".flac").read_bytes()
    path.with_suffix(".flac").write_bytes(content[: len(content) // 2])


def nan_samples(path: Path) -> None:
    soundfile.write(path, np.full(8_000, np.nan), 8_000, subtype="FLOAT")


BAD = {
    "is empty": Path.touch,
    "is silent": lambda path: soundfile.write(path, np.zeros(8_000), 8_000),
    "cannot be read as audio": lambda path: path.write_bytes(b"no audio at all"),
    "is damaged|is truncated": truncated_flac,
    "NaN": nan_samples,
    "1 samples": lambda path: soundfile.write(path, np.ones(1), 8_000),
}


@pytest.mark.parametrize(("message", "spoil"), BAD.items(), ids=list(BAD))
def test_a_bad_recording_is_named(notes: Path, message: str, spoil: Callable[[Path], object]) -> None:
    for split in ("train", "test"):
        (notes / split).mkdir()
    (notes / "cello").rename(notes / "train" / "cello")
    spoil(notes / "test" / "spoilt.wav")
    with pytest.raises(DataError, match=message) as error:
        load_bank("notes", "test", notes, audio=AUDIO)
    assert "spoilt" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_of_two_files_is_refused(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.wav")
    write_noise(tmp_path / "b.wav")
    with pytest.raises(DataError, match=r"2 recordings of 2 sources.*at least 8"):
        load_bank("notes", "train", tmp_path)


@pytest.mark.parametrize("dataset", ["notes", "mixtures"])
def test_a_missing_folder_is_refused(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_bank(dataset, "train", tmp_path / "nowhere")
    with pytest.raises(DataError, match="needs --data-dir"):
        load_bank(dataset, "train")


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(DataError, match="holds no recording"):
        load_bank("notes", "train", tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fewer_rows(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["counts"][-1] = 0
    (folder / "index.json").write_text(json.dumps(index))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "index truncated": lambda folder: truncate(folder / "index.json"),
    "index of no text": lambda folder: (folder / "index.json").write_bytes(b"\xff\x00"),
    "index of another kind": lambda folder: (folder / "index.json").write_text("[1, 2]"),
    "index of a row less": fewer_rows,
    "array missing": lambda folder: (folder / "waveforms.npy").unlink(),
    "array truncated": lambda folder: truncate(folder / "waveforms.npy"),
    "array empty": lambda folder: (folder / "waveforms.npy").write_bytes(b""),
    "array of fewer rows": lambda folder: np.save(folder / "waveforms.npy", np.zeros((3, 4), np.float32)),
    "array of another type": lambda folder: np.save(folder / "waveforms.npy", np.zeros((10, 4), np.float64)),
    "array of objects": lambda folder: np.save(folder / "waveforms.npy", np.array([{}]), allow_pickle=True),
    "array a folder": lambda folder: ((folder / "waveforms.npy").unlink(), (folder / "waveforms.npy").mkdir()),
    "a file in place of the folder": lambda folder: (shutil.rmtree(folder), folder.touch()),
}


def test_long_items_are_saved_each_and_the_disk_is_looked_at_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "SAVE_SECONDS", 0.0)
    seen: list[int] = []

    def decode(item: int) -> Iterator[np.ndarray]:
        if item == 3 and not seen.count(3):
            seen.append(item)
            raise KeyboardInterrupt
        seen.append(item)
        yield np.full(4, item, np.float32)

    def load() -> tuple[np.ndarray, np.ndarray]:
        return decoded.decoded(range(1, 6), decode, lambda item: 1, "long", 4)

    with pytest.raises(KeyboardInterrupt):
        load()
    with monkeypatch.context() as full:
        full.setattr(decoded.shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
        with pytest.raises(DataError, match="no space left"):
            load()
    assert load()[0][:, 0].tolist() == [1, 2, 3, 4, 5]
    assert seen == [1, 2, 3, 3, 4, 5]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_cache_is_made_again(cache: Path, damage: Callable[[Path], object], finished: bool,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(decoded, "SAVE_EVERY", 1)

    def decode(item: int) -> Iterator[np.ndarray]:
        yield from np.full((2, 4), item, np.float32)

    def interrupted(item: int) -> Iterator[np.ndarray]:
        if item == 4:
            raise KeyboardInterrupt
        return decode(item)

    def load(decode: Callable[[int], Iterator[np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        return decoded.decoded(range(1, 6), decode, lambda item: 2, "same", 4)

    with contextlib.suppress(KeyboardInterrupt):
        load(decode if finished else interrupted)
    [folder] = cache.iterdir()
    if not finished:
        (folder / "progress.json").rename(folder / "index.json")
    damage(folder)
    if not finished and (folder / "index.json").exists():
        (folder / "index.json").rename(folder / "progress.json")
    for _ in range(2):
        waveforms, owners = load(decode)
        assert np.array_equal(waveforms[:, 0], np.repeat(np.arange(1, 6), 2))
        assert np.array_equal(owners, np.repeat(np.arange(5), 2))


def test_without_a_home_folder_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv(decoded.CACHE_VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(DataError, match=decoded.CACHE_VARIABLE):
        decoded.cache_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert decoded.cache_dir() == Path("/somewhere/vae-bss-tf")


def test_a_folder_inside_that_cannot_be_read_is_named(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("flute"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"flute cannot be read \(Permission denied\)"):
        find(notes)


def test_mixtures_of_one_name_in_folders_of_their_own_are_split(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"take{i}").mkdir()
        soundfile.write(tmp_path / f"take{i}" / "mixture.wav", np.full(4_000, 0.1), 4_000)
    splits = [recordings.split_files(tmp_path, split, of_mixtures=True) for split in ("train", "validation", "test")]
    assert [len(files) for files in splits] == [6, 2, 2]
    assert len(set(itertools.chain(*splits))) == 10
    with pytest.raises(DataError, match="10 recordings of 1 sources"):
        recordings.split_files(tmp_path, "train")
