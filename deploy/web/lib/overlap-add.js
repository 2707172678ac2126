/** Streams cut into windows that overlap by three quarters, and separated windows put together again. */

const WINDOWS_A_CALL = 32; // at most
const ENUMERATED_SOURCES = 6; // up to which every order of the sources is tried

/** Samples from the start of one window of `length` samples to that of the next. */
export function hopLength(length) {
  return Math.floor(length / 4);
}

/**
 * Cuts a stream into batches of overlapping windows.
 *
 * @param {AsyncIterable<Float32Array[]>} blocks Blocks of one signal for each channel.
 * @param {number} length Samples of a window.
 * @param {number} numChannels
 * @yields {{ windows: Float32Array[][], remaining: number }} Windows `[n][channel]`, the last filled with zeros, and the
 *   number of samples of the stream from the first one's start on, as far as the batch reaches.
 */
export async function* windows(blocks, length, numChannels) {
  const hop = hopLength(length);
  let rest = Array.from({ length: numChannels }, () => new Float32Array(0));
  for await (const block of blocks) {
    rest = rest.map((samples, c) => concatenated([samples, block[c]]));
    for (;;) {
      // Two samples stay behind, so that a last window is always left to cut.
      const count = Math.min(WINDOWS_A_CALL, Math.floor((rest[0].length - 2 - length) / hop) + 1);
      if (count <= 0) break;
      yield { windows: cut(rest, count, length), remaining: count * hop };
      rest = rest.map((samples) => samples.slice(count * hop));
    }
  }
  const remaining = rest[0].length;
  const count = Math.max(1, Math.ceil((remaining - length) / hop) + 1);
  const filled = rest.map((samples) => concatenated([samples], (count - 1) * hop + length));
  yield { windows: cut(filled, count, length), remaining };
}

/**
 * Puts separated windows together: their mean, each weighted by a Hann window.
 *
 * @param {AsyncIterable<{ windows: Float32Array[][][], remaining: number }>} separated Windows `[n][source][channel]`.
 * @param {number[][] | null} orders Which source of each window stands in each place; null matches each window's sources
 *   to the sum of those before by their inner products on the overlap.
 * @yields {Float32Array[][]} Blocks `[source][channel]`.
 */
export async function* overlapAdd(separated, orders) {
  let total = null; // of the windows so far, from the start of the next on
  let weight = null; // of each sample of a window
  let weights = null; // the sum of those so far
  let done = 0; // samples of the total that are out: half of the first window comes at once
  let number = 0;
  for await (const { windows: batch, remaining: given } of separated) {
    let remaining = given;
    for (const window of batch) {
      const length = window[0][0].length;
      const hop = hopLength(length);
      const order = orders ? orders[number] : total ? matched(total, window, length - hop) : window.map((_, k) => k);
      const end = total ? hop : 2 * hop;
      total ??= window.map((channels) => channels.map(() => new Float32Array(length)));
      weight ??= Float32Array.from({ length }, (_, i) => Math.sin((Math.PI * (i + 0.5)) / length) ** 2);
      weights ??= new Float32Array(length);
      total.forEach((channels, k) =>
        channels.forEach((sum, c) => {
          const samples = window[order[k]][c];
          for (let i = 0; i < length; i++) sum[i] += weight[i] * samples[i];
        }),
      );
      for (let i = 0; i < length; i++) weights[i] += weight[i];
      const count = Math.min(end - done, remaining);
      yield mean(total, weights, done, count);
      remaining -= count;
      done = end - hop;
      total = total.map((channels) => channels.map((sum) => concatenated([sum.subarray(hop)], length)));
      weights = concatenated([weights.subarray(hop)], length);
      number++;
    }
    if (remaining > 0) yield mean(total, weights, done, remaining);
  }
}

function mean(total, weights, start, count) {
  return total.map((channels) =>
    channels.map((sum) => sum.slice(start, start + count).map((x, i) => x / weights[start + i])),
  );
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
