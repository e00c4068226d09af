// The heartbeat: a visitor that asks for /ping five times a second, drawn as a line.
//
// It has one question open at a time. While it waits, the line shows how long it has
// been waiting: when the server stalls, you see the line climb, not a gap.

const INTERVAL = 200; // ms
const SHOWN = 150; // points: 30 seconds
const [HEIGHT, LEFT, RIGHT] = [150, 46, 10]; // the width is that of the page
const [FASTEST, SLOWEST] = [1, 30_000]; // ms, the ends of the logarithmic axis
const SLOW = 250; // ms: from here on a person notices

const SVG = "http://www.w3.org/2000/svg";

export function startHeartbeat(section) {
  const svg = section.querySelector("svg");
  drawAxis(svg);
  const line = svg.appendChild(document.createElementNS(SVG, "polyline"));
  const dot = svg.appendChild(document.createElementNS(SVG, "circle"));
  dot.setAttribute("r", 4);

  const waits = []; // ms, newest last
  let worst = 0;
  let beats = 0;
  let asked = null; // when the open question was asked

  async function ask() {
    asked = performance.now();
    const answered = await fetch("/ping", { cache: "no-store" }).then((r) => r.ok, () => false);
    const wait = performance.now() - asked;
    asked = null;
    if (answered) {
      note(wait);
      section.dataset.beats = ++beats;
    }
    section.dataset.gone = String(!answered);
    if (!answered) write("[data-now]", "no answer");
  }

  function note(wait) {
    waits.push(wait);
    if (waits.length > SHOWN) waits.shift();
    worst = Math.max(worst, wait);
  }

  function tick() {
    if (asked === null) ask();
    else note(performance.now() - asked);
    if (waits.length) show();
  }

  function write(place, text) {
    const node = section.querySelector(place);
    if (node.textContent !== text) node.textContent = text; // a screen reader reads each change
  }

  function show() {
    const now = waits.at(-1);
    const width = svg.clientWidth - LEFT - RIGHT;
    const x = (i) => LEFT + (i / (SHOWN - 1)) * width;
    const points = waits.map((wait, i) => [x(i + SHOWN - waits.length), y(wait)]);
    line.setAttribute("points", points.map((point) => point.join(",")).join(" "));
    dot.setAttribute("cx", points.at(-1)[0]);
    dot.setAttribute("cy", points.at(-1)[1]);
    section.classList.toggle("slow", now > SLOW);
    if (section.dataset.gone !== "true") write("[data-now]", inWords(now));
    write("[data-typical]", inWords(median(waits)));
    write("[data-worst]", inWords(worst));
  }

  setInterval(tick, INTERVAL);
}

function y(wait) {
  const part = Math.log(Math.max(wait, FASTEST) / FASTEST) / Math.log(SLOWEST / FASTEST);
  return HEIGHT - 12 - Math.min(part, 1) * (HEIGHT - 24);
}

function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
}

function inWords(wait) {
  return wait < 1000 ? `${Math.round(wait)} ms` : `${(wait / 1000).toFixed(1)} s`;
}

function drawAxis(svg) {
  for (const wait of [1, 10, 100, 1000, 10_000]) {
    const grid = svg.appendChild(document.createElementNS(SVG, "line"));
    for (const [name, value] of Object.entries({ x1: LEFT, x2: "100%", y1: y(wait), y2: y(wait) })) {
      grid.setAttribute(name, value);
    }
    const label = svg.appendChild(document.createElementNS(SVG, "text"));
    label.setAttribute("x", LEFT - 6);
    label.setAttribute("y", y(wait) + 4);
    label.textContent = wait < 1000 ? `${wait} ms` : `${wait / 1000} s`;
  }
}
