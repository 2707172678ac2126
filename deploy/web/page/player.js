// Plays the sources together, each at its own gain, from files of any length.

import { openWav } from "../lib/index.js";

const CHUNK_SECONDS = 4;
const AHEAD_SECONDS = 2; // how long before its time a chunk is put into the queue
const FADE_SECONDS = 0.02;
const MIN_RATE = 3_000; // Hz, that browsers make buffers of
const MAX_RATE = 768_000;

export class Player {
  #context;
  #files;
  #gains;
  #master;
  #nodes = [];
  #startedAt = 0; // on the context's clock
  #offset = 0; // seconds of the recording
  #run = 0; // number of the current start; older ones end themselves

  /** @param {{ sampleRate: number, numSamples: number, sources: { file: Blob }[] }} separated */
  static async open({ sampleRate, numSamples, sources }) {
    const player = new Player();
    player.sampleRate = sampleRate;
    player.numSamples = numSamples;
    player.#files = await Promise.all(sources.map(({ file }, k) => openWav(file, `source ${k + 1}`)));
    player.#context = makeContext(sampleRate);
    player.#master = player.#context.createGain();
    player.#master.connect(player.#context.destination);
    player.#gains = sources.map(() => {
      const gain = player.#context.createGain();
      gain.connect(player.#master);
      return gain;
    });
    player.playing = false;
    return player;
  }

  get seconds() {
    return this.numSamples / this.sampleRate;
  }

  /** Seconds of the recording. */
  get position() {
    if (!this.playing) return this.#offset;
    return Math.min(this.seconds, this.#offset + Math.max(0, this.#context.currentTime - this.#startedAt));
  }

  /** Sets the gain of a source, a factor. */
  setGain(k, factor) {
    const { gain } = this.#gains[k];
    gain.cancelScheduledValues(0);
    if (this.playing) gain.setTargetAtTime(factor, this.#context.currentTime, FADE_SECONDS);
    else gain.value = factor;
  }

  async play() {
    if (this.playing) return;
    if (this.#offset >= this.seconds - 0.01) this.#offset = 0;
    await this.#context.resume();
    this.playing = true;
    const run = ++this.#run;
    this.#startedAt = this.#context.currentTime + 0.05;
    const first = this.#offset;
    for (let at = first; at < this.seconds && run === this.#run; at += CHUNK_SECONDS) {
      const start = Math.round(at * this.sampleRate);
      const end = Math.round(Math.min(this.seconds, at + CHUNK_SECONDS) * this.sampleRate);
      const chunks = await Promise.all(this.#files.map((file) => file.read(start, end - start)));
      if (run !== this.#run) return;
      const when = this.#startedAt + at - first;
      chunks.forEach((channels, k) => this.#schedule(channels, k, when));
      while (run === this.#run && this.#context.currentTime < when + CHUNK_SECONDS - AHEAD_SECONDS) {
        if (this.position >= this.seconds) break;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    while (run === this.#run && this.position < this.seconds) await new Promise((resolve) => setTimeout(resolve, 50));
    if (run === this.#run) this.pause();
  }

  pause() {
    this.#offset = this.position;
    this.playing = false;
    this.#run++;
    for (const node of this.#nodes) node.stop();
    this.#nodes = [];
  }

  /** Goes to a time, seconds of the recording; playing goes on there. */
  seek(seconds) {
    const { playing } = this;
    if (playing) this.pause();
    this.#offset = Math.max(0, Math.min(this.seconds, seconds));
    if (playing) this.play();
  }

  /** The sources at their gains, added up, in blocks of channels from the start on. */
  async *mixed(factors) {
    const size = Math.ceil(CHUNK_SECONDS * this.sampleRate);
    for (let start = 0; start < this.numSamples; start += size) {
      const chunks = await Promise.all(this.#files.map((file) => file.read(start, size)));
      yield chunks[0].map((samples, c) => {
        const sum = new Float32Array(samples.length);
        chunks.forEach((channels, k) => {
          for (let i = 0; i < sum.length; i++) sum[i] += factors[k] * channels[c][i];
        });
        return sum;
      });
    }
  }

  close() {
    this.pause();
    this.#context.close();
  }

  #schedule(channels, k, when) {
    const rate = Math.min(MAX_RATE, Math.max(MIN_RATE, this.sampleRate));
    const buffer = this.#context.createBuffer(channels.length, channels[0].length, rate);
    channels.forEach((samples, c) => buffer.copyToChannel(samples, c));
    const node = this.#context.createBufferSource();
    node.buffer = buffer;
    node.playbackRate.value = this.sampleRate / rate;
    node.connect(this.#gains[k]);
    const late = this.#context.currentTime - when;
    if (late > 0) node.start(0, late * node.playbackRate.value);
    else node.start(when);
    node.onended = () => (this.#nodes = this.#nodes.filter((other) => other !== node));
    this.#nodes.push(node);
  }
}

function makeContext(sampleRate) {
  try {
    return new AudioContext({ sampleRate }); // chunks then join without a seam
  } catch {
    return new AudioContext();
  }
}
