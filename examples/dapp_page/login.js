// A client of dtp.login in a browser, as docs/login.md has it ("What goes over the wire"). Whoever carries its messages,
// here the web server, learns neither password nor what is in the vault.
import { decode, encode } from "@msgpack/msgpack";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { ed25519 } from "@noble/curves/ed25519.js";
import { blake2b } from "@noble/hashes/blake2.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { concatBytes, randomBytes, utf8ToBytes } from "@noble/hashes/utils.js";
import * as opaque from "@serenity-kit/opaque";

const Op = { REGISTER_START: 1, REGISTER: 2, LOGIN_START: 3, LOGIN_FINISH: 4, PUT_VAULT: 5 };
const PASSWORD = 0, RECOVERY = 1;
const STEP = 1024;
// Argon2id as the server's other clients have it: the record of a password is made with it.
const keyStretching = { "argon2id-custom": { iterations: 2, memory: 19456, parallelism: 1 } };
const url64 = { alphabet: "base64url", omitPadding: true };
const toText = (bytes) => bytes.toBase64(url64);
const toBytes = (text) => Uint8Array.fromBase64(text, url64);

export class LoginRefused extends Error {
  constructor(code) {
    super(`the login server refused, by code ${code}`);
    this.code = code;
  }
}

// Signs what dtp's statements are, and nothing that a chain takes for a transaction.
export function signStatement(seed, statement) {
  const domain = new TextDecoder().decode(statement.subarray(1, 1 + statement[0]));
  if (!domain.startsWith("dtp.")) throw new Error("the web server wants something signed that is no statement");
  return ed25519.sign(statement, seed);
}

// The account's card, as dtp.identity.Account.create makes it.
function makeCard(seed, recovery) {
  const domain = utf8ToBytes("dtp.card.v1");
  const body = encode([1, ed25519.getPublicKey(seed), recovery, [], 1, Date.now(), 0, []]);
  return encode([body, signStatement(seed, concatBytes(size(domain.length, 1), domain, body))]);
}

const size = (number, bytes) => Uint8Array.from({ length: bytes }, (_, at) => number / 2 ** (8 * (bytes - 1 - at)));
const context = (domain, name, slot = 0) => concatBytes(utf8ToBytes(domain), Uint8Array.of(slot), utf8ToBytes(name));

function seal(key, plain, about) {
  const nonce = randomBytes(24);
  return concatBytes(nonce, xchacha20poly1305(key, nonce, about).encrypt(plain));
}

function open(key, sealed, about) {
  return xchacha20poly1305(key, sealed.subarray(0, 24), about).decrypt(sealed.subarray(24));
}

function wrappingKey(exportKey) {
  const personalization = new Uint8Array(16);
  personalization.set(utf8ToBytes("dtp.vault.wrap"));
  return blake2b(exportKey, { dkLen: 32, personalization });
}

function sealVault({ version, seed, staticKey, wallets, settings }, key, name) {
  const plain = encode([version, seed, staticKey, wallets, settings]);
  const padded = new Uint8Array(Math.ceil((plain.length + 4) / STEP) * STEP);
  padded.set(concatBytes(size(plain.length, 4), plain));
  return seal(key, padded, context("dtp.vault.v1", name));
}

function openVault(sealed, key, name) {
  const padded = open(key, sealed, context("dtp.vault.v1", name));
  const length = new DataView(padded.buffer, padded.byteOffset).getUint32(0);
  const [version, seed, staticKey, wallets, settings] = decode(padded.subarray(4, 4 + length));
  return { version, seed, staticKey, wallets, settings };
}

// Who is visiting: `carry` takes a request to the login server and gives its answer; `server` is the server's key,
// `client` that of the connection which the web server has for this visitor.
export class Login {
  constructor(carry, server, client) {
    Object.assign(this, { carry, server, client });
  }

  async ask(...request) {
    const [code, ...fields] = decode(await this.carry(encode(request)));
    if (code !== 0) throw new LoginRefused(code);
    return fields;
  }

  // Makes an account that `recovery`, a public key, can take back, and returns its recovery code.
  async register(name, password, recovery) {
    [name, password] = normalized(name, password);
    const seed = randomBytes(32), key = randomBytes(32), code = makeCode();
    const settings = { card: makeCard(seed, recovery) };
    const vault = sealVault({ version: 1, seed, staticKey: randomBytes(32), wallets: {}, settings }, key, name);
    const rows = [
      await this.credential(name, PASSWORD, password, key),
      await this.credential(name, RECOVERY, code.replaceAll("-", ""), key),
    ];
    const domain = utf8ToBytes("dtp.login.register.v1"), digest = blake2b(encode([rows, vault]), { dkLen: 32 });
    const statement = concatBytes(size(domain.length, 1), domain, encode([this.server, name, digest]));
    const account = ed25519.getPublicKey(seed);
    await this.ask(Op.REGISTER, name, new Uint8Array(), account, signStatement(seed, statement), rows, vault);
    return code;
  }

  async credential(name, slot, password, key) {
    await opaque.ready;
    const { clientRegistrationState, registrationRequest } = opaque.client.startRegistration({ password });
    const [response] = await this.ask(Op.REGISTER_START, name, slot, toBytes(registrationRequest));
    const { registrationRecord, exportKey } = opaque.client.finishRegistration({
      clientRegistrationState, registrationResponse: toText(response), password, keyStretching,
    });
    const about = context("dtp.vault.key.v1", name, slot);
    return [slot, toBytes(registrationRecord), seal(wrappingKey(toBytes(exportKey)), key, about)];
  }

  // Logs in and opens the vault; null for a wrong name or password.
  async open(name, password) {
    [name, password] = normalized(name, password);
    await opaque.ready;
    const { clientLoginState, startLoginRequest } = opaque.client.startLogin({ password });
    const [response] = await this.ask(Op.LOGIN_START, name, PASSWORD, toBytes(startLoginRequest));
    const found = opaque.client.finishLogin({
      clientLoginState, loginResponse: toText(response), password, keyStretching,
    });
    if (!found) return null;
    const session = toBytes(found.sessionKey);
    const ends = [this.server, this.client, utf8ToBytes(name)];
    const finish = toBytes(found.finishLoginRequest);
    const told = await this.ask(Op.LOGIN_FINISH, finish, prove(session, "client", ends), 0);
    const [proof, account, wrapped, version, sealed] = told;
    if (toText(proof) !== toText(prove(session, "server", ends))) throw new Error("the server proves nothing");
    this.key = open(wrappingKey(toBytes(found.exportKey)), wrapped, context("dtp.vault.key.v1", name, PASSWORD));
    this.vault = openVault(sealed, this.key, this.name = name);
    if (this.vault.version !== version || toText(ed25519.getPublicKey(this.vault.seed)) !== toText(account))
      throw new Error("the server has another vault than the account's");
    return this.vault;
  }

  // Has the vault have these wallets: addresses, and what their owner calls them.
  async save(wallets) {
    const vault = { ...this.vault, wallets, version: this.vault.version + 1 };
    await this.ask(Op.PUT_VAULT, vault.version, sealVault(vault, this.key, this.name));
    this.vault = vault;
  }
}

// As both are compared; the server refuses a name that isn't in that form.
function normalized(name, password) {
  const blanks = password.replace(/\p{Zs}/gu, " ").normalize("NFC");
  return [name.normalize("NFKC").toLowerCase().normalize("NFKC"), blanks];
}

function makeCode() {
  const bits = [...randomBytes(20)].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const text = bits.replace(/.{5}/g, (five) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[parseInt(five, 2)]);
  return text.match(/.{4}/g).join("-");
}

function prove(session, who, ends) {
  const parts = [utf8ToBytes("dtp.login.v1"), utf8ToBytes(who), ...ends];
  return hmac(sha256, session, concatBytes(...parts.flatMap((part) => [size(part.length, 2), part])));
}
