// Recordings that are no WAV files, as far as the browser decodes them.

import { isWav } from "../lib/wav.js";
import { UserError } from "../lib/index.js";

const MAX_DECODED_BYTES = 50e6; // of a compressed file, which is decoded as a whole
const RATE = 44_100; // Hz

/**
 * Prepares a file for the worker.
 *
 * @param {File} file
 * @returns {Promise<{ name: string, blob?: Blob, channels?: Float32Array[], sampleRate?: number }>} A WAV file as it is, which
 *   the worker reads in parts; or the samples.
 * @throws {UserError} It is a video, or no audio that the browser knows.
 */
export async function decoded(file) {
  const { name } = file;
  const start = new DataView(await file.slice(0, 12).arrayBuffer());
  if (isWav(start) || /\.wav$/i.test(name) || file.size === 0) return { name, blob: file };
  if (file.type.startsWith("video/")) {
    throw new UserError(`${name} is a video; save its sound as a WAV file and open that.`);
  }
  if (file.size > MAX_DECODED_BYTES) {
    throw new UserError(`${name} is larger than 50 MB; save it as a WAV file, which the page reads part by part.`);
  }
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await file.arrayBuffer());
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
    return { name, channels, sampleRate: RATE };
  } catch {
    throw new UserError(`${name} is no recording that this browser can decode; give a WAV file.`);
  }
}
