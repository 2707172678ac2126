// The built page in Chromium. VAE_BSS_REFERENCES names a folder with what Python makes of the sample.

import assert from "node:assert/strict";
import { mkdtemp, open, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { openWav } from "../../lib/index.js";
import { asFile, heard, launch, mp3File, openPage, serve, text, wavFile } from "./harness.js";

const REFERENCES = process.env.VAE_BSS_REFERENCES;

let server = null;
let browser = null;
let page = null;
const seen = { foreign: [], broken: [] };

before(async () => {
  server = await serve();
  browser = await launch();
});

after(async () => {
  await browser.close();
  server.close();
});

beforeEach(async () => {
  page = await openPage(browser, server.url, seen);
});

afterEach(() => page.context().close());

/** What the page says once it has dealt with an action. */
async function said(action) {
  await page.evaluate(() => (document.getElementById("message").textContent = ""));
  await action();
  await page.waitForFunction(() => document.getElementById("working").hidden && document.getElementById("message").textContent);
  return page.textContent("#message");
}

const give = (...files) => said(() => page.setInputFiles("#file", files));
const giveModel = (...files) => said(() => page.setInputFiles("#sound-model-files", files));

async function downloaded(click) {
  const [download] = await Promise.all([page.waitForEvent("download"), click()]);
  const wav = await openWav(new Blob([await readFile(await download.path())]), "download");
  return { name: download.suggestedFilename(), channels: await wav.read(0, wav.numSamples) };
}

const source = (k) => downloaded(() => page.getByRole("link", { name: `Download source ${k}` }).click());

/** Plays, again when the end was reached, until what is heard was in a range for a second and more. */
function playing(least, most) {
  return page.waitForFunction(
    ([least, most]) => {
      const play = document.getElementById("play");
      if (play.textContent === "Play") play.click();
      const since = Number(document.getElementById("seek").value);
      return since > 100 && globalThis.heard() >= least && globalThis.heard() <= most;
    },
    [least, most],
  );
}

async function reference(name) {
  const bytes = await readFile(join(REFERENCES, `${name}.f32`));
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

const largest = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
const rms = (a) => Math.sqrt(a.reduce((sum, value) => sum + value * value, 0) / a.length);

test("the sample in the page equals Python", { skip: !REFERENCES }, async (t) => {
  // A model of one's own: float32, which two runtimes compute alike.
  const files = ["float32.onnx", "manifest.json"].map((name) => join(REFERENCES, "model", name));
  assert.match(await giveModel(...files), /float32\.onnx is ready/);
  assert.match(await said(() => page.click("#use-sample")), /Done: 2 sources/);
  for (const k of [1, 2]) {
    const { name, channels } = await source(k);
    const difference = largest(channels[0], await reference(`float${k}`));
    t.diagnostic(`source ${k} in float32 differs by ${difference.toExponential(1)}`);
    assert.equal(name, `duet_source${k}.wav`);
    assert.ok(difference <= 1e-4, `differs by ${difference}`);
  }
  // The shipped int8 file rounds activations, and a rounding may fall to the other side in another runtime.
  assert.match(await said(() => page.selectOption("#sound-model-name", "duets")), /Done: 2 sources/);
  for (const k of [1, 2]) {
    const { channels } = await source(k);
    const expected = await reference(`int8${k}`);
    const difference = rms(channels[0].map((value, i) => value - expected[i]));
    const level = 20 * Math.log10(difference / rms(expected));
    t.diagnostic(`source ${k} in int8 differs by ${largest(channels[0], expected).toExponential(1)}, ${level.toFixed(0)} dB`);
    assert.ok(level < -40, `differs by ${level} dB`);
  }
});

test("sliders and buttons change what is heard and downloaded", async () => {
  await give(wavFile("tones.wav", 8000, 20, 1));
  const [[first], [second]] = [(await source(1)).channels, (await source(2)).channels];
  const slider = page.getByRole("slider", { name: "Gain of source 1" });
  const mix = async () => (await downloaded(() => page.click("#download-mix"))).channels[0];
  const expected = (a, b) => first.map((value, i) => a * value + b * second[i]);
  const near = async (a, b) => assert.ok(largest(await mix(), expected(a, b)) < 1e-4);
  await near(1, 1);
  await slider.focus();
  for (let i = 0; i < 6; i++) await page.keyboard.press("ArrowLeft");
  assert.equal(await slider.getAttribute("aria-valuetext"), "-6 dB");
  await near(10 ** (-6 / 20), 1);
  await page.getByRole("button", { name: "Mute source 2" }).click();
  await near(10 ** (-6 / 20), 0);
  await page.getByRole("button", { name: "Mute source 2" }).click();
  await page.getByRole("button", { name: "Solo source 2" }).click();
  await near(0, 1);
  await page.getByRole("button", { name: "Solo source 2" }).click();
  await slider.fill("12");
  assert.ok((await mix()).every((value) => Math.abs(value) <= 1));
  await text(page, "#message", /^[1-9]\d* samples of the mix exceeded full scale and were clipped; lower the gains/);
  await slider.fill("0");
  await near(1, 1);
  assert.equal(await page.textContent("#message"), "");

  const mute = async () => {
    for (const k of [1, 2]) await page.getByRole("button", { name: `Mute source ${k}` }).click();
  };
  await playing(0.05, 1);
  await mute();
  await playing(0, 0.001);
  await mute();
  await playing(0.01, 1);
  // Two seconds and more were played by now.
  const isBack = page.waitForFunction(() => /^0:0[01] /.test(document.getElementById("seek").getAttribute("aria-valuetext")));
  await page.getByRole("slider", { name: "Position" }).fill("0");
  await isBack;
  await playing(0.01, 1);
  await page.evaluate(() => document.getElementById("play").textContent === "Pause" && document.getElementById("play").click());
  await heard(page, 0, 0.001);
  await page.evaluate(() => (Blob.prototype.arrayBuffer = () => Promise.reject(new Error("gone"))));
  await page.click("#download-mix");
  await text(page, "#message.error", /can no longer be read/);
  assert.ok(await page.isEnabled("#download-mix"));
});

test("recordings that cannot be separated get a sentence each, and the page lives on", async () => {
  const says = async (file, pattern) => {
    const text = await give(file);
    assert.match(text, pattern);
    assert.ok(await page.isVisible("#message.error"));
  };
  const whole = wavFile("whole.wav", 8000, 1, 1).buffer;
  const file = (name, content, mimeType = "audio/wav") => ({ name, mimeType, buffer: Buffer.from(content) });
  await says(file("text.wav", "This is a text."), /text\.wav is not a WAV file/);
  await says(file("empty.wav", ""), /empty\.wav is empty/);
  await says(file("short.wav", whole.subarray(0, 5000)), /short\.wav is truncated: it holds 31\.0 %/);
  await says(file("clip.mp4", "video", "video/mp4"), /clip\.mp4 is a video; save its sound/);
  await says(file("song.mp3", "no sound", "audio/mpeg"), /song\.mp3 is no recording that this browser can decode/);
  await says(mp3File("long.mp3", 1800), /long\.mp3 lasts 30 minutes, more than 20; save it as a WAV file/);
  await says(mp3File("still.mp3", 3), /still\.mp3 is silent/); // it was decoded
  await says(asFile("still.wav", 8000, [new Float32Array(8000)]), /still\.wav is silent/);
  await says(wavFile("blip.wav", 8000, 0.05, 1), /at least 0\.1 s/);
  await says(asFile("many.wav", 8000, new Array(6).fill(new Float32Array(8000))), /6 channels/);
  const long = join(await mkdtemp(join(tmpdir(), "page-")), "long.wav");
  const header = wavFile("", 8000, 0, 1).buffer;
  header.writeUInt32LE(2 * 8000 * 36_000, 40);
  const handle = await open(long, "w");
  await handle.write(header);
  await handle.truncate(44 + 2 * 8000 * 36_000);
  await handle.close();
  await says(long, /long\.wav lasts 10\.0 hours; the page separates up to one/);
  assert.match(await give(wavFile("low.wav", 8000, 1, 1)), /Done: 2 sources/);
  assert.match(await give(wavFile("high.wav", 96_000, 1, 2)), /Done: 2 sources/);
  assert.equal(await page.textContent("#result-title"), "high.wav");
});

test("models that do not fit get a sentence each", async () => {
  const manifest = await readFile(new URL("../../dist/models/duets/manifest.json", import.meta.url));
  const model = await readFile(new URL("../../dist/models/notes/int8.onnx", import.meta.url));
  const as = (name, buffer) => ({ name, mimeType: "application/octet-stream", buffer });
  const says = async (files, pattern) => assert.match(await giveModel(...files), pattern);
  await says([as("int8.onnx", model), as("manifest.json", manifest)], /int8\.onnx and manifest\.json do not belong together/);
  await says([as("int8.onnx", model)], /the two files of one model together/);
  await says([as("int8.onnx", model), as("manifest.json", Buffer.from("{}"))], /not the manifest of a model/);
  await says([as("full_int8.tflite", model), as("manifest.json", manifest)], /not an \.onnx file/);
});

test("a model of digits of one's own separates the drawings, wherever it is given", async () => {
  const files = (...places) => places.map((place) => fileURLToPath(new URL(`../../dist/models/${place}`, import.meta.url)));
  await page.setInputFiles("#sound-model-files", files("mnist/int8.onnx", "mnist/manifest.json"));
  await text(page, "#digits-message", /Separated into 2 digits/);
  assert.ok(await page.getByRole("tabpanel", { name: "Digits" }).isVisible());
  assert.equal(await page.locator("#digits-model-name option:checked").textContent(), "A model of my own…");
  await page.setInputFiles("#digits-model-files", files("notes/int8.onnx", "mnist/manifest.json"));
  await text(page, "#digits-message.error", /int8\.onnx and manifest\.json do not belong together/);
  await page.setInputFiles("#digits-model-files", files("mnist/int8.onnx"));
  await text(page, "#digits-message.error", /the two files of one model together/);
  await page.getByRole("tabpanel", { name: "Digits" }).getByLabel("Model", { exact: true }).selectOption("mnist");
  await text(page, "#digits-message", /Separated into 2 digits/);
});

test("what is dropped on any tab goes where it belongs", async () => {
  const drop = ({ name, mimeType, buffer }) =>
    page.evaluate(
      ([name, type, bytes]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
        dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
      },
      [name, mimeType, [...buffer]],
    );
  await page.getByRole("tab", { name: "Live" }).click();
  assert.match(await said(() => drop(wavFile("dropped.wav", 8000, 1, 1))), /Done: 2 sources/);
  assert.ok(await page.getByRole("tabpanel", { name: "Sound" }).isVisible());
  await page.setInputFiles("#file", [wavFile("long.wav", 8000, 400, 1)]);
  await page.waitForFunction(() => document.getElementById("progress").value > 0);
  await drop(wavFile("another.wav", 8000, 1, 1));
  await text(page, "#message.error", /Wait until this recording is separated, or cancel it first/);
  assert.match(await said(() => page.click("#cancel")), /Cancelled/);
});

test("a long separation shows progress and can be cancelled", async () => {
  await page.setInputFiles("#file", [wavFile("long.wav", 8000, 400, 1)]);
  await page.waitForFunction(() => document.getElementById("progress").value > 0);
  await text(page, "#progress-label", /Separating: \d+ %/);
  assert.match(await said(() => page.click("#cancel")), /Cancelled/);
  assert.match(await give(wavFile("next.wav", 8000, 1, 1)), /Done/);
});

test("the microphone is recorded and separated; without one the page says so", async () => {
  await page.context().grantPermissions(["microphone"]);
  await page.click("#record");
  await text(page, "#message", /^Recording\. It is separated when you stop\.$/);
  await text(page, "#recorded", /^\d+:(?!0[01])/);
  await page.getByRole("button", { name: "Stop and separate" }).click();
  await text(page, "#message", /Done/);
  for (const [name, pattern] of [["NotAllowedError", /did not let this page use the microphone/], ["NotFoundError", /No microphone was found/]]) {
    await page.evaluate((name) => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", name));
    }, name);
    await page.click("#record");
    await text(page, "#message", pattern);
    assert.ok(await page.isVisible("#message.error"));
  }
});

test("nothing else begins while the browser asks whether the page may use the microphone", async () => {
  await page.evaluate(() => {
    navigator.mediaDevices.getUserMedia = () => new Promise((_, reject) => (globalThis.refuse = () => reject(new DOMException("no", "NotAllowedError"))));
  });
  const enabled = () => Promise.all(["#open", "#use-sample", "#sound-model-name"].map((id) => page.isEnabled(id)));
  await page.click("#record");
  await text(page, "#message", /^Waiting for the microphone/);
  assert.deepEqual(await enabled(), [false, false, false]);
  await page.evaluate(() => globalThis.refuse());
  await text(page, "#message.error", /did not let this page use the microphone/);
  assert.deepEqual(await enabled(), [true, true, true]);
});

test("a keyboard reaches everything in its order, and the focus is never lost", async () => {
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? (document.activeElement.labels?.[0] ?? document.activeElement).textContent);
  const next = async (key) => {
    await page.keyboard.press(key);
    return focused();
  };
  assert.deepEqual(
    [await next("Tab"), await next("Tab"), await next("Tab"), await next("Tab"), await next("Tab")],
    ["Sound", "Open a recording", "Use the sample", "Record", "Model"],
  );
  await page.getByRole("button", { name: "Use the sample" }).focus();
  assert.match(await said(() => page.keyboard.press("Enter")), /Done/);
  await page.waitForFunction(() => document.activeElement.id === "play");
  assert.deepEqual(
    [await next("Tab"), await next("Tab"), await next("Tab"), await next("Tab"), await next("Tab"), await next("Tab"), await next("Tab")],
    ["Position", "Download this mix", "Gain of source 1", "Solo source 1", "Mute source 1", "Download source 1", "Gain of source 2"],
  );
  const model = page.getByLabel("Model", { exact: true }).first();
  await model.focus();
  assert.match(await said(() => page.keyboard.press("ArrowDown")), /Done/);
  await page.waitForFunction(() => document.activeElement.id === "sound-model-name");
  assert.match(await give({ name: "text.wav", mimeType: "audio/wav", buffer: Buffer.from("text") }), /not a WAV file/);
  await page.getByRole("tab", { name: "Sound" }).focus();
  assert.equal(await next("End"), "Live");
  assert.equal(await next("ArrowRight"), "Sound");
  assert.equal(await next("ArrowLeft"), "Live");
  assert.equal(await next("Home"), "Sound");
});

test("a reader of the screen finds each tab's controls by role and name, and its messages are said", async () => {
  await give(wavFile("tones.wav", 8000, 1, 1));
  const panel = (name) => page.getByRole("tabpanel", { name });
  const roles = async (name) => (await panel(name).ariaSnapshot()).split("\n").map((line) => line.trim());
  const sound = await roles("Sound");
  for (const line of [
    '- status: "Done: 2 sources in', "- button \"Play\"", '- slider "Position"', '- img "Spectrogram of the recording"',
    '- slider "Gain of source 1"', '- button "Solo source 2"', '- link "Download source 2"', '- combobox "Model"',
  ]) assert.ok(sound.some((found) => found.startsWith(line)), `${line} in\n${sound.join("\n")}`);
  await page.getByRole("tab", { name: "Digits" }).click();
  await text(page, "#digits-message", /Separated/);
  const digits = await roles("Digits");
  for (const line of ['- group "First digit"', '- img "First drawing pad"', "- status: Separated into 2 digits", '- img "Separated digit 2"']) {
    assert.ok(digits.some((found) => found.startsWith(line)), `${line} in\n${digits.join("\n")}`);
  }
  await page.getByRole("tab", { name: "Live" }).click();
  await page.waitForSelector("#live-sources [role=meter]");
  const live = await roles("Live");
  for (const line of ['- button "Start the microphone"', '- meter "Level of source 1"', '- slider "Gain of source 2"']) {
    assert.ok(live.some((found) => found.startsWith(line)), `${line} in\n${live.join("\n")}`);
  }
});

test("two digits are added and separated", async () => {
  const shown = () =>
    page.evaluate(() =>
      [...document.querySelectorAll("#digits-mixture, #digits-sources canvas")].map((canvas) =>
        [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 0),
      ),
    );
  await page.getByRole("tab", { name: "Sound" }).focus();
  await page.keyboard.press("ArrowRight"); // the tabs are a keyboard's too
  await page.waitForSelector("#digits-sources canvas");
  const [mixture, ...sources] = await shown();
  assert.equal(sources.length, 2);
  // Sources are shown at twice their brightness.
  mixture.forEach((value, i) => assert.ok(Math.abs(2 * value - sources[0][i] - sources[1][i]) < 8 || value > 127));
  await page.getByLabel("Choose").first().selectOption("7");
  await page.waitForFunction((before) => {
    const canvas = document.getElementById("digits-mixture");
    const now = [...canvas.getContext("2d").getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0);
    return now.join() !== before;
  }, mixture.join());
  const [changed] = await shown();
  const pad = await page.locator("[data-pad='1'] canvas").boundingBox();
  await page.mouse.move(pad.x + pad.width / 2, pad.y + 30);
  await page.mouse.down();
  await page.mouse.move(pad.x + pad.width / 2, pad.y + pad.height - 30, { steps: 5 });
  await page.mouse.up();
  await page.waitForFunction((before) => {
    const canvas = document.getElementById("digits-mixture");
    const now = [...canvas.getContext("2d").getImageData(0, 0, 28, 28).data].filter((_, i) => i % 4 === 0);
    return now.join() !== before;
  }, changed.join());
});

test("everything fits a telephone's width, and everything that acts has a name", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  await give(wavFile("a-name-that-is-far-too-long-for-one-line-of-a-telephone-of-three-hundred-and-ninety.wav", 8000, 1, 1));
  for (const tab of ["Digits", "Live", "Sound"]) {
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("button, a, select, input:not([hidden]), canvas, progress")]
        .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
        .map((e) => e.outerHTML),
    );
    assert.deepEqual(nameless, []);
    await page.getByRole("tab", { name: tab }).click();
  }
});

test("the workers, which hold the recordings, may ask no other origin either", async () => {
  const asked = [];
  const other = createServer((request, response) => {
    asked.push(request.url);
    response.writeHead(200, { "Access-Control-Allow-Origin": "*" }).end();
  });
  await new Promise((resolve) => other.listen(0, "localhost", resolve));
  try {
    const url = `http://localhost:${other.address().port}/`;
    const answer = await page.workers()[0].evaluate((url) => fetch(url).then(() => "answered", () => "refused"), url);
    assert.equal(answer, "refused");
    assert.deepEqual(asked, []);
  } finally {
    other.close();
  }
});

test("the page links to its licences, which are there", async () => {
  for (const [name, words] of [["Apache-2.0", "Apache License"], ["Licences of third parties", "onnxruntime-web"]]) {
    const href = await page.getByRole("link", { name }).getAttribute("href");
    const answer = await page.request.get(new URL(href, server.url).href);
    assert.ok(answer.ok() && (await answer.text()).includes(words), href);
  }
});

test("no request left the page's origin, and no error went unsaid", () => {
  assert.deepEqual(seen.foreign, []);
  assert.deepEqual(seen.broken, []);
});
