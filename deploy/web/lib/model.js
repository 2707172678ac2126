/** Exported models: their manifest, checked against their file, and one call of onnxruntime for any number of mixtures. */

import { UserError } from "./errors.js";
import { ENUMERATED_SOURCES } from "./overlap-add.js";

const MAX_SIZE = 1 << 14; // of a side of the input, and of the number of sources

/**
 * Reads a `manifest.json`.
 *
 * @param {string} text The file's content.
 * @param {string} [name] The file's name, for messages.
 * @returns {object} The manifest.
 * @throws {UserError} It is not the manifest of an export of vae-bss-tf, or that of a model of sound with too many sources.
 */
export function readManifest(text, name = "manifest.json") {
  let manifest = null;
  try {
    manifest = JSON.parse(text);
  } catch {
    throw new UserError(`${name} is not JSON; give the manifest.json that lies beside the model in its export folder.`);
  }
  const model = manifest?.preset?.model;
  const audio = manifest?.preset?.audio ?? null;
  const shape = model?.input_shape;
  const sizes = [...(Array.isArray(shape) ? shape : [0]), model?.num_sources];
  const fits = sizes.every((size) => Number.isInteger(size) && size >= 1 && size <= MAX_SIZE) && (audio === null || audioFits(audio, shape));
  if (!fits || typeof manifest.formats !== "object" || manifest.formats === null) {
    throw new UserError(`${name} is not the manifest of a model of vae-bss-tf; python -m export writes one.`);
  }
  if (audio !== null && model.num_sources > ENUMERATED_SOURCES) {
    throw new UserError(
      `${name} is of a model of ${model.num_sources} sources; the page separates recordings into up to ` +
        `${ENUMERATED_SOURCES}, python -m vae_bss_tf.separate into any number.`,
    );
  }
  return manifest;
}

function audioFits(audio, shape) {
  const whole = [audio.n_fft, audio.hop_length, audio.num_frames, audio.num_bins, audio.frame_pooling];
  return (
    whole.every((value) => Number.isInteger(value) && value >= 1 && value <= 1 << 20) &&
    audio.sample_rate >= 1 &&
    audio.power > 0 &&
    audio.power <= 1 &&
    audio.n_fft % 2 === 0 &&
    audio.n_fft % audio.hop_length === 0 &&
    audio.n_fft >= 4 * audio.hop_length &&
    audio.num_bins <= audio.n_fft / 2 + 1 &&
    audio.num_frames % audio.frame_pooling === 0 &&
    shape.length === 2 &&
    shape[0] === audio.num_frames / audio.frame_pooling &&
    shape[1] === audio.num_bins
  );
}

/**
 * Checks that a file may be one that a manifest lists, before it is read.
 *
 * @param {object} manifest As `readManifest` or `readLiveManifest` gives it.
 * @param {string} name The file's name.
 * @param {number} bytes Its size.
 * @returns {{ bytes: number, sha256: string }} What the manifest says of it.
 * @throws {UserError} The manifest lists another file, or none of this name.
 */
export function listedFile(manifest, name, bytes) {
  if (!name.endsWith(".onnx")) {
    throw new UserError(`${name} is not an .onnx file; the page runs the .onnx files of an export.`);
  }
  // A live model's formats are one file each.
  const listed = Object.values(manifest.formats)
    .map((format) => format?.files?.[name] ?? (format?.path === name ? format : null))
    .find(Boolean);
  if (listed?.bytes !== bytes) throw new UserError(strange(name));
  return listed;
}

function strange(name) {
  return `${name} and manifest.json do not belong together; give both from one export folder.`;
}

/**
 * Checks that a file is one that a manifest lists, by its size and its SHA-256.
 *
 * @param {object} manifest As `readManifest` or `readLiveManifest` gives it.
 * @param {ArrayBuffer} file The file's content.
 * @param {string} name The file's name.
 * @throws {UserError} The manifest lists another file, or none of this name.
 */
export async function checkFile(manifest, file, name) {
  const listed = listedFile(manifest, name, file.byteLength);
  const sha256 = await digest(file);
  // Without HTTPS a browser computes no digests; then the size must do.
  if (sha256 !== null && listed.sha256 !== sha256) throw new UserError(strange(name));
}

async function digest(file) {
  if (!globalThis.crypto?.subtle) return null;
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A model under onnxruntime. */
export class Model {
  /**
   * @param {object} manifest As `readManifest` gives it.
   * @param {import("onnxruntime-web").InferenceSession} session
   * @param {typeof import("onnxruntime-web").Tensor} Tensor
   */
  constructor(manifest, session, Tensor) {
    this.inputShape = manifest.preset.model.input_shape;
    this.numSources = manifest.preset.model.num_sources;
    this.audio = manifest.preset.audio ?? null;
    this.session = session;
    this.Tensor = Tensor;
    this.run = this.run.bind(this);
  }

  /**
   * @param {typeof import("onnxruntime-web")} ort The runtime.
   * @param {object} manifest As `readManifest` gives it.
   * @param {ArrayBuffer} file The `.onnx` file.
   * @param {string} name The file's name, for messages.
   * @returns {Promise<Model>}
   * @throws {UserError} The runtime does not take the file.
   */
  static async load(ort, manifest, file, name) {
    await checkFile(manifest, file, name);
    let session = null;
    try {
      session = await ort.InferenceSession.create(new Uint8Array(file));
    } catch (error) {
      throw new UserError(`${name} cannot be loaded (${String(error?.message ?? error).split("\n")[0]}).`);
    }
    const shape = session.inputMetadata?.[0]?.shape;
    if (shape && shape.length !== manifest.preset.model.input_shape.length + 1) {
      throw new UserError(`${name} takes waveforms; give the export's float32.onnx or int8.onnx.`);
    }
    return new Model(manifest, session, ort.Tensor);
  }

  /**
   * @param {Float32Array} mixtures `[count, ...inputShape]`, in [0, 1].
   * @param {number} count
   * @returns {Promise<Float32Array>} Their sources, `[count, numSources, ...inputShape]`.
   */
  async run(mixtures, count) {
    const mixture = new this.Tensor("float32", mixtures, [count, ...this.inputShape]);
    const { sources } = await this.session.run({ mixture }, ["sources"]);
    const size = this.inputShape.reduce((a, b) => a * b, 1);
    if (sources.data.length !== count * this.numSources * size) {
      throw new UserError("The model gives other sources than its manifest.json says; give both from one export folder.");
    }
    return sources.data;
  }
}
