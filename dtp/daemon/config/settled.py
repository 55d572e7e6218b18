"""Settings that can't change while a daemon runs."""

from __future__ import annotations

from dtp.daemon.config.model import Config, NodeSettings
from dtp.errors import ConfigError

_FIXED = (
    "identity",
    "passphrase_file",
    "psk_file",
    "padding",
    "resume_timeout",
    "control",
    "web",
    "chain",
    "state",
    "state_name",
    "workers",
    "telemetry",
)


class CantReload(ConfigError):
    """The new configuration changes something that takes a restart. The old one stays in force."""

    code = "cant-reload"


def refuse_what_takes_a_restart(old: Config, new: Config) -> None:
    """Raise `CantReload` if `new` changes what can't change while a daemon runs."""
    if _settled_node(old) != _settled_node(new):
        raise CantReload(
            "[node] has changed in more than announce, topics and private-topics: that takes 'dtpd upgrade' or a "
            "restart"
        )
    for name in _FIXED:
        if getattr(new, name) != getattr(old, name):
            ways = "a restart" if name == "control" else "'dtpd upgrade' or a restart"
            raise CantReload(f"{name.replace('_', '-')} has changed: that takes {ways}")


def _settled_node(config: Config) -> NodeSettings | None:
    return None if config.node is None else config.node.settled
