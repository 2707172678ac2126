// A server of the built page, and a browser that looks at it.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

import { encodeSamples, wavHeader, WavFormat } from "../../lib/index.js";

const DIST = fileURLToPath(new URL("../../dist", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".json": "application/json" };
const PATIENCE = 90_000; // ms that a condition is waited for; on a machine that is busy everything takes longer
const FLAGS = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--use-fake-device-for-media-stream"];

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

/**
 * Opens the page in a context of its own, which nothing that another test did reaches.
 *
 * @param {import("playwright-core").Browser} browser
 * @param {string} url
 * @param {{ foreign: string[], broken: string[] }} seen Receives requests to other origins, and errors that no message told.
 */
export async function openPage(browser, url, { foreign, broken }) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on("request", (request) => {
    if (!request.url().startsWith(url) && !/^(blob|data):/.test(request.url())) foreign.push(request.url());
  });
  page.on("pageerror", (error) => broken.push(error.message));
  await listenIn(page);
  await page.goto(url);
  await page.waitForSelector("#sound-model option", { state: "attached" });
  return page;
}

/** Waits until an element's text matches, and gives the text. */
export async function text(page, selector, pattern) {
  const found = await page.waitForFunction(
    ([selector, pattern, flags]) => {
      const textContent = document.querySelector(selector)?.textContent ?? "";
      return new RegExp(pattern, flags).test(textContent) && { textContent };
    },
    [selector, pattern.source, pattern.flags],
  );
  return (await found.jsonValue()).textContent;
}

/** Waits until the loudest sample that is heard is in a range. */
export function heard(page, least, most) {
  return page.waitForFunction(([least, most]) => globalThis.heard() >= least && globalThis.heard() <= most, [least, most]);
}

/** Lets a page's `heard()` give what is heard: the loudest sample that reached the loudspeaker of late. */
function listenIn(page) {
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

/** Makes an MP3 file of silence: MPEG-1 Layer III at 32 kbit/s, whose frames of zeros last 26.1 ms each. */
export function mp3File(name, seconds) {
  const frame = Buffer.alloc(104);
  frame.set([0xff, 0xfb, 0x10, 0xc4]);
  const count = Math.round((seconds * 44_100) / 1152);
  return { name, mimeType: "audio/mpeg", buffer: Buffer.concat(new Array(count).fill(frame)) };
}

export function asFile(name, sampleRate, channels, format = WavFormat.INT16) {
  const header = Buffer.from(wavHeader(sampleRate, channels.length, channels[0].length, format));
  return { name, mimeType: "audio/wav", buffer: Buffer.concat([header, Buffer.from(encodeSamples(channels, format))]) };
}
