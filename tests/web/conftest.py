"""What the tests of the web page share: the built page, a model in float32, and recordings that Python separates."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vae_bss_tf import Separator, runtime
from vae_bss_tf.files import sha256, write_json
from vae_bss_tf.live.runtime import LiveSeparator, load

REPOSITORY = Path(__file__).resolve().parents[2]
WEB = REPOSITORY / "deploy" / "web"

# Sample rate in Hz, seconds, channels; 5,512.5 Hz is the model's own rate.
RECORDINGS = (
    (5_512.5, 3.1, 1),
    (5_512.5, 12.3, 2),
    (44_100, 2.0, 2),
    (44_100, 10.5, 1),
    (48_000, 1.5, 2),
    (22_050, 4.0, 1),
    (16_000, 2.5, 2),
    (11_025, 0.11, 1),
    (44_100, 0.42, 1),  # little more than a window
    (5_512.5, 0.45, 2),
    (8_000, 5.0, 1),
    (96_000, 1.0, 2),
)


def duet(sample_rate, seconds, num_channels, seed=0):
    """Makes a recording of two instruments that play one note after the other: float32 `[num_channels, samples]`."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    mixture = np.zeros((num_channels, len(time)))
    for decay, note_seconds, places in ((1.2, 0.43, (0.9, 0.3)), (2.5, 0.31, (0.4, 0.8))):
        for start in np.arange(0, seconds, note_seconds):
            since = time - start
            frequency = 220 * 2 ** (rng.integers(0, 19) / 12)
            partials = np.arange(1, 1 + int(min(10, 0.45 * sample_rate / frequency)))
            note = sum(np.sin(2 * np.pi * frequency * n * since + n) / n**decay for n in partials)
            sounding = (since > 0) & (since < note_seconds)
            envelope = np.where(sounding, np.sin(np.pi * np.clip(since / note_seconds, 0, 1)) ** 0.5, 0)
            mixture += 0.25 * np.asarray(places[:num_channels])[:, np.newaxis] * (note * envelope)
    return mixture.astype(np.float32)


def write_float_model(source, folder):
    """Writes the float32 form of an export's `int8.onnx`, with a manifest of its own.

    The int8 file rounds its activations, so that differences of 1e-7 before a rounding can become 1e-3 after it. Its
    weights in float32 arithmetic give the same model without roundings, which two runtimes compute alike.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source / "int8.onnx")
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantised_weights = dict(constants)
    inputs, nodes, added = {}, [], {}
    for node in graph.node:
        if node.op_type == "DynamicQuantizeLinear":
            quantised, scale, _ = node.output
            inputs[quantised] = node.input[0]
            added[scale] = numpy_helper.from_array(np.float32(1), scale)
        elif node.op_type == "MatMulInteger":
            quantised, weights, _, zero_point = node.input
            # Some weights serve two nodes.
            values = numpy_helper.to_array(quantised_weights[weights]).astype(np.float32)
            values -= numpy_helper.to_array(quantised_weights[zero_point]).astype(np.float32)
            added[f"{weights}_float"] = numpy_helper.from_array(values, f"{weights}_float")
            nodes.append(helper.make_node("MatMul", [inputs[quantised], f"{weights}_float"], list(node.output)))
            constants.pop(weights, None), constants.pop(zero_point, None)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.initializer[:]
    graph.initializer.extend([*constants.values(), *added.values()])
    folder.mkdir(parents=True)
    onnx.save(model, folder / "float32.onnx")
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    file = folder / "float32.onnx"
    described = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    manifest["formats"] = {"onnx_float32": {"path": file.name, "batch": "any", "files": {file.name: described}}}
    write_json(folder / "manifest.json", manifest)


@pytest.fixture(scope="session")
def float_model(tmp_path_factory):
    """The folder of `saved_models/duets` in float32."""
    folder = tmp_path_factory.mktemp("float") / "model"
    write_float_model(REPOSITORY / "saved_models" / "duets", folder)
    return folder


def write_live_references(folder):
    """Writes a recording and what Python's live separators make of it; returns the folders of their models."""
    mixture = duet(11_025, 5, 1)[0]
    mixture.tofile(folder / "live_mixture.f32")
    paths = [path.parent for path in sorted((REPOSITORY / "saved_models").glob("live*/float32.onnx"))]
    for number, path in enumerate(paths):
        LiveSeparator(load(path / "float32.onnx")).process(mixture).tofile(folder / f"live_sources{number}.f32")
    return [str(path) for path in paths]


@pytest.fixture(scope="session")
def references(tmp_path_factory, float_model):
    """Recordings and what Python separates them into: raw float32 files, and `references.json` about them."""
    folder = tmp_path_factory.mktemp("references")
    separator = Separator.load(float_model)
    cases = []
    for number, (rate, seconds, num_channels) in enumerate(RECORDINGS):
        mixture = duet(rate, seconds, num_channels, seed=number)
        mixture.tofile(folder / f"mixture{number}.f32")
        separator.separate(mixture, rate).tofile(folder / f"sources{number}.f32")
        cases.append({"sample_rate": rate, "num_channels": num_channels, "num_samples": mixture.shape[1]})
    live = write_live_references(folder)
    write_json(folder / "references.json", {"model": str(float_model), "cases": cases, "live": live})
    return folder


@pytest.fixture(scope="session")
def sample_references(tmp_path_factory, float_model):
    """What Python separates the sample into, by the float32 model, which is beside it, and by the one that ships."""
    folder = tmp_path_factory.mktemp("sample")
    shutil.copytree(float_model, folder / "model")
    waveform, rate = soundfile.read(REPOSITORY / "sample" / "duet.wav", dtype="float32")
    for name, model in (("float", float_model), ("int8", REPOSITORY / "saved_models" / "duets" / "int8.onnx")):
        loaded = runtime.load(model)
        separator = Separator(loaded, loaded.metadata.preset.audio)  # the page has no context network
        for number, source in enumerate(separator.separate(waveform, rate), start=1):
            source.tofile(folder / f"{name}{number}.f32")
    return folder


@pytest.fixture(scope="session")
def node():
    """Runs Node.js in the page's folder; skips where it or the page's packages are missing."""
    if shutil.which("node") is None or not (WEB / "node_modules").is_dir():
        pytest.skip("Node.js or the page's packages are missing; run `npm ci` in deploy/web")

    def run(*arguments, **environment):
        return subprocess.run(
            ["node", *map(str, arguments)],
            cwd=WEB, env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            capture_output=True, text=True, timeout=1150, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="session")
def page(node):
    """Builds the page and returns the browser that looks at it; skips where Chromium is missing."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is missing; install it, or name it in CHROMIUM")
    built = node("build.mjs")
    assert built.returncode == 0, built.stderr
    return chromium
