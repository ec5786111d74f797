// Echoes over a WebSocket: `node websocket.mjs serve` listens on PORT, `node websocket.mjs URL`
// sends 100 messages of growing size and prints how many came back unchanged.
import { WebSocket, WebSocketServer } from "ws";

const mode = process.argv[2];
if (mode === "serve") {
  new WebSocketServer({ port: Number(process.env.PORT), host: "127.0.0.1" }).on(
    "connection",
    (socket) => socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary })),
  );
} else {
  const socket = new WebSocket(mode);
  const messages = Array.from({ length: 100 }, (_, index) => "x".repeat(index * index));
  let echoed = 0;
  socket.on("open", () => socket.send(messages[0]));
  socket.on("message", (data) => {
    if (data.toString() !== messages[echoed]) socket.close();
    else if (++echoed < messages.length) socket.send(messages[echoed]);
    else socket.close(1000);
  });
  socket.on("close", (code) => {
    console.log(JSON.stringify({ echoed, code }));
    process.exit(0);
  });
  socket.on("error", (error) => {
    console.log(JSON.stringify({ error: error.message }));
    process.exit(1);
  });
}
