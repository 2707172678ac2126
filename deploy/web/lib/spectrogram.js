/**
 * Short-time Fourier transform of one window of a recording, what a model sees of it, and masks applied to it.
 *
 * The same definitions as `vae_bss_tf/audio/spectrogram.py`: a periodic Hann window, frames centred on multiples of the
 * hop, the window padded with zeros on both sides.
 */

import { RealFft } from "./fft.js";

const SILENCE = 1e-8;

/**
 * @typedef {object} AudioSettings `preset.audio` of a manifest.
 * @property {number} sample_rate Rate that the model works at, Hz.
 * @property {number} n_fft Length of the transform.
 * @property {number} hop_length Samples from one frame to the next.
 * @property {number} num_frames Frames of one window.
 * @property {number} num_bins Frequency bins that the model sees.
 * @property {number} frame_pooling Neighbouring frames averaged into one.
 * @property {number} power Exponent that compresses the magnitudes.
 */

/** The transforms of one set of settings. Spectra are flat arrays, `[num_frames][n_fft / 2 + 1]`. */
export class Spectrogram {
  /** @param {AudioSettings} audio */
  constructor(audio) {
    this.audio = audio;
    this.numSamples = audio.num_frames * audio.hop_length;
    this.numFrequencies = audio.n_fft / 2 + 1;
    this.size = audio.num_frames * this.numFrequencies;
    this.featureFrames = audio.num_frames / audio.frame_pooling;
    this.featureSize = this.featureFrames * audio.num_bins;
    this.fft = new RealFft(audio.n_fft);
    this.frame = new Float64Array(audio.n_fft);
    this.window = Float64Array.from(
      { length: audio.n_fft },
      (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / audio.n_fft),
    );
    this.padded = new Float64Array((audio.num_frames - 1) * audio.hop_length + audio.n_fft);
    const total = new Float64Array(this.padded.length);
    for (let frame = 0; frame < audio.num_frames; frame++) {
      for (let i = 0; i < audio.n_fft; i++) total[frame * audio.hop_length + i] += this.window[i] ** 2;
    }
    const before = audio.n_fft / 2;
    this.inverseSum = Float64Array.from({ length: this.numSamples }, (_, i) => 1 / total[before + i]);
  }

  /**
   * @param {Float32Array} samples One channel of a window, `numSamples` long.
   * @returns {{ re: Float32Array, im: Float32Array }} Its spectrum.
   */
  stft(samples) {
    const { audio, frame, window, padded, numFrequencies } = this;
    padded.fill(0);
    padded.set(samples.subarray(0, padded.length - audio.n_fft / 2), audio.n_fft / 2);
    const re = new Float32Array(this.size);
    const im = new Float32Array(this.size);
    for (let f = 0; f < audio.num_frames; f++) {
      for (let i = 0; i < audio.n_fft; i++) frame[i] = padded[f * audio.hop_length + i] * window[i];
      this.fft.forward(frame, re, im, f * numFrequencies);
    }
    return { re, im };
  }

  /**
   * @param {ArrayLike<number>} re Real part of a spectrum.
   * @param {ArrayLike<number>} im Imaginary part.
   * @returns {Float32Array} The samples, `numSamples` long; the inverse of `stft`.
   */
  istft(re, im) {
    const { audio, frame, window, padded, numFrequencies, inverseSum } = this;
    padded.fill(0);
    for (let f = 0; f < audio.num_frames; f++) {
      const at = f * numFrequencies;
      this.fft.inverse(re.subarray(at, at + numFrequencies), im.subarray(at, at + numFrequencies), frame);
      for (let i = 0; i < audio.n_fft; i++) padded[f * audio.hop_length + i] += frame[i] * window[i];
    }
    const samples = new Float32Array(this.numSamples);
    for (let i = 0; i < samples.length; i++) samples[i] = padded[audio.n_fft / 2 + i] * inverseSum[i];
    return samples;
  }

  /**
   * What a model sees: magnitudes averaged over `frame_pooling` frames, scaled to a largest value of 1, compressed.
   *
   * @param {Float32Array} re Real part of a mixture's spectrum.
   * @param {Float32Array} im Imaginary part.
   * @returns {Float32Array} `[num_frames / frame_pooling][num_bins]`, in [0, 1].
   */
  features(re, im) {
    const { frame_pooling: pooling, num_bins: bins, power } = this.audio;
    const features = new Float32Array(this.featureSize);
    let largest = 0;
    for (let f = 0; f < this.featureFrames; f++) {
      for (let bin = 0; bin < bins; bin++) {
        let sum = 0;
        for (let p = 0; p < pooling; p++) {
          const i = (f * pooling + p) * this.numFrequencies + bin;
          sum += Math.sqrt(re[i] * re[i] + im[i] * im[i]);
        }
        features[f * bins + bin] = sum / pooling;
        largest = Math.max(largest, features[f * bins + bin]);
      }
    }
    const scale = Math.max(largest, SILENCE);
    return features.map((value) => Math.min(1, (value / scale) ** power));
  }

  /**
   * Ratio masks from a model's sources: each magnitude over the sum of all. Pooled frames are repeated, and bins that the
   * model does not see take the mask of the last one that it does.
   *
   * @param {Float32Array} sources `[num_sources][num_frames / frame_pooling][num_bins]`, compressed.
   * @param {number} numSources
   * @returns {Float32Array[]} One mask for each source, as a spectrum in shape.
   */
  masks(sources, numSources) {
    const { frame_pooling: pooling, num_bins: bins, power } = this.audio;
    const masks = Array.from({ length: numSources }, () => new Float32Array(this.size));
    const magnitudes = new Float64Array(numSources);
    for (let f = 0; f < this.featureFrames; f++) {
      for (let frequency = 0; frequency < this.numFrequencies; frequency++) {
        const bin = Math.min(frequency, bins - 1);
        let total = 0;
        for (let k = 0; k < numSources; k++) {
          const value = Math.max(0, sources[k * this.featureSize + f * bins + bin]);
          total += magnitudes[k] = value ** (1 / power) + SILENCE;
        }
        for (let k = 0; k < numSources; k++) {
          for (let p = 0; p < pooling; p++) {
            masks[k][(f * pooling + p) * this.numFrequencies + frequency] = magnitudes[k] / total;
          }
        }
      }
    }
    return masks;
  }

  /**
   * @param {{ re: Float32Array, im: Float32Array }} spectrum Of a mixture.
   * @param {Float32Array} mask Of one source.
   * @returns {Float32Array} The source's samples.
   */
  masked(spectrum, mask) {
    const [re, im] = [new Float32Array(this.size), new Float32Array(this.size)];
    for (let i = 0; i < this.size; i++) {
      re[i] = spectrum.re[i] * mask[i];
      im[i] = spectrum.im[i] * mask[i];
    }
    return this.istft(re, im);
  }
}
