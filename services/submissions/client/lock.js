// One tab at a time sends: by the browser's locks, and where there are none (a page without TLS) by a lease in
// the database. Should two send all the same, the service has each submission once still; it is only slower.

/** A lease ends by itself after this time without a renewal, in milliseconds. */
const LEASE = 20 * 1000;
const RENEWAL = 5 * 1000;

/**
 * Runs `work` when nobody else of this browser does; gives whether it ran.
 *
 * @param {string} name
 * @param {import("./store.js").Store} store
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>}
 */
export async function alone(name, store, work) {
  const locks = globalThis.navigator?.locks;
  if (!locks) return leased(store, work);
  // Waits for whoever has it, and so goes on at once when that tab is closed.
  await locks.request(name, work);
  return true;
}

/** Nobody tells when the other one is done: who finds it at work leaves the work to it. */
async function leased(store, work) {
  const holder = crypto.getRandomValues(new Uint32Array(2)).join("-");
  if (!(await store.lease(holder, LEASE))) return false;
  const renewal = setInterval(() => store.lease(holder, LEASE).catch(() => {}), RENEWAL);
  try {
    await work();
  } finally {
    clearInterval(renewal);
    await store.release(holder);
  }
  return true;
}
