"""The command `python -m vae_bss_tf.separate` on a tiny model, end to end and on bad input."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import soundfile

from vae_bss_tf import separate
from vae_bss_tf.audio import command
from vae_bss_tf.config import AudioConfig, DataConfig, ModelConfig, Preset
from vae_bss_tf.phases import Recipe

AUDIO = AudioConfig(sample_rate=4_000, n_fft=64, hop_length=16, num_frames=32, num_bins=32, frame_pooling=4)


def write_run(folder: Path, audio: AudioConfig | None) -> Path:
    from vae_bss_tf.model import MultiSourceVAE

    keras.utils.set_random_seed(0)
    config = ModelConfig(input_shape=AUDIO.feature_shape, latent_dim=2, hidden_units=(8,))
    preset = Preset(config, DataConfig("tones"), Recipe(), audio)
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
    assert "the model hears up to 2,000 Hz; what is above is shared out by energy" in printed
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


def test_a_silent_recording_keeps_no_other_from_being_separated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "c"):
        record(tmp_path / f"takes/{name}.wav")
    soundfile.write(tmp_path / "takes/b.wav", np.zeros(8_000), 8_000)
    words = [str(tmp_path / "takes"), "--model", str(run), "--output", str(tmp_path / "stems"), "--quiet"]
    assert separate.main(words) == 2
    assert sorted(path.name for path in (tmp_path / "stems").iterdir()) == [
        f"{name}_source{k}.wav" for name in "ac" for k in (1, 2)
    ]
    errors = capsys.readouterr().err.splitlines()
    left_out, error = (line for line in errors if not line.startswith("warning: "))
    assert left_out.startswith("left out: ")
    assert "b.wav is silent" in left_out
    assert error == "error: 1 of 3 recordings were left out; see above."


def test_what_a_command_wrote_is_no_input(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "takes/one.wav")
    words = [str(tmp_path / "takes"), "--model", str(run), "--quiet", "--force", "--output"]
    for _ in range(2):
        assert separate.main([*words, str(tmp_path / "takes/stems")]) == 0
    assert sorted(path.name for path in (tmp_path / "takes/stems").iterdir()) == ["one_source1.wav", "one_source2.wav"]
    assert separate.main([*words, str(tmp_path / "takes")]) == 2
    assert "which is written to; choose another output" in capsys.readouterr().err


def test_inputs_of_one_name_are_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(record(tmp_path / folder / "one.wav")) for folder in ("a", "b")]
    assert separate.main([*paths, "--model", str(run), "--output", str(tmp_path / "stems")]) == 2
    assert "'one'" in capsys.readouterr().err


def test_a_model_of_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = write_run(tmp_path / "images", None)
    arguments = [str(record(tmp_path / "one.wav")), "--model", str(images), "--output", str(tmp_path / "stems")]
    assert separate.main(arguments) == 2
    assert "one.wav is no PNG" in capsys.readouterr().err


REPOSITORY = Path(__file__).resolve().parents[2]
NOTES = REPOSITORY / "saved_models" / "notes"
# What the light install, `pip install 'vae-bss-tf[tflite,audio]'`, does not bring.
HEAVY = (
    "tensorflow",
    "keras",
    "librosa",
    "numba",
    "matplotlib",
    "scipy",
    "sklearn",
    "onnxruntime",
    "tensorflow_datasets",
)
LIGHT = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))
from importlib import import_module
sys.exit(import_module(sys.argv[1]).main(sys.argv[2:]))
"""


def light(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs a command where the heavy libraries cannot be imported."""
    return subprocess.run(
        [sys.executable, "-c", LIGHT, module, *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_the_light_install_separates(tmp_path: Path) -> None:
    duet, model = REPOSITORY / "sample" / "duet.wav", REPOSITORY / "saved_models" / "duets"
    done = light("vae_bss_tf.separate", duet, "--model", model, "--output", tmp_path / "stems", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "stems").iterdir())) == 2


def test_what_the_light_install_lacks_is_one_line(tmp_path: Path) -> None:
    one = record(tmp_path / "one.wav")
    command = ("vae_bss_tf.separate", one, "--model", NOTES, "--output", tmp_path / "stems", "--figure")
    for extra, done in (("figures", light(*command)), ("train", light("training.fit", "--dataset", "digits"))):
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert f"pip install 'vae-bss-tf[{extra}]'" in done.stderr
    assert not (tmp_path / "stems").exists()


def test_the_reader_of_the_output_may_leave(tmp_path: Path) -> None:
    record(tmp_path / "one.wav")
    command = f"'{sys.executable}' -m vae_bss_tf.separate one.wav --model '{NOTES}' --output stems 2>&1 | head -1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == 0
    assert len(list((tmp_path / "stems").iterdir())) == 2


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_killed_separation_left_is_removed_by_the_next(run: Path, tmp_path: Path, end: int) -> None:
    stems = tmp_path / "stems"
    one = record(tmp_path / "one.wav", seconds=200)
    words = [str(one), "--output", str(stems), "--quiet", "--model"]
    process = subprocess.Popen([sys.executable, "-m", "vae_bss_tf.separate", *words, str(NOTES)], cwd=REPOSITORY)
    while not list(stems.glob(".partial-*/*")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(end)
    process.wait()
    assert list(stems.glob(".partial-*"))
    record(one)
    assert separate.main([*words, str(run)]) == 0
    assert sorted(path.name for path in stems.iterdir()) == ["one_source1.wav", "one_source2.wav"]


def test_nothing_is_overwritten_without_force(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "stems"
    output.mkdir()
    arguments = [str(record(tmp_path / "one.wav")), "--model", str(run), "--output", str(output), "--quiet"]
    for name in ("one_sources.png", "one_source2.wav", "one_remix.wav"):
        (output / name).write_text("mine")
        assert separate.main([*arguments, "--figure", "--gains", "0,0"]) == 2
        assert f"{name} exists; replace it by --force" in capsys.readouterr().err
        assert (output / name).read_text() == "mine"
        (output / name).unlink()
    (output / "one_sources.png").symlink_to("nowhere")
    for force in ([], ["--force"]):
        assert separate.main([*arguments, "--figure", *force]) == 2
        assert "one_sources.png" in capsys.readouterr().err
    assert (output / "one_sources.png").is_symlink()


def test_a_folder_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    arguments = [str(record(tmp_path / "one.wav")), "--model", str(run), "--output", str(tmp_path / "link"), "--quiet"]
    assert separate.main(arguments) == 0
    assert separate.main([*arguments, "--force"]) == 0
    assert (tmp_path / "link").is_symlink()
    assert len(list((tmp_path / "real").iterdir())) == 2


def test_a_truncated_recording_is_separated_only_on_demand(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = record(tmp_path / "one.wav")
    one.write_bytes(one.read_bytes()[: one.stat().st_size // 2])
    arguments = [str(one), "--model", str(run), "--output", str(tmp_path / "stems"), "--quiet", "--figure"]
    assert separate.main(arguments) == 2
    assert "--allow-truncated" in capsys.readouterr().err
    assert separate.main([*arguments, "--allow-truncated"]) == 0


@pytest.mark.parametrize("words", [["--gains", "-6,0"], ["--gains=-6,0"], ["--gains", "-inf,-0.5"]])
def test_gains_may_begin_with_a_minus(run: Path, tmp_path: Path, words: list[str]) -> None:
    arguments = [str(record(tmp_path / "one.wav")), "--model", str(run), "--output", str(tmp_path), "--quiet"]
    assert separate.main([*arguments, *words]) == 0
    assert (tmp_path / "one_remix.wav").exists()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("one.wav", ["--format", "ogg"], "250,000 Hz, which ogg cannot hold"),
        ("one.wav", ["--format", "mp3"], "250,000 Hz, which mp3 cannot hold"),
        ("one.wav", ["--output", "/dev/null/stems"], "not a directory"),
        ("one.wav", ["--output", "{folder}/one.wav"], "exists"),
        ("one.wav", ["--output", "o" * 256], "file name too long"),
        ("o" * 245 + ".wav", [], "longer than 255 bytes"),
        ("missing" * 100, [], "file name too long"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_model_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    name: str, words: list[str], message: str,
) -> None:  # fmt: skip
    class Untouched:
        num_sources = 2

        @classmethod
        def load(cls, *_: object, **__: object) -> "Untouched":
            return cls()

    monkeypatch.setattr(command, "Separator", Untouched)
    if len(name) < 256:
        soundfile.write(tmp_path / name, np.full(50_000, 0.1), 250_000)
    words = [word.format(folder=tmp_path) for word in words]
    assert separate.main([str(tmp_path / name), "--model", "m", "--output", str(tmp_path / "stems"), *words]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


def test_names_that_are_no_text_are_separated(tmp_path: Path) -> None:
    one = record(tmp_path / "one.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))
    output = tmp_path / os.fsdecode(b"st\xe9ms")
    command = [sys.executable, "-m", "vae_bss_tf.separate", one, "--model", NOTES, "--output", output, "--figure"]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "utf-8"}
    )
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9_source1.wav" in done.stdout
    assert len(list(output.iterdir())) == 3


def test_the_benchmark_of_recordings_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.recording", "--minutes", "0.03", "--json", tmp_path / "result.json"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "result.json").read_text())["rows"][0]["seconds"] > 0


def test_one_recording_of_many_channels_stops_all_before_any_is_separated(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "takes"
    for name, channels in (("a", 1), ("b", 4), ("c", 2)):
        record(folder / f"{name}.wav", channels=channels)
    assert separate.main([str(folder), "--model", str(run), "--output", str(tmp_path / "out")]) == 2
    assert "b.wav has 4 channels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
