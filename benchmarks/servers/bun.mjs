// Comparison server: Bun, whose WebSockets and topics are uWebSockets'. Usage: bun bun.mjs PORT
const TOPIC = "mesh";
const peers = new Map(); // peer id -> socket
const presences = new Map(); // peer id -> its latest presence

function join(socket, text, from) {
  if (socket.data.id === null) {
    for (const presence of presences.values()) socket.send(presence);
    socket.subscribe(TOPIC);
  }
  socket.data.id = from;
  peers.set(from, socket);
  presences.set(from, text);
  server.publish(TOPIC, text); // to the sender too
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(process.argv[2]),
  fetch(request, server) {
    if (server.upgrade(request, { data: { id: null } })) return;
    return new Response("a WebSocket is expected", { status: 426 });
  },
  websocket: {
    perMessageDeflate: false,
    backpressureLimit: 64 * 1024 * 1024, // beyond it messages are dropped
    message(socket, text) {
      const { type, from, to } = JSON.parse(text);
      if (type === "presence") join(socket, text, from);
      else if (type === "heartbeat") return;
      else if (type === "direct") peers.get(to)?.send(text);
      else socket.publish(TOPIC, text); // to all but the sender
    },
    close(socket) {
      peers.delete(socket.data.id);
      presences.delete(socket.data.id);
    },
  },
});
