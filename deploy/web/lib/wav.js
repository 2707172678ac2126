/** WAV files, read in parts from a Blob and written as a header and samples. */

import { UserError } from "./errors.js";
import { checkRecording } from "./separator.js";

const PCM = 1;
const FLOAT = 3;
const EXTENSIBLE = 0xfffe;
const STREAM_BYTES = 0x7ffff000; // and above: what programs write that do not know the length yet
const HEADER_BYTES = 44;
const MAX_BYTES = 0xffffffff - HEADER_BYTES;
const MAX_CHUNKS = 1000; // before the samples; a damaged file may seem to hold millions

/** How a sample is coded. @enum {string} */
export const WavFormat = { INT16: "int16", FLOAT32: "float32" };

/**
 * @typedef {object} Wav
 * @property {number} sampleRate In Hz.
 * @property {number} numChannels
 * @property {number} numSamples Of one channel.
 * @property {string} format A `WavFormat` that holds the samples without loss.
 * @property {(start: number, count: number) => Promise<Float32Array[]>} read Reads samples, one array a channel.
 */

/**
 * Reads the header of a WAV file; its samples stay where they are.
 *
 * @param {Blob} blob The file.
 * @param {string} name Its name, for messages.
 * @returns {Promise<Wav>}
 * @throws {UserError} It is no WAV file, is coded otherwise than as PCM or floats, is truncated, or cannot be separated.
 */
export async function openWav(blob, name) {
  if (blob.size === 0) throw new UserError(`${name} is empty (0 bytes); give a recording.`);
  const start = await view(blob, 0, 12);
  if (!isWav(start)) throw new UserError(`${name} is not a WAV file, whatever its name says; save the recording as WAV.`);
  let format = null;
  let longSize = null;
  for (let at = 12, chunks = 0; at + 8 <= blob.size && chunks < MAX_CHUNKS; chunks++) {
    const head = await view(blob, at, 8);
    const id = text(head, 0);
    const size = head.getUint32(4, true);
    if (id === "ds64") {
      const sizes = await view(blob, at + 8, 16);
      if (sizes.byteLength < 16) break;
      longSize = Number(sizes.getBigUint64(8, true));
    }
    if (id === "fmt ") format = readFormat(await view(blob, at + 8, Math.min(size, 40)), name);
    if (id === "data") {
      if (!format) break;
      const present = blob.size - at - 8;
      const stated = size === 0xffffffff && longSize !== null ? longSize : size;
      const isStream = longSize === null && (size >= STREAM_BYTES || size === 0);
      if (stated > present && !isStream) {
        const share = ((100 * present) / stated).toPrecision(3);
        throw new UserError(`${name} is truncated: it holds ${share} % of the samples that its header states.`);
      }
      return describe(blob, at + 8, isStream ? present : stated, format, name);
    }
    at += 8 + size + (size % 2);
  }
  throw new UserError(`${name} is a WAV file without ${format ? "samples" : "a format"}; it is damaged.`);
}

/** Whether a file begins as a WAV file does. @param {DataView} start Its first 12 bytes, or fewer. */
export function isWav(start) {
  return start.byteLength >= 12 && ["RIFF", "RF64"].includes(text(start, 0)) && text(start, 8) === "WAVE";
}

function readFormat(fmt, name) {
  if (fmt.byteLength < 16) throw new UserError(`${name} is a WAV file with a damaged header.`);
  const tag = fmt.getUint16(0, true);
  const code = tag === EXTENSIBLE && fmt.byteLength >= 26 ? fmt.getUint16(24, true) : tag;
  const bits = fmt.getUint16(14, true);
  const numChannels = fmt.getUint16(2, true);
  const decode = DECODERS[`${code}/${bits}`];
  const isPadded = fmt.getUint16(12, true) > (numChannels * bits) / 8; // samples in wider containers
  if (!decode || isPadded) {
    throw new UserError(
      `${name} is coded in a way that this page does not read (format ${code}, ${bits} bits); save it as 16-bit PCM.`,
    );
  }
  return { numChannels, sampleRate: fmt.getUint32(4, true), bytes: bits / 8, isShort: code === PCM && bits <= 16, decode };
}

const DECODERS = {
  [`${PCM}/8`]: (view, at) => (view.getUint8(at) - 128) / 128,
  [`${PCM}/16`]: (view, at) => view.getInt16(at, true) / 32_768,
  [`${PCM}/24`]: (view, at) => (view.getUint16(at, true) + view.getInt8(at + 2) * 65_536) / 8_388_608,
  [`${PCM}/32`]: (view, at) => view.getInt32(at, true) / 2_147_483_648,
  [`${FLOAT}/32`]: (view, at) => view.getFloat32(at, true),
  [`${FLOAT}/64`]: (view, at) => view.getFloat64(at, true),
};

function describe(blob, offset, bytes, { numChannels, sampleRate, bytes: width, isShort, decode }, name) {
  const frame = numChannels * width;
  const numSamples = frame > 0 ? Math.floor(bytes / frame) : 0;
  checkRecording(name, sampleRate, numChannels, numSamples);
  return {
    sampleRate,
    numChannels,
    numSamples,
    format: isShort ? WavFormat.INT16 : WavFormat.FLOAT32,
    async read(start, count) {
      const length = Math.max(0, Math.min(count, numSamples - start));
      const data = await view(blob, offset + start * frame, length * frame);
      const channels = Array.from({ length: numChannels }, () => new Float32Array(length));
      channels.forEach((samples, c) => {
        for (let i = 0, at = c * width; i < length; i++, at += frame) samples[i] = decode(data, at);
      });
      return channels;
    },
  };
}

/**
 * Makes the header of a WAV file.
 *
 * @param {number} sampleRate In Hz.
 * @param {number} numChannels
 * @param {number} numSamples Of one channel.
 * @param {string} format A `WavFormat`.
 * @returns {ArrayBuffer}
 * @throws {UserError} The file would be longer than a WAV file can be, 4 GiB.
 */
export function wavHeader(sampleRate, numChannels, numSamples, format) {
  const width = format === WavFormat.INT16 ? 2 : 4;
  const bytes = numSamples * numChannels * width;
  if (bytes > MAX_BYTES) {
    throw new UserError("A source would be longer than a WAV file can be, 4 GiB; separate the recording in parts.");
  }
  const header = new DataView(new ArrayBuffer(HEADER_BYTES));
  const write = (at, word) => [...word].forEach((letter, i) => header.setUint8(at + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  header.setUint32(4, HEADER_BYTES - 8 + bytes, true);
  write(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, format === WavFormat.INT16 ? PCM : FLOAT, true);
  header.setUint16(22, numChannels, true);
  header.setUint32(24, sampleRate, true);
  header.setUint32(28, sampleRate * numChannels * width, true);
  header.setUint16(32, numChannels * width, true);
  header.setUint16(34, 8 * width, true);
  write(36, "data");
  header.setUint32(40, bytes, true);
  return header.buffer;
}

/**
 * Codes samples as they stand in a WAV file.
 *
 * @param {Float32Array[]} channels
 * @param {string} format A `WavFormat`; 16 bits clip what is beyond full scale.
 * @returns {ArrayBuffer}
 */
export function encodeSamples(channels, format) {
  const count = channels[0].length;
  const isInteger = format === WavFormat.INT16;
  const coded = new (isInteger ? Int16Array : Float32Array)(count * channels.length);
  channels.forEach((samples, c) => {
    for (let i = 0, at = c; i < count; i++, at += channels.length) {
      coded[at] = isInteger ? Math.max(-32_768, Math.min(32_767, Math.round(samples[i] * 32_768))) : samples[i];
    }
  });
  return coded.buffer;
}

/** How many samples are beyond full scale, which `encodeSamples` clips: none in floats. */
export function numClipped(channels, format) {
  if (format !== WavFormat.INT16) return 0;
  let count = 0;
  for (const samples of channels) for (let i = 0; i < samples.length; i++) count += Math.abs(samples[i]) > 1;
  return count;
}

/**
 * Makes a WAV file.
 *
 * @param {Float32Array[]} channels
 * @param {number} sampleRate In Hz.
 * @param {string} [format] A `WavFormat`.
 * @returns {Blob}
 */
export function asWav(channels, sampleRate, format = WavFormat.INT16) {
  const { length } = channels[0];
  const parts = [wavHeader(sampleRate, channels.length, length, format)];
  const size = Math.ceil(sampleRate); // coded and left to the browser second by second
  for (let at = 0; at < length; at += size) {
    parts.push(new Blob([encodeSamples(channels.map((samples) => samples.subarray(at, at + size)), format)]));
  }
  return new Blob(parts, { type: "audio/wav" });
}

async function view(blob, start, length) {
  try {
    return new DataView(await blob.slice(start, start + length).arrayBuffer());
  } catch {
    throw new UserError("The recording can no longer be read; open it again.");
  }
}

function text(view, at) {
  return String.fromCharCode(...Array.from({ length: 4 }, (_, i) => view.getUint8(at + i)));
}
