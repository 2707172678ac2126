// Puts the page together in `dist/`: its own files, onnxruntime's, the models and the sample. Nothing is compiled.

import { cp, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const repository = join(here, "..", "..");
const dist = join(here, "dist");

const MODELS = [
  { name: "duets", kind: "sound", title: "Music of two instruments", file: "int8.onnx" },
  { name: "notes", kind: "sound", title: "Two single notes", file: "int8.onnx" },
  { name: "mnist", kind: "image", title: "Two handwritten digits", file: "int8.onnx" },
  { name: "live64", kind: "live", title: "Separates better", file: "float32.onnx" },
  { name: "live", kind: "live", title: "Answers sooner", file: "float32.onnx" }, // where it is there
];
const SAMPLE = join("sample", "duet.wav");
// Not every server of files knows .mjs as JavaScript, and browsers run no module of another type.
const RUNTIME = { "ort.wasm.bundle.min.mjs": "ort.wasm.bundle.min.js", "ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm" };

async function exists(path) {
  return stat(path).then(
    () => true,
    () => false,
  );
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist);
for (const name of ["index.html", "style.css", "page", "lib"]) {
  await cp(join(here, name), join(dist, name), { recursive: true });
}
// Browsers show a text, and download Markdown.
await cp(join(here, "LICENCES.md"), join(dist, "LICENCES.txt"));
await cp(join(repository, "LICENSE"), join(dist, "LICENSE.txt"));
for (const [name, served] of Object.entries(RUNTIME)) {
  await cp(join(here, "node_modules", "onnxruntime-web", "dist", name), join(dist, "vendor", served));
}
const models = [];
for (const { name, kind, title, file } of MODELS) {
  const from = join(repository, "saved_models", name);
  if (kind === "live" && !(await exists(join(from, file)))) continue;
  const folder = `models/${name}`;
  for (const part of [file, "manifest.json"]) await cp(join(from, part), join(dist, folder, part));
  models.push({ name, kind, title, folder, file });
}
const hasSample = await exists(join(repository, SAMPLE));
if (hasSample) await cp(join(repository, SAMPLE), join(dist, "sample", "duet.wav"));
await writeFile(join(dist, "site.json"), JSON.stringify({ models, sample: hasSample ? "sample/duet.wav" : null }, null, 2));
console.log(`${dist} is ready; serve it with: python -m http.server --directory ${dist}`);
