// The service as the contract has it, in memory, with a line that breaks when it is told to.

const JSON_TYPE = { "content-type": "application/json" };

export class FakeService {
  submissions = new Map();
  /** Each call so far, as `POST /v1/submissions`. */
  calls = [];
  #uploads = 0;
  /** Called before and after each request with its line; may throw, or give an answer of its own. */
  before = () => null;
  after = () => {};
  /** The same as `fetch`. */
  fetch = async (url, { method = "GET", headers = {}, body } = {}) => {
    const path = new URL(url, "http://service").pathname.replace(/^\/api\/submissions/, "");
    const line = `${method} ${path}`;
    this.calls.push(line);
    const instead = await this.before(line, body);
    if (instead) return instead;
    const answer = await this.#answer(method, path, new Headers(headers), body);
    await this.after(line);
    return answer;
  };

  async #answer(method, path, headers, body) {
    const [, , id, part, upload] = path.split("/").slice(1);
    if (method === "POST" && path === "/v1/submissions") return this.#post(headers.get("correlation-id"), body);
    const one = this.submissions.get(id);
    if (!one) return problem(404, "unknown_submission");
    if (method === "GET" && !part) return json(200, this.#view(one));
    if (method === "POST" && part === "submit") return this.#submit(one);
    if (part !== "attachments") return problem(404, "no_such_page");
    if (method === "OPTIONS") return new Response(null, { status: 204, headers: { "tus-checksum-algorithm": "sha1,sha256" } });
    if (method === "POST") return this.#create(one, headers);
    const file = one.uploads.get(upload);
    if (!file) return problem(404, "unknown_upload");
    if (method === "HEAD") return empty(200, file);
    if (method === "DELETE") return one.uploads.delete(upload), new Response(null, { status: 204 });
    return this.#patch(one, file, headers, body);
  }

  #post(id, body) {
    const one = this.submissions.get(id);
    if (one && one.body !== body) return problem(422, "key_reused");
    this.submissions.set(id, one ?? { id, body, state: "open", submits: 0, uploads: new Map() });
    return json(201, { id, state: "open" });
  }

  #view({ id, state, uploads }) {
    const attachments = [...uploads.values()].map(({ id, name, size, bytes }) => ({ id, name, size, offset: bytes.length }));
    return { id, state, attachments, ...(state === "open" ? {} : { reference: `R-${id.slice(0, 4)}` }) };
  }

  #submit(one) {
    if ([...one.uploads.values()].some((file) => file.bytes.length < file.size)) return problem(409, "attachments_unfinished");
    if (one.state === "open") one.submits += 1;
    one.state = "delivered";
    return json(200, this.#view(one));
  }

  #create(one, headers) {
    if (one.state !== "open") return problem(403, "submission_closed");
    const id = `u${(this.#uploads += 1)}`;
    const named = headers.get("upload-metadata").split(",").map((pair) => pair.split(" "));
    const name = Buffer.from(Object.fromEntries(named).filename, "base64").toString();
    one.uploads.set(id, { id, name, size: Number(headers.get("upload-length")), bytes: Buffer.alloc(0) });
    const location = `/api/submissions/v1/submissions/${one.id}/attachments/${id}`;
    return new Response(null, { status: 201, headers: { location } });
  }

  async #patch(one, file, headers, body) {
    if (one.state !== "open") return problem(403, "submission_closed");
    if (Number(headers.get("upload-offset")) !== file.bytes.length) return problem(409, "wrong_offset");
    const [name, expected] = (headers.get("upload-checksum") ?? "").split(" ");
    const hash = expected && Buffer.from(await crypto.subtle.digest(name.replace("sha", "SHA-"), body)).toString("base64");
    if (hash !== expected && expected) return problem(460, "wrong_checksum");
    file.bytes = Buffer.concat([file.bytes, Buffer.from(body)]);
    return empty(204, file);
  }
}

export function problem(status, reason, more = {}, headers = {}) {
  const body = JSON.stringify({ status, reason, title: reason, detail: `it is ${reason}`, ...more });
  return new Response(body, { status, headers: { "content-type": "application/problem+json", ...headers } });
}

export function json(status, body) {
  return new Response(JSON.stringify(body), { status, headers: JSON_TYPE });
}

function empty(status, file) {
  return new Response(null, { status, headers: { "upload-offset": String(file.bytes.length) } });
}
