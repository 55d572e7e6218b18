"""Programs become transactions: references are looked up, gas is estimated, coins that pay for it are chosen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from dtp.chain.errors import (
    MALFORMED,
    InsufficientFunds,
    NodeRefused,
    ProgramError,
    TransactionFailed,
)
from dtp.chain.model import (
    Executed,
    ObjectData,
    ObjectRef,
    Owner,
    format_amount,
    id_bytes,
)
from dtp.chain.node import failures
from dtp.chain.node._answers import ExecutionOutcome
from dtp.chain.node._pysui import Unresolved, encode_transaction, with_budget
from dtp.chain.node._wire import ESTIMATED_MASK
from dtp.chain.node.commands import MAX_TRANSACTION_BYTES, KnownObject, Program, bind, reference
from dtp.chain.node.endpoints import Endpoints
from dtp.chain.node.gas import (
    GasSlot,
    ObjectCache,
    PaymentCoin,
)
from dtp.chain.packages.deployments import Deployments
from dtp.sui import transaction as sui
from dtp.sui.bcs import BcsError
from dtp.sui.names import format_address, format_digest
from dtp.sui.transaction import TransactionData

#: Added to what a simulation used: the price of this many units of computation, and a fifth of the computation.
_SPARE_UNITS = 1000
_SPARE_PART = 5
#: Coins that may pay for one transaction, by the protocol.
_MAX_GAS_COINS = 256


@dataclass(frozen=True)
class BuiltTransaction:
    """The BCS of a transaction, and the coins that pay for it."""

    data: bytes
    payment: tuple[ObjectRef, ...]


class CoinTooSmall(Exception):
    """The known gas coin doesn't suffice; the account may have more."""


@dataclass(frozen=True, slots=True)
class TransactionBuilder:
    """Makes the bytes that an account signs. What `cache` knows saves a question to the node; nothing is signed here.

    `max_gas` is the most that a transaction may cost (MIST), `coins` reads the SUI coins of the account.
    """

    account: str
    endpoints: Endpoints
    cache: ObjectCache
    deployments: Deployments
    max_gas: int
    coins: Callable[[], Awaitable[list[ObjectData]]]

    async def build(
        self, program: Program, slot: GasSlot, price: int, gas_budget: int | None, alone: bool
    ) -> BuiltTransaction:
        """Return the BCS of a program that pays with the slot's coin, or with those that a node chooses (`alone`:
        with all), at `price` a unit. Raises `CoinTooSmall`, `InsufficientFunds`, `TransactionFailed`, `ProgramError`.
        """
        known = self.cache.get_known(each.id for each in program.objects)
        complete = len(known) == len(program.objects)
        # What the commands split off the gas coin must be left beside the budget; then the node has to estimate it.
        if complete and slot.coin is not None and (gas_budget is not None or not program.uses_gas_coin):
            return await self._build_known(program, slot.coin, known, price, gas_budget)
        payment: tuple[ObjectRef, ...] = (slot.coin.ref,) if slot.coin is not None else ()
        if alone and program.uses_gas_coin:
            # A node chooses coins that cover the gas and doesn't look at what the commands split off them.
            payment = await self._all_coins(program)
        question = self.make_unresolved(program, self.account, price, gas_budget, payment)
        try:
            outcome = await self.ask_for_simulation(question, select_gas=True)
        except InsufficientFunds as fault:
            if alone or slot.coin is None:
                raise
            raise CoinTooSmall(str(fault)) from fault
        except TransactionFailed as fault:
            if fault.kind == "INSUFFICIENT_COIN_BALANCE" and program.uses_gas_coin:
                raise CoinTooSmall(f"{self.account} has less SUI than this spends: {fault}") from fault
            raise
        data = decode_transaction(outcome.transaction)
        known = {**known, **_resolved(program, data)}
        self.cache.add_known(known.values())
        chosen = payment or tuple(
            ObjectRef(format_address(each.id), each.version, format_digest(each.digest))
            for each in data.gas_data.payment
        )
        if not chosen:
            raise InsufficientFunds(
                f"{self.account} has no SUI to pay for gas on {self.endpoints.network.name}; "
                "send it some (dtp wallet faucet, on a test network)"
            )
        # The node's budget is a ceiling only, for its coins may hold no more: what is signed follows from the gas.
        estimate = self._gas_budget(outcome.executed, price)
        budget = gas_budget or min(estimate, data.gas_data.budget or estimate)
        return self._encode_program(program, known, chosen, price, budget)

    async def _all_coins(self, program: Program) -> tuple[ObjectRef, ...]:
        used = {each.id for each in program.objects}
        coins = [each for each in await self.coins() if each.id not in used and each.balance]
        coins.sort(key=lambda each: each.balance or 0, reverse=True)
        return tuple(each.ref for each in coins[:_MAX_GAS_COINS])

    async def _build_known(
        self,
        program: Program,
        coin: PaymentCoin,
        known: Mapping[str, KnownObject],
        price: int,
        gas_budget: int | None,
    ) -> BuiltTransaction:
        if gas_budget is not None:
            return self._encode_program(program, known, (coin.ref,), price, gas_budget)
        trial = self._encode_program(program, known, (coin.ref,), price, min(coin.balance, self.max_gas))
        try:
            outcome = await self.ask_for_simulation(trial.data, select_gas=False)
        except InsufficientFunds as fault:
            raise CoinTooSmall(str(fault)) from fault
        except TransactionFailed as fault:
            if (
                fault.kind in ("INSUFFICIENT_GAS", "INSUFFICIENT_COIN_BALANCE")
                and coin.balance < self.max_gas
            ):
                raise CoinTooSmall(str(fault)) from fault
            raise
        budget = self._check_budget(min(self._gas_budget(outcome.executed, price), coin.balance))
        return replace(trial, data=with_budget(trial.data, budget))

    def _gas_budget(self, executed: Executed, price: int) -> int:
        gas = executed.gas
        return gas.computation + gas.computation // _SPARE_PART + gas.storage + _SPARE_UNITS * price

    def _check_budget(self, budget: int) -> int:
        if budget > self.max_gas:
            raise ProgramError(
                f"the transaction needs a gas budget of {format_amount(budget)}, and at most "
                f"{format_amount(self.max_gas)} is allowed: raise `max_gas`"
            )
        return budget

    def _encode_program(
        self,
        program: Program,
        known: Mapping[str, KnownObject],
        payment: Sequence[ObjectRef],
        price: int,
        budget: int,
    ) -> BuiltTransaction:
        account = id_bytes(self.account)
        gas = sui.GasData(tuple(map(reference, payment)), account, price, self._check_budget(budget))
        kind = bind(program, self.deployments.package_id, known)
        data = encode_transaction(TransactionData(kind, account, gas))
        if len(data) > MAX_TRANSACTION_BYTES:
            raise ProgramError(
                f"the transaction has {len(data):,} bytes; the chain takes {MAX_TRANSACTION_BYTES:,}: split it"
            )
        return BuiltTransaction(data, tuple(payment))

    def make_unresolved(
        self,
        program: Program,
        sender: str,
        price: int | None = None,
        budget: int | None = None,
        payment: tuple[ObjectRef, ...] = (),
    ) -> Unresolved:
        """Return a program as a node is asked about it, which fills in what isn't given."""
        if not len(program):
            raise ProgramError("the program is empty")
        commands = program.commands(self.deployments.package_id)
        return Unresolved(program, commands, sender, sender, price, budget, payment)

    async def ask_for_simulation(
        self,
        what: bytes | Unresolved,
        *,
        select_gas: bool,
        checks: bool = True,
        mask: Sequence[str] = ESTIMATED_MASK,
    ) -> ExecutionOutcome:
        try:
            outcome = await self.endpoints.ask(
                lambda wire: wire.simulate(what, select_gas=select_gas, checks=checks, mask=mask)
            )
        except NodeRefused as fault:
            raise failures.refusal(fault) from fault
        if outcome.failure is not None:
            raise failures.failure(outcome.failure, self.deployments)
        return outcome


def decode_transaction(transaction: bytes) -> TransactionData:
    try:
        return TransactionData.decode(transaction)
    except BcsError as fault:
        raise NodeRefused(f"what the node filled in is not a transaction: {fault}", MALFORMED) from fault


def _resolved(program: Program, data: TransactionData) -> dict[str, KnownObject]:
    """Return references of the program's objects out of what a node filled in. Only those: the rest is made here."""
    if not isinstance(data.kind, sui.ProgrammableTransaction):
        raise NodeRefused("the node filled in a transaction of another kind", MALFORMED)
    found: dict[str, KnownObject] = {}
    for value in data.kind.inputs:
        match value:
            case sui.OwnedInput(ref) | sui.ReceivingInput(ref):
                id = format_address(ref.id)
                kept = ObjectRef(id, ref.version, format_digest(ref.digest))
                found[id] = KnownObject(kept, Owner("address"))
            case sui.SharedInput(raw, version, _):
                id = format_address(raw)
                kept = ObjectRef(id, 0, format_digest(bytes(32)))
                found[id] = KnownObject(kept, Owner("shared", initial_version=version))
    wanted = {each.id for each in program.objects}
    if not wanted <= found.keys():
        raise NodeRefused(f"the node left out {', '.join(sorted(wanted - found.keys()))}", MALFORMED)
    return {id: known for id, known in found.items() if id in wanted}
