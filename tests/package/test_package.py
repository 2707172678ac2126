"""The package as a user installs it: what it holds, its commands, its types, and its extras alone.

VAE_BSS_PACKAGE=1 installs the wheel into fresh environments, from an index of packages; it takes some minutes.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("vae_bss_tf", "training", "export")
SCRIPTS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=550
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's files without what is not tracked."""
    folder = tmp_path_factory.mktemp("source")
    for name in run("git", "ls-files", cwd=REPOSITORY).stdout.splitlines():
        wanted = name.split("/")[0] in (*PACKAGES, "README.md", "LICENSE", "pyproject.toml", "setup.cfg")
        if wanted and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(source: Path) -> Path:
    """The folder of the sdist, and of the wheel that is built from it."""
    done = run(sys.executable, "-m", "build", ".", cwd=source)
    if re.search("No matching distribution|NewConnectionError", done.stdout + done.stderr):
        pytest.skip("setuptools cannot be fetched")
    assert done.returncode == 0, done.stdout + done.stderr
    return source / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, beside the libraries of this one; its folder of programs."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    install = ("install", "--no-deps", "--no-index", "--quiet", wheel)
    done = run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_both_files_can_be_published(built: Path) -> None:
    files = sorted(built.iterdir())
    assert len(files) == 2
    done = run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path, source: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == {str(path.relative_to(source)) for name in PACKAGES for path in (source / name).rglob("*.*")}
    assert "vae_bss_tf/py.typed" in held
    assert any(name.startswith("export/deployment/templates/") for name in held)


USER = """
import numpy as np

from vae_bss_tf import PRESETS, ModelConfig, MultiSourceVAE, Separator, ServerOptions, VaeBssError, load

model = load("saved_models/mnist", server=ServerOptions(deadline=5.0))
try:
    reveal_type(model.separate(np.zeros((28, 28), np.float32)))
except VaeBssError as error:
    print(error)
config: ModelConfig = PRESETS["mnist"].model.replace(num_sources=3)
reveal_type(MultiSourceVAE.from_preset("digits", num_sources=3))
reveal_type(Separator.load("saved_models/notes"))
"""


def test_types_ship(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER)
    (tmp_path / "wrong.py").write_text("from vae_bss_tf import load\n\nload('model', num_threads='two')\n")
    check = (sys.executable, "-m", "mypy", "--strict", "--python-executable", environment / "python")
    done = run(*check, "user.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    types = re.findall(r'Revealed type is "([^"]*)"', done.stdout)
    assert [re.split(r"[.\[]", kind)[-1] for kind in types[1:]] == ["MultiSourceVAE", "Separator"]
    assert "ndarray" in types[0]
    assert 'has incompatible type "str"' in run(*check, "wrong.py", cwd=tmp_path).stdout


def test_the_public_names_are_those_that_type_checkers_see() -> None:
    import vae_bss_tf

    text = Path(vae_bss_tf.__file__).read_text()
    assert sorted(re.findall(r" as (\w+)$", text, re.MULTILINE)) == sorted(set(vae_bss_tf.__all__) - {"__version__"})


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_equal_the_modules(script: str, environment: Path, tmp_path: Path) -> None:
    module = SCRIPTS[script].partition(":")[0].removesuffix(".__main__")
    ours = run(environment / script, "--help", cwd=tmp_path)
    theirs = run(environment / "python", "-m", module, "--help", cwd=tmp_path)
    assert (ours.returncode, ours.stdout, ours.stderr) == (0, theirs.stdout, "")


DUET = "vae-bss-separate {sample}/duet.wav --model {models}/duets --output stems"
OVERLAY = "vae-bss-separate {sample}/overlay.png --model {models}/mnist --output pictures"
LIVE = "vae-bss-live --model {models}/live --input {sample}/duet.wav --output live"
FIT = "vae-bss-fit --dataset digits --epochs 1 --set recipe.mixtures_per_epoch=256 --output run"
EVALUATE = "vae-bss-evaluate --run run --num-mixtures 20"
EXPORT = "vae-bss-export --run run --to exported --formats saved_model tflite_float32 onnx_float32"

# By extra: commands in their order, each with the extra that it lacks, or nothing where it runs.
FRESH = {
    "": {
        DUET: "audio",
        OVERLAY: "images",
        LIVE: "audio",
        FIT: "train",
    },
    "tflite,audio": {
        DUET: "",
        OVERLAY: "images",
        f"{DUET}/more --figure": "figures",
        FIT: "train",
        "vae-bss-evaluate --run {models}/mnist": "train",
        "vae-bss-export --run {models}/mnist --to exported": "train",
        "vae-bss-benchmark {models}/mnist": "onnx",
    },
    "tflite,images": {OVERLAY: "", DUET: "audio", FIT: "train"},
    "onnx,images": {OVERLAY: ""},
    "tflite": {OVERLAY: "images", DUET: "audio", FIT: "train"},
    "onnx": {OVERLAY: "images", DUET: "audio", FIT: "train"},
    "audio": {DUET: "tflite", OVERLAY: "images", FIT: "train"},
    "images": {OVERLAY: "tflite", DUET: "audio", FIT: "train"},
    "figures": {DUET: "audio", FIT: "train"},
    "live": {
        LIVE: "",
        DUET: "",
        OVERLAY: "images",
        "vae-bss-fit-live --data-dir {sample} --teacher {models}/duets": "train",
    },
    "notebooks": {DUET: "audio", FIT: "train"},
    "docs": {DUET: "audio", FIT: "train"},
    "bench": {DUET: "audio", FIT: "train"},
    "serving": {FIT: "figures", DUET: "audio"},
    "train": {
        FIT: "",
        EVALUATE: "",
        "vae-bss-separate {sample}/overlay.png --model run --output digits": "",
        OVERLAY: "tflite",
        EXPORT: "export",
    },
    "export": {FIT: "", EVALUATE: "", EXPORT: "", "vae-bss-benchmark exported": "", OVERLAY: "", DUET: ""},
    "export,serving": {FIT: "", EXPORT: "", "vae-bss-serving exported --to serving": ""},
}
WITH_TENSORFLOW = ("train", "export", "serving")


@pytest.mark.timeout(1_800)  # an index of packages may be slow
@pytest.mark.skipif(not os.environ.get("VAE_BSS_PACKAGE"), reason="takes minutes and an index; set VAE_BSS_PACKAGE=1")
@pytest.mark.parametrize("extras", FRESH, ids=lambda extras: extras or "none")
def test_each_extra_alone(extras: str, wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", "fresh", cwd=tmp_path)
    programs = tmp_path / "fresh" / "bin"
    wanted = f"{wheel}[{extras}]" if extras else wheel
    done = run(programs / "pip", "install", wanted, "-c", REPOSITORY / "constraints.txt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = {entry["name"] for entry in json.loads(run(programs / "pip", "list", "--format=json", cwd=tmp_path).stdout)}
    assert set(extras.split(",")) & set(WITH_TENSORFLOW) or names.isdisjoint({"tensorflow", "keras", "scipy"})
    for command, missing in FRESH[extras].items():
        words = command.format(sample=REPOSITORY / "sample", models=REPOSITORY / "saved_models").split()
        done = run(programs / words[0], *words[1:], cwd=tmp_path)
        assert done.returncode == (2 if missing else 0), f"{command}: {done.stderr}"
        if missing:
            assert done.stderr.count("\n") == 1, done.stderr
            assert f"pip install 'vae-bss-tf[{missing}]'" in done.stderr
