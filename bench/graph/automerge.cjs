// Automerge: a map of maps. Changes of 1,000 updates each; single ones are measured on 2,000, as each needs milliseconds.
"use strict"
const { work, timed, load } = require("./work.cjs")
const A = load("@automerge/automerge")

async function main(nodes, updates) {
  const { initial, remote, own } = work(nodes, updates)
  const base = A.from({ nodes: initial }, { actor: "aa" })
  const write = (doc, rows) => A.change(doc, d => rows.forEach(([soul, key, value]) => (d.nodes[soul][key] = value)))
  const made = (doc, rows, size) => {
    const messages = []
    for (let at = 0; at < rows.length; at += size) {
      doc = write(doc, rows.slice(at, at + size))
      messages.push(A.getLastLocalChange(doc))
    }
    return messages
  }
  const sum = messages => messages.reduce((total, one) => total + one.length, 0)
  const frames = made(A.clone(base, { actor: "bb" }), remote, 1000)
  const few = remote.slice(0, 200)
  const singles = made(A.clone(base, { actor: "cc" }), few, 1)
  let one = A.clone(base, { actor: "dd" })
  const found = {}
  const ownFew = own.slice(0, 200)
  found["local single /s"] = ownFew.length / (await timed(() => ownFew.forEach(row => (one = write(one, [row])))))
  one = write(one, own)
  found["bytes/update in 1000s"] = sum(frames) / updates
  found["bytes/update alone"] = sum(singles) / singles.length
  found["merge 1000s /s"] =
    updates / (await timed(() => frames.forEach(frame => ([one] = A.applyChanges(one, [frame])))))
  found["merge singles /s"] =
    singles.length / (await timed(() => singles.forEach(frame => ([one] = A.applyChanges(one, [frame])))))
  found["local batch /s"] = updates / (await timed(() => (one = write(one, remote))))
  let state
  found["save ms"] = 1000 * (await timed(() => (state = A.save(one))))
  found["load ms"] = 1000 * (await timed(() => A.load(state)))
  found["size MB"] = state.length / 1e6
  console.log(JSON.stringify(found))
}

main(Number(process.argv[2]), Number(process.argv[3]))
