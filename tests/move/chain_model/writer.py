"""Random transactions for `chain_model`: valid, nearly valid and wrong ones."""

from __future__ import annotations

import hashlib

from .scenes import KEYS, Action, Scenes
from .things import (
    BY_CLIENT,
    BY_SERVER,
    DAY,
    DRAINING,
    MINUTE,
    SPLIT,
    SUI,
    U64,
    WEAK,
    YEAR,
    Channel,
    Rate,
    Refused,
    Terms,
    Voucher,
)
from .world import World

ACCOUNTS = ("ann", "bob", "cat", "dan")
PREIMAGE = bytes([7]) * 32
LOCK = hashlib.sha256(PREIMAGE).digest()
ENDPOINT_KEYS = tuple(bytes([i]) * 32 for i in range(2, 22))
OTHER = "OTHER"

#: What makes or ends no object, and takes no coin out of the gas coin: may be several in one transaction.
TOGETHER = {
    "set_owner",
    "set_mode",
    "set_open",
    "set_terms",
    "set_limits",
    "edit_list",
    "heartbeat",
    "suspect",
    "set_ttl",
    "top_up",
    "add_lane",
    "rotate_lane",
    "claim",
    "claim_for",
    "pay_owed",
    "request_close",
    "finalize",
    "release",
    "close_agreed",
    "pipe_send",
    "pipe_ack",
    "collect_credit",
    "charge_credit",
    "set_on_sale",
    "draw",
    "revoke",
    "revoke_as_owner",
    "cancel",
    "cancel_refused",
    "renew",
}


class Writer(Scenes):
    """Writes a history, one action after the other, looking at the model."""

    def key(self) -> str | bytes:
        return self.near(self.any(KEYS), b"\x05" * 31, self.any(WEAK), bytes([0xEE]) + b"\xff" * 30 + b"\x7f")

    def terms(self) -> Terms:
        rng = self.rng
        claim = self.near(rng.choice([MINUTE, 10 * MINUTE, DAY]), MINUTE - 1, 30 * DAY, 30 * DAY + 1)
        price = rng.choice([0, 1, 7, 1000, 2**20, U64]) if self.chance(0.3) else 1000
        return Terms(
            price,
            self.near(rng.choice([0, 1, 999_983, 2_000_000]), U64),
            self.near(rng.choice([0, 1, 1000]), 10**6),
            self.near(rng.choice([U64, 1500, 10_000, 100_000]), 0, 1),
            self.near(rng.choice([SPLIT, BY_CLIENT, BY_SERVER]), 3),
            rng.choice([0, 1, 1000, 16_384, 10**6, U64]),
            self.near(rng.choice([claim, 2 * claim, max(claim, DAY)]), claim - 1, YEAR, YEAR + 1),
            claim,
            self.near(SUI, OTHER),
        )

    def rate(self) -> Rate:
        one, two = (
            self.rng.choice([(0, 0), (10**9, 3), (10**12, 1)]),
            self.rng.choice([(0, 0), (1000, 70_000), (10**6, 20_000)]),
        )
        return self.near(Rate(*one, *two), Rate(1, 0, 0, 0), Rate(0, 0, 1, 0), Rate(U64, U64, U64, U64))

    def history(self, world: World, length: int):
        """Yield actions; the caller applies each to the model before the next."""
        yield "ann", "host_new", {"ttl_ms": DAY}
        (host,) = world.hosts
        yield "ann", "new_operator", {"host": host, "cap": host, "rights": 15, "to": "ann"}
        for service in (1, 2):
            terms = self.terms()
            while not sane(terms):
                terms = self.terms()
            rate = Rate() if self.chance(0.5) else self.rate()
            yield "ann", "add_service", self.added(host, service, terms, rate)
            if service in world.hosts[host].services:
                yield "ann", "set_open", {"host": host, "cap": host, "service": service, "open": True}
        if world.operators:
            operator = next(iter(world.operators))
            yield "ann", "enroll", self.enrolled(host, operator, ENDPOINT_KEYS[0])
            yield "ann", "heartbeat", self.beat(host, operator, ENDPOINT_KEYS[0], 1)
        if self.chance(0.4):
            yield "ann", "host_new", {"ttl_ms": MINUTE}
        for _ in range(length):
            if self.chance(0.04):
                yield from self.any((self.rotating, self.crediting))(world)
            action = self.batch(world) if self.chance(0.06) else self.action(world)
            if action is not None:
                yield action

    def batch(self, world: World) -> Action | None:
        """Two or three functions in one transaction of one sender."""
        tried = [self.action(world) for _ in range(12)]
        drawn = [a for a in tried if a is not None and a[1] in TOGETHER]
        senders = {a[0] for a in drawn}
        if not senders:
            return None
        sender = self.any(sorted(senders))
        steps = [(name, arguments) for who, name, arguments in drawn if who == sender][:3]
        return sender, "batch", {"steps": steps}

    def added(self, host, service, terms, rate):
        return {
            "host": host,
            "cap": host,
            "service": service,
            "terms": terms,
            "mode": self.near(self.rng.choice([0, 0, 0, 0, 0, 1, 2]), 3),
            "rate": rate,
            "window": self.rng.choice([0, 0, 1, 3]),
            "post_fee": self.rng.choice([0, 10]),
            "terms_hash": self.near(b"", b"h" * 32, b"h"),
            "kind": 2,
        }

    def enrolled(self, host, operator, key):
        hint = self.near(b"", b"x" * 512, b"x" * 513)
        return {
            "host": host,
            "operator": operator,
            "key": key,
            "weight": 1,
            "role": self.near(0, 1, 2),
            "generation": self.rng.choice([0, 1]),
            "hint": hint,
        }

    def beat(self, host, operator, key, generation):
        return {"host": host, "operator": operator, "key": key, "generation": generation, "load": 3}

    def action(self, world: World) -> Action | None:
        live = sum(each.state < DRAINING for each in world.channels.values())
        kinds = {
            self.tick: 14,
            self.host: 7 if world.hosts else 0,
            self.opening: 0 if not world.hosts else 2 if live > 1 else 9,  # few channels, and much with each
            self.channel: 50 if live else 2 if world.channels else 0,
            self.piping: 26 if live else 2 if world.channels else 0,
            self.planning: 0 if not world.hosts else 1 if world.plans else 4,
            self.passing: 14 if world.plans else 0,
            self.locking: 4,
        }
        return self.rng.choices(list(kinds), list(kinds.values()))[0](world)

    def tick(self, world: World) -> Action:
        steps = [1, 1000, 1000, MINUTE - 1, MINUTE, MINUTE, 5 * MINUTE, 10 * MINUTE, DAY]
        if self.chance(0.25):
            return "", "epoch", {}
        # Just to a limit, or a ms before it.
        limits = [c.claims_until_ms for c in world.channels.values() if c.state == 1]
        limits += [c.active_ms + c.terms.idle_ms for c in world.channels.values() if c.state == 0]
        limits += [lane.old_until_ms for c in world.channels.values() for lane in c.lanes]
        limits += [k.deadline_ms for k in world.locks.values()]
        limits = [
            to - world.now - back for to in limits for back in (0, 1) if 0 < to - world.now - back <= 2 * DAY
        ]
        if limits and self.chance(0.5):
            return "", "advance", {"ms": self.rng.choice(limits)}
        return "", "advance", {"ms": self.rng.choice(steps)}

    def some_host(self, world: World) -> str:
        """Mostly one that has services."""
        busy = [name for name, entry in world.hosts.items() if entry.services]
        return self.any(busy) if busy and self.chance(0.9) else self.any(world.hosts)

    def operator(self, world: World, host: str) -> tuple[str, str] | None:
        """An operator cap and who has it."""
        fit = [
            n
            for n, o in world.operators.items()
            if o.host == host and o.generation == world.hosts[host].generation
        ]
        if not world.operators:
            return None
        name = self.near(self.any(fit), *world.operators) if fit else self.any(world.operators)
        return name, world.operators[name].holder

    def host(self, world: World) -> Action | None:
        rng = self.rng
        host = self.some_host(world)
        entry = world.hosts[host]
        owner = world.caps[host]
        caps = [h for h, holder in world.caps.items() if holder == owner]
        cap = self.near(host, *caps)
        service = self.near(self.any(entry.services), 1, 2, 3) if entry.services else 1
        beacon = self.near(host, *world.hosts)
        base = {"host": host, "cap": cap}
        found = self.operator(world, host)
        choice = rng.randrange(28)
        if choice == 0:
            return "ann", "host_new", {"ttl_ms": self.near(DAY, 9999, DAY + 1)}
        if choice == 1:
            return owner, "set_owner", base | {"owner": self.near("ann", "bob", "nobody")}
        if choice == 2:
            return (
                owner,
                "set_mode",
                base | {"service": service, "mode": self.near(rng.choice([0, 0, 0, 1, 2]), 3)},
            )
        if choice == 3:
            return owner, "set_open", base | {"service": service, "open": self.chance(0.75)}
        if choice in (4, 5):
            return (
                owner,
                "set_terms",
                base | {"service": service, "terms": self.terms(), "terms_hash": self.near(b"", b"h")},
            )
        if choice == 6:
            return (
                owner,
                "add_service",
                self.added(host, rng.choice([1, 2, 3]), self.terms(), self.rate()) | base,
            )
        if choice == 7:
            return (owner, "remove_service", base | {"service": service}) if self.chance(0.4) else None
        if choice == 8:
            return (
                owner,
                "set_limits",
                base
                | {"service": service, "rate": self.rate(), "window": rng.choice([0, 1, 3]), "post_fee": 5},
            )
        if choice == 9:
            return (
                owner,
                "new_operator",
                base | {"rights": self.near(15, 0, 16, 1, 2, 4, 8), "to": self.any(ACCOUNTS)},
            )
        if choice == 10:
            if self.chance(0.5):
                return owner, "revoke_operators", base | {"beacon": beacon}
            return owner, "host_migrate", base | {"beacon": beacon}
        if choice == 11:
            if self.chance(0.2):
                return owner, "host_destroy", base | {"beacon": beacon}
            return owner, "set_ttl", base | {"ttl_ms": self.near(DAY, MINUTE, 9999)}
        if found is None:
            return None
        operator, holder = found
        with_operator = {"host": host, "operator": operator}
        key = self.any([e.key for e in entry.endpoints] or [ENDPOINT_KEYS[1]])
        known = next((e for e in entry.endpoints if e.key == key), None)
        if choice in (12, 13, 14, 15):
            addresses = [self.any(ACCOUNTS[1:]) for _ in range(rng.randrange(3))]
            return (
                holder,
                "edit_list",
                with_operator | {"which": rng.randrange(2), "add": self.chance(0.5), "addresses": addresses},
            )
        if choice == 16:
            return (
                holder,
                "enroll",
                self.enrolled(host, operator, self.near(self.any(ENDPOINT_KEYS), WEAK[1], b"k")),
            )
        if choice == 17:
            return (
                holder,
                "configure",
                with_operator | {"key": key, "weight": 2, "role": self.near(1, 2), "hint": b""},
            )
        if choice == 18:
            return (
                (holder, "withdraw", with_operator | {"key": self.near(key, ENDPOINT_KEYS[5])})
                if self.chance(0.3)
                else None
            )
        if choice == 19 and known:
            if self.chance(0.3):
                seen = self.near(known.seen_ms, known.seen_ms + 1)
                return (
                    holder,
                    "suspect",
                    with_operator | {"key": key, "generation": known.generation, "seen_ms": seen},
                )
            return (holder, "destroy_operator", {"operator": operator}) if self.chance(0.2) else None
        generation = self.near(known.generation if known else 0, 0, (known.generation if known else 0) + 1)
        return holder, "heartbeat", self.beat(host, operator, key, generation)

    def opening(self, world: World) -> Action:
        host = self.some_host(world)
        entry = world.hosts[host]
        service = self.near(self.any(entry.services), 1, 9) if entry.services else 1
        known = entry.services.get(service)
        revision = known.terms.revision if known else 1
        least = known.terms.min_deposit if known else 0
        coin = known.terms.coin if known else SUI
        deposit = (
            self.near(least + self.rng.choice([0, 500, 5000, 10**6]), max(0, least - 1)) if coin == SUI else 0
        )
        sender = self.near(self.any(ACCOUNTS[1:]), "ann")
        # A pass of this account's, where it has one.
        mine = [n for n, p in world.passes.items() if p.holder == sender]
        if mine and self.chance(0.5) and world.plans:
            held = self.any(mine)
            plan = self.near(world.passes[held].plan, *world.plans)
            if plan in world.plans:
                of = self.near(world.plans[plan].host, host)
                if of in world.hosts:
                    known = world.hosts[of].services.get(world.plans[plan].service)
                    revision = known.terms.revision if known else 1
                    arguments = {"host": of, "beacon": of, "plan": plan, "pass_": held}
                    return (
                        sender,
                        "open_with_pass",
                        arguments | {"revision": self.near(revision, revision + 1), "key": self.key()},
                    )
        arguments = {"host": host, "beacon": self.near(host, *world.hosts), "service": service}
        coin = self.near(coin, SUI, OTHER)
        if coin != SUI:
            deposit = 0
        return (
            sender,
            "open",
            arguments
            | {
                "revision": self.near(revision, revision - 1),
                "deposit": deposit,
                "key": self.key(),
                "coin": coin,
            },
        )

    def some_channel(self, world: World) -> tuple[str, Channel]:
        live = [n for n, c in world.channels.items() if c.state < DRAINING + self.chance(0.2)]
        name = self.any(live) if live and self.chance(0.9) else self.any(world.channels)
        return name, world.channels[name]

    def voucher(self, world: World, name: str, entry: Channel) -> Voucher:
        rng = self.rng
        lane = self.near(rng.randrange(len(entry.lanes)), len(entry.lanes))
        known = entry.lanes[min(lane, len(entry.lanes) - 1)]
        requests = max(0, known.requests + rng.choice([0, 0, 1, 2, 10, 10**6, -1]))
        count = max(0, known.bytes + rng.choice([0, 1, 1000, 16_384, 2**20, 10**7, -1]))
        if self.chance(0.02):
            requests, count = U64, U64
        requests, count = min(requests, U64), min(count, U64)
        terms = entry.terms
        worth = requests * terms.price_request + (count * terms.price_mib >> 20)
        exact = ((requests * terms.price_request << 20) + count * terms.price_mib) >> 20
        amount = self.near(
            exact,
            exact + 1,
            worth,
            known.amount,
            max(0, known.amount - 1),
            min(exact, known.amount + 1),
            exact // 2,
        )
        amount = min(amount, U64)
        right = [k for k in (known.key, known.old_key) if isinstance(k, str)] or [KEYS[0]]
        lock, preimage = self.near(
            (None, None),
            (LOCK, PREIMAGE),
            (LOCK, None),
            (LOCK, b"x" * 32),
            (b"short", PREIMAGE),
            (None, b"extra"),
        )
        return Voucher(
            self.near(name, *world.channels),
            lane,
            self.near(min(known.sequence + 1, U64), known.sequence, 0, U64),
            amount,
            requests,
            count,
            self.near(self.any(right), *KEYS),
            preimage,
            lock,
            self.near(U64, world.now, world.now - 1, world.now + MINUTE),
            self.chance(0.02),
        )

    def channel(self, world: World) -> Action | None:
        rng = self.rng
        name, entry = self.some_channel(world)
        base = {"channel": name}
        client, server = entry.client, entry.server
        choice = rng.randrange(40)
        if choice < 10:
            return self.near(server, *ACCOUNTS), "claim", base | {"voucher": self.voucher(world, name, entry)}
        if choice < 16:
            return self.any(ACCOUNTS), "claim_for", base | {"voucher": self.voucher(world, name, entry)}
        if choice < 18:
            amount = (
                self.near(rng.choice([1, entry.terms.min_deposit, 10_000]), 0)
                if entry.terms.coin == SUI
                else 0
            )
            return self.near(client, *ACCOUNTS), "top_up", base | {"amount": amount}
        if choice < 20:
            return self.near(client, *ACCOUNTS), "add_lane", base | {"key": self.key()}
        if choice < 23:
            lane = self.near(rng.randrange(len(entry.lanes)), 40)
            return self.near(client, *ACCOUNTS), "rotate_lane", base | {"lane": lane, "key": self.key()}
        if choice < 26:
            return self.any(ACCOUNTS), "pay_owed", base
        if choice < 28:
            return self.near(client, *ACCOUNTS), "request_close", base
        if choice < 33:
            return self.any(ACCOUNTS), "finalize", base
        if choice < 34:
            return self.near(server, *ACCOUNTS), "release", base
        if choice < 36:
            most = entry.claimed + entry.balance
            total = self.near(rng.randint(entry.claimed, most), most, most + 1, max(0, entry.claimed - 1))
            sender, other = (client, server) if self.chance(0.5) else (server, client)
            key = self.near(other, sender, WEAK[0], b"k")
            signer = self.near(other, *ACCOUNTS)
            until = self.near(U64, world.now, world.now - 1)
            return (
                self.near(sender, *ACCOUNTS),
                "close_agreed",
                base
                | {
                    "total": total,
                    "not_after_ms": until,
                    "key": key,
                    "signer": signer,
                    "spoiled": self.chance(0.02),
                },
            )
        if choice < 39:
            return self.near(client, *ACCOUNTS), "destroy", base
        return self.near(server, client), "channel_migrate", base

    def piping(self, world: World) -> Action | None:
        rng = self.rng
        name, entry = self.some_channel(world)
        if not world.pipes or self.chance(0.15):
            return (
                self.near(self.any([entry.client, entry.server]), *ACCOUNTS),
                "pipe_open",
                {"channel": name},
            )
        if self.chance(0.2):
            sender = self.near(self.any([entry.client, entry.server]), *ACCOUNTS)
            way = 1 if sender == entry.client else 0
            acks = entry.acks[way]
            index = self.near(rng.randrange(len(acks)) if acks else 0, 15)
            now = acks[index] if index < len(acks) else 0
            return (
                sender,
                "pipe_ack",
                {
                    "channel": name,
                    "index": index,
                    "sequence": min(U64, self.near(now + 1, now, now + 2, U64)),
                },
            )
        if self.chance(0.08) and world.hosts:
            host = self.any(world.hosts)
            arguments = {"host": host, "service": self.near(1, 2, 9), "reply_key": self.near(b"r" * 32, b"r")}
            return (
                self.any(ACCOUNTS),
                "post",
                arguments | {"size": self.near(100, 0, 20_000), "fee": self.near(10, 0, 4)},
            )
        name = self.any(world.pipes)
        pipe = world.pipes[name]
        channel = self.near(pipe.channel, *world.channels)
        if channel not in world.channels:
            return pipe.holder, "pipe_destroy", {"pipe": name}
        entry = world.channels[channel]
        choice = rng.randrange(20)
        base = {"pipe": name, "channel": channel}
        if choice < 12:
            if entry.host not in world.hosts:
                return None
            host = self.near(entry.host, *world.hosts)
            size = self.near(rng.choice([0, 1, 100, 1000, 16_384]), 40_000)
            return pipe.holder, "pipe_send", base | {"host": host, "flags": rng.randrange(4), "size": size}
        if choice < 17:
            right = "charge_credit" if pipe.direction == 0 else "collect_credit"
            return pipe.holder, self.near(right, "charge_credit", "collect_credit"), base
        if choice < 19:
            return pipe.holder, "pipe_close", base
        return (pipe.holder, "pipe_destroy", {"pipe": name}) if self.chance(0.3) else None

    def planning(self, world: World) -> Action:
        host = self.some_host(world)
        known = world.hosts[host].services
        owner = world.caps[host]
        arguments = {"host": host, "cap": self.near(host, *[h for h, o in world.caps.items() if o == owner])}
        price = self.near(self.rng.choice([0, 100, 10_000]), U64 // 1000 + 1)
        period = self.near(self.rng.choice([0, MINUTE, 10 * MINUTE, DAY]), MINUTE - 1, YEAR + 1)
        return (
            owner,
            "new_plan",
            arguments
            | {
                "service": self.near(self.any(known or [1]), 9),
                "price": price,
                "period_ms": period,
                "quota": (5, 0),
                "coin": SUI if price else self.near(SUI, OTHER),
            },
        )

    def passing(self, world: World) -> Action | None:
        rng = self.rng
        name = self.any(world.plans)
        plan = world.plans[name]
        caps = [h for h in world.caps if world.caps[h] == world.caps[plan.host]]
        cap = self.near(plan.host, *caps)
        owner = world.caps[plan.host]
        host = self.near(plan.host, *world.hosts)
        accounts = list(plan.accounts)
        choice = rng.randrange(20)
        some = [self.any(accounts) for _ in range(rng.randrange(1, 3))] if accounts else []
        some = self.near(some, [*some, "unknown"])
        if choice == 0:
            return owner, "set_on_sale", {"plan": name, "cap": cap, "on_sale": self.chance(0.6)}
        if choice == 1:
            return owner, "retire", {"plan": name, "cap": cap}
        if choice == 2:
            return owner, "forget", {"plan": name, "cap": cap, "passes": some}
        if choice in (3, 4):
            return owner, "draw", {"plan": name, "cap": cap, "passes": some}
        if choice == 5:
            return owner, "plan_migrate", {"plan": name, "cap": cap}
        if choice == 6:
            if not accounts:
                return None
            return (
                owner,
                "revoke_as_owner",
                {"plan": name, "cap": cap, "pass_": self.near(self.any(accounts), "unknown")},
            )
        if choice == 7:
            operator = self.operator(world, plan.host) if plan.host in world.hosts else None
            if operator is None or not accounts or host not in world.hosts:
                return None
            return (
                operator[1],
                "revoke",
                {
                    "plan": name,
                    "host": host,
                    "operator": operator[0],
                    "pass_": self.near(self.any(accounts), "unknown"),
                },
            )
        periods = self.near(rng.choice([1, 2, 3, 10]), 0, 1000, 1001)
        payment = self.near(plan.price * periods, plan.price * periods + 1) if plan.coin == SUI else 0
        if host not in world.hosts:
            return None
        if choice < 12 or not world.passes:
            return (
                self.any(ACCOUNTS[1:]),
                "buy",
                {"plan": name, "host": host, "payment": payment, "periods": periods},
            )
        held = self.any(world.passes)
        mine = {"plan": self.near(world.passes[held].plan, name), "pass_": held}
        holder = world.passes[held].holder
        if mine["plan"] not in world.plans:
            return holder, "discard", {"pass_": held}
        price = world.plans[mine["plan"]].price
        if choice < 14:
            return (
                holder,
                "renew",
                mine
                | {
                    "host": self.near(world.plans[mine["plan"]].host, host),
                    "payment": self.near(price * periods, 1) if world.plans[mine["plan"]].coin == SUI else 0,
                    "periods": periods,
                },
            )
        if choice < 16:
            return holder, "cancel", mine
        if choice < 18:
            return holder, "cancel_refused", mine | {"host": host}
        if choice < 19:
            return holder, "pass_destroy", mine
        return (holder, "discard", {"pass_": held}) if self.chance(0.2) else None

    def locking(self, world: World) -> Action:
        rng = self.rng
        if not world.locks or self.chance(0.4):
            by_key = self.chance(0.5)
            right = self.any(KEYS) if by_key else LOCK
            commitment = self.near(right, b"c" * 31, *([WEAK[2]] if by_key else []))
            amount = self.near(1000, 0)
            until = world.now + self.near(rng.choice([1, MINUTE, DAY]), 0, 2 * YEAR, 2 * YEAR + 1)
            return (
                self.any(ACCOUNTS),
                "new_lock",
                {
                    "amount": amount,
                    "by_key": by_key,
                    "commitment": commitment,
                    "payee": self.near("bob", "nobody"),
                    "relay_fee": self.near(rng.choice([0, 10, 1000]), 1001),
                    "deadline_ms": until,
                },
            )
        name = self.any(world.locks)
        lock = world.locks[name]
        sender = self.any(ACCOUNTS)
        choice = rng.randrange(3)
        if choice == 0:
            return sender, "refund", {"lock": name}
        if self.near(lock.by_key, not lock.by_key):
            signer = lock.commitment if isinstance(lock.commitment, str) else KEYS[0]
            return (
                sender,
                "claim_by_key",
                {
                    "lock": name,
                    "recipient": self.near("cat", "nobody"),
                    "signer": self.near(signer, *KEYS),
                    "spoiled": self.chance(0.05),
                },
            )
        return sender, "claim_by_preimage", {"lock": name, "preimage": self.near(PREIMAGE, b"", b"x" * 32)}


def sane(terms: Terms) -> bool:
    try:
        terms.check()
    except Refused:
        return False
    return True
