// One submission, from here to the service: post, attach, submit. Each step may be repeated under the
// submission's id until it is answered, so whatever happens in between, the service has it once.

import { Later, Refused, judge, read, unreachable } from "./answers.js";
import { attach } from "./upload.js";

/** How long the service may take to answer, in milliseconds: a chunk goes over bad Wi-Fi. */
const PATIENCE = 120 * 1000;

/** The longest text that the service takes of who sends, in bytes. */
const LONGEST_NAME = 100;

/** How often a submission that the service had accepted may be unknown to it before a human is asked. */
const RESTARTS = 5;

/**
 * What a step needs besides the submission.
 *
 * @param {object} setup
 * @param {string} setup.base the URL of the service without a slash at its end
 * @param {object} setup.one the submission's record
 * @param {(change: object) => Promise<object>} setup.save keeps a change of the record, and gives the new one
 * @param {(key: string) => Promise<Blob>} setup.blob the bytes of an attachment
 * @param {typeof fetch} [setup.fetch]
 */
export function wayOf({ base, one, save, blob, fetch = globalThis.fetch.bind(globalThis) }) {
  const way = {
    one,
    blob,
    async save(change) {
      way.one = await save(change);
      return way.one;
    },
    file: (key) => way.one.files.find((file) => file.key === key),
    async saveFile(key, change) {
      const files = way.one.files.map((file) => (file.key === key ? { ...file, ...change } : file));
      await way.save({ files });
      return way.file(key);
    },
    request: (method, path, { headers = {}, body } = {}) =>
      request(fetch, `${base}${path}`, { method, body, headers: { ...headers, ...context(one) } }),
  };
  return way;
}

/** Who made it: kept with it, since another one may have the tablet in hand when it is sent. */
function context({ id, sender }) {
  const headers = { "Correlation-Id": id };
  const told = { "X-Store-Id": sender.storeId, "X-User-Id": sender.userId, "X-Session-Id": sender.sessionId };
  for (const [name, value] of Object.entries(told)) if (value) headers[name] = headerText(value);
  return headers;
}

/** Headers are ASCII: other letters are written as in URLs, and what is too long is cut. */
function headerText(value) {
  const safe = [...value].map((letter) => (/[\x20-\x7e]/.test(letter) ? letter : percent(letter)));
  let text = "";
  for (const part of safe) {
    if (text.length + part.length > LONGEST_NAME) break;
    text += part;
  }
  return text;
}

function percent(letter) {
  const bytes = new TextEncoder().encode(letter);
  return [...bytes].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
}

async function request(fetch, url, options) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE);
  try {
    // A redirect leads to somebody else, as the login page of a Wi-Fi.
    const settings = { ...options, signal: abort.signal, cache: "no-store", redirect: "error" };
    return await read(await fetch(url, settings));
  } catch (error) {
    throw unreachable(error);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Takes a submission as far as it goes: until the service has closed it, which means that it is kept there and
 * will be delivered.
 *
 * @throws {Later | Refused}
 */
export async function deliver(way) {
  if (!way.one.acceptedAt) await post(way);
  try {
    if (way.one.files.length > 0) await attach(way.one, way);
    await submit(way);
  } catch (error) {
    throw await unknownThere(error, way);
  }
}

async function post(way) {
  const headers = { "Content-Type": "application/json" };
  const answer = await way.request("POST", "/v1/submissions", { headers, body: way.one.body });
  if (answer.status !== 201 || answer.body?.id !== way.one.id) throw judge(answer);
  await way.save({ acceptedAt: Date.now() });
}

async function submit(way) {
  const answer = await way.request("POST", `/v1/submissions/${way.one.id}/submit`);
  const isClosed = answer.status === 200 || answer.status === 202;
  if (!isClosed || answer.body?.id !== way.one.id) throw judge(answer);
  await way.save({ state: "sent", sentAt: Date.now(), ...outcome(answer.body) });
}

/**
 * A service that does not know what it had accepted has lost its last seconds, as after a fail-over to a copy
 * that was behind: then all begins anew, under the same id.
 */
async function unknownThere(error, way) {
  const restarts = way.one.restarts ?? 0;
  if (!(error instanceof Refused) || error.problem.status !== 404 || restarts >= RESTARTS) return error;
  const files = way.one.files.map((file) => ({ ...file, upload: null, offset: 0 }));
  await way.save({ acceptedAt: null, files, restarts: restarts + 1 });
  return new Later(error.problem);
}

/**
 * Asks what became of a submission that was sent.
 *
 * @throws {Later}
 */
export async function follow(way) {
  const answer = await way.request("GET", `/v1/submissions/${way.one.id}`);
  // After a while the service forgets it, and there is nothing more to learn.
  if (judge(answer) instanceof Refused) return way.save({ followed: true });
  if (answer.status !== 200 || answer.body?.id !== way.one.id) throw judge(answer);
  return way.save(outcome(answer.body));
}

/** What the service says of a submission that it has closed. */
function outcome({ state, reference }) {
  const change = { there: state, followed: state === "delivered" || state === "dropped" };
  if (typeof reference === "string" && reference !== "") change.reference = reference;
  return change;
}
