// The page: load the recent jobs and follow them, send the forms, start the heartbeat.

import { draw, expect, forget, revive } from "./cards.js";
import { startDeadLetters } from "./dead_letters.js";
import { showErrors, takeOver } from "./forms.js";
import { startFollowing } from "./follow.js";
import { startHeartbeat } from "./heartbeat.js";

async function send(form, request) {
  const card = expect(form.id);
  try {
    const response = await fetch(form.action, { method: "POST", ...request });
    const answer = await response.json();
    forget(card);
    if (response.ok) track(answer);
    else showErrors(form, answer);
  } catch {
    forget(card);
    showErrors(form, { detail: "The server went away before it answered." });
  }
}

function track(job) {
  draw(job);
  follow(job);
}

function drawAndBury(job) {
  draw(job);
  if (job.state === "FAILURE") deadLetters();
}

async function cancel(event) {
  const card = event.target.closest("article");
  if (!event.target.matches(".cancel")) return;
  event.target.disabled = true;
  await fetch(`/jobs/${card.dataset.job}`, { method: "DELETE" }).catch(() => {});
}

async function loadJobs() {
  const response = await fetch("/jobs").catch(() => null);
  if (!response?.ok) return setTimeout(loadJobs, 2000);
  for (const job of (await response.json()).reverse()) track(job);
}

// A job that was given up is begun again: draw it from the start.
function replayed(job) {
  revive(job.id);
  track(job);
}

const transport = document.querySelector("#transport");
const deadLetters = startDeadLetters(document.querySelector("#dead-letters"), replayed);
const follow = startFollowing(drawAndBury, (name) => (transport.textContent = name));
document.querySelector("#jobs").addEventListener("click", cancel);
startHeartbeat(document.querySelector("#heartbeat"));
for (const form of document.forms) takeOver(form, send);
loadJobs();
