// Calls one method with connect-es and prints what came back as one JSON line.
//
//   node connect.mjs PROTOCOL BASE_URL DESCRIPTORS package.Service/Method JSON [header=value …]
//
// PROTOCOL: connect, connect-json, connect-h2, grpc. DESCRIPTORS: a compiled FileDescriptorSet.
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, fromJson, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";

const [protocol, baseUrl, descriptors, method, json, ...headers] = process.argv.slice(2);
const [serviceName, methodName] = method.split("/");
const registry = createFileRegistry(
  fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)),
);
const service = registry.getService(serviceName);
const desc = service.methods.find((candidate) => candidate.name === methodName);
const transports = {
  connect: () => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: true }),
  "connect-json": () => createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "connect-h2": () => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: true }),
  grpc: () => createGrpcTransport({ baseUrl }),
};
const client = createClient(service, transports[protocol]());
try {
  const answer = await client[desc.localName](fromJson(desc.input, JSON.parse(json)), {
    headers: headers.map((header) => header.split(/=(.*)/s).slice(0, 2)),
  });
  console.log(JSON.stringify({ answer: toJson(desc.output, answer) }));
} catch (error) {
  const failure = ConnectError.from(error);
  console.log(JSON.stringify({ code: Code[failure.code], message: failure.rawMessage }));
}
process.exit(0);
