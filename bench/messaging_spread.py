"""`python -m bench.messaging_spread`: one message to a large group, by the group's topic; all members in one process.

Each member is a node with links to some others, in memory, and keeps what it gets on the disk (`--folder`), synced.
They have the sender's key and have said that they read along. Measured is from writing until the last has stored it,
and the processor time of all together: on machines of their own, members work at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import dtp
from bench import machine
from dtp.gossip import PROTOCOL, Gossip, Topic
from dtp.identity import Identity
from dtp.messaging.conversation.events import Event, EventKind
from dtp.messaging.conversation.membership import Membership
from dtp.messaging.conversation.operations import Act, Operation
from dtp.messaging.person.correspondence import Correspondence
from dtp.messaging.person.delivery import now_ms
from dtp.messaging.person.groups.group_topics import LINKED, TOPIC, topic_key
from dtp.peers.links import NODE_SERVICE, PeerLinks

#: Links that each member dials: with those that it is dialled by it has six, as `GroupTopics` keeps.
LINKS = 3
MESSAGES = 3
TEXT = "see you at eight, at the usual place; bring the map"


@dataclass
class Member:
    """A member's store and topic."""

    mail: Correspondence
    topic: Topic


async def begin(
    stack: AsyncExitStack, mail: Correspondence, group: bytes
) -> tuple[PeerLinks, dtp.Address, Topic]:
    """Return a member's links, where it is dialled, and the group's topic, joined."""
    me = mail.identity
    gossip, links = Gossip(me), PeerLinks(me)
    links.protocols[PROTOCOL] = gossip.serve
    where = f"memory://bench-{me.id.short}"
    listener = await stack.enter_async_context(
        await dtp.listen(where, {NODE_SERVICE: links.accept}, identity=me)
    )
    stack.push_async_callback(links.close)
    await stack.enter_async_context(gossip)
    links.listen(gossip.add_link, lambda link: None)
    topic = await stack.enter_async_context(gossip.topic(TOPIC, key=topic_key(group)))
    return links, listener.address(NODE_SERVICE), topic


def introduce(sender: Correspondence, others: list[Correspondence]) -> bytes:
    """Return a group of these people, who know its sender and have its key; nothing is sent."""
    created = Operation.sign(sender.identity, sender.person, Act.CREATE, text="choir")
    sender.groups[created.id] = membership = Membership(created.id)
    membership.add_operation(created, lambda operation: True)
    for each in others:
        sender.add_contact(each.card, now_ms())
        added = Operation.sign(
            sender.identity, sender.person, Act.ADD, subject=each.person, parents=[created.id]
        )
        membership.add_operation(added, lambda operation: True)
        each.add_contact(sender.card, now_ms())
        each.groups[created.id] = Membership(created.id)
        each.groups[created.id].add_operation(created, lambda operation: True)
    sender.spreading.least = 1
    sender.send_event(created.id, EventKind.TEXT, {"text": TEXT}, now_ms())
    payloads = [Event.parse(each.payload) for each in sender.store.due_payloads(now_ms(), 2)]
    (told,) = [each for each in payloads if each.kind is EventKind.SEALED]
    for each in others:
        with each.transaction():
            each.spreading.take_sealed(sender.identity.id.key, sender.person, told, now_ms())
    with sender.store.transaction():
        sender.store.spread.put_readers(created.id, {each.identity.id.key: (1, now_ms()) for each in others})
    return created.id


async def hear(member: Member, group: bytes, count: int) -> None:
    """Store what comes, until so many messages have."""
    async for message in member.topic:
        told = member.mail.spreading.receive_by_topic(group, message.author.key, message.data, now_ms())
        count -= len(told)
        if not count:
            return


async def measure(folder: str, members: int) -> tuple[float, float, float]:
    """Return the seconds until the last has a message, and those of the processor for all, the least of some; and
    what a second of so many nodes takes of the processor while nothing is sent."""
    people = [
        Correspondence(f"{folder}/{number}", Identity.generate(), now_ms()) for number in range(members)
    ]
    group = introduce(people[0], people[1:])
    async with AsyncExitStack() as stack:
        places = [await begin(stack, each, group) for each in people]
        chance = random.Random(1)
        for number, (links, _, _) in enumerate(places):
            for _, address, _ in chance.sample(places[:number], min(LINKED, number)):
                await links.connect(address)
        made = [Member(mail, topic) for mail, (_, _, topic) in zip(people, places, strict=True)]
        await asyncio.sleep(5.0)  # meshes are made
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(2.0)
        idle = (time.process_time() - used) / (time.perf_counter() - began)
        # Python's collector would walk what all members hold, again and again; each member's own walks only its own.
        gc.collect()
        gc.freeze()
        found = []
        for _ in range(MESSAGES):
            began, used = time.perf_counter(), time.process_time()
            hearing = [asyncio.ensure_future(hear(each, group, 1)) for each in made[1:]]
            people[0].send_event(group, EventKind.TEXT, {"text": TEXT}, now_ms())
            for _, _, sealed in people[0].spreading.take_unpublished():
                await made[0].topic.publish(sealed)
            await asyncio.gather(*hearing)
            found.append((time.perf_counter() - began, time.process_time() - used))
    for each in people:
        each.close()
    return (*min(found), idle)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.messaging_spread", description=__doc__)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--folder", help="where stores are; on the disk that is to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        last, used, idle = asyncio.run(measure(folder, arguments.members))
    print(machine.facts())
    print(f"group of {arguments.members:,}, by topic: until the last has it, s: {last:.2f}")
    print(f"processor time for each member, ms: {used / arguments.members * 1000:.2f}")
    print(f"... and of its node in a second without messages, ms: {idle / arguments.members * 1000:.2f}")


if __name__ == "__main__":
    main()
