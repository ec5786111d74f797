// A web server as people write them: it knows nothing of the platform but the variable PORT.
import { createServer } from "node:http";

createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ method: request.method, url: request.url, pid: process.pid }));
}).listen(process.env.PORT, "127.0.0.1");
