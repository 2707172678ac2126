const WINDOWS = 8; // how long samples wait in vain before they are left out, in times of the limit

/**
 * Between a sound card and a live separator that runs elsewhere: collects blocks on one side, and plays what comes back on
 * the other. It is used in an AudioWorklet, where nothing may wait.
 */
export class LiveBuffer {
  #block;
  #filled = 0; // samples of the block
  #sent = 0; // samples that are with the separator
  #rings; // one for each source
  #read = 0;
  #started = false;
  #dry = false; // whether the last samples that were asked for were not all there
  #least = Infinity; // samples that waited at least, of late
  #pulled = 0; // samples since then

  /**
   * @param {object} settings
   * @param {number} settings.blockLength Samples of a block.
   * @param {number} settings.numSources
   * @param {number} settings.margin Samples of silence before the first block, which bridge blocks that come late.
   * @param {number} settings.limit The most samples that wait: with the separator, and to be played. The oldest are left out.
   */
  constructor({ blockLength, numSources, margin, limit }) {
    this.margin = margin;
    this.limit = Math.max(limit, margin + 2 * blockLength);
    this.underRuns = 0;
    this.queued = 0; // samples that wait to be played
    this.#block = new Float32Array(blockLength);
    this.#rings = Array.from({ length: numSources }, () => new Float32Array(this.limit));
  }

  /** Samples by which what is played is behind what came in, beside the separator's own block. */
  get delay() {
    return this.#filled + this.#sent + this.queued;
  }

  /**
   * Takes samples.
   *
   * @param {Float32Array} samples
   * @param {(block: Float32Array) => void} send Called with each full block, which is the receiver's own.
   */
  push(samples, send) {
    const size = this.#block.length;
    for (let at = 0; at < samples.length; ) {
      const part = samples.subarray(at, at + size - this.#filled);
      this.#block.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
      if (this.#filled < size) return;
      this.#filled = 0;
      if (this.#sent + size > this.limit) continue;
      this.#sent += size;
      send(this.#block.slice());
    }
  }

  /** Takes a separated block. @param {Float32Array[]} sources */
  receive(sources) {
    const { length } = sources[0];
    this.#sent -= length;
    if (!this.#started) {
      this.#started = true;
      this.queued = this.margin; // the rings hold zeros
    }
    if (this.queued + length > this.limit) this.#skip(this.queued + length - this.limit);
    const start = this.#read + this.queued;
    sources.forEach((signal, k) => {
      for (let i = 0; i < length; i++) this.#rings[k][(start + i) % this.limit] = signal[i];
    });
    this.queued += length;
  }

  /**
   * Gives the next samples, silence where there are none, and counts each stretch of such silence.
   *
   * @param {Float32Array[]} outputs Receive each source's samples.
   */
  pull(outputs) {
    const { length } = outputs[0];
    const count = Math.min(length, this.queued);
    outputs.forEach((output, k) => {
      for (let i = 0; i < count; i++) output[i] = this.#rings[k][(this.#read + i) % this.limit];
      output.fill(0, count);
    });
    this.#skip(count);
    const dry = this.#started && count < length;
    if (dry && !this.#dry) this.underRuns++;
    this.#dry = dry;
    this.#shorten(length);
  }

  /** Leaves out what waited in vain, so that a computer that was busy for a moment is not late ever after. */
  #shorten(length) {
    this.#least = Math.min(this.#least, this.queued);
    this.#pulled += length;
    if (this.#pulled < WINDOWS * this.limit) return;
    if (this.#least > this.margin) this.#skip(this.#least - this.margin);
    this.#least = Infinity;
    this.#pulled = 0;
  }

  #skip(count) {
    this.#read = (this.#read + count) % this.limit;
    this.queued -= count;
  }
}
