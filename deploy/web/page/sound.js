// The tab of recordings: what to separate, how it goes on, and what came of it.

import { UserError } from "../lib/index.js";
import { TaskError } from "./client.js";
import { decoded } from "./decode.js";
import { clock } from "./draw.js";
import { ModelChoice } from "./model-choice.js";
import { Recorder } from "./recorder.js";
import { Result } from "./result.js";

const MAX_RECORDED_SECONDS = 300;

const at = (id) => document.getElementById(id);

/** Shows a message; an empty one hides it. */
function tell(text, isError = false) {
  at("message").textContent = text;
  at("message").classList.toggle("error", isError);
}

function tellError(error) {
  if (error.kind === "cancelled") return tell("Cancelled. Open a recording to begin again.");
  const expected = error instanceof UserError || error.kind === "user";
  return tell(expected ? error.message : `Something went wrong (${error.message}); reload the page.`, true);
}

/**
 * Starts the tab.
 *
 * @param {import("./client.js").Client} client
 * @param {{ models: object[], sample: string | null }} site What `site.json` lists.
 * @param {(files: File[]) => void} given Called with the files that a person chooses.
 * @returns {{ open: (file: File) => void, choose: (files: object) => void, refuse: (reason: string) => void }} Opens a
 *   recording; takes a model; says why not.
 */
export function startSound(client, site, given) {
  const place = at("sound-model");
  const models = new ModelChoice(place, site.models.filter(({ kind }) => kind === "sound"), { changed: again, given });
  let current = null; // the recording that is separated or shown
  let result = null;
  let recorder = null;
  let isWaiting = false; // for the microphone
  let cancelled = false; // before the separation has begun

  tell("");
  at("use-sample").hidden = !site.sample;

  function busy(isBusy) {
    at("working").hidden = !isBusy;
    for (const id of ["open", "use-sample", "record", "download-mix"]) at(id).disabled = isBusy;
    models.disabled = isBusy;
    at("drop").setAttribute("aria-busy", String(isBusy));
  }

  /** Whether something goes on that another recording or model would disturb; says so. */
  function isBusy() {
    if (at("working").hidden && !recorder && !isWaiting) return false;
    tell("Wait until this recording is separated, or cancel it first.", true);
    return true;
  }

  function progress(text, share = null) {
    at("progress-label").textContent = text;
    if (share === null) at("progress").removeAttribute("value");
    else at("progress").value = share;
  }

  async function loadModel() {
    const model = models.chosen;
    if (!model) throw new UserError("Choose your model's two files first, or one of the page's models.");
    await client.call("load", model);
    return model;
  }

  /** Separates a recording as soon as it is there, a promise. */
  async function separate(coming) {
    tell("");
    cancelled = false;
    const focused = document.activeElement;
    const before = current;
    let next = "open"; // has the focus afterwards
    busy(true);
    at("cancel").focus({ preventScroll: true });
    try {
      progress("Reading the recording");
      current = await coming;
      progress("Loading the model");
      const { key, title } = await loadModel();
      if (cancelled) throw new TaskError({ kind: "cancelled", message: "" });
      const report = (share) => progress(`Separating: ${Math.round(100 * share)} %`, share);
      const separated = await client.call("separate", { key, recording: current }, report).catch((error) => {
        if (error.kind !== "cancelled") current = before;
        throw error;
      });
      result?.close();
      result = await Result.show(separated, current, title);
      tell(`Done: ${separated.sources.length} sources in ${separated.seconds.toFixed(1)} s.`);
      next = "play";
    } catch (error) {
      tellError(error);
    }
    const isFree = [document.body, at("cancel")].includes(document.activeElement);
    busy(false);
    if (isFree) (place.contains(focused) ? focused : at(next)).focus({ preventScroll: true });
  }

  function again() {
    if (current && !isBusy()) separate(current);
  }

  async function choose(files) {
    if (isBusy()) return;
    models.choose(files);
    tell("");
    try {
      await loadModel();
      if (current) await separate(current);
      else tell(`${files.model.name} is ready; open a recording.`);
    } catch (error) {
      models.forget();
      tellError(error);
    }
  }

  /** Lets nothing else begin while the microphone is asked for or recorded. */
  function reserve(isReserved) {
    for (const id of ["open", "use-sample", "download-mix"]) at(id).disabled = isReserved;
    models.disabled = isReserved;
  }

  /** Shows whether the microphone is recorded. */
  function recording(isRecording) {
    at("record").textContent = isRecording ? "Stop and separate" : "Record";
    at("recorded").textContent = "";
    reserve(isRecording);
  }

  async function toggleRecording() {
    if (recorder) {
      const finished = recorder.finish();
      recorder = null;
      recording(false);
      return separate(finished);
    }
    if (isWaiting) return undefined;
    isWaiting = true;
    reserve(true);
    tell("Waiting for the microphone…");
    try {
      const ended = () => recorder && toggleRecording();
      const report = (seconds) => {
        if (!recorder) return;
        at("recorded").textContent = clock(seconds);
        if (seconds >= MAX_RECORDED_SECONDS) ended();
      };
      recorder = await Recorder.start(report, ended);
      recording(true);
      tell("Recording. It is separated when you stop.");
    } catch (error) {
      reserve(false);
      tellError(error);
    }
    isWaiting = false;
    return undefined;
  }

  async function downloadMix() {
    at("download-mix").disabled = true;
    tell("");
    try {
      const clipped = await result.downloadMix();
      if (clipped > 0) tell(`${clipped} samples of the mix exceeded full scale and were clipped; lower the gains and download it again.`);
    } catch (error) {
      tellError(error);
    } finally {
      at("download-mix").disabled = false;
    }
  }

  async function sample() {
    const response = await fetch(site.sample);
    if (!response.ok) throw new UserError("The sample is not there; copy the whole folder of the page to the server.");
    return { blob: await response.blob(), name: site.sample.split("/").at(-1) };
  }

  at("open").onclick = () => at("file").click();
  at("file").onchange = () => {
    given([...at("file").files]);
    at("file").value = "";
  };
  at("use-sample").onclick = () => isBusy() || separate(sample());
  at("record").onclick = toggleRecording;
  at("download-mix").onclick = downloadMix;
  at("cancel").onclick = () => {
    cancelled = true;
    client.cancel();
  };
  addEventListener("tab", ({ detail }) => detail === "tab-sound" || result?.pause());
  return { open: (file) => isBusy() || separate(decoded(file)), choose, refuse: (reason) => tell(reason, true) };
}
