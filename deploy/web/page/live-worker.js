// Separates live, beside the worker of recordings, whose long tasks would make it late.

import { listedFile, LiveSeparator, readLiveManifest, UserError } from "../lib/index.js";
import { fetched } from "./files.js";
import { forgetOwn } from "./own-models.js";
import { ort } from "./runtime.js";

const separators = new Map(); // promises, by the models' keys
let last = Promise.resolve(); // of what the separators have to do

/** The separator of a model, a promise: it is loaded once, and again after a failure. */
function separatorOf(model) {
  const { key } = model;
  if (!separators.has(key)) {
    const loading = load(model);
    separators.set(key, loading);
    loading.catch(() => separators.delete(key));
  }
  return separators.get(key);
}

async function load({ key, folder, file, own }) {
  await forgetOwn(separators, key);
  const manifest = readLiveManifest(own ? await own.manifest.text() : await fetched(`${folder}/manifest.json`, "text"));
  const name = own ? own.model.name : file;
  if (own) listedFile(manifest, name, own.model.size); // before a huge one is read
  const model = own ? await own.model.arrayBuffer() : await fetched(`${folder}/${file}`, "arrayBuffer");
  const separator = await LiveSeparator.load(ort, manifest, model, name);
  await separator.process(new Float32Array(separator.blockLength)); // the first block takes longer than the others
  return separator;
}

/** Begins anew: blocks come by the port, and each one's sources go back; what else there is to say goes by `answers`. */
self.onmessage = async ({ data: { model, port, answers } }) => {
  const tell = (error) =>
    answers.postMessage({ error: { isExpected: error instanceof UserError, message: String(error?.message ?? error) } });
  try {
    const separator = await separatorOf(model);
    last = last.then(() => separator.reset());
    port.onmessage = ({ data: block }) => {
      last = last
        .then(() => separator.process(block))
        .then((sources) => port.postMessage(sources, sources.map(({ buffer }) => buffer)))
        .catch(tell);
    };
    answers.postMessage({ ready: true });
  } catch (error) {
    tell(error);
  }
};
