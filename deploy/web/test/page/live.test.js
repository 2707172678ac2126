// The live tab in Chromium, whose made-up microphone beeps.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { heard, launch, openPage, serve, text } from "./harness.js";

let server = null;
let browser = null;
let page = null;
const seen = { foreign: [], broken: [] };

before(async () => {
  server = await serve();
  browser = await launch("--use-fake-ui-for-media-stream");
});

after(async () => {
  await browser.close();
  server.close();
});

beforeEach(async () => {
  page = await openPage(browser, server.url, seen);
  await page.getByRole("tab", { name: "Live" }).click();
  await page.waitForSelector("#live-sources [role=meter]");
});

afterEach(() => page.context().close());

const gain = (k) => page.getByRole("tabpanel", { name: "Live" }).getByRole("slider", { name: `Gain of source ${k + 1}` });

/** Waits until meters are in a range, dB. */
const levels = (least, most, meters) =>
  page.waitForFunction(
    ([least, most, meters]) => {
      const all = [...document.querySelectorAll("#live-sources [role=meter]")].map((meter) => Number(meter.getAttribute("aria-valuenow")));
      return meters.every((k) => all[k] >= least && all[k] <= most);
    },
    [least, most, meters],
  );

test("the page says how late it is before it starts, by each model", async () => {
  await text(page, "#live-latency", /about 89 ms later \(64 ms for the model, 25 ms in buffers\)/);
  await page.getByRole("tabpanel", { name: "Live" }).getByLabel("Model", { exact: true }).selectOption("live");
  await text(page, "#live-latency", /about 41 ms later \(16 ms for the model, 25 ms in buffers\)/);
});

test("a live model of one's own separates; one that does not fit gets a sentence", async () => {
  const files = (...places) => places.map((place) => fileURLToPath(new URL(`../../dist/models/${place}`, import.meta.url)));
  await page.setInputFiles("#live-model-files", files("live/float32.onnx", "live/manifest.json"));
  await text(page, "#live-message", /float32\.onnx is ready/);
  await text(page, "#live-latency", /16 ms for the model/);
  await page.click("#live-sample");
  await levels(-45, 0, [0, 1]);
  await page.click("#live-stop");
  await page.setInputFiles("#live-model-files", files("live64/float32.onnx", "live/manifest.json"));
  await page.click("#live-sample");
  await text(page, "#live-message.error", /float32\.onnx and manifest\.json do not belong together/);
  await page.setInputFiles("#live-model-files", files("live64/float32.onnx"));
  await text(page, "#live-message.error", /the two files of one model together/);
  assert.ok(await page.isVisible("#live-sample"));
});

test("sound is asked for as a person clicks, when Safari allows it, and what pauses it is told", async () => {
  const isAtOnce = await page.evaluate(async () => {
    const { resume } = AudioContext.prototype;
    let isAsked = false;
    AudioContext.prototype.resume = function () {
      isAsked = true;
      globalThis.context = this;
      return resume.call(this);
    };
    document.getElementById("live-sample").click();
    for (let i = 0; i < 9; i++) await null; // what follows the click without a pause
    return isAsked;
  });
  assert.ok(isAtOnce);
  await levels(-45, 0, [0, 1]);
  await page.evaluate(() => globalThis.context.suspend());
  await text(page, "#live-message.error", /paused the sound, as for a call; start again/);
  await page.click("#live-sample");
  await levels(-45, 0, [0, 1]);
});

test("a microphone that gives silence, and one that is unplugged, are told", async () => {
  await page.evaluate(() => {
    const context = new AudioContext();
    globalThis.stand = new MediaStreamAudioDestinationNode(context);
    navigator.mediaDevices.getUserMedia = async () => globalThis.stand.stream;
  });
  await page.click("#live-microphone");
  await text(page, "#live-message", /The microphone is silent: it may be muted or switched off/);
  await page.evaluate(() => {
    globalThis.tone = new OscillatorNode(globalThis.stand.context);
    globalThis.tone.connect(globalThis.stand);
    globalThis.tone.start();
  });
  await text(page, "#live-message", /^Listening\.$/);
  await page.evaluate(() => globalThis.stand.stream.getTracks()[0].dispatchEvent(new Event("ended")));
  await text(page, "#live-message.error", /The microphone was disconnected/);
  assert.ok(await page.isVisible("#live-microphone"));
});

test("Firefox, which may hang then, is not asked for its output's latency beside a microphone", async () => {
  await page.evaluate(() => {
    Object.defineProperty(navigator, "userAgent", { value: "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0" });
    Object.defineProperty(AudioContext.prototype, "outputLatency", { get: () => document.body.setAttribute("data-asked", "") });
  });
  await page.click("#live-microphone");
  await text(page, "#live-latency", /You hear each sound about/);
  assert.equal(await page.getAttribute("body", "data-asked"), null);
});

test("a microphone that is refused or missing costs a sentence", async () => {
  for (const [name, pattern] of [["NotAllowedError", /did not let this page use the microphone.* or play the sample/], ["NotFoundError", /No microphone was found/]]) {
    await page.evaluate((name) => {
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", name));
    }, name);
    await page.click("#live-microphone");
    await text(page, "#live-message.error", pattern);
    assert.ok(await page.isVisible("#live-microphone"));
  }
});

test("the microphone is separated until it is stopped", async (t) => {
  await page.click("#live-microphone");
  await text(page, "#live-message", /^Listening\.$/);
  for (let beep = 0; beep < 3; beep++) {
    await levels(-45, 0, [0, 1]);
    await levels(-60, -60, [0, 1]);
  }
  await heard(page, 0.001, 2);
  t.diagnostic(await text(page, "#live-latency", /You hear each sound about \d+ ms later: 64 ms for the model, \d+ ms in buffers/));
  t.diagnostic(await text(page, "#live-under-runs", /^(No under-runs|Under-runs, .*: \d+)\.$/));
  await page.click("#live-stop");
  assert.equal(await page.textContent("#live-message"), "");
  await levels(-60, -60, [0, 1]);
});

test("a start that is stopped while the model loads closes the microphone, and the next one does not load it again", async () => {
  let numLoads = 0;
  let letThrough = null;
  const isLetThrough = new Promise((resolve) => (letThrough = resolve));
  await page.context().route("**/live64/float32.onnx", async (route) => {
    numLoads++;
    await isLetThrough;
    await route.continue();
  });
  await page.evaluate(() => {
    const { mediaDevices } = navigator;
    const open = mediaDevices.getUserMedia.bind(mediaDevices);
    mediaDevices.getUserMedia = async (constraints) => {
      const stream = await open(constraints);
      [globalThis.microphone] = stream.getTracks();
      return stream;
    };
  });
  const loading = page.waitForRequest(/live64\/float32\.onnx/);
  await page.click("#live-microphone");
  await loading;
  await page.click("#live-stop");
  assert.equal(await page.evaluate(() => globalThis.microphone.readyState), "ended");
  await page.click("#live-sample");
  letThrough();
  await levels(-45, 0, [0, 1]);
  assert.equal(numLoads, 1);
});

test("a recording stands in for the microphone; a source whose gain is off is silent", async () => {
  await page.click("#live-sample");
  await levels(-45, 0, [0, 1]);
  await heard(page, 0.02, 2);
  await gain(0).fill("-40");
  assert.equal(await gain(0).getAttribute("aria-valuetext"), "off");
  await levels(-60, -60, [0]);
  await levels(-45, 0, [1]);
  await gain(1).fill("-40");
  await levels(-60, -60, [0, 1]);
  await heard(page, 0, 0.001);
  await gain(1).fill("0");
  await heard(page, 0.01, 2);
  await page.getByRole("tab", { name: "Sound" }).click(); // ends it
  await page.getByRole("tab", { name: "Live" }).click();
  assert.ok(await page.isVisible("#live-sample"));
  await levels(-60, -60, [0, 1]);
});

test("everything fits a telephone's width, and everything that acts has a name", async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  const nameless = await page.evaluate(() =>
    [...document.querySelectorAll("#panel-live :is(button, select, input, [role=meter])")]
      .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length))
      .map((e) => e.outerHTML),
  );
  assert.deepEqual(nameless, []);
});

test("no request left the page's origin, and no error went unsaid", () => {
  assert.deepEqual(seen.foreign, []);
  assert.deepEqual(seen.broken, []);
});
