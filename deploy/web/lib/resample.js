/**
 * Changes the sample rate of a stream of blocks.
 *
 * A windowed sinc, with the Kaiser window and the cut-off that libsoxr's setting "high quality" has, so that both agree:
 * the passband ends at 0.913 of half the lower rate, the stopband begins there, at -126 dB. Where the rates are far apart
 * this filter runs between the lower rate and twice that, and a short one between that and the higher rate, as in libsoxr.
 * Ratios that need few phases are computed exactly; for others neighbouring phases are interpolated linearly.
 */

const SHARP = { cutOff: 0.956872, widthByBeta: 7.4577 }; // of half the lower rate: -6 dB; half the length over beta
// The window's parameter for ratios up to 2, 4, 8 and above; libsoxr's filters grow a little longer with the ratio.
const BETAS = { down: [13.04, 13.711, 14.104, 14.104], up: [13.04, 13.04, 13.711, 14.104] };
// Flat up to a quarter of its lower rate, nothing is left from three quarters on.
const SHORT = { cutOff: 1, beta: 13, halfWidth: 9 };
const MIN_RATIO = 3; // of the rates from which on two filters are less work than one
const MAX_TABLE = 1 << 20; // coefficients
const INTERPOLATED_PHASES = 1024; // a sample of the lower rate

export class Resampler {
  /**
   * @param {number} fromRate Rate of the blocks, Hz.
   * @param {number} toRate Rate wanted, Hz.
   * @param {number} numColumns Signals in a block.
   */
  constructor(fromRate, toRate, numColumns) {
    this.ratio = fromRate / toRate;
    this.received = 0;
    this.produced = 0;
    this.numColumns = numColumns;
    this.stages = [];
    if (fromRate === toRate) return;
    const octave = Math.min(3, Math.max(0, Math.ceil(Math.abs(Math.log2(this.ratio))) - 1));
    const beta = BETAS[fromRate > toRate ? "down" : "up"][octave];
    const sharp = { ...SHARP, beta, halfWidth: SHARP.widthByBeta * beta };
    const between = 2 * Math.min(fromRate, toRate);
    if (this.ratio >= MIN_RATIO) {
      this.stages.push(new Stage(fromRate, between, numColumns, SHORT), new Stage(between, toRate, numColumns, sharp));
    } else if (1 / this.ratio >= MIN_RATIO) {
      this.stages.push(new Stage(fromRate, between, numColumns, sharp), new Stage(between, toRate, numColumns, SHORT));
    } else this.stages.push(new Stage(fromRate, toRate, numColumns, sharp));
  }

  /**
   * @param {Float32Array[]} block Signals of one length.
   * @returns {Float32Array[]} What can be computed so far.
   */
  push(block) {
    this.received += block[0].length;
    const result = this.stages.reduce((samples, stage) => stage.push(samples), block);
    this.produced += result[0].length;
    return result;
  }

  /** @returns {Float32Array[]} The rest; in all `toRate / fromRate` times as many samples as came, rounded. */
  finish() {
    const count = Math.round(this.received / this.ratio) - this.produced; // halves are rounded as libsoxr rounds them
    let last = Array.from({ length: this.numColumns }, () => new Float32Array(0));
    for (const stage of this.stages) {
      const before = stage.push(last);
      const after = stage.flush();
      last = before.map((samples, c) => joined(samples, after[c]));
    }
    return last.map((samples) => samples.slice(0, count));
  }
}

/** One filter between two rates. */
class Stage {
  constructor(fromRate, toRate, numColumns, { cutOff, beta, halfWidth }) {
    const [from, to] = reducedRatio(fromRate, toRate);
    this.from = from;
    this.to = to;
    this.produced = 0;
    const ratio = Math.max(1, from / to); // samples of the input for one of the lower rate
    this.reach = 2 * Math.ceil((halfWidth * ratio) / 2); // even, for the loop in steps of four
    const taps = 2 * this.reach;
    this.exact = to * taps <= MAX_TABLE;
    this.numPhases = this.exact ? to : Math.max(16, Math.ceil(INTERPOLATED_PHASES / ratio));
    const rows = this.numPhases + (this.exact ? 0 : 1);
    this.table = makeTable({ rows, numPhases: this.numPhases, reach: this.reach, ratio, cutOff, beta, halfWidth });
    // Samples that later outputs need; the first is number `first` of the input. Before the input are zeros.
    this.kept = Array.from({ length: numColumns }, () => new Float32Array(this.reach));
    this.first = -this.reach;
  }

  push(block) {
    this.kept = this.kept.map((samples, c) => joined(samples, block[c]));
    return this.#computed();
  }

  /** What zeros after the input bring out: all samples of the input's time, and the filter's end. */
  flush() {
    return this.push(this.kept.map(() => new Float32Array(2 * this.reach + 2)));
  }

  #computed() {
    const { from, to, reach, first, kept } = this;
    const last = first + kept[0].length - 1; // number of the last sample that is here
    // The output m needs the samples from floor(m from / to) - reach + 1 to floor(m from / to) + reach.
    const end = Math.max(this.produced, Math.ceil(((last - reach + 1) * to) / from));
    const count = end - this.produced;
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
function makeTable({ rows, numPhases, reach, ratio, cutOff, beta, halfWidth }) {
  const taps = 2 * reach;
  const table = new Float32Array(rows * taps);
  const scale = 1 / bessel(beta);
  for (let phase = 0; phase < rows; phase++) {
    for (let i = 0; i < taps; i++) {
      const time = (phase / numPhases + reach - 1 - i) / ratio; // in samples of the lower rate
      const inside = 1 - (time / halfWidth) ** 2;
      if (inside <= 0) continue;
      const x = Math.PI * cutOff * time;
      const sinc = Math.abs(x) < 1e-12 ? 1 : Math.sin(x) / x;
      table[phase * taps + i] = (cutOff * sinc * bessel(beta * Math.sqrt(inside)) * scale) / ratio;
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
