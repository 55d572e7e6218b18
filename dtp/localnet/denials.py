"""Who may not use coins of a type: what the deny list says, object 0x403, which issuers of regulated coins write.

A sender that is denied, or a coin that is paused, is refused before the transaction runs. Who is to receive such a
coin is looked at behind it, by what counted when the epoch began: then it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from dtp.localnet.failures import ExecutionStopped
from dtp.localnet.model import ObjectRecord, TransactionRejected
from dtp.localnet.outcome import coin_type
from dtp.localnet.vm import VM
from dtp.localnet.vm.natives.object import dynamic_field_id
from dtp.localnet.vm.tags import plain_name
from dtp.sui.names import TypeTag
from dtp.sui.objects import GAS_COIN_TYPE, AddressOwner, Owner

__all__ = ["DENY_LIST", "DenyList", "receivers"]

DENY_LIST: Final = (0x403).to_bytes(32, "big")

_COINS: Final = 0
"""Where coins are in the list."""
_CONFIG_KEY: Final = "0x2::dynamic_object_field::Wrapper<0x2::deny_list::ConfigKey>"
_ADDRESS_KEY: Final = "0x2::deny_list::AddressKey"
_PAUSE_KEY: Final = "0x2::deny_list::GlobalPauseKey"
_PAUSE: Final = [False]
"""A struct without fields, as the machine has it."""


def receivers(written: Iterable[tuple[TypeTag, Owner]]) -> set[tuple[TypeTag, bytes]]:
    """Return the types of the coins that are written, SUI apart, with the addresses that own them."""
    found = set()
    for type, owner in written:
        coin = coin_type(type)
        if coin is not None and type != GAS_COIN_TYPE and isinstance(owner, AddressOwner):
            found.add((coin, owner.address))
    return found


class DenyList:
    """The deny list of a chain. `load` gives the live version of an object."""

    def __init__(self, vm: VM, load: Callable[[bytes], ObjectRecord | None]) -> None:
        self._vm = vm
        self._load = load

    def check_sender(self, sender: bytes, used: Iterable[ObjectRecord]) -> None:
        """Refuse a transaction whose sender may not use a coin among its objects. Raises `TransactionRejected`."""
        coins = (coin_type(record.type) for record in used if record.type != GAS_COIN_TYPE)
        for name in sorted({self._coin_name(coin) for coin in coins if coin is not None}):
            config = self._find_config(name)
            if self._denied_by_version_1(name, sender) or self._read_setting(config, _ADDRESS_KEY, [sender]):
                raise TransactionRejected(
                    "AddressDeniedForCoin", f"0x{sender.hex()} is denied the use of coins of {name}"
                )
            if self._read_setting(config, _PAUSE_KEY, _PAUSE):
                raise TransactionRejected("CoinTypeGlobalPause", f"coins of {name} are paused")

    def check_receivers(self, found: Iterable[tuple[TypeTag, bytes]], epoch: int) -> None:
        """Refuse coins to those who are denied in an epoch. Raises `ExecutionStopped`."""
        for name, address in sorted((self._coin_name(coin), address) for coin, address in found):
            config = self._find_config(name)
            if self._read_setting(config, _PAUSE_KEY, _PAUSE, epoch):
                raise ExecutionStopped("CoinTypeGlobalPause", f"coins of {name} are paused", coin_type=name)
            if self._read_setting(config, _ADDRESS_KEY, [address], epoch):
                raise ExecutionStopped(
                    "AddressDeniedForCoin",
                    f"0x{address.hex()} is denied the use of coins of {name}",
                    address=address,
                    coin_type=name,
                )

    def _coin_name(self, coin: TypeTag) -> str:
        return plain_name(self._vm.parse_type(coin.text))

    def _read_field(self, parent: bytes, key_type: str, key: Any) -> Any:
        """Return the value of a dynamic field, None where there is none."""
        record = self._load(dynamic_field_id(parent, self._vm.parse_type(key_type), key))
        if record is None:
            return None
        return self._vm.decode_value(self._vm.parse_type(str(record.type)), record.contents)[2]

    def _find_config(self, name: str) -> bytes | None:
        """Return the id of what version 2 has of a coin, None where it has nothing."""
        found = self._read_field(DENY_LIST, _CONFIG_KEY, [[_COINS, bytearray(name.encode())]])
        return None if found is None else bytes(found[0])

    def _read_setting(self, config: bytes | None, key_type: str, key: Any, epoch: int | None = None) -> bool:
        """Return what a setting is in an epoch; without one, what it was set to last."""
        setting = None if config is None else self._read_field(config, key_type, key)
        for since, newer, older in _options(setting):
            value = newer if epoch is None or since < epoch else older
            return any(value[0])
        return False

    def _denied_by_version_1(self, name: str, address: bytes) -> bool:
        record = self._load(DENY_LIST)
        if record is None:  # a chain from before there was one
            return False
        _, ((lists,), _) = self._vm.decode_value(self._vm.parse_type(str(record.type)), record.contents)
        coins = self._read_field(lists[0], "u64", _COINS)
        _, ((counts,), _), ((types,), _) = coins
        if not self._read_field(counts[0], "address", address):
            return False
        denied = self._read_field(types[0], "vector<u8>", bytearray(name.encode()))
        return denied is not None and address in denied[0]


def _options(setting: Any) -> Iterator[Any]:
    """Give the data of a setting: none, or one."""
    return iter(() if setting is None else setting[0][0])
