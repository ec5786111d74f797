// Drives a page that has OpenFeature's SDK for browsers, in Chromium. The page comes from an origin of its
// own, so everything that it asks crosses origins.
//
//   node ofrep-web.mjs PROFILE
//
// PROFILE: an empty folder for the browser. Reads a command per line, {"do": NAME, …}, and prints what it
// gave as a line. "start", "context", "flag" and "told" are functions of the page; "seen" lists the
// requests of the page so far, {"method", "url", "status", "headers", "sent"}; "reload" loads it anew.
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [profile] = process.argv.slice(2);
const bundle = await build({
  entryPoints: [fileURLToPath(new URL("ofrep-page.mjs", import.meta.url))],
  bundle: true,
  format: "esm",
  write: false,
});
const script = bundle.outputFiles[0].text;

const server = createServer((request, response) => {
  if (request.url === "/page.js") {
    response.setHeader("content-type", "text/javascript").end(script);
  } else if (request.url === "/") {
    response.setHeader("content-type", "text/html");
    response.end('<!doctype html><script type="module" src="/page.js"></script>');
  } else {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const home = `http://127.0.0.1:${server.address().port}/`;

const browser = await chromium.launchPersistentContext(profile, {
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await browser.newPage();
const seen = [];
page.on("response", async (response) => {
  const request = response.request();
  if (request.url().startsWith(home)) return;
  const [headers, sent] = [await response.allHeaders(), await request.allHeaders()];
  const [method, url, status] = [request.method(), request.url(), response.status()];
  seen.push({ method, url, status, headers, sent });
});
page.on("console", (message) => process.stderr.write(`page: ${message.text()}\n`));
const load = () => page.goto(home, { waitUntil: "load" });
await load();

const commands = {
  seen: () => seen,
  reload: async () => {
    await load();
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...given } = JSON.parse(line);
  const answer = commands[name]
    ? await commands[name]()
    : await page.evaluate(([name, given]) => window[name](given), [name, given]);
  console.log(JSON.stringify(answer));
}
await browser.close();
server.close();
