"""Payment for connections: both ends count, the client signs vouchers, the server is paid on chain.

`docs/paying.md` is the guide, docs/wire.md the protocol. The parts, from the inside out:

- `terms`, `payer`, `payee`: the meter as a value. Counts, frames and the time in, vouchers and commands out; no IO.
- `voucher`, `messages`, `ticket`, `answers`: the bytes that are signed and sent.
- `store`, `journal`: what must not be forgotten, in SQLite before it counts.
- `drivers`, `metered`: a connection with a meter. `dial` and `serving` make them: a client that opens a channel
  (`buying`), a server that checks one (`gate`, `book`, `ledger`, `quota`) under its host object (`hosting`).
- `claims`, `settling`, `cashier`, `passes`, `costs`: money on chain.
"""
