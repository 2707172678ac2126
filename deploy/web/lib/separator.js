/** Recordings of any length in, one signal for each source out: the algorithm of `vae_bss_tf.Separator`. */

import { UserError } from "./errors.js";
import { consistentOrders, MAX_SOURCES, WindowFeatures } from "./order.js";
import { concatenated, overlapAdd, windows } from "./overlap-add.js";
import { Resampler } from "./resample.js";
import { Shares, SILENCE } from "./shares.js";
import { Spectrogram } from "./spectrogram.js";

const MIN_SECONDS = 0.1;
const BLOCK_SECONDS = 10;
const MIN_RATE = 1_000;
const MAX_RATE = 1_000_000; // Hz
const MAX_SAMPLE = 2 ** 31;
const MAX_CHANNELS = 2;
const CANCELLED = 1e-3; // of the loudest sample

/**
 * Separates recordings of one or two channels, from 0.1 s on, at 1 kHz to 1 MHz.
 *
 * A block is an array with one Float32Array for each channel. A recording is a function that returns an iterable or async
 * iterable of its blocks from its start on: it is read twice, first to find which source is which in each window; once by a
 * model of more than four sources.
 *
 * @example
 * const separator = new Separator(run, manifest.preset.audio, manifest.num_sources);
 * const [first, second] = await separator.separate([left, right], 44_100);
 */
export class Separator {
  /**
   * @param {(features: Float32Array, count: number) => Promise<Float32Array>} run The model: takes `count` mixtures,
   *   `[count][frames][bins]`, and returns their sources, `[count][num_sources][frames][bins]`.
   * @param {import("./spectrogram.js").AudioSettings} audio
   * @param {number} numSources
   */
  constructor(run, audio, numSources) {
    this.run = run;
    this.audio = audio;
    this.numSources = numSources;
    this.spectrogram = new Spectrogram(audio);
  }

  /** How often a recording is read: twice, or once where there are too many sources to find their order first. */
  get numPasses() {
    return this.numSources > MAX_SOURCES ? 1 : 2;
  }

  /**
   * Separates a waveform that is in memory.
   *
   * @param {Float32Array[]} channels
   * @param {number} sampleRate In Hz.
   * @returns {Promise<Float32Array[][]>} `[source][channel]`, at the same rate and length; they sum to the waveform.
   * @throws {UserError} The waveform cannot be separated.
   */
  async separate(channels, sampleRate) {
    const length = channels[0].length;
    checkRecording("The waveform", sampleRate, channels.length, length);
    if (channels.some((samples) => samples.length !== length)) throw new UserError("The channels differ in length.");
    const size = Math.floor(BLOCK_SECONDS * sampleRate);
    function* blocks() {
      for (let i = 0; i < length; i += size) yield channels.map((samples) => samples.subarray(i, i + size));
    }
    const { orders } = await this.findOrders(blocks, sampleRate, "The waveform");
    const parts = [];
    for await (const block of this.stream(blocks, sampleRate, channels.length, orders)) parts.push(block);
    return Array.from({ length: this.numSources }, (_, k) =>
      channels.map((_, c) => concatenated(parts.map((block) => block[k][c]))),
    );
  }

  /**
   * Finds which source is which in each window of a recording: the first of the two passes.
   *
   * @param {() => Iterable<Float32Array[]> | AsyncIterable<Float32Array[]>} blocks The recording.
   * @param {number} sampleRate In Hz.
   * @param {string} [name] What the recording is, for messages.
   * @returns {Promise<{ orders: number[][] | null, sure: number | null }>} For `stream`; and the share of the windows in
   *   which the order is sure. Both null for a model of more than four sources.
   * @throws {UserError} The recording is silent, its channels cancel each other out, or samples are no numbers.
   */
  async findOrders(blocks, sampleRate, name = "The recording") {
    if (this.numPasses === 1) return { orders: null, sure: null };
    const rate = this.audio.sample_rate;
    async function* middle() {
      for await (const block of checked(blocks(), name)) yield [mean(block)];
    }
    // The mean of the separated channels is the separated mean: masks act on both alike.
    const low = resampled(middle(), new Resampler(sampleRate, rate, 1));
    const found = new WindowFeatures(this.spectrogram.numSamples, this.numSources, rate);
    for await (const { windows: batch } of this.#separated(low, 1)) {
      for (const window of batch) found.add(window.map(([signal]) => signal));
    }
    return consistentOrders(found);
  }

  /**
   * Separates a recording: the second pass.
   *
   * @param {() => Iterable<Float32Array[]> | AsyncIterable<Float32Array[]>} blocks The recording.
   * @param {number} sampleRate In Hz.
   * @param {number} numChannels
   * @param {number[][] | null} [orders] As `findOrders` gives them; null matches each window to the one before.
   * @param {string} [name] What the recording is, for messages.
   * @yields {Float32Array[][]} Blocks `[source][channel]`, which sum to the recording; in all as many samples.
   */
  async *stream(blocks, sampleRate, numChannels, orders = null, name = "The recording") {
    const { numSources } = this;
    const rate = this.audio.sample_rate;
    const pending = new Queue(numChannels);
    const shares = new Shares(numSources, rate);
    async function* remembered() {
      for await (const block of checked(blocks(), name)) {
        pending.add(block);
        yield block;
      }
    }
    async function* columns(added) {
      for await (const block of added) {
        shares.observe(block);
        yield block.flat();
      }
    }
    const low = resampled(remembered(), new Resampler(sampleRate, rate, numChannels));
    const added = overlapAdd(this.#separated(low, numChannels), orders);
    const high = resampled(columns(added), new Resampler(rate, sampleRate, numSources * numChannels));
    const spare = Math.ceil((2 * sampleRate) / rate);
    let position = 0;
    for await (const block of followed(high, spare, numSources * numChannels)) {
      const mixture = pending.take(block[0].length);
      const count = mixture[0].length;
      if (count === 0) continue;
      const share = shares.at(position, count, sampleRate);
      position += count;
      const sources = Array.from({ length: numSources }, () => mixture.map(() => new Float32Array(count)));
      for (let c = 0; c < numChannels; c++) {
        const low = Array.from({ length: numSources }, (_, k) => block[k * numChannels + c]);
        for (let i = 0; i < count; i++) {
          let rest = mixture[c][i];
          for (let k = 0; k < numSources; k++) rest -= low[k][i];
          for (let k = 0; k < numSources; k++) sources[k][c][i] = low[k][i] + share[k][i] * rest;
        }
      }
      yield sources;
    }
  }

  /** Turns blocks at the model's rate into what `overlapAdd` takes. */
  async *#separated(blocks, numChannels) {
    for await (const { windows: batch, end } of windows(blocks, this.spectrogram.numSamples, numChannels)) {
      yield { windows: await this.#separateWindows(batch), end };
    }
  }

  /** Separates windows `[n][channel]` into `[n][source][channel]`: the masks come from the mean of the channels. */
  async #separateWindows(batch) {
    const { spectrogram, numSources } = this;
    const spectra = batch.map((channels) => channels.map((samples) => spectrogram.stft(samples)));
    const features = new Float32Array(batch.length * spectrogram.featureSize);
    spectra.forEach((channels, i) => {
      const re = mean(channels.map((spectrum) => spectrum.re));
      const im = mean(channels.map((spectrum) => spectrum.im));
      features.set(spectrogram.features(re, im), i * spectrogram.featureSize);
    });
    const sources = await this.run(features, batch.length);
    const size = numSources * spectrogram.featureSize;
    return spectra.map((channels, i) =>
      spectrogram
        .masks(sources.subarray(i * size, (i + 1) * size), numSources)
        .map((mask) => channels.map((spectrum) => spectrogram.masked(spectrum, mask))),
    );
  }
}

/**
 * Refuses recordings that cannot be separated, from what their header says.
 *
 * @param {string} name What the recording is, for the message.
 * @param {number} sampleRate In Hz.
 * @param {number} numChannels
 * @param {number} numSamples Of one channel.
 * @throws {UserError} One of them is out of its range.
 */
export function checkRecording(name, sampleRate, numChannels, numSamples) {
  if (!(sampleRate >= MIN_RATE && sampleRate <= MAX_RATE)) {
    throw new UserError(`${name} has a sample rate of ${sampleRate} Hz; it must be from 1 kHz to 1 MHz.`);
  }
  if (!(numChannels >= 1 && numChannels <= MAX_CHANNELS)) {
    throw new UserError(`${name} has ${numChannels} channels; one or two are separated: mix it down first.`);
  }
  if (numSamples < MIN_SECONDS * sampleRate) {
    throw new UserError(`${name} holds ${numSamples} samples; at least 0.1 s are needed.`);
  }
}

async function* checked(blocks, name) {
  let loudest = 0;
  let loudestMean = 0;
  for await (const block of blocks) {
    for (const samples of block) {
      for (let i = 0; i < samples.length; i++) {
        const size = Math.abs(samples[i]);
        if (!(size <= MAX_SAMPLE)) throw new UserError(badSample(name, size));
        if (size > loudest) loudest = size;
      }
    }
    for (const value of mean(block)) loudestMean = Math.max(loudestMean, Math.abs(value));
    yield block;
  }
  if (loudest < SILENCE) throw new UserError(`${name} is silent; there is nothing to separate.`);
  if (loudestMean < CANCELLED * loudest) {
    throw new UserError(`${name}: its channels cancel each other out; take one of them alone.`);
  }
}

function badSample(name, size) {
  if (Number.isFinite(size)) return `${name} holds a sample of ${size.toPrecision(3)}; scale it to [-1, 1] first.`;
  return `${name} holds samples that are no numbers (NaN or infinite); repair it first.`;
}

async function* resampled(blocks, resampler) {
  for await (const block of blocks) yield resampler.push(block);
  yield resampler.finish();
}

/** A stream with zeros at its end, for the samples that resampling there and back has rounded away. */
async function* followed(blocks, count, numColumns) {
  yield* blocks;
  yield Array.from({ length: numColumns }, () => new Float32Array(count));
}

function mean(signals) {
  if (signals.length === 1) return signals[0];
  const result = new Float32Array(signals[0].length);
  for (const signal of signals) for (let i = 0; i < result.length; i++) result[i] += signal[i];
  return result.map((sum) => sum / signals.length);
}

/** Samples that wait for their sources. */
class Queue {
  constructor(numChannels) {
    this.empty = Array.from({ length: numChannels }, () => new Float32Array(0));
    this.blocks = [];
  }

  add(block) {
    this.blocks.push(block);
  }

  /** Takes up to `count` samples of each channel. */
  take(count) {
    const parts = this.empty.map((samples) => [samples]);
    while (this.blocks.length > 0 && count > 0) {
      const block = this.blocks[0];
      const taken = Math.min(count, block[0].length);
      block.forEach((samples, c) => parts[c].push(samples.subarray(0, taken)));
      if (taken === block[0].length) this.blocks.shift();
      else this.blocks[0] = block.map((samples) => samples.subarray(taken));
      count -= taken;
    }
    return parts.map((signals) => concatenated(signals));
  }
}
