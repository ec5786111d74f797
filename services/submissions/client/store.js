// What is kept in the browser's database: submissions, the bytes of their attachments, and drafts.
// Each function is one transaction: it has happened whole, or not at all.

const VERSION = 1;

/** Thrown when the browser has no room left; nothing was changed. */
export class StorageFull extends Error {
  name = "StorageFull";
}

/** Thrown when a submission is not there any more: somebody has removed it meanwhile. */
export class Removed extends Error {
  name = "Removed";
}

export class Store {
  #name;
  #opened = null;

  constructor(name) {
    this.#name = name;
  }

  /** Keeps a new submission with its files, and the draft that it was is gone. */
  add(one, blobs, draft) {
    return this.#write(["submissions", "files", "drafts"], (submissions, files, drafts) => {
      submissions.add(one);
      for (const [key, blob] of blobs) files.add(blob, [one.id, key]);
      if (draft) drafts.delete(range(draft));
    });
  }

  /** All submissions, the oldest first. */
  async list() {
    const all = await this.#read("submissions", (submissions) => submissions.getAll());
    return all.sort((a, b) => a.madeAt - b.madeAt);
  }

  get(id) {
    return this.#read("submissions", (submissions) => submissions.get(id));
  }

  /** The bytes of one file. */
  async blob(id, key) {
    const blob = await this.#read("files", (files) => files.get([id, key]));
    if (!blob) throw new Removed(`the file ${key} of ${id} is not kept any more`);
    return blob;
  }

  /** Changes a submission that is there, and gives the new record. What was sent needs its files no more. */
  async update(id, change) {
    let next;
    await this.#write(["submissions", "files"], (submissions, files) => {
      const asked = submissions.get(id);
      asked.onsuccess = () => {
        if (!asked.result) return;
        next = { ...asked.result, ...change };
        submissions.put(next);
        if (next.state === "sent") files.delete(range(id));
      };
    });
    if (!next) throw new Removed(`${id} was removed`);
    return next;
  }

  /** Makes a submission the draft of its form. */
  toDraft(id, form, fields, files) {
    return this.#write(["submissions", "files", "drafts"], (submissions, kept, drafts) => {
      submissions.delete(id);
      kept.delete(range(id));
      drafts.put(fields, [form, "fields"]);
      drafts.put(files, [form, "files"]);
    });
  }

  remove(id) {
    return this.#write(["submissions", "files"], (submissions, files) => {
      submissions.delete(id);
      files.delete(range(id));
    });
  }

  /** Keeps what a form has: `part` is "fields" or "files". Often called, and so not forced onto the disk. */
  keepDraft(form, part, value) {
    return this.#write(["drafts"], (drafts) => drafts.put(value, [form, part]), "relaxed");
  }

  async draft(form) {
    const fields = await this.#read("drafts", (drafts) => drafts.get([form, "fields"]));
    const files = await this.#read("drafts", (drafts) => drafts.get([form, "files"]));
    return { fields: fields ?? {}, files: files ?? [] };
  }

  dropDraft(form) {
    return this.#write(["drafts"], (drafts) => drafts.delete(range(form)));
  }

  setting(name) {
    return this.#read("settings", (settings) => settings.get(name));
  }

  set(name, value) {
    return this.#write(["settings"], (settings) => settings.put(value, name));
  }

  /** Takes or renews the lease for sending; whether `holder` has it now. */
  async lease(holder, length) {
    let has = false;
    await this.#write(["settings"], (settings) => {
      const asked = settings.get("lease");
      asked.onsuccess = () => {
        const { holder: other, until = 0 } = asked.result ?? {};
        // A clock that was set back must not make it last for ever.
        const isTaken = other !== holder && until > Date.now() && until <= Date.now() + length;
        has = !isTaken;
        if (has) settings.put({ holder, until: Date.now() + length }, "lease");
      };
    });
    return has;
  }

  release(holder) {
    return this.#write(["settings"], (settings) => {
      const asked = settings.get("lease");
      asked.onsuccess = () => asked.result?.holder === holder && settings.delete("lease");
    });
  }

  close() {
    this.#opened?.then((database) => database.close()).catch(() => {});
    this.#opened = null;
  }

  async #read(name, ask) {
    const transaction = (await this.#database()).transaction(name);
    return promise(ask(transaction.objectStore(name)));
  }

  /** Done when it is on the disk, or with "relaxed" when the browser has it. */
  async #write(names, work, durability = "strict") {
    const database = await this.#database();
    const transaction = database.transaction(names, "readwrite", { durability });
    const done = finished(transaction);
    try {
      work(...names.map((name) => transaction.objectStore(name)));
      // A page that is left at once breaks off what it has not committed.
      if (durability === "relaxed") transaction.commit?.();
    } catch (error) {
      done.catch(() => {});
      transaction.abort();
      throw explained(error);
    }
    await done;
  }

  /** Opened when it is needed, and again when the browser has closed it. */
  #database() {
    this.#opened ??= open(this.#name, () => (this.#opened = null)).catch((error) => {
      this.#opened = null;
      throw error;
    });
    return this.#opened;
  }
}

/** All keys that begin with this part. */
function range(part) {
  return IDBKeyRange.bound([part], [part, []]);
}

async function open(name, closed) {
  if (!globalThis.indexedDB) throw new Error("this browser has no database for pages: nothing can be kept here");
  const asked = indexedDB.open(name, VERSION);
  asked.onupgradeneeded = () => {
    asked.result.createObjectStore("submissions", { keyPath: "id" });
    for (const store of ["files", "drafts", "settings"]) asked.result.createObjectStore(store);
  };
  const database = await promise(asked);
  database.onversionchange = () => (database.close(), closed());
  database.onclose = closed;
  return database;
}

function promise(asked) {
  return new Promise((resolve, reject) => {
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(explained(asked.error));
  });
}

function finished(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(explained(transaction.error));
  });
}

function explained(error) {
  if (error?.name !== "QuotaExceededError") return error ?? new Error("the browser broke off writing");
  return new StorageFull("the browser has no room left on this device for what you want to keep");
}
