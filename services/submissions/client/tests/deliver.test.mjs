import assert from "node:assert/strict";
import { test } from "node:test";

import { Later, Refused } from "../answers.js";
import { deliver, follow, wayOf } from "../deliver.js";
import { FakeService, json, problem } from "./fake-service.mjs";

const IS_SOAK = process.env.HYDRANT_SOAK !== undefined;
const SEED = Number(process.env.HYDRANT_SEED ?? (IS_SOAK ? Date.now() % 1_000_000 : 1));
const ROUNDS = IS_SOAK ? 5000 : 150;

/** A submission as the queue keeps it, with files of these sizes, and the way to a service. */
function submission(service, sizes = [], id = crypto.randomUUID()) {
  const blobs = sizes.map((size) => new Blob([Buffer.alloc(size, size % 251)]));
  let one = {
    id,
    body: JSON.stringify({ form: "demo", fields: { name: id } }),
    sender: { storeId: "0815", userId: "ada", sessionId: "s" },
    state: "waiting",
    files: sizes.map((size, at) => ({ key: String(at), name: `f${at}.bin`, type: "", size, upload: null, offset: 0 })),
  };
  const save = async (change) => (one = { ...one, ...change });
  const blob = async (key) => blobs[key];
  const way = () => wayOf({ base: "http://service/api/submissions", one, save, blob, fetch: service.fetch });
  return { way, get one() { return one; } };
}

/** What arrived: of each attachment its size and whether its bytes are right. */
function arrived(service, id) {
  const { submits, state, uploads } = service.submissions.get(id);
  const files = [...uploads.values()].map(({ name, size, bytes }) => [name, size, bytes.equals(Buffer.alloc(size, size % 251))]);
  return { submits, state, files };
}

test("a submission goes post, attach, submit, each under its id", async () => {
  const service = new FakeService();
  const made = submission(service, [700_000]);
  await deliver(made.way());
  assert.equal(made.one.state, "sent");
  assert.equal(made.one.reference, `R-${made.one.id.slice(0, 4)}`);
  assert.deepEqual(arrived(service, made.one.id), { submits: 1, state: "delivered", files: [["f0.bin", 700_000, true]] });
  assert.equal(service.calls[0], "POST /v1/submissions");
  assert.equal(service.calls.at(-1), `POST /v1/submissions/${made.one.id}/submit`);
});

test("whatever breaks and whenever, it arrives once, with exactly its files", async () => {
  console.log(`HYDRANT_SEED=${SEED}`);
  const random = lots(SEED);
  for (let round = 0; round < ROUNDS; round += 1) {
    const service = new FakeService();
    const sizes = Array.from({ length: random(4) }, () => random(300_000));
    const made = submission(service, sizes);
    service.before = () => {
      const lot = random(10);
      if (lot === 0) throw new TypeError("cut before");
      if (lot === 1) return problem(503, "no_instance", { retryable: true });
      if (lot === 2) return new Response("<html>log in", { status: [200, 403, 404][random(3)] });
    };
    service.after = () => {
      if (random(4) === 0) throw new TypeError("cut after");
    };
    let attempts = 0;
    for (; made.one.state === "waiting"; attempts += 1) {
      assert.ok(attempts < 500, `round ${round}: it does not end: ${service.calls.slice(-9)}`);
      await deliver(made.way()).catch((error) => assert.ok(error instanceof Later, `${error.stack}`));
    }
    const expected = sizes.map((size, at) => [`f${at}.bin`, size, true]);
    const { submits, files } = arrived(service, made.one.id);
    assert.deepEqual([submits, files.sort()], [1, expected], `round ${round}: ${service.calls}`);
  }
});

test("an upload whose creation was not answered is taken over, not made twice", async () => {
  const service = new FakeService();
  const made = submission(service, [10]);
  service.after = (line) => {
    if (line.endsWith("/attachments")) throw new TypeError("cut");
  };
  await assert.rejects(deliver(made.way()), Later);
  service.after = () => {};
  await deliver(made.way());
  assert.equal(service.calls.filter((line) => /^POST .*attachments$/.test(line)).length, 1);
  assert.deepEqual(arrived(service, made.one.id).files, [["f0.bin", 10, true]]);
});

test("an upload that nobody knows is taken away before it is submitted", async () => {
  const service = new FakeService();
  const made = submission(service, [10]);
  service.before = (line) => (line.startsWith("PATCH") ? problem(503, "no_instance") : null);
  await assert.rejects(deliver(made.way()), Later);
  const { uploads } = service.submissions.get(made.one.id);
  uploads.set("stray", { id: "stray", name: "other", size: 9, bytes: Buffer.alloc(3) });
  // One like ours, with something in it that is not ours.
  uploads.delete("u1");
  uploads.set("like", { id: "like", name: "f0.bin", size: 10, bytes: Buffer.alloc(3, 9) });
  service.before = () => null;
  await deliver(made.way());
  assert.deepEqual(arrived(service, made.one.id).files, [["f0.bin", 10, true]]);
});

test("a chunk that was damaged on the way is sent again", async () => {
  const service = new FakeService();
  const made = submission(service, [1000]);
  let damaged = 0;
  service.before = (line, body) => {
    if (line.startsWith("PATCH") && damaged++ < 2) new Uint8Array(body)[7] ^= 1;
    return null;
  };
  await deliver(made.way());
  assert.ok(damaged >= 3);
  assert.deepEqual(arrived(service, made.one.id).files, [["f0.bin", 1000, true]]);
});

test("a file that was whole and that the service has lost is sent again", async () => {
  const service = new FakeService();
  const made = submission(service, [10, 20]);
  service.before = (line) => (line.endsWith("/submit") ? problem(503, "no_instance") : null);
  await assert.rejects(deliver(made.way()), Later);
  service.submissions.get(made.one.id).uploads.delete("u1");
  service.before = () => null;
  await deliver(made.way());
  assert.deepEqual(arrived(service, made.one.id).files.sort(), [["f0.bin", 10, true], ["f1.bin", 20, true]]);
});

test("where the service has less than we thought, it goes on from there at once", async () => {
  const service = new FakeService();
  const made = submission(service, [9_000_000]);
  let patches = 0;
  service.before = (line) => {
    if (line.startsWith("PATCH") && (patches += 1) === 2) {
      const file = service.submissions.get(made.one.id).uploads.get("u1");
      file.bytes = file.bytes.subarray(0, 1000);
    }
    return null;
  };
  await deliver(made.way());
  assert.ok(service.calls.some((line) => line.startsWith("HEAD")));
  assert.deepEqual(arrived(service, made.one.id).files, [["f0.bin", 9_000_000, true]]);
});

test("a service that takes no bytes is not asked without end", async () => {
  const service = new FakeService();
  const made = submission(service, [10]);
  const nothing = { status: 204, headers: { "upload-offset": "0" } };
  service.before = (line) => (line.startsWith("PATCH") ? new Response(null, nothing) : null);
  await assert.rejects(deliver(made.way()), Later);
});

test("an upload that has expired begins anew", async () => {
  const service = new FakeService();
  const made = submission(service, [10]);
  service.before = (line) => (line.startsWith("PATCH") ? problem(410, "upload_expired") : null);
  await assert.rejects(deliver(made.way()), Later);
  service.submissions.get(made.one.id).uploads.clear();
  service.before = () => null;
  await deliver(made.way());
  assert.deepEqual(arrived(service, made.one.id).files, [["f0.bin", 10, true]]);
});

test("a service that lost what it had accepted gets it again", async () => {
  const service = new FakeService();
  const made = submission(service, [10]);
  service.before = (line) => {
    if (line.endsWith("/submit") && service.submissions.size === 1 && !service.lost) {
      service.lost = service.submissions.delete(made.one.id);
    }
    return null;
  };
  await assert.rejects(deliver(made.way()), Later);
  await deliver(made.way());
  assert.deepEqual(arrived(service, made.one.id), { submits: 1, state: "delivered", files: [["f0.bin", 10, true]] });
});

test("one that stays unknown is a human's in the end", async () => {
  const service = new FakeService();
  const made = submission(service);
  service.before = (line) => (line.endsWith("/submit") ? problem(404, "unknown_submission") : null);
  for (let at = 0; at < 5; at += 1) await assert.rejects(deliver(made.way()), Later);
  await assert.rejects(deliver(made.way()), Refused);
});

test("what the service refuses is not tried again, and its words are kept", async () => {
  for (const [status, reason] of [[422, "fields_invalid"], [413, "too_large"], [400, "broken_json"], [403, "no_attachments"]]) {
    const service = new FakeService();
    const errors = [{ pointer: "/name", message: "is missing" }];
    service.before = () => problem(status, reason, { errors, mend: "give it a name" });
    await assert.rejects(deliver(submission(service).way()), (error) => {
      assert.ok(error instanceof Refused);
      assert.deepEqual(error.problem, { status, reason, title: `it is ${reason}`, mend: "give it a name", errors });
      return true;
    });
  }
});

test("in progress, too many and away are later, as long as the server says", async () => {
  const answers = [[409, false], [429, true], [503, true], [500, false], [400, false], [403, false]];
  for (const [status, everybody] of answers) {
    const service = new FakeService();
    const reason = status === 403 ? "submission_closed" : "in_progress";
    service.before = () => problem(status, reason, { retryable: status !== 403 }, { "retry-after": "7" });
    await assert.rejects(deliver(submission(service).way()), (error) => {
      assert.ok(error instanceof Later, `${status}`);
      assert.deepEqual([error.wait, error.everybody], [7000, everybody], `${status}`);
      return true;
    });
  }
});

test("nobody on the way ends a submission", async () => {
  const answers = [
    () => new Response("<h1>Log in to the Wi-Fi</h1>", { headers: { "content-type": "text/html" } }),
    () => json(201, { id: "another" }),
    () => new Response("denied", { status: 403 }),
    () => new Response("", { status: 413 }),
    () => problem(404, "no_such_service"),
    () => new Response("{", { status: 422, headers: { "content-type": "application/json" } }),
  ];
  for (const answer of answers) {
    const service = new FakeService();
    service.before = answer;
    const made = submission(service);
    await assert.rejects(deliver(made.way()), Later);
    assert.equal(made.one.acceptedAt, undefined);
  }
});

test("it is followed until the reference is there, or the service forgets it", async () => {
  const service = new FakeService();
  const made = submission(service);
  service.before = (line) => (line.endsWith("/submit") ? json(202, { id: made.one.id, state: "submitted" }) : null);
  await deliver(made.way());
  assert.deepEqual([made.one.state, made.one.reference, made.one.followed], ["sent", undefined, false]);
  service.before = (line) => (line.startsWith("GET") ? json(200, { id: made.one.id, state: "delivered", reference: "R-1" }) : null);
  await follow(made.way());
  assert.deepEqual([made.one.reference, made.one.followed], ["R-1", true]);
  service.before = () => problem(404, "unknown_submission");
  await follow(made.way());
  assert.deepEqual([made.one.state, made.one.reference, made.one.followed], ["sent", "R-1", true]);
});

test("who made it is told with every request, whoever sends it", async () => {
  const seen = [];
  const service = new FakeService();
  const fetch = service.fetch;
  service.fetch = (url, options) => (seen.push(options.headers), fetch(url, options));
  const made = submission(service, [5]);
  await deliver(made.way());
  assert.ok(seen.length > 4);
  for (const headers of seen) {
    assert.deepEqual([headers["Correlation-Id"], headers["X-Store-Id"], headers["X-User-Id"]], [made.one.id, "0815", "ada"]);
  }
});

test("names in any script go through a header", async () => {
  let seen;
  const service = new FakeService();
  const fetch = service.fetch;
  service.fetch = (url, options) => (new Headers(options.headers), (seen = options.headers), fetch(url, options));
  const made = submission(service);
  made.one.sender.userId = "Jörg 李\r\nX: 1";
  made.one.sender.storeId = "ж".repeat(99);
  await deliver(made.way());
  assert.equal(seen["X-User-Id"], "J%C3%B6rg %E6%9D%8E%0D%0AX: 1");
  assert.equal(seen["X-Store-Id"], "%D0%B6".repeat(16));
});

/** Lots from 0 to below a number, the same for the same seed. */
function lots(seed) {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
