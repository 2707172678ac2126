// Opens every page of a built site in Chromium, as wide as a desk and then as a telephone, and prints what was wrong, as JSON.
// Arguments: the site's folder, the folder that holds Playwright, and, if wanted, a folder for screenshots.

import { readFile, readdir } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize, resolve } from "node:path";

const [site, packages, screenshots] = process.argv.slice(2);
const { chromium } = createRequire(join(resolve(packages), "package.json"))("playwright-core");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".svg": "image/svg+xml" };
const WIDTHS = [1280, 390];

const server = createServer(async (request, response) => {
  const path = join(site, normalize(decodeURI(new URL(request.url, "http://site").pathname)));
  const content = await readFile(path).catch(() => null);
  response.writeHead(content ? 200 : 404, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" });
  response.end(content);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const url = `http://127.0.0.1:${server.address().port}/`;

const pages = (await readdir(site, { recursive: true })).filter((name) => name.endsWith(".html") && name !== "404.html");
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const wrong = [];
const page = await browser.newPage();
let name = "";
let width = 0;
const tell = (what) => wrong.push(`${name} at ${width} pixels: ${what}`);
page.on("request", (request) => {
  if (!request.url().startsWith(url) && !/^(data|blob):/.test(request.url())) tell(`asks another host: ${request.url()}`);
});
page.on("response", (response) => response.status() >= 400 && tell(`${response.url()} is not there`));
page.on("pageerror", (error) => tell(error.message));
for (name of pages) {
  for (width of WIDTHS) {
    await page.setViewportSize({ width, height: 844 });
    if (width === WIDTHS[0]) await page.goto(url + name);
    const widest = await page.evaluate(() => document.documentElement.scrollWidth);
    if (widest > width) tell(`is ${widest} pixels wide`);
    const broken = await page.evaluate(() => [...document.images].filter((image) => !image.naturalWidth).map((image) => image.src));
    if (broken.length) tell(`shows no picture for ${broken}`);
    if (screenshots) await page.screenshot({ path: join(screenshots, `${name.replaceAll("/", "-")}-${width}.png`), fullPage: true });
  }
}
await browser.close();
server.close();
console.log(JSON.stringify({ pages, wrong }));
