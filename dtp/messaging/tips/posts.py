"""Tips as messages through the chain, to a host whose endpoint is the line, for people who can't reach a mailbox.

Messages stay on the chain for ever: whoever steals the line's static key, at any time, can open them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing

from dtp.chain.errors import HistoryPruned
from dtp.chain.events import Cursor
from dtp.chain.host_state import HostState, read_host
from dtp.chain.model import Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.pipes.posts import (
    PostKeyMissing,
    PostReader,
    ReplyKey,
    SentPost,
    answers,
    post_key,
    read_post,
    send_answer,
    send_post,
)
from dtp.messaging.errors import EnvelopeBroken
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.tips.errors import LetterForged, TipError
from dtp.messaging.tips.letter import TipLetter
from dtp.messaging.tips.line import TipLine
from dtp.messaging.tips.line_store import Tip
from dtp.messaging.tips.words import TipWords

log = logging.getLogger("dtp.messaging")


def _line_of(state: HostState) -> tuple[bytes, bytes]:
    """Return the identity key of a host's line, and the static key that its endpoint has published."""
    for endpoint in state.beacon.endpoints:
        if (static := post_key(endpoint)) is not None:
            return endpoint.key, static
    raise PostKeyMissing(f"no endpoint of host {state.host.id} has published a key to seal to")


async def send_tip(
    chain: ChainClient, host: Id, service: str, words: TipWords, text: str, *, fee: int | None = None
) -> SentPost:
    """Write to the line of a host's service through the chain. Everybody sees who pays the gas.

    Raise what `dtp.chain.pipes.posts.send_post` raises.
    """
    key, static = _line_of(await read_host(chain, host))
    letter = TipLetter(words.key.id.key, key, text)
    reply = ReplyKey(words.key.static_private)
    return await send_post(
        chain, host, service, letter.to_padded(words.key), fee=fee, recipients=[static], reply_key=reply
    )


async def collect_posts(chain: ChainClient, host: Id, line: TipLine) -> int:
    """Collect the tips among the messages to a host that came since the last call. Return how many are new.

    Once `MAX_TIPS` tips are kept it stops, and goes on from there the next time. If the node has already forgotten
    messages after that position, everything that it still has is read; a letter that is here already isn't stored
    twice.
    """
    if not chain.chain_id:
        await chain.connect()
    place = f"{chain.chain_id} {canonical_id(host)}"
    known = await asyncio.to_thread(line.store.load_chain_cursor, place)
    reader = PostReader(chain, host, line.identity, cursor=Cursor.from_text(known) if known else None)
    try:
        new = await _take_posts(reader, line)
    except HistoryPruned:
        if not known:
            raise
        log.warning("the node has forgotten messages to host %s: what it has is read anew", host)
        reader = PostReader(chain, host, line.identity)
        new = await _take_posts(reader, line)
    if reader.cursor is not None:
        await asyncio.to_thread(line.store.put_chain_cursor, place, reader.cursor.to_text())
    return new


async def _take_posts(reader: PostReader, line: TipLine) -> int:
    new = 0
    async with aclosing(reader.read()) as posts:
        async for found in posts:
            try:
                taken = await line.take_post(found.data, f"{found.host}#{found.transaction}")
            except (EnvelopeBroken, LetterForged) as fault:  # a message of another kind
                log.info("message %s is not a tip: %s", found.transaction, fault)
                continue
            if taken is None:
                break
            new += taken
    return new


async def answer_post(chain: ChainClient, line: TipLine, tip: Tip, text: str, *, lock: str = "") -> TipLetter:
    """Answer a tip that came through the chain, as the host's owner. Raise `TipError` for any other tip."""
    host, mark, transaction = tip.post.partition("#")
    question = await read_post(chain, host, line.identity, transaction) if mark else None
    if question is None:
        raise TipError("this tip didn't come through the chain, or the node has forgotten it")
    letter = TipLetter(line.identity.id.key, tip.key, text, sent_ms=now_ms(), lock=lock)
    await send_answer(chain, question, letter.to_padded(line.identity))
    await line.keep_sent(letter)
    return letter


async def read_answers(
    chain: ChainClient, host: Id, service: str, words: TipWords
) -> AsyncIterator[TipLetter]:
    """Yield the line's answers through the chain, oldest first, as far back as the node has them."""
    state = await read_host(chain, host)
    number, _ = state.open_service(service)
    key, _ = _line_of(state)
    sent = SentPost(state.host.id, number, "", ReplyKey(words.key.static_private), Cursor(0))
    async for found in answers(chain, sent, follow=False):
        try:
            letter = TipLetter.from_padded(found.data, words.key.id.key)
        except (EnvelopeBroken, LetterForged) as fault:
            log.info("message %s is not an answer: %s", found.transaction, fault)
            continue
        if letter.sender == key:
            yield letter
