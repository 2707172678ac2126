// Everything that takes time, away from the page's own thread: models, separation of recordings and of pictures.

import { encodeSamples, listedFile, Model, numClipped, openWav, readManifest, Separator, UserError, wavHeader } from "../lib/index.js";
import { fetched } from "./files.js";
import { forgetOwn } from "./own-models.js";
import { Picture, shades } from "./picture.js";
import { ort } from "./runtime.js";

const MAX_SECONDS = 3600;
const READ_SECONDS = 2; // of a recording at once; a cancellation is heeded after each

const models = new Map();
let cancelled = false;

class Cancelled extends Error {}

const TASKS = {
  /** Loads a model: of the page, or of two files that a person chose. */
  async load({ key, folder, file, own }) {
    if (models.has(key)) return describe(models.get(key));
    const text = own ? await own.manifest.text() : await fetched(`${folder}/manifest.json`, "text");
    const manifest = readManifest(text, own?.manifest.name);
    const name = own ? own.model.name : file;
    if (own) listedFile(manifest, name, own.model.size); // before a huge one is read
    const content = own ? await own.model.arrayBuffer() : await fetched(`${folder}/${file}`, "arrayBuffer");
    const model = await Model.load(ort, manifest, content, name);
    await forgetOwn(models, key);
    models.set(key, model);
    return describe(model);
  },

  /** Separates a WAV file into one for each source. */
  async separate({ key, recording: { name, blob } }, report) {
    const model = models.get(key);
    const { numSamples, numChannels, sampleRate, format, read } = await openWav(blob, name);
    if (numSamples > MAX_SECONDS * sampleRate) {
      const hours = (numSamples / sampleRate / 3600).toFixed(1);
      throw new UserError(`${name} lasts ${hours} hours; the page separates up to one, python -m vae_bss_tf.separate any length.`);
    }
    const separator = new Separator(model.run, model.audio, model.numSources);
    let done = 0; // samples, of all passes
    async function* blocks() {
      const size = Math.ceil(READ_SECONDS * sampleRate);
      for (let start = 0; start < numSamples; start += size) {
        const block = await read(start, size);
        await new Promise((resolve) => setTimeout(resolve)); // lets a cancellation in
        if (cancelled) throw new Cancelled();
        yield block;
        done += block[0].length;
        report(done / (separator.numPasses * numSamples));
      }
    }
    const header = wavHeader(sampleRate, numChannels, numSamples, format); // refuses sources too long for a file
    const started = performance.now();
    const { orders, sure } = await separator.findOrders(blocks, sampleRate, name);
    const makePicture = () => new Picture(sampleRate, numSamples, model.audio.sample_rate / 2);
    const mixture = makePicture();
    const sources = Array.from({ length: model.numSources }, () => ({ parts: [], picture: makePicture(), energy: 0 }));
    let clipped = 0;
    let energy = 0;
    for await (const block of separator.stream(blocks, sampleRate, numChannels, orders, name)) {
      const sum = added(block);
      mixture.add(sum);
      energy += energyOf(sum);
      block.forEach((channels, k) => {
        sources[k].energy += energyOf(channels);
        sources[k].picture.add(channels);
        // A Blob of its own leaves each part to the browser, which may keep it on the disk.
        sources[k].parts.push(new Blob([encodeSamples(channels, format)]));
        clipped += numClipped(channels, format);
      });
    }
    const top = mixture.loudest();
    return {
      sampleRate, numChannels, numSamples, format, sure, clipped,
      seconds: (performance.now() - started) / 1000,
      mixture: shades(mixture, top),
      sources: sources.map(({ parts, picture, energy: of }) => ({
        file: new Blob([header, ...parts], { type: "audio/wav" }),
        picture: shades(picture, top),
        level: 10 * Math.log10(Math.max(of, 1e-30) / energy),
      })),
    };
  },

  /** Separates one picture, float32 of the model's shape in [0, 1], into one for each source. */
  async separatePicture({ key, mixture }) {
    const model = models.get(key);
    const sources = await model.run(mixture, 1);
    const size = mixture.length;
    return Array.from({ length: model.numSources }, (_, k) => sources.slice(k * size, (k + 1) * size));
  },
};

function describe({ numSources, inputShape, audio }) {
  return { numSources, inputShape, sampleRate: audio?.sample_rate ?? null };
}

/** What a block of sources, `[source][channel]`, adds up to. */
function added(block) {
  return block[0].map((samples, c) => {
    const sum = samples.slice();
    for (const channels of block.slice(1)) for (let i = 0; i < sum.length; i++) sum[i] += channels[c][i];
    return sum;
  });
}

function energyOf(channels) {
  let sum = 0;
  for (const samples of channels) for (let i = 0; i < samples.length; i++) sum += samples[i] * samples[i];
  return sum;
}

self.onmessage = async ({ data: { id, task, ...given } }) => {
  if (task === "cancel") {
    cancelled = true;
    return;
  }
  cancelled = false;
  try {
    const result = await TASKS[task](given, (progress) => self.postMessage({ id, progress }));
    self.postMessage({ id, result });
  } catch (error) {
    const kind = error instanceof UserError ? "user" : error instanceof Cancelled ? "cancelled" : "other";
    self.postMessage({ id, error: { kind, message: String(error?.message ?? error) } });
  }
};
