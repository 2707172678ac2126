// Compares the library with Python on the recordings of VAE_BSS_REFERENCES, which tests/web/conftest.py writes.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";

import { Model, readManifest, Separator, UserError } from "../../lib/index.js";

const folder = process.env.VAE_BSS_REFERENCES;

async function loadModel(path, file) {
  const ort = await import("onnxruntime-web");
  const manifest = readManifest(await readFile(join(path, "manifest.json"), "utf8"));
  const bytes = await readFile(join(path, file));
  return Model.load(ort, manifest, bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), file);
}

async function floats(path) {
  const bytes = await readFile(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

test("equals Python on made recordings of different rates, lengths and channels", { skip: !folder }, async (t) => {
  const { model: path, cases } = JSON.parse(await readFile(join(folder, "references.json"), "utf8"));
  const model = await loadModel(path, "float32.onnx");
  for (const [number, { sample_rate: rate, num_channels: channels, num_samples: length }] of cases.entries()) {
    await t.test(`${length} samples at ${rate} Hz, ${channels} channels`, async (t) => {
      const mixture = await floats(join(folder, `mixture${number}.f32`));
      const expected = await floats(join(folder, `sources${number}.f32`));
      const separator = new Separator(model.run, model.audio, model.numSources);
      const signals = Array.from({ length: channels }, (_, c) => mixture.subarray(c * length, (c + 1) * length));
      const sources = (await separator.separate(signals, rate)).flat();
      assert.deepEqual(
        sources.map((signal) => signal.length),
        new Array(model.numSources * channels).fill(length),
      );
      const largest = sources.reduce(
        (most, signal, s) => signal.reduce((m, value, i) => Math.max(m, Math.abs(value - expected[s * length + i])), most),
        0,
      );
      t.diagnostic(`largest difference ${largest.toExponential(1)}`);
      assert.ok(largest <= 1e-4, `differs by ${largest}`);
    });
  }
});

const AUDIO = { sample_rate: 8000, n_fft: 64, hop_length: 16, num_frames: 8, num_bins: 33, frame_pooling: 1, power: 1 };

/** A model that gives each source what comes in. */
const copies = (numSources) => async (features, count) => {
  const size = features.length / count;
  const sources = new Float32Array(numSources * features.length);
  for (let i = 0; i < count; i++) {
    const mixture = features.subarray(i * size, (i + 1) * size);
    for (let k = 0; k < numSources; k++) sources.set(mixture, (numSources * i + k) * size);
  }
  return sources;
};

test("sources sum to the recording", async () => {
  for (const rate of [8000, 44_100]) {
    const noise = Float32Array.from({ length: rate / 2 + 7 }, () => Math.random() - 0.5);
    const sources = await new Separator(copies(2), AUDIO, 2).separate([noise], rate);
    noise.forEach((value, i) => assert.ok(Math.abs(sources[0][0][i] + sources[1][0][i] - value) < 1e-6));
  }
});

test("a recording is read as often as there are passes", async () => {
  for (const [numSources, numPasses] of [[2, 2], [4, 2], [5, 1], [6, 1]]) {
    const separator = new Separator(copies(numSources), AUDIO, numSources);
    let numRead = 0;
    function* blocks() {
      numRead++;
      yield [Float32Array.from({ length: 2000 }, () => Math.random() - 0.5)];
    }
    const { orders } = await separator.findOrders(blocks, 8000);
    for await (const block of separator.stream(blocks, 8000, 1, orders)) assert.equal(block.length, numSources);
    assert.deepEqual([numRead, separator.numPasses], [numPasses, numPasses]);
  }
});

test("refuses what cannot be separated", async () => {
  const separator = new Separator(copies(2), AUDIO, 2);
  const refused = async (channels, rate, reason) =>
    assert.rejects(separator.separate(channels, rate), (error) => error instanceof UserError && reason.test(error.message));
  await refused([new Float32Array(8000)], 8000, /silent/);
  const ones = new Float32Array(8000).fill(1);
  await refused([ones, ones.map((value) => -value)], 8000, /The waveform: its channels cancel each other out; take one of them alone/);
  await refused([ones, ones.map((value) => 2 ** -15 - value)], 8000, /cancel each other out/); // what rounding leaves
  await refused([new Float32Array(8000).fill(NaN)], 8000, /no numbers/);
  await refused([new Float32Array(8000).fill(1e30)], 8000, /scale it/);
  await refused([new Float32Array(10)], 8000, /0\.1 s/);
  await refused([new Float32Array(8000)], 10, /1 kHz/);
  await refused(new Array(6).fill(new Float32Array(8000)), 8000, /6 channels/);
});
