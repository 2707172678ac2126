"""Commands say what is asked of them and no more: help comes at once, and nothing of TensorFlow's start-up is seen."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = sorted(f"benchmarks.{path.stem}" for path in (REPOSITORY / "benchmarks").glob("[a-z]*.py"))
COMMANDS = ["training.fit", "training.evaluate", "export", "export.benchmark", "export.serve", "export.serving"]
PACKAGES = ["training.context", "training.live", "export.live", "vae_bss_tf.live"]


@pytest.mark.parametrize("module", ["export", "benchmarks.live"])
def test_help_comes_without_the_lines_that_tensorflow_logs(module, run_module):
    process = run_module(module, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"usage: python -m {module} ")


ALL_HELP = """
import contextlib, importlib, sys
for module in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        importlib.import_module(module).main(["--help"])
print("tensorflow" in sys.modules)
"""


def test_no_benchmark_needs_tensorflow_for_its_help():
    command = [sys.executable, "-c", ALL_HELP, *BENCHMARKS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    for module in BENCHMARKS:
        assert f"usage: python -m {module} " in done.stdout
        source = (REPOSITORY / f"{module.replace('.', '/')}.py").read_text()
        assert source.endswith('if __name__ == "__main__":\n    sys.exit(main())\n')
    assert done.stdout.endswith("False\n")


BLOCKED = """
import sys
sys.modules.update(dict.fromkeys("PIL soundfile soxr tensorflow keras matplotlib scipy sklearn librosa onnxruntime "
                                 "ai_edge_litert aiohttp grpc tensorflow_serving".split()))
"""


def without_extras(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs code where the libraries of no extra can be imported."""
    command = [sys.executable, "-c", BLOCKED + code, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("module", [*COMMANDS, *PACKAGES, "vae_bss_tf.separate"])
def test_help_needs_no_extra(module):
    name = f"{module}.__main__" if module == "export" or module in PACKAGES else module
    done = without_extras(f"from {name} import main; main()", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m {module} ")


def test_a_name_of_the_package_says_which_extra_it_lacks():
    done = without_extras("from vae_bss_tf import Separator")
    assert done.stderr.splitlines()[-1].endswith("pip install 'vae-bss-tf[audio]' brings it.")


def test_a_training_on_several_hosts_says_which_extra_it_lacks(tmp_path):
    code = "import sys; from training.fit import main; sys.exit(main())"
    done = without_extras(code, "--strategy", "multi-worker", "--output", str(tmp_path / "run"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "pip install 'vae-bss-tf[" in done.stderr


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("training.fit", ["--output"]),
        ("training.fit", ["--init"]),
        ("training.evaluate", ["--run"]),
        ("export.__main__", ["--run", "run", "--to"]),
        ("export.benchmark", ["exported", "--json"]),
        ("export.serving", ["exported", "--to"]),
        ("vae_bss_tf.separate", ["a.wav", "--model", "model", "--output"]),
    ],
)
def test_an_empty_path_is_refused(module, words, capsys, tmp_path, monkeypatch):
    """As an unset variable of a shell gives; it would be the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        importlib.import_module(module).main([*words, ""])
    assert raised.value.code == 2
    assert "the path is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_mistake_comes_without_them_too(run_module, tmp_path):
    process = run_module("export", "--run", tmp_path / "nowhere", "--to", tmp_path / "exported")
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
