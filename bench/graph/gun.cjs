// GunDB without storage and network: its merge function fed with the messages its wire has, as JSON.
"use strict"
const { work, timed, load } = require("./work.cjs")
const log = console.log
console.log = () => {} // it greets
const Gun = load("gun/gun.js")

function message(rows, clock) {
  const put = {}
  rows.forEach(([soul, key, value], at) => {
    const node = (put[soul] = put[soul] || { _: { "#": soul, ">": {} } })
    node[key] = value
    node._[">"][key] = clock + at / 1000
  })
  return JSON.stringify({ "#": Math.random().toString(36).slice(2), put })
}

// Gun works messages off in turns of the event loop: it has a message when the last of its properties is there.
async function feed(gun, messages) {
  for (const text of messages) gun._.on("in", JSON.parse(text))
  const last = JSON.parse(messages[messages.length - 1]).put
  const soul = Object.keys(last).pop()
  while (!gun._.graph[soul]) await new Promise(resolve => setImmediate(resolve))
  await new Promise(resolve => setTimeout(resolve, 50))
}

async function main(nodes, updates) {
  const { initial, remote, own } = work(nodes, updates)
  const gun = Gun({ localStorage: false, radisk: false, axe: false, multicast: false, file: false, web: false })
  const now = Date.now() - 1e7
  const chunk = (rows, size, clock) => {
    const messages = []
    for (let at = 0; at < rows.length; at += size) messages.push(message(rows.slice(at, at + size), clock + at))
    return messages
  }
  const rows = Object.entries(initial).flatMap(([soul, node]) => Object.entries(node).map(([k, v]) => [soul, k, v]))
  await feed(gun, chunk(rows, 1000, now))
  await feed(gun, chunk(own, 1000, now + 5e6))
  const frames = chunk(remote, 1000, now + 3e6)
  const singles = chunk(remote.slice(0, 20000), 1, now + 3e6)
  const sum = messages => messages.reduce((total, one) => total + one.length, 0)
  const found = {
    "bytes/update in 1000s": sum(frames) / updates,
    "bytes/update alone": sum(singles) / singles.length,
  }
  found["merge 1000s /s"] = updates / (await timed(() => feed(gun, frames)))
  found["merge singles /s"] = singles.length / (await timed(() => feed(gun, singles)))
  log(JSON.stringify(found))
  process.exit(0)
}

main(Number(process.argv[2]), Number(process.argv[3]))
