// Looks at the page of `hydrant audit explore` in Chromium.
//
//   node audit-page.mjs
//
// Reads a command per line, {"do": NAME, …}, and prints what it gave as a line:
//   open {url, width, height, scheme}  opens the page in a browser of its own
//   go {url}                           opens another page, or the same with another query
//   click {name}                       follows the link with this name
//   keys {name}                        goes there with the Tab key, and presses Enter
//   shown                              what the page shows: {title, url, sum, chips, facets, rows, text, beyond}
//   status {url}                       how the page answers this browser, and one that never had the key
//   shot {path}                        takes a picture of the page
//   violations                         what the policy has forbidden, and what was asked of other origins
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  headless: true,
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"],
});
const context = await browser.newContext();
const page = await context.newPage();
const wrong = [];
let origin;

page.on("console", (message) => wrong.push(message.text()));
page.on("pageerror", (error) => wrong.push(String(error.stack)));
page.on("dialog", (dialog) => (wrong.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
page.on("request", (request) => {
  if (origin && new URL(request.url()).origin !== origin) wrong.push(`asked: ${request.url()}`);
});

async function open({ url, width = 1024, height = 768, scheme = "light" }) {
  origin = new URL(url).origin;
  await page.setViewportSize({ width, height });
  await page.emulateMedia({ colorScheme: scheme });
  const answer = await page.goto(url, { waitUntil: "load" });
  return { status: answer.status() };
}

async function keys({ name }) {
  for (let at = 0; at < 200; at += 1) {
    await page.keyboard.press("Tab");
    const text = await page.evaluate(() => document.activeElement.textContent.trim());
    if (text === name) {
      await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
      return {};
    }
  }
  throw new Error(`no Tab leads to ${name}`);
}

async function click({ name }) {
  const link = page.getByRole("link", { name, exact: true }).first();
  await Promise.all([page.waitForNavigation(), link.click()]);
  return {};
}

const shown = () =>
  page.evaluate(() => {
    const texts = (selector) => [...document.querySelectorAll(selector)].map((one) => one.textContent);
    const facets = [...document.querySelectorAll("nav details")].map((facet) => [
      facet.querySelector("summary").textContent,
      Object.fromEntries([...facet.querySelectorAll("li")].map((row) => [...row.children].map((one) => one.textContent))),
    ]);
    const cells = (row) => [...row.cells].map((cell) => [cell.dataset.name, cell.textContent]);
    return {
      title: document.querySelector("h1")?.textContent,
      url: location.href,
      sum: texts(".sum").join(""),
      chips: texts(".chips b"),
      facets: Object.fromEntries(facets),
      bars: document.querySelectorAll("svg a").length,
      rows: [...document.querySelectorAll("tbody tr")].map((row) => Object.fromEntries(cells(row))),
      text: document.body.innerText,
      beyond: document.documentElement.scrollWidth - innerWidth,
    };
  });

async function status({ url }) {
  const ours = await context.request.get(url, { maxRedirects: 0 });
  const stranger = await browser.newContext();
  const theirs = await stranger.request.get(url, { maxRedirects: 0 });
  const answer = {
    ours: ours.status(),
    theirs: theirs.status(),
    body: await ours.text(),
    headers: ours.headers(),
  };
  await stranger.close();
  return answer;
}

const commands = {
  open,
  click,
  keys,
  shown,
  status,
  go: async ({ url }) => ({ status: (await page.goto(url, { waitUntil: "load" })).status() }),
  shot: async ({ path }) => (await page.screenshot({ path, fullPage: true }), {}),
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
await browser.close().catch(() => {});
