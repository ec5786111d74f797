// A server of server-sent events: `GET /events` is the stream, `POST /send` sends what it is given
// as an event to all who listen.
import { createServer } from "node:http";

const listeners = new Set();
createServer((request, response) => {
  if (request.method === "GET") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    response.flushHeaders();
    listeners.add(response);
    response.on("close", () => listeners.delete(response));
    return;
  }
  let text = "";
  request.on("data", (part) => (text += part));
  request.on("end", () => {
    for (const listener of listeners) listener.write(`data: ${text}\n\n`);
    response.writeHead(204).end();
  });
}).listen(process.env.PORT, "127.0.0.1");
