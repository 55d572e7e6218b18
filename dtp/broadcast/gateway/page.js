"use strict";
// Plays a show by Media Source Extensions. What comes was checked by the gateway.

const at = (id) => document.getElementById(id);
const video = at("video");
// Behind what is live, so that a segment that is late stops nothing.
const BEHIND_MS = 2000;
// After so long without a segment, and than the newest one lasts, it is said that nothing comes.
const QUIET_MS = 10000;
// Known a moment after the init data was taken, be it the last that the page appends.
video.addEventListener("resize", () => { video.dataset.size = video.videoWidth + "x" + video.videoHeight; });
let source = null, buffer = null, init = null, next = null, appended = 0, over = false;
// Why nothing is played; it stays on the page until something is.
let trouble = "";
// The newest segment, and when it came.
let edge = null, edgeAt = 0;

// The codecs as the init data has them: avcC for H.264 (ISO/IEC 14496-15), hvcC is not played by most browsers.
function codecsOf(bytes, media) {
  const text = new TextDecoder("latin1").decode(bytes);
  if (isMatroska(bytes, media)) {
    const found = [["V_VP9", "vp9"], ["V_VP8", "vp8"], ["V_AV1", "av01.0.04M.08"], ["A_OPUS", "opus"], ["A_VORBIS", "vorbis"]]
      .filter(([name]) => text.includes(name)).map(([, codec]) => codec);
    return `video/webm; codecs="${found.join(",")}"`;
  }
  const found = [], hex = (value) => value.toString(16).padStart(2, "0");
  const avc = text.indexOf("avcC");
  if (avc >= 0) found.push("avc1." + hex(bytes[avc + 5]) + hex(bytes[avc + 6]) + hex(bytes[avc + 7]));
  if (text.includes("vpcC")) found.push("vp09.00.10.08");
  if (text.includes("mp4a")) found.push("mp4a.40.2");
  if (text.includes("dOps")) found.push("opus");
  return `video/mp4; codecs="${found.join(",")}"`;
}

// By the first bytes of EBML, since a producer need not say the media type.
function isMatroska(bytes, media) {
  const begins = [0x1a, 0x45, 0xdf, 0xa3].every((value, index) => bytes[index] === value);
  return begins || media.startsWith("video/x-matroska") || media.startsWith("video/webm");
}

async function bytesOf(number) {
  const answer = await fetch("segments/" + number);
  if (!answer.ok) throw new Error("segment " + number + " is gone");
  return new Uint8Array(await answer.arrayBuffer());
}

function once(target, event) {
  return new Promise((resolve, reject) => {
    target.addEventListener(event, resolve, { once: true });
    target.addEventListener("error", () => reject(new Error("the browser can't play it")), { once: true });
  });
}

async function append(bytes) {
  const done = once(buffer, "updateend");
  buffer.appendBuffer(bytes);
  await done;
}

async function begin(number, media) {
  const bytes = await bytesOf(number), type = codecsOf(bytes, media);
  if (!MediaSource.isTypeSupported(type)) {
    const found = isMatroska(bytes, media) ? "Matroska with codecs other than those of WebM" : type;
    throw new Error(`this browser can't play ${found}; most play fragmented MP4 with H.264, and WebM`);
  }
  if (buffer === null) {
    source = new MediaSource();
    const open = once(source, "sourceopen");
    video.src = URL.createObjectURL(source);
    await open;
    buffer = source.addSourceBuffer(type);
    buffer.mode = "sequence";
  }
  await append(bytes);
  init = number;
}

// The segment to begin with: a few seconds before what is live, and the first one that is here once the show is over.
function beginning(state) {
  const shown = state.segments;
  let at = state.ended ? 0 : shown.length - 1, ms = 0;
  while (at > 0 && (!shown[at].start || (ms += shown[at].ms || 1000) < BEHIND_MS)) at -= 1;
  return shown.length ? shown[at].number : null;
}

async function play(state) {
  if (next === null) next = beginning(state);
  for (const segment of state.segments) {
    if (segment.number < next) continue;
    if (segment.init !== null && segment.init !== init) await begin(segment.init, state.media);
    if (buffer === null) throw new Error("this show is no video that a browser plays");
    await append(await bytesOf(segment.number));
    next = segment.number + 1;
    appended += 1;
    at("checked").textContent = String(appended);
  }
  if (buffer !== null && buffer.buffered.length && !video.seeking) {
    const start = buffer.buffered.start(0), end = buffer.buffered.end(buffer.buffered.length - 1);
    if (video.currentTime < start) video.currentTime = start;
    at("behind").textContent = state.ended || !isOnAir(state) ? "" : (end - video.currentTime).toFixed(1) + " s";
    if (video.currentTime - start > 60 && !buffer.updating) {
      const done = once(buffer, "updateend");
      buffer.remove(start, video.currentTime - 30);
      await done;
    }
  }
  if (state.ended && !over && source !== null && source.readyState === "open") {
    over = true;
    source.endOfStream();
  }
}

function isOnAir(state) {
  return state.money === null || airOf(state) === "on air";
}

function isQuiet(state) {
  const now = performance.now(), newest = state.segments.at(-1);
  if (state.edge !== edge) [edge, edgeAt] = [state.edge, now];
  return now - edgeAt > QUIET_MS + (newest ? newest.ms : 0);
}

// The chain says "on air" also where the producer is away. What comes is paid once it is posted.
function airOf(state) {
  const money = state.money;
  return money.air === "on air" && money.is_unposted && isQuiet(state) ? "paused" : money.air;
}

const OFF_AIR = {
  off: "off air, until somebody pays for it",
  funding: "off air, until there is enough for it",
  paused: "paused, until somebody pays for more",
};
const UNPOSTED = "paused: no slots are posted, so nobody pays for them";

// By the clock here, which may be wrong: the chain has the last word.
function isTooLate(money) {
  return money.tickets && money.air in OFF_AIR && money.air !== "paused" && money.start_by_ms && money.start_by_ms < Date.now();
}

function show(state) {
  document.title = state.title || "show";
  at("title").textContent = state.title || "show";
  at("producer").textContent = state.producer;
  const status = at("status");
  // Anybody can send a show again that has been; clocks may differ.
  const hours = state.edge_ms === null ? 0 : (Date.now() - state.edge_ms) / 3600000;
  status.textContent = hours > 1.5 ? "authentic, and sent " + hours.toFixed(1) + " hours ago" : "live, and authentic";
  if (isQuiet(state)) status.textContent = "nothing comes now: its producer is quiet, or away";
  if (state.money !== null && airOf(state) in OFF_AIR) {
    status.textContent = airOf(state) === "paused" && state.money.is_unposted ? UNPOSTED : OFF_AIR[airOf(state)];
  }
  if (state.money !== null && isTooLate(state.money)) status.textContent = "off air: too few tickets were sold in time";
  if (state.ended) status.textContent = "the show is over";
  delete status.dataset.fault;
  if (state.fault || trouble) tellTrouble(state.fault ? "stopped: " + state.fault : trouble);
  at("money").hidden = at("air").hidden = state.money === null;
  if (state.money !== null) {
    at("air").textContent = at("air").dataset.air = airOf(state);
    showMoney(state.money, state.moderated_here);
  }
}

function tellTrouble(text) {
  at("status").textContent = text;
  at("status").dataset.fault = "";
}

function seconds(count) {
  const minutes = Math.floor(count / 60);
  return minutes > 0 ? `${minutes} min ${Math.round(count % 60)} s` : `${Math.round(count)} s`;
}

function showMoney(money, moderated) {
  at("old").hidden = money.old_s === null;
  at("old").textContent = `The chain hasn't answered for ${seconds(money.old_s || 0)}: this is how it stood then.`;
  const rows = [];
  if (money.tickets) {
    rows.push(["tickets held", `${money.tickets.held} of ${money.tickets.wanted} needed`], ["a ticket", money.ticket]);
    if (money.start_by_ms && money.air in OFF_AIR) rows.push(["has to start by", new Date(money.start_by_ms).toLocaleString()]);
  } else {
    rows.push(["in the pot", money.pot], ["costs", `${money.rate} each ${seconds(money.slot_s)}`]);
    if (money.air === "on air") rows.push(["lasts for", seconds(money.lasts_s)]);
    else if (money.air !== "ended") rows.push(["begins with", money.starts_at]);
  }
  if (money.air !== "ended") rows.push(["next slot", money.next_slot]);
  rows.push(["paid so far", money.paid], ["tips", money.tips]);
  at("funding").replaceChildren(...rows.flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
  at("how").parentElement.hidden = money.air === "ended" && !money.is_unspent;
  const late = isTooLate(money), over = money.air === "ended" && money.is_unspent;
  at("take").textContent = late ? "Tickets are paid back with" : over ? "What is unspent comes back with" : "Take part with";
  at("how").textContent = late || over ? `dtp show refund ${money.show}`
    : money.tickets ? `dtp show buy ${money.show}` : `dtp show fund ${money.show} AMOUNT`;
  at("join").hidden = money.air === "ended";
  at("ask").textContent = `dtp show ask ${money.show} TEXT`;
  at("raise").textContent = `dtp show ask ${money.show} --raise NUMBER`;
  // Entries that are there stay, so that a button isn't replaced under a finger.
  const line = at("line"), there = new Map([...line.children].map((item) => [item.dataset.number, item]));
  line.replaceChildren(...money.line.map((entry) => {
    const item = there.get(String(entry.number)) || entryOf(entry, moderated);
    item.querySelector(".amount").textContent = entry.amount + (entry.raised ? `, raised ${entry.raised} ${entry.raised === 1 ? "time" : "times"}` : "");
    return item;
  }));
  at("more").hidden = money.more === 0;
  at("more").textContent = `and ${money.more} more, for less`;
}

function made(name, text, kind) {
  const element = document.createElement(name);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function entryOf(entry, moderated) {
  const item = made("li", "");
  item.dataset.number = String(entry.number);
  item.append(made("span", `${entry.kind} ${entry.number}`, "kind " + entry.kind), made("span", entry.text, "text"), made("span", "", "amount"));
  if (moderated) {
    const button = made("button", "done");
    button.title = "take it off the line";
    button.addEventListener("click", async () => {
      button.disabled = true;
      const answer = await fetch(`line/${entry.number}/dismiss`, { method: "POST" });
      if (answer.ok) item.remove(); else button.disabled = false;
    });
    item.append(button);
  }
  return item;
}

async function stateOf() {
  try {
    return await (await fetch("state")).json();
  } catch {
    throw new Error("the gateway doesn't answer: is dtp show still running?");
  }
}

async function run() {
  for (;;) {
    try {
      const state = await stateOf();
      show(state);
      if (state.fault) return await play(state).catch(() => {}); // why some of it can't be had is said
      await play(state);
      trouble = "";
      if (state.ended && over) return;
    } catch (fault) {
      trouble = String(fault.message || fault);
      tellTrouble(trouble);
    }
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

run();
