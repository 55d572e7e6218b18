"""Reads and checks `[expose.broadcast]`: a show that begins here, or one that is passed on."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from dtp.broadcast.tree.ranking import check_relays
from dtp.daemon.config import model, values
from dtp.daemon.config.mailbox import BACKENDS
from dtp.daemon.config.reading import Section, Wrong
from dtp.errors import LocalError
from dtp.identity import PeerId, PeerIdError

#: Settings that only an origin has; then those that only an edge has.
_ORIGIN: Final = (
    "title", "media", "cut", "every", "for", "sealed", "pass", "rotate", "key-price", "key-listen", "store",
)  # fmt: skip
_EDGE: Final = ("producer", "back", "lan")


def read_broadcast(section: Section | None, file: Callable[[Any], Path]) -> model.BroadcastSettings:
    """Return the settings of a service of kind broadcast, with defaults for what the section leaves out."""
    if section is None:
        return model.BroadcastSettings(None, None)
    sources = section.take_all("from", _source)
    show = section.read_setting("show", values.object_id, None)
    topic = section.read_setting("topic", values.text, None)
    over = section.read_setting("over", _broker, None)
    if over is not None and topic is None:
        section.note_mistake("over: carries a topic; give topic as well", "over")
    keeps_nothing = topic is not None and over is None
    if keeps_nothing and "back" in section:
        section.note_mistake("back: a topic keeps nothing of what was sent before; give over as well", "back")
    edge = model.EdgeSettings(
        sources=sources,
        show=show,
        producer=section.read_setting("producer", _peer, None),
        back=section.read_setting("back", values.duration, 0.0 if keeps_nothing else 10.0),
        lan=section.read_setting("lan", values.boolean, False),
        topic=topic,
        over=over,
    )
    origin = replace(_read_origin(section, show, file), topic=topic, over=over)
    made = model.BroadcastSettings(
        origin=None if "from" in section else origin,
        edge=edge if "from" in section else None,
        fan_out=section.read_setting("fan-out", values.number(1, 10_000), 50),
        relays=section.take_all("relays", _peer),
        hold=section.read_setting("hold", values.size, 64 * 1024 * 1024),
        record=section.read_setting("record", file, None),
        endpoint=section.read_setting("endpoint", values.endpoint, None),
    )
    if "command" not in section and "from" not in section:
        section.note_mistake(
            "broadcast: needs command, which writes what is sent, or from, the addresses that have the show"
        )
    try:
        check_relays(made.relays, made.fan_out)
    except LocalError as fault:
        section.note_mistake(f"relays: {fault}", "relays")
    for key in _ORIGIN if made.edge is not None else _EDGE:
        if key in section:
            other = (
                "shows that begin here, by command"
                if made.edge is not None
                else "shows that come from elsewhere"
            )
            section.note_mistake(f"{key}: only applies to {other}", key)
    if "command" in section and "from" in section:
        section.note_mistake(
            "command: the show comes from elsewhere; leave out from to make one here", "command"
        )
    section.check_unread()
    return made


def _read_origin(section: Section, show: str | None, file: Callable[[Any], Path]) -> model.OriginSettings:
    from dtp.broadcast.cutting import CUTTERS

    usual = model.OriginSettings(())
    made = model.OriginSettings(
        command=section.read_setting("command", _command, ()),
        show=show,
        title=section.read_setting("title", _short, ""),
        media=section.read_setting("media", _short, ""),
        cut=section.read_setting("cut", values.choice(tuple(CUTTERS)), usual.cut),
        every=section.read_setting("every", values.duration, usual.every),
        invited=section.take_all("for", _peer),
        sealed=section.read_setting("sealed", values.boolean, None),
        plan=section.read_setting("pass", values.object_id, None),
        rotate=section.read_setting("rotate", values.duration, usual.rotate),
        key_price=section.read_setting("key-price", values.money, None),
        key_listen=section.take_all("key-listen", values.carrier_url) or usual.key_listen,
        store=section.read_setting("store", file, None),
    )
    if made.rotate < 1 and not section.has_failed("rotate"):
        section.note_mistake("rotate: has to be at least a second", "rotate")
    if made.invited and made.plan is not None:
        section.note_mistake("pass: give for or pass", "pass")
    if made.key_price == 0:
        section.note_mistake("key-price: 0 would give the keys to everybody; leave it out", "key-price")
    if made.key_price is None and "key-listen" in section:
        section.note_mistake("key-listen: only applies with key-price", "key-listen")
    if made.sealed is False and (made.invited or made.plan is not None or made.key_price is not None):
        section.note_mistake(
            "sealed: a show that isn't for everybody has to be sealed; leave it out", "sealed"
        )
    for key in ("sealed", "pass"):
        if key in section and show is None and not made.invited and made.sealed is not False:
            section.note_mistake(
                f"{key}: needs show, the id on the chain; without one, say who may listen by for", key
            )
    return made


def check_show(section: Section) -> None:
    """Note as mistakes the settings that a show can't have."""
    if "broadcast" not in section:
        what = f"broadcast is missing in {section.spell_table()}: command, which writes what is sent, or from"
        section.note_mistake(what)
    for key in BACKENDS:
        if key in section:
            section.note_mistake(f"{key}: a show comes from [expose.broadcast], and has no backends", key)
    for key in ("quota", "limits"):
        if key in section:
            section.note_mistake(
                f"{key}: listeners stay as long as the show does; fan-out limits how many there are", key
            )
    if "price" in section:
        section.note_mistake(
            "price: listeners don't pay by connection; give show for one that is paid on the chain", "price"
        )


def check_broadcast(root: Section, config: model.Config) -> None:
    """Note as mistakes what conflicts with the rest of the file."""
    topics = Counter[str]()
    for number, expose in enumerate(config.expose):
        made = expose.broadcast
        if made is None or made.origin is None:
            continue
        if made.origin.topic is not None:
            topics[made.origin.topic] += 1
            what = _check_topic(made.origin.topic, config.node, topics)
            if what:
                root.note_mistake(what, "expose", number, "broadcast", "topic")
        if config.chain is not None:
            continue
        if made.origin.show is not None:
            what = "show: needs [chain], whose wallet posts its slots"
            root.note_mistake(what, "expose", number, "broadcast", "show")
        if made.origin.key_price is not None:
            what = "key-price: needs [chain], whose wallet sells the keys"
            root.note_mistake(what, "expose", number, "broadcast", "key-price")


def _check_topic(topic: str, node: model.NodeSettings | None, topics: Counter[str]) -> str:
    """Return what is wrong with an origin's topic, or "" for nothing."""
    if node is None:
        return "topic: needs [node], whose links carry it"
    if topic in node.topics or topics[topic] > 1:
        return f"topic: {topic!r} is in [node] topics, or another show's; a node has a topic once"
    return ""


def _source(value: Any) -> str:
    return str(values.address(value))


def _broker(value: Any) -> str:
    text = values.text(value)
    if not text.startswith("nats://"):
        raise Wrong(f"{text!r} is not a broker: write nats://HOST:PORT[,HOST:PORT...]")
    return text


def _peer(value: Any) -> PeerId:
    try:
        return PeerId.parse(values.text(value))
    except PeerIdError as error:
        raise Wrong(str(error)) from None


def _command(value: Any) -> tuple[str, ...]:
    """Read a list of words, or a line that is split as a shell would split it. No shell is run."""
    if isinstance(value, list):
        words = tuple(values.text(each) for each in value)
    else:
        try:
            words = tuple(shlex.split(values.text(value)))
        except ValueError as error:
            raise Wrong(f"{value!r} isn't a command: {error}") from None
    if not words:
        raise Wrong("it has to name a program")
    return words


def _short(value: Any) -> str:
    text = values.text(value)
    if len(text.encode()) > 255:
        raise Wrong("it has more than 255 bytes")
    return text
