"""A program that follows events into a database, for tests that kill it. Prints how many it has kept."""

import asyncio
import sqlite3
import sys

from dtp.chain import ChainClient, Cursor, EventFollower
from dtp.chain.node.endpoints import Retry


async def main(url, package, database):
    db = sqlite3.connect(database)
    db.execute("CREATE TABLE IF NOT EXISTS seen (number INTEGER PRIMARY KEY, key TEXT UNIQUE)")
    db.execute("CREATE TABLE IF NOT EXISTS cursor (one INTEGER PRIMARY KEY CHECK (one = 1), text TEXT)")
    row = db.execute("SELECT text FROM cursor").fetchone()
    cursor = Cursor.from_text(row[0]) if row else None
    patient = Retry(
        attempts=200, most_seconds=60, first_pause=0.05, longest_pause=0.2
    )  # the node may be away just now
    async with ChainClient(url, deployments=None, retry=patient) as chain:
        async for found in EventFollower(chain, [f"{package}::host::HostCreated"], cursor=cursor, start=0):
            with db:  # the event and the cursor after it, together or not at all
                db.execute("INSERT INTO seen (key) VALUES (?)", (repr(found.event.key),))
                db.execute("INSERT OR REPLACE INTO cursor VALUES (1, ?)", (found.cursor.to_text(),))
            print(db.execute("SELECT COUNT(*) FROM seen").fetchone()[0], flush=True)


asyncio.run(main(*sys.argv[1:]))
