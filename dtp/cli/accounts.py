"""Options that the chain's commands share: the network and the wallet; and how results are shown."""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dtp import config
from dtp.cli.options import IdentitySource, passphrase_file_option
from dtp.cli.output import json_option, print_note
from dtp.cli.run import run
from dtp.errors import ConfigError

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Signer

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])
#: A wallet whose key another program holds: `exec:ADDRESS COMMAND...`.
_EXEC = "exec:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def wallets_dir() -> Path:
    """Return the folder of the wallets that `dtp wallet new` makes."""
    return config.config_dir() / "wallets"


def wallet_path(name: str) -> Path:
    """Return the file of a wallet by name. Raises `ConfigError`."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is not a name for a wallet: letters, digits, '.', '_' and '-'")
    return wallets_dir() / f"{name}.pem"


def is_secret_key(text: str) -> bool:
    """True for a key as Sui's wallets export it: never shown, and taken from the environment or a file only."""
    return text.strip().lower().startswith("suiprivkey")


_Named = TypeVar("_Named", str, Path)


def refuse_key(context: click.Context, param: click.Parameter, value: _Named | None) -> _Named | None:
    """Raise `ConfigError` for a key on the command line, which every user of the machine can read there."""
    source = context.get_parameter_source(param.name or "")
    if value is None or source is click.core.ParameterSource.ENVIRONMENT or not is_secret_key(str(value)):
        return value
    or_else = f", or give it in ${param.envvar}" if param.envvar else ""
    raise ConfigError(
        f"{param.opts[0]} has a private key, which others see in the list of processes and your shell keeps: name a "
        f"file with it (chmod 600){or_else}; and make another key, since this one was seen"
    )


@dataclass(frozen=True)
class WalletOptions:
    """Network and wallet of a command; nothing is opened before it is needed."""

    network: str | None
    wallet: str | None = dataclasses.field(repr=False)
    passphrase_file: str | None
    #: The highest price of a unit of gas to sign for, MIST; None for the usual one.
    max_gas_price: int | None = None
    #: Whose account is the wallet where none was named; None for the default identity.
    identity: IdentitySource | None = None

    @classmethod
    def of_command(
        cls, network: str | None, wallet: str | None, max_gas_price: int | None = None
    ) -> WalletOptions:
        """Return the options of the running command. If no wallet is named, use its `--identity`, with its
        `--passphrase-file`."""
        said = click.get_current_context().params
        named, passphrase_file = said.get("identity"), said.get("passphrase_file")
        identity = IdentitySource(named, passphrase_file) if named is not None else None
        return cls(network, wallet, None, max_gas_price, identity)

    def wallet_path(self) -> Path | None:
        """Return the wallet's file, None when it is in the Sui keystore or another program signs."""
        text = self.wallet
        if text is None:
            return self.identity.path if self.identity is not None else config.identity_path()
        if text == "sui" or text.startswith(("sui:", _EXEC)) or is_secret_key(text):
            return None
        if "/" in text or text.endswith(".pem"):
            return Path(text)
        return wallet_path(text)

    def load_signer(self) -> Signer:
        """Return the signer. Raises `ConfigError`, `KeystoreError`, `IdentityFileError`."""
        from dtp.chain.keystores import load_key, sui_signer

        text = self.wallet or ""
        if is_secret_key(text):
            from dtp.chain import KeySigner

            return KeySigner.from_text(text)
        if text.startswith(_EXEC):
            return _command_signer(text.removeprefix(_EXEC))
        path = self.wallet_path()
        if path is None:
            _, _, address = text.partition(":")
            return sui_signer(address or None)
        self._check_wallet(path)
        source = self.identity if self.wallet is None else None
        return load_key(path, (source or IdentitySource(path, self.passphrase_file)).ask_passphrase)

    def read_address(self) -> str:
        """Return the wallet's account, without asking for a passphrase if the file names it."""
        from dtp.chain.keystores import address_in

        path = self.wallet_path()
        if path is not None:
            self._check_wallet(path)
        said = address_in(path) if path is not None else ""
        return said or self.load_signer().address

    def check_named(self) -> None:
        """Raise `ConfigError` if the command line names a wallet that doesn't exist, for commands that need it later
        or never."""
        source = click.get_current_context().get_parameter_source("wallet")
        if source is click.core.ParameterSource.COMMANDLINE and (path := self.wallet_path()) is not None:
            self._check_wallet(path)

    def _check_wallet(self, path: Path) -> None:
        """Raise an error that names the existing wallets if this one doesn't exist."""
        if path.exists():
            return
        names = ", ".join(sorted(each.stem for each in wallets_dir().glob("*.pem")))
        there = f"there is {names}" if names else "'dtp wallet new NAME' makes one"
        if self.wallet is not None:
            raise ConfigError(f"there is no wallet {self.wallet!r} ({path}): {there}")
        raise ConfigError(
            f"no wallet was named and you have no identity ({path}): 'dtp keygen' makes one, "
            f"or name a wallet with --wallet or $DTP_WALLET: {there}"
        )

    def make_client(self, *, signing: bool) -> ChainClient:
        """Return a client for the network, with the wallet if it has to sign."""
        from dtp.chain import ChainClient

        return ChainClient(
            self.network, self.load_signer() if signing else None, max_gas_price=self.max_gas_price
        )

    def run_connected(self, work: Callable[[ChainClient], Awaitable[_T]], *, signing: bool = True) -> _T:
        """Run `work` with a connected client, and return its result."""

        async def with_client() -> _T:
            async with self.make_client(signing=signing) as chain:
                return await work(chain)

        return run(with_client())


def _command_signer(text: str) -> Signer:
    """Return the signer of `ADDRESS COMMAND...`, quoted as in a shell. Raises `ConfigError`."""
    from dtp.chain import CommandSigner
    from dtp.chain.model import canonical_id

    try:
        words = shlex.split(text)
    except ValueError as fault:
        raise ConfigError(f"--wallet {_EXEC}{text}: {fault}") from fault
    if len(words) < 2:
        raise ConfigError(f"write --wallet '{_EXEC}ADDRESS COMMAND...', not {_EXEC}{text}")
    return CommandSigner(canonical_id(words[0]), tuple(words[1:]))


#: What every command that signs takes.
gas_price_option = click.option(
    "--max-gas-price",
    type=click.IntRange(min=1),
    envvar="DTP_MAX_GAS_PRICE",
    metavar="MIST",
    help="Pay at most so much for a unit of gas, whatever a node says. [default: $DTP_MAX_GAS_PRICE, else 10000]",
)


def account_options(command: _Function) -> _Function:
    """Add `--network`, `--wallet`, `--passphrase-file`, `--max-gas-price` and `--json`.

    The command gets `account: Account`.
    """

    @functools.wraps(command)
    def with_account(
        *args: Any,
        network: str | None,
        wallet: str | None,
        passphrase_file: str | None,
        max_gas_price: int | None,
        **options: Any,
    ) -> Any:
        account = WalletOptions(network, wallet, passphrase_file, max_gas_price)
        return command(*args, account=account, **options)

    network_option = click.option(
        "--network",
        envvar="DTP_NETWORK",
        metavar="NETWORK",
        help="localnet, testnet, mainnet or the URL of a node. [default: $DTP_NETWORK, else localnet]",
    )
    wallet_option = click.option(
        "--wallet",
        callback=refuse_key,
        envvar="DTP_WALLET",
        metavar="WALLET",
        help="A name of 'dtp wallet new', a key file, sui[:ADDRESS] for the Sui command line's keys, or "
        "'exec:ADDRESS COMMAND...' for a program that signs. [default: $DTP_WALLET, else your identity]",
    )
    decorated: Any = network_option(
        wallet_option(passphrase_file_option(gas_price_option(json_option(with_account))))
    )
    result: _Function = decorated
    return result


def record_of(value: Any) -> Any:
    """Return a dataclass of the chain as JSON: bytes in hex, tuples as lists, keys as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name.rstrip("_"): record_of(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): record_of(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [record_of(each) for each in value]
    return value


def executed_record(executed: Any) -> dict[str, Any]:
    """Return a short summary of what a transaction did."""
    return {"transaction": executed.digest, "gas_mist": executed.gas.net}


async def tell_history(chain: ChainClient) -> None:
    """Say where the node's history begins, if the node has forgotten some of it, so that readers know what is
    missing."""
    oldest = (await chain.service_info()).lowest_checkpoint
    if oldest > 0:
        print_note(
            {"event": "history", "checkpoint": oldest},
            f"this node has the history from checkpoint {oldest:,} on; an archive node (--network) has it all",
        )
