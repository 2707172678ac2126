// Records the microphone.

import { openMicrophone } from "./microphone.js";

/**
 * Starts recording.
 *
 * @param {(seconds: number) => void} report Called with the length so far.
 * @returns {Promise<() => Promise<{ name: string, channels: Float32Array[], sampleRate: number }>>} Ends it and gives the
 *   recording.
 * @throws {import("../lib/index.js").UserError} There is no microphone, or it may not be used.
 */
export async function record(report) {
  const stream = await openMicrophone("open a file");
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
