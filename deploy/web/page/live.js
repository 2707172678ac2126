// The live tab: what to listen to, the gain and the level of each source, and how late it is.

import { describeLive, readLiveManifest, UserError } from "../lib/index.js";
import { element } from "./draw.js";
import { fetched } from "./files.js";
import { Gain } from "./gain.js";
import { LiveAudio, MARGIN_SECONDS } from "./live-audio.js";
import { Meter, SILENT_DB } from "./meter.js";
import { ModelChoice } from "./model-choice.js";
import { startWorker } from "./start-worker.js";

const MUTED_DB = -100; // even a quiet room is louder
const MUTED_MS = 3000; // of such silence, and the page says so

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
 * @param {(files: File[]) => void} given Called with the files that a person chooses.
 * @returns {{ choose: (files: object) => void, refuse: (reason: string) => void }} Takes a model; says why not.
 */
export function startLive(site, given) {
  const change = () => show().catch(tellError);
  const models = new ModelChoice(at("live-model"), site.models.filter(({ kind }) => kind === "live"), { changed: change, given });
  let shown = null; // the model of the rows: as listed, and what its manifest says
  let rows = [];
  let worker = null;
  let opening = null; // the sound of the current start
  let audio = null; // the same, once it is heard
  let number = 0; // of the current start; older ones end themselves

  at("live-sample").hidden = !site.sample;

  /** Shows a row for each source of the chosen model. */
  async function show() {
    const model = models.chosen;
    if (!model) throw new UserError("Choose your model's two files first, or one of the page's models.");
    if (shown?.model.key === model.key) return;
    const manifest = model.own ? await model.own.manifest.text() : await fetched(`${model.folder}/manifest.json`, "text");
    const live = describeLive(readLiveManifest(manifest));
    tell("");
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
    models.disabled = isRunning;
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
      underRuns === 0 ? "No under-runs." : `Under-runs, moments of silence because a block came late: ${underRuns}.`;
  }

  /** Shows the levels as time goes on, and that a microphone has nothing to show. */
  function draw(run, isFile, heardAt) {
    if (run !== number || !audio) return;
    audio.levels.forEach((level, k) => rows[k].meter.show(level));
    const now = performance.now();
    const last = audio.inputLevel > MUTED_DB ? now : heardAt;
    const words = now - last < MUTED_MS ? "Listening." : "The microphone is silent: it may be muted or switched off.";
    if (!isFile && at("live-message").textContent !== words) tell(words);
    requestAnimationFrame(() => draw(run, isFile, last));
  }

  /** Starts the worker, and remembers if it does not load, which it says once. */
  function startSeparator() {
    const started = startWorker("./live-worker.js");
    started.onerror = ({ message }) => {
      started.broken = message || "its files are incomplete";
    };
    return started;
  }

  async function start(file) {
    const run = ++number;
    running(true);
    tell(file ? "Loading the model…" : "Waiting for the microphone…");
    at("live-stop").focus();
    try {
      if (!shown || shown.model.key !== models.chosen?.key) await show();
      if (run !== number) return; // stopped meanwhile
      worker ??= startSeparator();
      const fail = (error) => {
        if (run !== number || !audio) return;
        stop();
        tellError(error);
      };
      opening = new LiveAudio(shown.live);
      await opening.start(shown.model, worker, file, { report, fail });
      if (run !== number) return;
      audio = opening;
      rows.forEach(({ gain }, k) => audio.setGain(k, gain.factor));
      if (file) tell("The sample is separated while it plays.");
      draw(run, Boolean(file), performance.now());
    } catch (error) {
      if (run !== number) return;
      stop();
      tellError(error);
      if (!(error instanceof UserError)) {
        worker?.terminate();
        worker = null;
      }
    }
  }

  function stop() {
    number++;
    opening?.close();
    opening = audio = null;
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
  addEventListener("tab", ({ detail }) => {
    if (detail === "tab-live") change();
    else if (!at("live-stop").hidden) stop();
  });

  async function choose(files) {
    if (!at("live-stop").hidden) stop();
    models.choose(files);
    try {
      await show();
      tell(`${files.model.name} is ready; start the microphone or play the sample.`);
    } catch (error) {
      models.forget();
      tellError(error);
    }
  }
  return { choose, refuse: (reason) => tell(reason, true) };
}
