"""What `dtpd status` and `dtpd top` show of a daemon that is a node: peers, topics, the DHT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from dtp.cli.output import printable
from dtp.peers.links import NODE_SERVICE
from dtp.plurals import count_of

#: Peers that a screen has room for.
_PEERS: Final = 12


def node_parts(node: Mapping[str, Any]) -> list[RenderableType]:
    """Return what to print of the `node` of `Daemon.get_status`: what peers said is text, never markup."""
    parts: list[RenderableType] = [Text(), Text(_head(node))]
    if clock := node.get("clock"):
        parts.append(Text(clock["message"], style="yellow"))
    if node["peers"]:
        parts += [Text(), _peers(node["peers"][:_PEERS])]
        if node["known"] > _PEERS:
            parts.append(Text(f"and {node['known'] - _PEERS:,} more", style="dim"))
    if node["topics"]:
        parts += [Text(), _topics(node["topics"])]
    return parts


def _head(node: Mapping[str, Any]) -> str:
    words = [f"node: {count_of(node['links'], 'link')}, {count_of(node['known'], 'peer')} known"]
    if node["private"]:
        words.append("in a private network")
    if node["dialled"] is not None:
        words.append("others can dial it" if node["dialled"] else "nobody can dial it")
    if node.get("has_twin"):
        words.append("another node has its identity")
    if "dht" in node:
        dht = node["dht"]
        serves = "serves" if dht["serves"] else "only asks"
        words.append(f"DHT at {dht['endpoint']} {serves}, {count_of(dht['contacts'], 'contact')}")
    if node["observed"]:
        words.append(f"seen at {printable(', '.join(node['observed'][:2]))}")
    return "; ".join(words)


def _table(*names: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in names:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name != "addresses",
            overflow="ellipsis",
        )
    return table


def _peers(found: list[Mapping[str, Any]]) -> Table:
    table = _table("peer", "link", "services", "addresses")
    for one in found:
        services = " ".join(name for name in one["services"] if name != NODE_SERVICE)
        relayed = any(url.startswith("relay:") for url in one["carriers"])
        link = "" if not one["linked"] else "relayed" if relayed else "direct"
        where = one["carriers"] or one["addresses"]
        table.add_row(
            Text(one["peer"]), Text(link), Text(printable(services)), Text(printable(" ".join(where[:2])))
        )
    return table


def _topics(found: list[Mapping[str, Any]]) -> Table:
    table = _table("topic", "neighbours", "messages", "bytes", right=("neighbours", "messages", "bytes"))
    for one in found:
        numbers = (f"{one[key]:,}" for key in ("neighbours", "messages", "bytes"))
        private = " (private)" if one.get("private") else ""
        table.add_row(Text(printable(one["topic"]) + private), *numbers)
    return table
