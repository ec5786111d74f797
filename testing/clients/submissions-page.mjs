// Drives the page of the submissions service in Chromium, as somebody at a tablet does.
//
//   node submissions-page.mjs PROFILE URL
//
// PROFILE: the folder of the browser, empty at first; URL: the page. Reads a command per line, {"do": NAME, …},
// and prints what it gave as a line:
//   open {width, height, scheme, locks} starts the browser with the profile, and opens the page; without locks as
//                                  browsers do without TLS
//   close, kill                    ends the browser, as its user does or as a power cut does
//   offline {is}                   its network, also that of the service worker, is off or on
//   reload                         loads the page again
//   type {name, text}              enters a text in the field with this label
//   attach {name, type, size, fill} chooses a file
//   send                           presses Send, and waits until the page says that it is kept
//   click {button}                 presses a button
//   shown                          what the page shows: {unsent, sent, said, alarm, fields, files, connection}
//   wake                           background sync: what the browser does when there is a connection again
//   run {script}                   evaluates a script with the library's queue as `queue`
//   room {bytes}                   how much the browser may keep for the page
//   leave                          leaves the page; the browser stays
//   shot {path}                    takes a picture of the page
//   violations                     what the page's Content-Security-Policy has forbidden, and what went wrong
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [profile, url] = process.argv.slice(2);
const origin = new URL(url).origin;
let browser, page, quota;
let wrong = [];

async function open({ width = 1024, height = 768, scheme = "light", locks = true }) {
  browser = await chromium.launchPersistentContext(profile, {
    executablePath: "/usr/bin/chromium",
    headless: true,
    viewport: { width, height },
    colorScheme: scheme,
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
  page = browser.pages()[0] ?? (await browser.newPage());
  page.on("console", (message) => {
    process.stderr.write(`page: ${message.text()}\n`);
    if (/Content.Security.Policy/i.test(message.text())) wrong.push(message.text());
  });
  page.on("pageerror", (error) => wrong.push(String(error.stack)));
  if (!locks) await page.addInitScript("Object.defineProperty(navigator, 'locks', { value: undefined })");
  await page.goto(url, { waitUntil: "load" });
  return {};
}

/** Playwright turns the network of pages and of service workers off by the DevTools protocol. */
const offline = async ({ is }) => (await browser.setOffline(is), {});

async function attach({ name, type, size, fill = 7 }) {
  await page.setInputFiles("#file", { name, mimeType: type, buffer: Buffer.alloc(size, fill) });
  await page.locator("#files li", { hasText: name }).first().waitFor();
  return {};
}

async function send() {
  await page.locator("#said").filter({ hasText: "kept" }).waitFor({ state: "hidden" }).catch(() => {});
  await page.getByRole("button", { name: "Send", exact: true }).click();
  await page.locator("#said").filter({ hasText: "kept on this device" }).waitFor();
  return {};
}

const shown = () =>
  page.evaluate(() => {
    const text = (id) => document.getElementById(id)?.textContent ?? "";
    const rows = (id) =>
      [...document.querySelectorAll(`#${id} > li`)].map((row) => ({
        id: row.dataset.id,
        state: row.dataset.state,
        title: row.querySelector(".title").textContent,
        text: row.querySelector(".state").textContent,
        problem: row.querySelector(".problem").hidden ? "" : row.querySelector(".problem").textContent,
      }));
    const inputs = [...document.querySelectorAll("#fields input, #fields textarea, #fields select")];
    return {
      unsent: rows("unsent"),
      sent: rows("sent"),
      said: text("said"),
      alarm: document.getElementById("alarm").hidden ? "" : text("alarm"),
      fields: Object.fromEntries(inputs.map((input) => [input.labels[0].textContent, input.value])),
      mistakes: [...document.querySelectorAll(".mistake")].map((one) => one.textContent).filter(Boolean),
      files: [...document.querySelectorAll("#files li")].map((one) => one.textContent),
      connection: text("connection"),
      controlled: navigator.serviceWorker?.controller !== null,
    };
  });

/** What the browser sends to the worker when it finds that there is a connection again. */
async function wake() {
  const session = await browser.newCDPSession(page);
  const registrations = [];
  session.on("ServiceWorker.workerRegistrationUpdated", (event) => registrations.push(...event.registrations));
  await session.send("ServiceWorker.enable");
  while (registrations.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  const { registrationId } = registrations.at(-1);
  const sync = { origin, registrationId, tag: "hydrant-submissions", lastChance: false };
  await session.send("ServiceWorker.dispatchSyncEvent", sync);
  await session.detach();
  return {};
}

/** Ends the browser's processes at once: nothing is written any more. */
async function kill() {
  const session = await browser.browser().newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  const gone = new Promise((resolve) => browser.once("close", resolve));
  for (const { id } of processInfo.filter(({ type }) => type === "browser")) process.kill(id, "SIGKILL");
  await gone;
  return {};
}

/** A script for the page; its policy forbids to make one there. */
const withQueue = (script) => `(async () => {
  const { Queue } = await import(new URL("client/hydrant-submissions.js", location.href).href);
  const queue = new Queue({ base: location.pathname });
  const work = async () => { ${script} };
  return (await work().finally(() => queue.close())) ?? {};
})()`;

/** Holds as long as the session. */
async function room({ bytes }) {
  quota = await browser.newCDPSession(page);
  await quota.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: bytes });
  return {};
}

const commands = {
  open,
  room,
  offline,
  attach,
  send,
  shown,
  wake,
  kill,
  close: async () => (await browser.close(), {}),
  reload: async () => (await page.reload({ waitUntil: "load" }), {}),
  leave: async () => (await page.goto("about:blank"), {}),
  type: async ({ name, text }) => (await page.getByLabel(name, { exact: true }).fill(text), {}),
  click: async ({ button }) => (await page.getByRole("button", { name: button }).first().click(), {}),
  run: ({ script }) => page.evaluate(withQueue(script)),
  shot: async ({ path }) => (await page.screenshot({ path, fullPage: false }), {}),
  violations: () => wrong,
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...given } = JSON.parse(line);
  try {
    console.log(JSON.stringify(await commands[name](given)));
  } catch (error) {
    console.log(JSON.stringify({ failed: String(error.stack) }));
  }
}
await browser?.close().catch(() => {});
