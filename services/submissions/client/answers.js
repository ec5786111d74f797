// What an answer means for the submission that it is about: go on, try later, or ask a human.

/** Statuses that say the same however often one asks, when the service itself says them. */
const FINAL = new Set([400, 403, 404, 405, 410, 411, 413, 415, 422]);

/** It was closed by an attempt whose answer was lost, and the next one sees that. */
const CLOSED = "submission_closed";

/** Reasons of the node on the way: the service has not seen the request, and may come back. */
const ON_THE_WAY = new Set([
  "no_such_service",
  "no_such_endpoint",
  "no_such_server",
  "invalid_token",
  "tier_refused",
  "bad_request",
]);

/** Statuses that tell of the service, or of the way to it, and not of one submission. */
const NOBODY_SERVES = new Set([408, 429, 502, 503, 504]);

/** The longest wait that a server may ask for, in milliseconds. */
const LONGEST_WAIT = 60 * 60 * 1000;

/** It did not go on now, and may at another time. */
export class Later extends Error {
  /**
   * @param {{ title: string, mend?: string, status?: number, reason?: string }} problem
   * @param {{ wait?: number, everybody?: boolean }} [when] `wait`: milliseconds that the server asks for;
   *   `everybody`: the other submissions of the queue would fare the same
   */
  constructor(problem, { wait = 0, everybody = false } = {}) {
    super(problem.title);
    this.problem = problem;
    this.wait = wait;
    this.everybody = everybody;
  }
}

/** The service has said no, and will say it again: somebody has to change something. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.title);
    this.problem = problem;
  }
}

/**
 * Reads the whole of an answer.
 * @param {Response} response
 */
export async function read(response) {
  const type = response.headers.get("content-type") ?? "";
  const isJson = /^application\/(problem\+)?json\b/i.test(type);
  const text = isJson ? await response.text() : "";
  let body = null;
  try {
    body = text === "" ? null : JSON.parse(text);
  } catch {
    // A body that was cut off says nothing; the status does.
  }
  return { status: response.status, headers: response.headers, body };
}

/**
 * Why a request that was not answered as hoped did not succeed: a [Later] or a [Refused].
 *
 * Only the service ends a submission, in its own words: a login page of the Wi-Fi, a proxy on the way or a
 * node that is just starting may answer anything, and none of it is final.
 */
export function judge({ status, headers, body }) {
  const isOurs = typeof body?.reason === "string" && !ON_THE_WAY.has(body.reason);
  const problem = words(status, body);
  const isFinal = FINAL.has(status) && body?.retryable !== true && body?.reason !== CLOSED;
  if (isOurs && isFinal) return new Refused(problem);
  const wait = retryAfter(headers.get("retry-after"));
  const everybody = NOBODY_SERVES.has(status) || (!isOurs && status < 500);
  return new Later(problem, { wait, everybody });
}

function words(status, body) {
  if (typeof body?.reason !== "string") {
    const title = `something on the way answered ${status} instead of the service`;
    return { status, title, mend: "it is tried again by itself; look whether the network wants a login" };
  }
  const problem = { status, reason: body.reason, title: text(body.detail) || text(body.title) || body.reason };
  if (text(body.mend)) problem.mend = body.mend;
  if (Array.isArray(body.errors)) problem.errors = body.errors.slice(0, 100).map(fieldError);
  return problem;
}

function fieldError(error) {
  return { pointer: text(error?.pointer), message: text(error?.message) };
}

function text(value) {
  return typeof value === "string" ? value : "";
}

/** `Retry-After` in milliseconds: seconds or a date; 0 where it is missing or makes no sense. */
export function retryAfter(value, now = Date.now()) {
  if (!value) return 0;
  const wait = /^\s*\d+\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
  return Number.isFinite(wait) ? Math.min(Math.max(wait, 0), LONGEST_WAIT) : 0;
}

/** Nobody answered at all. */
export function unreachable(error) {
  const isSlow = error?.name === "AbortError" || error?.name === "TimeoutError";
  const title = isSlow ? "the server did not answer in time" : "the server can't be reached";
  return new Later({ title, mend: "it is sent by itself when there is a connection" }, { everybody: true });
}
