// Puts the page together in `dist/`: its own files, onnxruntime's, the models and the sample. Nothing is compiled.

import { cp, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const repository = join(here, "..", "..");
const dist = join(here, "dist");

const MODELS = [
  { name: "duets", kind: "sound", title: "Music of two instruments" },
  { name: "notes", kind: "sound", title: "Two single notes" },
  { name: "mnist", kind: "image", title: "Two handwritten digits" },
];
const SAMPLE = join("sample", "duet.wav");
const RUNTIME = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];

async function exists(path) {
  return stat(path).then(
    () => true,
    () => false,
  );
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist);
for (const name of ["index.html", "style.css", "page", "lib", "LICENCES.md"]) {
  await cp(join(here, name), join(dist, name), { recursive: true });
}
for (const name of RUNTIME) {
  await cp(join(here, "node_modules", "onnxruntime-web", "dist", name), join(dist, "vendor", name));
}
for (const { name } of MODELS) {
  for (const file of ["int8.onnx", "manifest.json"]) {
    await cp(join(repository, "saved_models", name, file), join(dist, "models", name, file));
  }
}
const hasSample = await exists(join(repository, SAMPLE));
if (hasSample) await cp(join(repository, SAMPLE), join(dist, "sample", "duet.wav"));
const models = await Promise.all(
  MODELS.map(async ({ name, kind, title }) => {
    const { num_sources: numSources } = JSON.parse(await readFile(join(dist, "models", name, "manifest.json"), "utf8"));
    return { name, kind, title, numSources, folder: `models/${name}`, file: "int8.onnx" };
  }),
);
await writeFile(join(dist, "site.json"), JSON.stringify({ models, sample: hasSample ? "sample/duet.wav" : null }, null, 2));
console.log(`${dist} is ready; serve it with: python -m http.server --directory ${dist}`);
