// The wallets of this browser, by the Wallet Standard, and one in the page for browsers that have none.
import { ed25519 } from "@noble/curves/ed25519.js";
import { blake2b } from "@noble/hashes/blake2.js";
import { concatBytes, randomBytes } from "@noble/hashes/utils.js";

const CHAIN = "sui:localnet";

// Calls `found` with each wallet that can sign for Sui, also with one that comes later.
export function findWallets(found) {
  const register = (...wallets) => {
    wallets.filter((wallet) => wallet.features["sui:signTransaction"]).forEach((wallet) => found(wallet));
    return () => {};
  };
  window.addEventListener("wallet-standard:register-wallet", (event) => event.detail({ register }));
  window.dispatchEvent(new CustomEvent("wallet-standard:app-ready", { detail: { register } }));
  register(new PageWallet());
}

// The account of a wallet that its owner lets the page use.
export async function connectTo(wallet) {
  const { accounts } = await wallet.features["standard:connect"].connect();
  return accounts[0];
}

// The signature as Sui takes it: flag, signature, key.
export async function signTransaction(wallet, account, transaction) {
  const inText = { toJSON: async () => transaction.toBase64() };
  const signing = wallet.features["sui:signTransaction"];
  const { signature } = await signing.signTransaction({ transaction: inText, account, chain: CHAIN });
  return Uint8Array.fromBase64(signature);
}

// A key that is gone with the page, and no place for money: an extension keeps its key out of reach of pages.
class PageWallet {
  version = "1.0.0";
  name = "one of this page";
  icon = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>";
  chains = [CHAIN];
  #seed = randomBytes(32);

  get accounts() {
    const publicKey = ed25519.getPublicKey(this.#seed), flagged = concatBytes(Uint8Array.of(0), publicKey);
    const address = "0x" + blake2b(flagged, { dkLen: 32 }).toHex();
    return [{ address, publicKey, chains: this.chains, features: ["sui:signTransaction"] }];
  }

  get features() {
    return {
      "standard:connect": { version: "1.0.0", connect: async () => ({ accounts: this.accounts }) },
      "sui:signTransaction": { version: "2.0.0", signTransaction: (asked) => this.#sign(asked) },
    };
  }

  async #sign({ transaction, account }) {
    const bytes = await transaction.toJSON();
    const intent = concatBytes(Uint8Array.of(0, 0, 0), Uint8Array.fromBase64(bytes));
    const signature = ed25519.sign(blake2b(intent, { dkLen: 32 }), this.#seed);
    return { bytes, signature: concatBytes(Uint8Array.of(0), signature, account.publicKey).toBase64() };
  }
}
