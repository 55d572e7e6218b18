"""Reads and checks `[node]` and the limits of relays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from dtp.daemon.config import model, values
from dtp.daemon.config.reading import Section
from dtp.peers.links import NODE_SERVICE
from dtp.peers.reach.relay_book import RelayLimits

#: Settings of a relay that are numbers, sizes or times. They have the names of the limits.
_NUMBERS: Final = (
    "reservations",
    "reservations_per_source",
    "circuits",
    "circuits_per_peer",
    "circuits_per_source",
    "dials",
)
_SIZES: Final = ("circuit_bytes", "peer_bytes")
_TIMES: Final = ("lifetime", "circuit_time", "circuit_idle", "dial_pause")


def read_node(section: Section, file: Callable[[Any], Path]) -> model.NodeSettings:
    """Return the settings of `[node]`."""
    from dtp.node.finding import WAYS

    discover = section.take_all("discover", values.choice(WAYS)) if "discover" in section else ("lan",)
    node = model.NodeSettings(
        discover=discover,
        bootstrap=section.take_all("bootstrap", values.bootstrap),
        network=section.read_setting("network-file", file, None),
        announce=section.take_all("announce", values.service),
        relays=section.take_all("relays", values.relay_place),
        topics=section.take_all("topics", values.topic),
        private_topics=tuple(_private_topics(section, file)),
        history=section.read_setting("history", values.duration, 0.0),
        history_size=section.read_setting("history-size", values.size, 8 * 1024 * 1024),
        dht=section.read_setting("dht", values.udp_place, None),
        interfaces=section.take_all("interfaces", values.text),
        map_ports=section.read_setting("map-ports", values.boolean, True),
        store=section.read_setting("store", file, None),
    )
    section.check_unread()
    return node


def _private_topics(section: Section, file: Callable[[Any], Path]) -> Iterator[model.PrivateTopic]:
    for each in section.iter_sections("private-topics"):
        name, key = each.read_setting("name", values.topic), each.read_setting("key-file", file)
        each.check_unread()
        if name is not None and key is not None:
            yield model.PrivateTopic(name, key)


def check_node(root: Section, config: model.Config, node: model.NodeSettings) -> None:
    """Note as mistakes what conflicts with the rest of the file."""
    if config.workers != 1:
        root.note_mistake(
            "[node] has one link to each peer, in one process, so it needs [daemon] workers = 1", "node"
        )
    if config.psk_file is not None:
        what = "psk-file: with [node] the key of a private network is [node] network-file"
        root.note_mistake(what, "identity", "psk-file")
    carried = [*node.topics, *(each.name for each in node.private_topics)]
    for name in sorted({each for each in carried if carried.count(each) > 1}):
        root.note_mistake(f"topics, private-topics: {name!r} is there twice", "node")
    named = {each.service for each in config.expose}
    for number, service in enumerate(node.announce):
        if service not in named:
            root.note_mistake(f"announce: no service {service!r} is exposed", "node", "announce", number)
    for number, expose in enumerate(config.expose):
        if expose.service == NODE_SERVICE:
            what = f"service: {NODE_SERVICE} is what nodes link to each other for; choose another name"
            root.note_mistake(what, "expose", number, "service")
    if "dht" in node.discover:
        return
    if node.dht is not None:
        root.note_mistake('dht: is where the DHT listens, and "dht" isn\'t in discover', "node", "dht")
    for number, address in enumerate(node.bootstrap):
        if "://" not in address:
            what = f'bootstrap: {address} is a node of the DHT, and "dht" isn\'t in discover'
            root.note_mistake(what, "node", "bootstrap", number)


def read_relay(section: Section | None) -> RelayLimits:
    """Return the limits of a service of kind relay, with defaults for what the section leaves out."""
    if section is None:
        return RelayLimits()
    usual = RelayLimits()
    readers: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(_NUMBERS, values.number(1)),
        **dict.fromkeys(_SIZES, values.size),
        **dict.fromkeys(_TIMES, values.duration),
    }
    found = {
        each.name: section.read_setting(
            each.name.replace("_", "-"), readers[each.name], getattr(usual, each.name)
        )
        for each in fields(RelayLimits)
        if each.name in readers
    }
    section.check_unread()
    return RelayLimits(**found)
