// A flag server of reference: flagd's own evaluator for Node, behind Node's own web server, with
// OFREP's bulk evaluation and nothing else. Arguments: the definitions, the port.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { FlagdCore } from "@openfeature/flagd-core";

const [definitions, port] = process.argv.slice(2);
const core = new FlagdCore();
core.setConfigurations(readFileSync(definitions, "utf8"));

function evaluate(context) {
  const flags = core.resolveAll(context).map((found) => ({
    key: found.flagKey,
    value: found.value,
    reason: found.reason,
    variant: found.variant,
    metadata: found.flagMetadata,
  }));
  return JSON.stringify({ flags });
}

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const { context } = JSON.parse(Buffer.concat(parts));
    const body = evaluate(context);
    response.writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
    response.end(body);
  });
});
server.keepAliveTimeout = 60_000;
server.listen(Number(port), "127.0.0.1");
