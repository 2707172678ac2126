// Starts the page: its tabs, one worker for recordings and digits, and what is dropped on it.

import { Client } from "./client.js";
import { startDigits } from "./digits.js";
import { startLive } from "./live.js";
import { kindOf, modelFiles } from "./model-choice.js";
import { startSound } from "./sound.js";

const tabs = [...document.querySelectorAll("[role=tab]")];

function select(chosen) {
  dispatchEvent(new CustomEvent("tab", { detail: chosen.id }));
  for (const tab of tabs) {
    tab.setAttribute("aria-selected", String(tab === chosen));
    tab.tabIndex = tab === chosen ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
  }
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const next = { ArrowLeft: i - 1, ArrowRight: i + 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    const chosen = tabs[(next + tabs.length) % tabs.length];
    select(chosen);
    chosen.focus();
  });
}

/** Starts the tabs, each of which takes models of its kind. */
function start(site) {
  const client = new Client();
  const kinds = { "tab-sound": "sound", "tab-digits": "image", "tab-live": "live" };
  const panels = {
    sound: startSound(client, site, open),
    image: startDigits(client, site, open),
    live: startLive(site, open),
  };

  /** Opens a recording, or a model in the tab of its kind. @param {File[]} files */
  async function open(files) {
    if (files.length === 0) return;
    const model = modelFiles(files);
    const tabOf = (kind) => tabs.find(({ id }) => kinds[id] === kind);
    const shown = kinds[tabs.find((tab) => tab.getAttribute("aria-selected") === "true").id];
    const kind = model ? ((model.manifest && (await kindOf(model.manifest))) ?? shown) : "sound";
    if (kind !== shown) select(tabOf(kind));
    if (!model) panels.sound.open(files[0]);
    else if (model.manifest && model.model && files.length === 2) panels[kind].choose(model);
    else panels[kind].refuse("Give the two files of one model together: its .onnx file and manifest.json.");
  }

  for (const type of ["dragover", "dragleave", "drop"]) {
    addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.toggle("over", type === "dragover");
    });
  }
  addEventListener("drop", ({ dataTransfer }) => open([...dataTransfer.files]));
}

const site = await fetch("site.json").then((response) => response.json()).catch(() => null);
if (site) start(site);
else document.getElementById("message").textContent = "The page's files are incomplete: npm run build puts them together.";
