"""The JavaScript of deploy/edge/README.md, run under Node.js, gives what Python gives."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from vae_bss_tf.live.runtime import LiveSeparator, load

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = REPOSITORY / "deploy/web/node_modules"
PROGRAM = """
import * as fs from "node:fs";
import * as ort from "onnxruntime-web";
import { LiveSeparator } from "./live.mjs";

const [folder, input, output] = process.argv.slice(2);
const manifest = JSON.parse(fs.readFileSync(`${folder}/manifest.json`));
const session = await ort.InferenceSession.create(fs.readFileSync(`${folder}/float32.onnx`));
const separator = new LiveSeparator(manifest, session);
const bytes = fs.readFileSync(input);
const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const [, block] = manifest.signature.inputs.block.shape;
const parts = [];
for (let first = 0; first + block <= samples.length; first += block) {
  parts.push(Float32Array.from(await separator.process(samples.slice(first, first + block))));
}
fs.writeFileSync(output, Buffer.concat(parts.map((part) => Buffer.from(part.buffer))));
"""


@pytest.mark.skipif(
    shutil.which("node") is None or not MODULES.is_dir(), reason="needs Node.js and deploy/web's modules"
)
def test_the_readmes_javascript_equals_python(live_export, sound, tmp_path):
    code = re.findall(r"```js\n(.*?)```", (REPOSITORY / "deploy/edge/README.md").read_text(), re.DOTALL)
    (tmp_path / "live.mjs").write_text(next(part for part in code if "class LiveSeparator" in part))
    (tmp_path / "program.mjs").write_text(PROGRAM)
    (tmp_path / "node_modules").symlink_to(MODULES)
    sound.tofile(tmp_path / "in.f32")
    subprocess.run(["node", "program.mjs", live_export, "in.f32", "out.f32"], cwd=tmp_path, check=True)
    expected = LiveSeparator(load(live_export / "float32.onnx")).process(sound)
    found = np.fromfile(tmp_path / "out.f32", np.float32).reshape(-1, 2, 88).transpose(1, 0, 2).reshape(2, -1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
