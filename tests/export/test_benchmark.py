"""The latency table: every row measured, both as a table and as JSON."""

import json
import shutil

import pytest

from export import benchmark
from export.benchmark import main
from export.formats import ExportError
from export.gate.workers import Worker


def test_table_and_json(exported, manifest, capsys, tmp_path):
    formats = {name: manifest["formats"][name] for name in ("tflite_float32", "onnx_int8")}  # one of each runtime
    light = tmp_path / "light"
    light.mkdir()
    for entry in formats.values():
        shutil.copy(exported / entry["path"], light / entry["path"])
    (light / "manifest.json").write_text(json.dumps({**manifest, "formats": formats}))
    assert main([str(light), "--threads", "1", "2", "--calls", "2", "--json", str(tmp_path / "rows.json")]) == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(row["format"], row["threads"]) for row in rows] == [(f, t) for f in formats for t in (1, 2)]
    for row in rows:
        assert 0 < row["median_ms"] <= row["p95_ms"]
        assert row["mixtures_per_second"] > 0
        assert row["load_seconds"] > 0
        assert row["peak_memory_bytes"] > 5e6
        assert row["si_sdr_db"] == formats[row["format"]]["scores_db"]["si_sdr"]
        assert f"| {row['median_ms']:.3f} | {row['p95_ms']:.3f} |" in printed


def test_tflite_is_no_slower_than_keras(exported, manifest, run, monkeypatch, tmp_path):
    monkeypatch.delitem(benchmark.KERAS_ROWS, "keras_call")  # saves a start of TensorFlow
    formats = {"tflite_float32": manifest["formats"]["tflite_float32"]}
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "formats": formats}))
    shutil.copy(exported / "float32.tflite", tmp_path)
    tflite, predict = benchmark.measure(tmp_path, run=run.path, threads=[1], calls=2)
    assert predict["format"] == "keras_predict"
    assert predict["bytes"] == (run.path / "model.keras").stat().st_size
    assert tflite["median_ms"] < predict["median_ms"]


def test_a_model_that_is_not_its_runs_is_not_timed(run, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    config = json.loads((run.path / "config.json").read_text())
    config["model"]["latent_dim"] += 1
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"is not the model of its config\.json"):
        Worker(f"keras_call:{tmp_path / 'run'}", 1, tmp_path / "log.txt")


def test_a_file_that_exists_stays(exported, capsys, tmp_path):
    (tmp_path / "rows.json").write_text("precious")
    assert main([str(exported), "--json", str(tmp_path / "rows.json")]) == 2
    assert "rows.json exists; replace it by --force, or choose another --json" in capsys.readouterr().err
    assert (tmp_path / "rows.json").read_text() == "precious"


def test_bad_input(exported, capsys, tmp_path):
    assert main([str(tmp_path)]) == 2
    assert "is no export" in capsys.readouterr().err
    assert main([str(exported), "--run", str(tmp_path)]) == 2
    assert "has no model.keras" in capsys.readouterr().err


def test_only_the_runs_own_export_and_the_files_of_its_manifest_are_timed(exported, manifest, run, capsys, tmp_path):
    other = shutil.copytree(run.path, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "recipe": {**config["recipe"], "seed": 7}}))
    assert main([str(exported), "--run", str(other), "--calls", "1"]) == 2
    assert "has other settings than the run that the export was made from" in capsys.readouterr().err
    for path, said in (("../../../elsewhere", "is not in its folder"), ("float32.tflite", "is not the file that")):
        folder = tmp_path / f"export{len(path)}"
        folder.mkdir()
        (folder / "float32.tflite").write_bytes(b"another model")
        entry = {**manifest["formats"]["tflite_float32"], "path": path}
        (folder / "manifest.json").write_text(json.dumps({**manifest, "formats": {"tflite_float32": entry}}))
        assert main([str(folder), "--calls", "1"]) == 2
        assert said in capsys.readouterr().err
