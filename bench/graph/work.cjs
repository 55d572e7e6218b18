// The same work as work.py's in kind and size (another random sequence), and how all of Node's contenders are measured.
"use strict"
const { createRequire } = require("node:module")
const path = require("node:path")

const KEYS = ["name", "age", "city", "score"]

// mulberry32
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

function work(nodes, updates) {
  const rng = random(1)
  const below = n => Math.floor(rng() * n)
  const value = () => (rng() < 0.5 ? rng() : below(1_000_000))
  const initial = {}
  for (let n = 0; n < nodes; n++)
    initial[`node/${n}`] = { name: `user ${n}`, age: n % 90, city: `c${n % 300}`, score: rng() }
  const remote = Array.from({ length: updates }, () => [`node/${below(nodes)}`, KEYS[below(4)], value()])
  const own = Array.from({ length: Math.floor(updates * 0.3) }, () => {
    const [soul, key] = remote[below(updates)]
    return [soul, key, value()]
  })
  return { initial, remote, own }
}

// Seconds of processor time; what is asynchronous is awaited.
async function timed(run) {
  const before = process.cpuUsage()
  await run()
  const used = process.cpuUsage(before)
  return (used.user + used.system) / 1e6
}

const modules = path.join(process.env.BENCH_GRAPH_NODE || process.cwd(), "package.json")
module.exports = { work, timed, load: createRequire(modules) }
