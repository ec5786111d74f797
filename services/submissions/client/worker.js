// The service worker of the page: the page opens without a connection, and what waits is sent when there is one
// again, also with the page closed.

import { Queue, SYNC_TAG } from "./client/hydrant-submissions.js";

// The service puts the hash of all files here: another version is another worker.
const VERSION = "development";
const PREFIX = "hydrant-submissions-";
const CACHE = PREFIX + VERSION;

/** What the page is made of. */
const SHELL = [
  "./",
  "client/answers.js",
  "client/deliver.js",
  "client/form.js",
  "client/hydrant-submissions.js",
  "client/icon-192.png",
  "client/icon.svg",
  "client/lock.js",
  "client/manifest.webmanifest",
  "client/outbox.js",
  "client/pace.js",
  "client/page.css",
  "client/page.js",
  "client/schema.js",
  "client/store.js",
  "client/upload.js",
];

const scope = new URL("./", self.location.href);
const shell = new Set(SHELL.map((path) => new URL(path, scope).pathname));

self.addEventListener("install", (event) => {
  const requests = [...shell].map((path) => new Request(path, { cache: "no-cache" }));
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(requests)));
});

self.addEventListener("activate", (event) => event.waitUntil(activate()));

async function activate() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith(PREFIX) && name !== CACHE);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

/** The page asks for it at its beginning, when nobody has typed anything yet. */
self.addEventListener("message", ({ data }) => data === "activate" && self.skipWaiting());

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  const { origin, pathname } = new URL(url);
  const isShell = method === "GET" && origin === scope.origin && shell.has(pathname);
  if (isShell) event.respondWith(fromShell(pathname, event.request));
});

/** All of one version: from the cache, and from the network only what has been lost there. */
async function fromShell(pathname, request) {
  const cache = await caches.open(CACHE);
  return (await cache.match(pathname)) ?? fetch(request);
}

self.addEventListener("sync", (event) => {
  if (event.tag === SYNC_TAG) event.waitUntil(send());
});

/** What is left over makes the browser ask again later. */
async function send() {
  const queue = new Queue({ base: scope.pathname });
  try {
    await queue.sync({ now: true });
    const left = (await queue.list()).filter((one) => one.state === "waiting");
    if (left.length > 0) throw new Error(`${left.length} are left`);
  } finally {
    queue.close();
  }
}
