// Measures the built page in headless Chromium: node measure.mjs [minutes...] > web.json

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";

import { launch, serve, wavFile } from "./test/page/harness.js";

const MINUTES = process.argv.length > 2 ? process.argv.slice(2).map(Number) : [1, 5];
const LIVE_SECONDS = 60;
const PATIENCE = 1_800_000; // ms
const TICK = 10; // ms

const load_average = loadavg()[0];
const server = await serve();
const browser = await launch("--use-fake-ui-for-media-stream");
const page = await (await browser.newContext()).newPage();
page.setDefaultTimeout(PATIENCE);
const bytes = { total: 0 };
page.on("response", async (response) => {
  const size = (await response.body().catch(() => Buffer.alloc(0))).length;
  const name = new URL(response.url()).pathname;
  bytes.total += size;
  if (size > 1e5) bytes[name] = size;
});
// The longest time for which the page would not have answered a person: that between two ticks.
await page.addInitScript((tick) => {
  globalThis.longestPause = 0;
  let last = performance.now();
  setInterval(() => {
    const now = performance.now();
    globalThis.longestPause = Math.max(globalThis.longestPause, now - last - tick);
    last = now;
  }, tick);
}, TICK);

/** CPU seconds so far, and the largest memory in MB, of the browser's process for the page. */
async function processOf() {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const renderers = processInfo.filter(({ type }) => type === "renderer");
  const cost = { cpu: 0, peak: 0 };
  for (const { id, cpuTime } of renderers) {
    const status = await readFile(`/proc/${id}/status`, "utf8");
    cost.cpu += cpuTime;
    cost.peak = Math.max(cost.peak, Number(/VmHWM:\s+(\d+)/.exec(status)[1]) / 1000);
  }
  return cost;
}

async function separated(action) {
  const before = await processOf();
  const start = performance.now();
  await page.evaluate(() => {
    document.getElementById("message").textContent = "";
    globalThis.longestPause = 0;
  });
  await action();
  await page.waitForFunction(() => document.getElementById("working").hidden && document.getElementById("message").textContent);
  const seconds = (performance.now() - start) / 1000;
  const text = await page.textContent("#message");
  if (!text.startsWith("Done")) throw new Error(text);
  const after = await processOf();
  const longest_pause_ms = await page.evaluate(() => globalThis.longestPause);
  return { seconds, cpu_seconds: after.cpu - before.cpu, peak_mb: after.peak, longest_pause_ms };
}

async function recording(minutes) {
  const folder = await mkdtemp(join(tmpdir(), "measure-"));
  const file = join(folder, "recording.wav");
  await writeFile(file, wavFile("", 44_100, 60 * minutes, 2).buffer);
  const cost = await separated(() => page.setInputFiles("#file", file));
  await rm(folder, { recursive: true });
  return { minutes, ...cost, times_real_time: (60 * minutes) / cost.seconds };
}

async function live(model) {
  await page.getByRole("tab", { name: "Live" }).click();
  await page.selectOption("#live-model-name", model);
  await page.click("#live-microphone");
  await page.waitForFunction(() => /You hear/.test(document.getElementById("live-latency").textContent));
  const before = await processOf();
  await page.waitForTimeout(1000 * LIVE_SECONDS);
  const cpu_seconds = (await processOf()).cpu - before.cpu;
  const [latency, underRuns] = await Promise.all(["#live-latency", "#live-under-runs"].map((id) => page.textContent(id)));
  await page.click("#live-stop");
  const under_runs = Number(/: (\d+)/.exec(underRuns)?.[1] ?? 0);
  return { model, seconds: LIVE_SECONDS, under_runs, latency, cpu_seconds };
}

const start = performance.now();
await page.goto(server.url);
await page.waitForSelector("#use-sample:not([hidden])");
const ready_seconds = (performance.now() - start) / 1000;
const sample = await separated(() => page.click("#use-sample"));
const once = { ...bytes }; // loaded for the page and one model
const recordings = [];
for (const minutes of MINUTES) recordings.push(await recording(minutes));
const lives = [];
for (const model of ["live64", "live"]) lives.push(await live(model));
const result = {
  command: `node measure.mjs ${MINUTES.join(" ")}`,
  browser: browser.version(),
  cores: cpus().length,
  load_average,
  ready_seconds,
  sample,
  recordings,
  live: lives,
  bytes: once,
};
console.log(JSON.stringify(result, null, 2));
await browser.close();
server.close();
