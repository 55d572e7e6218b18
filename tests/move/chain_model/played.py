"""Plays the transactions of `chain_model` on the embedded node, with the SDK's own builders and readers."""

from __future__ import annotations

from dataclasses import fields
from hashlib import blake2b
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dtp.chain import channel, host, lock, packages, pass_, pipe
from dtp.chain.node.commands import ObjectInput, Program
from dtp.localnet.model import Executed
from dtp.localnet.node import LocalNode
from dtp.sui.effects import ExecutionError, IdOperation, OutPackage
from dtp.sui.objects import GAS_COIN_TYPE, SharedOwner
from dtp.sui.signature import KeyScheme, PublicKey, SimpleSignature, address_of_key
from dtp.sui.transaction import (
    GasData,
    Input,
    Mutability,
    NoExpiration,
    OwnedInput,
    ProgrammableTransaction,
    Publish,
    Pure,
    Result,
    SharedInput,
    TransactionData,
    TransferObjects,
    signing_hash,
)

from .things import Event, Rate, Terms, Voucher

BUDGET = 500_000_000
SCHEMAS = {
    "channel": channel.SCHEMA,
    "host": host.SCHEMA,
    "pass": pass_.SCHEMA,
    "pipe": pipe.SCHEMA,
    "lock": lock.SCHEMA,
}
MODULES = {"channel": channel, "host": host, "pass": pass_, "pipe": pipe, "lock": lock}
COINS = {"SUI": "0x" + "0" * 63 + "2::sui::SUI", "OTHER": "0x" + "0" * 63 + "2::clock::Clock"}
KINDS = {
    "Host": "host",
    "Channel": "channel",
    "OpCap": "operator",
    "Pipe": "pipe",
    "Plan": "plan",
    "Pass": "pass",
    "Lock": "lock",
}


class Key:
    """An Ed25519 key and the account of it."""

    def __init__(self, name: str) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(blake2b(name.encode(), digest_size=32).digest())
        self.public = self.private.public_key().public_bytes_raw()
        self.scheme = PublicKey(KeyScheme.ED25519, self.public)
        self.address = address_of_key(self.scheme)


class Played:
    """A node with the shipped packages and funded accounts; `do` is one transaction."""

    def __init__(
        self, node: LocalNode, accounts: tuple[str, ...], shipped: tuple[str, ...] = ("transport", "escrow")
    ) -> None:
        self.node = node
        self.accounts = accounts
        self.keys: dict[str, Key] = {}
        self.addresses = {name: self.key(name).address for name in accounts} | {"nobody": bytes(32)}
        self.ids: dict[str, str] = {}
        self.names: dict[str, str] = {"0x" + a.hex(): n for n, a in self.addresses.items()}
        self.caps: dict[str, str] = {}  # host's id -> its cap's
        self.packages: dict[str, str] = {}
        self.gas: dict[str, Any] = {}
        for name in accounts:
            node.fund_address(self.addresses[name], 10**15)
            (coin,) = node.objects_owned_by(self.addresses[name], GAS_COIN_TYPE).items
            self.gas[name] = coin.ref
        for name in shipped:
            package = packages.load(name)
            publish = Publish(tuple(package.modules.values()), package.dependencies)
            kind = ProgrammableTransaction(
                (Pure(self.addresses[accounts[0]]),), (publish, TransferObjects((Result(0),), Input(0)))
            )
            executed = self.execute(accounts[0], kind)
            (found,) = [id for id, c in executed.effects.changed if isinstance(c.after, OutPackage)]
            self.packages[name] = "0x" + found.hex()

    def key(self, name: str) -> Key:
        if name not in self.keys:
            self.keys[name] = Key(name)
        return self.keys[name]

    def public(self, key: str | bytes) -> bytes:
        return key if isinstance(key, bytes) else self.key(key).public

    @property
    def now(self) -> int:
        (clock,) = [self.node.find_object((6).to_bytes(32, "big"))]
        return int.from_bytes(clock.contents[32:40], "little")

    @property
    def epoch(self) -> int:
        return self.node.find_epoch().epoch

    def execute(self, sender: str, kind: ProgrammableTransaction) -> Executed:
        price = self.node.find_epoch().reference_gas_price
        data = TransactionData(
            kind,
            self.addresses[sender],
            GasData((self.gas[sender],), self.addresses[sender], price, BUDGET),
            NoExpiration(),
        )
        raw = data.encode()
        key = self.key(sender)
        executed = self.node.execute(
            raw, [SimpleSignature(key.scheme, key.private.sign(signing_hash(raw))).serialize()]
        )
        for record in executed.outputs:
            if record.id == self.gas[sender].id:
                self.gas[sender] = record.ref
                break
        else:
            raise AssertionError("no gas coin among the outputs")
        return executed

    def bound(self, program: Program) -> ProgrammableTransaction:
        inputs: list[Pure | OwnedInput | SharedInput] = []
        for each in program.inputs:
            if not isinstance(each, ObjectInput):
                inputs.append(Pure(each.data))
                continue
            record = self.node.find_object(bytes.fromhex(each.id[2:]))
            assert record is not None, each.id
            if isinstance(record.owner, SharedOwner):
                how = Mutability.MUTABLE if each.mutable else Mutability.IMMUTABLE
                inputs.append(SharedInput(record.id, record.owner.initial_shared_version, how))
            else:
                inputs.append(OwnedInput(record.ref))
        return ProgrammableTransaction(tuple(inputs), program.commands(self.packages.__getitem__))

    def do(
        self, sender: str, op: str, label: int, arguments: dict[str, Any]
    ) -> tuple[Any, list[Event], dict[str, int], Executed]:
        """Run it: None or (module, error), the events, what each account got, gas beside it."""
        program = Program()
        for name, each in arguments["steps"] if op == "batch" else [(op, arguments)]:
            getattr(self, "_" + name)(program, sender, **each)
        executed = self.execute(sender, self.bound(program))
        error = None
        if not executed.effects.ok:
            error = self.error(executed.effects.error)  # type: ignore[arg-type]
        fresh = {id for id, c in executed.effects.changed if c.id_operation is IdOperation.CREATED}
        for record in executed.outputs:
            kind = KINDS.get(getattr(record.type, "name", ""))
            if record.id in fresh and kind and record.type.module in SCHEMAS:
                name = f"{kind}{label}"
                self.ids[name] = "0x" + record.id.hex()
                self.names[self.ids[name]] = name
                if kind == "host":
                    beacon = host.SCHEMA.decode(host.Host, record.contents).beacon
                    self.ids["beacon-" + name], self.names[beacon] = beacon, "beacon-" + name
            if record.id in fresh and getattr(record.type, "name", "") == "HostCap":
                of = host.SCHEMA.decode(host.HostCap, record.contents).host
                self.caps[of] = "0x" + record.id.hex()
        moved = dict.fromkeys(self.accounts, 0)
        for change in executed.transaction.balance_changes:
            if str(change.coin_type) == COINS["SUI"]:
                name = self.names["0x" + change.address.hex()]
                moved[name] += change.amount
        moved[sender] += executed.effects.gas_used.net
        return error, [self.event(each) for each in executed.events], moved, executed

    def error(self, error: ExecutionError) -> tuple[str, str | None]:
        """Module and name of a refusal, by the bytecode; of another failure its kind and what it says."""
        if error.kind != "MoveAbort":
            return error.kind, error.description
        module = error.content["location"].module
        if module not in SCHEMAS:  # the framework's
            return module, str(error.content["code"])
        package = packages.load("escrow" if module == "lock" else "transport")
        return module, package.describe_abort(module, error.content["code"]).name

    def event(self, record: Any) -> Event:
        tag = record.type
        module = MODULES[tag.module]
        kind = {("lock", "Claimed"): "LockClaimed", ("pipe", "Frame"): "PipeFrame"}.get(
            (tag.module, tag.name), tag.name
        )
        value = SCHEMAS[tag.module].decode(getattr(module, kind), record.contents)
        name = {("lock", "Claimed"): "LockClaimed", ("lock", "Refunded"): "LockRefunded"}.get(
            (tag.module, tag.name), tag.name
        )
        found = {f.name: self.plain(getattr(value, f.name)) for f in fields(value)}
        if "chunks" in found:
            found["size"] = sum(map(len, found.pop("chunks")))
        if "coin" in found:
            text = found["coin"] if found["coin"].startswith("0x") else "0x" + found["coin"]
            found["coin"] = {v: k for k, v in COINS.items()}.get(text, text)
        return name, found

    def plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.names.get(value, value)
        if isinstance(value, tuple):
            return tuple(self.plain(each) for each in value)
        return value

    def leaf(self, value: Any, like: Any) -> Any:
        """A value of the model as the chain has it, where it has `like`."""
        if isinstance(like, bytes):
            return self.public(value or b"")
        if isinstance(value, str):
            return COINS.get(value) or self.ids.get(value) or self.who(value)
        return value

    def state(self, name: str) -> Any:
        """The object, decoded; None if it is gone."""
        record = self.node.find_object(bytes.fromhex(self.ids[name][2:]))
        if record is None:
            return None
        module = record.type.module
        return SCHEMAS[module].decode(getattr(MODULES[module], record.type.name), record.contents)

    # ---- one for each function of the model

    def id(self, name: str) -> str:
        return self.ids.get(name) or "0x" + blake2b(name.encode(), digest_size=32).hexdigest()

    def cap(self, name: str) -> str:
        return self.caps[self.ids[name]]

    def beacon(self, name: str) -> str:
        return self.ids["beacon-" + name]

    def terms(self, terms: Terms) -> host.Terms:
        return host.Terms(
            **{f.name: getattr(terms, f.name) for f in fields(terms)} | {"coin": COINS[terms.coin]}
        )

    def rate(self, rate: Rate) -> host.RateLimit:
        return host.RateLimit(
            host.Rate(rate.request_interval, rate.request_burst),
            host.Rate(rate.byte_interval, rate.byte_burst),
        )

    def who(self, name: str) -> str:
        return "0x" + self.addresses[name].hex()

    def type(self, name: str) -> str:
        """The coin of an object."""
        record = self.node.find_object(bytes.fromhex(self.ids[name][2:]))
        return str(record.type.arguments[0])

    def payment(self, program: Program, amount: int, coin: str):
        if coin == COINS["SUI"]:
            (made,) = program.split(program.gas, [amount])
        else:
            (made,) = program.call("0x2", "coin", "zero", (), (coin,))
        return made

    def _host_new(self, p, sender, ttl_ms):
        host.create(p, self.who(sender), ttl_ms=ttl_ms)

    def _add_service(
        self, p, sender, host, cap, service, terms, mode, rate, window, post_fee, terms_hash, kind
    ):
        MODULES["host"].add_service(
            p,
            self.id(host),
            self.cap(cap),
            service,
            self.terms(terms),
            kind=kind,
            mode=mode,
            rate=self.rate(rate),
            window=window,
            post_fee=post_fee,
            terms_hash=terms_hash,
        )

    def _set_terms(self, p, sender, host, cap, service, terms, terms_hash):
        MODULES["host"].set_terms(p, self.id(host), self.cap(cap), service, self.terms(terms), terms_hash)

    def _set_open(self, p, sender, host, cap, service, open):
        MODULES["host"].set_open(p, self.id(host), self.cap(cap), service, open)

    def _set_mode(self, p, sender, host, cap, service, mode):
        MODULES["host"].set_mode(p, self.id(host), self.cap(cap), service, mode)

    def _set_limits(self, p, sender, host, cap, service, rate, window, post_fee):
        MODULES["host"].set_limits(
            p, self.id(host), self.cap(cap), service, self.rate(rate), window, post_fee
        )

    def _remove_service(self, p, sender, host, cap, service):
        MODULES["host"].remove_service(p, self.id(host), self.cap(cap), service)

    def _set_owner(self, p, sender, host, cap, owner):
        MODULES["host"].set_owner(p, self.id(host), self.cap(cap), self.who(owner))

    def _host_migrate(self, p, sender, host, beacon, cap):
        MODULES["host"].migrate(p, self.id(host), self.beacon(beacon), self.cap(cap))

    def _host_destroy(self, p, sender, host, beacon, cap):
        MODULES["host"].destroy(p, self.id(host), self.beacon(beacon), self.cap(cap))

    def _new_operator(self, p, sender, host, cap, rights, to):
        made = MODULES["host"].new_operator(p, self.id(host), self.cap(cap), rights)
        p.transfer([made], self.who(to))

    def _revoke_operators(self, p, sender, host, beacon, cap):
        MODULES["host"].revoke_operators(p, self.id(host), self.beacon(beacon), self.cap(cap))

    def _destroy_cap(self, p, sender, host):
        MODULES["host"].destroy_cap(p, self.cap(host))

    def _destroy_operator(self, p, sender, operator):
        host.destroy_operator(p, self.id(operator))

    def _edit_list(self, p, sender, host, operator, which, add, addresses):
        name = (("disallow", "allow"), ("undeny", "deny"))[which][add]
        getattr(MODULES["host"], name)(p, self.id(host), self.id(operator), [self.who(a) for a in addresses])

    def _set_ttl(self, p, sender, host, cap, ttl_ms):
        MODULES["host"].set_ttl(p, self.beacon(host), self.cap(cap), ttl_ms)

    def _enroll(self, p, sender, host, operator, key, weight, role, generation, hint):
        MODULES["host"].enroll(
            p,
            self.beacon(host),
            self.id(operator),
            key,
            weight=weight,
            role=role,
            generation=generation,
            hint=hint,
        )

    def _configure(self, p, sender, host, operator, key, weight, role, hint):
        MODULES["host"].configure(
            p, self.beacon(host), self.id(operator), key, weight=weight, role=role, hint=hint
        )

    def _withdraw(self, p, sender, host, operator, key):
        MODULES["host"].withdraw(p, self.beacon(host), self.id(operator), key)

    def _heartbeat(self, p, sender, host, operator, key, generation, load):
        MODULES["host"].heartbeat(p, self.beacon(host), self.id(operator), key, generation, load)

    def _suspect(self, p, sender, host, operator, key, generation, seen_ms):
        doubted = MODULES["host"].Endpoint(key, 0, 0, generation, seen_ms, 0, b"")
        MODULES["host"].suspect(p, self.beacon(host), self.id(operator), doubted)

    def _open(self, p, sender, host, beacon, service, revision, deposit, key, coin="SUI"):
        coin = COINS[coin]
        made = channel.open(
            p,
            self.id(host),
            self.beacon(beacon),
            service,
            revision,
            self.payment(p, deposit, coin),
            self.public(key),
            coin=coin,
        )
        channel.share(p, made, coin=coin)

    def _open_with_pass(self, p, sender, host, beacon, plan, pass_, revision, key):
        coin = self.type(plan)
        made = channel.open_with_pass(
            p,
            self.id(host),
            self.beacon(beacon),
            self.id(plan),
            self.id(pass_),
            revision,
            self.public(key),
            coin=coin,
        )
        channel.share(p, made, coin=coin)

    def _top_up(self, p, sender, channel, amount):
        coin = self.type(channel)
        MODULES["channel"].top_up(p, self.id(channel), self.payment(p, amount, coin), coin=coin)

    def _add_lane(self, p, sender, channel, key):
        MODULES["channel"].add_lane(p, self.id(channel), self.public(key), coin=self.type(channel))

    def _rotate_lane(self, p, sender, channel, lane, key):
        MODULES["channel"].rotate_lane(p, self.id(channel), lane, self.public(key), coin=self.type(channel))

    def signed(self, v: Voucher, called: str):
        """The voucher for the channel that is called: a foreign one can't name another object than it claims from."""
        made = channel.Voucher(
            self.id(v.channel), v.lane, v.sequence, v.amount, v.requests, v.bytes, v.lock, v.not_after_ms
        )
        signature = self.key(v.signer).private.sign(channel.voucher_bytes(made))
        if v.spoiled:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        return made, signature, v.preimage or b""

    def claiming(self, p, name, called, voucher, coin):
        made, signature, preimage = self.signed(voucher, called)
        arguments = (
            p.object(self.id(called)),
            channel.new_voucher(p, made),
            p.pure("vector<u8>", signature),
            p.pure("vector<u8>", preimage),
            p.clock(),
        )
        return p.call("transport", "channel", name, arguments, (coin,), 1 if name == "claim" else 0)

    def _claim(self, p, sender, channel, voucher):
        coin = self.type(channel)
        if voucher.channel == channel:
            made = MODULES["channel"].claim(p, *self.signed(voucher, channel), coin=coin)
        else:
            (made,) = self.claiming(p, "claim", channel, voucher, coin)
        p.transfer([made], self.who(sender))

    def _claim_for(self, p, sender, channel, voucher):
        coin = self.type(channel)
        if voucher.channel == channel:
            MODULES["channel"].claim_for(p, *self.signed(voucher, channel), coin=coin)
        else:
            self.claiming(p, "claim_for", channel, voucher, coin)

    def _pay_owed(self, p, sender, channel):
        MODULES["channel"].pay_owed(p, self.id(channel), coin=self.type(channel))

    def _request_close(self, p, sender, channel):
        MODULES["channel"].request_close(p, self.id(channel), coin=self.type(channel))

    def _finalize(self, p, sender, channel):
        MODULES["channel"].finalize(p, self.id(channel), coin=self.type(channel))

    def _release(self, p, sender, channel):
        MODULES["channel"].release(p, self.id(channel), coin=self.type(channel))

    def _close_agreed(self, p, sender, channel, total, not_after_ms, key, signer, spoiled=False):
        agreement = MODULES["channel"].CloseAgreement(self.id(channel), total, not_after_ms)
        signature = self.key(signer).private.sign(MODULES["channel"].agreement_bytes(agreement))
        if spoiled:
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        MODULES["channel"].close_agreed(p, agreement, self.public(key), signature, coin=self.type(channel))

    def _destroy(self, p, sender, channel):
        MODULES["channel"].destroy(p, self.id(channel), coin=self.type(channel))

    def _channel_migrate(self, p, sender, channel):
        MODULES["channel"].migrate(p, self.id(channel), coin=self.type(channel))

    def _pipe_open(self, p, sender, channel):
        pipe.keep(p, pipe.open(p, self.id(channel), coin=self.type(channel)))

    def _pipe_send(self, p, sender, pipe, channel, host, flags, size):
        MODULES["pipe"].send(
            p,
            self.id(pipe),
            self.id(channel),
            self.id(host),
            b"d" * size,
            flags=flags,
            coin=self.type(channel),
        )

    def _pipe_ack(self, p, sender, channel, index, sequence):
        pipe.ack(p, self.id(channel), index, sequence, coin=self.type(channel))

    def _collect_credit(self, p, sender, pipe, channel):
        made = MODULES["pipe"].collect_credit(p, self.id(pipe), self.id(channel), coin=self.type(channel))
        p.transfer([made], self.who(sender))

    def _charge_credit(self, p, sender, pipe, channel):
        MODULES["pipe"].charge_credit(p, self.id(pipe), self.id(channel), coin=self.type(channel))

    def _pipe_close(self, p, sender, pipe, channel):
        MODULES["pipe"].close(p, self.id(pipe), self.id(channel), coin=self.type(channel))

    def _pipe_destroy(self, p, sender, pipe):
        MODULES["pipe"].destroy(p, self.id(pipe))

    def _post(self, p, sender, host, service, reply_key, size, fee):
        pipe.post(p, self.id(host), service, reply_key, b"m" * size, self.payment(p, fee, COINS["SUI"]))

    def _new_plan(self, p, sender, host, cap, service, price, period_ms, quota, coin="SUI"):
        coin = COINS[coin]
        made = pass_.new_plan(
            p,
            self.id(host),
            self.cap(cap),
            service,
            price=price,
            period_ms=period_ms,
            quota_requests=quota[0],
            quota_bytes=quota[1],
            coin=coin,
        )
        pass_.share(p, made, coin=coin)

    def _set_on_sale(self, p, sender, plan, cap, on_sale):
        pass_.set_on_sale(p, self.id(plan), self.cap(cap), on_sale, coin=self.type(plan))

    def _plan_migrate(self, p, sender, plan, cap):
        pass_.migrate(p, self.id(plan), self.cap(cap), coin=self.type(plan))

    def _draw(self, p, sender, plan, cap, passes):
        p.transfer(
            [pass_.draw(p, self.id(plan), self.cap(cap), [self.id(x) for x in passes], coin=self.type(plan))],
            self.who(sender),
        )

    def _forget(self, p, sender, plan, cap, passes):
        pass_.forget(p, self.id(plan), self.cap(cap), [self.id(x) for x in passes], coin=self.type(plan))

    def _retire(self, p, sender, plan, cap):
        p.transfer([pass_.retire(p, self.id(plan), self.cap(cap), coin=self.type(plan))], self.who(sender))

    def _revoke(self, p, sender, plan, host, operator, pass_):
        MODULES["pass"].revoke(
            p, self.id(plan), self.id(host), self.id(operator), self.id(pass_), coin=self.type(plan)
        )

    def _revoke_as_owner(self, p, sender, plan, cap, pass_):
        MODULES["pass"].revoke_as_owner(p, self.id(plan), self.cap(cap), self.id(pass_), coin=self.type(plan))

    def _buy(self, p, sender, plan, host, payment, periods):
        coin = self.type(plan)
        pass_.keep(
            p, pass_.buy(p, self.id(plan), self.id(host), self.payment(p, payment, coin), periods, coin=coin)
        )

    def _renew(self, p, sender, plan, host, pass_, payment, periods):
        coin = self.type(plan)
        MODULES["pass"].renew(
            p,
            self.id(plan),
            self.id(host),
            self.id(pass_),
            self.payment(p, payment, coin),
            periods,
            coin=coin,
        )

    def _cancel(self, p, sender, plan, pass_):
        p.transfer(
            [MODULES["pass"].cancel(p, self.id(plan), self.id(pass_), coin=self.type(plan))], self.who(sender)
        )

    def _cancel_refused(self, p, sender, plan, host, pass_):
        p.transfer(
            [
                MODULES["pass"].cancel_refused(
                    p, self.id(plan), self.id(host), self.id(pass_), coin=self.type(plan)
                )
            ],
            self.who(sender),
        )

    def _pass_destroy(self, p, sender, plan, pass_):
        MODULES["pass"].destroy(p, self.id(plan), self.id(pass_), coin=self.type(plan))

    def _discard(self, p, sender, pass_):
        MODULES["pass"].discard(p, self.id(pass_))

    def _new_lock(self, p, sender, amount, by_key, commitment, payee, relay_fee, deadline_ms):
        money = self.payment(p, amount, COINS["SUI"])
        if by_key:
            made = lock.new_key_lock(
                p, money, self.public(commitment), relay_fee=relay_fee, deadline_ms=deadline_ms
            )
        else:
            made = lock.new_hash_lock(
                p, money, commitment, self.who(payee), relay_fee=relay_fee, deadline_ms=deadline_ms
            )
        lock.share(p, made)

    def _claim_by_preimage(self, p, sender, lock, preimage):
        MODULES["lock"].claim_by_preimage(p, self.id(lock), preimage)

    def _claim_by_key(self, p, sender, lock, recipient, signer, spoiled=False):
        message = MODULES["lock"].release_bytes(MODULES["lock"].Release(self.id(lock), self.who(recipient)))
        signature = self.key(signer).private.sign(message)
        if spoiled:
            signature = signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]
        MODULES["lock"].claim_by_key(p, self.id(lock), self.who(recipient), signature)

    def _refund(self, p, sender, lock):
        MODULES["lock"].refund(p, self.id(lock))
