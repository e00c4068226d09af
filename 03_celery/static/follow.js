// Follow jobs: by push where Socket.IO's client is there, else by asking twice a second.

const ENDED = ["SUCCESS", "FAILURE", "REVOKED"];
const ASK_EVERY = 500; // ms
const NAMES = { websocket: "WebSocket", polling: "long polling" };

// `draw` gets each document; `say` gets how they come, in words.
export function startFollowing(draw, say) {
  const watched = new Set();
  const hear = (job) => {
    if (ENDED.includes(job.state)) watched.delete(job.id);
    draw(job);
  };
  const watch = window.io ? pushed(watched, hear, say) : asked(watched, hear, say);
  return (job) => {
    if (ENDED.includes(job.state)) return;
    watched.add(job.id);
    watch(job.id);
  };
}

function pushed(watched, hear, say) {
  const transport = new URLSearchParams(location.search).get("transport"); // ?transport=polling
  const socket = io({ reconnectionDelayMax: 2000, ...(transport && { transports: [transport] }) });
  window.postroomSocket = socket; // for your developer tools
  const watch = (id) => socket.emit("watch", { job: id }, (job) => hear(job.id ? job : lost(id, job)));

  // Also after a lost connection: the server has forgotten our rooms, so join them again.
  socket.on("connect", () => {
    watched.forEach(watch);
    say(NAMES[socket.io.engine.transport.name]);
    socket.io.engine.on("upgrade", (upgraded) => say(NAMES[upgraded.name]));
  });
  socket.on("disconnect", () => say("nobody: the connection is lost"));
  socket.on("progress", hear);
  return (id) => socket.connected && watch(id);
}

function lost(id, { error }) {
  return { id, state: "FAILURE", error: `${error} The server may have been restarted.` };
}

function asked(watched, hear, say) {
  say("asking twice a second");
  setInterval(async () => {
    for (const id of watched) {
      const response = await fetch(`/jobs/${id}`).catch(() => null);
      if (response?.ok) hear(await response.json());
      else if (response?.status === 404) hear(lost(id, { error: "There is no such job." }));
    }
  }, ASK_EVERY);
  return () => {};
}
