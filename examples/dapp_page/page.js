// The front end: logs in by name and password, whichever wallet is there, and has the wallet linked to the account.
import { decode, encode } from "@msgpack/msgpack";
import { ed25519 } from "@noble/curves/ed25519.js";
import { randomBytes } from "@noble/hashes/utils.js";
import { Login, LoginRefused, signStatement } from "./login.js";
import { connectTo, findWallets, signTransaction } from "./wallets.js";

const at = (id) => document.getElementById(id);
const wallets = [];

async function post(path, body) {
  const answer = await fetch(path, { method: "POST", body });
  if (!answer.ok) throw new Error(await answer.text());
  return new Uint8Array(await answer.arrayBuffer());
}

async function come(isNew) {
  const wallet = wallets[at("wallet").value], account = await connectTo(wallet);
  const { server, client } = decode(await post("visit"));
  const login = new Login((request) => post("ask", request), server, client);
  const [name, password] = [at("name").value, at("password").value];
  if (isNew) {
    // The key that takes the account back is kept elsewhere, so this page keeps its public half alone.
    const recovery = ed25519.getPublicKey(randomBytes(32));
    at("code").value = await login.register(name, password, recovery);
    at("recovery").hidden = false;
  }
  const vault = await login.open(name, password);
  if (vault === null) throw new Error("the name or the password is wrong");
  at("account").value = ed25519.getPublicKey(vault.seed).toHex();
  if (!(account.address in vault.wallets)) {
    const number = Object.keys(vault.wallets).length + 1;
    await login.save({ ...vault.wallets, [account.address]: `wallet ${number}` });
  }
  at("notes").value = new TextDecoder().decode(await post("note", at("note").value));
  at("wallets").value = await link(wallet, account, vault);
}

// Signs what it takes to tie the wallet to the account: the account its statements, the wallet its transaction.
async function link(wallet, account, { seed, settings }) {
  let told = decode(await post("link", encode([account.address, settings.card])));
  while (told.sign) {
    const signature = told.sign === "account"
      ? signStatement(seed, told.bytes) : await signTransaction(wallet, account, told.bytes);
    told = decode(await post("sign", signature));
  }
  return told.wallets;
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  at("trouble").textContent = "";
  try {
    await come(event.submitter?.name === "new");
  } catch (fault) {
    at("trouble").textContent = fault.message;
    if (!(fault instanceof LoginRefused)) console.error(fault);
  }
});

findWallets((wallet) => {
  at("wallet").add(new Option(wallet.name, wallets.push(wallet) - 1));
});
document.body.dataset.ready = "yes";
