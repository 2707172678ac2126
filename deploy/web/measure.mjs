// Measures the built page in headless Chromium: node measure.mjs [minutes] > web.json

import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";

import { launch, serve, wavFile } from "./test/page/harness.js";

const minutes = Number(process.argv[2] ?? 1);
const PATIENCE = 1_800_000; // ms

const server = await serve();
const browser = await launch();
const page = await (await browser.newContext()).newPage();
page.setDefaultTimeout(PATIENCE);
const bytes = { total: 0 };
page.on("response", async (response) => {
  const size = (await response.body().catch(() => Buffer.alloc(0))).length;
  const name = new URL(response.url()).pathname;
  bytes.total += size;
  if (size > 1e5) bytes[name] = size;
});

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

async function timed(action) {
  const before = await processOf();
  const start = performance.now();
  await page.evaluate(() => (document.getElementById("message").textContent = ""));
  await action();
  await page.waitForFunction(() => document.getElementById("working").hidden && document.getElementById("message").textContent);
  const seconds = (performance.now() - start) / 1000;
  const text = await page.textContent("#message");
  if (!text.startsWith("Done")) throw new Error(text);
  const after = await processOf();
  const separating = Number(/in ([\d.]+) s/.exec(text)[1]);
  return { seconds, separating_seconds: separating, cpu_seconds: after.cpu - before.cpu, peak_mb: after.peak };
}

const start = performance.now();
await page.goto(server.url);
await page.waitForSelector("#use-sample:not([hidden])");
const ready = (performance.now() - start) / 1000;
const sample = await timed(() => page.click("#use-sample"));
const folder = await mkdtemp(join(tmpdir(), "measure-"));
const file = join(folder, "recording.wav");
await writeFile(file, wavFile("", 44_100, 60 * minutes, 2).buffer);
const long = await timed(() => page.setInputFiles("#file", file));
await rm(folder, { recursive: true });
const result = {
  command: `node measure.mjs ${minutes}`,
  browser: browser.version(),
  cores: cpus().length,
  load_average: loadavg()[0],
  ready_seconds: ready,
  sample,
  recording: {
    minutes,
    ...long,
    times_real_time: (60 * minutes) / long.separating_seconds,
    times_real_time_by_cpu: (60 * minutes) / long.cpu_seconds,
  },
  bytes,
};
console.log(JSON.stringify(result, null, 2));
await browser.close();
server.close();
