/** Separates sound while it comes, by a live model of vae-bss-tf: each block gives as much of each source. */

import { UserError } from "./errors.js";
import { checkFile } from "./model.js";

const MAX_SAMPLE = 2 ** 31;
const MAX_SOURCES = 8;
const MAX_BLOCK = 1 << 16; // samples
const MAX_STATE = 1 << 24; // values

/**
 * Reads the `manifest.json` of a live model.
 *
 * @param {string} text The file's content.
 * @param {string} [name] The file's name, for messages.
 * @returns {object} The manifest.
 * @throws {UserError} It is not the manifest of a live model.
 */
export function readLiveManifest(text, name = "manifest.json") {
  let manifest = null;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new UserError(`${name} is not JSON; give the manifest.json that lies beside the model in its export folder.`);
  }
  const block = manifest?.signature?.inputs?.block?.shape;
  const sources = manifest?.signature?.outputs?.sources?.shape;
  const fits =
    manifest?.kind === "live" &&
    isShape(block, 2) &&
    isShape(sources, 3) &&
    block[1] === sources[2] &&
    sources[1] <= MAX_SOURCES &&
    block[1] <= MAX_BLOCK &&
    manifest.live?.sample_rate > 0 &&
    manifest.latency_ms > 0 &&
    Array.isArray(manifest.states) &&
    manifest.states.every((state) => state?.name && state.next && isShape(state.shape, state.shape?.length)) &&
    manifest.states.reduce((total, { shape }) => total + shape.reduce((a, b) => a * b, 1), 0) <= MAX_STATE &&
    typeof manifest.formats?.onnx_float32?.path === "string";
  if (!fits) {
    throw new UserError(`${name} is not the manifest of a live model with an .onnx file; python -m export.live writes one.`);
  }
  return manifest;
}

function isShape(shape, rank) {
  return Array.isArray(shape) && shape.length === rank && shape.every((size) => Number.isInteger(size) && size >= 1);
}

/** What of a live model's manifest an app needs before it loads the model. */
export function describeLive(manifest) {
  const [, numSources, blockLength] = manifest.signature.outputs.sources.shape;
  return {
    numSources,
    blockLength, // samples
    sampleRate: manifest.live.sample_rate, // Hz
    latency: manifest.latency_ms / 1000, // seconds: a block to fill and a block behind
  };
}

/** A live model, and what it remembers. */
export class LiveSeparator {
  #waiting;

  /**
   * @param {object} manifest As `readLiveManifest` gives it.
   * @param {import("onnxruntime-web").InferenceSession} session
   * @param {typeof import("onnxruntime-web").Tensor} Tensor
   */
  constructor(manifest, session, Tensor) {
    Object.assign(this, describeLive(manifest));
    this.manifest = manifest;
    this.session = session;
    this.Tensor = Tensor;
    this.reset();
  }

  /**
   * @param {typeof import("onnxruntime-web")} ort The runtime.
   * @param {object} manifest As `readLiveManifest` gives it.
   * @param {ArrayBuffer} file The `.onnx` file.
   * @param {string} name The file's name, for messages.
   * @returns {Promise<LiveSeparator>}
   * @throws {UserError} The manifest lists another file, or the runtime does not take it.
   */
  static async load(ort, manifest, file, name) {
    await checkFile(manifest, file, name);
    try {
      return new LiveSeparator(manifest, await ort.InferenceSession.create(new Uint8Array(file)), ort.Tensor);
    } catch (error) {
      throw new UserError(`${name} cannot be loaded (${String(error?.message ?? error).split("\n")[0]}).`);
    }
  }

  /** Forgets everything that was heard. */
  reset() {
    this.states = {};
    for (const { name, shape } of this.manifest.states) {
      this.states[name] = new this.Tensor("float32", new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
    }
    this.#waiting = new Float32Array(0);
  }

  /**
   * Separates the next samples. Calls follow one another: the next one begins when the promise of the last is fulfilled.
   *
   * @param {Float32Array} samples Any number, one channel at the model's rate, in [-1, 1].
   * @returns {Promise<Float32Array[]>} Each source's samples: all blocks that are full. The sources sum to what went in
   *   one block before.
   * @throws {UserError} A sample is no number or huge. All is as before.
   */
  async process(samples) {
    if (samples.some((value) => !(Math.abs(value) <= MAX_SAMPLE))) {
      throw new UserError("The sound holds values that are no numbers or huge; leave them out.");
    }
    const size = this.blockLength;
    const all = new Float32Array(this.#waiting.length + samples.length);
    all.set(this.#waiting);
    all.set(samples, this.#waiting.length);
    const length = all.length - (all.length % size);
    const sources = Array.from({ length: this.numSources }, () => new Float32Array(length));
    for (let start = 0; start < length; start += size) {
      const separated = await this.#step(all.slice(start, start + size));
      sources.forEach((signal, k) => signal.set(separated.subarray(k * size, (k + 1) * size), start));
    }
    this.#waiting = all.slice(length);
    return sources;
  }

  async #step(samples) {
    const block = new this.Tensor("float32", samples, [1, samples.length]);
    const outputs = await this.session.run({ block, ...this.states });
    for (const { name, next } of this.manifest.states) this.states[name] = outputs[next];
    return outputs.sources.data;
  }
}
