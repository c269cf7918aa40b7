// Comparison server: Bun, whose WebSockets and topics are uWebSockets'. Usage: bun bun.mjs PORT
const TOPIC = "mesh"; // presences
const REST = "rest"; // messages, for those who want everything
const peers = new Map(); // peer id -> socket
const presences = new Map(); // peer id -> its latest presence

function join(socket, text, from, wish) {
  if (socket.data.id === null) {
    for (const presence of presences.values()) socket.send(presence);
    socket.subscribe(TOPIC);
    if (wish?.others === false) {
      socket.subscribe(`to:${from}`);
      choosy++;
    } else if (wish?.topics) {
      for (const topic of wish.topics) socket.subscribe(`topic:${topic}`);
      choosy++;
    } else socket.subscribe(REST);
  }
  socket.data.id = from;
  peers.set(from, socket);
  presences.set(from, text);
  server.publish(TOPIC, text); // to the sender too
}

let choosy = 0; // sockets that do not want everything

function toOthers(socket, text, to, topic) {
  if (choosy && to) socket.publish(`to:${to}`, text);
  else if (choosy && topic) socket.publish(`topic:${topic}`, text);
  if (choosy < peers.size) socket.publish(REST, text); // to all but the sender
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
      const { type, from, to, topic, data } = JSON.parse(text);
      if (type === "presence") join(socket, text, from, data?.subscribe);
      else if (type === "heartbeat") return;
      else if (type === "direct") peers.get(to)?.send(text);
      else toOthers(socket, text, to, topic);
    },
    close(socket) {
      peers.delete(socket.data.id);
      presences.delete(socket.data.id);
    },
  },
});
