// The tab of recordings: what to separate, how it goes on, and what came of it.

import { UserError } from "../lib/index.js";
import { TaskError } from "./client.js";
import { decoded } from "./decode.js";
import { clock, element } from "./draw.js";
import { record } from "./recorder.js";
import { Result } from "./result.js";

const OWN = "own";
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
 */
export function startSound(client, site) {
  const models = site.models.filter(({ kind }) => kind === "sound");
  let ownModel = null; // the two files that a person chose
  let ownNumber = 0;
  let current = null; // the recording that is separated or shown
  let result = null;
  let stopRecording = null;
  let cancelled = false; // before the separation has begun

  tell("");
  for (const { name, title } of models) at("model").append(element("option", { value: name, textContent: `${title} (${name})` }));
  at("model").append(element("option", { value: OWN, textContent: "A model of my own…" }));
  at("use-sample").hidden = !site.sample;

  function busy(isBusy) {
    at("working").hidden = !isBusy;
    for (const id of ["open", "use-sample", "record", "model", "choose-own"]) at(id).disabled = isBusy;
    at("drop").setAttribute("aria-busy", String(isBusy));
  }

  function report(share) {
    at("progress").value = share;
    at("progress-label").textContent = `Separating: ${Math.round(100 * share)} %`;
  }

  async function loadModel() {
    const chosen = at("model").value;
    if (chosen === OWN && !ownModel) throw new UserError("Choose your model's two files first, or one of the page's models.");
    const key = chosen === OWN ? `${OWN}${ownNumber}` : chosen;
    const listed = models.find(({ name }) => name === chosen);
    const model = await client.call("load", { key, ...(listed ?? { own: ownModel }) });
    if (model.sampleRate === null) throw new UserError("This is a model of pictures; give one of sound.");
    return { key, title: listed ? `${listed.title} (${chosen})` : ownModel.model.name };
  }

  async function separate(recording) {
    current = recording;
    tell("");
    cancelled = false;
    busy(true);
    at("progress").removeAttribute("value");
    at("progress-label").textContent = "Loading the model";
    try {
      const model = await loadModel();
      if (cancelled) throw new TaskError({ kind: "cancelled", message: "" });
      const separated = await client.call("separate", { key: model.key, recording }, report);
      result?.close();
      result = await Result.show(separated, recording, model.title);
      tell(`Done: ${separated.sources.length} sources in ${separated.seconds.toFixed(1)} s.`);
    } catch (error) {
      tellError(error);
    }
    busy(false);
    if (!at("result").hidden && result) at("play").focus({ preventScroll: true });
  }

  async function open(file) {
    try {
      await separate(await decoded(file));
    } catch (error) {
      tellError(error);
    }
  }

  function choose(files) {
    const list = [...files];
    const manifest = list.find(({ name }) => name.endsWith(".json"));
    const model = list.find(({ name }) => /\.(onnx|tflite)$/.test(name));
    if (!manifest && !model) return list[0] && open(list[0]);
    if (!manifest || !model || list.length > 2) {
      return tell("Give the two files of one model together: its .onnx file and manifest.json.", true);
    }
    ownModel = { manifest, model };
    ownNumber++;
    at("model").value = OWN;
    at("own").hidden = false;
    return loadModel()
      .then(() => (current ? separate(current) : tell(`${model.name} is ready; open a recording.`)))
      .catch((error) => {
        ownModel = null;
        tellError(error);
      });
  }

  async function toggleRecording() {
    if (stopRecording) {
      const stop = stopRecording;
      stopRecording = null;
      at("record").textContent = "Record";
      const recording = await stop();
      return separate({ ...recording, name: "The recording" });
    }
    try {
      tell("Waiting for the microphone…");
      stopRecording = await record((seconds) => {
        tell(`Recording: ${clock(seconds)}. It is separated when you stop.`);
        if (seconds >= MAX_RECORDED_SECONDS && stopRecording) toggleRecording();
      });
      at("record").textContent = "Stop and separate";
      for (const id of ["open", "use-sample", "model"]) at(id).disabled = true; // until it is separated
    } catch (error) {
      tellError(error);
    }
    return undefined;
  }

  at("open").onclick = () => at("file").click();
  at("file").onchange = () => {
    choose(at("file").files);
    at("file").value = "";
  };
  at("choose-own").onclick = () => at("own-files").click();
  at("own-files").onchange = () => {
    choose(at("own-files").files);
    at("own-files").value = "";
  };
  at("use-sample").onclick = async () => {
    const blob = await (await fetch(site.sample)).blob();
    await separate({ blob, name: site.sample.split("/").at(-1) });
  };
  at("record").onclick = toggleRecording;
  at("cancel").onclick = () => {
    cancelled = true;
    client.cancel();
  };
  at("model").onchange = () => {
    at("own").hidden = at("model").value !== OWN;
    if (current && (at("model").value !== OWN || ownModel)) separate(current);
  };
  for (const type of ["dragover", "dragleave", "drop"]) {
    addEventListener(type, (event) => {
      event.preventDefault();
      at("drop").classList.toggle("over", type === "dragover");
    });
  }
  addEventListener("drop", ({ dataTransfer }) => {
    if (at("working").hidden) choose(dataTransfer.files);
  });
}
