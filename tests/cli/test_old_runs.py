"""Runs of release 0.1 are judged like those of this one, and an interrupted one is not resumed."""

import json
import shutil
from pathlib import Path

import pytest

from training import evaluate, fit
from training.run import Run
from vae_bss_tf.errors import CheckpointError


@pytest.mark.parametrize(("name", "system"), [("masked", "vaem"), ("mixit", "mixit"), ("sound-masked", "vaem")])
def test_an_old_run_is_judged(golden_runs: Path, tmp_path: Path, name: str, system: str) -> None:
    arguments = ["--run", str(golden_runs / name), "--num-mixtures", "8", "--output", str(tmp_path / "evaluation")]
    assert evaluate.main(arguments) == 0
    content = json.loads((tmp_path / "evaluation" / "comparison.json").read_text())
    assert system in [result["system"] for result in content["comparisons"][0]["results"]]


def test_an_old_run_is_not_resumed(golden_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(golden_runs / "vae", tmp_path / "vae")
    before = {path.name: path.read_bytes() for path in (tmp_path / "vae").iterdir()}
    run = Run.load(tmp_path / "vae")
    with pytest.raises(CheckpointError, match="is finished and has no backup"):
        fit.train(run.preset, output=run.path, resume="latest")
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before
