// The list of what is kept: one row for each submission, made once and changed in place, so that nothing that a
// user has under the finger or a reader is at is replaced.

import { element } from "./form.js";

const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const HOUR = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const UNITS = ["B", "KB", "MB", "GB"];

/** A number of bytes for people. */
export function bytes(count) {
  let at = 0;
  for (; count >= 1024 && at < UNITS.length - 1; at += 1) count /= 1024;
  return `${at === 0 || count >= 10 ? Math.round(count) : count.toFixed(1)} ${UNITS[at]}`;
}

export class Outbox {
  #unsent;
  #sent;
  #act;
  #rows = new Map();

  /**
   * @param {{ unsent: HTMLElement, sent: HTMLElement }} lists
   * @param {(action: "correct" | "retry" | "remove", id: string) => void} act
   */
  constructor({ unsent, sent }, act) {
    this.#unsent = unsent;
    this.#sent = sent;
    this.#act = act;
  }

  /** Shows a list as the queue gives it: what was sent last stands first, the rest in its order. */
  show(list) {
    const ids = new Set(list.map((one) => one.id));
    for (const [id, row] of this.#rows) {
      if (!ids.has(id)) this.#drop(id, row);
    }
    this.#place(this.#unsent, list.filter((one) => one.state !== "sent"));
    this.#place(this.#sent, list.filter((one) => one.state === "sent").reverse());
  }

  #drop(id, row) {
    row.item.remove();
    this.#rows.delete(id);
  }

  #place(parent, list) {
    list.forEach((one, at) => {
      const row = this.#row(one);
      row.change(one);
      if (parent.children[at] !== row.item) parent.insertBefore(row.item, parent.children[at] ?? null);
    });
  }

  #row(one) {
    if (!this.#rows.has(one.id)) this.#rows.set(one.id, makeRow(one, this.#act));
    return this.#rows.get(one.id);
  }
}

function makeRow(one, act) {
  const title = element("p", { className: "title", textContent: titleOf(one) });
  const made = element("p", { className: "hint", textContent: describe(one) });
  const state = element("p", { className: "state" });
  const bar = element("progress", { max: 1, ariaLabel: `How much of ${titleOf(one)} is sent` });
  const problem = element("p", { className: "problem" });
  const button = (action, textContent) => {
    const onclick = () => act(action, one.id);
    return element("button", { type: "button", className: action === "remove" ? "quiet" : "", textContent, onclick, ariaLabel: `${textContent}: ${titleOf(one)}` });
  };
  const [correct, retry, remove] = [button("correct", "Correct"), button("retry", "Try again"), button("remove", "Remove")];
  const actions = element("div", { className: "actions" }, correct, retry, remove);
  const item = element("li", {}, title, made, state, bar, problem, actions);
  item.dataset.id = one.id;
  const change = (one) => {
    item.dataset.state = one.state;
    state.className = `state ${one.state}`;
    set(state, ...stateOf(one));
    bar.hidden = !(one.files.length > 0 && ["waiting", "sending"].includes(one.state) && sentPart(one) > 0);
    bar.value = sentPart(one);
    const words = problemOf(one);
    problem.hidden = words === "";
    set(problem, words);
    correct.hidden = retry.hidden = one.state !== "failed";
    remove.hidden = one.state === "sent" || one.state === "sending";
    actions.hidden = correct.hidden && remove.hidden;
  };
  return { item, change };
}

/** Changes what is shown only where it differs: a screen reader says nothing twice. */
function set(parent, ...parts) {
  const text = parts.map((part) => part.textContent ?? part).join("");
  if (parent.textContent !== text) parent.replaceChildren(...parts);
}

/** What somebody would call it: the first text that was entered. */
function titleOf({ form, fields }) {
  const texts = Object.values(fields).filter((value) => typeof value === "string" && value.trim() !== "");
  const text = texts[0] ?? form;
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}

function describe({ form, madeAt, files, sender }) {
  const parts = [form, TIME.format(madeAt)];
  if (sender.userId) parts.push(sender.userId);
  if (files.length > 0) {
    const size = files.reduce((sum, file) => sum + file.size, 0);
    parts.push(`${files.length === 1 ? files[0].name : `${files.length} files`}, ${bytes(size)}`);
  }
  return parts.join(" · ");
}

function stateOf(one) {
  switch (one.state) {
    case "sending":
      return [one.files.length > 0 ? `Sending, ${Math.floor(sentPart(one) * 100)} %` : "Sending"];
    case "failed":
      return ["Not accepted"];
    case "sent":
      return [`Sent ${TIME.format(one.sentAt)}`, ...afterwards(one)];
    default:
      return ["Kept on this device"];
  }
}

function afterwards({ reference, there }) {
  if (reference) return [" · Reference ", element("span", { className: "reference", textContent: reference })];
  if (there === "dropped") return [" · It was taken out of the delivery by an operator"];
  return there === "delivered" ? [" · Delivered"] : [" · The reference follows"];
}

/** What is in the way of one submission. That nobody answers is no matter of one. */
function problemOf({ problem, retryAt }) {
  if (!problem?.status && retryAt) return "";
  return words(problem, retryAt);
}

/** What is in the way of all that waits. */
export function trouble(list) {
  const silent = list.filter(({ state, problem }) => state === "waiting" && problem && !problem.status);
  const [first] = silent.sort((a, b) => a.retryAt - b.retryAt);
  return first ? words(first.problem, first.retryAt) : "";
}

function words(problem, retryAt) {
  if (!problem) return "";
  const errors = (problem.errors ?? []).map(({ pointer, message }) => `${pointer.slice(1)}: ${message}`);
  const words = [problem.title, ...errors, problem.mend].filter(Boolean).map(sentence);
  if (retryAt) words.push(`Next attempt at ${HOUR.format(retryAt)}.`);
  return words.join(" ");
}

/** A text that stands alone: with a capital and a full stop. */
export function sentence(text) {
  const begun = text[0].toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

/** The part of the files' bytes that the service has. */
function sentPart({ files }) {
  const size = files.reduce((sum, file) => sum + file.size, 0);
  return size === 0 ? 0 : files.reduce((sum, file) => sum + file.sent, 0) / size;
}
