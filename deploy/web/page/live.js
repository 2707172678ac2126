// The live tab: what to listen to, the gain and the level of each source, and how late it is.

import { describeLive, readLiveManifest, UserError } from "../lib/index.js";
import { element } from "./draw.js";
import { fetched } from "./files.js";
import { Gain } from "./gain.js";
import { LiveAudio, MARGIN_SECONDS } from "./live-audio.js";
import { Meter, SILENT_DB } from "./meter.js";

const at = (id) => document.getElementById(id);
const ms = (seconds) => `${Math.round(1000 * seconds)} ms`;

/** Shows a message; an empty one hides it. */
function tell(text, isError = false) {
  at("live-message").textContent = text;
  at("live-message").classList.toggle("error", isError);
}

function tellError(error) {
  tell(error instanceof UserError ? error.message : `Something went wrong (${error.message}); reload the page.`, true);
}

/**
 * Starts the tab.
 *
 * @param {{ models: object[], sample: string | null }} site What `site.json` lists.
 */
export function startLive(site) {
  const models = site.models.filter(({ kind }) => kind === "live");
  let shown = null; // the model of the rows: as listed, and what its manifest says
  let rows = [];
  let worker = null;
  let audio = null;
  let number = 0; // of the current start; older ones end themselves

  at("live-choice").hidden = models.length < 2;
  at("live-sample").hidden = !site.sample;
  for (const { name, title } of models) at("live-model").append(element("option", { value: name, textContent: `${title} (${name})` }));

  /** Shows a row for each source of the chosen model. */
  async function show() {
    if (models.length === 0) throw new UserError("This site has no live model; docs/web.md says how to add one.");
    const model = models.find(({ name }) => name === at("live-model").value);
    if (shown?.model === model) return;
    const live = describeLive(readLiveManifest(await fetched(`${model.folder}/manifest.json`, "text")));
    shown = { model, live };
    rows = Array.from({ length: live.numSources }, (_, k) => makeRow(k));
    at("live-sources").replaceChildren(...rows.map(({ place }) => place));
    at("live-latency").textContent =
      `Expect to hear each sound about ${ms(live.latency + MARGIN_SECONDS)} later (${ms(live.latency)} for the model, ` +
      `${ms(MARGIN_SECONDS)} in buffers), and what your browser and its devices add, Bluetooth most of all.`;
  }

  function makeRow(k) {
    const gain = new Gain(k, () => audio?.setGain(k, rows[k].gain.factor));
    const meter = new Meter(`Level of source ${k + 1}`);
    const heading = element("h3", { textContent: `Source ${k + 1}` });
    const controls = element("div", {}, heading, element("div", { className: "controls" }, gain.place));
    const level = element("div", { className: "level" }, "Level", meter.place);
    return { gain, meter, place: element("section", { className: "card row" }, controls, level) };
  }

  function running(isRunning) {
    for (const id of ["live-microphone", "live-sample"]) at(id).hidden = isRunning || (id === "live-sample" && !site.sample);
    at("live-stop").hidden = !isRunning;
    at("live-model").disabled = isRunning;
  }

  function report({ delay, underRuns }) {
    if (!audio) return;
    const { model, devices } = audio.latency;
    // Half of the model's latency is a block that fills, which the buffers count too.
    const block = shown.live.blockLength / shown.live.sampleRate;
    const buffers = Math.max(0, delay - block);
    at("live-latency").textContent =
      `You hear each sound about ${ms(model + buffers + devices)} later: ${ms(model)} for the model, ${ms(buffers)} in buffers, ` +
      `${ms(devices)} in the browser and the devices it knows of.`;
    at("live-under-runs").textContent =
      underRuns === 0 ? "No under-runs." : `${underRuns} under-runs: moments of silence, because a block came late.`;
  }

  function draw(run) {
    if (run !== number || !audio) return;
    audio.levels.forEach((level, k) => rows[k].meter.show(level));
    requestAnimationFrame(() => draw(run));
  }

  async function start(file) {
    const run = ++number;
    running(true);
    tell(file ? "Loading the model…" : "Waiting for the microphone…");
    at("live-stop").focus();
    try {
      await show();
      worker ??= new Worker(new URL("./live-worker.js", import.meta.url), { type: "module" });
      const fail = (error) => {
        if (run !== number || !audio) return;
        stop();
        tellError(error);
      };
      const started = await LiveAudio.start(shown.live, shown.model, worker, file, { report, fail });
      if (run !== number) return started.close(); // stopped meanwhile
      audio = started;
      rows.forEach(({ gain }, k) => audio.setGain(k, gain.factor));
      tell(file ? "The sample is separated while it plays." : "Listening.");
      draw(run);
    } catch (error) {
      if (run !== number) return undefined;
      stop();
      tellError(error);
      if (!(error instanceof UserError)) {
        worker?.terminate();
        worker = null;
      }
    }
    return undefined;
  }

  function stop() {
    number++;
    audio?.close();
    audio = null;
    for (const { meter } of rows) meter.show(SILENT_DB);
    tell("");
    running(false);
  }

  at("live-microphone").onclick = () => start(null);
  at("live-sample").onclick = () => start(site.sample);
  at("live-stop").onclick = () => {
    stop();
    at("live-microphone").focus();
  };
  at("live-model").onchange = () => show().catch(tellError);
  addEventListener("tab", ({ detail }) => {
    if (detail === "tab-live") show().catch(tellError);
    else if (!at("live-stop").hidden) stop();
  });
}
