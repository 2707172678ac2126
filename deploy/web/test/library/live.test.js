// The live separator against Python on VAE_BSS_REFERENCES, and what is between it and a sound card.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { LiveBuffer, LiveSeparator, readLiveManifest, UserError } from "../../lib/index.js";

const folder = process.env.VAE_BSS_REFERENCES;

async function content(path) {
  const bytes = await readFile(path);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

/** Separates a signal in portions of lengths that `lengthOf` gives. */
async function separated(separator, signal, lengthOf) {
  const parts = [];
  for (let at = 0; at < signal.length; ) {
    const length = lengthOf();
    parts.push(await separator.process(signal.slice(at, at + length)));
    at += length;
  }
  return Array.from({ length: separator.numSources }, (_, k) => parts.flatMap((sources) => [...sources[k]]));
}

test("equals Python in any portions", { skip: !folder }, async (t) => {
  const ort = await import("onnxruntime-web");
  const { live } = JSON.parse(await readFile(join(folder, "references.json"), "utf8"));
  const signal = new Float32Array(await content(join(folder, "live_mixture.f32")));
  for (const [number, path] of live.entries()) {
    const expected = new Float32Array(await content(join(folder, `live_sources${number}.f32`)));
    const manifest = readLiveManifest(await readFile(join(path, "manifest.json"), "utf8"));
    const separator = await LiveSeparator.load(ort, manifest, await content(join(path, "float32.onnx")), "float32.onnx");
    const size = separator.blockLength;
    for (const lengthOf of [() => size, () => signal.length, () => 1 + Math.floor(Math.random() * 3 * size)]) {
      separator.reset();
      const sources = (await separated(separator, signal, lengthOf)).flat();
      assert.equal(sources.length, expected.length);
      const largest = sources.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
      t.diagnostic(`blocks of ${size} samples: largest difference ${largest.toExponential(1)}`);
      assert.ok(largest <= 1e-5, `differs by ${largest}`);
    }
    await assert.rejects(separator.process(new Float32Array([0, NaN])), UserError);
  }
});

/** The manifest of a model of two sources and blocks of 4 samples, and a runtime that counts blocks in a state. */
const MANIFEST = {
  kind: "live",
  latency_ms: 8,
  live: { sample_rate: 1000 },
  signature: { inputs: { block: { shape: [1, 4] } }, outputs: { sources: { shape: [1, 2, 4] } } },
  states: [{ name: "count", next: "next_count", shape: [1] }],
  formats: { onnx_float32: { path: "float32.onnx", bytes: 3, sha256: "0" } },
};
class Tensor {
  constructor(type, data, dims) {
    Object.assign(this, { type, data, dims });
  }
}
const session = {
  run: async ({ block, count }) => ({
    sources: new Tensor("float32", Float32Array.from([...block.data, ...block.data.map(() => count.data[0])]), [1, 2, 4]),
    next_count: new Tensor("float32", Float32Array.of(count.data[0] + 1), [1]),
  }),
};

test("blocks are filled from any portions, states go from block to block, and a reset forgets both", async () => {
  const separator = new LiveSeparator(MANIFEST, session, Tensor);
  const signal = Float32Array.from({ length: 12 }, (_, i) => i);
  for (const length of [1, 3, 4, 7, 12]) {
    assert.deepEqual(await separated(separator, signal, () => length), [[...signal], [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]]);
    await separator.process(signal.slice(0, 3));
    separator.reset();
  }
});

test("manifests and files that are no live model's are refused", async () => {
  const refused = (text, reason) => assert.throws(() => readLiveManifest(text), (error) => error instanceof UserError && reason.test(error.message));
  refused("{", /not JSON/);
  refused("{}", /not the manifest of a live model/);
  refused(JSON.stringify({ ...MANIFEST, states: [{ name: "count" }] }), /not the manifest of a live model/);
  const many = { ...MANIFEST.signature, outputs: { sources: { shape: [1, 100_000, 4] } } };
  refused(JSON.stringify({ ...MANIFEST, signature: many }), /not the manifest of a live model/);
  const huge = { ...MANIFEST.states[0], shape: [1, 2 ** 30] };
  refused(JSON.stringify({ ...MANIFEST, states: [huge] }), /not the manifest of a live model/);
  readLiveManifest(JSON.stringify(MANIFEST));
  await assert.rejects(LiveSeparator.load(null, MANIFEST, new ArrayBuffer(4), "float32.onnx"), /do not belong together/);
});

test("the buffer plays all that came in, later by its delay, and counts what is missing", () => {
  for (const blockLength of [88, 352]) {
    const buffer = new LiveBuffer({ blockLength, numSources: 2, margin: 256, limit: 2048 });
    const played = [[], []];
    const waiting = [];
    let count = 0;
    const quantum = (returns) => {
      buffer.push(Float32Array.from({ length: 128 }, () => ++count), (block) => waiting.push(block));
      const outputs = [new Float32Array(128), new Float32Array(128)];
      buffer.pull(outputs);
      outputs.forEach((output, k) => played[k].push(...output));
      if (returns) for (const block of waiting.splice(0)) buffer.receive([block, block.map((value) => -value)]);
    };
    for (let i = 0; i < 100; i++) quantum(true);
    assert.equal(buffer.underRuns, 0);
    const first = played[0].indexOf(1);
    played[0].slice(first).forEach((value, i) => assert.equal(value, i + 1));
    played[1].slice(first).forEach((value, i) => assert.equal(value, -i - 1));
    assert.ok(buffer.delay <= blockLength + 256 + 128, `${buffer.delay}`);
    // A separator that was away for a second: one under-run, a bounded delay, and after a while the one from before.
    for (let i = 0; i < 86; i++) quantum(false);
    assert.ok(buffer.delay <= 2 * 2048 + blockLength, `${buffer.delay}`);
    for (let i = 0; i < 10; i++) quantum(true);
    assert.ok(buffer.delay <= 2048 + blockLength, `${buffer.delay}`);
    for (let i = 0; i < 300; i++) quantum(true);
    assert.equal(buffer.underRuns, 1);
    assert.ok(buffer.delay <= blockLength + 256 + 128, `${buffer.delay}`);
    assert.equal(played[0].at(-1), count - buffer.delay);
    assert.equal(played[1].at(-1), -played[0].at(-1));
  }
});
