"""`load` turns a file into a `Config`, or into a list of all its mistakes. One function reads each table of the
file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dtp.daemon.config import model, values
from dtp.daemon.config.broadcast import check_broadcast, check_show, read_broadcast
from dtp.daemon.config.login import check_login_servers, check_logins, read_logins
from dtp.daemon.config.mailbox import check_mailbox, check_sold_room, read_mailbox
from dtp.daemon.config.mesh import check_node, read_node, read_relay
from dtp.daemon.config.places import KeyPath, SourcePlace
from dtp.daemon.config.reading import ConfigMistakes, Mistake, Section, Wrong, parse
from dtp.daemon.config.tips import check_tips, read_tips
from dtp.identity import PeerId
from dtp.net.address import Address, is_ip_address
from dtp.pay.terms import Exposure
from dtp.session.limits import DEFAULT

#: Settings of [[expose]] that only some kinds of services have.
_ONLY_FOR = {
    "methods": ("http", "json-rpc", "grpc", "websocket"),
    "batch": ("json-rpc",),
    "message": ("json-rpc",),
    "paths": ("json-rpc",),
    "origins": ("json-rpc", "websocket"),
    "relay": ("relay",),
    "mailbox": ("mailbox",),
    "accounts": ("login",),
    "broadcast": ("broadcast",),
    "tips": ("tips",),
}

#: Why a service of each of these kinds has to be served by one process.
_ONE_PROCESS = {
    "relay": "a relay joins streams of one process",
    "mailbox": "a mailbox tells devices at once of what has come, in one process",
    "login": "who is logged in is known to one process",
    "broadcast": "a show has one chain, which one process signs or holds",
    "tips": "a line for tips collects its letters in one process",
}
#: Why UDP can't be paid for.
_NOT_COUNTED = "datagrams may be lost, so both ends can't count the same, and UDP isn't paid for"
#: What to do when the file can't be read, by error number.
_INSTEAD = {errno.ENOENT: "; -c names another file, and 'dtpd init' makes one"}


def load(path: Path) -> model.Config:
    """Read and check the configuration at `path`. Raises `ConfigMistakes` with every mistake that it has.

    Only running the daemon can show that a port is taken or a backend is down, so neither is checked.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ConfigMistakes(
            path,
            [
                Mistake(
                    SourcePlace(1, 1),
                    f"can't be read: {error.strerror or error}{_INSTEAD.get(error.errno or 0, '')}",
                )
            ],
        ) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        column = error.start - error.object.rfind(b"\n", 0, error.start)
        raise ConfigMistakes(path, [Mistake(SourcePlace(line, column), "this is not UTF-8 text")]) from None
    return load_text(text, path)


def load_text(text: str, path: Path) -> model.Config:
    """Return what `load` does, for a text. `path` is the file it stands for, in messages and for relative paths."""
    document, root = parse(path, text)
    config = _config(root, path)
    if document.mistakes:
        raise ConfigMistakes(path, document.mistakes)
    return config


def list_settings(text: str, path: Path) -> set[tuple[str, str]]:
    """Return the settings that are looked up when a file is read, each as the name of its table and its own name,
    whether they are there or not. Mistakes in the file don't matter."""
    document, root = parse(path, text)
    _config(root, path)
    return document.known


def _file(path: Path) -> Callable[[Any], Path]:
    """Return what reads the path of a file. Relative paths are taken from the configuration's folder; the result is
    always absolute."""

    def read(value: Any) -> Path:
        try:
            return path.absolute().parent / Path(values.text(value)).expanduser()
        except RuntimeError as error:
            raise Wrong(str(error)) from None

    return read


def _socket(file: Callable[[Any], Path]) -> Callable[[Any], Path]:
    """Return what reads the path of a Unix socket."""

    def read(value: Any) -> Path:
        path = file(value)
        if str(value).startswith("unix:"):
            raise Wrong("a path is meant, without unix:")
        if len(os.fsencode(path)) > values.LONGEST_SOCKET:
            raise Wrong(
                f"{path} is longer than the {values.LONGEST_SOCKET} bytes that a socket's path may have"
            )
        return path

    return read


def _config(root: Section, path: Path) -> model.Config:
    file = _file(path)
    identity = root.get_section("identity")
    if identity is None:
        root.note_mistake('[identity] is missing: file = "me.pem" says who this daemon is')
        identity = Section(root.document, ("identity",), {"file": "missing"})
    daemon = root.get_section("daemon") or Section(root.document, ("daemon",), {})
    state = root.get_section("state")
    web, chain, node = root.get_section("web"), root.get_section("chain"), root.get_section("node")
    config = model.Config(
        path=path,
        identity=identity.read_setting("file", file),
        passphrase_file=identity.read_setting("passphrase-file", file, None),
        psk_file=identity.read_setting("psk-file", file, None),
        listen=daemon.take_all("listen", values.carrier_url),
        control=daemon.read_setting("control", _socket(file), None),
        drain=daemon.read_setting("drain", values.duration, 30.0),
        resume_timeout=daemon.read_setting("resume-timeout", values.duration, DEFAULT.resume),
        memory=daemon.read_setting("memory", values.size, None),
        workers=daemon.read_setting("workers", values.workers, 1),
        padding=daemon.read_setting("padding", values.padding, 0),
        web=None if web is None else web.read_setting("listen", values.place),
        telemetry=_telemetry(root.get_section("telemetry")),
        chain=None if chain is None else _chain(chain, file),
        node=None if node is None else read_node(node, file),
        state=None if state is None else state.read_setting("url", values.state_url),
        state_name=None if state is None else state.read_setting("name", values.text, None),
        log=_log(root.get_section("log"), file),
        everywhere=_everywhere(root.get_section("everywhere")),
        expose=tuple(_expose(section, file) for section in root.iter_sections("expose")),
        forward=tuple(_forward(section) for section in root.iter_sections("forward")),
    )
    for section in (identity, daemon, web, state):
        if section is not None:
            section.check_unread()
    if root.check_unread():  # otherwise what is missing may be there under a misspelt name
        _check_presence(root, daemon, config)
    _check_whole(root, config)
    return config


def _check_presence(root: Section, daemon: Section, config: model.Config) -> None:
    """Note as mistakes what is missing for the rest of the file to be of use."""
    if not config.expose and not config.forward and config.node is None:
        root.note_mistake(
            "there is nothing to do: add [[expose]] to offer a service or [[forward]] to reach one"
        )
    at_relay = config.node is not None and bool(config.node.relays)
    if config.expose and not config.listen and not at_relay and not daemon.has_failed("listen"):
        what = '[daemon] needs listen, such as listen = ["tcp://0.0.0.0:9700"], for peers to reach what is exposed'
        daemon.note_mistake(what)
    if config.listen and not config.expose and config.node is None:
        daemon.note_mistake("listen is of no use: nothing is exposed", "listen")
    asked = any(expose.on_chain or expose.price is not None for expose in config.expose)
    if config.chain is not None and config.chain.plans and not asked:
        what = "plans: no service asks for a pass; give price or on-chain to a service for pass holders"
        root.note_mistake(what, "chain", "plans")


#: Names, each with its path in the document.
_Named = list[tuple[str, KeyPath]]


def _check_whole(root: Section, config: model.Config) -> None:
    """Note mistakes that only several settings together show."""
    for number, expose in enumerate(config.expose):
        if expose.kind in _ONE_PROCESS and config.workers != 1:
            what = f"kind: {_ONE_PROCESS[expose.kind]}, so it needs [daemon] workers = 1"
            root.note_mistake(what, "expose", number, "kind")
    for number, url in enumerate(config.listen):
        if url.startswith("quic:") and config.workers != 1:
            what = "listen: a UDP port is read by one process, so quic: needs workers = 1"
            root.note_mistake(what, "daemon", "listen", number)
    check_login_servers(root, config)
    if config.node is not None:
        check_node(root, config, config.node)
    check_broadcast(root, config)
    check_sold_room(root, config)
    for number, expose in enumerate(config.expose):
        for key, wanted in (("on-chain", expose.on_chain), ("price", expose.price is not None)):
            if wanted and (config.chain is None or config.chain.host is None):
                what = {"on-chain": "whose lists decide", "price": "which is paid"}[key]
                root.note_mistake(f'{key}: needs [chain] host = "0x...", {what}', "expose", number, key)
    if config.web is not None and not config.web.is_local:
        root.note_mistake(
            f"listen: {config.web} can be reached by others, and the page tells who calls; use 127.0.0.1",
            "web",
            "listen",
        )
    services: _Named = [
        (one.service, ("expose", number, "service")) for number, one in enumerate(config.expose)
    ]
    _check_unique(root, "the service", services)
    stores: _Named = [
        (str(one.mailbox.store or "mailbox.sqlite in the data folder"), ("expose", number, "kind"))
        for number, one in enumerate(config.expose)
        if one.mailbox is not None and not isinstance(one.mailbox.store, str)  # a database may be shared
    ]
    _check_unique(root, "the mailbox's store", stores)
    lines: _Named = [
        (str(one.tips.store or "the store of this identity's line"), ("expose", number, "kind"))
        for number, one in enumerate(config.expose)
        if one.tips is not None
    ]
    _check_unique(root, "the line's store", lines)
    places: _Named = [
        (values.place_of(url), ("daemon", "listen", number)) for number, url in enumerate(config.listen)
    ]
    places += [] if config.control is None else [(f"unix:{config.control}", ("daemon", "control"))]
    places += [] if config.web is None else [(str(config.web), ("web", "listen"))]
    places += [(one.name, ("forward", number, "listen")) for number, one in enumerate(config.forward)]
    _check_unique(root, "the place", places)
    _check_budgets(root, config)


def _check_budgets(root: Section, config: model.Config) -> None:
    """Note forwards whose budgets for one service conflict: what was signed for a service counts against all of
    them.

    A budget per period is recorded for the set of services that it covers. Two forwards with a service in common
    must have the same set, or that service would be paid from two budgets whose periods begin at different times.
    """
    known: dict[Address, tuple[tuple[int, float | None], set[Address]]] = {}
    for number, forward in enumerate(config.forward):
        budget = forward.budget
        if budget is None:
            continue
        amount, services = (budget.most, budget.every), set(forward.to)
        for each in forward.to:
            other, beside = known.setdefault(each, (amount, services))
            if other != amount:
                what = f"another forward to {each} has a different most; what is paid counts against both"
            elif budget.every is not None and beside != services:
                what = f"another forward to {each} also goes to other hosts; give both the same to"
            else:
                continue
            root.note_mistake(f"budget: {what}", "forward", number, "budget")
            break


def _check_unique(root: Section, what: str, names: _Named) -> None:
    known: set[str] = set()
    for name, path in names:
        if name in known and not str(name).endswith(":0"):
            root.note_mistake(f"{what} {name!r} is in the file already", *path)
        known.add(name)


def _chain(section: Section, file: Callable[[Any], Path]) -> model.ChainSettings:
    chain = model.ChainSettings(
        host=section.read_setting("host", values.object_id, None),
        plans=section.take_all("plans", values.object_id),
        network=section.read_setting("network", values.text, None),
        wallet=section.read_setting("wallet", file, None),
        max_gas_price=section.read_setting("max-gas-price", values.number(1, 2**63 - 1), None),
        refresh=section.read_setting("refresh", values.duration, 15.0),
        endpoint=section.read_setting("endpoint", values.endpoint, None),
        weight=section.read_setting("weight", values.number(0, 65_535), 1),
        role=section.read_setting("role", values.choice(("active", "standby")), "active"),  # type: ignore[arg-type]
        vouchers=section.read_setting("vouchers", values.database_or(file), None),
    )
    for key in ("weight", "role"):
        if key in section and chain.endpoint is None:
            section.note_mistake(f"{key}: only applies with endpoint, and none is set", key)
    if chain.endpoint is not None and chain.host is None:
        section.note_mistake("endpoint: needs host, whose beacon announces it", "endpoint")
    if chain.plans and chain.host is None:
        section.note_mistake("plans: needs host, which sells them", "plans")
    section.check_unread()
    return chain


def _telemetry(section: Section | None) -> model.Telemetry | None:
    if section is None:
        return None
    telemetry = model.Telemetry(
        otlp=section.read_setting("otlp", values.collector),
        every=section.read_setting("every", values.duration, 15.0),
    )
    section.check_unread()
    return telemetry


def _log(section: Section | None, file: Callable[[Any], Path]) -> model.Log:
    if section is None:
        return model.Log()
    log = model.Log(
        format=section.read_setting("format", values.choice(("human", "json")), "human"),  # type: ignore[arg-type]
        level=section.read_setting("level", values.choice(("debug", "info", "warning", "error")), "info"),  # type: ignore[arg-type]
        access=section.read_setting("access", file, None),
    )
    section.check_unread()
    return log


# ---- [[expose]] ----------------------------------------------------------------------------------------------


def _expose(section: Section, file: Callable[[Any], Path]) -> model.Expose:
    kind = section.read_setting("kind", values.choice(model.KINDS), "tcp")
    health, mailbox = section.get_section("health"), section.get_section("mailbox")
    accounts, show = section.get_section("accounts"), section.get_section("broadcast")
    tips = section.get_section("tips")
    expose = model.Expose(
        service=section.read_setting("service", values.service),
        backends=section.take_all("backend", values.backend),
        kind=kind,  # type: ignore[arg-type]
        balance=section.read_setting("balance", values.choice(model.BALANCES), "round-robin"),  # type: ignore[arg-type]
        health=None if health is None else _health(health),
        connect_timeout=section.read_setting("connect-timeout", values.duration, 5.0),
        slow_start=section.read_setting("slow-start", values.duration, 0.0),
        on_chain=section.read_setting("on-chain", values.boolean, False),
        proxy_protocol=section.read_setting("proxy-protocol", values.boolean, False),
        batch=section.read_setting("batch", values.number(1, 10_000), 50),
        message=section.read_setting("message", values.size, 2 * 1024 * 1024),
        paths=section.take_all("paths", _http_path),
        origins=section.take_all("origins", values.origin),
        price=_price(section.get_section("price")),
        exposure=_exposure(section.get_section("exposure")),
        relay=read_relay(section.get_section("relay")),
        mailbox=read_mailbox(mailbox, file) if kind == "mailbox" or mailbox is not None else None,
        logins=read_logins(accounts, file) if kind == "login" or accounts is not None else None,
        broadcast=read_broadcast(show, file) if kind == "broadcast" or show is not None else None,
        tips=read_tips(tips, file) if kind == "tips" or tips is not None else None,
        rules=_rules(section),
    )
    if kind == "relay":
        _check_relay(section)
    elif kind == "mailbox":
        check_mailbox(section, expose)
    elif kind == "login":
        check_logins(section)
    elif kind == "broadcast":
        check_show(section)
    elif kind == "tips":
        check_tips(section, expose)
    elif "backend" not in section:
        section.note_mistake(
            f"backend is missing in {section.spell_table()}: where the service really is, as HOST:PORT"
        )
    elif not expose.backends and not section.has_failed("backend"):
        section.note_mistake("backend: it has to have at least one, as HOST:PORT", "backend")
    if "allow" not in section:
        section.note_mistake(
            f'allow is missing in {section.spell_table()}: identities, Sui addresses, or "*" for everyone'
        )
    if not section.has_failed("kind"):  # otherwise it isn't known which settings belong to it
        _check_kind(section, kind, expose)
    section.check_unread()
    return expose


def _check_kind(section: Section, kind: str, expose: model.Expose) -> None:
    """Note as mistakes the settings that a service of this kind can't have."""
    for key, kinds in _ONLY_FOR.items():
        if key in section and kind not in kinds:
            section.note_mistake(f"{key}: is for services of kind {' or '.join(kinds)}, not {kind}", key)
    if "exposure" in section and "price" not in section:
        section.note_mistake(
            "exposure: limits what callers may owe, and without price they owe nothing", "exposure"
        )
    if kind == "udp":
        _check_udp(section, expose)
    _check_methods(section, kind, expose.rules)


def _check_methods(section: Section, kind: str, rules: model.ServiceRules) -> None:
    """Note as mistakes the patterns that no method of this kind can match."""
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for key in ("allow", "deny"):
        patterns = () if rules.methods is None else getattr(rules.methods, key)
        found += [(one, f"methods.{key}", ("methods", key)) for one in patterns]
    found += [(one, "rate", ("rate",)) for rule in rules.rate for one in rule.methods]
    for one, where, path in found:
        if kind not in _ONLY_FOR["methods"]:
            if where == "rate":  # that this kind has no methods was reported already
                section.note_mistake(
                    f"rate: methods are of services of kind {' or '.join(_ONLY_FOR['methods'])}", *path
                )
        elif kind == "grpc" and one[:1] not in ("/", "*"):
            service, _, method = one.rpartition(".")
            meant = one if "/" in one else f"{service or '*'}/{method}"
            meant = meant if meant[:1] == "*" else f"/{meant}"
            section.note_mistake(f"{where}: {one!r} matches no gRPC method; did you mean {meant}?", *path)


def _check_relay(section: Section) -> None:
    """Note as mistakes the settings that need backends, and rules about bytes, since a relay has its own."""
    for key in ("backend", "balance", "health", "proxy-protocol", "connect-timeout", "slow-start"):
        if key in section:
            section.note_mistake(f"{key}: a relay joins peers with each other, and has no backends", key)
    for key in ("quota", "limits"):
        if key in section:
            section.note_mistake(f"{key}: a relay has limits of its own for each peer and circuit", key)


def _check_udp(section: Section, expose: model.Expose) -> None:
    """Note as mistakes the settings that need streams."""
    for key in ("health", "proxy-protocol", "connect-timeout", "slow-start"):
        if key in section:
            section.note_mistake(f"{key}: nothing of UDP tells whether somebody is there", key)
    if "price" in section:
        section.note_mistake(f"price: {_NOT_COUNTED}; sell streams, by kind tcp, or leave it free", "price")
    for number, place in enumerate(expose.backends):
        if place.path or not is_ip_address(place.host):
            section.note_mistake(
                f"backend: {place} has to be an IP address and a port, for UDP", "backend", number
            )


def _price(section: Section | None) -> model.Price | None:
    if section is None:
        return None
    price = model.Price(
        request=section.read_setting("request", values.money, None),
        mib=section.read_setting("mib", values.money, None),
        deposit=section.read_setting("deposit", values.money, None),
    )
    if "request" not in section and "mib" not in section:
        section.note_mistake('price: needs request or mib, such as "0.00001SUI"')
    section.check_unread()
    return price


def _exposure(section: Section | None) -> Exposure:
    usual = Exposure()
    if section is None:
        return usual
    requests, size = values.number(0), values.size
    exposure = Exposure(
        first_bytes=section.read_setting("first-bytes", size, usual.first_bytes),
        most_bytes=section.read_setting("most-bytes", size, usual.most_bytes),
        first_requests=section.read_setting("first-requests", requests, usual.first_requests),
        most_requests=section.read_setting("most-requests", requests, usual.most_requests),
        patience=section.read_setting("patience", values.duration, usual.patience),
        first_amount=section.read_setting("first-amount", values.money, usual.first_amount),
    )
    section.check_unread()
    return exposure


def _budget(section: Section | None) -> model.BudgetSettings | None:
    if section is None:
        return None
    most, every = section.read_setting("most", values.money_per) or (0, None)  # a mistake is noted already
    budget = model.BudgetSettings(
        most=most,
        every=every,
        calls=section.read_setting("calls", values.request_rate, None),
        deposit=section.read_setting("deposit", values.money, None),
        request=section.read_setting("request", values.money, None),
        mib=section.read_setting("mib", values.money, None),
        when_answered=section.read_setting("when-answered", values.boolean, False),
        per_host=section.read_setting("most-per-host", values.money, None),
        per_day=section.read_setting("most-per-day", values.money, None),
        longest_lock=section.read_setting("longest-lock", values.duration, None),
        max_gas=section.read_setting("max-gas", values.money, None),
    )
    section.check_unread()
    return budget


def _health(section: Section) -> model.Health:
    health = model.Health(
        every=section.read_setting("every", values.duration, 5.0),
        timeout=section.read_setting("timeout", values.duration, 2.0),
        http=section.read_setting("http", _http_path, None),
        fall=section.read_setting("fall", values.number(1, 100), 2),
        rise=section.read_setting("rise", values.number(1, 100), 2),
    )
    section.check_unread()
    return health


def _http_path(value: Any) -> str:
    path = values.text(value)
    if not path.startswith("/") or not path.isascii() or any(char <= " " for char in path):
        raise Wrong(f'{path!r} is not the path of a request, such as "/health"')
    return path


# ---- the rules of policies -----------------------------------------------------------------------------------


def _everywhere(section: Section | None) -> model.ServiceRules:
    if section is None:
        return model.ServiceRules(access=model.AccessRule(everyone=True))
    rules = _rules(section, everyone=True)
    section.check_unread()
    return rules


def _rules(section: Section, *, everyone: bool = False) -> model.ServiceRules:
    schedule, concurrency = section.get_section("schedule"), section.get_section("concurrency")
    quota, limits, methods = (
        section.get_section("quota"),
        section.get_section("limits"),
        section.get_section("methods"),
    )
    return model.ServiceRules(
        access=_access(section, everyone),
        login=None if everyone else section.read_setting("login", values.choice(model.LOGINS), None),
        schedule=None if schedule is None else _schedule(schedule),
        methods=None if methods is None else _methods(methods),
        concurrency=None if concurrency is None else _concurrency(concurrency),
        rate=tuple(_rate(one) for one in section.iter_sections("rate")),
        quota=None if quota is None else _quota(quota),
        limits=None if limits is None else _limits(limits),
    )


def _access(section: Section, everyone: bool) -> model.AccessRule:
    allow = section.take_all("allow", values.caller)
    deny = section.take_all("deny", values.caller)
    if values.EVERYONE in deny:
        section.note_mistake('deny: "*" would let nobody in; leave the service out instead', "deny")
    return model.AccessRule(
        everyone=values.EVERYONE in allow or (everyone and "allow" not in section),
        peers=frozenset(one for one in allow if isinstance(one, PeerId)),
        accounts=frozenset(one for one in allow if isinstance(one, str) and one != values.EVERYONE),
        denied_peers=frozenset(one for one in deny if isinstance(one, PeerId)),
        denied_accounts=frozenset(one for one in deny if isinstance(one, str)),
    )


def _schedule(section: Section) -> model.ScheduleRule:
    rule = model.ScheduleRule(
        days=section.read_setting("days", values.days, frozenset(range(7))),
        hours=section.read_setting("hours", values.hours, None),
        zone=section.read_setting("zone", values.zone, values.zone("UTC")),
    )
    section.check_unread()
    return rule


def _methods(section: Section) -> model.MethodRule:
    rule = model.MethodRule(
        allow=section.take_all("allow", values.text), deny=section.take_all("deny", values.text)
    )
    if not rule.allow and not rule.deny:
        section.note_mistake("methods: needs allow or deny")
    section.check_unread()
    return rule


def _concurrency(section: Section) -> model.ConcurrencyRule:
    rule = model.ConcurrencyRule(
        identity=section.read_setting("identity", values.number(1), None),
        service=section.read_setting("service", values.number(1), None),
    )
    section.check_unread()
    return rule


def _rate(section: Section) -> model.RateRule:
    rule = model.RateRule(
        requests=section.read_setting("requests", values.request_rate, None),
        burst=section.read_setting("burst", values.number(1), None),
        bandwidth=section.read_setting("bandwidth", values.byte_rate, None),
        per=section.read_setting("per", values.choice(model.PERS), "identity"),  # type: ignore[arg-type]
        methods=section.take_all("methods", values.text),
    )
    if "requests" not in section and "bandwidth" not in section:
        section.note_mistake('rate: needs requests, such as "100/s", or bandwidth, such as "10MiB/s"')
    if rule.burst is not None and "requests" not in section:
        section.note_mistake("burst: only applies to requests, which have no limit here", "burst")
    if rule.methods and "bandwidth" in section:
        section.note_mistake("bandwidth: can't be limited by method; give it a rate of its own", "bandwidth")
    section.check_unread()
    return rule


def _quota(section: Section) -> model.QuotaRule:
    rule = model.QuotaRule(
        requests=section.read_setting("requests", values.number(1), None),
        data=section.read_setting("bytes", values.size, None),
        every=section.read_setting("every", values.duration),
        per=section.read_setting("per", values.choice(model.PERS), "identity"),  # type: ignore[arg-type]
    )
    if "requests" not in section and "bytes" not in section:
        section.note_mistake("quota: needs requests or bytes")
    section.check_unread()
    return rule


def _limits(section: Section) -> model.LimitRule:
    rule = model.LimitRule(
        data=section.read_setting("bytes", values.size, None),
        time=section.read_setting("time", values.duration, None),
        idle=section.read_setting("idle", values.duration, None),
    )
    section.check_unread()
    return rule


# ---- [[forward]] ---------------------------------------------------------------------------------------------


def _forward(section: Section) -> model.Forward:
    mode = section.read_setting("mode", values.choice(model.MODES), "direct")
    kind = section.read_setting("kind", values.choice(model.FORWARD_KINDS), "tcp")
    public = section.read_setting("public", values.boolean, False)
    listen = section.read_setting("listen", values.place)
    to = section.take_all("to", values.address)
    if isinstance(listen, values.LocalPlace) and not listen.is_local and not public:
        section.note_mistake(
            f"listen: whoever reaches {listen} acts as you; use 127.0.0.1, or say public = true", "listen"
        )
    if kind == "udp" and mode != "direct":
        section.note_mistake(f"mode: {mode} is for TCP", "mode")
    if kind == "udp" and "budget" in section:
        section.note_mistake(f"budget: {_NOT_COUNTED}", "budget")
    if kind == "udp" and isinstance(listen, values.LocalPlace) and listen.path:
        section.note_mistake("listen: UDP has no Unix sockets here; use HOST:PORT", "listen")
    budget = _budget(section.get_section("budget"))
    if budget is not None and any(each.host_object is None for each in to):
        section.note_mistake(
            "budget: who is paid is a host on chain, so to has to be dtp://0x<host>/SERVICE", "budget"
        )
    if mode == "direct":
        _check_targets(section, to)
    elif "to" in section:
        section.note_mistake(f"to: with mode {mode} the program says whom it wants", "to")
    section.check_unread()
    return model.Forward(listen=listen, to=to, mode=mode, kind=kind, budget=budget)  # type: ignore[arg-type]


def _check_targets(section: Section, to: tuple[Address, ...]) -> None:
    if "to" not in section:
        section.note_mistake(
            f"to is missing in {section.spell_table()}: the service to reach, such as dtp://dtp1.../api"
        )
    elif not to and not section.has_failed("to"):
        section.note_mistake("to: it has to have at least one, such as dtp://dtp1.../api", "to")
    for number, address in enumerate(to):
        if address.service != to[0].service:
            section.note_mistake(
                f"to: leads to the service {address.service!r}, the first one to {to[0].service!r}",
                "to",
                number,
            )
