// Calls methods with grpc-js, at their bare paths. Arguments, calls and answers are as those of
// connect.mjs, but for PROTOCOL.
//
//   node grpc.mjs DESCRIPTORS
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const options = { enums: String, longs: String };
const loaded = grpc.loadPackageDefinition(
  loader.loadFileDescriptorSetFromBuffer(readFileSync(process.argv[2]), options),
);
const clients = new Map();

function client(base, serviceName) {
  const key = `${base} ${serviceName}`;
  if (!clients.has(key)) {
    const Client = serviceName.split(".").reduce((scope, name) => scope[name], loaded);
    clients.set(key, new Client(new URL(base).host, grpc.credentials.createInsecure()));
  }
  return clients.get(key);
}

function call({ base, method, message, headers }) {
  const [serviceName, methodName] = method.split("/");
  const from = client(base, serviceName);
  const metadata = new grpc.Metadata();
  for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
  const deadline = Date.now() + 20_000;
  return new Promise((resolve, reject) => {
    if (!from[methodName].responseStream) {
      const done = (error, answer) => (error ? reject(error) : resolve(answer));
      from[methodName](message, metadata, { deadline }, done);
      return;
    }
    const stream = from[methodName](message, metadata, { deadline });
    stream.on("data", (first) => {
      resolve(first);
      stream.cancel();
    });
    stream.on("error", reject);
    stream.on("end", () => reject(new Error("the stream ended without a message")));
  });
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await call(JSON.parse(line)).then(
    (answer) => ({ answer }),
    (error) => ({ code: grpc.status[error.code], message: error.details ?? error.message }),
  );
  console.log(JSON.stringify(answer));
}
process.exit(0);
