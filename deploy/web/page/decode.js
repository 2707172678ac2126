// Recordings that are no WAV files, as far as the browser decodes them.

import { asWav, UserError } from "../lib/index.js";
import { isWav } from "../lib/wav.js";

const MAX_SECONDS = 1200; // of a compressed file, which is decoded as a whole
const MAX_BYTES = 10e6; // of one that does not say how long it lasts
const PATIENCE = 10_000; // ms
const RATE = 44_100; // Hz

/**
 * Prepares a file for the worker, which reads WAV files in parts.
 *
 * @param {File} file
 * @returns {Promise<{ name: string, blob: Blob }>} A WAV file: the one that was given, or what the browser decoded, in 16 bits.
 * @throws {UserError} It is a video, too long to be decoded, or no audio that the browser knows.
 */
export async function decoded(file) {
  const { name } = file;
  const start = await file.slice(0, 12).arrayBuffer().then(
    (bytes) => new DataView(bytes),
    () => {
      throw new UserError(`${name} cannot be read; open a file that is there, and no folder.`);
    },
  );
  if (isWav(start) || /\.wav$/i.test(name) || file.size === 0) return { name, blob: file };
  const { seconds, isVideo } = await described(file);
  if (isVideo) throw new UserError(`${name} is a video; save its sound as a WAV file and open that.`);
  if (seconds === null) throw new UserError(`${name} is no recording that this browser can decode; give a WAV file.`);
  if (seconds === Infinity ? file.size > MAX_BYTES : seconds > MAX_SECONDS) {
    const length = seconds === Infinity ? "does not say how long it lasts" : `lasts ${Math.round(seconds / 60)} minutes, more than 20`;
    throw new UserError(`${name} ${length}; save it as a WAV file, which the page reads part by part.`);
  }
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const buffer = await context.decodeAudioData(await file.arrayBuffer());
    const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
    return { name, blob: asWav(channels, RATE) };
  } catch {
    throw new UserError(`${name} is no recording that this browser can decode; give a WAV file.`);
  }
}

/**
 * Whether a file holds pictures, and its length in seconds: Infinity where it is not told, null where the browser cannot
 * play it. A recording may be called as videos are, such as `.webm`; then its content tells.
 */
async function described(file) {
  const url = URL.createObjectURL(file);
  const media = document.createElement("video");
  media.preload = "metadata";
  const known = new Promise((resolve) => {
    media.onloadedmetadata = () => resolve(media.duration);
    media.onerror = () => resolve(null);
    setTimeout(() => resolve(Infinity), PATIENCE);
  });
  media.src = url;
  const seconds = await known;
  const isVideo = seconds === null ? file.type.startsWith("video/") : media.videoWidth > 0;
  media.removeAttribute("src");
  URL.revokeObjectURL(url);
  return { seconds, isVideo };
}
