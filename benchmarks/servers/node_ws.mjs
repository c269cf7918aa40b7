// Comparison server: Node with the `ws` package. Usage: node node_ws.mjs PORT
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const peers = new Map(); // peer id -> socket
const presences = new Map(); // peer id -> its latest presence

const server = createServer();
const sockets = new WebSocketServer({ server, perMessageDeflate: false });

sockets.on("connection", (socket) => {
  let id = null;

  const toOthers = (text) => {
    for (const peer of peers.values()) {
      if (peer !== socket) peer.send(text, { binary: false });
    }
  };

  const join = (text, from) => {
    if (id === null) {
      for (const presence of presences.values()) socket.send(presence, { binary: false });
    }
    id = from;
    peers.set(id, socket);
    presences.set(id, text);
    socket.send(text, { binary: false });
    toOthers(text);
  };

  socket.on("message", (text) => {
    const { type, from, to } = JSON.parse(text);
    if (type === "presence") join(text, from);
    else if (type === "heartbeat") return;
    else if (type === "direct") peers.get(to)?.send(text, { binary: false });
    else toOthers(text);
  });

  socket.on("error", () => {}); // followed by `close`
  socket.on("close", () => {
    peers.delete(id);
    presences.delete(id);
  });
});

server.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });
