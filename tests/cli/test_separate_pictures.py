"""The command `python -m vae_bss_tf.separate` on pictures: files, folders, patterns, sizes, and bad input."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from vae_bss_tf import separate
from vae_bss_tf.config import DataConfig, ModelConfig, Preset
from vae_bss_tf.errors import DataError
from vae_bss_tf.phases import Recipe
from vae_bss_tf.pictures.separator import PictureSeparator

REPOSITORY = Path(__file__).resolve().parents[2]
MNIST = REPOSITORY / "saved_models" / "mnist"
SAMPLE = REPOSITORY / "sample" / "overlay.png"
SHAPE = (6, 8, 3)


def write_run(folder: Path, shape: tuple[int, ...]) -> Path:
    from vae_bss_tf.model import MultiSourceVAE

    keras.utils.set_random_seed(0)
    config = ModelConfig(input_shape=shape, latent_dim=2, hidden_units=(8,))
    folder.mkdir(parents=True)
    described = Preset(config, DataConfig("images", (1,)), Recipe()).to_dict()
    (folder / "config.json").write_text(json.dumps({"system": "vae", **described}))
    MultiSourceVAE(config).save(folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "colour", SHAPE)


def draw(path: Path, *shape: int) -> np.ndarray:
    path.parent.mkdir(exist_ok=True, parents=True)
    image = np.random.default_rng(0).integers(256, size=shape or SHAPE, dtype=np.uint8)
    Image.fromarray(image).save(path)
    return image


def shown(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def command(run: Path, output: Path, *words: object) -> list[str]:
    return [*map(str, words), "--model", str(run), "--output", str(output), "--quiet"]


def test_files_folders_and_patterns_give_one_picture_for_each_source(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = draw(tmp_path / "an emoji \U0001f600.png")
    draw(tmp_path / "more" / "two.bmp")
    draw(tmp_path / "still" / "three.png")
    output = tmp_path / "separated"
    words = command(run, output, tmp_path / "an emoji \U0001f600.png", tmp_path / "more", tmp_path / "st*" / "*.png")
    assert separate.main(words) == 0
    assert sorted(path.name for path in output.iterdir()) == [
        f"{name}_source{k}.png" for name in ("an emoji \U0001f600", "three", "two") for k in (1, 2)
    ]
    sources = [shown(output / f"an emoji \U0001f600_source{k}.png") for k in (1, 2)]
    assert np.array_equal(sum(sources), image)
    assert all(source.any() for source in sources)
    assert "next:" in capsys.readouterr().out
    assert separate.main(words) == 2
    assert "replace it by --force" in capsys.readouterr().err
    assert separate.main([*words, "--force"]) == 0


def test_a_picture_of_the_same_ratio_keeps_its_size_and_another_is_cut(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large, wide = draw(tmp_path / "large.png", 18, 24, 3), draw(tmp_path / "wide.png", 12, 40, 3)
    grey = draw(tmp_path / "grey.png", 6, 8)
    paths = [tmp_path / f"{name}.png" for name in ("large", "wide", "grey")]
    assert separate.main(command(run, tmp_path / "out", *paths)) == 0
    assert np.abs(sum(shown(tmp_path / "out" / f"large_source{k}.png") for k in (1, 2)) - large).max() <= 1
    assert shown(tmp_path / "out" / "wide_source1.png").shape == SHAPE
    middle = wide[:, 12:28].reshape(6, 2, 8, 2, 3).mean(axis=(1, 3))
    assert np.abs(sum(shown(tmp_path / "out" / f"wide_source{k}.png") for k in (1, 2)) - middle).max() <= 1
    total = sum(shown(tmp_path / "out" / f"grey_source{k}.png") for k in (1, 2))
    assert np.array_equal(total, np.repeat(grey[..., None], 3, axis=-1))
    assert "wide.png: 6x8, the middle of the picture" in capsys.readouterr().out


def test_each_picture_of_an_array_is_separated(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "stack.npy", np.random.default_rng(0).uniform(size=(2, *SHAPE)))
    assert separate.main(command(run, tmp_path / "out", tmp_path / "stack.npy")) == 0
    assert len(list((tmp_path / "out").glob("stack_[01]_source[12].png"))) == 4


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "is not there"),
    "empty": (Path.touch, "is empty"),
    "text": (lambda path: path.write_text("text"), "is no PNG, JPEG, WebP, BMP or TIFF"),
    "missing folder": (Path.mkdir, "holds no picture"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=list(BAD))
def test_bad_input_is_one_line_and_exit_code_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "bad.png")
    assert separate.main(command(run, tmp_path / "out", tmp_path / "bad.png")) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert "bad.png" in errors
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(tmp_path.glob("out/*"))


def test_a_damaged_picture_among_others_is_left_out_and_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("a", "c"):
        draw(folder / f"{name}.png")
    for name in ("b.png", "b.npy"):
        (folder / name).write_text("text")
    assert separate.main(command(run, tmp_path / "out", folder)) == 2
    *told, error = capsys.readouterr().err.splitlines()
    for name, line in zip(("b.npy", "b.png"), told, strict=True):
        assert line.startswith("left out: ")
        assert name in line
    assert error == "error: 2 of 4 pictures or arrays were left out; see above."
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{name}_source{k}.png" for name in ("a", "c") for k in (1, 2)
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gains", "0,-6"], "--gains is for recordings"),
        (["--figure"], "--figure is for recordings"),
        (["a/one.png"], "several inputs"),
        (["x*.png"], "no file matches"),
        (["later.png"], "is not there"),
    ],
)
def test_what_pictures_have_no_use_for_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    draw(tmp_path / "one.png")
    draw(tmp_path / "a" / "one.png")
    words = [str(tmp_path / word) if word.endswith(".png") else word for word in words]
    assert separate.main([str(tmp_path / "one.png"), *command(run, tmp_path / "out", *words)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_file_without_its_manifest_is_told_by_what_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "copied.tflite").write_bytes((MNIST / "dynamic_int8.tflite").read_bytes())
    draw(tmp_path / "one.png", 28, 28)
    assert separate.main(command(tmp_path / "copied.tflite", tmp_path / "out", tmp_path / "one.png")) == 0
    draw(tmp_path / "more" / "one.png", 28, 28)
    assert separate.main(command(tmp_path / "copied.tflite", tmp_path / "others", tmp_path / "more")) == 0


def test_a_folder_of_recordings_with_a_cover_is_one_of_recordings_for_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[str] = []
    monkeypatch.setattr("vae_bss_tf.audio.command.separate_recordings", lambda *_: kinds.append("sound"))
    monkeypatch.setattr("vae_bss_tf.pictures.command.separate_pictures", lambda *_: kinds.append("images"))
    draw(tmp_path / "album" / "cover.png")
    words = command(Path("x"), tmp_path / "out", tmp_path / "album")
    words[words.index("x")] = "grpc://127.0.0.1:1/m"
    assert separate.main(words) == 0
    (tmp_path / "album" / "one.wav").touch()
    assert separate.main(words) == 0
    manifest = tmp_path / "images.json"
    manifest.write_text((MNIST / "manifest.json").read_text())
    shutil.copy(REPOSITORY / "saved_models" / "notes" / "manifest.json", tmp_path)
    assert separate.main([*words, "--manifest", str(manifest)]) == 0
    assert kinds == ["images", "sound", "images"]


def test_the_light_install_separates_the_sample(tmp_path: Path) -> None:
    heavy = ("tensorflow", "keras", "librosa", "matplotlib", "scipy", "sklearn", "onnxruntime", "soundfile", "soxr")
    light = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy})); from vae_bss_tf import separate; "
        "sys.exit(separate.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", light, *command(MNIST, tmp_path / "out", SAMPLE)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sources = [shown(tmp_path / "out" / f"overlay_source{k}.png") for k in (1, 2)]
    assert np.abs(sum(sources) - shown(SAMPLE)).max() <= 1
    correlation = np.corrcoef(*[source.reshape(-1) for source in sources])[0, 1]
    assert correlation < 0.8  # of two digits; that of two halves of the mixture is 1


def test_a_separator_of_pictures_in_python() -> None:
    separator = PictureSeparator.load(MNIST)
    picture = shown(SAMPLE).astype(np.float32) / 255
    sources = separator.separate(picture)
    assert sources.shape == (2, 112, 112)
    np.testing.assert_allclose(sources.sum(axis=0), picture, atol=1e-5)
    for bad in (np.zeros((28, 28, 4)), np.zeros(28), np.full((28, 28), 128, np.uint8), np.full((28, 28), np.nan)):
        with pytest.raises(DataError, match="the picture"):
            separator.separate(bad)
