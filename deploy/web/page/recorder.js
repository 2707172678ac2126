// Records the microphone.

import { UserError } from "../lib/index.js";

const REASONS = {
  NotFoundError: "No microphone was found; connect one, or open a file.",
  NotAllowedError: "The browser did not let this page use the microphone; allow it beside the address, or open a file.",
  NotReadableError: "The microphone is in use by another program; close that, or open a file.",
};

/**
 * Starts recording.
 *
 * @param {(seconds: number) => void} report Called with the length so far.
 * @returns {Promise<() => Promise<{ name: string, channels: Float32Array[], sampleRate: number }>>} Ends it and gives the
 *   recording.
 * @throws {UserError} There is no microphone, or it may not be used.
 */
export async function record(report) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new UserError("Browsers allow the microphone on HTTPS pages only; open a file.");
  }
  let stream = null;
  try {
    // What makes speech clear on a telephone would change the mixture.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    stream = await navigator.mediaDevices.getUserMedia({ audio: plain });
  } catch (error) {
    throw new UserError(REASONS[error.name] ?? `The microphone cannot be used (${error.message}); open a file.`);
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("./recorder-worklet.js", import.meta.url));
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const blocks = [];
  let length = 0;
  node.port.onmessage = ({ data }) => {
    blocks.push(data);
    length += data.length;
    report(length / context.sampleRate);
  };
  context.createMediaStreamSource(stream).connect(node);
  return async () => {
    stream.getTracks().forEach((track) => track.stop());
    const { sampleRate } = context;
    await context.close();
    const samples = new Float32Array(length);
    let at = 0;
    for (const block of blocks) {
      samples.set(block, at);
      at += block.length;
    }
    return { name: "The recording", channels: [samples], sampleRate };
  };
}
