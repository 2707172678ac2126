"""`python -m training.context`: from a run and a folder of mixtures to corrected sources, by every way to separate."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from export import __main__ as export
from training import evaluate
from training.context import remixes, trainer
from training.context.__main__ import main
from training.fit import train
from training.run import Run
from vae_bss_tf import separate
from vae_bss_tf.audio.context import ContextConfig
from vae_bss_tf.audio.separator import Separator
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.datasets import decoded
from vae_bss_tf.errors import DataError
from vae_bss_tf.phases import Phase, Recipe

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4, power=0.5)
PRESET = Preset(
    ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=3, network="spectrogram", hidden_units=(16, 16, 12)),
    DataConfig("mixtures", (1,)),
    Recipe(
        epochs=1,
        mixtures_per_epoch=128,
        validation_mixtures=32,
        phases=(Phase(batch_size=16, steps_per_execution=4, jit_compile=False),),
    ),
    AUDIO,
)
TINY = ["--epochs", "1", "--remixes", "6", "--batch-size", "1"]


@pytest.fixture(scope="module", autouse=True)
def short_epochs() -> Iterator[None]:
    """Epochs of five steps of a small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "STEPS_PER_EPOCH", 5)
        patch.setattr("training.context.__main__.ContextConfig", lambda: ContextConfig((6, 8, 12)))
        yield


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve recordings of two tones, of 2 to 5 s."""
    folder = tmp_path_factory.mktemp("takes")
    for i in range(12):
        time = np.arange(int(4_000 * (2 + i / 4))) / 4_000
        mixture = 0.3 * np.sin(2 * np.pi * (150 + 20 * i) * time) + 0.3 * np.sin(2 * np.pi * (900 + 50 * i) * time)
        soundfile.write(folder / f"take_{i}.wav", mixture * (1 + 0.5 * np.sin(3 * time)), 4_000, subtype="FLOAT")
    return folder


@pytest.fixture(scope="module")
def without(takes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a model of sound."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(decoded.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        return train(PRESET, output=tmp_path_factory.mktemp("runs") / "plain", data_dir=takes).path


@pytest.fixture(scope="module")
def run(takes: Path, without: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with a context network."""
    path = tmp_path_factory.mktemp("runs") / "corrected"
    shutil.copytree(without, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(decoded.CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        assert main(["--run", str(path), "--data-dir", str(takes), *TINY]) == 0
    return path


def test_the_run_holds_what_the_training_was(run: Path, takes: Path) -> None:
    content = json.loads((run / "context" / "config.json").read_text())
    assert (content["training"]["remixes"], content["training"]["seed"]) == (6, 0)
    assert content["teacher"] is None
    metrics = json.loads((run / "context" / "metrics.json").read_text())
    assert metrics["epochs"] == 1
    assert np.isfinite([metrics["val_sdr"], metrics["val_sdr_before"]]).all()
    assert len((run / "context" / "history.csv").read_text().splitlines()) == 2


def test_recordings_are_corrected_and_streams_are_not(run: Path, without: Path, takes: Path) -> None:
    mixture, rate = soundfile.read(takes / "take_11.wav", dtype="float32")
    corrected, plain = (Separator.load(path) for path in (run, without))
    assert plain.context is None
    sources = corrected.separate(mixture, rate)
    np.testing.assert_allclose(sources.sum(axis=0), mixture, atol=1e-5)
    assert np.abs(sources - plain.separate(mixture, rate)).max() > 1e-3
    blocks = [mixture[i : i + 900, np.newaxis] for i in range(0, len(mixture), 900)]
    streams = [np.concatenate(list(one.stream(blocks, rate, 1))) for one in (corrected, plain)]
    np.testing.assert_array_equal(*streams)


def test_the_command_says_so_and_writes_what_the_separator_finds(
    run: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take = takes / "take_11.wav"
    assert separate.main([str(take), "--model", str(run), "--output", str(tmp_path / "stems"), "--quiet"]) == 0
    assert "2 sources, corrected by its context network\n" in capsys.readouterr().out
    mixture, rate = soundfile.read(take, dtype="float32")
    for k, source in enumerate(Separator.load(run).separate(mixture, rate), start=1):
        written, _ = soundfile.read(tmp_path / "stems" / f"take_11_source{k}.wav", dtype="float32")
        np.testing.assert_allclose(written, source, atol=1e-5)


def test_evaluation_judges_what_is_corrected(run: Path, without: Path, two_bands: Path, tmp_path: Path) -> None:
    for name, path in (("with", run), ("without", without)):
        assert evaluate.main(["--run", str(path), "--truth", str(two_bands), "--output", str(tmp_path / name)]) == 0
    scores = [(tmp_path / name / "truth.csv").read_text().splitlines()[1:] for name in ("with", "without")]
    assert scores[0] != scores[1]


def test_an_export_holds_it_and_corrects_as_the_run_does(
    run: Path, takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.pipeline.converters", lambda: ThreadPoolExecutor(1))
    target = tmp_path / "exported"
    words = ["--run", str(run), "--to", str(target), "--data-dir", str(takes), "--formats", "tflite_float32"]
    assert export.main(words) == 0
    assert {path.name for path in (target / "context").iterdir()} == {
        "config.json",
        "history.csv",
        "metrics.json",
        "weights.npz",
    }
    described = json.loads((target / "manifest.json").read_text())["context"]
    command = f"{described['training_command']} --run runs/corrected --data-dir DIR"
    assert command == (
        "python -m training.context --epochs 1 --remixes 6 --batch-size 1 --run runs/corrected --data-dir DIR"
    )
    assert command in (target / "README.md").read_text()
    assert set(described["files"]) == {f"context/{path.name}" for path in (target / "context").iterdir()}
    mixture, rate = soundfile.read(takes / "take_11.wav", dtype="float32")
    found = [Separator.load(path).separate(mixture, rate) for path in (run, target, target / "float32.tflite")]
    np.testing.assert_allclose(found[1], found[0], atol=1e-3)
    np.testing.assert_array_equal(found[1], found[2])
    assert main(["--run", str(target), "--data-dir", str(takes)]) == 2  # an export stays as it was proven


def test_what_is_there_is_kept_unless_forced(
    run: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    words = ["--run", str(copy), "--data-dir", str(takes)]
    before = (copy / "context" / "weights.npz").read_bytes()
    for more, message in (
        ([], "resume its training by --resume, or replace it by --force"),
        (["--resume", "--seed", "7"], "seed is 0 there and 7 here"),
        (["--resume", "--teacher", str(run)], "teacher is None there"),
        (["--teacher", str(copy), "--force"], "copy the run"),
        (["--resume", "--force"], "give one of them"),
    ):
        assert main([*words, *more]) == 2
        errors = capsys.readouterr().err
        assert message in errors
        assert errors.count("\n") == 1
        assert (copy / "context" / "weights.npz").read_bytes() == before
    state = copy / "context" / "state.npz"
    state.rename(tmp_path / "state.npz")
    assert main([*words, "--resume"]) == 2
    assert "has lost its state.npz; train anew by --force" in capsys.readouterr().err
    (tmp_path / "state.npz").rename(state)
    assert (copy / "context" / "weights.npz").read_bytes() == before
    again = [*words, *TINY, "--teacher", str(run), "--force"]  # what is corrected by then is the truth that it learns
    assert main(again) == 0
    after = (copy / "context" / "weights.npz").read_bytes()
    assert after != before
    assert main([*words, "--teacher", str(run), "--resume"]) == 0
    assert (copy / "context" / "weights.npz").read_bytes() == after


def test_minutes_are_planned_and_written_down(
    without: Path, takes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(decoded.CACHE_VARIABLE, str(tmp_path / "cache"))
    copy = tmp_path / "run"
    shutil.copytree(without, copy)
    assert main(["--run", str(copy), "--data-dir", str(takes), *TINY[2:], "--minutes", "0.02"]) == 0
    epochs = json.loads((copy / "context" / "metrics.json").read_text())["epochs"]
    assert json.loads((copy / "context" / "config.json").read_text())["training"]["epochs"] == epochs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "metrics.json").unlink(), "is not finished"),
        (lambda run: (run / "config.json").unlink(), "is no run folder"),
        (lambda run: shutil.rmtree(run.parent / "takes"), "no folder"),
        (lambda run: [path.unlink() for path in sorted((run.parent / "takes").iterdir())[3:]], "at least 8"),
        (lambda run: shutil.rmtree(run.parent / "takes") or (run.parent / "takes").mkdir(), "holds no recording"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    without: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change, message: str
) -> None:
    shutil.copytree(without, tmp_path / "run")
    shutil.copytree(takes, tmp_path / "takes")
    change(tmp_path / "run")
    assert main(["--run", str(tmp_path / "run"), "--data-dir", str(tmp_path / "takes")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run" / "context").exists()


def test_a_network_that_is_not_finished_or_damaged_is_not_exported(
    run: Path, takes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "context" / "weights.npz"
    for change, message in ((weights.unlink, "is not finished"), (lambda: weights.write_bytes(b"PK"), "is damaged")):
        change()
        assert export.main(["--run", str(copy), "--to", str(tmp_path / "exported"), "--data-dir", str(takes)]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "exported").exists()


def test_sources_of_different_recordings_need_as_many_in_each_split(without: Path, takes: Path) -> None:
    separator = Separator.load(without)
    separator.num_sources = 3
    with pytest.raises(DataError, match=r"2 recordings .* too few for 3 sources"):
        remixes.separated(takes, without, separator, "train")


def test_pictures_have_no_context(golden_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(golden_runs / "vae"), "--data-dir", str(tmp_path)]) == 2
    assert "no model of sound" in capsys.readouterr().err


def test_another_training_of_the_run_takes_it_away(run: Path, takes: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    Run.create(copy, PRESET, "vae", force=True)
    assert not (copy / "context").exists()
