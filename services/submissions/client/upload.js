// Attachments: tus 1.0 uploads in chunks, resumed where the server says that it is.

import { Later, Refused, judge } from "./answers.js";
import { Pace } from "./pace.js";

const TUS = { "Tus-Resumable": "1.0.0" };

/** How often in a row the server may want another offset than we thought before this waits. */
const CORRECTIONS = 3;

/** The checksums of the tus protocol that browsers have too, the better one first. */
const CHECKSUMS = [
  ["sha256", "SHA-256"],
  ["sha1", "SHA-1"],
];

/** One pace for all: the connection is what makes chunks fast or slow. */
const pace = new Pace();

/**
 * Makes the server's list of attachments the same as ours, and uploads what is missing.
 *
 * @param {object} one the submission's record
 * @param {object} way see `deliver.js`
 */
export async function attach(one, way) {
  const { isOpen } = await agree(one, way);
  if (!isOpen) return;
  for (const { key } of way.one.files) await upload(one.id, key, way);
}

/**
 * Asks which attachments the server has. An upload that was created, and whose answer was lost, is ours when
 * nothing is in it yet, and else in the way: only this queue knows the submission, so all there is came from it.
 */
async function agree(one, way) {
  const answer = await way.request("GET", `/v1/submissions/${one.id}`);
  if (answer.status !== 200 || !Array.isArray(answer.body?.attachments)) throw judge(answer);
  // It was closed, and the answer was lost: nothing can be added any more, and nothing is missing.
  if (answer.body.state !== "open") return { isOpen: false };
  const theirs = new Map(answer.body.attachments.map((each) => [each.id, each]));
  let files = one.files.map((file) => known(file, theirs.get(file.upload)));
  for (const stray of theirs.values()) {
    if (files.some((file) => file.upload === stray.id)) continue;
    const at = files.findIndex((file) => isOurs(file, stray));
    if (at >= 0) files = files.with(at, { ...files[at], upload: stray.id, offset: 0 });
    else await terminate(one.id, stray.id, way);
  }
  await way.save({ files });
  return { isOpen: true };
}

/** What we know of a file, after the server said what it has of it. */
function known(file, theirs) {
  if (!theirs) return { ...file, upload: null, offset: 0 };
  return { ...file, offset: theirs.offset };
}

function isOurs(file, stray) {
  return file.upload === null && stray.offset === 0 && stray.name === file.name && stray.size === file.size;
}

async function terminate(id, upload, way) {
  const answer = await way.request("DELETE", path(id, upload), { headers: TUS });
  if (![204, 404, 410].includes(answer.status)) throw judge(answer);
}

async function upload(id, key, way) {
  let file = way.file(key);
  if (file.upload === null) file = await create(id, file, way);
  const blob = file.offset < file.size ? await way.blob(key) : null;
  for (let corrections = 0; file.offset < file.size; ) {
    const answer = await patch(id, file, blob, way);
    if (answer.status === 204) {
      const before = file.offset;
      file = await moved(file, answer, way);
      if (file.offset <= before) throw new Later({ title: `the upload of ${file.name} does not move` });
      corrections = 0;
    } else if ([409, 460].includes(answer.status) && corrections < CORRECTIONS) {
      // Another offset than we thought, or bytes that were damaged on the way: the server knows how far it is.
      corrections += 1;
      pace.broke();
      file = await ask(id, file, way);
    } else {
      throw await hopeless(file, answer, way);
    }
  }
}

async function create(id, file, way) {
  const headers = { ...TUS, "Upload-Length": String(file.size), "Upload-Metadata": metadata(file) };
  const answer = await way.request("POST", path(id), { headers });
  const upload = answer.headers.get("location")?.match(/\/([\w.~-]+)\/?$/)?.[1];
  if (answer.status !== 201 || !upload) throw judge(answer);
  return way.saveFile(file.key, { upload, offset: 0 });
}

/** How far the server is. */
async function ask(id, file, way) {
  const answer = await way.request("HEAD", path(id, file.upload), { headers: TUS });
  if (answer.status !== 200 && answer.status !== 204) throw await hopeless(file, answer, way);
  return moved(file, answer, way);
}

async function patch(id, file, blob, way) {
  const chunk = blob.slice(file.offset, Math.min(file.offset + pace.size, file.size));
  const bytes = await bytesOf(chunk, file);
  const headers = {
    ...TUS,
    ...(await checksum(bytes, id, way)),
    "Content-Type": "application/offset+octet-stream",
    "Upload-Offset": String(file.offset),
  };
  const began = Date.now();
  try {
    const answer = await way.request("PATCH", path(id, file.upload), { headers, body: bytes });
    pace.went(Date.now() - began);
    return answer;
  } catch (error) {
    pace.broke();
    throw error;
  }
}

/** A browser may lose a file that it kept: then no attempt helps, and the user has to attach it again. */
async function bytesOf(chunk, file) {
  try {
    return await chunk.arrayBuffer();
  } catch (error) {
    const title = `the browser can't read its copy of ${file.name} (${error.name})`;
    throw new Refused({ title, mend: "try again; if that does not help, correct it and attach the file again" });
  }
}

/** The new offset, as the server told it. One that can't be is no answer of the service. */
async function moved(file, answer, way) {
  const offset = Number(answer.headers.get("upload-offset") ?? NaN);
  if (!Number.isSafeInteger(offset) || offset < 0 || offset > file.size) throw judge(answer);
  return way.saveFile(file.key, { offset });
}

/** An upload that the server has no more begins anew; all else is judged as always. */
async function hopeless(file, answer, way) {
  if (![404, 410].includes(answer.status)) return judge(answer);
  await way.saveFile(file.key, { upload: null, offset: 0 });
  return new Later({ status: answer.status, title: `the upload of ${file.name} begins anew` });
}

/** The checksum of a chunk, where the server takes one and the browser can make it. */
async function checksum(bytes, id, way) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return {};
  way.checksums ??= await checksums(id, way);
  const algorithm = CHECKSUMS.find(([name]) => way.checksums.includes(name));
  if (!algorithm) return {};
  const hash = new Uint8Array(await subtle.digest(algorithm[1], bytes));
  return { "Upload-Checksum": `${algorithm[0]} ${base64(hash)}` };
}

async function checksums(id, way) {
  const answer = await way.request("OPTIONS", path(id));
  const names = answer.headers.get("tus-checksum-algorithm") ?? "";
  return names.split(",").map((name) => name.trim());
}

function metadata({ name, type }) {
  const pairs = [["filename", name]];
  if (type) pairs.push(["filetype", type]);
  return pairs.map(([key, value]) => `${key} ${base64(new TextEncoder().encode(value))}`).join(",");
}

function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

function path(id, upload) {
  const all = `/v1/submissions/${id}/attachments`;
  return upload ? `${all}/${encodeURIComponent(upload)}` : all;
}
