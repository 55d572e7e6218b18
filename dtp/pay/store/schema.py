"""The tables of `dtp.pay.store`, and how a file of an earlier format becomes one of this."""

from typing import Final

FORMAT: Final = 14

SCHEMA: Final = """
CREATE TABLE bought (           -- channels that we opened
    channel TEXT PRIMARY KEY,
    chain TEXT NOT NULL,        -- the chain's id
    host TEXT NOT NULL,
    service INTEGER NOT NULL,
    account TEXT NOT NULL,      -- who opened it
    state TEXT NOT NULL,        -- 'open', 'refused', 'closing', 'closed'
    opened_ms INTEGER NOT NULL,
    coin TEXT NOT NULL DEFAULT '',
    claim_ms INTEGER NOT NULL DEFAULT 0,    -- so long the server may claim once the close is asked for
    gas INTEGER NOT NULL DEFAULT 0,         -- of transactions up to format 11, later ones are in `spent`
    refused INTEGER NOT NULL DEFAULT 0,     -- its server has refused it
    name TEXT NOT NULL DEFAULT ''           -- of the service, as it is dialled, '' where only its number is known
) WITHOUT ROWID;
CREATE TABLE deposits (         -- money that went into channels that we opened (above 0), or came back (below)
    channel TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    digest TEXT NOT NULL DEFAULT ''     -- of its transaction, while it isn't known that the chain has it
);
CREATE INDEX deposits_of ON deposits (channel);
CREATE TABLE unnoted (          -- money that may be in channels which aren't in `bought`
    id TEXT PRIMARY KEY,        -- the digest of an opening, or a channel
    chain TEXT NOT NULL,
    account TEXT NOT NULL,
    coin TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    amount INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE sent (             -- transactions that deposit, while it isn't known that the chain has them
    digest TEXT PRIMARY KEY,
    data BLOB NOT NULL          -- the BCS of what was signed
) WITHOUT ROWID;
CREATE TABLE counted (          -- accounts whose money was counted by the chain's history since this copy was made
    chain TEXT NOT NULL,
    account TEXT NOT NULL,
    PRIMARY KEY (chain, account)
) WITHOUT ROWID;
CREATE TABLE waits (            -- since when a server goes on with this copy, ms: one row until its wait is over
    restored_ms INTEGER NOT NULL,   -- channels that were opened until then wait
    until_ms INTEGER NOT NULL       -- by the clock here
);
CREATE TABLE spent (            -- transactions of ours, noted before they were sent
    digest TEXT PRIMARY KEY,
    purpose TEXT NOT NULL,      -- 'pay' for channels that we open, 'claim' for those that pay us
    channel TEXT NOT NULL,      -- '' for several, or one that it was to open
    chain TEXT NOT NULL,
    account TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    gas INTEGER                 -- what it took, storage given back counted, NULL while that isn't known
) WITHOUT ROWID;
CREATE INDEX spent_on ON spent (channel);
CREATE TABLE budgets (          -- budgets that are for a time
    name TEXT PRIMARY KEY,
    period INTEGER NOT NULL,    -- the newest that began: which of those times since 1970
    before INTEGER NOT NULL     -- what had been signed when it began
) WITHOUT ROWID;
CREATE TABLE loans (            -- of budgets, to connections that go on or are being dialled
    loan TEXT NOT NULL,
    lender TEXT NOT NULL,       -- the program: its lock is beside this file
    chain TEXT NOT NULL,
    host TEXT NOT NULL,         -- one of those that it may be for
    service INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    channel TEXT NOT NULL,      -- of its connection, '' until it is there
    lane INTEGER NOT NULL,
    start INTEGER NOT NULL,     -- what had been signed on the lane when it began
    PRIMARY KEY (loan, host, service)
) WITHOUT ROWID;
CREATE TABLE lanes (            -- lanes that we sign for
    channel TEXT NOT NULL,
    lane INTEGER NOT NULL,
    seed BLOB NOT NULL,
    message BLOB,               -- the newest voucher, as it was signed
    signature BLOB,
    requests INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    clean INTEGER NOT NULL DEFAULT 1,
    reserved_sequence INTEGER NOT NULL DEFAULT 0,   -- vouchers up to these may have been signed
    reserved_amount INTEGER NOT NULL DEFAULT 0,
    believed_requests INTEGER NOT NULL DEFAULT 0,   -- of what was used: never arrived, and counted by the server
    believed_bytes INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,                -- of the deposit, by the connection that has the lane's lock
    PRIMARY KEY (channel, lane)
) WITHOUT ROWID;
CREATE TABLE keys (             -- keys of channels that are being opened
    public BLOB PRIMARY KEY,
    seed BLOB NOT NULL,
    made_ms INTEGER NOT NULL,
    digest TEXT NOT NULL DEFAULT '',    -- of the transaction that names the key, once it is signed
    chain TEXT NOT NULL DEFAULT '',     -- the id of the chain that it was signed for, as far as it is known
    denied INTEGER NOT NULL DEFAULT 0   -- 1: a node said that nothing happened, 2: and has opened a later one since
) WITHOUT ROWID;
CREATE TABLE sold (             -- lanes that we are paid by
    channel TEXT NOT NULL,
    lane INTEGER NOT NULL,
    message BLOB,
    signature BLOB,
    sequence INTEGER NOT NULL DEFAULT 0,    -- of the voucher, as the rest of this line of columns
    amount INTEGER NOT NULL DEFAULT 0,
    vouched_requests INTEGER NOT NULL DEFAULT 0,
    vouched_bytes INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,    -- served
    bytes INTEGER NOT NULL DEFAULT 0,
    preimage BLOB,              -- of the newest voucher's lock, or of one that was asked for
    PRIMARY KEY (channel, lane)
) WITHOUT ROWID;
CREATE TABLE passes (           -- what was used under passes, by period
    pass TEXT NOT NULL,
    period INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (pass, period)
) WITHOUT ROWID;
CREATE TABLE ends (             -- channels that we agreed to close, or know to be over
    channel TEXT PRIMARY KEY,
    total INTEGER NOT NULL,
    not_after_ms TEXT NOT NULL, -- may be above what an INTEGER holds
    state TEXT NOT NULL,        -- 'agreed', 'over'
    chain TEXT NOT NULL DEFAULT ''  -- the id of the chain that it was agreed for, as far as it is known
) WITHOUT ROWID;
"""
#: Statements that make a file of the next format out of one of a format before.
UPGRADES: Final = {
    1: """
ALTER TABLE lanes ADD COLUMN reserved_sequence INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lanes ADD COLUMN reserved_amount INTEGER NOT NULL DEFAULT 0;
""",
    2: "ALTER TABLE ends ADD COLUMN chain TEXT NOT NULL DEFAULT ''",
    3: """
ALTER TABLE lanes ADD COLUMN believed_requests INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lanes ADD COLUMN believed_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lanes ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
""",
    4: "ALTER TABLE keys ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
    5: """
ALTER TABLE keys ADD COLUMN chain TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN denied INTEGER NOT NULL DEFAULT 0;
""",
    6: """
ALTER TABLE bought ADD COLUMN coin TEXT NOT NULL DEFAULT '';
ALTER TABLE bought ADD COLUMN claim_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bought ADD COLUMN gas INTEGER NOT NULL DEFAULT 0;
ALTER TABLE bought ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
CREATE TABLE deposits (channel TEXT NOT NULL, at_ms INTEGER NOT NULL, amount INTEGER NOT NULL);
CREATE INDEX deposits_of ON deposits (channel);
CREATE TABLE budgets (name TEXT PRIMARY KEY, period INTEGER NOT NULL, before INTEGER NOT NULL) WITHOUT ROWID;
""",
    7: "ALTER TABLE deposits ADD COLUMN digest TEXT NOT NULL DEFAULT ''",
    8: """
ALTER TABLE bought ADD COLUMN name TEXT NOT NULL DEFAULT '';
CREATE TABLE failed (digest TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, gas INTEGER NOT NULL) WITHOUT ROWID;
""",
    9: """
CREATE TABLE unnoted (id TEXT PRIMARY KEY, chain TEXT NOT NULL, account TEXT NOT NULL, coin TEXT NOT NULL,
at_ms INTEGER NOT NULL, amount INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE counted (chain TEXT NOT NULL, account TEXT NOT NULL, PRIMARY KEY (chain, account)) WITHOUT ROWID;
""",
    10: "CREATE TABLE sent (digest TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID",
    11: """
CREATE TABLE spent (digest TEXT PRIMARY KEY, purpose TEXT NOT NULL, channel TEXT NOT NULL, chain TEXT NOT NULL,
account TEXT NOT NULL, at_ms INTEGER NOT NULL, gas INTEGER) WITHOUT ROWID;
CREATE INDEX spent_on ON spent (channel);
INSERT INTO spent SELECT digest, 'pay', '', '', '', at_ms, gas FROM failed;
DROP TABLE failed;
""",
    12: "CREATE TABLE waits (restored_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL)",
    13: """
CREATE TABLE loans (loan TEXT NOT NULL, lender TEXT NOT NULL, chain TEXT NOT NULL, host TEXT NOT NULL,
service INTEGER NOT NULL, amount INTEGER NOT NULL, channel TEXT NOT NULL, lane INTEGER NOT NULL,
start INTEGER NOT NULL, PRIMARY KEY (loan, host, service)) WITHOUT ROWID;
""",
}
