"""The command `python -m vae_bss_tf.separate` on a tiny model, end to end and on bad input."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

from vae_bss_tf import separate
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.phases import Phase, Recipe

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4)


def write_run(folder: Path, audio: AudioConfig | None) -> Path:
    from vae_bss_tf.model import MultiSourceVAE

    keras.utils.set_random_seed(0)
    config = ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=2, hidden_units=(8,))
    preset = Preset(config, DataConfig("tones"), TrainConfig(), audio)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"system": "vae", **preset.to_dict()}))
    MultiSourceVAE(config).save(folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "tones", AUDIO)


def record(path: Path, seconds: float = 0.5, channels: int = 1) -> Path:
    path.parent.mkdir(exist_ok=True)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (int(8_000 * seconds), channels))
    soundfile.write(path, samples, 8_000)
    return path


def test_files_and_folders_end_to_end(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = record(tmp_path / "one.wav")
    record(tmp_path / "more" / "two.flac", channels=2)
    output = tmp_path / "stems"
    arguments = [str(one), str(tmp_path / "more"), "--model", str(run), "--output", str(output), "--figure"]
    assert separate.main([*arguments, "--gains", "0,-inf"]) == 0
    assert sorted(p.name for p in output.iterdir()) == [
        "one_remix.wav", "one_source1.wav", "one_source2.wav", "one_sources.png",
        "two_remix.flac", "two_source1.flac", "two_source2.flac", "two_sources.png",
    ]  # fmt: skip
    sources = [soundfile.read(output / f"one_source{k}.wav")[0] for k in (1, 2)]
    assert np.abs(sum(sources) - soundfile.read(one)[0]).max() < 1e-4
    assert np.abs(soundfile.read(output / "one_remix.wav")[0] - sources[0]).max() < 1e-4
    printed = capsys.readouterr().out
    assert f"writing to: {output}" in printed
    assert "next:" in printed
    assert separate.main(arguments) == 2
    assert separate.main([*arguments, "--force", "--format", "wav", "--quiet"]) == 0


def test_a_silent_source_is_left_out_with_a_line_that_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vae_bss_tf.audio import separator

    monkeypatch.setattr(separator, "SILENT_SOURCE_DB", 100.0)
    one = record(tmp_path / "one.wav")
    arguments = [str(one), "--model", str(run), "--output", str(tmp_path / "stems"), "--skip-silent", "--quiet"]
    assert separate.main(arguments) == 0
    assert "source 2 is silent" in capsys.readouterr().out
    assert not list((tmp_path / "stems").iterdir())


BAD = {
    "missing file": (lambda path: None, "no file"),
    "empty": (Path.touch, "is empty"),
    "no audio": (lambda path: path.write_bytes(b"text"), "cannot be read as audio"),
    "zeros": (lambda path: soundfile.write(path, np.zeros(8_000), 8_000), "is silent"),
    "channels": (lambda path: record(path, channels=8), "8 channels"),
    "one sample": (lambda path: soundfile.write(path, np.ones(1), 8_000), "1 samples"),
    "missing folder": (lambda path: path.mkdir(), "holds no recording"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=list(BAD))
def test_bad_input_is_one_line_and_exit_code_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: object, message: str
) -> None:
    path = tmp_path / "bad.wav"
    make(path)
    output = tmp_path / "stems"
    assert separate.main([str(path), "--model", str(run), "--output", str(output), "--quiet"]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(output.glob("*"))


@pytest.mark.parametrize("gains", ["0,loud", "0,nan", "0,inf", "0,0,0"])
def test_bad_gains_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], gains: str) -> None:
    one = record(tmp_path / "one.wav")
    arguments = [str(one), "--model", str(run), "--output", str(tmp_path / "stems"), "--gains", gains, "--quiet"]
    assert separate.main(arguments) == 2
    assert "gains" in capsys.readouterr().err


def test_inputs_of_one_name_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(record(tmp_path / folder / "one.wav")) for folder in ("a", "b")]
    assert separate.main([*paths, "--model", str(run), "--output", str(tmp_path / "stems")]) == 2
    assert "'one'" in capsys.readouterr().err


def test_a_model_of_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_run(tmp_path / "images", None)
    arguments = [str(record(tmp_path / "one.wav")), "--model", str(images), "--output", str(tmp_path / "stems")]
    assert separate.main(arguments) == 2
    assert "no model of audio" in capsys.readouterr().err
