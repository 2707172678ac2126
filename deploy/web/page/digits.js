// The tab of digits: two drawings are added, and the model takes them apart.

import { centred } from "./centre.js";
import { drawGrey, element } from "./draw.js";
import { DIGITS, PAD_SIZE } from "./ready-made.js";

const FIRST = [4, 3]; // shown at first
const BRUSH = 24; // pixels of the pad

const at = (id) => document.getElementById(id);

/**
 * Prepares the tab.
 *
 * @param {import("./client.js").Client} client
 * @param {{ name: string, folder: string, file: string }} model What `site.json` lists.
 * @returns {() => void} To be called when the tab is shown; the first call loads the model.
 */
export function startDigits(client, model) {
  const pads = [...document.querySelectorAll("[data-pad]")].map((place, i) => new Pad(place, FIRST[i], separate));
  let loaded = null;
  let wanted = 0; // the newest change; older answers are dropped

  async function separate() {
    const mine = ++wanted;
    try {
      loaded ??= await client.call("load", { key: model.name, ...model });
      const [height, width] = loaded.inputShape;
      const drawings = pads.map((pad) => pad.values(width, height));
      const mixture = drawings[0].map((value, i) => (value + drawings[1][i]) / 2);
      if (mine !== wanted) return;
      const sources = await client.call("separatePicture", { key: model.name, mixture });
      if (mine !== wanted) return;
      at("digits-message").textContent = "";
      drawGrey(at("digits-mixture"), mixture, width, height);
      show(inOrder(sources, drawings), width, height);
    } catch (error) {
      at("digits-message").textContent = `The digits could not be separated (${error.message}).`;
      at("digits-message").classList.add("error");
    }
  }

  function show(sources, width, height) {
    const figures = sources.map((source, k) => {
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Separated digit ${k + 1}`);
      drawGrey(
        canvas,
        source.map((value) => Math.min(1, 2 * value)), // they were added at half their brightness
        width,
        height,
      );
      return element("figure", { className: "card" }, canvas, element("figcaption", { textContent: `Source ${k + 1}` }));
    });
    at("digits-sources").replaceChildren(...figures);
  }

  return () => {
    if (!loaded) separate();
  };
}

/** The sources as the drawings stand, since a model gives them in any order. */
function inOrder(sources, drawings) {
  if (sources.length !== 2) return sources;
  const product = (source, drawing) => source.reduce((sum, value, i) => sum + value * drawing[i], 0);
  const [a, b] = sources;
  const straight = product(a, drawings[0]) + product(b, drawings[1]);
  const crossed = product(a, drawings[1]) + product(b, drawings[0]);
  return crossed > straight ? [b, a] : [a, b];
}

/** A canvas to draw on. */
class Pad {
  constructor(place, digit, changed) {
    this.canvas = place.querySelector("canvas");
    this.canvas.width = this.canvas.height = PAD_SIZE;
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    const choice = place.querySelector("select");
    choice.append(element("option", { value: "", textContent: "–" }));
    for (const number of DIGITS.keys()) choice.append(element("option", { value: number, textContent: number }));
    choice.value = digit;
    this.#showReadyMade(digit);
    choice.onchange = () => {
      this.#clear();
      if (choice.value !== "") this.#showReadyMade(Number(choice.value));
      changed();
    };
    place.querySelector("button").onclick = () => {
      choice.value = "";
      this.#clear();
      changed();
    };
    let last = null;
    const point = (event) => {
      const { left, top, width, height } = this.canvas.getBoundingClientRect();
      const { clientX, clientY } = event;
      return [((clientX - left) / width) * this.canvas.width, ((clientY - top) / height) * this.canvas.height];
    };
    this.canvas.onpointerdown = (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      if (choice.value !== "") this.#clear(); // a drawing takes the ready-made digit's place
      choice.value = "";
      last = point(event);
      this.#stroke(last, last);
    };
    this.canvas.onpointermove = (event) => {
      if (!last) return;
      const next = point(event);
      this.#stroke(last, next);
      last = next;
    };
    this.canvas.onpointerup = this.canvas.onpointercancel = () => {
      if (last) changed();
      last = null;
    };
  }

  /** What is on the pad, at the size and place that MNIST's digits have. */
  values(width, height) {
    const { width: padWidth, height: padHeight } = this.canvas;
    const { data } = this.context.getImageData(0, 0, padWidth, padHeight);
    const pixels = Float32Array.from({ length: padWidth * padHeight }, (_, i) => data[4 * i] / 255);
    return centred(pixels, padWidth, padHeight, width, height);
  }

  #clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  #showReadyMade(digit) {
    this.#clear();
    this.#draw(new Path2D(DIGITS[digit]));
  }

  #stroke(from, to) {
    const path = new Path2D();
    path.moveTo(...from);
    path.lineTo(...to);
    this.#draw(path);
  }

  #draw(path) {
    this.context.strokeStyle = "#fff";
    this.context.lineWidth = BRUSH;
    this.context.lineCap = this.context.lineJoin = "round";
    this.context.stroke(path);
  }
}
