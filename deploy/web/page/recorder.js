// Records the microphone.

import { asWav } from "../lib/index.js";
import { concatenated } from "../lib/overlap-add.js";
import { openMicrophone } from "./microphone.js";

export class Recorder {
  #stream;
  #context = new AudioContext();
  #blocks = [];
  #length = 0; // samples

  /**
   * Starts recording.
   *
   * @param {(seconds: number) => void} report Called with the length so far.
   * @param {() => void} ended Called when the microphone is gone.
   * @returns {Promise<Recorder>}
   * @throws {import("../lib/index.js").UserError} There is no microphone, or it may not be used.
   */
  static async start(report, ended) {
    const recorder = new Recorder();
    try {
      await recorder.#start(report, ended);
    } catch (error) {
      recorder.#close();
      throw error;
    }
    return recorder;
  }

  async #start(report, ended) {
    const context = this.#context;
    this.#stream = await openMicrophone("open a file");
    await context.audioWorklet.addModule(new URL("./recorder-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => {
      this.#blocks.push(data);
      this.#length += data.length;
      report(this.#length / context.sampleRate);
    };
    for (const track of this.#stream.getTracks()) track.onended = ended;
    context.createMediaStreamSource(this.#stream).connect(node);
    await context.resume();
  }

  /**
   * Ends the recording.
   *
   * @returns {Promise<{ name: string, blob: Blob }>} A WAV file.
   */
  async finish() {
    const { sampleRate } = this.#context;
    await this.#close();
    return { name: "The recording", blob: asWav([concatenated(this.#blocks)], sampleRate) };
  }

  #close() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    return this.#context.close();
  }
}
