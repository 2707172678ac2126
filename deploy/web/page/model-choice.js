// The choice of a model: one of the page's, or two files of a person's own.

import { element } from "./draw.js";

const OWN = "own";

export class ModelChoice {
  #models;
  #select;
  #hint;
  #button;
  #id;
  #own = null; // the two files that a person gave
  #count = 0; // of those given so far

  /**
   * @param {HTMLElement} place Receives the choice; its `id` begins those of what is in it.
   * @param {object[]} models What `site.json` lists of them.
   * @param {{ changed: () => void, given: (files: File[]) => void }} handlers Called when another model is chosen that is
   *   there, and with the files of a person's own.
   */
  constructor(place, models, { changed, given }) {
    this.#models = models;
    this.#id = place.id;
    const options = models.map(({ name, title }) => element("option", { value: name, textContent: `${title} (${name})` }));
    options.push(element("option", { value: OWN, textContent: "A model of my own…" }));
    this.#select = element("select", { id: `${place.id}-name` }, ...options);
    const file = element("code", { textContent: ".onnx" });
    const manifest = element("code", { textContent: "manifest.json" });
    this.#hint = element("p", { className: "hint" }, "Choose both files of one export folder: an ", file, " file and ", manifest, ".");
    this.#button = element("button", { textContent: "Choose model files" });
    const input = element("input", { type: "file", id: `${place.id}-files`, accept: ".onnx,.json", multiple: true, hidden: true });
    input.setAttribute("aria-label", "Model files");
    const label = element("label", { htmlFor: this.#select.id, textContent: "Model" });
    place.append(element("div", { className: "field" }, label, this.#select), this.#hint, this.#button, input);
    this.#button.onclick = () => input.click();
    input.onchange = () => {
      given([...input.files]);
      input.value = "";
    };
    this.#select.onchange = () => {
      this.#show();
      if (this.chosen) changed();
    };
    this.#show();
  }

  /** The chosen model, by a key of its own: with its `folder` and `file`, or with `own`, two files; null without any. */
  get chosen() {
    if (this.#select.value !== OWN) {
      const model = this.#models.find(({ name }) => name === this.#select.value);
      return { ...model, key: model.name, title: `${model.title} (${model.name})` };
    }
    return this.#own && { key: `${this.#id}-${OWN}${this.#count}`, title: this.#own.model.name, own: this.#own };
  }

  /** Chooses a model of a person's own. @param {{ manifest: File, model: File }} files */
  choose(files) {
    this.#own = files;
    this.#count++;
    this.#select.value = OWN;
    this.#show();
  }

  /** Forgets the files of a person's own, which were of no use. */
  forget() {
    this.#own = null;
  }

  /** Whether nothing can be chosen. */
  set disabled(isDisabled) {
    this.#select.disabled = this.#button.disabled = isDisabled;
  }

  #show() {
    this.#hint.hidden = this.#button.hidden = this.#select.value !== OWN;
  }
}

/**
 * Finds the two files of a model among files that a person gave.
 *
 * @param {File[]} files
 * @returns {{ manifest?: File, model?: File } | null} Null where neither is among them.
 */
export function modelFiles(files) {
  const manifest = files.find(({ name }) => name.endsWith(".json"));
  const model = files.find(({ name }) => /\.(onnx|tflite)$/.test(name));
  return manifest || model ? { manifest, model } : null;
}

/**
 * Tells what a model separates.
 *
 * @param {File} manifest
 * @returns {Promise<"sound" | "image" | "live" | null>} Null where the file does not say.
 */
export async function kindOf(manifest) {
  try {
    const { kind, preset } = JSON.parse(await manifest.text());
    if (kind === "live") return "live";
    return preset.audio ? "sound" : "image";
  } catch {
    return null;
  }
}
