// The slider of a source's gain.

import { element } from "./draw.js";

const LEAST_DB = -40; // the slider's left end, where a source is off
const MOST_DB = 12;

export class Gain {
  #slider;
  #shown = element("output");

  /**
   * @param {number} k The source, from 0.
   * @param {() => void} changed Called when a person has moved the slider.
   */
  constructor(k, changed) {
    this.#slider = element("input", { type: "range", min: LEAST_DB, max: MOST_DB, step: 1, value: 0 });
    this.#slider.setAttribute("aria-label", `Gain of source ${k + 1}`);
    this.#slider.oninput = () => {
      this.#show();
      changed();
    };
    this.place = element("label", {}, "Gain", this.#shown, this.#slider);
    this.#show();
  }

  /** The gain, a factor. */
  get factor() {
    const db = Number(this.#slider.value);
    return db <= LEAST_DB ? 0 : 10 ** (db / 20);
  }

  #show() {
    const text = this.factor === 0 ? "off" : `${this.#slider.value} dB`;
    this.#shown.textContent = text;
    this.#slider.setAttribute("aria-valuetext", text);
  }
}
