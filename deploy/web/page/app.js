// Starts the page: its tabs, and one worker for both of them.

import { Client } from "./client.js";
import { startDigits } from "./digits.js";
import { startLive } from "./live.js";
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
  tab.addEventListener("keydown", ({ key }) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (!step) return;
    const next = tabs[(i + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
}

const site = await fetch("site.json").then((response) => response.json()).catch(() => null);
if (site) {
  const client = new Client();
  const showDigits = startDigits(client, site.models.find(({ kind }) => kind === "image"));
  for (const type of ["click", "focus"]) document.getElementById("tab-digits").addEventListener(type, showDigits);
  startLive(site);
  startSound(client, site);
} else {
  document.getElementById("message").textContent = "The page's files are incomplete: npm run build puts them together.";
}
