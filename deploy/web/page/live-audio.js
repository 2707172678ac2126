// Sound in, sources out: the microphone or a file, an AudioWorklet, the live worker, and a gain and a meter for each source.

import { UserError } from "../lib/index.js";
import { fetched } from "./files.js";
import { openMicrophone } from "./microphone.js";

export const MARGIN_SECONDS = 0.025; // of silence ahead of the first block, for blocks that come late
const LIMIT_SECONDS = 0.25; // that wait at most
const FADE_SECONDS = 0.02;
const METER_SAMPLES = 1024;
const PAUSED = "The browser or the system paused the sound, as for a call; start again.";

export class LiveAudio {
  #closing = new AbortController();
  #context;
  #track = null; // the microphone's
  #input; // what comes in
  #gains;
  #meters;

  /**
   * It must be made and started as a person clicks, before anything is waited for, or the browser stays mute.
   *
   * @param {object} live What `describeLive` gives.
   */
  constructor(live) {
    this.live = live;
    this.#context = new AudioContext({ sampleRate: live.sampleRate, latencyHint: "interactive" });
  }

  /**
   * Starts; `close` ends this too.
   *
   * @param {object} model The model as `site.json` lists it.
   * @param {Worker} worker Of `live-worker.js`.
   * @param {string | null} file The address of a recording that stands in for the microphone, or null for the microphone.
   * @param {{ report: (state: { delay: number, underRuns: number }) => void, fail: (error: Error) => void }} handlers
   *   Called now and then with the seconds in buffers and the number of under-runs; and when it cannot go on.
   * @throws {UserError} There is no microphone, or the model cannot be loaded.
   * @throws {DOMException} It was closed meanwhile.
   */
  async start(model, worker, file, { report, fail }) {
    const { signal } = this.#closing;
    try {
      const resumed = this.#context.resume(); // Safari allows it only now, as a person clicks
      const source = file ? await this.#openFile(file) : await this.#openMicrophone(fail);
      signal.throwIfAborted();
      const { port1, port2 } = new MessageChannel();
      await ready(worker, { model, port: port1 }, fail, signal);
      const node = await this.#openWorklet(port2);
      signal.throwIfAborted();
      node.port.onmessage = ({ data }) => report(data);
      node.onprocessorerror = () => fail(new Error("the sound's own thread ended"));
      source.connect(node);
      this.#input = new AnalyserNode(this.#context, { fftSize: METER_SAMPLES });
      source.connect(this.#input);
      if (file) source.start();
      await resumed;
      this.#context.onstatechange = () => this.#context.state === "closed" || fail(new UserError(PAUSED));
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Seconds by which what is heard is late, beside the buffers: the model's, and those that the browser tells of. */
  get latency() {
    const microphone = this.#track?.getSettings().latency ?? 0;
    // Firefox may hang when it is asked for its output's latency beside a microphone (153 on Linux).
    const output = this.#track && navigator.userAgent.includes("Firefox/") ? 0 : (this.#context.outputLatency ?? 0);
    return { model: this.live.latency, devices: (this.#context.baseLatency ?? 0) + output + microphone };
  }

  /** Sets the gain of a source, a factor. */
  setGain(k, factor) {
    this.#gains[k].gain.setTargetAtTime(factor, this.#context.currentTime, FADE_SECONDS);
  }

  /** The level of each source as it is heard, in dB of full scale. */
  get levels() {
    return this.#meters.map(levelOf);
  }

  /** The level of what comes in, in dB of full scale. */
  get inputLevel() {
    return levelOf(this.#input);
  }

  close() {
    this.#track?.stop();
    if (!this.#closing.signal.aborted) this.#context.close();
    this.#closing.abort();
  }

  async #openMicrophone(fail) {
    const stream = await openMicrophone("play the sample");
    [this.#track] = stream.getAudioTracks();
    this.#track.onended = () => fail(new UserError("The microphone was disconnected; connect it and start again."));
    try {
      return this.#context.createMediaStreamSource(stream);
    } catch {
      throw new UserError("This browser cannot bring the microphone to the model's rate; use Chrome, Edge or Safari, or play the sample.");
    }
  }

  async #openFile(address) {
    const buffer = await this.#context.decodeAudioData(await fetched(address, "arrayBuffer"));
    return new AudioBufferSourceNode(this.#context, { buffer, loop: true });
  }

  async #openWorklet(port) {
    const { numSources, blockLength, sampleRate } = this.live;
    await this.#context.audioWorklet.addModule(new URL("./live-worklet.js", import.meta.url));
    const node = new AudioWorkletNode(this.#context, "live", {
      channelCount: 1,
      channelCountMode: "explicit",
      numberOfOutputs: numSources,
      outputChannelCount: new Array(numSources).fill(1),
      processorOptions: {
        numSources,
        blockLength,
        margin: Math.round(MARGIN_SECONDS * sampleRate),
        limit: Math.round(LIMIT_SECONDS * sampleRate),
      },
    });
    const master = new GainNode(this.#context);
    this.#gains = Array.from({ length: numSources }, () => new GainNode(this.#context));
    this.#meters = this.#gains.map((gain, k) => {
      const meter = new AnalyserNode(this.#context, { fftSize: METER_SAMPLES });
      node.connect(gain, k);
      gain.connect(meter);
      gain.connect(master);
      return meter;
    });
    master.connect(this.#context.destination);
    node.port.postMessage({ port }, [port]);
    return node;
  }
}

/** @param {AnalyserNode} meter */
function levelOf(meter) {
  const samples = new Float32Array(METER_SAMPLES);
  meter.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, value) => sum + value * value, 0) / samples.length;
  return 10 * Math.log10(Math.max(power, 1e-12));
}

/** Lets the worker load a model and listen at a port; its answers come by a channel of this start's own. */
function ready(worker, { model, port }, fail, signal) {
  const { port1: answers, port2 } = new MessageChannel();
  return new Promise((resolve, reject) => {
    const end = (error) => {
      reject(error);
      fail(error); // of no effect before the start
    };
    answers.onmessage = ({ data: { error } }) => {
      if (!error) resolve();
      else end(error.isExpected ? new UserError(error.message) : new Error(error.message));
    };
    signal.onabort = () => {
      answers.close();
      reject(signal.reason);
    };
    if (worker.broken) return end(new Error(worker.broken));
    worker.addEventListener("error", (event) => end(new Error(event.message || "its files are incomplete")), { signal });
    worker.postMessage({ model, port, answers: port2 }, [port, port2]);
  });
}
