// The live tab in Chromium, whose made-up microphone beeps.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { launch, listenIn, serve } from "./harness.js";

let server = null;
let browser = null;
let page = null;
const foreign = []; // requests to other origins
const broken = []; // errors that no message told

before(async () => {
  server = await serve();
  browser = await launch("--use-fake-ui-for-media-stream");
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(90_000);
  page.on("request", (request) => {
    if (!request.url().startsWith(server.url) && !/^(blob|data):/.test(request.url())) foreign.push(request.url());
  });
  page.on("pageerror", (error) => broken.push(error.message));
  await listenIn(page);
  await page.goto(server.url);
  await page.waitForSelector("#model option", { state: "attached" });
  await page.getByRole("tab", { name: "Live" }).click();
  await page.waitForSelector("#live-sources [role=meter]");
});

after(async () => {
  await browser.close();
  server.close();
});

const gain = (k) => page.getByRole("tabpanel", { name: "Live" }).getByRole("slider", { name: `Gain of source ${k + 1}` });
const heard = (least, most) =>
  page.waitForFunction(([least, most]) => globalThis.heard() >= least && globalThis.heard() <= most, [least, most]);

/** Waits until meters are in a range, dB. */
const levels = (least, most, meters) =>
  page.waitForFunction(
    ([least, most, meters]) => {
      const all = [...document.querySelectorAll("#live-sources [role=meter]")].map((meter) => Number(meter.getAttribute("aria-valuenow")));
      return meters.every((k) => all[k] >= least && all[k] <= most);
    },
    [least, most, meters],
  );

test("the page says how late it is before it starts", async () => {
  assert.match(await page.textContent("#live-latency"), /about 89 ms later \(64 ms for the model, 25 ms in buffers\)/);
});

test("a microphone that is refused or missing costs a sentence", async () => {
  for (const [name, pattern] of [["NotAllowedError", /did not let this page use the microphone.* or play the sample/], ["NotFoundError", /No microphone was found/]]) {
    await page.evaluate((name) => {
      globalThis.getUserMedia ??= navigator.mediaDevices.getUserMedia;
      navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("no", name));
    }, name);
    await page.click("#live-microphone");
    await page.waitForSelector("#live-message.error");
    assert.match(await page.textContent("#live-message"), pattern);
    assert.ok(await page.isVisible("#live-microphone"));
  }
  await page.evaluate(() => (navigator.mediaDevices.getUserMedia = globalThis.getUserMedia));
});

test("the microphone is separated for some seconds", async (t) => {
  await page.click("#live-microphone");
  await page.waitForFunction(() => document.getElementById("live-message").textContent === "Listening.");
  const seen = new Set();
  for (let i = 0; i < 16; i++) {
    seen.add(await page.evaluate(() => [...document.querySelectorAll("#live-sources .meter div")].map(({ style }) => style.width).join()));
    await page.waitForTimeout(250);
  }
  t.diagnostic(await page.textContent("#live-latency"));
  t.diagnostic(await page.textContent("#live-under-runs"));
  assert.ok(seen.size > 4, "the meters move");
  await heard(0.001, 2);
  assert.match(await page.textContent("#live-latency"), /You hear each sound about \d+ ms later: 64 ms for the model, \d+ ms in buffers/);
  assert.match(await page.textContent("#live-under-runs"), /under-run/);
  await page.click("#live-stop");
  assert.equal(await page.textContent("#live-message"), "");
  await levels(-60, -60, [0, 1]);
});

test("a recording stands in for the microphone; a source whose gain is off is silent", async () => {
  await page.click("#live-sample");
  await levels(-45, 0, [0, 1]);
  await heard(0.02, 2);
  await gain(0).fill("-40");
  assert.equal(await gain(0).getAttribute("aria-valuetext"), "off");
  await levels(-60, -60, [0]);
  await levels(-45, 0, [1]);
  await gain(1).fill("-40");
  await levels(-60, -60, [0, 1]);
  await heard(0, 0.001);
  await gain(1).fill("0");
  await heard(0.01, 2);
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
  assert.deepEqual(foreign, []);
  assert.deepEqual(broken, []);
});
