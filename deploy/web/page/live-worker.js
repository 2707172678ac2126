// Separates live, beside the worker of recordings, whose long tasks would make it late.

import { listedFile, LiveSeparator, readLiveManifest, UserError } from "../lib/index.js";
import { fetched } from "./files.js";
import { forgetOwn } from "./own-models.js";
import { ort } from "./runtime.js";

const separators = new Map(); // by the models' keys
let last = Promise.resolve(); // of what the separators have to do

async function separatorOf({ key, folder, file, own }) {
  if (!separators.has(key)) {
    const manifest = readLiveManifest(own ? await own.manifest.text() : await fetched(`${folder}/manifest.json`, "text"));
    const name = own ? own.model.name : file;
    if (own) listedFile(manifest, name, own.model.size); // before a huge one is read
    const model = own ? await own.model.arrayBuffer() : await fetched(`${folder}/${file}`, "arrayBuffer");
    const separator = await LiveSeparator.load(ort, manifest, model, name);
    await separator.process(new Float32Array(separator.blockLength)); // the first block takes longer than the others
    await forgetOwn(separators, key);
    separators.set(key, separator);
  }
  return separators.get(key);
}

function tell(error) {
  self.postMessage({ error: { isExpected: error instanceof UserError, message: String(error?.message ?? error) } });
}

/** Begins anew: blocks come by the port, and each one's sources go back. */
self.onmessage = async ({ data: { model, port } }) => {
  try {
    const separator = await separatorOf(model);
    last = last.then(() => separator.reset());
    port.onmessage = ({ data: block }) => {
      last = last
        .then(() => separator.process(block))
        .then((sources) => port.postMessage(sources, sources.map(({ buffer }) => buffer)))
        .catch(tell);
    };
    self.postMessage({ ready: true });
  } catch (error) {
    tell(error);
  }
};
