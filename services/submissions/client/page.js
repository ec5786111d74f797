// The page: a form at one side, what is kept and what was sent at the other.

import { Removed, StorageFull, open } from "./hydrant-submissions.js";
import { SchemaForm, element } from "./form.js";
import { Outbox, bytes, sentence, trouble } from "./outbox.js";
import { isAllowed } from "./schema.js";

const BASE = new URL("..", import.meta.url);
const IDENTITY = "hydrant-submissions identity";

const $ = (id) => document.getElementById(id);

class Page {
  #queue;
  #forms = [];
  /** The form that is shown: its definition, its inputs, its files. */
  #current = null;
  #files = [];
  #inputs = null;
  /** Something was typed that is not being written yet. */
  #isTyped = false;
  #writing = null;
  /** The one that was sent last: its user waits for the reference. */
  #last = null;
  #outbox = new Outbox({ unsent: $("unsent"), sent: $("sent") }, (action, id) => this.#act(action, id));

  async start() {
    followConnection();
    keepWorker();
    this.#queue = await open({ base: BASE.pathname, ...identity() });
    this.#queue.onchange = (list) => this.#show(list);
    this.#show(await this.#queue.list());
    this.#listen();
    this.#forms = await this.#queue.forms();
    this.#offer();
  }

  /** What its user waits for, once it is there. */
  #tellLast(list) {
    const last = list.find((one) => one.id === this.#last);
    if (!last || !(last.reference || last.there === "delivered" || last.state === "failed")) return;
    this.#last = null;
    if (last.state === "sent") say(last.reference ? `It is sent. The reference is ${last.reference}.` : "It is sent and delivered.");
    else say("");
  }

  #listen() {
    $("form").addEventListener("submit", (event) => (event.preventDefault(), this.#send()));
    $("form").addEventListener("input", ({ target }) => target.type === "file" || this.#typed());
    $("which").addEventListener("change", () => this.#open($("which").value));
    $("file").addEventListener("change", () => this.#attach());
    $("clear").addEventListener("click", () => this.#clear());
    $("now").addEventListener("click", () => this.#queue.sync({ now: true }));
    $("who").addEventListener("click", () => this.#askWho());
    addEventListener("pagehide", () => this.#keepNow());
    document.addEventListener("visibilitychange", () => document.hidden && this.#keepNow());
  }

  #offer() {
    $("which").replaceChildren(...this.#forms.map(({ name, schema }) => element("option", { value: name, textContent: schema.title || name })));
    $("choice").hidden = this.#forms.length < 2;
    if (this.#forms.length > 0) return this.#open(this.#forms[0].name);
    $("fields").replaceChildren(element("p", { className: "hint", textContent: "The service has no forms." }));
  }

  /** Shows a form with what was typed into it before. */
  async #open(name) {
    await this.#settled();
    this.#current = this.#forms.find((form) => form.name === name) ?? this.#forms[0];
    const draft = await this.#queue.draft(this.#current.name);
    this.#fill(draft);
  }

  #fill({ fields, files }) {
    const { name, schema, attachments } = this.#current;
    $("which").value = name;
    this.#inputs = new SchemaForm(schema, { values: fields });
    $("fields").replaceChildren(this.#inputs.element);
    $("attachments").hidden = !attachments;
    $("files-hint").textContent = attachments ? allowed(attachments) : "";
    $("file").accept = attachments?.types?.join(",") ?? "";
    this.#files = files;
    this.#showFiles();
  }

  #showFiles() {
    const rows = this.#files.map((file, at) => {
      const onclick = () => this.#detach(at);
      const button = element("button", { type: "button", className: "quiet", textContent: "Remove", ariaLabel: `Remove ${file.name}`, onclick });
      return element("li", {}, picture(file), element("span", { textContent: `${file.name}, ${bytes(file.size)}` }), button);
    });
    $("files").replaceChildren(...rows);
    $("files-note").textContent = this.#wrongFiles();
  }

  #attach() {
    this.#files = [...this.#files, ...$("file").files];
    $("file").value = "";
    this.#showFiles();
    this.#keepFiles();
  }

  #detach(at) {
    this.#files = this.#files.filter((_, other) => other !== at);
    this.#showFiles();
    $("file").focus();
    this.#keepFiles();
  }

  #wrongFiles() {
    const { maxCount = Infinity, maxSize = Infinity, types } = this.#current?.attachments ?? {};
    if (this.#files.length > maxCount) return `At most ${maxCount} files can be attached.`;
    const large = this.#files.find((file) => file.size > maxSize);
    if (large) return `${large.name} is larger than ${bytes(maxSize)}.`;
    const other = this.#files.find((file) => !isAllowed(file.type, types));
    return other ? `${other.name} is of a kind that can't be attached here.` : "";
  }

  #typed() {
    say("");
    this.#isTyped = true;
    this.#writing ??= this.#keepTyped().finally(() => (this.#writing = null));
  }

  /** One write after the other, each with all that was typed until then. */
  async #keepTyped() {
    while (this.#isTyped) await this.#keepNow();
  }

  /** Writes what is typed. A page that is left can do no more than to begin it. */
  async #keepNow() {
    if (!this.#isTyped) return;
    this.#isTyped = false;
    await this.#keep({ fields: this.#inputs.value });
  }

  /** Nothing of a draft is being written any more, and nothing will be. */
  async #settled() {
    await this.#keepNow();
    await this.#writing;
  }

  #keepFiles() {
    alarm("");
    return this.#keep({ files: this.#files });
  }

  #keep(draft) {
    const kept = this.#queue.keepDraft(this.#current.name, draft);
    return kept.catch((error) => alarm(unkept(error)));
  }

  async #send() {
    if (!this.#inputs || $("all").disabled) return;
    if (this.#inputs.check().length > 0) return;
    const files = $("attachments").hidden ? [] : this.#files;
    if (files.length > 0 && this.#wrongFiles()) return $("file").focus();
    const { name } = this.#current;
    $("all").disabled = true;
    try {
      // What is still being written of the draft must not come after the draft is gone.
      await this.#settled();
      this.#last = await this.#queue.add({ form: name, fields: this.#inputs.value, files });
      alarm("");
      this.#fill({ fields: {}, files: [] });
      say(navigator.onLine ? "It is kept on this device and on its way." : "It is kept on this device, and sent when there is a connection.");
    } catch (error) {
      alarm(unkept(error));
    } finally {
      $("all").disabled = false;
      $("fields").querySelector("input, select, textarea")?.focus();
    }
  }

  async #clear() {
    if (this.#isBlank() || !(await confirmed("Clear the form?", "What you have entered and attached is gone then.", "Clear"))) return;
    await this.#settled();
    await this.#queue.dropDraft(this.#current.name);
    this.#fill({ fields: {}, files: [] });
    alarm("");
    say("");
  }

  async #act(action, id) {
    try {
      if (action === "retry") await this.#queue.retry(id);
      if (action === "remove") await this.#remove(id);
      if (action === "correct") await this.#correct(id);
    } catch (error) {
      alarm(error instanceof Removed ? "It was sent or removed meanwhile." : unkept(error));
    }
  }

  async #remove(id) {
    const one = (await this.#queue.list()).find((one) => one.id === id);
    const text = one?.state === "failed"
      ? "It was not accepted. Nothing of it is kept then."
      : "It will not be sent, unless it is on its way already. Nothing of it is kept on this device then.";
    if (await confirmed("Remove it?", text, "Remove")) await this.#queue.remove(id);
  }

  /** What was refused goes back into the form, with what is wrong beside the fields. */
  async #correct(id) {
    if (!this.#isBlank()) return alarm("Send or clear first what is in the form now.");
    say("");
    await this.#settled();
    const { form, problem, ...draft } = await this.#queue.correct(id);
    this.#current = this.#forms.find(({ name }) => name === form) ?? this.#current;
    this.#fill(draft);
    const unplaced = this.#inputs.show(problem?.errors ?? []).filter(({ pointer }) => !this.#inputs.has(pointer));
    if (!problem?.errors || unplaced.length > 0) alarm(problem?.title ?? "");
    $("new-title").scrollIntoView({ block: "nearest" });
  }

  #isBlank() {
    const blank = new SchemaForm(this.#current.schema).value;
    return this.#files.length === 0 && JSON.stringify(this.#inputs.value) === JSON.stringify(blank);
  }

  async #askWho() {
    const known = identity();
    $("store").value = known.storeId;
    $("user").value = known.userId;
    if ((await answer($("identity"))) !== "keep") return;
    const next = { storeId: $("store").value.trim(), userId: $("user").value.trim() };
    localStorage.setItem(IDENTITY, JSON.stringify(next));
    this.#queue.sender = next;
    showIdentity();
  }

  async #show(list) {
    this.#outbox.show(list);
    this.#tellLast(list);
    const waiting = list.filter((one) => ["waiting", "sending"].includes(one.state));
    const count = list.filter((one) => one.state !== "sent").length;
    $("none").hidden = count > 0;
    $("trouble").textContent = trouble(list);
    $("now").hidden = waiting.length === 0;
    $("sent-title").hidden = count === list.length;
    $("unsent-title").textContent = count > 0 ? `Not sent yet (${count})` : "Not sent yet";
    document.title = count > 0 ? `(${count}) Submissions` : "Submissions";
    navigator.setAppBadge?.(count).catch(() => {});
    $("storage").textContent = await this.#promise();
  }

  /** How much room there is, browsers don't tell truly any more; whether they keep what is here, they do. */
  async #promise() {
    const { persisted } = await this.#queue.storage();
    const kept = persisted
      ? "The browser has promised to keep all this."
      : "The browser may clear all this when the device runs out of room. It promises not to when the page is installed.";
    return isSecureContext ? kept : `${kept} Without HTTPS this page can't be opened without a connection.`;
  }
}

function picture(file) {
  if (!/^image\/(png|jpeg|gif|webp|avif)$/.test(file.type)) {
    const kind = /\.(\w{1,4})$/.exec(file.name)?.[1] ?? "file";
    return element("span", { className: "kind", ariaHidden: "true", textContent: kind.toUpperCase() });
  }
  const src = URL.createObjectURL(file);
  const forget = () => URL.revokeObjectURL(src);
  return element("img", { src, alt: "", onload: forget, onerror: forget });
}

function allowed({ maxCount, maxSize, types }) {
  const kinds = types?.length ? `: ${types.map(kind).join(", ")}` : "";
  return `Up to ${maxCount} files of at most ${bytes(maxSize)}${kinds}.`;
}

function kind(pattern) {
  const [group, name] = pattern.split("/");
  if (name === "*") return `${group}s`;
  return name === "plain" ? "plain text" : name.toUpperCase();
}

function unkept(error) {
  const here = "What you have entered is still here, in the form, until you leave this page.";
  if (error instanceof StorageFull) return `${sentence(error.message)} Free some room, or attach less. ${here}`;
  return `It can't be kept on this device: ${sentence(String(error?.message ?? error))} ${here}`;
}

function say(text) {
  $("said").textContent = text;
}

function alarm(text) {
  $("alarm").textContent = text;
  $("alarm").hidden = text === "";
}

/** Asks whether something shall be done that can't be undone. */
async function confirmed(title, text, yes) {
  $("question-title").textContent = title;
  $("question-text").textContent = text;
  $("question-yes").textContent = yes;
  return (await answer($("question"))) === "yes";
}

/** Opens a dialog; the value of the button that closed it. */
function answer(dialog) {
  return new Promise((resolve) => {
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
    dialog.showModal();
  });
}

function identity() {
  try {
    const { storeId = "", userId = "" } = JSON.parse(localStorage.getItem(IDENTITY)) ?? {};
    return { storeId: String(storeId), userId: String(userId) };
  } catch {
    return { storeId: "", userId: "" };
  }
}

function showIdentity() {
  const { storeId, userId } = identity();
  const words = [storeId && `Store ${storeId}`, userId].filter(Boolean).join(" · ");
  $("who").textContent = words || "Who are you?";
}

function followConnection() {
  const show = () => {
    $("connection").textContent = navigator.onLine ? "Online" : "Offline";
    $("connection").classList.toggle("off", !navigator.onLine);
  };
  addEventListener("online", show);
  addEventListener("offline", show);
  show();
  showIdentity();
}

/** How long after a failure the page is to be kept again, in milliseconds. */
const KEEP_AGAIN = 5000;

/** Keeps the page for times without a connection. A newer version is taken when the page begins, or when asked. */
async function keepWorker() {
  const workers = navigator.serviceWorker;
  if (!workers) return;
  const hadOne = workers.controller !== null;
  let isAsked = false;
  workers.addEventListener("controllerchange", () => isAsked && location.reload());
  const activate = (worker) => {
    isAsked = true;
    worker.postMessage("activate");
  };
  try {
    const registration = await workers.register(new URL("worker.js", BASE), { type: "module" });
    if (registration.waiting && hadOne) return activate(registration.waiting);
    registration.addEventListener("updatefound", () => offerUpdate(registration.installing, activate));
    const { installing, active } = registration;
    // A file did not come, as when the line broke: without a worker there is nobody else to load it again.
    const again = () => installing.state === "redundant" && setTimeout(keepWorker, KEEP_AGAIN);
    if (!active) installing?.addEventListener("statechange", again);
  } catch (error) {
    console.warn("this page can't be opened without a connection yet:", error);
    if (isSecureContext) setTimeout(keepWorker, KEEP_AGAIN);
  }
}

function offerUpdate(worker, activate) {
  worker.addEventListener("statechange", () => {
    if (worker.state !== "installed" || !navigator.serviceWorker.controller) return;
    $("reload").onclick = () => activate(worker);
    $("update").hidden = false;
  });
}

new Page().start().catch((error) => {
  $("fields").replaceChildren();
  alarm(`The page can't work here: ${error?.message ?? error}`);
});
