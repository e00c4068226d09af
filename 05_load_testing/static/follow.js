// Follow jobs: by push where Socket.IO's client is there, else by asking twice a second.

const ENDED = ["SUCCESS", "FAILURE", "REVOKED"];
const ASK_EVERY = 500; // ms
const SILENCE = 5000; // ms without a word of a job, after which the page asks
const NAMES = { websocket: "WebSocket", polling: "long polling" };

// `draw` gets each document; `say` gets how they come, in words.
export function startFollowing(draw, say) {
  const watched = new Map(); // id → when it was last heard of
  const hear = (job) => {
    if (ENDED.includes(job.state)) watched.delete(job.id);
    else watched.set(job.id, Date.now());
    draw(job);
  };
  const watch = window.io ? pushed(watched, hear, say) : asked(watched, hear, say);
  return (job) => {
    if (ENDED.includes(job.state)) return;
    watched.set(job.id, Date.now());
    watch(job.id);
  };
}

function pushed(watched, hear, say) {
  const transport = new URLSearchParams(location.search).get("transport"); // ?transport=polling
  const transports = transport ? [transport] : ["websocket", "polling"]; // in this order
  const socket = io({ reconnectionDelayMax: 2000, transports, tryAllTransports: true });
  window.postroomSocket = socket; // for your developer tools
  const watch = (id) => socket.emit("watch", { job: id }, (job) => {
    if (!job.retry_after) hear(job.id ? job : lost(id, job)); // else the broker is away: ask later
  });

  // An event can be lost on its way through Redis, and it may be the last one. So ask after silence.
  setInterval(() => {
    for (const [id, heard] of watched) {
      if (socket.connected && Date.now() - heard > SILENCE) watch(id);
    }
  }, SILENCE / 5);

  // Also after a lost connection: the server has forgotten our rooms, so join them again.
  socket.on("connect", () => {
    for (const id of watched.keys()) watch(id);
    say(NAMES[socket.io.engine.transport.name]);
    socket.io.engine.on("upgrade", (upgraded) => say(NAMES[upgraded.name]));
  });
  socket.on("disconnect", () => say("nobody: the connection is lost"));
  let told = 0;
  socket.on("progress", (job) => {
    hear(job);
    if (Date.now() - told < 1000) return;
    told = Date.now();
    socket.emit("seen", { at: job.at }); // how long the push took: the server counts it
  });
  return (id) => socket.connected && watch(id);
}

function lost(id, { error }) {
  return { id, state: "FAILURE", error: `${error} The server may have been restarted.` };
}

function asked(watched, hear, say) {
  say("asking twice a second");
  setInterval(async () => {
    for (const id of watched.keys()) {
      const response = await fetch(`/jobs/${id}`).catch(() => null);
      if (response?.ok) hear(await response.json());
      else if (response?.status === 404) hear(lost(id, { error: "There is no such job." }));
    }
  }, ASK_EVERY);
  return () => {};
}
