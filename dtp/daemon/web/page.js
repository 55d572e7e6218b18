// Asks for /status every second and shows it. What peers said is only ever set as text.
"use strict";

const KEEP = 120; // seconds shown
const history = [];
let last = null;

const element = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");
const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

function sizeText(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  return `${unit ? size.toFixed(1) : size.toFixed(0)} ${units[unit]}`;
}

function timeText(seconds) {
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => seconds >= size);
  if (first < 0) { return "0 s"; }
  let left = Math.round(seconds / (parts[first + 1] ?? parts[first])[1]) * (parts[first + 1] ?? parts[first])[1];
  return parts.slice(first, first + 2).map(([name, size]) => {
    const amount = Math.floor(left / size);
    left -= amount * size;
    return amount ? `${amount} ${name}` : "";
  }).filter(Boolean).join(" ");
}

// In what time `part` of the requests were answered, as `quantile` of dtp/daemon/observing/requests.py: of few that of one of them.
function latency({ count: all, within, times = [] }, part) {
  if (all && times.length === all) {
    return [...times].sort((a, b) => a - b)[Math.max(0, Math.ceil(part * all) - 1)];
  }
  let left = part * all;
  let below = 0;
  const bounds = Object.entries(within).map(([name, number]) => [Number(name === "+Inf" ? Infinity : name), number]);
  for (const [bound, number] of bounds.sort((a, b) => a[0] - b[0])) {
    if (bound === Infinity) { break; }
    if (number && number >= left) { return below + (bound - below) * left / number; }
    left -= number;
    below = bound;
  }
  return below;
}

function latencyText(requests, part) {
  const time = latency(requests, part);
  const last = Math.max(...Object.keys(requests.within).map(Number).filter(Number.isFinite));
  if (time >= last) { return `over ${last} s`; }
  return time < 1 ? `${Number((time * 1000).toPrecision(2))} ms` : `${time.toFixed(1)} s`;
}

// A table of rows of cells: a text, or an object with `text`, `kind` (a class) and `bad`. Without rows, `none` says so.
function fill(id, names, rows, none) {
  const section = element(id);
  section.hidden = !rows.length && none === null;
  section.querySelectorAll("table, .none").forEach((old) => old.remove());
  if (!rows.length) {
    const words = section.appendChild(document.createElement("p"));
    words.className = "none";
    words.textContent = none;
    return;
  }
  const table = section.appendChild(document.createElement("table"));
  const head = table.createTHead().insertRow();
  names.forEach((name, number) => {
    const made = head.appendChild(document.createElement("th"));
    made.textContent = name;
    made.scope = "col";
    if (typeof rows[0][number] === "object" && rows[0][number].kind === "figure") { made.className = "figure"; }
  });
  const body = table.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((cell, number) => {
      const made = row.insertCell();
      const { text, kind, bad, parts } = typeof cell === "object" ? cell : { text: cell, kind: "", bad: false };
      made.dataset.name = names[number];
      if (parts) { made.appendChild(lines(parts)); } else { made.textContent = text; }
      made.className = `${kind ?? ""}${bad ? " bad" : ""}`.trim();
    });
  }
}

// Each on a line of its own.
function lines(parts) {
  const list = document.createElement("div");
  for (const { text, bad } of parts) {
    const line = list.appendChild(document.createElement("div"));
    line.textContent = text;
    line.className = bad ? "bad" : "";
  }
  return list;
}

// Amounts are whole MIST; 9 digits of a SUI.
const sui = (mist) => (mist / 1e9).toLocaleString("en", { maximumFractionDigits: 9 });
const figure = (text) => ({ text, kind: "figure" });
const short = (text) => ({ text, kind: "short" });
const wide = (text, bad) => ({ text, kind: "wide", bad });

function figures(one) {
  return [figure(count(one.open)), figure(count(one.streams)), figure(count(one.failed)),
    figure(sizeText(one.received)), figure(sizeText(one.sent))];
}

// Of a worker that has not said for 3 s how it stands, what it said last is shown.
function workerState({ up, silent = 0 }) {
  if (up && silent > 3) { return { text: `busy, as it was ${timeText(silent)} ago`, kind: "short", bad: true }; }
  return { text: up ? "up" : "down", kind: "short", bad: !up };
}

function show(status) {
  const words = [status.draining ? "draining" : "running", `up ${timeText(status.uptime)}`];
  const away = ["state", "chain", "vouchers"].filter((what) => status[`${what}_up`] === false);
  words.push(...away.map((what) => `${what} away`));
  if (status.reloads) { words.push(`reloaded ${plural(status.reloads, "time")}`); }
  element("identity").textContent = status.identity;
  element("state").textContent = words.join(", ");
  element("state").className = status.draining || away.length ? "bad" : "";
  element("troubles").textContent = away.filter((what) => status[`${what}_trouble`])
    .map((what) => `${what} away: ${status[`${what}_trouble`]}`).join("; ");
  document.title = status.draining ? "dtpd (draining)" : "dtpd";
  fill("exposed", ["service", "kind", "open", "streams", "failed", "in", "out", "backends", "rules", "refused"],
    status.exposed.map((one) => [one.service, short(one.kind), ...figures(one),
      { kind: "wide short", parts: one.backends.map((b) => ({ text: `${b.place}, ${b.up ? `${count(b.active)} open` : "down"}`, bad: !b.up })) },
      { kind: "wide", parts: one.rules.map((text) => ({ text })) },
      { kind: "wide short", parts: Object.entries(one.denials).map(([name, number]) => ({ text: `${count(number)} by ${name}` })) }]),
    status.forwarded.length ? null : "Nothing is exposed.");
  fill("requests", ["service", "answered", "half in", "99 % in", "by status"],
    status.exposed.filter((one) => one.requests?.count).map(({ service, requests }) => [service, figure(count(requests.count)),
      figure(latencyText(requests, 0.5)), figure(latencyText(requests, 0.99)),
      wide(Object.entries(requests.statuses).map(([name, number]) => `${name} ${count(number)}`).join(", "))]), null);
  fill("forwarded", ["here", "open", "streams", "failed", "in", "out", "to", "state"],
    status.forwarded.map((one) => [one.listen.join(", "), ...figures(one), { kind: "wide id", parts: one.to.length ? one.to.map((text) => ({ text })) : [{ text: `${one.mode}: the program says whom it wants` }] },
      one.connected ? short(one.to.length ? "connected" : "ready") : { text: one.trouble || "not connected", kind: "wide trouble", bad: true }]),
    null);
  const dropped = [...status.exposed.map((one) => [one.service, one.dropped ?? {}]),
    ...status.forwarded.map((one) => [one.listen.join(", "), one.dropped ?? {}])].filter(([, counts]) => Object.keys(counts).length);
  fill("dropped", ["service or forward", "datagrams dropped"],
    dropped.map(([name, counts]) => [name, { kind: "wide", parts: Object.entries(counts).map(([why, number]) => ({ text: `${count(number)} ${why}` })) }]), null);
  const refused = Object.entries(status.refused).filter(([, number]) => number).map(([name, number]) => `${count(number)} by ${name}`);
  element("refused").textContent = refused.length ? `Refused before they came to a service: ${refused.join(", ")}` : "";
  element("everywhere").textContent = status.everywhere.length ? `For all services together: ${status.everywhere.join("; ")}` : "";
  fill("callers", ["identity", "service", "from", "streams", "resumes"],
    status.callers.map((one) => [{ text: one.peer, kind: "id" }, one.service, one.source, figure(count(one.streams)), figure(count(one.resumes))]),
    status.exposed.length ? "Nobody is connected." : null);
  showNode(status.node);
  fill("workers", ["worker", "process", "state", "open", "connections", "died", "lost with it"],
    (status.workers ?? []).map((one) => [`${one.worker}`, figure(`${one.pid}`), workerState(one),
      figure(count(one.open)), figure(count(one.connections)), figure(count(one.deaths)), figure(count(one.lost))]),
    null);
  fill("tasks", ["task", "state", "restarts", "last error"],
    (status.tasks ?? []).map((one) => [one.name, { text: one.waiting ? "begins again soon" : "works", kind: "short", bad: one.waiting > 0 },
      figure(count(one.restarts)), wide(one.error, true)]), null);
  const money = status.exposed.filter((one) => one.earned || ("earned" in one && !one.earned_in))
    .map((one) => [`earned by ${one.service}`, figure(sui(one.earned))]);
  money.push(...status.exposed.flatMap((one) => Object.entries(one.earned_in ?? {}).map(([coin, units]) =>
    [`earned by ${one.service}`, figure(`${count(units)} of ${coin}`)])));
  money.push(...Object.entries(status.claimed ?? {}).map(([coin, units]) =>
    ["claimed on chain, all services", figure(/^0x0*2::sui::SUI$/.test(coin) ? sui(units) : `${count(units)} of ${coin}`)]));
  money.push(...Object.entries(status.gas_mist ?? {}).map(([what, mist]) => [`gas for ${what}`, figure(sui(mist))]));
  money.push(...status.forwarded.filter((one) => "spent" in one)
    .map((one) => [`spent by ${one.listen.join(", ")}, of ${sui(one.budget)} SUI`, figure(sui(one.spent))]));
  fill("money", ["what", "SUI"], money, null);
  fill("bans", ["caller", "until"], Object.entries(status.bans ?? {}).map(([caller, until]) => [{ text: caller, kind: "id" },
    short(until === null ? "let in by hand" : new Date(until * 1000).toLocaleString())]), null);
  fill("events", ["time", "what"],
    status.events.slice().reverse().map((one) => [short(new Date(one.time * 1000).toLocaleTimeString()), wide(one.message, one.level !== "info")]),
    "None so far.");
}

// A daemon that is a node: peers, topics, the DHT.
function showNode(node) {
  const words = node ? [plural(node.links, "link"), `${plural(node.known, "peer")} known`] : [];
  if (typeof node?.dialled === "boolean") { words.push(node.dialled ? "others can dial it" : "nobody can dial it"); }
  if (node?.private) { words.push("in a private network"); }
  if (node?.dht) { words.push(`DHT at ${node.dht.endpoint} ${node.dht.serves ? "serves" : "only asks"}, ${plural(node.dht.contacts, "contact")}`); }
  if (node?.clock) { words.push(node.clock.message); }
  element("node").textContent = words.join("; ");
  fill("peers", ["identity", "link", "services", "addresses"], (node?.peers ?? []).map((one) => [
    { text: one.peer, kind: "id" },
    short(!one.linked ? "" : one.carriers.some((url) => url.startsWith("relay:")) ? "relayed" : "direct"),
    wide(one.services.filter((name) => name !== "dtp.node").join(" "), false),
    { kind: "wide", parts: (one.carriers.length ? one.carriers : one.addresses).slice(0, 2).map((text) => ({ text })) }]),
    node ? "Nobody is known yet." : null);
  fill("topics", ["topic", "neighbours", "messages", "bytes"],
    (node?.topics ?? []).map((one) => [one.private ? `${one.topic} (private)` : one.topic, figure(count(one.neighbours)), figure(count(one.messages)), figure(sizeText(one.bytes))]), null);
}

function measure(status) {
  const sum = (key) => [...status.exposed, ...status.forwarded].reduce((total, one) => total + one[key], 0);
  const now = { time: performance.now(), sent: sum("sent"), received: sum("received"), streams: sum("streams") };
  if (last !== null) {
    const seconds = (now.time - last.time) / 1000;
    const speed = (key) => Math.max(0, now[key] - last[key]) / seconds;
    history.push({ sent: speed("sent"), received: speed("received"), streams: speed("streams") });
    if (history.length > KEEP) { history.shift(); }
  }
  last = now;
}

// A round number of bytes above all that is shown: the plot doesn't change its scale with every byte.
function scale(most) {
  let top = 1024;
  while (top < most) { top *= 2; }
  return top;
}

function plot() {
  const canvas = element("plot");
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio)) {
    [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  }
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name);
  const top = scale(Math.max(...history.flatMap((one) => [one.sent, one.received]), 1));
  const bottom = height - 18;
  const y = (value) => bottom - value / top * (bottom - 16);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colour("--dim");
  pen.strokeStyle = colour("--line");
  pen.lineWidth = 1;
  for (const part of [0, 0.5, 1]) {
    pen.beginPath();
    pen.moveTo(0, y(top * part));
    pen.lineTo(width, y(top * part));
    pen.stroke();
    pen.fillText(part ? `${sizeText(top * part)}/s` : "2 min ago", 0, part ? y(top * part) - 4 : height - 4);
  }
  pen.textAlign = "right";
  pen.fillText("now", width, height - 4);
  pen.textAlign = "left";
  pen.lineWidth = 1.5;
  pen.lineJoin = "round";
  for (const [key, name] of [["received", "--in"], ["sent", "--out"]]) {
    pen.strokeStyle = colour(name);
    pen.beginPath();
    history.forEach((one, number) => {
      pen.lineTo(width - (history.length - 1 - number) * width / (KEEP - 1), y(one[key]));
    });
    pen.stroke();
  }
  const now = history.at(-1) ?? { sent: 0, received: 0, streams: 0 };
  element("rate-in").textContent = `${sizeText(now.received)}/s`;
  element("rate-out").textContent = `${sizeText(now.sent)}/s`;
  element("rate-streams").textContent = count(Math.round(now.streams));
}

async function turn() {
  try {
    const answer = await fetch("status");
    if (!answer.ok) { throw new Error(`status ${answer.status}`); }
    const status = await answer.json();
    show(status);
    measure(status);
    plot();
    document.body.dataset.ready = "yes";
  } catch (error) {
    last = null; // a speed over the gap would be none
    element("state").textContent = `not reached (${error.message})${document.body.dataset.ready ? "; what is below was true before" : ""}`;
    element("state").className = "bad";
    document.title = "dtpd (not reached)";
  }
  setTimeout(turn, 1000);
}

addEventListener("resize", plot);
turn();
