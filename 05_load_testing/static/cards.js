// One card for each job: its bar, its state, its result.

const list = document.querySelector("#jobs");
const cards = new Map();
const ENDED = ["SUCCESS", "FAILURE", "REVOKED"];

// A card for a job that has been sent off and has no id yet.
export function expect(kind) {
  const card = add(kind);
  card.dataset.state = "PENDING";
  card.querySelector(".state").textContent = "waiting for the answer";
  return card;
}

// A job that ended begins again: what it says from now on counts.
export function revive(id) {
  shown.delete(id);
}

export function forget(card) {
  card.remove();
  document.querySelector("#no-jobs").hidden = list.children.length > 0;
}

const shown = new Map();

// Documents may come out of order, by push, by acknowledgement, by a reload: a bar never goes back.
export function draw(update) {
  const before = shown.get(update.id);
  const late = before && update.done < before.done && !ENDED.includes(update.state);
  if (late || ENDED.includes(before?.state)) return;
  const job = { ...before, ...update };
  shown.set(job.id, job);
  const card = cards.get(job.id) ?? add(job.kind);
  cards.set(job.id, card);
  card.dataset.state = job.state;
  card.dataset.job = job.id;
  card.querySelector(".state").textContent = job.state;
  card.querySelector(".count").textContent = count(job);
  card.querySelector(".cancel").hidden = ENDED.includes(job.state);
  const bar = card.querySelector("progress");
  bar.max = job.total || 1;
  bar.value = job.state === "SUCCESS" ? bar.max : job.done;
  if (job.state === "RETRY" && job.retry_at) {
    const next = new Date(job.retry_at * 1000).toLocaleTimeString("en-GB");
    card.querySelector(".state").textContent = `RETRY, next try at ${next}`;
  }
  const result = job.state === "SUCCESS" && job.kind === "report" ? report(job.result) : newsletter(job);
  card.querySelector(".result").replaceChildren(...result);
}

function add(kind) {
  const card = element("article", "");
  card.append(
    element("h3", kind === "newsletter" ? "Newsletter" : "Report"),
    element("span", "", "state"),
    element("progress", ""),
    element("span", "", "count"),
    element("div", "", "result"),
    element("button", "Cancel", "cancel"),
  );
  card.querySelector(".cancel").hidden = true;
  card.querySelector("progress").setAttribute("aria-label", `Progress of the ${kind}`);
  list.prepend(card);
  document.querySelector("#no-jobs").hidden = true;
  return card;
}

export function element(tag, text, className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  if (className) node.className = className;
  return node;
}

function count(job) {
  const unit = job.kind === "newsletter" ? "mails" : "lines";
  return `${job.done.toLocaleString("en")} of ${job.total.toLocaleString("en")} ${unit}`;
}

function newsletter(job) {
  const nodes = [];
  if (job.error) nodes.push(element("p", job.error, "error"));
  if (job.kind !== "newsletter" || !job.result) return nodes;
  nodes.push(element("p", `${job.result.sent} sent, ${job.result.refused} refused`));
  for (const { recipient, code, reason } of job.result.refusals) {
    nodes.push(element("p", `${recipient} was refused: ${code} ${reason}`, "error"));
  }
  return nodes;
}

function report(result) {
  const summary =
    `${result.lines.toLocaleString("en")} lines, ${result.malformed.toLocaleString("en")} malformed, ` +
    `${megabytes(result.bytes)} sent`;
  if (result.malformed === result.lines) return [element("p", summary)];
  const top = (entries) => entries.slice(0, 5).map((entry) => [entry.name, entry.requests]);
  const tables = element("div", "", "tables");
  tables.append(
    table("Path", top(result.paths)),
    table("Client", top(result.clients)),
    table("Status", Object.entries(result.statuses).slice(0, 5)),
    hours(result.hours),
  );
  return [element("p", summary), tables];
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
}

function table(title, rows) {
  const node = element("table", "");
  const head = node.createTHead().insertRow();
  head.append(element("th", title), element("th", "Requests"));
  const body = node.createTBody();
  for (const [name, requests] of rows) {
    body.insertRow().append(element("td", name), element("td", requests.toLocaleString("en")));
  }
  return node;
}

function hours(counts) {
  const figure = element("figure", "", "hours");
  const most = Math.max(1, ...Object.values(counts));
  for (let hour = 0; hour < 24; hour++) {
    const requests = counts[String(hour).padStart(2, "0")] ?? 0;
    const column = element("span", "");
    column.style.height = `${(100 * requests) / most}%`;
    column.title = `${hour}:00 – ${requests.toLocaleString("en")} requests`;
    figure.append(column);
  }
  figure.append(element("figcaption", "Requests by hour, 0 to 23"));
  return figure;
}
