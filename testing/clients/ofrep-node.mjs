// Evaluates flags with OpenFeature's SDK for servers and its OFREP provider.
//
//   node ofrep-node.mjs BASE [KEY]
//
// Reads a question per line, {"flag", "default", "context"}, and prints a line for each: the details of
// the evaluation, or {"error"}.
import { createInterface } from "node:readline";
import { OpenFeature } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";

const [baseUrl, key] = process.argv.slice(2);
const headers = key ? [["Authorization", `Bearer ${key}`]] : [];
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers }));
const client = OpenFeature.getClient();

const ask = {
  boolean: (...all) => client.getBooleanDetails(...all),
  string: (...all) => client.getStringDetails(...all),
  number: (...all) => client.getNumberDetails(...all),
  object: (...all) => client.getObjectDetails(...all),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { flag, default: fallback, context } = JSON.parse(line);
  const details = await ask[typeof fallback](flag, fallback, context);
  console.log(JSON.stringify(details));
}
await OpenFeature.close();
