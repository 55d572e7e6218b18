"""What a transaction would do, and what gas it needs: runs on the engine, keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final

from dtp.localnet.admission import admit, check_budget, check_form
from dtp.localnet.chain import Chain
from dtp.localnet.engine import TransactionOutcome
from dtp.localnet.limits import MAX_GAS_BUDGET, MAX_GAS_COINS
from dtp.localnet.model import (
    CommandOutput,
    CommandValue,
    ObjectRecord,
    Simulated,
    TransactionRejected,
    UnresolvedTransaction,
)
from dtp.localnet.outcome import record_of, type_tag
from dtp.localnet.resolve import resolve
from dtp.localnet.vm import Value
from dtp.sui.objects import GAS_COIN_TYPE, AddressOwner, MoveObject, ObjectValue
from dtp.sui.transaction import Argument, OwnedInput, ProgrammableTransaction, ReceivingInput, TransactionData

__all__ = ["Simulator"]

_MOCK_COIN: Final = blake2b(b"dtp.localnet.mock-gas", digest_size=32).digest()
# Price units added to what a run cost: reading real gas coins may cross a rounding step.
_MARGIN_UNITS: Final = 1000
# As a full node's: enough for what commands split off it, too.
_MOCK_BALANCE: Final = 10**18


class Simulator:
    """Runs transactions on one chain without keeping them."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._store = chain.store

    def simulate(
        self,
        transaction: TransactionData | UnresolvedTransaction,
        *,
        checks: bool,
        select_gas: bool,
        outputs: bool,
    ) -> Simulated:
        """Return what `transaction` would do; nothing changes. With `select_gas` coins and budget are chosen."""
        state = self._chain.status.state
        if isinstance(transaction, UnresolvedTransaction):
            data = resolve(transaction, self._store, self._chain.engine.vm, state)
        else:
            data = transaction
        check_form(data)
        gas = data.gas_data
        if gas.price == 0:
            gas = replace(gas, price=state.reference_gas_price)
        if select_gas and gas.budget == 0:
            gas = replace(gas, budget=self._estimate_budget(replace(data, gas_data=gas), checks))
        if select_gas and not gas.payment:
            payment = tuple(coin.ref for coin in self._select_coins(data, gas.budget))
            gas = replace(gas, payment=payment)
        if gas.budget == 0:
            gas = replace(gas, budget=MAX_GAS_BUDGET)
            if gas.payment:
                total = sum(self._coin_balance(ref.id) for ref in gas.payment)
                gas = replace(gas, budget=min(MAX_GAS_BUDGET, total))
        data = replace(data, gas_data=gas)
        outcome = self._run_transaction(data, checks, traced=outputs)
        shown = replace(outcome, admitted=replace(outcome.admitted, data=data))
        executed = self._chain.make_record(shown, (), None, self._chain.status.clock_ms)
        commands = tuple(
            CommandOutput(
                tuple(self._command_value(v) for v in trace.returned),
                tuple(self._command_value(v, argument) for argument, v in trace.mutated),
            )
            for trace in outcome.traces
        )
        # Values are rendered by now; types of packages published here must not outlive the run.
        self._chain.engine.discard_packages()
        return Simulated(executed, commands)

    def _command_value(self, value: Value, argument: Argument | None = None) -> CommandValue:
        vm = self._chain.engine.vm
        tag = type_tag(value.type)
        bcs = vm.encode_value(value.type, value.data)
        return CommandValue(tag, bcs, self._chain.render_json(tag, bcs), argument)

    def _coin_balance(self, id: bytes) -> int:
        record = self._store.find_live(id)
        if record is None or record.type != GAS_COIN_TYPE:
            return 0
        return int.from_bytes(record.contents[32:40], "little")

    def _run_transaction(
        self, data: TransactionData, checks: bool, *, traced: bool = False
    ) -> TransactionOutcome:
        state = self._chain.status.state
        real = bool(data.gas_data.payment)
        admitted = admit(data, data.digest(), self._store, state, gas=real, owners=checks)
        if checks:
            self._chain.engine.deny_list.check_sender(data.sender, admitted.used_objects())
        if not real:
            check_budget(data.gas_data.budget, data.gas_data.price)
            admitted.gas = [_mock_coin(data.gas_data.owner)]
        try:
            return self._chain.engine.execute_transaction(admitted, state, checked=checks, traced=traced)
        except BaseException:
            self._chain.engine.discard_packages()
            raise

    # ------------------------------------------------------------------------------------------- selection

    def _estimate_budget(self, data: TransactionData, checks: bool) -> int:
        """Return a budget that covers the transaction: what a run costs, without counting on rebates, and a
        margin."""
        gas = replace(data.gas_data, payment=(), budget=MAX_GAS_BUDGET)
        outcome = self._run_transaction(replace(data, gas_data=gas), checks)
        self._chain.engine.discard_packages()
        cost = outcome.effects.gas_used
        return min(cost.computation + cost.storage + _MARGIN_UNITS * gas.price, MAX_GAS_BUDGET)

    def _select_coins(self, data: TransactionData, budget: int) -> Sequence[ObjectRecord]:
        """Return the largest coins of the gas owner that together hold the budget and are not inputs."""
        kind = data.kind
        assert isinstance(kind, ProgrammableTransaction), "form was checked"
        used = {a.ref.id for a in kind.inputs if isinstance(a, OwnedInput | ReceivingInput)}
        rows = self._store.select_rows(
            "SELECT id FROM live WHERE owner = ? AND kind = 'AddressOwner' AND type = ? ORDER BY inverse, id LIMIT ?",
            (data.gas_data.owner, GAS_COIN_TYPE.text, MAX_GAS_COINS + len(used)),
        )
        chosen: list[ObjectRecord] = []
        total = 0
        for (id,) in rows:
            if total >= budget or len(chosen) == MAX_GAS_COINS:
                break
            record = self._store.find_live(id)
            if record is None or id in used:
                continue
            chosen.append(record)
            total += self._coin_balance(id)
        if total < budget or not chosen:
            owner = data.gas_data.owner.hex()
            raise TransactionRejected(
                "GasBalanceTooLow",
                f"0x{owner} has {total} MIST in coins that are not used otherwise, and the transaction needs "
                f"{budget} MIST",
            )
        return chosen


def _mock_coin(owner: bytes) -> ObjectRecord:
    contents = _MOCK_COIN + _MOCK_BALANCE.to_bytes(8, "little")
    data = MoveObject(GAS_COIN_TYPE, True, 1, contents)
    return record_of(ObjectValue(data, AddressOwner(owner), bytes(32), 0))
