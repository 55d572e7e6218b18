"""All commands of `dtp graph`, one file each for what belongs together."""

from dtp.cli.graph import keeping, looking, peers, people, sharing
from dtp.cli.graph.opening import graph as graph

#: Where they are; each adds its own to the group.
MODULES = (looking, keeping, peers, people, sharing)
