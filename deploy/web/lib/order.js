/**
 * Which separated source goes on with which, from the first window of a recording to the last.
 *
 * The same algorithm as `vae_bss_tf/audio/order.py`, which explains it: each source has a mean spectral envelope, pitch and
 * level, the order of the sources is the hidden state of a chain, and means and most probable states are found in turn.
 */

import { RealFft } from "./fft.js";
import { hopLength, permutations } from "./overlap-add.js";

export const MAX_SOURCES = 4; // whose orders are all tried: 24 of them

const NUM_BANDS = 18;
const LOWEST_HZ = 80;
const FLOOR = 1e-4; // of a source's energy, in each band
const NUM_COEFFICIENTS = 5;
const PITCHES_HZ = [60, 1500];
const LAGS_A_SAMPLE = 4;
const COMPRESSION = 1 / 3; // exponent of the power, so that the harmonics of a note count alike
const LEAST_LEVEL = 0.3; // of the mean energy of a source
const SOUNDING = 0.01; // of the mean energy: windows below it are silent
const OVERLAP_WEIGHT = 8; // nats for waveforms that go on without a change
const FULL_WEIGHT = 20; // a source of a 20th of the mean energy counts in full
const LEAST_VARIANCE = 0.02; // of standardised features
const FARTHEST = 4; // squared deviations from a mean, over the variance: whatever strays further counts as this
const MAX_ITERATIONS = 20;
const SURE = 0.99; // probability of a window's order from which on it counts as sure

/** Describes separated windows, one after the other, each a quarter of its length after the one before. */
export class WindowFeatures {
  constructor(length, numSources, sampleRate) {
    this.length = length;
    this.numSources = numSources;
    this.fft = new RealFft(2 * length);
    this.lagFft = new RealFft(LAGS_A_SAMPLE * 2 * length);
    // `[windows][source]...`: cepstral coefficients of the spectral envelope and the pitch in octaves, energies, and inner
    // products of each source of the window a quarter before, and half a length before, with each source, on what both
    // share, over the energy there.
    this.sound = [];
    this.energy = [];
    this.quarters = [];
    this.halves = [];
    const silence = Array.from({ length: numSources }, () => new Float32Array(length));
    this.before = [silence, silence];
    this.taper = Float64Array.from({ length }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (length - 1)));
    const highest = sampleRate / 2;
    this.starts = Array.from({ length: NUM_BANDS }, (_, band) => {
      const edge = LOWEST_HZ * (highest / LOWEST_HZ) ** (band / NUM_BANDS);
      return Math.min(length, Math.ceil((edge * 2 * length) / sampleRate - 1e-9));
    });
    this.lagRate = LAGS_A_SAMPLE * sampleRate;
    this.shortestLag = Math.max(Math.floor(this.lagRate / PITCHES_HZ[1]), 1);
    this.endOfLags = Math.max(
      Math.min(Math.floor(this.lagRate / PITCHES_HZ[0]), LAGS_A_SAMPLE * length),
      this.shortestLag + 1,
    );
  }

  /** @param {Float32Array[]} window One signal for each source, `length` long. */
  add(window) {
    const hop = hopLength(this.length);
    const powers = window.map((signal) => this.#power(signal));
    this.sound.push(powers.map((power) => [...this.#cepstrum(power), this.#octaves(power)]));
    this.energy.push(window.map((signal) => innerProduct(signal, signal)));
    this.quarters.push(this.#products(this.before[1], window, hop));
    this.halves.push(this.#products(this.before[0], window, 2 * hop));
    this.before = [this.before[1], window];
  }

  #products(earlier, window, hop) {
    const ends = earlier.map((signal) => signal.subarray(hop));
    const begins = window.map((signal) => signal.subarray(0, this.length - hop));
    const shared = [...ends, ...begins].reduce((sum, signal) => sum + innerProduct(signal, signal), 0);
    const scale = 1 / Math.max(shared / 2, 1e-12);
    return ends.map((end) => begins.map((begin) => innerProduct(end, begin) * scale));
  }

  #power(signal) {
    const { length, taper } = this;
    const padded = new Float64Array(2 * length);
    for (let i = 0; i < length; i++) padded[i] = signal[i] * taper[i];
    const re = new Float64Array(length + 1);
    const im = new Float64Array(length + 1);
    this.fft.forward(padded, re, im);
    return re.map((x, i) => x * x + im[i] * im[i]);
  }

  #octaves(power) {
    const bins = (LAGS_A_SAMPLE * 2 * this.length) / 2 + 1;
    const compressed = new Float64Array(bins);
    power.forEach((x, i) => (compressed[i] = x ** COMPRESSION));
    const correlation = new Float64Array(LAGS_A_SAMPLE * 2 * this.length);
    this.lagFft.inverse(compressed, new Float64Array(bins), correlation);
    const best = indexOfLargest(correlation.subarray(this.shortestLag, this.endOfLags));
    return Math.log2(this.lagRate / (this.shortestLag + best));
  }

  #cepstrum(power) {
    const { length, starts } = this;
    const bands = starts.map((start, band) => {
      const end = band + 1 < NUM_BANDS ? Math.max(start + 1, starts[band + 1]) : length + 1;
      let sum = 0;
      for (let i = start; i < end; i++) sum += power[i];
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
 *   recording first; and the share of the windows whose order has a probability of 99 % or more in its course and which
 *   the windows before and after, of the other course, agree with.
 */
export function consistentOrders({ sound, energy, quarters, halves, numSources }) {
  const states = permutations(numSources);
  const every = (parts, first) => parts.filter((_, w) => w % 2 === first);
  const courses = [0, 1].map((first) =>
    first < energy.length ? courseOf(every(sound, first), every(energy, first), every(halves, first), states) : null,
  );
  const exchanged = states.map((state) =>
    energy.map((_, w) => {
      const order = courses[w % 2].orders[w >> 1];
      return w % 2 === 0 ? order : state.map((place) => order[place]);
    }),
  );
  const goingOn = exchanged.map((orders) =>
    orders.reduce(
      (sum, order, w) => (w === 0 ? 0 : sum + order.reduce((s, k, place) => s + quarters[w][orders[w - 1][place]][k], 0)),
      0,
    ),
  );
  const orders = exchanged[indexOfLargest(goingOn)];
  const totals = energy.map((window) => window.reduce((a, b) => a + b, 0));
  const least = (SOUNDING * totals.reduce((a, b) => a + b, 0)) / totals.length;
  // Whether each window goes on better from the one before it in another order, and neither is silent.
  const against = orders.map((order, w) => {
    if (w === 0 || totals[w] <= least || totals[w - 1] <= least) return false;
    const sums = states.map((state) => state.reduce((s, j, place) => s + quarters[w][orders[w - 1][place]][order[j]], 0));
    return Math.max(...sums) > sums[0];
  });
  const loudness = new Array(numSources).fill(0);
  orders.forEach((order, w) => order.forEach((k, place) => (loudness[place] += energy[w][k])));
  const places = loudness.map((_, place) => place).sort((a, b) => loudness[b] - loudness[a] || a - b);
  const certain = orders.filter((_, w) => courses[w % 2].certain[w >> 1] && !against[w] && !against[w + 1]).length;
  return { orders: orders.map((order) => places.map((place) => order[place])), sure: certain / orders.length };
}

/** Orders the sources of windows that overlap by half, and tells in which of them the order is certain. */
function courseOf(raw, energy, halves, states) {
  const numSources = states[0].length;
  const total = energy.reduce((sum, window) => sum + window.reduce((a, b) => a + b), 0);
  const meanEnergy = Math.max(total / energy.length, 1e-30);
  const meanOfSources = Math.max(total / (energy.length * numSources), 1e-30);
  const withLevel = raw.map((window, w) =>
    window.map((of, k) => [...of, Math.log(energy[w][k] / meanOfSources + LEAST_LEVEL)]),
  );
  // The level of a source that is not heard is known as well as any other.
  const weight = raw.map((window, w) =>
    window.map((of, k) => {
      const heard = Math.sqrt(Math.min(1, (FULL_WEIGHT * energy[w][k]) / meanEnergy));
      return [...of.map(() => heard), 1];
    }),
  );
  const sound = standardised(withLevel, weight);
  const steps = halves.map((products) =>
    states.map((before) =>
      states.map((after) => OVERLAP_WEIGHT * before.reduce((sum, j, place) => sum + products[j][after[place]], 0)),
    ),
  );
  const indexOf = new Map(states.map((state, s) => [state.join(), s]));
  const bySound = sound[0][0].map((_, c) =>
    sound.map((window) => {
      const sorted = window.map((_, k) => k).sort((a, b) => window[a][c] - window[b][c] || a - b);
      return indexOf.get(sorted.join());
    }),
  );
  const flat = energy.map(() => new Array(states.length).fill(0));
  let beginnings = [...bySound, mostProbable(flat, steps)].map((chosen) => ({ chosen }));
  for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
    let changed = false;
    beginnings = beginnings.map(({ chosen: before }) => {
      const { scores, constant } = windowScores(sound, weight, before, states);
      const chosen = mostProbable(scores, steps);
      changed ||= chosen.some((state, w) => state !== before[w]);
      return { chosen, scores, constant };
    });
    if (!changed) break;
  }
  const best = beginnings
    .map((beginning) => ({ ...beginning, total: beginning.constant + pathScore(beginning, steps) }))
    .reduce((a, b) => (b.total > a.total ? b : a));
  const certain = probabilities(best.scores, steps).map((of, w) => of[best.chosen[w]] >= SURE);
  return { orders: best.chosen.map((s) => states[s]), certain };
}

function innerProduct(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function standardised(sound, weight) {
  const numFeatures = sound[0][0].length;
  const totals = sums(numFeatures, weight, () => 1).map((total) => Math.max(total, 1e-30));
  const means = sums(numFeatures, weight, (c, w, k) => sound[w][k][c]).map((sum, c) => sum / totals[c]);
  const deviations = sums(numFeatures, weight, (c, w, k) => (sound[w][k][c] - means[c]) ** 2).map((sum, c) =>
    Math.sqrt(sum / totals[c] + 1e-12),
  );
  return sound.map((window) => window.map((of) => of.map((x, c) => (x - means[c]) / deviations[c])));
}

/** Weighted sums over windows and sources, one for each feature. */
function sums(numFeatures, weight, value) {
  return Array.from({ length: numFeatures }, (_, c) =>
    weight.reduce((sum, window, w) => sum + window.reduce((s, of, k) => s + of[c] * value(c, w, k), 0), 0),
  );
}

/** How well each state of each window fits the means that the chosen states give: log probabilities up to a constant. */
function windowScores(sound, weight, chosen, states) {
  const places = states[0].map((_, place) => place);
  const features = sound[0][0].map((_, c) => c);
  const placed = places.map(() => new Float64Array(features.length));
  const weights = places.map(() => new Float64Array(features.length));
  chosen.forEach((s, w) => {
    for (const place of places) {
      const k = states[s][place];
      for (const c of features) {
        weights[place][c] += weight[w][k][c];
        placed[place][c] += weight[w][k][c] * sound[w][k][c];
      }
    }
  });
  const means = placed.map((sum, place) => sum.map((x, c) => x / Math.max(weights[place][c], 1e-30)));
  const deviations = new Float64Array(features.length);
  chosen.forEach((s, w) => {
    for (const place of places) {
      const k = states[s][place];
      for (const c of features) deviations[c] += weight[w][k][c] * (sound[w][k][c] - means[place][c]) ** 2;
    }
  });
  const totals = features.map((c) => Math.max(weights.reduce((sum, of) => sum + of[c], 0), 1e-30));
  const variances = deviations.map((d, c) => d / totals[c] + LEAST_VARIANCE);
  const scores = sound.map((window, w) => {
    const fits = window.map((of, k) =>
      places.map(
        (place) =>
          -0.5 *
          features.reduce((sum, c) => {
            const strays = (of[c] - means[place][c]) ** 2 / variances[c];
            return sum + weight[w][k][c] * Math.min(strays, FARTHEST);
          }, 0),
      ),
    );
    return states.map((state) => places.reduce((sum, place) => sum + fits[state[place]][place], 0));
  });
  return { scores, constant: -0.5 * features.reduce((sum, c) => sum + totals[c] * Math.log(variances[c]), 0) };
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
