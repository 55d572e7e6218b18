"""Metrics `dtpd_node_...` of a daemon that is a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

#: The key in a topic's status, the name and help of its metric, and whether it is a counter.
_OF_TOPICS: Final = (
    ("neighbours", "topic_neighbours", "Linked nodes that have the topic", False),
    ("messages", "topic_messages", "Messages of a carried topic", True),
    ("bytes", "topic_bytes", "Bytes in them", True),
)


def node_metrics(node: Mapping[str, Any]) -> Iterator[Metric]:
    """Yield the metrics of the `node` of `Daemon.get_status`."""
    yield GaugeMetricFamily("dtpd_node_peers", "Peers that say where they are", value=node["known"])
    yield GaugeMetricFamily("dtpd_node_links", "Nodes that are linked", value=node["links"])
    if node["dialled"] is not None:
        yield GaugeMetricFamily("dtpd_node_dialled", "1 while others can dial it", value=node["dialled"])
    yield GaugeMetricFamily(
        "dtpd_node_clock_difference_seconds",
        "Seconds that the clocks of most neighbours are ahead of this machine's, at least; below 0 behind",
        value=node["clock"]["seconds"] if node["clock"] else 0,
    )
    upgrades = CounterMetricFamily(
        "dtpd_node_upgrades",
        "Relayed connections that were to become direct, by what came of it",
        labels=["to"],
    )
    for result in ("direct", "relayed"):
        upgrades.add_metric([result], node["upgrades"][result])
    yield upgrades
    if "lan" in node:
        hellos = CounterMetricFamily("dtpd_node_hellos", "Hellos on the LAN", labels=["way"])
        for way in ("sent", "heard"):
            hellos.add_metric([way], node["lan"][way])
        yield hellos
    if "dht" in node:
        dht = node["dht"]
        yield GaugeMetricFamily(
            "dtpd_node_dht_contacts", "Nodes of the DHT that it knows", value=dht["contacts"]
        )
        yield GaugeMetricFamily(
            "dtpd_node_dht_serves", "1 while it serves others of the DHT", value=dht["serves"]
        )
    gossip = CounterMetricFamily("dtpd_node_gossip", "What gossip has done, by what it was", labels=["what"])
    for what, count in sorted(node["gossip"].items()):
        gossip.add_metric([what], count)
    yield gossip
    for key, name, words, grows in _OF_TOPICS:
        family = CounterMetricFamily if grows else GaugeMetricFamily
        metric = family(f"dtpd_node_{name}", words, labels=["topic"])
        for topic in node["topics"]:
            metric.add_metric([topic["topic"]], topic[key])
        yield metric
