// The meter of a source's level.

import { element } from "./draw.js";

export const SILENT_DB = -60; // the meter's left end

export class Meter {
  #bar = element("div");

  /** @param {string} name What it shows, for those who do not see it. */
  constructor(name) {
    this.place = element("div", { className: "meter" }, this.#bar);
    const attributes = { role: "meter", "aria-label": name, "aria-valuemin": SILENT_DB, "aria-valuemax": 0 };
    for (const [attribute, value] of Object.entries(attributes)) this.place.setAttribute(attribute, value);
    this.show(SILENT_DB);
  }

  /** @param {number} level In dB of full scale. */
  show(level) {
    const shown = Math.round(Math.max(SILENT_DB, Math.min(0, level)));
    this.#bar.style.width = `${100 * (1 - shown / SILENT_DB)}%`;
    this.place.setAttribute("aria-valuenow", shown);
    this.place.setAttribute("aria-valuetext", shown === SILENT_DB ? "silent" : `${shown} dB`);
  }
}
