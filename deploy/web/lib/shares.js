/** What a model cannot hear, above half its rate, is shared among the sources in proportion to their energy. */

export const SILENCE = 1e-5; // of full scale: -100 dB
const SHARE_SAMPLES = 512; // at the model's rate: how often the sources' shares are taken

/** The sources' shares of the energy as time goes on, from their waveforms at the model's rate. */
export class Shares {
  constructor(numSources, sampleRate) {
    this.numSources = numSources;
    this.sampleRate = sampleRate;
    this.last = new Float64Array(numSources).fill(1 / numSources);
    this.position = 0;
    this.times = [];
    this.shares = [];
  }

  /** Takes note of the energy of a block, `[source][channel]`. */
  observe(block) {
    const length = block[0][0].length;
    for (let start = 0; start < length; start += SHARE_SAMPLES) {
      const end = Math.min(length, start + SHARE_SAMPLES);
      const energy = block.map((channels) =>
        channels.reduce((sum, samples) => {
          for (let i = start; i < end; i++) sum += samples[i] * samples[i];
          return sum;
        }, 0),
      );
      const total = energy.reduce((a, b) => a + b);
      if (total > SILENCE ** 2 * (end - start)) this.last = Float64Array.from(energy, (e) => e / total);
      this.position += end - start;
      this.times.push(this.position / this.sampleRate);
      this.shares.push(this.last);
    }
  }

  /**
   * Shares from the sample `first` on, at a sample rate.
   *
   * @returns {Float32Array[]} One array of `count` shares for each source; they sum to 1.
   */
  at(first, count, sampleRate) {
    const { times, shares } = this;
    let known = 0; // the last time that is not after the sample
    while (times.length > 2 && times[1] <= first / sampleRate) {
      times.shift();
      shares.shift();
    }
    const result = Array.from({ length: this.numSources }, () => new Float32Array(count));
    for (let i = 0; i < count; i++) {
      const time = (first + i) / sampleRate;
      while (known + 1 < times.length && times[known + 1] <= time) known++;
      const next = Math.min(known + 1, times.length - 1);
      const way = next > known ? Math.min(1, Math.max(0, (time - times[known]) / (times[next] - times[known]))) : 0;
      for (let k = 0; k < this.numSources; k++) {
        result[k][i] = shares[known][k] + way * (shares[next][k] - shares[known][k]);
      }
    }
    return result;
  }
}
