// What came of a recording: pictures, a player, and a gain, mute and solo for each source.

import { encodeSamples, numClipped, wavHeader } from "../lib/index.js";
import { clock, drawSpectrogram, element } from "./draw.js";
import { Gain } from "./gain.js";
import { Player } from "./player.js";

const DOUBTFUL = 0.7; // share of windows of a sure order
const SEEK_STEPS = 1000;

const at = (id) => document.getElementById(id);

export class Result {
  #player;
  #separated;
  #stem;
  #rows = [];
  #frame = 0;

  /** Shows a separated recording in place of the one before. */
  static async show(separated, recording, modelTitle) {
    const result = new Result();
    result.#separated = separated;
    result.#stem = recording.name.replace(/\.[^.]+$/, "");
    result.#player = await Player.open(separated);
    const seconds = result.#player.seconds;
    at("result-title").textContent = recording.name;
    drawSpectrogram(at("mixture-row").querySelector(".picture"), separated.mixture, "the recording", seconds);
    result.#rows = separated.sources.map((source, k) => result.#makeRow(source, k, seconds));
    at("sources").replaceChildren(...result.#rows.map(({ place }) => place));
    at("note").textContent = note(separated, modelTitle);
    at("seek").max = SEEK_STEPS;
    at("seek").oninput = () => result.#seek((at("seek").value / SEEK_STEPS) * seconds);
    at("play").onclick = () => result.#toggle();
    for (const picture of document.querySelectorAll("#result .picture canvas")) {
      picture.onclick = ({ offsetX }) => result.#seek((offsetX / picture.clientWidth) * seconds);
    }
    at("result").hidden = false;
    result.#apply();
    result.#draw();
    return result;
  }

  pause() {
    if (this.#player.playing) this.#toggle();
  }

  close() {
    cancelAnimationFrame(this.#frame);
    this.#player.close();
    for (const { url } of this.#rows) URL.revokeObjectURL(url);
    at("result").hidden = true;
  }

  #makeRow({ file, picture, level }, k, seconds) {
    const name = `Source ${k + 1}`;
    const url = URL.createObjectURL(file);
    const gain = new Gain(k, () => this.#apply());
    const [solo, mute] = ["Solo", "Mute"].map((word) => {
      const button = element("button", { textContent: word });
      button.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-label", `${word} source ${k + 1}`);
      button.onclick = () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        this.#apply();
      };
      return button;
    });
    const download = element("a", { href: url, download: `${this.#stem}_source${k + 1}.wav`, textContent: "Download" });
    download.setAttribute("aria-label", `Download source ${k + 1}`);
    const place = element(
      "section",
      { className: "card row" },
      element(
        "div",
        {},
        element("h3", {}, name, element("span", { className: "hint", textContent: `level ${level.toFixed(1)} dB` })),
        element("div", { className: "controls" }, gain.place, solo, mute, download),
      ),
      element("div", { className: "picture" }),
    );
    drawSpectrogram(place.querySelector(".picture"), picture, name.toLowerCase(), seconds);
    return { place, gain, solo, mute, url };
  }

  /** The gain of each source as the sliders and buttons have it, a factor. */
  #factors() {
    const isOn = (button) => button.getAttribute("aria-pressed") === "true";
    const anySolo = this.#rows.some(({ solo }) => isOn(solo));
    return this.#rows.map(({ gain, solo, mute }) => (isOn(mute) || (anySolo && !isOn(solo)) ? 0 : gain.factor));
  }

  #apply() {
    this.#factors().forEach((factor, k) => {
      this.#rows[k].place.classList.toggle("silent", factor === 0);
      this.#player.setGain(k, factor);
    });
  }

  #toggle() {
    if (this.#player.playing) this.#player.pause();
    else this.#player.play();
    this.#draw();
  }

  #seek(seconds) {
    this.#player.seek(seconds);
    this.#draw();
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    const { position, seconds, playing } = this.#player;
    at("play").textContent = playing ? "Pause" : "Play";
    at("time").textContent = `${clock(position)} / ${clock(seconds)}`;
    at("seek").value = (SEEK_STEPS * position) / seconds;
    at("seek").setAttribute("aria-valuetext", `${clock(position)} of ${clock(seconds)}`);
    for (const line of document.querySelectorAll("#result .playhead")) line.style.left = `${(100 * position) / seconds}%`;
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  /**
   * Downloads the sources at their gains, added up.
   *
   * @returns {Promise<number>} How many samples were clipped.
   * @throws {import("../lib/index.js").UserError} The sources can no longer be read.
   */
  async downloadMix() {
    const { sampleRate, numChannels, numSamples, format } = this.#separated;
    const parts = [wavHeader(sampleRate, numChannels, numSamples, format)];
    let clipped = 0;
    for await (const block of this.#player.mixed(this.#factors())) {
      clipped += numClipped(block, format);
      parts.push(new Blob([encodeSamples(block, format)]));
    }
    const url = URL.createObjectURL(new Blob(parts, { type: "audio/wav" }));
    element("a", { href: url, download: `${this.#stem}_remix.wav` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    return clipped;
  }
}

function note({ sure, clipped }, modelTitle) {
  const parts = [`Model: ${modelTitle}. What it was not trained on separates badly; the sources always add up to the recording.`];
  if (sure !== null) parts.push(`Which source is which is sure in ${Math.round(100 * sure)} % of the windows.`);
  if (sure !== null && sure < DOUBTFUL) parts.push("Elsewhere the sources may change places: the model may not know such recordings.");
  if (clipped > 0) parts.push(`${clipped} samples exceeded full scale and were clipped; open a quieter recording.`);
  return parts.join(" ");
}
