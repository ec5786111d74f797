import assert from "node:assert/strict";
import { test } from "node:test";

import { retryAfter } from "../answers.js";
import { Pace, backOff } from "../pace.js";

test("what the server asks to wait is seconds or a date, and never for ever", () => {
  const now = Date.parse("2030-01-01T00:00:00Z");
  const asked = ["7", " 0 ", "Tue, 01 Jan 2030 00:00:09 GMT", "Mon, 31 Dec 2029 00:00:00 GMT", "99999999", "soon", "", null];
  assert.deepEqual(asked.map((value) => retryAfter(value, now)), [7000, 0, 9000, 0, 3_600_000, 0, 0, 0]);
});

test("waits grow, are spread, and stay below five minutes", () => {
  const most = [1, 2, 3, 12, 1000].map((attempts) => backOff(attempts, () => 1));
  assert.deepEqual(most, [1000, 2000, 4000, 300_000, 300_000]);
  const least = [0, 1, 1000].map((attempts) => backOff(attempts, () => 0));
  assert.deepEqual(least, [500, 500, 150_000]);
});

test("chunks grow on a good line and shrink on a bad one, within bounds", () => {
  const pace = new Pace();
  for (let at = 0; at < 50; at += 1) pace.went(10);
  assert.equal(pace.size, 8 * 1024 * 1024);
  for (let at = 0; at < 50; at += 1) pace.broke();
  assert.equal(pace.size, 64 * 1024);
  pace.went(2000);
  assert.equal(pace.size, 64 * 1024);
});
