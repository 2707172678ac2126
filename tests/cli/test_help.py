"""Commands say what is asked of them and no more: help comes at once, and nothing of TensorFlow's start-up is seen."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BENCHMARKS = sorted(f"benchmarks.{path.stem}" for path in (REPOSITORY / "benchmarks").glob("[a-z]*.py"))
COMMANDS = ["training.fit", "training.evaluate", "export", "export.benchmark", "export.serve", "export.serving"]


@pytest.mark.parametrize("module", [*COMMANDS, "vae_bss_tf.separate", *BENCHMARKS])
def test_help_comes_without_the_lines_that_tensorflow_logs(module, run_module):
    process = run_module(module, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"usage: python -m {module} ")


def test_a_mistake_comes_without_them_too(run_module, tmp_path):
    process = run_module("export", "--run", tmp_path / "nowhere", "--to", tmp_path / "exported")
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
