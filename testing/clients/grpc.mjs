// Calls one method with grpc-js, at its bare path, and prints what came back as one JSON line.
//
//   node grpc.mjs HOST:PORT PROTO_FILE package.Service/Method JSON [header=value …]
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [address, proto, method, json, ...headers] = process.argv.slice(2);
const [serviceName, methodName] = method.split("/");
const loaded = grpc.loadPackageDefinition(await loader.load(proto, { keepCase: false }));
const Client = serviceName.split(".").reduce((scope, name) => scope[name], loaded);
const client = new Client(address, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
for (const header of headers) metadata.set(...header.split(/=(.*)/s).slice(0, 2));
client[methodName](JSON.parse(json), metadata, { deadline: Date.now() + 10_000 }, (error, answer) => {
  console.log(
    JSON.stringify(error ? { code: grpc.status[error.code], message: error.details } : { answer }),
  );
  process.exit(0);
});
