"""`directory::card`: what an account says of itself, where everybody sees the same.

Functions add the commands of one Move function to a `Program`. `find_card` and `find_card_of_wallet` look a card up
and check what its keys have signed, so a node can withhold a card, but can't forge one. Accounts, their keys and the
cards that are carried off the chain are in `dtp.identity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from dtp.chain.errors import ObjectMissing
from dtp.chain.model import Id, canonical_id
from dtp.chain.node.client import ChainClient
from dtp.chain.node.commands import Argument, ObjectLike, Program
from dtp.chain.node.made import check_made
from dtp.chain.packages.directory_names import PACKAGE, Module
from dtp.chain.packages.directory_names.card import CARD_FIELDS, CardError, CardStruct
from dtp.chain.packages.directory_names.card import CardFunction as Function
from dtp.chain.values import MoveSchema, TableRef, codec
from dtp.errors import ChainError
from dtp.identity import PeerId, PeerIdError
from dtp.identity.card import KeyHistory, KeyRotation, account_id
from dtp.sui.objects import dynamic_field_id

__all__ = [
    "CARD_DOMAIN",
    "END_DOMAIN",
    "SCHEMA",
    "WALLET_DOMAIN",
    "CardContents",
    "CardCreated",
    "CardDirectory",
    "CardError",
    "CardForged",
    "CardMigrated",
    "CardRevoked",
    "CardUpdated",
    "DirectoryCreated",
    "EndStatement",
    "KeyRotated",
    "PublishedCard",
    "PublishedDevice",
    "Statement",
    "WalletChanged",
    "WalletStatement",
]

CARD_DOMAIN: Final = b"dtp.directory.v1"
WALLET_DOMAIN: Final = b"dtp.wallet.v1"
END_DOMAIN: Final = b"dtp.card.end.v1"


class CardForged(ChainError):
    """A node has shown a card that the account's keys have not signed."""

    code: ClassVar[str] = "card-forged"


@dataclass(frozen=True)
class CardDirectory:
    """The directory of a package: `cards` finds the card of an account, `wallets` that of a wallet."""

    id: str
    version: int
    cards: TableRef
    wallets: TableRef


@dataclass(frozen=True)
class PublishedDevice:
    """A machine that speaks for an account: its public key, and what its owner calls it (UTF-8)."""

    key: bytes
    label: bytes = b""


@dataclass(frozen=True)
class CardContents:
    """What an account says of itself.

    `encryption_key` (X25519) is what a first message is sealed to, `prekeys` the hash of the prekey bundle in the
    mailboxes; both may be empty. `mailboxes` are addresses in UTF-8. `expires_ms` is 0 for what holds for good.
    """

    encryption_key: bytes = b""
    prekeys: bytes = b""
    devices: tuple[PublishedDevice, ...] = ()
    mailboxes: tuple[bytes, ...] = ()
    expires_ms: int = 0


@dataclass(frozen=True)
class PublishedCard(KeyHistory):
    """A card on the chain. `signature` is the account's over `contents`, empty when it says nothing now."""

    id: str
    version: int
    directory: str
    account: bytes
    first_key: bytes
    first_recovery: bytes
    rotations: tuple[KeyRotation, ...]
    sequence: int
    contents: CardContents
    signature: bytes
    signed_sequence: int
    issued_ms: int
    wallets: tuple[str, ...]
    revoked: bool

    def is_current(self, now_ms: int) -> bool:
        """True while what the card says holds, by the chain's clock or one that is near it."""
        ends = self.contents.expires_ms
        return bool(self.signature) and (not ends or now_ms <= ends)

    def next_statement(self, contents: CardContents) -> Statement:
        """Return what the account's key signs next to say `contents`."""
        return Statement(self.directory, self.account, self.generation, self.sequence + 1, contents)

    def next_wallet_statement(self, wallet: Id, linked: bool) -> WalletStatement:
        """Return what the account's key signs next to link a wallet, or to unlink one that is lost."""
        sequence = self.sequence + 1
        return WalletStatement(
            self.directory, self.account, self.generation, sequence, canonical_id(wallet), linked
        )

    def verify(self) -> None:
        """Raise `CardForged` unless the account's keys have signed all that the card says, its wallets apart."""
        if account_id(self.first_key, self.first_recovery) != self.account:
            raise CardForged(f"card {self.id} has keys that its account isn't named by")
        try:
            forged = self.find_forged()
        except PeerIdError as error:
            raise CardForged(f"card {self.id} has a key that can't be: {error}") from None
        if forged is not None:
            raise CardForged(f"card {self.id}: key {forged} of the account isn't signed by whom it should be")
        if self.signature:
            said = Statement(
                self.directory, self.account, self.generation, self.signed_sequence, self.contents
            )
            _check(self.id, self.key, self.signature, statement_bytes(said), "what it says")
        elif self.contents != CardContents():
            raise CardForged(f"card {self.id} has contents that nobody has signed")


def _check(card: str, key: bytes, signature: bytes, message: bytes, what: str) -> None:
    try:
        signed = PeerId(key).verify(signature, message)
    except PeerIdError as error:
        raise CardForged(f"card {card} has a key that can't be: {error}") from None
    if not signed:
        raise CardForged(f"card {card}: {what} isn't signed by whom it should be")


@dataclass(frozen=True)
class Statement:
    """What an account's key signs to say `contents`."""

    directory: str
    account: bytes
    generation: int
    sequence: int
    contents: CardContents
    domain: bytes = CARD_DOMAIN


@dataclass(frozen=True)
class WalletStatement:
    """What an account's key signs to link a wallet, or to unlink one that is lost."""

    directory: str
    account: bytes
    generation: int
    sequence: int
    wallet: str
    linked: bool
    domain: bytes = WALLET_DOMAIN


@dataclass(frozen=True)
class EndStatement:
    """What the recovery key signs to end an account for good."""

    directory: str
    account: bytes
    generation: int
    domain: bytes = END_DOMAIN


@dataclass(frozen=True)
class DirectoryCreated:
    """Event: the package was published, with this directory."""

    directory: str


@dataclass(frozen=True)
class CardCreated:
    """Event: an account has a card now."""

    card: str
    account: bytes


@dataclass(frozen=True)
class CardUpdated:
    """Event: an account has said something new of itself."""

    card: str
    account: bytes
    sequence: int


@dataclass(frozen=True)
class KeyRotated:
    """Event: another key is the account's. Whoever knows the account should be told."""

    card: str
    account: bytes
    generation: int
    key: bytes


@dataclass(frozen=True)
class WalletChanged:
    """Event: a wallet was linked to an account, or unlinked."""

    card: str
    account: bytes
    wallet: str
    linked: bool


@dataclass(frozen=True)
class CardRevoked:
    """Event: an account was ended for good."""

    card: str
    account: bytes


@dataclass(frozen=True)
class CardMigrated:
    """Event: a card or the directory was moved to another version of the package."""

    object: str
    from_: int
    to: int


SCHEMA: Final = MoveSchema(
    PACKAGE,
    Module.CARD,
    CARD_FIELDS,
    {
        CardStruct.DIRECTORY: CardDirectory,
        CardStruct.CARD: PublishedCard,
        CardStruct.ROTATION: KeyRotation,
        CardStruct.DEVICE: PublishedDevice,
        CardStruct.CONTENTS: CardContents,
        CardStruct.STATEMENT: Statement,
        CardStruct.WALLET_STATEMENT: WalletStatement,
        CardStruct.END_STATEMENT: EndStatement,
        CardStruct.DIRECTORY_CREATED: DirectoryCreated,
        CardStruct.CARD_CREATED: CardCreated,
        CardStruct.CARD_UPDATED: CardUpdated,
        CardStruct.KEY_ROTATED: KeyRotated,
        CardStruct.WALLET_CHANGED: WalletChanged,
        CardStruct.CARD_REVOKED: CardRevoked,
        CardStruct.MIGRATED: CardMigrated,
    },
)


# ------------------------------------------------------------------------------------------------ what is signed


def statement_bytes(statement: Statement) -> bytes:
    """Return what the account's key signs to say `statement.contents`."""
    return SCHEMA.encode(statement)


def wallet_bytes(statement: WalletStatement) -> bytes:
    """Return what the account's key signs to link a wallet, or to unlink one that is lost."""
    return SCHEMA.encode(statement)


def end_bytes(statement: EndStatement) -> bytes:
    """Return what the recovery key signs to end an account."""
    return SCHEMA.encode(statement)


# -------------------------------------------------------------------------------------------------- what is read


async def find_directory(chain: ChainClient) -> str:
    """Return the id of the directory that was made when the package was published.

    Raise `PackageNotPublished` where the package isn't known, `ObjectMissing` where the node has forgotten how it was
    published, `NodeRefused` where it names a directory that somebody else made.
    """
    deployment = chain.deployments.find(PACKAGE)
    published = deployment.original_id
    transaction = (await chain.object(published)).previous_transaction
    executed = await chain.transaction(transaction)
    if executed is None:
        raise ObjectMissing(f"the node no longer has {transaction}, which published package {published}")
    made = chain.event_in(executed, SCHEMA, DirectoryCreated)
    # The node names the transaction, too: the package is of it.
    check_made(executed, published, made.directory)
    return made.directory


async def find_card(chain: ChainClient, directory: str, account: bytes) -> PublishedCard | None:
    """Return the card of an account, None if it has none. Raise `CardForged` if its keys haven't signed it."""
    cards = (await chain.read(SCHEMA, CardDirectory, directory)).cards
    card = await _entry(chain, cards, "vector<u8>", account)
    if card is not None and (card.account != account or card.directory != directory):
        raise CardForged(f"the node shows card {card.id} of another account")
    return card


async def find_card_of_wallet(chain: ChainClient, directory: str, wallet: Id) -> PublishedCard | None:
    """Return the card of the account to which a wallet is linked, None if it is linked to none. Raise `CardForged`.

    That the wallet belongs to the account is the chain's word: it is said by the wallet's own transaction.
    """
    name = canonical_id(wallet)
    wallets = (await chain.read(SCHEMA, CardDirectory, directory)).wallets
    card = await _entry(chain, wallets, "address", name)
    if card is not None and name not in card.wallets:
        raise CardForged(f"the node shows card {card.id}, to which {name} isn't linked")
    return card


async def _entry(chain: ChainClient, table: TableRef, kind: str, key: object) -> PublishedCard | None:
    name = codec(kind).encode(key)
    try:
        entry = await chain.object(dynamic_field_id(table.id, kind, name))
    except ObjectMissing:
        return None
    # A field's value is its own id, the key and the card's id.
    card = await chain.read(SCHEMA, PublishedCard, entry.contents[32 + len(name) :])
    card.verify()
    return card


# ----------------------------------------------------------------------------------------------- what is changed


def _call(
    program: Program, function: Function, *arguments: Argument, results: int = 0
) -> tuple[Argument, ...]:
    return program.call(PACKAGE, Module.CARD, function, arguments, (), results)


def new_contents(program: Program, contents: CardContents) -> Argument:
    """Return what an account says of itself, for `update`."""
    (made,) = _call(
        program,
        Function.NEW_CONTENTS,
        program.pure("vector<u8>", contents.encryption_key),
        program.pure("vector<u8>", contents.prekeys),
        program.pure("vector<vector<u8>>", [each.key for each in contents.devices]),
        program.pure("vector<vector<u8>>", [each.label for each in contents.devices]),
        program.pure("vector<vector<u8>>", contents.mailboxes),
        program.pure("u64", contents.expires_ms),
        results=1,
    )
    return made


def new(program: Program, directory: ObjectLike, key: bytes, recovery: bytes) -> Argument:
    """Return the card of an account that begins with these keys, which says nothing yet; to be shared with
    `share`."""
    (made,) = _call(
        program,
        Function.NEW,
        program.use(directory),
        program.pure("vector<u8>", key),
        program.pure("vector<u8>", recovery),
        results=1,
    )
    return made


def share(program: Program, card: Argument) -> None:
    """Share a new card."""
    _call(program, Function.SHARE, program.use(card))


def publish(
    program: Program,
    directory: ObjectLike,
    keys: tuple[bytes, bytes],
    rotations: Sequence[KeyRotation],
    contents: CardContents,
    signature: bytes,
) -> None:
    """Publish the first card of an account that begins with `keys` (its key, its recovery key), whole.

    It is made, rotated as it was off the chain, said and shared. The signature is over a `Statement` of sequence 1.
    """
    card = new(program, directory, *keys)
    for each in rotations:
        rotate(program, card, each)
    update(program, card, contents, signature)
    share(program, card)


def update(program: Program, card: ObjectLike, contents: CardContents, signature: bytes) -> None:
    """Replace what a card says; signed by the account's key (`PublishedCard.next_statement`)."""
    made = new_contents(program, contents)
    signed = program.pure("vector<u8>", signature)
    _call(program, Function.UPDATE, program.use(card), made, signed, program.clock())


def rotate(program: Program, card: ObjectLike, rotation: KeyRotation) -> None:
    """Make another key the account's; signed by the recovery key (`dtp.identity.card.rotation_message`)."""
    parts = (rotation.key, rotation.recovery, rotation.signature)
    _call(program, Function.ROTATE, program.use(card), *(program.pure("vector<u8>", each) for each in parts))


def revoke(program: Program, card: ObjectLike, signature: bytes) -> None:
    """End an account for good; signed by the recovery key (`end_bytes`)."""
    _call(program, Function.REVOKE, program.use(card), program.pure("vector<u8>", signature))


def link_wallet(program: Program, directory: ObjectLike, card: ObjectLike, signature: bytes) -> None:
    """Link the sender's wallet; signed by the account's key (`PublishedCard.next_wallet_statement`)."""
    signed = program.pure("vector<u8>", signature)
    _call(program, Function.LINK_WALLET, program.use(directory), program.use(card), signed)


def unlink_wallet(program: Program, directory: ObjectLike, card: ObjectLike) -> None:
    """Unlink the sender's wallet."""
    _call(program, Function.UNLINK_WALLET, program.use(directory), program.use(card))


def unlink_lost_wallet(
    program: Program, directory: ObjectLike, card: ObjectLike, wallet: Id, signature: bytes
) -> None:
    """Unlink another wallet; signed by the account's key (`PublishedCard.next_wallet_statement`)."""
    _call(
        program,
        Function.UNLINK_LOST_WALLET,
        program.use(directory),
        program.use(card),
        program.pure("address", wallet),
        program.pure("vector<u8>", signature),
    )


def migrate(program: Program, card: ObjectLike) -> None:
    """Move a card to the version of the package that is called. Anyone."""
    _call(program, Function.MIGRATE, program.use(card))


def migrate_directory(program: Program, directory: ObjectLike) -> None:
    """Move the directory to the version of the package that is called. Anyone."""
    _call(program, Function.MIGRATE_DIRECTORY, program.use(directory))
