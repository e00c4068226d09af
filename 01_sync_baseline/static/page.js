// The page: load the recent jobs, send the forms, start the heartbeat.

import { draw, expect, forget } from "./cards.js";
import { showErrors, takeOver } from "./forms.js";
import { startHeartbeat } from "./heartbeat.js";

async function send(form, request) {
  const card = expect(form.id);
  try {
    const response = await fetch(form.action, { method: "POST", ...request });
    const answer = await response.json();
    forget(card);
    if (response.ok) draw(answer);
    else showErrors(form, answer);
  } catch {
    forget(card);
    showErrors(form, { detail: "The server went away before it answered." });
  }
}

async function loadJobs() {
  const response = await fetch("/jobs").catch(() => null);
  if (!response?.ok) return; // a reload asks again
  for (const job of (await response.json()).reverse()) draw(job);
}

startHeartbeat(document.querySelector("#heartbeat"));
for (const form of document.forms) takeOver(form, send);
loadJobs();
