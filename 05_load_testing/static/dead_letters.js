// Dead letters: the jobs given up, each with its reason, its trace and two buttons.

import { element } from "./cards.js";

const LOOK_EVERY = 10000; // ms

// `replayed` gets each job that begins again. Returns a function that looks at once.
export function startDeadLetters(section, replayed) {
  const list = section.querySelector(".list");
  const error = section.querySelector(".error");

  async function look() {
    const response = await fetch("/dead-letters").catch(() => null);
    if (!response?.ok) return;
    const letters = await response.json();
    const open = new Set([...list.querySelectorAll("details[open]")].map((node) => node.dataset.job));
    list.replaceChildren(...letters.map((letter) => card(letter, open.has(letter.id))));
    section.querySelector(".none").hidden = letters.length > 0;
    section.querySelector(".all").hidden = letters.length < 2;
  }

  async function act(path, method) {
    const response = await fetch(path, { method }).catch(() => null);
    error.textContent = response?.ok || response?.status === 404 ? "" : "That did not work. Try again.";
    if (response?.ok && method === "POST") [await response.json()].flat().forEach(replayed);
    look();
  }

  section.addEventListener("click", ({ target }) => {
    const { job, all } = target.dataset;
    if (all === "replay") act("/dead-letters/replay", "POST");
    if (all === "discard") act("/dead-letters", "DELETE");
    if (job && target.matches(".replay")) act(`/dead-letters/${job}/replay`, "POST");
    if (job && target.matches(".discard")) act(`/dead-letters/${job}`, "DELETE");
  });
  setInterval(look, LOOK_EVERY);
  look();
  return look;
}

function card(letter, open) {
  const node = element("article", "");
  const title = letter.kind === "newsletter" ? "Newsletter" : "Report";
  const time = new Date(letter.given_up_at * 1000).toLocaleTimeString("en-GB");
  const trace = element("details", "");
  trace.open = open;
  trace.dataset.job = letter.id;
  trace.append(element("summary", "Trace"), element("pre", letter.trace || "No trace was kept."));
  node.append(
    element("h3", title),
    element("span", `given up at ${time}`, "state"),
    element("p", letter.error, "error"),
    trace,
    buttons(letter.id),
  );
  return node;
}

function buttons(id) {
  const node = element("div", "", "buttons");
  for (const [name, text] of [["replay", "Replay"], ["discard", "Discard"]]) {
    const button = element("button", text, name);
    button.dataset.job = id;
    node.append(button);
  }
  return node;
}
