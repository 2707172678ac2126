// The library's parts, each on its own.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { RealFft } from "../../lib/fft.js";
import { asWav, checkFile, openWav, readManifest, Resampler, Spectrogram, UserError, WavFormat, wavHeader } from "../../lib/index.js";
import { permutations } from "../../lib/overlap-add.js";

const AUDIO = { sample_rate: 8000, n_fft: 64, hop_length: 16, num_frames: 8, num_bins: 33, frame_pooling: 1, power: 1 };

const noise = (length) => Float32Array.from({ length }, () => Math.random() - 0.5);
const largest = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
const refusedAs = (pattern) => (error) => error instanceof UserError && pattern.test(error.message);

test("the Fourier transform equals its definition, and its inverse undoes it", () => {
  for (const size of [2, 6, 64, 96, 250]) {
    const signal = Float64Array.from(noise(size));
    const re = new Float64Array(size / 2 + 1);
    const im = new Float64Array(size / 2 + 1);
    const back = new Float64Array(size);
    const fft = new RealFft(size);
    fft.forward(signal, re, im);
    fft.inverse(re, im, back);
    assert.ok(largest(signal, back) < 1e-12);
    for (let k = 0; k <= size / 2; k++) {
      const sum = (f) => signal.reduce((total, value, i) => total + value * f((2 * Math.PI * k * i) / size), 0);
      assert.ok(Math.abs(re[k] - sum(Math.cos)) < 1e-10 && Math.abs(im[k] + sum(Math.sin)) < 1e-10);
    }
  }
});

test("the inverse of a spectrogram is the signal, and masks that sum to 1 give sources that sum to it", () => {
  const spectrogram = new Spectrogram(AUDIO);
  const signal = noise(spectrogram.numSamples);
  const spectrum = spectrogram.stft(signal);
  assert.ok(largest(signal, spectrogram.istft(spectrum.re, spectrum.im)) < 1e-6);
  const masks = spectrogram.masks(noise(2 * spectrogram.featureSize).map(Math.abs), 2);
  const [a, b] = masks.map((mask) => spectrogram.masked(spectrum, mask));
  const sum = a.map((value, i) => value + b[i]);
  assert.ok(largest(signal, sum) < 1e-6);
});

test("resampling keeps a sine, whatever the blocks", () => {
  for (const [from, to] of [[44_100, 5512.5], [5512.5, 48_000], [8000, 5512.5], [44_101, 5512.5], [5512.5, 5512.5]]) {
    const sine = (rate) => Float32Array.from({ length: Math.round(rate) }, (_, i) => Math.sin((2 * Math.PI * 440 * i) / rate));
    const resampler = new Resampler(from, to, 1);
    const signal = sine(from);
    const parts = [];
    for (let start = 0, size = 1; start < signal.length; start += size, size = (7 * size) % 1999) {
      parts.push(...resampler.push([signal.slice(start, start + size)]));
    }
    const found = Float32Array.from([...parts, ...resampler.finish()].flatMap((part) => [...part]));
    const expected = sine(to);
    assert.equal(found.length, Math.round(signal.length / (from / to)));
    const inside = [Math.round(0.1 * to), Math.round(0.9 * to)];
    assert.ok(largest(found.slice(...inside), expected.slice(...inside)) < 1e-5, `${from} to ${to}`);
  }
});

test("orders come as Python's itertools gives them", () => {
  assert.deepEqual(permutations(3), [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]);
});

test("a WAV file that is written is read again", async () => {
  const channels = [noise(3000), noise(3000)];
  for (const [format, error] of [[WavFormat.FLOAT32, 0], [WavFormat.INT16, 1 / 65_536]]) {
    const wav = await openWav(asWav(channels, 1000, format), "a.wav");
    assert.deepEqual([wav.sampleRate, wav.numChannels, wav.numSamples, wav.format], [1000, 2, 3000, format]);
    const read = await wav.read(1000, 5000);
    assert.equal(read[0].length, 2000);
    read.forEach((samples, c) => assert.ok(largest(samples, channels[c].slice(1000)) <= error));
  }
});

test("24 bits, extensible headers, odd chunks and RF64 are read", async () => {
  const head = new DataView(new ArrayBuffer(24));
  head.setUint16(0, 0xfffe, true);
  head.setUint16(2, 1, true);
  head.setUint32(4, 8000, true);
  head.setUint16(14, 24, true);
  const extension = new DataView(new ArrayBuffer(16));
  extension.setUint16(0, 1, true);
  const chunk = (id, size, ...parts) => [id, new Uint32Array([size]), ...parts];
  const samples = new Uint8Array(3 * 1000);
  samples.set([0, 0, 0xc0, 0xff, 0xff, 0x7f]);
  const sizes = new BigUint64Array([0n, 3000n, 1000n]);
  const blob = new Blob([
    "RF64", new Uint32Array([0xffffffff]), "WAVE",
    ...chunk("ds64", 28, sizes, new Uint32Array(1)),
    ...chunk("odd ", 3, "abc\0"),
    ...chunk("fmt ", 40, head, extension),
    ...chunk("data", 0xffffffff, samples),
  ]); // prettier-ignore
  const wav = await openWav(blob, "a.wav");
  assert.equal(wav.numSamples, 1000);
  const [[first, second]] = await wav.read(0, 2);
  assert.equal(first, -0.5);
  assert.equal(second, Math.fround(8_388_607 / 8_388_608));
});

test("WAV files that cannot be separated are refused in a sentence", async () => {
  const header = new Uint8Array(wavHeader(8000, 1, 8000, WavFormat.INT16));
  const refused = (parts, pattern) => assert.rejects(openWav(new Blob(parts), "a.wav"), refusedAs(pattern));
  await refused([], /a\.wav is empty/);
  await refused(["This is a text."], /not a WAV file/);
  await refused([header.slice(0, 20)], /damaged/);
  await refused([header, new Uint8Array(8000)], /truncated: it holds 50\.0 %/);
  const coded = header.slice();
  coded[20] = 17;
  await refused([coded, new Uint8Array(16_000)], /16-bit PCM/);
  const padded = header.slice();
  padded[32] = 4;
  await refused([padded, new Uint8Array(16_000)], /16-bit PCM/);
  await refused([header.slice(0, 12), new Uint8Array(10_000_000)], /damaged/);
  await refused(["RF64", new Uint8Array(4), "WAVE", "ds64", new Uint8Array(12)], /damaged/);
  const gone = Object.assign(new Blob([header]), { slice: () => ({ arrayBuffer: () => Promise.reject(new Error()) }) });
  await assert.rejects(openWav(gone, "a.wav"), refusedAs(/no longer be read/));
  await refused([wavHeader(8000, 1, 10, WavFormat.INT16), new Uint8Array(20)], /0\.1 s/);
  await refused([wavHeader(8000, 6, 8000, WavFormat.INT16), new Uint8Array(96_000)], /6 channels/);
});

test("a WAV file longer than its header can say is refused", () => {
  const longest = (2 ** 32 - 45) / 8;
  wavHeader(192_000, 2, Math.floor(longest), WavFormat.FLOAT32);
  assert.throws(() => wavHeader(192_000, 2, Math.ceil(longest) + 1, WavFormat.FLOAT32), refusedAs(/4 GiB/));
});

test("a model and a manifest that do not belong together are refused", async () => {
  const manifest = { preset: { model: { input_shape: [8, 33], num_sources: 2 }, audio: AUDIO }, formats: {} };
  const file = new TextEncoder().encode("model").buffer;
  const sha256 = createHash("sha256").update("model").digest("hex");
  manifest.formats.onnx = { files: { "a.onnx": { bytes: 5, sha256 } } };
  await checkFile(readManifest(JSON.stringify(manifest)), file, "a.onnx");
  await assert.rejects(checkFile(manifest, file, "b.onnx"), refusedAs(/do not belong together/));
  await assert.rejects(checkFile(manifest, file, "a.tflite"), refusedAs(/not an \.onnx file/));
  manifest.formats.onnx.files["a.onnx"].sha256 = "0".repeat(64);
  await assert.rejects(checkFile(manifest, file, "a.onnx"), refusedAs(/do not belong together/));
  assert.throws(() => readManifest("text"), refusedAs(/not JSON/));
  assert.throws(() => readManifest("[]"), refusedAs(/not the manifest/));
  manifest.preset.model.num_sources = 7;
  assert.throws(() => readManifest(JSON.stringify(manifest)), refusedAs(/a model of 7 sources; the page separates recordings into up to 6/));
  assert.equal(readManifest(JSON.stringify({ ...manifest, preset: { model: manifest.preset.model } })).preset.model.num_sources, 7);
  manifest.preset.model.num_sources = 2;
  manifest.preset.audio.n_fft = 63;
  assert.throws(() => readManifest(JSON.stringify(manifest)), refusedAs(/not the manifest/));
});
