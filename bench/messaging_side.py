"""`python -m bench.messaging_side STORE`: a mailbox alone in a process, whose memory is measured from outside.

It prints its address, and ends with standard input.
"""

from __future__ import annotations

import asyncio
import sys

import dtp
from dtp.messaging.mailbox import MAILBOX_SERVICE, Mailbox, MailboxLimits, SqliteMailbox


async def serve(path: str) -> None:
    """Serve the mailbox in this file until standard input ends."""
    mailbox = Mailbox(SqliteMailbox(path, MailboxLimits(recipients=10**6)))
    async with await dtp.listen(
        "tcp://127.0.0.1:0", {MAILBOX_SERVICE: mailbox.serve}, identity=dtp.Identity.generate()
    ) as listener:
        print(listener.address(MAILBOX_SERVICE), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await mailbox.stop()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
