// Submissions that survive: kept in the browser's database until the service has them, each exactly once.
//
//   import { open } from "/api/submissions/client/hydrant-submissions.js";
//   const queue = await open({ base: "/api/submissions", storeId: "0815", userId: "ada" });
//   await queue.add({ form: "demo", fields: { name: "Ada" }, files: [file] });

import { Later, Refused } from "./answers.js";
import { deliver, follow, wayOf } from "./deliver.js";
import { alone } from "./lock.js";
import { backOff } from "./pace.js";
import { Removed, StorageFull, Store } from "./store.js";

export { Removed, StorageFull };

/** The name under which a service worker hears that there is a connection again. */
export const SYNC_TAG = "hydrant-submissions";

const DAY = 24 * 60 * 60 * 1000;
/** How long a submission is shown after it was sent, and how many at most. */
const KEPT = 7 * DAY;
const MAX_KEPT = 200;
/** No wait is longer: a clock that was set forward and back must not strand anything. */
const LONGEST_WAIT = 60 * 60 * 1000;
/** What is left free on the device, in bytes. */
const RESERVE = 5 * 1024 * 1024;
/** How long to leave the work to another tab before looking again, in milliseconds. */
const OTHERS_TURN = 3000;
/** The longest delay after the connection is back, in milliseconds: not all tablets at once. */
const SPREAD = 1500;

/**
 * Opens the queue of a service; it begins to send what is waiting.
 *
 * @param {{ base: string, storeId?: string, userId?: string, sessionId?: string }} options
 * @returns {Promise<Queue>}
 */
export async function open(options) {
  const queue = new Queue(options);
  await queue.list();
  queue.start();
  return queue;
}

export class Queue {
  /** Called with the new list after each change, also by other tabs. */
  onchange = null;
  #base;
  #sender;
  #store;
  #name;
  #channel;
  #abort = new AbortController();
  #running = null;
  #isAskedAgain = false;
  #timer = null;
  #told = null;
  #askedToPersist = false;
  /** How often in a row nobody answered, and when the next attempt is due. */
  #silences = 0;
  #quietUntil = 0;
  /** The submission that is on its way now, here or in another tab. */
  #sending = null;

  constructor({ base, storeId = "", userId = "", sessionId = uuid() }) {
    this.#base = String(base).replace(/\/+$/, "");
    this.#sender = { storeId, userId, sessionId };
    this.#name = `hydrant-submissions ${new URL(this.#base, globalThis.location.href).pathname}`;
    this.#store = new Store(this.#name);
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => {
      this.#sending = data.sending;
      this.#tell();
    };
  }

  /** Begins to send by itself: now, later, and whenever there is a connection again. */
  start() {
    const { signal } = this.#abort;
    const wake = () => setTimeout(() => this.#wake(), Math.random() * SPREAD);
    globalThis.addEventListener("online", wake, { signal });
    const turned = () => (document.hidden ? this.#handOver() : wake());
    globalThis.document?.addEventListener("visibilitychange", turned, { signal });
    this.#wake();
  }

  /** Whose submissions the next ones are. */
  set sender({ storeId = "", userId = "" }) {
    this.#sender = { ...this.#sender, storeId, userId };
  }

  /**
   * Keeps a submission; when this is done, it survives. Gives its id, which it has for ever.
   *
   * @throws {StorageFull} when the device has no room; then nothing was kept
   */
  async add({ form, fields, files = [] }) {
    await this.#hasRoom(files);
    const named = [...files].map((file, at) => [String(at), file]);
    const one = {
      id: uuid(),
      form,
      fields,
      // The service tells a repeat by its content: what is sent never changes by a byte.
      body: JSON.stringify({ form, fields }),
      sender: this.#sender,
      madeAt: Date.now(),
      state: "waiting",
      files: named.map(([key, file]) => fileRecord(key, file)),
      attempts: 0,
      retryAt: 0,
      notBefore: 0,
    };
    await this.#store.add(one, named, form);
    this.#changed();
    this.#persist();
    this.#askWorker();
    this.sync().catch(report);
    return one.id;
  }

  /** What is kept, the oldest first. */
  async list() {
    const all = await this.#store.list();
    return all.map((one) => shown(one, this.#sending));
  }

  /** Forgets a submission. One that has not been sent will not be, unless it is under way right now. */
  async remove(id) {
    await this.#store.remove(id);
    this.#changed();
  }

  /** Tries one that failed once more. */
  async retry(id) {
    await this.#store.update(id, { state: "waiting", problem: null, retryAt: 0, notBefore: 0, restarts: 0 });
    this.#changed();
    await this.sync({ now: true });
  }

  /**
   * Makes one that failed the draft of its form again; corrected, it will be a new submission. Others can't be
   * corrected: they may have reached the service already.
   */
  async correct(id) {
    const one = await this.#store.get(id);
    if (one?.state !== "failed") throw new Removed("it is sent, or on its way, or not there any more");
    const { form, fields, problem } = one;
    const files = await Promise.all(one.files.map((file) => this.#fileOf(one, file)));
    await this.#store.toDraft(id, form, fields, files);
    this.#changed();
    return { form, fields, files, problem };
  }

  async #fileOf(one, { key, name, type }) {
    return new File([await this.#store.blob(one.id, key)], name, { type });
  }

  /** Keeps what the user has typed or attached and not sent yet. What is not given stays as it is. */
  async keepDraft(form, { fields, files }) {
    if (fields) await this.#store.keepDraft(form, "fields", fields);
    if (files) await this.#store.keepDraft(form, "files", [...files]);
  }

  /** What was kept of a form: nothing is `{ fields: {}, files: [] }`. */
  draft(form) {
    return this.#store.draft(form);
  }

  dropDraft(form) {
    return this.#store.dropDraft(form);
  }

  /** The forms of the service, or without a connection the ones that it had: `[{ name, schema, attachments }]`. */
  async forms() {
    try {
      const answer = await fetch(`${this.#base}/v1/forms`, { cache: "no-cache", redirect: "error" });
      const forms = answer.ok ? await answer.json() : null;
      if (!Array.isArray(forms)) throw new Error(`the service answered ${answer.status}`);
      await this.#store.set("forms", forms);
      return forms;
    } catch (error) {
      const kept = await this.#store.setting("forms");
      if (kept) return kept;
      throw error;
    }
  }

  /** How much room there is: bytes, and whether the browser has promised to keep it. */
  async storage() {
    const storage = globalThis.navigator?.storage;
    const { usage, quota } = (await storage?.estimate?.()) ?? {};
    return { usage, quota, persisted: (await storage?.persisted?.()) ?? false };
  }

  /**
   * Sends what is due; done when all of it was tried. With `now`, what waits for its next attempt is due too,
   * except for what the server wants to wait.
   */
  sync({ now = false } = {}) {
    if (now) this.#quietUntil = 0;
    if (this.#running) {
      this.#isAskedAgain ||= now;
      return this.#running;
    }
    this.#running = this.#sync(now).finally(() => {
      this.#running = null;
      this.#schedule();
    });
    return this.#running;
  }

  close() {
    this.#abort.abort();
    clearTimeout(this.#timer);
    this.#channel.close();
    this.#store.close();
  }

  async #sync(now) {
    do {
      this.#isAskedAgain = false;
      const ran = await alone(this.#name, this.#store, () => this.#pass(now));
      if (!ran) this.#quietUntil = Date.now() + OTHERS_TURN;
      now = true;
    } while (this.#isAskedAgain && !this.#abort.signal.aborted);
  }

  /** Each submission that is due once, the oldest first, until nobody answers. */
  async #pass(now) {
    const tried = new Set();
    while (!this.#abort.signal.aborted) {
      const one = (await this.#store.list()).find((one) => !tried.has(one.id) && isDue(one, now));
      if (!one) break;
      tried.add(one.id);
      if (!(await this.#try(one))) break;
    }
    await this.#forgetOld();
  }

  /** Takes one as far as it goes; whether the next one is worth trying. */
  async #try(one) {
    this.#announce(one.state === "sent" ? null : one.id);
    const before = progress(one);
    const way = this.#way(one);
    try {
      await (one.state === "sent" ? follow(way) : deliver(way));
      this.#silences = 0;
      // Somebody who waits for the reference number asks again soon.
      if (!way.one.followed) await way.save(nextLook(way.one));
    } catch (error) {
      return await this.#failed(error, way, progress(way.one) > before);
    } finally {
      this.#announce(null);
    }
    return true;
  }

  #way(one) {
    return wayOf({
      base: this.#base,
      one,
      blob: (key) => this.#store.blob(one.id, key),
      save: async (change) => {
        const next = await this.#store.update(one.id, change);
        this.#changed();
        return next;
      },
    });
  }

  async #failed(error, way, hasMoved) {
    if (error instanceof Removed) return true;
    if (error instanceof Refused) {
      await way.save({ state: "failed", problem: error.problem }).catch(ignoreRemoved);
      return true;
    }
    const problem = error instanceof Later ? error.problem : { title: String(error?.message ?? error) };
    const attempts = hasMoved ? 1 : (way.one.attempts ?? 0) + 1;
    const retryAt = Date.now() + backOff(attempts);
    const notBefore = Date.now() + (error.wait ?? 0);
    await way.save({ attempts, retryAt, notBefore, problem }).catch(ignoreRemoved);
    if (!error.everybody) return true;
    this.#silences = hasMoved ? 1 : this.#silences + 1;
    this.#quietUntil = Date.now() + Math.max(backOff(this.#silences), error.wait);
    return false;
  }

  /** The next attempt, when its time has come. */
  async #schedule() {
    if (this.#abort.signal.aborted) return;
    const all = await this.#store.list().catch(() => null);
    // A database that can't be read now is looked at again in a minute.
    const due = (one) => Math.max(one.retryAt, one.notBefore);
    const times = all?.filter(isUnfinished).map(due) ?? [Date.now() + 60_000];
    clearTimeout(this.#timer);
    if (times.length === 0) return;
    const next = Math.max(Math.min(...times), this.#quietUntil);
    const wait = Math.min(Math.max(next - Date.now(), 100), LONGEST_WAIT);
    this.#timer = setTimeout(() => this.sync().catch(report), wait);
  }

  #wake() {
    this.sync({ now: true }).catch(report);
  }

  async #forgetOld() {
    const sent = (await this.#store.list()).filter((one) => one.state === "sent");
    const isOld = (one, at) => one.sentAt < Date.now() - KEPT || at < sent.length - MAX_KEPT;
    for (const one of sent.filter(isOld)) await this.remove(one.id);
  }

  async #hasRoom(files) {
    const { usage, quota } = await this.storage();
    const needed = [...files].reduce((sum, file) => sum + file.size, 0) + RESERVE;
    if (quota === undefined || usage + needed <= quota) return;
    throw new StorageFull("the browser has no room left on this device for these files");
  }

  /** Asked when there is something to lose; browsers that ask the user do so then. */
  #persist() {
    if (this.#askedToPersist) return;
    this.#askedToPersist = true;
    globalThis.navigator?.storage?.persist?.().catch(() => {});
  }

  /** The page may be closed next, with something left. */
  async #handOver() {
    const all = await this.#store.list().catch(() => []);
    if (all.some((one) => one.state === "waiting")) await this.#askWorker();
  }

  /** A service worker, where the page has one, sends when the page is closed. */
  async #askWorker() {
    const registration = await globalThis.navigator?.serviceWorker?.getRegistration().catch(() => null);
    await registration?.sync?.register(SYNC_TAG).catch(() => {});
  }

  #announce(id) {
    this.#sending = id;
    this.#changed();
  }

  #changed() {
    if (this.#abort.signal.aborted) return;
    this.#channel.postMessage({ sending: this.#sending });
    this.#tell();
  }

  /** Many changes at once are told once. */
  #tell() {
    this.#told ??= setTimeout(async () => {
      this.#told = null;
      if (this.onchange && !this.#abort.signal.aborted) this.onchange(await this.list());
    }, 20);
  }
}

function fileRecord(key, file) {
  return { key, name: file.name || "attachment", type: file.type, size: file.size, upload: null, offset: 0 };
}

function isUnfinished(one) {
  return one.state === "waiting" || (one.state === "sent" && !one.followed);
}

function isDue(one, now) {
  if (!isUnfinished(one)) return false;
  const isPast = (time) => time <= Date.now() || time > Date.now() + LONGEST_WAIT;
  return isPast(one.notBefore) && ((now && one.state === "waiting") || isPast(one.retryAt));
}

/** Grows with everything that the service has taken. */
function progress(one) {
  return (one.acceptedAt ? 1 : 0) + one.files.reduce((sum, file) => sum + file.offset, 0);
}

function nextLook(one) {
  const looks = (one.looks ?? 0) + 1;
  return { looks, attempts: 0, retryAt: Date.now() + backOff(looks), notBefore: 0 };
}

/** A submission as pages see it. */
function shown(one, sending) {
  const { id, form, fields, sender, madeAt, sentAt, reference, retryAt, notBefore, there } = one;
  const files = one.files.map(({ name, type, size, offset }) => ({ name, type, size, sent: offset }));
  const isSending = one.state === "waiting" && id === sending;
  const state = isSending ? "sending" : one.state;
  const problem = one.state === "sent" || isSending ? null : (one.problem ?? null);
  return { id, form, fields, files, sender, state, madeAt, sentAt, reference, there, problem, ...next() };

  function next() {
    return state === "waiting" && problem ? { retryAt: Math.max(retryAt, notBefore) } : {};
  }
}

function ignoreRemoved(error) {
  if (!(error instanceof Removed)) throw error;
}

function report(error) {
  console.warn("hydrant-submissions:", error);
}

/** A random UUID, also on pages without TLS, where `crypto.randomUUID` is missing. */
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
