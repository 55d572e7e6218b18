"""Where the packages are, which hosts were made from here, and names of services (the chain has numbers): remembered
by chain in a JSON file.

The file is `packages.json` in the settings folder, or `$DTP_PACKAGES`. Entries are by chain id, not by the network's
name: a localnet that starts anew is another chain, and ids of the old one are never used on it by mistake.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dtp import config
from dtp.chain.errors import PackageNotPublished
from dtp.chain.model import Id, canonical_id
from dtp.errors import ConfigError
from dtp.identity.private import make_private_folder
from dtp.replacing import replace_file
from dtp.sui.names import SuiNameError

_FORMAT = 1
PACKAGES_VARIABLE = "DTP_PACKAGES"


@dataclass(frozen=True)
class Deployment:
    """A published package. Calls go to `id`, types are named by `original_id`; they differ after an upgrade.

    `digest` is that of the bytecode (hex), `upgrade_cap` the object that may upgrade it (empty if given up),
    `transaction` the one that published it. `policy` is what upgrades may change, as it was when the package was
    published or looked at (see `dtp.chain.packages.upgrades.UpgradePolicy`).
    """

    package: str
    id: str
    original_id: str
    digest: str
    upgrade_cap: str = ""
    transaction: str = ""
    policy: str = "unknown"


@dataclass
class _Chain:
    """What is known of one chain: packages by name, by account the hosts that it made from here, and names of
    services."""

    packages: dict[str, Deployment] = field(default_factory=dict)
    hosts: dict[str, list[str]] = field(default_factory=dict)
    services: list[str] = field(default_factory=list)


class Deployments:
    """The packages on one chain, and the hosts made from here. Without a file they are kept in memory only."""

    def __init__(self, chain_id: str = "", path: Path | None = None) -> None:
        self.chain_id = chain_id
        self._path = path
        known = _load(path).get(chain_id, _Chain()) if path is not None else _Chain()
        self._known, self._hosts, self._services = known.packages, known.hosts, known.services

    def get(self, package: str) -> Deployment | None:
        """Return the package's deployment, None if it isn't known."""
        return self._known.get(package)

    def find(self, package: str) -> Deployment:
        """Return the package's deployment. Raises `PackageNotPublished`."""
        found = self._known.get(package)
        if found is None:
            raise PackageNotPublished(
                f"package {package!r} isn't known on chain {self.chain_id or '(unknown)'}: publish it "
                f"(dtp move publish {package}), or say where it is (dtp move use {package} ID)"
            )
        return found

    def package_id(self, package: str) -> str:
        """Return the id that calls go to."""
        return self.find(package).id

    def original_id(self, package: str) -> str:
        """Return the id that types are named by."""
        return self.find(package).original_id

    def by_id(self, id: str) -> Deployment | None:
        """Return the deployment of that id, or of that original id."""
        return next((each for each in self._known.values() if id in (each.id, each.original_id)), None)

    def list_all(self) -> tuple[Deployment, ...]:
        """Return every known package."""
        return tuple(self._known.values())

    def save(self, deployment: Deployment) -> None:
        """Keep a deployment, also in the file. Raises `ConfigError` when the file can't be written."""
        self._known[deployment.package] = deployment
        if self._path is None:
            return
        everything = _load(self._path)  # another process may have added to it
        everything.setdefault(self.chain_id, _Chain()).packages[deployment.package] = deployment
        _save(self._path, everything)

    def hosts_of(self, account: Id) -> frozenset[str]:
        """Return the hosts that an account has made from here."""
        return frozenset(self._hosts.get(canonical_id(account), ()))

    def remember_host(self, account: Id, host: Id) -> None:
        """Keep that an account has made a host, also in the file. Raises `ConfigError` as `save` does."""
        name, made = canonical_id(account), canonical_id(host)
        self._hosts.setdefault(name, []).append(made)
        if self._path is None:
            return
        everything = _load(self._path)
        everything.setdefault(self.chain_id, _Chain()).hosts.setdefault(name, []).append(made)
        _save(self._path, everything)

    @property
    def services(self) -> tuple[str, ...]:
        """The names of services that were given to hosts from here."""
        return tuple(self._services)

    def remember_service(self, name: str) -> None:
        """Keep the name of a service, also in the file. Raises `ConfigError` as `save` does."""
        if name in self._services:
            return
        self._services.append(name)
        if self._path is None:
            return
        everything = _load(self._path)
        known = everything.setdefault(self.chain_id, _Chain()).services
        if name not in known:
            known.append(name)
            _save(self._path, everything)


def known_deployments() -> dict[str, tuple[Deployment, ...]]:
    """Return the packages that the file knows, by chain id. Raise `ConfigError` when it can't be read."""
    return {chain: tuple(known.packages.values()) for chain, known in _load(packages_path()).items()}


def has_made_hosts(account: Id) -> bool:
    """True if the account has made a host from here, on whatever chain. Raise `ConfigError` as above."""
    name = canonical_id(account)
    return any(known.hosts.get(name) for known in _load(packages_path()).values())


def packages_path() -> Path:
    """Return the file: `$DTP_PACKAGES`, else `packages.json` in the settings folder."""
    named = os.environ.get(PACKAGES_VARIABLE)
    return Path(named).expanduser() if named else config.config_dir() / "packages.json"


def _load(path: Path) -> dict[str, _Chain]:
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != _FORMAT:
            raise ConfigError(f"{path} is of format {record['format']}; this dtp reads {_FORMAT}")
        known = {
            chain: _Chain({name: _deployment(name, entry) for name, entry in packages.items()})
            for chain, packages in record["chains"].items()
        }
        for chain, accounts in record.get("hosts", {}).items():
            known.setdefault(chain, _Chain()).hosts = {
                canonical_id(name): list(map(canonical_id, hosts)) for name, hosts in accounts.items()
            }
        for chain, names in record.get("services", {}).items():
            known.setdefault(chain, _Chain()).services = [str(name) for name in names]
        return known
    except FileNotFoundError:
        return {}
    except OSError as fault:
        raise ConfigError(f"can't read {path}: {fault.strerror or fault}") from fault
    except (ValueError, KeyError, TypeError, AttributeError, SuiNameError) as fault:
        raise ConfigError(
            f"{path} is not a list of published packages: {fault!r}; mend or remove it"
        ) from fault


def _deployment(name: str, entry: dict[str, str]) -> Deployment:
    return Deployment(
        package=name,
        id=canonical_id(entry["id"]),
        original_id=canonical_id(entry["original_id"]),
        digest=entry["digest"],
        upgrade_cap=entry.get("upgrade_cap", ""),
        transaction=entry.get("transaction", ""),
        policy=entry.get("policy", "unknown"),
    )


def _save(path: Path, everything: dict[str, _Chain]) -> None:
    chains = {
        chain: {
            name: {key: value for key, value in asdict(each).items() if key != "package"}
            for name, each in known.packages.items()
        }
        for chain, known in everything.items()
    }
    hosts = {chain: known.hosts for chain, known in everything.items() if known.hosts}
    services = {chain: known.services for chain, known in everything.items() if known.services}
    record = {"format": _FORMAT, "chains": chains, "hosts": hosts, "services": services}
    text = json.dumps(record, indent=2) + "\n"
    try:
        make_private_folder(path.parent)
        replace_file(path, text.encode())
    except OSError as fault:
        raise ConfigError(f"can't write {path}: {fault.strerror or fault}") from fault
