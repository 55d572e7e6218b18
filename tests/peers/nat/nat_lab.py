"""Two hosts behind NATs of a kind each, and a public host, in namespaces of this machine (root, `ip`, `nft`).

```
a 10.1.0.2 -- 10.1.0.1 nata 203.0.113.11 --+-- 203.0.113.1 pub
b 10.2.0.2 -- 10.2.0.1 natb 203.0.113.12 --+
```
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

_NUMBERS = itertools.count()

#: What comes in from outside that nobody inside has asked for, and how ports are chosen, by the kind of NAT.
KINDS = {
    # Everybody may send to a port once it is open, and it is the same for all.
    "full-cone": ("iifname wan meta l4proto udp dnat to {host}", "masquerade"),
    # ... whoever has been sent something before.
    "restricted": (
        "iifname wan ip saddr @known meta l4proto udp dnat to {host}",
        "masquerade",
    ),
    # ... from the very port that was sent to.
    "port-restricted": ("", "masquerade"),
    # A port for each that is sent to: nobody can know the next one.
    "symmetric": ("", "masquerade fully-random"),
}

_RULES = """
table ip lab {{
    set known {{ type ipv4_addr; flags dynamic, timeout; timeout 60s; }}
    chain pre {{ type nat hook prerouting priority dstnat; {incoming}; }}
    chain post {{ type nat hook postrouting priority srcnat; oifname wan {outgoing}; }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        iifname lan meta l4proto udp add @known {{ ip daddr }}
        iifname lan accept
        ct state established,related accept
        ct status dnat accept
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname wan ct state new drop
    }}
}}
"""


def missing() -> str:
    """What this machine lacks for it; "" where nothing."""
    if os.geteuid() != 0:
        return "root is needed for network namespaces"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} not installed"
    name = f"dtp-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "network namespaces can't be made here"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, check=False, input=text, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


class Lab:
    """The namespaces, by name: `pub`, `a`, `b`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._started: list[subprocess.Popen[str]] = []

    def name(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self._prefix}{host}"

    def command(self, host: str, *command: str) -> list[str]:
        """`command` as it runs on a host."""
        return ["ip", "netns", "exec", self.name(host), *command]

    def start(self, host: str, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a program on a host, which is killed with the lab where it hasn't ended by then; `options` are
        `Popen`'s."""
        started = subprocess.Popen(self.command(host, *command), text=True, **options)
        self._started.append(started)
        return started

    def kill_started(self) -> None:
        """Kill what runs on the hosts still, as where a test has failed: nobody else would wait for it."""
        for each in self._started:
            each.kill()
            with each:  # its pipes are closed, and it is waited for
                pass

    def forward_tcp(self, nat: str, host: str) -> None:
        """Have a NAT send on to `host` what comes from outside by TCP."""
        rule = f"add rule ip lab pre iifname wan meta l4proto tcp dnat to {host}"
        _run(*self.command(nat, "nft", *rule.split()))

    def swallow_udp(self, nat: str, *, to: str = "") -> None:
        """Have a NAT drop what goes out by UDP without a word: all of it, or what goes `to` an address."""
        where = f"ip daddr {to} " if to else ""
        rule = f"insert rule ip lab forward iifname lan {where}meta l4proto udp drop"
        _run(*self.command(nat, "nft", *rule.split()))

    def connect_hosts(self) -> None:
        """Have `a` and `b` in one more network, at 10.9.0.1 and 10.9.0.2, beside those behind their NATs."""
        self.ip("a", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", self.name("b"))
        for number, host in enumerate("ab", 1):
            self.ip(host, "addr", "add", f"10.9.0.{number}/24", "dev", "eth1")
            self.ip(host, "link", "set", "eth1", "up")

    def move_nat(self, nat: str, before: str, now: str) -> None:
        """Have a NAT get another address outside. What it knew of connections goes with the one before."""
        self.ip(nat, "addr", "del", f"{before}/24", "dev", "wan")
        self.ip(nat, "addr", "add", f"{now}/24", "dev", "wan")

    def rules(self, host: str, text: str) -> None:
        """Have `nft` read rules on a host."""
        _run(*self.command(host, "nft", "-f", "-"), text=text)

    def ip(self, host: str, *arguments: str) -> None:
        """`ip` on a host."""
        _run("ip", "-n", self.name(host), *arguments)


@contextlib.contextmanager
def lab(kind_a: str, kind_b: str, outside: str = "203.0.113") -> Iterator[Lab]:
    """Make it, and take it away at the end. `outside` is the public network: another one where programs look whether
    an address is a public one."""
    made = Lab(f"dtp{os.getpid()}x{next(_NUMBERS)}")
    hosts = ("pub", "nata", "natb", "a", "b")
    try:
        for host in hosts:
            _run("ip", "netns", "add", made.name(host))
            made.ip(host, "link", "set", "lo", "up")
        made.ip("pub", "link", "add", "br0", "type", "bridge")
        made.ip("pub", "addr", "add", f"{outside}.1/24", "dev", "br0")
        made.ip("pub", "link", "set", "br0", "up")
        for number, (host, nat, kind) in enumerate((("a", "nata", kind_a), ("b", "natb", kind_b)), 1):
            _join(made, host, nat, number, kind, f"{outside}.1{number}")
        yield made
    finally:
        made.kill_started()
        for host in hosts:
            subprocess.run(["ip", "netns", "del", made.name(host)], capture_output=True, check=False)


@contextlib.contextmanager
def lan(*hosts: str, has_ipv4: bool = True) -> Iterator[Lab]:
    """Make hosts of one LAN, at 10.3.0.1 and so on, and take it away at the end. The namespace `switch` has a port
    for each, `toHOST`, at which all passes that the host says and hears. Without IPv4 they have addresses of their
    link alone, fe80::1 and so on."""
    made = Lab(f"dtp{os.getpid()}x{next(_NUMBERS)}")
    try:
        for host in ("switch", *hosts):
            _run("ip", "netns", "add", made.name(host))
            made.ip(host, "link", "set", "lo", "up")
        made.ip("switch", "link", "add", "br0", "type", "bridge")
        made.ip("switch", "link", "set", "br0", "up")
        for number, host in enumerate(hosts, 1):
            port = f"to{host}"
            made.ip(
                "switch",
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                made.name(host),
            )
            made.ip("switch", "link", "set", port, "master", "br0")
            made.ip("switch", "link", "set", port, "up")
            if has_ipv4:
                made.ip(host, "addr", "add", f"10.3.0.{number}/24", "dev", "eth0")
                made.ip(host, "link", "set", "eth0", "up")
                made.ip(host, "route", "add", "224.0.0.0/4", "dev", "eth0")
            else:
                made.ip(host, "link", "set", "eth0", "addrgenmode", "none")
                made.ip(host, "link", "set", "eth0", "up")
                made.ip(host, "addr", "add", f"fe80::{number}/64", "dev", "eth0", "nodad")
        yield made
    finally:
        made.kill_started()
        for host in ("switch", *hosts):
            subprocess.run(["ip", "netns", "del", made.name(host)], capture_output=True, check=False)


def _join(made: Lab, host: str, nat: str, number: int, kind: str, outside: str) -> None:
    inside, router = f"10.{number}.0.2", f"10.{number}.0.1"
    made.ip(nat, "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", made.name(host))
    made.ip(nat, "link", "add", "wan", "type", "veth", "peer", "name", f"to{nat}", "netns", made.name("pub"))
    for place, address, device in (
        (nat, f"{router}/24", "lan"),
        (nat, f"{outside}/24", "wan"),
        (host, f"{inside}/24", "eth0"),
    ):
        made.ip(place, "addr", "add", address, "dev", device)
        made.ip(place, "link", "set", device, "up")
    made.ip("pub", "link", "set", f"to{nat}", "master", "br0", "up")
    made.ip(host, "route", "add", "default", "via", router)
    _run(*made.command(nat, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1"))
    incoming, outgoing = KINDS[kind]
    rules = _RULES.format(incoming=incoming.format(host=inside), outgoing=outgoing)
    made.rules(nat, rules)
