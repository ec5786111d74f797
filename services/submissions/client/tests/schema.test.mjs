import assert from "node:assert/strict";
import { test } from "node:test";

import { fieldsOf, isAllowed, mistakes } from "../schema.js";

const SCHEMA = {
  type: "object",
  required: ["name", "address"],
  properties: {
    name: { type: "string", minLength: 2, maxLength: 4 },
    note: { type: "string", maxLength: 2000 },
    count: { type: ["integer", "null"], minimum: 1, exclusiveMaximum: 10 },
    "a/b~": { type: "boolean" },
    size: { enum: ["S", "M", 3] },
    tags: { type: "array", items: { type: "string" }, maxItems: 2 },
    address: { $ref: "#/$defs/address" },
    any: {},
  },
  $defs: { address: { type: "object", required: ["zip"], properties: { zip: { type: "string", pattern: "^\\d{5}$" } } } },
};

test("each field has its kind, its pointer, and whether it is needed", () => {
  const seen = fieldsOf(SCHEMA).map(({ pointer, kind, required }) => [pointer, kind, required]);
  assert.deepEqual(seen, [
    ["/name", "input", true],
    ["/note", "text", false],
    ["/count", "number", false],
    ["/a~1b~0", "switch", false],
    ["/size", "choice", false],
    ["/tags", "lines", false],
    ["/address", "group", true],
    ["/any", "json", false],
  ]);
});

test("mistakes stand at their fields", () => {
  const value = { name: "x", count: 10, tags: ["a", "b", "c"], address: { zip: "1234" } };
  assert.deepEqual(mistakes(SCHEMA, value), [
    { pointer: "/name", message: "needs at least 2 characters" },
    { pointer: "/count", message: "must be less than 10" },
    { pointer: "/tags", message: "has 3 lines; 2 are allowed" },
    { pointer: "/address/zip", message: "does not look right" },
  ]);
  assert.deepEqual(mistakes(SCHEMA, { name: "Jörg", address: { zip: "12345" } }), []);
  assert.deepEqual(mistakes(SCHEMA, {}).map(({ pointer }) => pointer), ["/name", "/address/zip"]);
});

test("schemas that refer to themselves, or to nothing, end", () => {
  const itself = { properties: { child: { $ref: "#" } }, required: ["child"] };
  assert.deepEqual(mistakes(itself, {}), [{ pointer: "/child/child/child/child/child", message: "is needed" }]);
  assert.deepEqual(mistakes({ properties: { a: { $ref: "#/nowhere" }, b: { $ref: "http://x/" } } }, { a: 1 }), []);
  assert.deepEqual(mistakes({ properties: { a: { type: "string", pattern: "(" } } }, { a: "x" }), []);
});

test("types of files fit by name or by kind", () => {
  const patterns = ["image/*", "application/pdf"];
  const allowed = ["image/png", "application/pdf", "text/plain", ""].map((type) => isAllowed(type, patterns));
  assert.deepEqual(allowed, [true, true, false, false]);
  assert.equal(isAllowed("text/plain", undefined), true);
});
