/**
 * Changes the sample rate of a stream of blocks.
 *
 * A windowed sinc, with the Kaiser window and the cut-off that libsoxr's setting "high quality" has, so that both agree:
 * the passband ends at 0.913 of half the lower rate, the stopband begins there, at -126 dB. Rates whose ratio needs
 * few phases are computed exactly; for others neighbouring phases are interpolated linearly.
 */

const CUT_OFF = 0.956872; // of half the lower rate: -6 dB
// The window's parameter for ratios up to 2, 4, 8 and above; libsoxr's filters grow a little longer with the ratio.
const BETAS = { down: [13.04, 13.711, 14.104, 14.104], up: [13.04, 13.04, 13.711, 14.104] };
const WIDTH_BY_BETA = 7.4577; // half the window's length in samples of the lower rate, over its parameter
const MAX_TABLE = 1 << 20; // coefficients
const INTERPOLATED_PHASES = 1024; // a sample of the lower rate

export class Resampler {
  /**
   * @param {number} fromRate Rate of the blocks, Hz.
   * @param {number} toRate Rate wanted, Hz.
   * @param {number} numColumns Signals in a block.
   */
  constructor(fromRate, toRate, numColumns) {
    this.numColumns = numColumns;
    this.received = 0;
    this.produced = 0;
    this.same = fromRate === toRate;
    if (this.same) return;
    const [from, to] = reducedRatio(fromRate, toRate);
    this.from = from;
    this.to = to;
    const ratio = Math.max(1, from / to); // samples of the input for one of the lower rate
    const octave = Math.min(3, Math.max(0, Math.ceil(Math.abs(Math.log2(from / to))) - 1));
    const beta = BETAS[from > to ? "down" : "up"][octave];
    this.reach = 2 * Math.ceil((WIDTH_BY_BETA * beta * ratio) / 2); // even, for the loop in steps of four
    const taps = 2 * this.reach;
    const exact = to * taps <= MAX_TABLE;
    this.numPhases = exact ? to : Math.max(16, Math.ceil(INTERPOLATED_PHASES / ratio));
    this.exact = exact;
    this.table = makeTable(this.numPhases + (exact ? 0 : 1), this.numPhases, this.reach, ratio, beta);
    // Samples that later outputs need; the first is number `first` of the input. Before the input are zeros.
    this.kept = Array.from({ length: numColumns }, () => new Float32Array(this.reach));
    this.first = -this.reach;
  }

  /**
   * @param {Float32Array[]} block Signals of one length.
   * @returns {Float32Array[]} What can be computed so far.
   */
  push(block) {
    this.received += block[0].length;
    if (this.same) return block;
    this.kept = this.kept.map((samples, c) => joined(samples, block[c]));
    return this.#computed(Infinity);
  }

  /** @returns {Float32Array[]} The rest; in all `toRate / fromRate` times as many samples as came, rounded. */
  finish() {
    if (this.same) return Array.from({ length: this.numColumns }, () => new Float32Array(0));
    this.kept = this.kept.map((samples) => joined(samples, new Float32Array(this.reach + 1)));
    // Divided in this order halves are rounded as libsoxr rounds them.
    return this.#computed(Math.round(this.received / (this.from / this.to)));
  }

  #computed(limit) {
    const { from, to, reach, first, kept } = this;
    const last = first + kept[0].length - 1; // number of the last sample that is here
    // The output m needs the samples from floor(m from / to) - reach + 1 to floor(m from / to) + reach.
    const end = Math.min(limit, Math.max(this.produced, Math.ceil(((last - reach + 1) * to) / from)));
    const count = Math.max(0, end - this.produced);
    const results = kept.map(() => new Float32Array(count));
    for (let i = 0; i < count; i++) {
      const position = (this.produced + i) * from;
      const whole = Math.floor(position / to);
      const phase = position - whole * to;
      const start = whole - reach + 1 - first;
      for (let c = 0; c < results.length; c++) results[c][i] = this.#at(kept[c], start, phase);
    }
    this.produced += count;
    const next = Math.floor((this.produced * from) / to) - reach + 1;
    const unneeded = Math.min(Math.max(0, next - first), kept[0].length);
    this.kept = kept.map((samples) => samples.slice(unneeded));
    this.first += unneeded;
    return results;
  }

  #at(samples, start, phase) {
    if (this.exact) return this.#dot(samples, start, phase);
    const place = (phase / this.to) * this.numPhases;
    const below = Math.floor(place);
    const share = place - below;
    return (1 - share) * this.#dot(samples, start, below) + share * this.#dot(samples, start, below + 1);
  }

  #dot(samples, start, phase) {
    const taps = 2 * this.reach;
    const table = this.table;
    // Four sums at once: a processor adds to one while the others are still in work.
    let [a, b, c, d] = [0, 0, 0, 0];
    for (let i = start, t = phase * taps, end = start + taps; i < end; i += 4, t += 4) {
      a += table[t] * samples[i];
      b += table[t + 1] * samples[i + 1];
      c += table[t + 2] * samples[i + 2];
      d += table[t + 3] * samples[i + 3];
    }
    return a + b + (c + d);
  }
}

/** Coefficients by phase: what the samples around an output are multiplied by. */
function makeTable(rows, numPhases, reach, ratio, beta) {
  const taps = 2 * reach;
  const table = new Float32Array(rows * taps);
  const scale = 1 / bessel(beta);
  const halfWidth = WIDTH_BY_BETA * beta;
  for (let phase = 0; phase < rows; phase++) {
    for (let i = 0; i < taps; i++) {
      const time = (phase / numPhases + reach - 1 - i) / ratio; // in samples of the lower rate
      const inside = 1 - (time / halfWidth) ** 2;
      if (inside <= 0) continue;
      const x = Math.PI * CUT_OFF * time;
      const sinc = Math.abs(x) < 1e-12 ? 1 : Math.sin(x) / x;
      table[phase * taps + i] = (CUT_OFF * sinc * bessel(beta * Math.sqrt(inside)) * scale) / ratio;
    }
  }
  return table;
}

/** Modified Bessel function of the first kind, order 0. */
function bessel(x) {
  let sum = 1;
  for (let k = 1, term = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** The ratio of two rates as whole numbers without a common divisor, where they have a few binary places at most. */
function reducedRatio(from, to) {
  for (let i = 0; i < 10 && !(Number.isInteger(from) && Number.isInteger(to)); i++) {
    from *= 2;
    to *= 2;
  }
  if (!Number.isInteger(from) || !Number.isInteger(to)) return [from, to];
  let [a, b] = [from, to];
  while (b) [a, b] = [b, a % b];
  return [from / a, to / a];
}

function joined(a, b) {
  const result = new Float32Array(a.length + b.length);
  result.set(a);
  result.set(b, a.length);
  return result;
}
