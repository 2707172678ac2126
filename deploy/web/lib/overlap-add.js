/** Streams cut into windows that overlap by three quarters, and separated windows put together again. */

const WINDOWS_A_CALL = 32; // at most
const WINDOWS_A_SAMPLE = 4;
const TOLERATED = 0.02; // of the energy, by which a window may stray from the others
const SILENT = 1e-12;
export const ENUMERATED_SOURCES = 6; // up to which every order of the sources is tried

/** Samples from the start of one window of `length` samples to that of the next. */
export function hopLength(length) {
  return Math.floor(length / WINDOWS_A_SAMPLE);
}

/**
 * Cuts a stream into batches of overlapping windows.
 *
 * @param {AsyncIterable<Float32Array[]>} blocks Blocks of one signal for each channel.
 * @param {number} length Samples of a window.
 * @param {number} numChannels
 * @yields {{ windows: Float32Array[][], end: number }} Windows `[n][channel]`, the last filled with zeros, and the length of
 *   the stream: infinite before the last batch.
 */
export async function* windows(blocks, length, numChannels) {
  const hop = hopLength(length);
  let rest = Array.from({ length: numChannels }, () => new Float32Array(0));
  let start = 0;
  for await (const block of blocks) {
    rest = rest.map((samples, c) => concatenated([samples, block[c]]));
    for (;;) {
      // Two samples stay behind, so that a last window is always left to cut.
      const count = Math.min(WINDOWS_A_CALL, Math.floor((rest[0].length - 2 - length) / hop) + 1);
      if (count <= 0) break;
      yield { windows: cut(rest, count, length), end: Infinity };
      rest = rest.map((samples) => samples.slice(count * hop));
      start += count * hop;
    }
  }
  const count = Math.max(1, Math.ceil((rest[0].length - length) / hop) + 1);
  const filled = rest.map((samples) => concatenated([samples], (count - 1) * hop + length));
  yield { windows: cut(filled, count, length), end: start + rest[0].length };
}

/**
 * Puts separated windows together: each sample is a mean of the windows that hold it.
 *
 * In each quarter of a window, a window weighs the less the further it is from the median of all, in squares of all its
 * sources, and its edges weigh less than its middle.
 *
 * @param {AsyncIterable<{ windows: Float32Array[][][], end: number }>} separated Windows `[n][source][channel]`, and the
 *   length of the stream as `windows` gives it.
 * @param {number[][] | null} orders Which source of each window stands in each place; null matches each window's sources
 *   to those of the windows before by their inner products on the overlap.
 * @yields {Float32Array[][]} Blocks `[source][channel]`.
 */
export async function* overlapAdd(separated, orders) {
  let latest = []; // windows, each of which reaches a quarter further than the one before
  let number = 0;
  let done = 0;
  let end = 0;
  for await (const { windows: batch, end: known } of separated) {
    end = known;
    for (const window of batch) {
      const hop = hopLength(window[0][0].length);
      const order = orders
        ? orders[number]
        : latest.length
          ? matched(begun(latest), window, window[0][0].length - hop)
          : window.map((_, k) => k);
      latest = [...latest.slice(1 - WINDOWS_A_SAMPLE), order.map((k) => window[k])];
      // Half of the first window comes at once.
      for (const part of latest.length === 1 ? [0, 1] : latest.length === 2 ? [] : [0]) {
        yield quarter(latest, part, Math.max(0, Math.min(hop, end - done)));
        done += hop;
      }
      number++;
    }
  }
  for (let part = latest.length === 1 ? 2 : 1; part < WINDOWS_A_SAMPLE && latest.length; part++) {
    const length = latest[0][0][0].length;
    const whole = part < WINDOWS_A_SAMPLE - 1 ? hopLength(length) : length - part * hopLength(length);
    yield quarter(latest, part, Math.max(0, Math.min(whole, end - done)));
    done += whole;
  }
}

/** The sum of windows, each weighted by a Hann window, from where the next one begins to where the last one ends. */
function begun(latest) {
  const length = latest[0][0][0].length;
  const hop = hopLength(length);
  const weight = Float32Array.from({ length }, (_, i) => sine(i, length) ** 2);
  return latest[0].map((channels, k) =>
    channels.map((_, c) => {
      const total = new Float32Array(length - hop);
      latest.forEach((window, i) => {
        const start = (latest.length - i) * hop;
        for (let at = start; at < length; at++) total[at - start] += weight[at] * window[k][c][at];
      });
      return total;
    }),
  );
}

/** The first `count` samples of a quarter of the latest window. */
function quarter(latest, number, count) {
  const length = latest[0][0][0].length;
  const hop = hopLength(length);
  const held = latest.slice(number - WINDOWS_A_SAMPLE).reverse();
  const strays = held.map(() => 0);
  let energy = 0;
  latest[0].forEach((channels, k) =>
    channels.forEach((_, c) => {
      const parts = held.map((window, later) => window[k][c].subarray((number + later) * hop));
      for (let i = 0; i < hop; i++) {
        const middle = median(parts, i);
        energy += middle * middle;
        for (let later = 0; later < parts.length; later++) strays[later] += (parts[later][i] - middle) ** 2;
      }
    }),
  );
  const trust = strays.map((stray) => 1 / (stray / Math.max(energy, SILENT) + TOLERATED));
  const weights = held.map((_, later) => {
    const first = (number + later) * hop;
    return Float32Array.from({ length: count }, (_, i) => trust[later] * sine(first + i, length));
  });
  const totals = new Float32Array(count);
  for (const weight of weights) for (let i = 0; i < count; i++) totals[i] += weight[i];
  return latest[0].map((channels, k) =>
    channels.map((_, c) => {
      const mean = new Float32Array(count);
      held.forEach((window, later) => {
        const part = window[k][c].subarray((number + later) * hop);
        for (let i = 0; i < count; i++) mean[i] += (weights[later][i] / totals[i]) * part[i];
      });
      return mean;
    }),
  );
}

function sine(at, length) {
  return Math.sin((Math.PI * (at + 0.5)) / length);
}

/** The median of the values at a place of one to four signals. */
function median(signals, i) {
  const [a, b, c, d] = signals;
  if (signals.length === 1) return a[i];
  if (signals.length === 2) return (a[i] + b[i]) / 2;
  const [low, high] = [Math.min(a[i], b[i]), Math.max(a[i], b[i])];
  if (signals.length === 3) return Math.max(low, Math.min(high, c[i]));
  return (Math.max(low, Math.min(c[i], d[i])) + Math.min(high, Math.max(c[i], d[i]))) / 2;
}

function cut(signals, count, length) {
  const hop = hopLength(length);
  return Array.from({ length: count }, (_, i) => signals.map((s) => s.slice(i * hop, i * hop + length)));
}

/** Which source of a window goes on with each of `tail`, both `[source][channel]`. */
function matched(tail, window, hop) {
  const products = tail.map((before) =>
    window.map((after) => before.reduce((sum, samples, c) => sum + innerProduct(samples, after[c], hop), 0)),
  );
  if (products.length > ENUMERATED_SOURCES) throw new RangeError(`more than ${ENUMERATED_SOURCES} sources`);
  let best = null;
  let bestSum = -Infinity;
  for (const order of permutations(products.length)) {
    const sum = order.reduce((total, j, k) => total + products[k][j], 0);
    if (sum > bestSum) [best, bestSum] = [order, sum];
  }
  return best;
}

function innerProduct(a, b, length) {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[i] * b[i];
  return sum;
}

/** Every order of the numbers below `count`, the lexicographically first ones first. */
export function permutations(count) {
  if (count === 0) return [[]];
  const extended = (rest) =>
    rest.length === 0 ? [[]] : rest.flatMap((k) => extended(rest.filter((j) => j !== k)).map((order) => [k, ...order]));
  return extended(Array.from({ length: count }, (_, k) => k));
}

/** Signals one after the other, filled with zeros up to `length` where it is given. */
export function concatenated(parts, length = parts.reduce((sum, part) => sum + part.length, 0)) {
  const result = new Float32Array(length);
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}
