// Asks for /status every second and shows it. What peers said is only ever set as text.
"use strict";

const KEEP = 120; // seconds shown
const history = [];
let last = null;

function sizeText(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  return `${unit ? size.toFixed(1) : size.toFixed(0)} ${units[unit]}`;
}

function fill(id, names, rows) {
  const table = document.getElementById(id);
  const head = document.createElement("tr");
  for (const name of names) { head.appendChild(document.createElement("th")).textContent = name; }
  const lines = rows.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const made = row.appendChild(document.createElement("td"));
      const { text, bad } = typeof cell === "object" ? cell : { text: cell, bad: false };
      made.textContent = text;
      if (typeof cell === "number") { made.className = "figure"; }
      if (bad) { made.className = "bad"; }
    }
    return row;
  });
  table.replaceChildren(head, ...lines);
}

function show(status) {
  document.getElementById("identity").textContent = status.identity;
  document.getElementById("state").textContent =
    `${status.draining ? "draining" : "running"}, up ${Math.round(status.uptime)} s, reloaded ${status.reloads} times`;
  const figures = (one) => [one.open, one.streams, one.failed, sizeText(one.received), sizeText(one.sent)];
  fill("exposed", ["service", "kind", "open", "streams", "failed", "in", "out", "backends", "denied"],
    status.exposed.map((one) => [one.service, one.kind, ...figures(one),
      { text: one.backends.map((b) => `${b.place}${b.up ? "" : " (down)"}`).join(", "), bad: one.backends.some((b) => !b.up) },
      Object.entries(one.denials).map(([name, count]) => `${name} ${count}`).join(", ")]));
  fill("forwarded", ["here", "open", "streams", "failed", "in", "out", "to", "state"],
    status.forwarded.map((one) => [one.listen.join(", "), ...figures(one), one.to.join(", "),
      { text: one.connected ? "connected" : one.trouble || "not connected", bad: !one.connected }]));
  fill("callers", ["identity", "service", "from", "streams", "resumes"],
    status.callers.map((one) => [one.peer, one.service, one.source, one.streams, one.resumes]));
}

function plot(status) {
  const sum = (key) => [...status.exposed, ...status.forwarded].reduce((total, one) => total + one[key], 0);
  const now = { time: performance.now(), sent: sum("sent"), received: sum("received") };
  if (last !== null) {
    const seconds = (now.time - last.time) / 1000;
    history.push({
      sent: Math.max(0, now.sent - last.sent) / seconds,
      received: Math.max(0, now.received - last.received) / seconds,
    });
    if (history.length > KEEP) { history.shift(); }
  }
  last = now;
  const canvas = document.getElementById("plot");
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const top = Math.max(1024, ...history.flatMap((one) => [one.sent, one.received]));
  pen.clearRect(0, 0, canvas.width, canvas.height);
  for (const [key, colour] of [["received", "--in"], ["sent", "--out"]]) {
    pen.strokeStyle = style.getPropertyValue(colour);
    pen.lineWidth = 2;
    pen.beginPath();
    history.forEach((one, number) => {
      const x = canvas.width - (history.length - 1 - number) * canvas.width / (KEEP - 1);
      pen.lineTo(x, canvas.height - 4 - one[key] / top * (canvas.height - 8));
    });
    pen.stroke();
  }
  const now_ = history.at(-1) ?? { sent: 0, received: 0 };
  document.getElementById("rates").textContent =
    `in ${sizeText(now_.received)}/s, out ${sizeText(now_.sent)}/s; top of the plot ${sizeText(top)}/s`;
}

async function turn() {
  try {
    const answer = await fetch("status");
    if (!answer.ok) { throw new Error(`status ${answer.status}`); }
    const status = await answer.json();
    show(status);
    plot(status);
    document.body.dataset.ready = "yes";
  } catch (error) {
    document.getElementById("state").textContent = `not reached: ${error.message}`;
  }
  setTimeout(turn, 1000);
}

turn();
