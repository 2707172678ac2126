/**
 * Which separated source goes on with which, from the first window of a recording to the last.
 *
 * The same algorithm as `vae_bss_tf/audio/order.py`, which explains it: each source has a mean spectral envelope, the
 * order of the sources is the hidden state of a chain, and means and most probable states are found in turn.
 */

import { RealFft } from "./fft.js";
import { permutations } from "./overlap-add.js";

export const MAX_SOURCES = 4; // whose orders are all tried: 24 of them

const NUM_BANDS = 18;
const LOWEST_HZ = 80;
const FLOOR = 1e-4; // of a source's energy, in each band
const NUM_COEFFICIENTS = 5;
const OVERLAP_WEIGHT = 5; // nats for waveforms that go on without a change
const FULL_WEIGHT = 20; // a source of a 20th of the mean energy counts in full
const LEAST_VARIANCE = 0.02; // of standardised features
const MAX_ITERATIONS = 20;
const SURE = 0.99; // probability of a window's order from which on it counts as sure

/** Describes separated windows, one after the other. */
export class WindowFeatures {
  constructor(length, numSources, sampleRate) {
    this.length = length;
    this.hop = Math.floor(length / 2);
    this.numSources = numSources;
    this.fft = new RealFft(2 * length);
    // `[windows][source]...`: cepstral coefficients of the spectral envelopes, energies, and inner products of each
    // source of the window before with each source, on what both share, over the energy there.
    this.timbre = [];
    this.energy = [];
    this.overlaps = [];
    this.before = null;
    this.taper = Float64Array.from({ length }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (length - 1)));
    const highest = sampleRate / 2;
    this.starts = Array.from({ length: NUM_BANDS }, (_, band) => {
      const edge = LOWEST_HZ * (highest / LOWEST_HZ) ** (band / NUM_BANDS);
      return Math.min(length, Math.ceil((edge * 2 * length) / sampleRate - 1e-9));
    });
  }

  /** @param {Float32Array[]} window One signal for each source, `length` long. */
  add(window) {
    this.timbre.push(window.map((signal) => this.#cepstrum(signal)));
    this.energy.push(window.map((signal) => innerProduct(signal, signal)));
    const before = this.before ?? window.map(() => new Float32Array(this.length));
    const ends = before.map((signal) => signal.subarray(this.hop));
    const begins = window.map((signal) => signal.subarray(0, this.length - this.hop));
    const shared = [...ends, ...begins].reduce((sum, signal) => sum + innerProduct(signal, signal), 0);
    const scale = 1 / Math.max(shared / 2, 1e-12);
    this.overlaps.push(ends.map((end) => begins.map((begin) => innerProduct(end, begin) * scale)));
    this.before = window;
  }

  #cepstrum(signal) {
    const { length, starts, taper } = this;
    const padded = new Float64Array(2 * length);
    for (let i = 0; i < length; i++) padded[i] = signal[i] * taper[i];
    const re = new Float64Array(length + 1);
    const im = new Float64Array(length + 1);
    this.fft.forward(padded, re, im);
    const bands = starts.map((start, band) => {
      const end = band + 1 < NUM_BANDS ? Math.max(start + 1, starts[band + 1]) : length + 1;
      let sum = 0;
      for (let i = start; i < end; i++) sum += re[i] * re[i] + im[i] * im[i];
      return sum;
    });
    const total = Math.max(
      bands.reduce((a, b) => a + b),
      1e-30,
    );
    const logs = bands.map((band) => Math.log(band / total + FLOOR));
    return Array.from({ length: NUM_COEFFICIENTS }, (_, row) =>
      logs.reduce(
        (sum, log, column) =>
          sum + Math.sqrt(2 / NUM_BANDS) * Math.cos((Math.PI * (row + 1) * (2 * column + 1)) / (2 * NUM_BANDS)) * log,
        0,
      ),
    );
  }
}

/**
 * Orders the sources of all windows of a recording alike.
 *
 * @param {WindowFeatures} found Features of all windows, of at most `MAX_SOURCES` sources.
 * @returns {{ orders: number[][], sure: number }} Which source of each window stands in each place, the loudest over the
 *   recording first; and the share of the windows whose order has a probability of 99 % or more.
 */
export function consistentOrders({ timbre: raw, energy, overlaps, numSources }) {
  const states = permutations(numSources);
  const meanEnergy = Math.max(energy.reduce((sum, window) => sum + window.reduce((a, b) => a + b), 0) / energy.length, 1e-30);
  const weight = energy.map((window) => window.map((e) => Math.sqrt(Math.min(1, (FULL_WEIGHT * e) / meanEnergy))));
  const timbre = standardised(raw, weight);
  const steps = overlaps.map((products) =>
    states.map((before) =>
      states.map((after) => OVERLAP_WEIGHT * before.reduce((sum, j, place) => sum + products[j][after[place]], 0)),
    ),
  );
  const indexOf = new Map(states.map((state, s) => [state.join(), s]));
  const byTimbre = Array.from({ length: NUM_COEFFICIENTS }, (_, c) =>
    timbre.map((window) => {
      const sorted = window.map((_, k) => k).sort((a, b) => window[a][c] - window[b][c] || a - b);
      return indexOf.get(sorted.join());
    }),
  );
  const flat = energy.map(() => new Array(states.length).fill(0));
  let beginnings = [...byTimbre, mostProbable(flat, steps)].map((chosen) => ({ chosen }));
  for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
    let changed = false;
    beginnings = beginnings.map(({ chosen: before }) => {
      const { scores, constant } = windowScores(timbre, weight, before, states);
      const chosen = mostProbable(scores, steps);
      changed ||= chosen.some((state, w) => state !== before[w]);
      return { chosen, scores, constant };
    });
    if (!changed) break;
  }
  const best = beginnings
    .map((beginning) => ({ ...beginning, total: beginning.constant + pathScore(beginning, steps) }))
    .reduce((a, b) => (b.total > a.total ? b : a));
  const orders = best.chosen.map((s) => states[s]);
  const loudness = new Array(numSources).fill(0);
  orders.forEach((order, w) => order.forEach((k, place) => (loudness[place] += energy[w][k])));
  const places = loudness.map((_, place) => place).sort((a, b) => loudness[b] - loudness[a] || a - b);
  const certain = probabilities(best.scores, steps).filter((of, w) => of[best.chosen[w]] >= SURE).length;
  return { orders: orders.map((order) => places.map((place) => order[place])), sure: certain / orders.length };
}

function innerProduct(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function standardised(timbre, weight) {
  const total = Math.max(
    weight.reduce((sum, window) => sum + window.reduce((a, b) => a + b), 0),
    1e-30,
  );
  const weighted = (value) =>
    Array.from({ length: NUM_COEFFICIENTS }, (_, c) =>
      timbre.reduce((sum, window, w) => sum + window.reduce((s, of, k) => s + weight[w][k] * value(of[c], c), 0), 0),
    ).map((sum) => sum / total);
  const means = weighted((x) => x);
  const deviations = weighted((x, c) => (x - means[c]) ** 2).map((variance) => Math.sqrt(variance + 1e-12));
  return timbre.map((window) => window.map((of) => of.map((x, c) => (x - means[c]) / deviations[c])));
}

/** How well each state of each window fits the means that the chosen states give: log probabilities up to a constant. */
function windowScores(timbre, weight, chosen, states) {
  const places = states[0].map((_, place) => place);
  const coefficients = Array.from({ length: NUM_COEFFICIENTS }, (_, c) => c);
  const sums = places.map(() => new Float64Array(NUM_COEFFICIENTS));
  const weights = new Float64Array(places.length);
  chosen.forEach((s, w) => {
    for (const place of places) {
      const k = states[s][place];
      weights[place] += weight[w][k];
      for (const c of coefficients) sums[place][c] += weight[w][k] * timbre[w][k][c];
    }
  });
  const means = sums.map((sum, place) => sum.map((x) => x / Math.max(weights[place], 1e-30)));
  const deviations = new Float64Array(NUM_COEFFICIENTS);
  chosen.forEach((s, w) => {
    for (const place of places) {
      const k = states[s][place];
      for (const c of coefficients) deviations[c] += weight[w][k] * (timbre[w][k][c] - means[place][c]) ** 2;
    }
  });
  const total = weight.reduce((sum, window) => sum + window.reduce((a, b) => a + b), 0);
  const variances = deviations.map((d) => d / Math.max(total, 1e-30) + LEAST_VARIANCE);
  const scores = timbre.map((window, w) => {
    const fits = window.map((of, k) =>
      places.map((place) => {
        const distance = coefficients.reduce((sum, c) => sum + (of[c] - means[place][c]) ** 2 / variances[c], 0);
        return -0.5 * weight[w][k] * distance;
      }),
    );
    return states.map((state) => places.reduce((sum, place) => sum + fits[state[place]][place], 0));
  });
  return { scores, constant: -0.5 * total * variances.reduce((sum, v) => sum + Math.log(v), 0) };
}

/** The most probable states of a chain (Viterbi 1967), by number. */
function mostProbable(scores, steps) {
  let reached = scores[0];
  const origins = [];
  for (let w = 1; w < scores.length; w++) {
    const origin = scores[w].map((_, after) => indexOfLargest(reached.map((r, before) => r + steps[w][before][after])));
    reached = scores[w].map((score, after) => reached[origin[after]] + steps[w][origin[after]][after] + score);
    origins.push(origin);
  }
  const path = [indexOfLargest(reached)];
  for (const origin of origins.reverse()) path.push(origin[path.at(-1)]);
  return path.reverse();
}

function pathScore({ chosen, scores }, steps) {
  return chosen.reduce((sum, s, w) => sum + scores[w][s] + (w > 0 ? steps[w][chosen[w - 1]][s] : 0), 0);
}

/** The probability of each state of each window, given all windows. */
function probabilities(scores, steps) {
  const last = scores.length - 1;
  const forward = [scores[0]];
  for (let w = 1; w <= last; w++) {
    const passed = forward[w - 1];
    forward.push(scores[w].map((score, s) => logSum(passed.map((x, before) => x + steps[w][before][s])) + score));
  }
  const backward = new Array(scores.length);
  backward[last] = scores[last];
  for (let w = last - 1; w >= 0; w--) {
    const passed = backward[w + 1];
    backward[w] = scores[w].map((score, s) => logSum(passed.map((x, after) => x + steps[w + 1][s][after])) + score);
  }
  return scores.map((of, w) => {
    const both = of.map((score, s) => forward[w][s] + backward[w][s] - score);
    const total = logSum(both);
    return both.map((x) => Math.exp(x - total));
  });
}

function logSum(values) {
  const largest = Math.max(...values);
  return largest + Math.log(values.reduce((sum, x) => sum + Math.exp(x - largest), 0));
}

function indexOfLargest(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}
