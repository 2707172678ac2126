// Spectrograms for the eye, column by column as sound comes.

import { RealFft } from "../lib/fft.js";

const FRAME_SECONDS = 0.093; // the model's own
const COLUMNS = 720; // at most
const ROWS = 128;
const RANGE_DB = 65;

/** Magnitudes in dB of a recording of a known length, `[COLUMNS][ROWS]`, from 0 Hz up. */
export class Picture {
  /**
   * @param {number} sampleRate In Hz.
   * @param {number} numSamples Of one channel.
   * @param {number} highest The frequency at the top, Hz.
   */
  constructor(sampleRate, numSamples, highest) {
    this.size = 2 ** Math.round(Math.log2(FRAME_SECONDS * sampleRate));
    this.width = Math.max(1, Math.min(COLUMNS, Math.ceil((8 * numSamples) / this.size)));
    this.height = ROWS;
    this.highest = Math.min(highest, sampleRate / 2);
    this.step = numSamples / this.width;
    this.binsARow = (this.highest * this.size) / sampleRate / ROWS;
    this.levels = new Float32Array(this.width * ROWS).fill(-200);
    this.column = 0;
    this.kept = new Float32Array(this.size / 2); // the samples from `first` on; zeros come before the recording
    this.first = -this.size / 2;
    this.fft = new RealFft(this.size);
    this.window = Float64Array.from(
      { length: this.size },
      (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / this.size),
    );
    this.end = numSamples;
  }

  /** @param {Float32Array[]} channels What comes next. */
  add(channels) {
    const added = new Float32Array(this.kept.length + channels[0].length);
    added.set(this.kept);
    for (const samples of channels) {
      for (let i = 0; i < samples.length; i++) added[this.kept.length + i] += samples[i] / channels.length;
    }
    this.kept = added;
    const isLast = this.first + added.length >= this.end;
    for (; this.column < this.width; this.column++) {
      const start = Math.floor((this.column + 0.5) * this.step - this.size / 2) - this.first;
      if (start + this.size > added.length && !isLast) break;
      this.#draw(added, start);
    }
    const next = Math.floor((this.column + 0.5) * this.step - this.size / 2);
    const unneeded = Math.max(0, Math.min(added.length, next - this.first));
    this.kept = added.slice(unneeded);
    this.first += unneeded;
  }

  #draw(samples, start) {
    const frame = this.window.map((w, i) => w * (samples[start + i] ?? 0));
    const re = new Float64Array(this.size / 2 + 1);
    const im = new Float64Array(this.size / 2 + 1);
    this.fft.forward(frame, re, im);
    for (let row = 0; row < ROWS; row++) {
      const from = Math.floor(row * this.binsARow);
      const to = Math.max(from + 1, Math.floor((row + 1) * this.binsARow));
      let power = 1e-20;
      for (let bin = from; bin < to; bin++) power = Math.max(power, re[bin] ** 2 + im[bin] ** 2);
      this.levels[this.column * ROWS + row] = 10 * Math.log10(power);
    }
  }

  /** The largest level, dB. */
  loudest() {
    return this.levels.reduce((a, b) => Math.max(a, b), -200);
  }
}

/**
 * A picture in 256 shades.
 *
 * @param {Picture} picture
 * @param {number} top The level of the brightest shade, dB.
 * @returns {{ width: number, height: number, highest: number, shades: Uint8Array }} `[width][height]`.
 */
export function shades({ width, height, highest, levels }, top) {
  const scaled = Uint8Array.from(levels, (db) => Math.max(0, Math.min(255, 255 * (1 + (db - top) / RANGE_DB))));
  return { width, height, highest, shades: scaled };
}
