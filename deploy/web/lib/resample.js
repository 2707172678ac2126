/**
 * Changes the sample rate of a stream of blocks.
 *
 * Kaiser-windowed sincs in the same stages as libsoxr's setting "high quality" has, so that both agree: the passband ends
 * at 0.914 of half the lower rate, the stopband begins there. High rates are halved first and reached last, by short filters;
 * one sharp filter runs near the lower rate. Where no simple ratio is left a short filter between two rates follows it.
 * Ratios that need few phases are computed exactly; for others neighbouring phases are interpolated linearly.
 */

const PASSBAND = 0.913744; // of half the lower rate
const ATTENUATION = 126.43; // dB, of one filter alone
const BETA = { least: 13.04, slope: 0.1114, width: 0.64327 }; // of Kaiser's window, by the attenuation, and its width
const ROLL_OFF = 1.748; // half transition widths from the stopband to where a filter between two rates is at -0.01 dB
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
    const steps = fromRate === toRate ? [] : fromRate > toRate ? stepsDown(fromRate, toRate) : stepsUp(fromRate, toRate);
    const attenuation = attenuationOf(steps);
    this.stages = steps.map(({ from, to, ...filter }) => new Stage(from, to, numColumns, windowed(filter, attenuation)));
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

/**
 * @typedef {object} Step One filter between two rates.
 * @property {number} from Hz.
 * @property {number} to Hz.
 * @property {number} base The rate that the filter is made for, Hz.
 * @property {number} pass End of the passband, of half that rate.
 * @property {number} stop Begin of the stopband, of half that rate.
 * @property {boolean} [isBetween] Whether it is the filter between two rates whose ratio is not simple.
 * @property {(width: number) => number} [rounded] Rounds half the filter's length, in samples of `base`.
 */

/** @returns {Step[]} */
function stepsDown(fromRate, toRate) {
  const steps = [];
  let from = fromRate;
  for (; from / toRate >= 4; from /= 2) steps.push({ from, to: from / 2, base: from / 2, pass: 0.5, stop: 1.5 });
  const ratio = from / toRate;
  const sharp = { base: toRate, pass: PASSBAND, stop: 1 };
  if (isSimple(from, toRate)) steps.push({ from, to: toRate, ...sharp });
  else if (ratio > 1.5 && ratio < 2) {
    // Up to twice the wanted rate, of which the sharp filter takes half.
    steps.push(between(from, 2 * toRate, { base: toRate, pass: PASSBAND, stop: 3 }), { from: 2 * toRate, to: toRate, ...sharp });
  } else {
    const middle = ratio < 2 ? 2 * from : from;
    const share = toRate / middle;
    const stop = 2 - share * (0.3 * PASSBAND + 0.7);
    steps.push({ from, to: middle, ...sharp }, between(middle, toRate, { base: middle, pass: share * PASSBAND, stop }));
  }
  return steps;
}

/** @returns {Step[]} */
function stepsUp(fromRate, toRate) {
  const ratio = toRate / fromRate;
  const last = ratio > 4 && ratio !== 5 ? 2 ** Math.max(2, Math.floor(Math.log2(ratio)) - 2) : 1;
  const middle = toRate / last;
  const steps = [];
  const sharp = { base: fromRate, pass: PASSBAND, stop: 1 };
  if (isSimple(fromRate, middle)) steps.push({ from: fromRate, to: middle, ...sharp });
  else {
    const stop = 2 - (0.3 * PASSBAND + 0.7) / 2;
    steps.push({ from: fromRate, to: 2 * fromRate, ...sharp });
    steps.push(between(2 * fromRate, middle, { base: 2 * fromRate, pass: PASSBAND / 2, stop }));
  }
  const share = fromRate / middle;
  if (last > 1) {
    const rounded = (width) => Math.ceil(width) + 0.5 / last;
    steps.push({ from: middle, to: toRate, base: middle, pass: share * PASSBAND, stop: Math.max(1, 2 - share), rounded });
  }
  return steps;
}

/** A filter between two rates, which falls by 0.01 dB up to the end of the passband. */
function between(from, to, { base, pass, stop }) {
  const rounded = (width) => (Math.floor(2 * width) + 1) / 2;
  return { from, to, base, pass: stop - (2 * (stop - pass)) / ROLL_OFF, stop, isBetween: true, rounded };
}

/** Whether one sharp filter does. */
function isSimple(from, to) {
  const [a, b] = reducedRatio(from, to);
  return Number.isInteger(a) && (Math.max(a, b) < 5 || a * b < 6);
}

/** The attenuation of each of several filters, dB, so that all together have that of one. */
function attenuationOf(steps) {
  const hasBetween = steps.length > 1 && steps.some(({ isBetween }) => isBetween);
  const total = ATTENUATION + (hasBetween ? 20 * Math.log10(2) : 0);
  return { between: total, other: total + 20 * Math.log10(Math.max(1, steps.length - hasBetween)) };
}

/** The window of a step's filter. */
function windowed({ base, pass, stop, isBetween, rounded = (width) => width }, attenuation) {
  const beta = BETA.least + BETA.slope * ((isBetween ? attenuation.between : attenuation.other) - ATTENUATION);
  return { base, cutOff: (pass + stop) / 2, beta, halfWidth: rounded((BETA.width * beta) / (stop - pass)) };
}

/** One filter between two rates. */
class Stage {
  constructor(fromRate, toRate, numColumns, { base, cutOff, beta, halfWidth }) {
    const [from, to] = reducedRatio(fromRate, toRate);
    this.from = from;
    this.to = to;
    this.produced = 0;
    const ratio = fromRate / base; // samples of the input for one of the filter's
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
      if (this.exact) this.#filter(start, phase, results, i);
      else this.#interpolate(start, (phase / to) * this.numPhases, results, i);
    }
    this.produced += count;
    const next = Math.floor((this.produced * from) / to) - reach + 1;
    const unneeded = Math.min(Math.max(0, next - first), kept[0].length);
    this.kept = kept.map((samples) => samples.slice(unneeded));
    this.first += unneeded;
    return results;
  }

  /** Writes output `i` of each column, of one phase. */
  #filter(start, phase, results, i) {
    const { table, kept } = this;
    const taps = 2 * this.reach;
    const row = phase * taps;
    const end = start + taps;
    let column = 0;
    // Two columns and two taps at once: a coefficient is read once, and a processor adds to one sum while others are in work.
    for (; column + 1 < kept.length; column += 2) {
      const x = kept[column];
      const y = kept[column + 1];
      let [a, b, c, d] = [0, 0, 0, 0];
      for (let j = start, t = row; j < end; j += 2, t += 2) {
        const u = table[t];
        const v = table[t + 1];
        a += u * x[j];
        b += v * x[j + 1];
        c += u * y[j];
        d += v * y[j + 1];
      }
      results[column][i] = a + b;
      results[column + 1][i] = c + d;
    }
    if (column === kept.length) return;
    const x = kept[column];
    let [a, b, c, d] = [0, 0, 0, 0];
    for (let j = start, t = row; j < end; j += 4, t += 4) {
      a += table[t] * x[j];
      b += table[t + 1] * x[j + 1];
      c += table[t + 2] * x[j + 2];
      d += table[t + 3] * x[j + 3];
    }
    results[column][i] = a + b + (c + d);
  }

  /** Writes output `i` of each column, at a place between two phases. */
  #interpolate(start, place, results, i) {
    const below = Math.floor(place);
    const share = place - below;
    this.#filter(start, below, results, i);
    const before = results.map((result) => result[i]);
    this.#filter(start, below + 1, results, i);
    results.forEach((result, c) => (result[i] = (1 - share) * before[c] + share * result[i]));
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
