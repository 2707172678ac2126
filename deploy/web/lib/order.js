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
const HIGHEST_HZ = 2756.25; // higher up, notes have too little to tell their instruments by
const FLOOR = 1e-4; // of a source's energy, in each band
const NUM_COEFFICIENTS = 8;
const FIRST_FEATURES = [0, 1, 2, 3, 4, 8, 9]; // coefficients that carry most, pitch and level
const PITCHES_HZ = [60, 1500];
const LAGS_A_SAMPLE = 4;
const COMPRESSION = 1 / 3; // exponent of the power, so that the harmonics of a note count alike
const LEAST_LEVEL = 0.3; // of the mean energy of a source
const SOUNDING = 0.01; // of the mean energy: windows below it are silent
const OVERLAP_WEIGHT = 8; // nats for waveforms that go on without a change
const FINAL_OVERLAP_WEIGHT = 3; // the same, where the features tell more
const FULL_WEIGHT = 20; // a source of a 20th of the mean energy counts in full
const LEAST_VARIANCE = 0.02; // of standardised features
const FARTHEST = 4; // squared deviations from a mean, over the variance: whatever strays further counts as this
const LEAST_COVARIANCE = 0.05; // of standardised features, on the diagonal
const FARTHEST_OF_ALL = 2.8; // of each feature, on average
const MAX_ITERATIONS = 8;
const REPEATED = 4; // windows that say the same
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
    const highest = Math.min(HIGHEST_HZ, sampleRate / 2);
    this.end = Math.min(length, Math.floor((highest * 2 * length) / sampleRate + 1e-9)) + 1;
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
    const { end: last, starts } = this;
    const bands = starts.map((start, band) => {
      const end = band + 1 < NUM_BANDS ? Math.max(start + 1, starts[band + 1]) : last;
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
 *   recording first; and the share of the windows that are silent or whose order has a probability of 99 % or more.
 */
export function consistentOrders({ sound, energy, quarters, halves, numSources }) {
  const states = permutations(numSources);
  const totals = energy.map((window) => window.reduce((a, b) => a + b, 0));
  const meanEnergy = totals.reduce((a, b) => a + b, 0) / totals.length;
  const meanOfSources = Math.max(meanEnergy / numSources, 1e-30);
  const heard = energy.map((window) =>
    window.map((of) => Math.sqrt(Math.min(1, (FULL_WEIGHT * of) / Math.max(meanEnergy, 1e-30)))),
  );
  const features = sound.map((window, w) =>
    window.map((of, k) => [...of, Math.log(energy[w][k] / meanOfSources + LEAST_LEVEL)]),
  );
  const steps = { quarters: stepsOf(quarters, states), halves: stepsOf(halves, states) };
  const first = features.map((window) => window.map((of) => FIRST_FEATURES.map((c) => of[c])));
  const weight = heard.map((window) => window.map((h) => features[0][0].map(() => h)));
  const beginning = byMeans(first, heard, weighted(steps, OVERLAP_WEIGHT), states);
  const final = weighted(steps, FINAL_OVERLAP_WEIGHT);
  const { chosen, certainty } = byCovariances(standardised(features, weight), heard, beginning, final, states);
  const orders = chosen.map((s) => states[s]);
  const loudness = new Array(numSources).fill(0);
  orders.forEach((order, w) => order.forEach((k, place) => (loudness[place] += energy[w][k])));
  const places = loudness.map((_, place) => place).sort((a, b) => loudness[b] - loudness[a] || a - b);
  const certain = certainty.filter((p, w) => p >= SURE || totals[w] <= SOUNDING * meanEnergy).length;
  return { orders: orders.map((order) => places.map((place) => order[place])), sure: certain / orders.length };
}

/** How far each state goes on with each: `[windows][state before][state]`, from products of sources. */
function stepsOf(products, states) {
  return products.map((of) =>
    states.map((before) => states.map((after) => before.reduce((sum, j, place) => sum + of[j][after[place]], 0))),
  );
}

function weighted({ quarters, halves }, weight) {
  const times = (steps) => steps.map((of) => of.map((before) => before.map((x) => weight * x)));
  return { quarters: times(quarters), halves: times(halves) };
}

/** The most probable states by means and variances that all sources share, from several beginnings. */
function byMeans(features, heard, steps, states) {
  // The level of a source that is not heard is known as well as any other.
  const weight = features.map((window, w) => window.map((of, k) => of.map((_, c) => (c < of.length - 1 ? heard[w][k] : 1))));
  const sound = standardised(features, weight);
  const indexOf = new Map(states.map((state, s) => [state.join(), s]));
  const bySound = sound[0][0].map((_, c) =>
    sound.map((window) => {
      const sorted = window.map((_, k) => k).sort((a, b) => window[a][c] - window[b][c] || a - b);
      return indexOf.get(sorted.join());
    }),
  );
  const flat = features.map(() => new Array(states.length).fill(0));
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
  return beginnings
    .map((beginning) => ({ ...beginning, total: beginning.constant + pathScore(beginning, steps) }))
    .reduce((a, b) => (b.total > a.total ? b : a)).chosen;
}

/** The most probable states by a covariance matrix for each source, and the probability of each. */
function byCovariances(sound, heard, beginning, steps, states) {
  let chosen = beginning;
  let scores = null;
  for (let iteration = 0; iteration < MAX_ITERATIONS; iteration++) {
    const before = chosen;
    scores = covarianceScores(sound, heard, before, states);
    chosen = mostProbable(scores, steps);
    if (chosen.every((state, w) => state === before[w])) break;
  }
  const tempered = scores.map((of) => of.map((score) => score / REPEATED));
  const found = probabilities(tempered, weighted(steps, 1 / REPEATED));
  return { chosen, certainty: found.map((of, w) => of[chosen[w]]) };
}

/** As `windowScores`, with a covariance matrix for each source: the log probabilities. */
function covarianceScores(sound, heard, chosen, states) {
  const numFeatures = sound[0][0].length;
  const fits = states[0].map((_, place) => {
    const taken = chosen.map((s, w) => ({ of: sound[w][states[s][place]], h: heard[w][states[s][place]] }));
    const total = Math.max(
      taken.reduce((sum, { h }) => sum + h, 0),
      1e-30,
    );
    const mean = new Float64Array(numFeatures);
    for (const { of, h } of taken) of.forEach((x, c) => (mean[c] += (h * x) / total));
    const covariance = Array.from({ length: numFeatures }, () => new Float64Array(numFeatures));
    for (const { of, h } of taken) {
      const departures = of.map((x, c) => x - mean[c]);
      for (let i = 0; i < numFeatures; i++)
        for (let j = 0; j <= i; j++) covariance[i][j] += (h * departures[i] * departures[j]) / total;
    }
    for (let i = 0; i < numFeatures; i++) covariance[i][i] += LEAST_COVARIANCE;
    const root = choleskyRoot(covariance);
    const logDeterminant = 2 * root.reduce((sum, row, i) => sum + Math.log(row[i]), 0);
    return sound.map((window, w) =>
      window.map((of, k) => {
        const strays = squaredLength(root, of.map((x, c) => x - mean[c]));
        return -0.5 * heard[w][k] * (Math.min(strays, FARTHEST_OF_ALL * numFeatures) + logDeterminant);
      }),
    );
  });
  return sound.map((_, w) => states.map((state) => state.reduce((sum, k, place) => sum + fits[place][w][k], 0)));
}

/** The lower triangle L of a positive definite matrix L L', whose own lower triangle is read. */
function choleskyRoot(matrix) {
  const root = matrix.map((row) => new Float64Array(row.length));
  for (let i = 0; i < matrix.length; i++) {
    for (let j = 0; j <= i; j++) {
      let rest = matrix[i][j];
      for (let k = 0; k < j; k++) rest -= root[i][k] * root[j][k];
      root[i][j] = i === j ? Math.sqrt(rest) : rest / root[j][j];
    }
  }
  return root;
}

/** x' (L L')^-1 x. */
function squaredLength(root, values) {
  const solved = new Float64Array(values.length);
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    let rest = values[i];
    for (let j = 0; j < i; j++) rest -= root[i][j] * solved[j];
    solved[i] = rest / root[i][i];
    sum += solved[i] ** 2;
  }
  return sum;
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

/** The most probable states of a chain (Viterbi 1967), by number, of which each depends on the two before. */
function mostProbable(scores, { quarters, halves }) {
  if (scores.length === 1) return [indexOfLargest(scores[0])];
  const numStates = scores[0].length;
  let reached = beginningOf(scores, quarters); // [state before][state]
  const origins = [];
  for (let w = 2; w < scores.length; w++) {
    const origin = reached.map(() => new Uint8Array(numStates));
    const next = reached.map(() => new Float64Array(numStates));
    for (let before = 0; before < numStates; before++) {
      for (let state = 0; state < numStates; state++) {
        let [best, from] = [-Infinity, 0];
        for (let earlier = 0; earlier < numStates; earlier++) {
          const way = reached[earlier][before] + halves[w][earlier][state];
          if (way > best) [best, from] = [way, earlier];
        }
        origin[before][state] = from;
        next[before][state] = best + quarters[w][before][state] + scores[w][state];
      }
    }
    origins.push(origin);
    reached = next;
  }
  const best = indexOfLargest(reached.flatMap((of) => [...of]));
  let [earlier, later] = [Math.floor(best / numStates), best % numStates];
  const path = [later, earlier];
  for (const origin of origins.reverse()) {
    [earlier, later] = [origin[earlier][later], earlier];
    path.push(earlier);
  }
  return path.reverse();
}

function beginningOf(scores, quarters) {
  return scores[0].map((before, b) => scores[1].map((score, s) => before + score + quarters[1][b][s]));
}

function pathScore({ chosen, scores }, { quarters, halves }) {
  return chosen.reduce((sum, s, w) => {
    const near = w > 0 ? quarters[w][chosen[w - 1]][s] : 0;
    const far = w > 1 ? halves[w][chosen[w - 2]][s] : 0;
    return sum + scores[w][s] + near + far;
  }, 0);
}

/** The probability of each state of each window, given all windows. */
function probabilities(scores, { quarters, halves }) {
  if (scores.length === 1) return [shares(scores[0])];
  const numbers = scores[0].map((_, s) => s);
  const forward = [beginningOf(scores, quarters)]; // [state before][state], of each window from the second on
  for (let w = 2; w < scores.length; w++) {
    const passed = forward[w - 2];
    forward.push(
      numbers.map((before) =>
        numbers.map((s) => {
          const ways = logSum(numbers.map((earlier) => passed[earlier][before] + halves[w][earlier][s]));
          return ways + quarters[w][before][s] + scores[w][s];
        }),
      ),
    );
  }
  const ofLater = (both) => numbers.map((s) => logSum(numbers.map((before) => both[before][s])));
  let backward = numbers.map(() => numbers.map(() => 0));
  const added = (of) => of.map((row, before) => row.map((x, s) => x + backward[before][s]));
  const found = [ofLater(forward.at(-1))];
  for (let w = scores.length - 1; w > 1; w--) {
    const after = added(quarters[w].map((row) => row.map((x, s) => x + scores[w][s])));
    backward = numbers.map((earlier) =>
      numbers.map((before) => logSum(numbers.map((s) => halves[w][earlier][s] + after[before][s]))),
    );
    found.push(ofLater(added(forward[w - 2])));
  }
  found.push(added(forward[0]).map(logSum));
  return found.reverse().map(shares);
}

function shares(logarithms) {
  const total = logSum(logarithms);
  return logarithms.map((x) => Math.exp(x - total));
}

function logSum(values) {
  const largest = Math.max(...values);
  return largest + Math.log(values.reduce((sum, x) => sum + Math.exp(x - largest), 0));
}

function indexOfLargest(values) {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}
