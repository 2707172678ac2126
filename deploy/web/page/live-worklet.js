// On the thread of the sound card: hands blocks to the worker and plays what comes back, each source at an output.

import { LiveBuffer } from "../lib/live-buffer.js";

const REPORT_SECONDS = 0.25;

class Live extends AudioWorkletProcessor {
  #buffer;
  #worker = null; // the port to it
  #hasAnswered = false; // whether it has separated a block
  #reported = 0;

  constructor({ processorOptions }) {
    super();
    this.#buffer = new LiveBuffer(processorOptions);
    this.port.onmessage = ({ data: { port } }) => {
      this.#worker = port;
      port.onmessage = ({ data }) => {
        this.#buffer.receive(data);
        this.#hasAnswered = true;
      };
    };
  }

  process([input], outputs) {
    if (!this.#worker) return true;
    // An input without a channel is silent.
    const samples = input[0] ?? new Float32Array(outputs[0][0].length);
    this.#buffer.push(samples, (block) => this.#worker.postMessage(block, [block.buffer]));
    this.#buffer.pull(outputs.map(([channel]) => channel));
    if (this.#hasAnswered && currentTime - this.#reported >= REPORT_SECONDS) {
      this.#reported = currentTime;
      const { delay, underRuns } = this.#buffer;
      this.port.postMessage({ delay: delay / sampleRate, underRuns });
    }
    return true;
  }
}

registerProcessor("live", Live);
