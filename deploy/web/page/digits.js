// The tab of digits: two drawings are added, and the model takes them apart.

import { UserError } from "../lib/index.js";
import { centred } from "./centre.js";
import { drawGrey, element } from "./draw.js";
import { ModelChoice } from "./model-choice.js";
import { DIGITS, PAD_SIZE } from "./ready-made.js";

const FIRST = [4, 3]; // shown at first
const BRUSH = 24; // pixels of the pad

const at = (id) => document.getElementById(id);

function tell(text, isError = false) {
  at("digits-message").textContent = text;
  at("digits-message").classList.toggle("error", isError);
}

/**
 * Starts the tab.
 *
 * @param {import("./client.js").Client} client
 * @param {{ models: object[] }} site What `site.json` lists.
 * @param {(files: File[]) => void} given Called with the files that a person chooses.
 * @returns {{ choose: (files: object) => void, refuse: (reason: string) => void }} Takes a model; says why not.
 */
export function startDigits(client, site, given) {
  const pads = [...document.querySelectorAll("[data-pad]")].map((place, i) => new Pad(place, FIRST[i], separate));
  const models = new ModelChoice(at("digits-model"), site.models.filter(({ kind }) => kind === "image"), { changed: separate, given });
  let wanted = 0; // the newest change; older answers are dropped

  async function separate() {
    const mine = ++wanted;
    try {
      const model = models.chosen;
      if (!model) throw new UserError("Choose your model's two files first, or one of the page's models.");
      const { inputShape, sampleRate } = await client.call("load", model);
      const [height, width, depth = 1] = inputShape;
      if (sampleRate !== null || inputShape.length < 2 || depth !== 1) {
        throw new UserError(`${model.title} takes no grey pictures; give a model of those, such as saved_models/mnist.`);
      }
      const drawings = pads.map((pad) => pad.values(width, height));
      const mixture = drawings[0].map((value, i) => (value + drawings[1][i]) / 2);
      if (mine !== wanted) return;
      const sources = await client.call("separatePicture", { key: model.key, mixture });
      if (mine !== wanted) return;
      drawGrey(at("digits-mixture"), mixture, width, height);
      show(inOrder(sources, drawings), width, height);
      tell(`Separated into ${sources.length} digits.`);
    } catch (error) {
      if (mine !== wanted) return;
      models.forget();
      const expected = error instanceof UserError || error.kind === "user";
      tell(expected ? error.message : `The digits could not be separated (${error.message}).`, true);
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

  let isShown = false;
  addEventListener("tab", ({ detail }) => {
    if (detail !== "tab-digits" || isShown) return;
    isShown = true;
    separate();
  });

  function choose(files) {
    models.choose(files);
    separate();
  }
  return { choose, refuse: (reason) => tell(reason, true) };
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
