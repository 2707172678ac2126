/**
 * Discrete Fourier transforms of real signals, of any even length.
 *
 * Powers of two take the radix-2 algorithm of Cooley and Tukey, other lengths the one of Bluestein. A transform of N real
 * numbers is one of N / 2 complex numbers. Everything is computed in float64.
 */

/** Complex transform in place, of one length. */
class ComplexFft {
  /** @param {number} size Length of the transform, at least 1. */
  constructor(size) {
    this.size = size;
    const isPower = (size & (size - 1)) === 0;
    this.bluestein = isPower ? null : makeBluestein(size);
    if (!isPower) return;
    this.cos = new Float64Array(size / 2 || 1);
    this.sin = new Float64Array(size / 2 || 1);
    for (let i = 0; i < size / 2; i++) {
      this.cos[i] = Math.cos((2 * Math.PI * i) / size);
      this.sin[i] = Math.sin((2 * Math.PI * i) / size);
    }
    this.reversed = new Uint32Array(size);
    for (let i = 1; i < size; i++) this.reversed[i] = (this.reversed[i >> 1] >> 1) | (i & 1 ? size >> 1 : 0);
  }

  /** Replaces `re + i im` by its transform, with exponent -2 pi i; neither direction is scaled. */
  transform(re, im) {
    if (this.bluestein) return this.bluestein(re, im);
    const { size, cos, sin, reversed } = this;
    for (let i = 0; i < size; i++) {
      const j = reversed[i];
      if (j > i) {
        [re[i], re[j]] = [re[j], re[i]];
        [im[i], im[j]] = [im[j], im[i]];
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let k = 0, a = start, t = 0; k < half; k++, a++, t += stride) {
          const b = a + half;
          const xr = re[b] * cos[t] + im[b] * sin[t];
          const xi = im[b] * cos[t] - re[b] * sin[t];
          re[b] = re[a] - xr;
          im[b] = im[a] - xi;
          re[a] += xr;
          im[a] += xi;
        }
      }
    }
  }
}

function makeBluestein(size) {
  let padded = 1;
  while (padded < 2 * size - 1) padded *= 2;
  const fft = new ComplexFft(padded);
  const chirpRe = new Float64Array(size);
  const chirpIm = new Float64Array(size);
  const filterRe = new Float64Array(padded);
  const filterIm = new Float64Array(padded);
  for (let i = 0; i < size; i++) {
    const angle = (Math.PI * ((i * i) % (2 * size))) / size;
    chirpRe[i] = Math.cos(angle);
    chirpIm[i] = -Math.sin(angle);
    filterRe[i] = filterRe[(padded - i) % padded] = chirpRe[i];
    filterIm[i] = filterIm[(padded - i) % padded] = -chirpIm[i];
  }
  fft.transform(filterRe, filterIm);
  return (re, im) => {
    const aRe = new Float64Array(padded);
    const aIm = new Float64Array(padded);
    for (let i = 0; i < size; i++) {
      aRe[i] = re[i] * chirpRe[i] - im[i] * chirpIm[i];
      aIm[i] = re[i] * chirpIm[i] + im[i] * chirpRe[i];
    }
    fft.transform(aRe, aIm);
    for (let i = 0; i < padded; i++) {
      const product = aRe[i] * filterRe[i] - aIm[i] * filterIm[i];
      // The inverse transform is the transform of the conjugate, conjugated.
      aIm[i] = -(aRe[i] * filterIm[i] + aIm[i] * filterRe[i]);
      aRe[i] = product;
    }
    fft.transform(aRe, aIm);
    for (let i = 0; i < size; i++) {
      const xr = aRe[i] / padded;
      const xi = -aIm[i] / padded;
      re[i] = xr * chirpRe[i] - xi * chirpIm[i];
      im[i] = xr * chirpIm[i] + xi * chirpRe[i];
    }
  };
}

/** Transform of `size` real numbers to `size / 2 + 1` complex ones, and back. */
export class RealFft {
  /** @param {number} size Length of the signal; even. */
  constructor(size) {
    this.size = size;
    this.half = size / 2;
    this.fft = new ComplexFft(this.half);
    this.re = new Float64Array(this.half);
    this.im = new Float64Array(this.half);
    this.cos = new Float64Array(this.half + 1);
    this.sin = new Float64Array(this.half + 1);
    for (let k = 0; k <= this.half; k++) {
      this.cos[k] = Math.cos((2 * Math.PI * k) / size);
      this.sin[k] = Math.sin((2 * Math.PI * k) / size);
    }
  }

  /**
   * @param {ArrayLike<number>} signal `size` numbers.
   * @param {Float64Array | Float32Array} outRe Receives the real part, `size / 2 + 1` numbers.
   * @param {Float64Array | Float32Array} outIm Receives the imaginary part.
   * @param {number} [at] Where in `outRe` and `outIm` to write.
   */
  forward(signal, outRe, outIm, at = 0) {
    const { half, re, im, cos, sin } = this;
    for (let i = 0; i < half; i++) {
      re[i] = signal[2 * i];
      im[i] = signal[2 * i + 1];
    }
    this.fft.transform(re, im);
    for (let k = 0; k <= half; k++) {
      const a = k % half;
      const b = (half - k) % half;
      const evenRe = (re[a] + re[b]) / 2;
      const evenIm = (im[a] - im[b]) / 2;
      const oddRe = (im[a] + im[b]) / 2;
      const oddIm = (re[b] - re[a]) / 2;
      outRe[at + k] = evenRe + cos[k] * oddRe + sin[k] * oddIm;
      outIm[at + k] = evenIm + cos[k] * oddIm - sin[k] * oddRe;
    }
  }

  /**
   * @param {ArrayLike<number>} inRe Real part, `size / 2 + 1` numbers.
   * @param {ArrayLike<number>} inIm Imaginary part; that of the first and last is taken for 0.
   * @param {Float64Array} signal Receives `size` numbers.
   */
  inverse(inRe, inIm, signal) {
    const { half, re, im, cos, sin } = this;
    for (let k = 0; k < half; k++) {
      const imA = k === 0 ? 0 : inIm[k];
      const imB = k === 0 ? 0 : inIm[half - k];
      const evenRe = inRe[k] + inRe[half - k];
      const evenIm = imA - imB;
      const differenceRe = inRe[k] - inRe[half - k];
      const differenceIm = imA + imB;
      const oddRe = cos[k] * differenceRe - sin[k] * differenceIm;
      const oddIm = cos[k] * differenceIm + sin[k] * differenceRe;
      re[k] = evenRe - oddIm;
      im[k] = -(evenIm + oddRe); // conjugated: the transform then is the inverse one
    }
    this.fft.transform(re, im);
    for (let i = 0; i < half; i++) {
      signal[2 * i] = re[i] / this.size;
      signal[2 * i + 1] = -im[i] / this.size;
    }
  }
}
