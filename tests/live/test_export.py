"""Exports of a live separator: equal to the model in any portions, refused when they are not."""

import contextlib
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies
import numpy as np
import pytest

from export.formats import ExportError
from export.live import gate
from export.live.__main__ import main as export
from vae_bss_tf.errors import CheckpointError, ConfigError, DataError, VaeBssError
from vae_bss_tf.live.runtime import LiveSeparator, load

FLOAT32 = ("float32.tflite", "float32.onnx")


@pytest.mark.parametrize("name", [*FLOAT32, "float16.tflite", "dynamic_int8.tflite", "full_int8.tflite"])
def test_random_portions_give_what_the_model_gives_offline(tiny_model, name, live_export, sound):
    model = tiny_model()
    expected = gate.offline(model, sound)
    separator = LiveSeparator(load(live_export / name))
    for seed in range(20 if name in FLOAT32 else 2):
        rng, first, found = np.random.default_rng(seed), 0, []
        separator.reset()
        while first < len(sound):
            portion = sound[first : first + int(rng.integers(0, 700))]
            found.append(separator.process(portion))
            first += len(portion)
        found = np.concatenate(found, axis=1)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= (1e-5 if name in FLOAT32 else 5e-2)
        rest = separator.finish()
        assert found.shape[1] + rest.shape[1] == len(sound) + separator.delay
        whole = np.concatenate([found, rest], axis=1)[:, separator.delay :]
        np.testing.assert_allclose(whole.sum(axis=0), sound, atol=1e-5)


def test_the_manifest_lists_each_state_and_the_card_the_files(tiny_model, live_export):
    manifest = json.loads((live_export / "manifest.json").read_text())
    zeros = tiny_model().initial_state()
    assert {s["name"]: tuple(s["shape"]) for s in manifest["states"]} == {n: z.shape for n, z in zeros.items()}
    assert all((s["next"], s["dtype"], s["zero"]) == (f"next_{s['name']}", "float32", 0.0) for s in manifest["states"])
    assert set(manifest["formats"]) == {"tflite_float32", "tflite_float16", "tflite_dynamic_int8", "tflite_full_int8",
                                        "onnx_float32"}  # fmt: skip
    for entry in manifest["formats"].values():
        assert entry["path"] in (live_export / "README.md").read_text()
        assert (live_export / entry["path"]).stat().st_size == entry["bytes"]


def test_the_gate_refuses_another_models_file(tiny_model, live_export, sound):
    other = gate.offline(tiny_model(power=0.4), sound)
    with pytest.raises(ExportError, match="differs from the model"):
        gate.check("tflite_float32", load(live_export / "float32.tflite"), sound, other)


def test_damaged_and_foreign_exports_are_refused(live_export, live_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(live_export, copy)
    data = bytearray((copy / "float32.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "float32.tflite").write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="copy the export again"):
        load(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["formats"]["onnx_float32"]["path"] = "../float32.onnx"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not in its folder"):
        load(copy)
    with pytest.raises(ConfigError, match="no live separator"):
        load("saved_models/duets")
    with pytest.raises(CheckpointError):
        load(tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    shutil.copyfile(live_run / "config.json", tmp_path / "run/config.json")
    with pytest.raises(CheckpointError, match=r"weights\.npz is not there"):
        load(tmp_path / "run")


@pytest.mark.parametrize(
    "changes", [{"latency_ms": 64.0}, {"trace_seconds": []}, {"num_sources": 3}, {"sample_rate": 8000.0}], ids=str
)
@pytest.mark.parametrize("file", ["", "float32.onnx"])
def test_a_file_that_is_not_of_its_settings_is_refused(changes, file, live_export, tmp_path):
    shutil.copytree(live_export, tmp_path / "copy")
    manifest = json.loads((live_export / "manifest.json").read_text())
    manifest["live"].update(changes)
    (tmp_path / "copy/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="is damaged or not ours"):
        load(tmp_path / "copy" / file)


def test_what_is_no_sound_and_no_model_is_refused(live_export, sound):
    separator = LiveSeparator(load(live_export))
    for samples in (sound * 1j, "abc", [[0.0], [0.0, 1.0]], [None]):
        with pytest.raises(DataError, match="samples"):
            separator.process(samples)
    with pytest.raises(ConfigError, match="state"):
        separator.state = None
    with pytest.raises(DataError, match="NaN"):
        separator.state = {name: np.full_like(value, np.nan) for name, value in separator.state.items()}
    for path in (None, 5):
        with pytest.raises(ConfigError, match="a path"):
            load(path)
    with pytest.raises(ConfigError, match="num_threads"):
        load(live_export, num_threads=0)
    with pytest.raises(CheckpointError, match="beside it"):
        load("sample/duet.wav")


def test_nan_and_foreign_states_leave_the_state_sound(live_export, sound):
    separator = LiveSeparator(load(live_export))
    separator.process(sound[:1000])
    kept = separator.state
    for bad in (np.full(500, np.nan), np.full(500, np.inf), np.full(500, 1e30)):
        with pytest.raises(DataError, match="NaN, infinite or huge"):
            separator.process(bad)
    for name, value in separator.state.items():
        np.testing.assert_array_equal(value, kept[name])
    with pytest.raises(ConfigError, match="of another model"):
        separator.state = {**kept, "level": np.zeros((1, 2), np.float32)}
    separator.state["level"][:] = 5  # a copy
    assert not separator.model.zeros["level"].any()
    for rate in (float("nan"), 0, 10.0):
        with pytest.raises(DataError, match="sample rate"):
            separator.separate(sound, rate)
    continued = separator.process(sound[1000:3000])
    twin = LiveSeparator(load(live_export))
    twin.process(sound[:1000])
    np.testing.assert_array_equal(continued, twin.process(sound[1000:3000]))


def test_silence_and_full_scale_noise_stay_finite(live_export):
    separator = LiveSeparator(load(live_export / "full_int8.tflite"))
    silence = separator.process(np.zeros(60 * 11_025, np.float32))
    assert np.abs(silence).max() < 1e-4
    noise = np.random.default_rng(0).uniform(-1, 1, 11_025).astype(np.float32)
    sources = np.concatenate([separator.process(noise), separator.finish()], axis=1)
    assert np.isfinite(sources).all()


def test_nothing_is_overwritten_without_force(live_run, live_export, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    for target, message in ((live_export, "--force"), (tmp_path / "other", "choose another --to")):
        assert export(["--run", str(live_run), "--to", str(target)]) == 2
        assert message in capsys.readouterr().err
    assert export(["--run", "saved_models/duets", "--to", str(tmp_path / "new")]) == 2
    assert "no run of a live separator" in capsys.readouterr().err
    assert export(["--run", str(live_run), "--to", str(tmp_path / "new"), "--formats", "tflight"]) == 2
    assert "unknown format" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_loading_an_export_takes_no_tensorflow(live_export):
    code = (
        "import sys; from vae_bss_tf.live.runtime import load; load(sys.argv[1]); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(live_export)], check=True, cwd=Path(__file__).parents[2])


@hypothesis.settings(max_examples=40, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=hypothesis.strategies.data())
def test_any_other_manifest_gives_an_error_of_ours_or_a_model(data, live_export, tmp_path, json_changes):
    folder = tmp_path / "fuzzed"
    if not folder.exists():
        shutil.copytree(live_export, folder)
    manifest = json.loads((live_export / "manifest.json").read_text())
    changed = data.draw(json_changes(manifest))
    (folder / "manifest.json").write_text(json.dumps(changed))
    with contextlib.suppress(VaeBssError):
        load(folder)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("vae_bss_tf.separate", ["sample/duet.wav", "--output", "{new}", "--model"]),
        ("training.evaluate", ["--run"]),
        ("export", ["--to", "{new}", "--run"]),
        ("training.fit", ["--epochs", "1", "--output", "{new}", "--init"]),
        ("export.serving", ["--to", "{new}"]),
    ],
)
def test_other_commands_name_the_one_that_takes_it(module, words, live_export, tmp_path, capsys):
    main = importlib.import_module("export.__main__" if module == "export" else module).main
    new = tmp_path / "new"
    assert main([*(word.format(new=new) for word in words), str(live_export)]) == 2
    assert "python -m vae_bss_tf.live takes it" in capsys.readouterr().err
    assert not new.exists()
