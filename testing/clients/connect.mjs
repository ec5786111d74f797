// Calls methods with connect-es: reads a call per line, and prints what came back as a line.
//
//   node connect.mjs PROTOCOL DESCRIPTORS
//
// PROTOCOL: connect, connect-json, connect-h2, grpc. DESCRIPTORS: a compiled FileDescriptorSet.
// A call: {"base": URL, "method": "package.Service/Method", "message": {…}, "headers": {…}}.
// Messages have the field names of the .proto file. An answer: {"answer": {…}}, or
// {"code", "message"}; of a stream the answer is the first message.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";

const [protocol, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)),
);
const create = {
  connect: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  "connect-json": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "connect-h2": (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  grpc: (baseUrl) => createGrpcTransport({ baseUrl }),
}[protocol];
const written = { registry, useProtoFieldName: true };
const transports = new Map();

function transport(base) {
  if (!transports.has(base)) transports.set(base, create(base));
  return transports.get(base);
}

async function call({ base, method, message, headers }) {
  const [serviceName, methodName] = method.split("/");
  const service = registry.getService(serviceName);
  const desc = service.methods.find((candidate) => candidate.name === methodName);
  const answer = createClient(service, transport(base))[desc.localName](
    fromJson(desc.input, message),
    { headers, signal: AbortSignal.timeout(20_000) },
  );
  if (desc.methodKind === "unary") return toJson(desc.output, await answer, written);
  for await (const first of answer) return toJson(desc.output, first, written);
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await call(JSON.parse(line)).then(
    (answer) => ({ answer }),
    (error) => {
      const failure = ConnectError.from(error);
      return { code: Code[failure.code], message: failure.rawMessage };
    },
  );
  console.log(JSON.stringify(answer));
}
process.exit(0);
