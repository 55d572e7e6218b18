"""The chain client: reads objects, builds, simulates, signs and executes programs, follows events.

    async with ChainClient(network="localnet", signer=signer) as chain:
        program = Program()
        ...
        executed = await chain.execute(program)

A transaction takes two round trips: a full simulation, which finds the gas and what isn't known of the objects, and
the execution. One is enough when a gas budget is given and everything is known. Nothing that a node says is
signed: it only fills in versions, and the bytes are made here.

What is remembered: the gas price of the epoch, references of objects, and the coin that paid last. Programs over the
same owned object wait for each other. When an answer is lost, the identical bytes are sent again, here or to the next
endpoint, until it is known what became of them.
"""

from __future__ import annotations

import asyncio
import copy
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from dtp.chain.errors import (
    MALFORMED,
    InsufficientFunds,
    MalformedObject,
    NodeRefused,
    NodeUnavailable,
    ObjectMissing,
    OutcomeUnknown,
    PackageNotPublished,
    SignerError,
    StaleObject,
    WrongNetwork,
    WrongObjectType,
    was_signed,
)
from dtp.chain.model import (
    MIST_PER_SUI,
    SUI_COIN,
    Balance,
    DynamicField,
    EpochInfo,
    Executed,
    Id,
    ObjectData,
    Owner,
    PackageInfo,
    ServiceInfo,
    canonical_id,
    canonical_type,
    is_type,
)
from dtp.chain.node import failures
from dtp.chain.node._answers import CommandValues, ExecutionOutcome
from dtp.chain.node._wire import SIMULATED_MASK, NodeRpc
from dtp.chain.node.building import CoinTooSmall, TransactionBuilder, decode_transaction
from dtp.chain.node.commands import Program
from dtp.chain.node.endpoints import Endpoints, MakeRpc, Retry, Sleep
from dtp.chain.node.gas import (
    HIGHEST_GAS_PRICE,
    GasAllowance,
    GasPool,
    GasSlot,
    ObjectCache,
    ObjectQueues,
    PaymentCoin,
    TransactionNotes,
    check_price,
)
from dtp.chain.node.made import check_outcome, only_one
from dtp.chain.node.networks import Network, find_network
from dtp.chain.packages.deployments import Deployments, packages_path
from dtp.chain.signer import Signer
from dtp.chain.values import MoveSchema
from dtp.errors import ChainError
from dtp.plurals import count_of
from dtp.sui.names import format_digest
from dtp.sui.transaction import transaction_digest
from dtp.tasks import start_task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A transaction that is signed and about to be sent: its digest, and the BCS that the digest is of."""

    digest: str
    data: bytes


#: Told of a transaction that is signed and about to be sent.
Signed = Callable[[SignedTransaction], Awaitable[None]]

#: Told what gas a transaction took (MIST).
_Took = Callable[[int], None]

#: The protocol's largest budget, in MIST.
MAX_GAS_BUDGET = 50 * MIST_PER_SUI
#: The most that one transaction may cost where nothing is said: publishing all that a package may hold takes less.
DEFAULT_MAX_GAS = 5 * MIST_PER_SUI
#: Units of computation that the chain charges for any transaction.
LEAST_UNITS = 1000
#: How often a transaction is built anew when its objects turn out to be used by others.
_REBUILDS = 4


@dataclass(frozen=True)
class Simulated:
    """What a program would do. `returned` has, for each command, its results: (type, BCS); `price` is what a unit of
    gas was said to cost (MIST)."""

    executed: Executed
    returned: tuple[tuple[tuple[str, bytes], ...], ...]
    price: int

    @property
    def cost(self) -> int:
        """Return what its gas comes to at that price, MIST, as something to weigh against what it brings.

        The node's word counts only as far as it doesn't make it cheaper than the least that the chain charges, or
        promise more back than is paid.
        """
        gas = self.executed.gas
        return max(gas.computation, LEAST_UNITS * self.price) + max(0, gas.net - gas.computation)


class ChainClient:
    """A connection to a network, with an account that signs. For one event loop; close it, or use `async with`.

    `network` is a name or URL (see `dtp.chain.node.networks`), `signer` may be left out for reading. `deployments` is
    where package ids are remembered: a path, None for memory only, or "default". `timeout` is in seconds, for one
    call. `max_gas` (MIST) is the most that one transaction may cost, and `max_gas_price` a unit of its gas, which the
    node says (None: a safe default): more is refused before anything is signed. `rpc` is what speaks with a node, for
    tests (`dtp.testing.nodes`).
    """

    def __init__(
        self,
        network: str | Network | None = None,
        signer: Signer | None = None,
        *,
        deployments: Deployments | Path | str | None = "default",
        timeout: float = 10.0,
        retry: Retry | None = None,
        max_gas: int = DEFAULT_MAX_GAS,
        max_gas_price: int | None = None,
        sleep: Sleep = asyncio.sleep,
        rpc: MakeRpc = NodeRpc,
    ) -> None:
        self.network = network if isinstance(network, Network) else find_network(network)
        self.signer = signer
        self.max_gas = min(max_gas, MAX_GAS_BUDGET)
        self.max_gas_price = HIGHEST_GAS_PRICE if max_gas_price is None else max_gas_price
        self.endpoints = Endpoints(
            self.network, timeout=timeout, retry=retry or Retry(), sleep=sleep, rpc=rpc
        )
        self._deployments = deployments if isinstance(deployments, Deployments) else None
        self._packages_path = None if isinstance(deployments, Deployments) else deployments
        self._cache = ObjectCache()
        self._queues = ObjectQueues()
        self._gas = GasPool()
        self._epoch: EpochInfo | None = None
        self._sending: set[asyncio.Task[ExecutionOutcome]] = set()
        self._closed = False
        self._allowance: GasAllowance | None = None
        self._notes: TransactionNotes | None = None
        #: Whose connections these are: itself, but of what `paying_from` gives.
        self._root = self

    def paying_from(self, allowance: GasAllowance) -> Self:
        """Return this client for transactions that take their gas out of `allowance`: what is above it isn't signed
        (`GasTooHigh`).

        Everything else is shared, and this one is what is closed.
        """
        found = copy.copy(self)
        found._allowance = allowance
        if allowance.highest_price is not None:
            found.max_gas_price = allowance.highest_price
        return found

    def noted_by(self, notes: TransactionNotes) -> Self:
        """Return this client for transactions that `notes` is told of, each before it is sent. Else as
        `paying_from`."""
        found = copy.copy(self)
        found._notes = notes
        return found

    async def __aenter__(self) -> Self:
        try:
            await self.connect()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def connect(self) -> ServiceInfo:
        """Reach a node and check that it is of this network. Raises `NodeUnavailable`, `WrongNetwork`.

        Once is enough; after `close` it opens the client again.
        """
        self._closed = False
        self.endpoints.open()
        await self._gas_price()
        info = self.endpoints.info
        assert info is not None
        return info

    def close(self) -> None:
        """Close all connections, those of transactions that are under way when they are over. Later calls raise
        `ClientClosed`."""
        self._closed = True
        if not self._sending:
            self.endpoints.close()

    @property
    def address(self) -> str:
        """The account that signs. Raises `SignerError` without one."""
        return self._signer_or_raise().address

    @property
    def chain_id(self) -> str:
        """The chain's id, base58; empty before the first answer."""
        return self.endpoints.chain_id

    @property
    def deployments(self) -> Deployments:
        """Where the packages are on this chain. Raises `NodeUnavailable` before the first answer."""
        if self._deployments is None:
            if not self.chain_id:
                raise NodeUnavailable("which chain this is isn't known before `await client.connect()`")
            given = packages_path() if self._packages_path == "default" else self._packages_path
            self._deployments = Deployments(self.chain_id, Path(given) if given is not None else None)
        return self._deployments

    # ----------------------------------------------------------------------------------------------- reading

    async def service_info(self) -> ServiceInfo:
        """Return what the node says of itself, now."""
        return await self.endpoints.ask(lambda wire: wire.service_info())

    async def epoch(self) -> EpochInfo:
        """Return the present epoch; the node is asked each time."""
        self._epoch = await self.endpoints.ask(lambda wire: wire.epoch())
        return self._epoch

    async def objects(self, ids: Iterable[Id]) -> dict[str, ObjectData]:
        """Return the newest versions of those of the objects that are there, by id."""
        wanted = list(dict.fromkeys(map(canonical_id, ids)))
        found: dict[str, ObjectData] = {}
        for at in range(0, len(wanted), 100):
            part = wanted[at : at + 100]
            found |= await self.endpoints.ask(lambda wire, part=part: wire.objects(part))  # type: ignore[misc]
        self._cache.learn_objects(found.values())
        return found

    async def object(self, id: Id, version: int | None = None) -> ObjectData:
        """Return an object, its newest version or exactly `version`. Raises `ObjectMissing`."""
        name = canonical_id(id)
        found = await self.endpoints.ask(lambda wire: wire.objects([name], version))
        if name not in found:
            at = f" at version {version}" if version is not None else ""
            raise ObjectMissing(
                f"there is no object {name}{at} on {self.network.name}: "
                "it never was, was deleted, or is inside another one"
            )
        if version is None:
            self._cache.learn_objects(found.values())
        return found[name]

    async def object_json(self, id: Id, version: int | None = None) -> Any:
        """Return the value of an object of any type as the node renders it, None where it can't. Raises
        `NotFound`."""
        name = canonical_id(id)
        return await self.endpoints.ask(lambda wire: wire.object_json(name, version))

    async def read(self, schema: MoveSchema, cls: type[T], id: Id) -> T:
        """Return an object of one of our packages as its dataclass.

        Raises `ObjectMissing`, `WrongObjectType`, `MalformedObject`, `PackageNotPublished`.
        """
        return self.decode(schema, cls, await self.object(id))

    def decode(self, schema: MoveSchema, cls: type[T], data: ObjectData) -> T:
        """Return the dataclass that an object is. Raises `WrongObjectType`, `MalformedObject`,
        `PackageNotPublished`."""
        try:
            wanted = self.type_of(schema, cls)
        except PackageNotPublished as unknown:
            package, _, path = data.type.partition("::")
            if path.partition("<")[0] != schema.path_of(cls):
                raise
            # Not used unasked: whoever published a package may upgrade it, and so has power over what it holds.
            raise PackageNotPublished(
                f"{data.id} belongs to a package {schema.package!r} that this machine doesn't know yet; if you trust "
                f"whoever published it: dtp move use {schema.package} {package}"
            ) from unknown
        if not is_type(data.type, wanted):
            raise WrongObjectType(f"{data.id} is a {data.type}, not a {wanted}")
        value = schema.decode(cls, data.contents)
        # Programs are made of what was read: money for one channel isn't to go to another one that a node makes up.
        said = getattr(value, "id", data.id)
        if said != data.id:
            raise MalformedObject(f"the node gave what says it is {said} for {data.id}")
        return value

    def type_of(self, schema: MoveSchema, cls: type[Any], *arguments: str) -> str:
        """Return the canonical type of a struct of ours on this chain. Raises `PackageNotPublished`."""
        inner = f"<{','.join(arguments)}>" if arguments else ""
        return canonical_type(f"{self.deployments.original_id(schema.package)}::{schema.path_of(cls)}{inner}")

    async def owned_objects(self, owner: Id, type: str = "") -> AsyncGenerator[ObjectData, None]:
        """Yield objects that an address owns, of `type` if given (without type arguments: of any instance)."""
        address, kind = canonical_id(owner), canonical_type(type) if type else None
        token: bytes | None = None
        while True:
            page, token = await self.endpoints.ask(
                lambda wire, token=token: wire.owned_objects(address, kind, token)  # type: ignore[misc]
            )
            self._cache.learn_objects(page)
            for each in page:
                yield each
            if token is None:
                return

    async def owned(self, schema: MoveSchema, cls: type[T], owner: Id, *, most: int | None = None) -> list[T]:
        """Return the objects of one of our structs that an address owns, the first `most` where that is given."""
        found: list[T] = []
        async with aclosing(self.owned_objects(owner, self.type_of(schema, cls))) as objects:
            async for each in objects:
                if len(found) == most:
                    break
                found.append(self.decode(schema, cls, each))
        return found

    async def dynamic_fields(self, parent: Id) -> AsyncIterator[DynamicField]:
        """Return the dynamic fields of an object, or the entries of a table by its id."""
        name = canonical_id(parent)
        token: bytes | None = None
        while True:
            page, token = await self.endpoints.ask(
                lambda wire, token=token: wire.dynamic_fields(name, token)  # type: ignore[misc]
            )
            for each in page:
                yield each
            if token is None:
                return

    async def balance(self, owner: Id, coin: str = SUI_COIN) -> Balance:
        """Return what an address has of a coin, in its smallest unit."""
        address, kind = canonical_id(owner), canonical_type(coin)
        return await self.endpoints.ask(lambda wire: wire.balance(address, kind))

    async def balances(self, owner: Id) -> list[Balance]:
        """Return all that an address has."""
        address = canonical_id(owner)
        found: list[Balance] = []
        token: bytes | None = None
        while True:
            page, token = await self.endpoints.ask(
                lambda wire, token=token: wire.balances(address, token)  # type: ignore[misc]
            )
            found += page
            if token is None:
                return found

    async def coins(self, owner: Id, coin: str = SUI_COIN) -> list[ObjectData]:
        """Return the coin objects that an address owns."""
        kind = f"0x2::coin::Coin<{canonical_type(coin)}>"
        return [each async for each in self.owned_objects(owner, kind)]

    async def package(self, id: Id) -> PackageInfo:
        """Return a published package. Raises `NotFound`."""
        name = canonical_id(id)
        return await self.endpoints.ask(lambda wire: wire.package(name))

    async def transaction(self, digest: str) -> Executed | None:
        """Return an executed transaction, None if the node doesn't know it. Raises `TransactionFailed` if it failed,
        `NodeRefused` for what is told of another one."""
        outcome = await self.endpoints.ask(lambda wire: wire.transaction(digest))
        return None if outcome is None else self._check_succeeded(check_outcome(outcome, digest))

    async def transaction_data(self, digest: str) -> bytes | None:
        """Return the BCS of what was signed as a transaction, None if the node doesn't know it (any more)."""
        return await self.endpoints.ask(lambda wire: wire.transaction_data(digest))

    def events_in(self, executed: Executed, schema: MoveSchema, cls: type[T]) -> list[T]:
        """Return the events of one of our structs that a transaction emitted."""
        kind = self.type_of(schema, cls)
        return [schema.decode(cls, event.contents) for event in executed.events_of(kind)]

    def event_in(self, executed: Executed, schema: MoveSchema, cls: type[T]) -> T:
        """Return the event that a transaction emits once. Raises `NodeRefused` where the node tells of none, or of
        several: the transaction is executed all the same."""
        return only_one(executed, self.events_in(executed, schema, cls), f"{cls.__name__} event")

    # ----------------------------------------------------------------------------------------------- writing

    async def simulate(self, program: Program, *, sender: Id | None = None, checks: bool = True) -> Simulated:
        """Return what a program would do and give back; nothing is signed or changed.

        `checks=False` lets it call any function and needs no gas: a way to read. Raises `TransactionFailed`.
        """
        account = canonical_id(sender) if sender is not None else self.address
        # At the price that would be signed: a node could weigh it by another one.
        price = await self._gas_price()
        try:
            outcome = await self._simulated_at(program, account, price, checks=checks)
        except failures.PriceTooLow:  # the epoch changed
            self._epoch = None
            price = await self._gas_price()
            outcome = await self._simulated_at(program, account, price, checks=checks)
        return Simulated(outcome.executed, tuple(each.returned for each in _values(outcome)), price)

    async def _simulated_at(
        self, program: Program, account: str, price: int, *, checks: bool
    ) -> ExecutionOutcome:
        builder = self._builder_for(account)
        question = builder.make_unresolved(program, account, price)
        return await builder.ask_for_simulation(
            question, select_gas=checks, checks=checks, mask=SIMULATED_MASK
        )

    async def execute(
        self, program: Program, *, gas_budget: int | None = None, signed: Signed | None = None
    ) -> Executed:
        """Execute a program under this client's account and give what it did.

        `gas_budget` (MIST) saves the simulation when everything is known. Raises, when nothing happened:
        `TransactionFailed` with `simulated`, `InsufficientFunds`, `TransactionRefused`, `NodeUnavailable`,
        `ProgramError`, `SignerError`; when the gas was paid and no more: `TransactionFailed`; when nobody knows:
        `OutcomeUnknown`. A refusal with a `digest` came behind the signature, and that nothing happened is then what
        the node says: it isn't built anew unasked, or a node that lies would have the same done again and again.
        Cancelled behind the signature, it goes on, and keeps gas and objects from others until it is over. `signed`
        is told of it before anything is sent: what it raises is raised, and nothing has happened.
        """
        self._signer_or_raise()
        alone, rebuilt = False, 0
        while True:
            try:
                return await self._execute_once(program, gas_budget, signed, alone=alone)
            except CoinTooSmall as fault:
                if alone:
                    raise InsufficientFunds(str(fault)) from fault
                alone = True
            except (StaleObject, failures.PriceTooLow) as fault:
                # Someone else used the object, or the epoch changed. Look again, a few times; a transaction of
                # another program that has the object now needs a moment.
                self.forget_objects(program)
                if was_signed(fault) or rebuilt == _REBUILDS:
                    raise
                if rebuilt:
                    await self.endpoints.sleep(self.endpoints.retry.pause(rebuilt - 1))
                rebuilt += 1

    async def _execute_once(
        self, program: Program, gas_budget: int | None, signed: Signed | None, *, alone: bool
    ) -> Executed:
        signer = self._signer_or_raise()
        price = await self._agreed_price()
        ids = [each.id for each in program.objects]
        self._gas.exclude_coins(ids)
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._queues.hold_objects(self._exclusive_ids(ids)))
            slot = await held.enter_async_context(self._gas.acquire_slot(alone=alone))
            built = await self._builder_for(signer.address).build(program, slot, price, gas_budget, alone)
            async with self._counting_gas(built.data) as took:
                signature = await signer.sign_transaction(built.data)
                digest = format_digest(transaction_digest(built.data))
                if self._notes is not None:
                    await self._notes.transaction_sent(digest)
                if signed is not None:
                    await signed(SignedTransaction(digest, built.data))
                slot.coin = None  # from here on its version isn't known before the answer is
                # Whoever cancels this doesn't take it back: what it uses stays in use until it is known what it did.
                sending = start_task(
                    self._send_signed(built.data, signature, slot, held.pop_all(), took),
                    name="dtp-chain-send",
                )
        self._sending.add(sending)
        sending.add_done_callback(self._root._on_sent)
        return self._check_succeeded(await asyncio.shield(sending))

    @asynccontextmanager
    async def _counting_gas(self, data: bytes) -> AsyncIterator[_Took]:
        """Count the gas of a transaction that is about to be signed; give what is told how much it took. Not signed
        after all, it took nothing. Raises `GasTooHigh`."""
        allowance = self._allowance
        if allowance is None:
            yield lambda gas: None
            return
        budget = decode_transaction(data).gas_data.budget
        allowance.sign(budget)
        try:
            yield functools.partial(allowance.settle_gas, budget)
        except BaseException:
            allowance.settle_gas(budget, 0)
            raise

    async def _send_signed(
        self, data: bytes, signature: bytes, slot: GasSlot, held: AsyncExitStack, took: _Took
    ) -> ExecutionOutcome:
        async with held:
            try:
                outcome = await self._submit_transaction(data, (signature,))
            except OutcomeUnknown:
                raise  # all of its gas may be gone
            except ChainError:
                took(0)
                raise
            took(outcome.executed.gas.net)
            self._remember_objects(outcome, slot)
            await self._note_gas(outcome.executed)
        return outcome

    async def _note_gas(self, executed: Executed) -> None:
        if self._notes is not None:
            await self._notes.transaction_done(executed.digest, executed.gas.net)

    def _on_sent(self, sending: asyncio.Task[ExecutionOutcome]) -> None:
        self._sending.discard(sending)
        if not sending.cancelled():
            sending.exception()  # maybe nobody waits for it any more
        if self._closed and not self._sending:
            self.endpoints.close()

    async def resubmit(self, unknown: OutcomeUnknown) -> Executed:
        """Send the identical bytes of a transaction whose outcome is unknown again. Raises as `execute` does."""
        outcome = await self._submit_transaction(unknown.transaction, unknown.signatures)
        self._remember_objects(outcome, None)
        await self._note_gas(outcome.executed)
        return self._check_succeeded(outcome)

    async def wait_for(self, digest: str) -> Executed:
        """Wait until the node knows a transaction, and return it. Raises `NodeUnavailable` when it doesn't in
        time."""
        retry = self.endpoints.retry
        for attempt in range(retry.attempts):
            found = await self.transaction(digest)
            if found is not None:
                return found
            await self.endpoints.sleep(retry.pause(attempt))
        raise NodeUnavailable(f"transaction {digest} isn't known on {self.network.name} yet")

    def use_gas_coins(self, coins: Iterable[ObjectData]) -> None:
        """Let these SUI coins of the account pay for gas: as many transactions can run at once."""
        self._gas.add(PaymentCoin(each.ref, each.balance) for each in coins if each.balance)

    def forget_objects(self, program: Program) -> None:
        """Look up anew, at the next transaction, what `program` uses, the coins that pay and the price of gas: others
        may have changed them."""
        self._cache.remove_known(each.id for each in program.objects)
        self._gas.forget_coins()
        self._epoch = None

    # -------------------------------------------------------------------------------------------- executing

    async def _submit_transaction(self, data: bytes, signatures: tuple[bytes, ...]) -> ExecutionOutcome:
        """Send the bytes until it is known what became of them."""
        digest = format_digest(transaction_digest(data))
        lost: ChainError | None = None
        tried, begun = 0, asyncio.get_running_loop().time()
        while tried == 0 or await self.endpoints.pause(tried, begun):
            tried += 1
            try:
                wire = await self.endpoints.checked_wire()
                return check_outcome(await wire.execute(data, signatures), digest)
            except NodeUnavailable as fault:
                lost = fault
            except NodeRefused as fault:
                if lost is None and fault.status != MALFORMED:
                    if (found := await self._known_elsewhere(digest)) is not None:
                        return found
                    raise failures.refusal(fault, digest) from fault
                # It, or an earlier attempt, may have been executed: the answer only doesn't tell.
                lost = lost or fault
                found = await self._looked_up(digest)
                if found is not None:
                    return found
        found = await self._looked_up(digest)
        if found is not None:
            return found
        raise OutcomeUnknown(
            f"no answer about transaction {digest} in {count_of(tried, 'attempt')} ({lost}); it may have been "
            "executed: wait_for(digest) tells, resubmit(error) sends the same bytes again",
            digest=digest,
            transaction=data,
            signatures=signatures,
        ) from lost

    async def _known_elsewhere(self, digest: str) -> ExecutionOutcome | None:
        """Return what another endpoint knows of a transaction that this one says it refused."""
        if len(self.network.endpoints) < 2:
            return None
        self.endpoints.next()
        try:
            found = await (await self.endpoints.checked_wire()).transaction(digest)
            return None if found is None else check_outcome(found, digest)
        except (NodeUnavailable, NodeRefused, WrongNetwork):
            return None

    async def _looked_up(self, digest: str) -> ExecutionOutcome | None:
        try:
            found = await self.endpoints.wire.transaction(digest)
            return None if found is None else check_outcome(found, digest)
        except (NodeUnavailable, NodeRefused):
            return None

    def _remember_objects(self, outcome: ExecutionOutcome, slot: GasSlot | None) -> None:
        executed = outcome.executed
        self._cache.learn_changes(executed)
        if self._epoch is not None and executed.epoch > self._epoch.epoch:
            self._epoch = None
        paid = executed.objects.get(executed.gas_object)
        if slot is not None and paid is not None and paid.balance:
            account = self._signer_or_raise().address
            newest = self._cache.get(paid.id)
            if newest is not None and newest.owner == Owner("address", account):
                slot.coin = PaymentCoin(newest.ref, paid.balance)

    def _check_succeeded(self, outcome: ExecutionOutcome) -> Executed:
        if outcome.failure is not None:
            raise failures.failure(outcome.failure, self.deployments, outcome.executed)
        return outcome.executed

    # ---------------------------------------------------------------------------------------------- helpers

    def _builder_for(self, account: str) -> TransactionBuilder:
        coins = functools.partial(self.coins, account)
        return TransactionBuilder(account, self.endpoints, self._cache, self.deployments, self.max_gas, coins)

    async def _gas_price(self) -> int:
        if self._epoch is None:
            self._epoch = await self.endpoints.ask(lambda wire: wire.epoch())
        return self._epoch.gas_price

    async def _agreed_price(self) -> int:
        """Return what a unit of gas costs (MIST), by an endpoint whose word may be signed. Raises `GasTooHigh`."""
        for _ in self.network.endpoints[1:]:
            if (price := await self._gas_price()) <= self.max_gas_price:
                return price
            self._epoch = None
            self.endpoints.next()
        price = await self._gas_price()
        if price > self.max_gas_price:
            self._epoch = None  # so that what one node said is asked anew
        check_price(price, self.max_gas_price)
        return price

    def _signer_or_raise(self) -> Signer:
        if self.signer is None:
            raise SignerError("this client has no signer: give ChainClient one to execute transactions")
        return self.signer

    def _exclusive_ids(self, ids: Iterable[str]) -> list[str]:
        known = {each: self._cache.get(each) for each in ids}
        return [each for each, found in known.items() if found is None or found.owner.exclusive]


def _values(outcome: ExecutionOutcome) -> tuple[CommandValues, ...]:
    return outcome.outputs
