// onnxruntime as the page's workers use it.

import * as ort from "../vendor/ort.wasm.bundle.min.js";

ort.env.wasm.wasmPaths = { wasm: new URL("../vendor/ort-wasm-simd-threaded.wasm", import.meta.url).href };
ort.env.wasm.numThreads = 1; // more need a page that is isolated from other origins, and gain little on small models

export { ort };
