// A server of the built page, and a browser that looks at it.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { encodeSamples, wavHeader, WavFormat } from "../../lib/index.js";

const DIST = fileURLToPath(new URL("../../dist", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json" };
const FLAGS = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"];

/** Serves `dist/` as any server of files does. */
export async function serve() {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURI(new URL(request.url, "http://page").pathname));
    const file = join(DIST, path === "/" ? "index.html" : path);
    const found = await stat(file).catch(() => null);
    response.writeHead(found?.isFile() ? 200 : 404, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" });
    if (found?.isFile()) createReadStream(file).pipe(response);
    else response.end();
  });
  await new Promise((resolve) => server.listen(0, "localhost", resolve));
  return { url: `http://localhost:${server.address().port}/`, close: () => server.close() };
}

/** @param {...string} flags More of Chromium's flags. */
export function launch(...flags) {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: [...FLAGS, ...flags] });
}

/** Lets a page's `heard()` give what is heard: the loudest sample that reached the loudspeaker of late. */
export function listenIn(page) {
  return page.addInitScript(() => {
    const connect = AudioNode.prototype.connect;
    AudioNode.prototype.connect = function (to, ...rest) {
      if (to instanceof AudioDestinationNode) {
        const analyser = new AnalyserNode(this.context, { fftSize: 8192 });
        connect.call(this, analyser);
        globalThis.heard = () => {
          const samples = new Float32Array(8192);
          analyser.getFloatTimeDomainData(samples);
          return Math.max(...samples.map(Math.abs));
        };
      }
      return connect.call(this, to, ...rest);
    };
  });
}

/** Makes a WAV file of two tones, at one place for each channel. */
export function wavFile(name, sampleRate, seconds, numChannels, format = WavFormat.INT16) {
  const count = Math.round(sampleRate * seconds);
  const tone = (hertz, i) => Math.sin((2 * Math.PI * hertz * i) / sampleRate);
  const channels = Array.from({ length: numChannels }, (_, c) =>
    Float32Array.from({ length: count }, (_, i) => (0.3 - 0.2 * c) * tone(440, i) + (0.1 + 0.2 * c) * tone(659, i)),
  );
  return asFile(name, sampleRate, channels, format);
}

export function asFile(name, sampleRate, channels, format = WavFormat.INT16) {
  const header = Buffer.from(wavHeader(sampleRate, channels.length, channels[0].length, format));
  return { name, mimeType: "audio/wav", buffer: Buffer.concat([header, Buffer.from(encodeSamples(channels, format))]) };
}
