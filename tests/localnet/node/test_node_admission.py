"""What is refused before anything runs: form, signatures, references, expiry. Nothing is paid, nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from node_world import COIN, Tx, Wallet
from playground import Play

from dtp.localnet.model import TransactionRejected
from dtp.sui.names import TypeTag, parse_type
from dtp.sui.signature import (
    KeyScheme,
    MultiSig,
    MultiSigPublicKey,
    PublicKey,
    SimpleSignature,
    address_of_key,
    address_of_multisig,
)
from dtp.sui.transaction import (
    ConsensusCommitPrologue,
    EpochExpiration,
    FundsWithdrawal,
    GasCoin,
    GasData,
    MakeMoveVec,
    MergeCoins,
    MoveCall,
    Mutability,
    ObjectRef,
    OwnedInput,
    Publish,
    Pure,
    ReceivingInput,
    SharedInput,
    SplitCoins,
    TransactionData,
    TransferObjects,
    ValidDuring,
    signing_hash,
)


@contextmanager
def rejected(play: Play, kind: str, object_id: bytes | None = None) -> Iterator[None]:
    """The block must be refused so, and the chain must not move."""
    node = play.world.node
    before = node.service_info(), node.get_totals()
    with pytest.raises(TransactionRejected) as refused:
        yield
    assert refused.value.kind == kind, refused.value
    if object_id is not None:
        assert refused.value.object_id == object_id
    assert (node.service_info(), node.get_totals()) == before


def simple(play: Play) -> Tx:
    tx = play.tx()
    play.call(tx, "nothing")
    return tx


# ------------------------------------------------------------------------------------------------- form


@pytest.mark.parametrize("raw", [b"", b"\1", bytes(100), b"\0" * 5 + b"\xff" * 60])
def test_bytes_that_are_no_transaction(play: Play, raw: bytes) -> None:
    with rejected(play, "MalformedTransaction"):
        play.world.node.execute(raw, [b""])


def test_something_after_the_end(play: Play) -> None:
    raw = play.world.data(simple(play), play.alice).encode() + b"\0"
    with rejected(play, "MalformedTransaction"):
        play.world.node.execute(raw, [play.alice.sign(raw)])


def test_too_many_bytes(play: Play) -> None:
    tx = simple(play)
    for _ in range(9):
        tx.add(Pure(bytes(16_000)))
    with rejected(play, "SizeLimitExceeded"):
        play.ok(tx)


def test_a_pure_input_over_16_kib(play: Play) -> None:
    tx = simple(play)
    tx.add(Pure(bytes(16 * 1024)))
    play.ok(tx)
    tx.add(Pure(bytes(16 * 1024 + 1)))
    with rejected(play, "SizeLimitExceeded"):
        play.ok(tx)


def test_counts(play: Play) -> None:
    tx = play.tx()
    for _ in range(1024):
        play.call(tx, "nothing")
    play.world.ok(tx, play.alice, budget=5_000_000_000)
    play.call(tx, "nothing")
    with rejected(play, "SizeLimitExceeded"):
        play.ok(tx)
    tx = play.tx()
    tx.command(MakeMoveVec(TypeTag("u64"), (tx.u64(1),) * 513))
    with rejected(play, "SizeLimitExceeded"):
        play.ok(tx)
    tx = play.tx()
    for _ in range(6):
        tx.command(Publish((b"\0",), ()))
    with rejected(play, "MaxPublishCountExceeded"):
        play.ok(tx)
    tx = play.tx()
    play.call(tx, "nothing", types=("u64",) * 17)
    with rejected(play, "SizeLimitExceeded"):
        play.ok(tx)


def test_commands_without_content(play: Play) -> None:
    tx = play.tx()
    with rejected(play, "EmptyCommandInput"):
        play.ok(tx)
    empty = (
        TransferObjects((), GasCoin()),
        SplitCoins(GasCoin(), ()),
        MergeCoins(GasCoin(), ()),
        MakeMoveVec(None, ()),
        Publish((), ()),
    )
    for command in empty:
        tx = play.tx()
        tx.command(command)
        with rejected(play, "EmptyCommandInput"):
            play.ok(tx)


def test_names_that_are_none(play: Play) -> None:
    tx = play.tx()
    tx.command(MoveCall(play.package, "things", "a b"))
    with rejected(play, "InvalidIdentifier"):
        play.ok(tx)


def test_what_only_the_system_sends(play: Play) -> None:
    data = play.world.data(simple(play), play.alice)
    raw = replace(data, kind=ConsensusCommitPrologue(0, 9, 1 << 50)).encode()
    with rejected(play, "Unsupported"):
        play.world.node.execute(raw, [play.alice.sign(raw)])


def test_what_this_node_does_not_do(play: Play) -> None:
    tx = simple(play)
    tx.add(FundsWithdrawal(1, parse_type(COIN), False))
    with rejected(play, "Unsupported"):
        play.ok(tx)
    tx = simple(play)
    tx.add(SharedInput(play.shared(), 1, Mutability.NON_EXCLUSIVE_WRITE))
    with rejected(play, "Unsupported"):
        play.ok(tx)


# ------------------------------------------------------------------------------------------- signatures


def test_signatures(play: Play) -> None:
    node, bob = play.world.node, Wallet("bob")
    raw = play.world.data(simple(play), play.alice).encode()
    other = play.world.data(simple(play), play.alice, budget=400_000_000).encode()
    good = play.alice.sign(raw)
    with rejected(play, "SignerSignatureNumberMismatch"):
        node.execute(raw, [])
    with rejected(play, "SignerSignatureNumberMismatch"):
        node.execute(raw, [good, good])
    with rejected(play, "IncorrectSigner"):
        node.execute(raw, [bob.sign(raw)])
    with rejected(play, "InvalidSignature"):
        node.execute(raw, [play.alice.sign(other)])
    for broken in (b"", good[:-1], good + b"\0", b"\x09" + good[1:], b"\x05" + good[1:]):
        with rejected(play, "InvalidSignature"):
            node.execute(raw, [broken])
    for at in (1, 40):
        flipped = bytearray(good)
        flipped[at] ^= 1
        with rejected(play, "InvalidSignature"):
            node.execute(raw, [bytes(flipped)])
    assert node.execute(raw, [good]).effects.ok


def test_a_sponsored_transaction_needs_both(play: Play) -> None:
    node, sponsor = play.world.node, play.world.wallet("sponsor", 1_000_000_000)
    raw = play.world.data(simple(play), play.alice, sponsor=sponsor).encode()
    mine, theirs = play.alice.sign(raw), sponsor.sign(raw)
    for signatures in ([mine], [theirs]):
        with rejected(play, "SignerSignatureNumberMismatch"):
            node.execute(raw, signatures)
    for signatures in ([mine, mine], [theirs, theirs]):
        with rejected(play, "IncorrectSigner"):
            node.execute(raw, signatures)
    assert node.execute(raw, [theirs, mine]).effects.ok


def test_the_same_transaction_again_gives_the_same_result(play: Play) -> None:
    node = play.world.node
    tx = play.tx()
    play.call(tx, "keep", tx.u64(1))
    raw = play.world.data(tx, play.alice).encode()
    signatures = [play.alice.sign(raw)]
    first = node.execute(raw, signatures)
    sequence = node.service_info().checkpoint
    again = node.execute(raw, signatures)
    assert again.transaction == first.transaction
    assert {r.ref for r in again.outputs} == {r.ref for r in first.outputs}
    assert node.service_info().checkpoint == sequence
    with pytest.raises(TransactionRejected):
        node.execute(raw, [Wallet("bob").sign(raw)])


# ------------------------------------------------------------------------------------------- references


def test_stale_references(play: Play) -> None:
    thing = play.thing()
    stale = play.record(thing).ref
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(2))
    play.ok(tx)

    def using(ref: ObjectRef) -> Tx:
        tx = play.tx()
        play.call(tx, "set", tx.add(OwnedInput(ref)), tx.u64(3))
        return tx

    with rejected(play, "ObjectVersionUnavailableForConsumption", thing):
        play.ok(using(stale))
    live = play.record(thing).ref
    with rejected(play, "InvalidObjectDigest", thing):
        play.ok(using(replace(live, digest=bytes(32))))
    with rejected(play, "ObjectNotFound", thing):
        play.ok(using(replace(live, version=live.version + 1)))
    with rejected(play, "ObjectNotFound"):
        play.ok(using(replace(live, id=bytes(32))))
    with rejected(play, "MovePackageAsObject", play.package):
        play.ok(using(play.record(play.package).ref))
    tx = play.tx()
    play.call(tx, "burn", tx.object(thing))
    play.ok(tx)
    with rejected(play, "ObjectVersionUnavailableForConsumption", thing):
        play.ok(using(live))


def test_objects_of_others(play: Play) -> None:
    bob = play.world.wallet("bob", 1_000_000_000)
    thing = play.thing()
    tx = play.tx()
    play.call(tx, "set", tx.object(thing), tx.u64(2))
    with rejected(play, "IncorrectUserSignature", thing):
        play.world.ok(tx, bob)


def test_shared_objects_must_be_named_as_such(play: Play) -> None:
    counter, thing = play.shared(), play.thing()
    start = play.record(counter).owner
    cases = (
        (OwnedInput(play.record(counter).ref), "NotOwnedObjectError", counter),
        (SharedInput(counter, 1, Mutability.MUTABLE), "SharedObjectStartingVersionMismatch", counter),
        (SharedInput(thing, 1, Mutability.MUTABLE), "NotSharedObjectError", thing),
        (SharedInput(bytes(32), 1, Mutability.MUTABLE), "ObjectNotFound", bytes(32)),
    )
    assert start is not None
    for arg, kind, id in cases:
        tx = play.tx()
        play.call(tx, "bump", tx.add(arg))
        with rejected(play, kind, id):
            play.ok(tx)


@pytest.mark.parametrize("number", [5, 6, 8])
def test_system_objects_are_read_only(play: Play, number: int) -> None:
    id = number.to_bytes(32, "big")
    tx = simple(play)
    tx.add(SharedInput(id, 1, Mutability.MUTABLE))
    with rejected(play, "ImmutableParameterExpectedError", id):
        play.ok(tx)


def test_an_object_used_and_received(play: Play) -> None:
    """Whose it is comes first: what can be received belongs to an object, what can be used to the sender."""
    parent, child = play.thing(), play.thing()
    tx = play.tx()
    tx.send(parent, tx.object(child))
    play.ok(tx)
    ref = play.record(child).ref
    for inputs in ((OwnedInput(ref), ReceivingInput(ref)), (ReceivingInput(ref), OwnedInput(ref))):
        tx = simple(play)
        for each in inputs:
            tx.add(each)
        with rejected(play, "IncorrectUserSignature", child):
            play.ok(tx)
    own = play.record(parent).ref
    for pair in ((ReceivingInput(ref), ReceivingInput(ref)), (OwnedInput(own), ReceivingInput(own))):
        tx = simple(play)
        for each in pair:
            tx.add(each)
        with rejected(play, "DuplicateObjectRefInput", pair[0].ref.id):
            play.ok(tx)


def test_one_object_twice(play: Play) -> None:
    thing = play.thing()
    ref = play.record(thing).ref
    tx = simple(play)
    tx.add(OwnedInput(ref))
    tx.add(OwnedInput(ref))
    with rejected(play, "DuplicateObjectRefInput", thing):
        play.ok(tx)
    coin = play.world.coins(play.alice)[0]
    tx = simple(play)
    tx.add(OwnedInput(coin.ref))
    with rejected(play, "MutableObjectUsedMoreThanOnce", coin.id):
        play.world.ok(tx, play.alice, payment=(coin.ref,))
    with rejected(play, "MutableObjectUsedMoreThanOnce", coin.id):
        play.world.ok(simple(play), play.alice, payment=(coin.ref, coin.ref))


def test_packages_that_are_not_there(play: Play) -> None:
    thing = play.thing()
    tx = play.tx()
    tx.call(bytes(31) + b"\x99", "a::b")
    with rejected(play, "DependentPackageNotFound"):
        play.ok(tx)
    tx = play.tx()
    tx.call(thing, "a::b")
    with rejected(play, "MoveObjectAsPackage", thing):
        play.ok(tx)
    tx = play.tx()
    play.call(tx, "weigh", tx.u64(1), types=("vector<0x99::a::B>",))
    with rejected(play, "DependentPackageNotFound"):
        play.ok(tx)


# -------------------------------------------------------------------------------------------- validity


def test_expiry_by_epoch(play: Play) -> None:
    node = play.world.node
    assert play.world.ok(simple(play), play.alice, expiration=EpochExpiration(0)).effects.ok
    node.advance_epoch()
    with rejected(play, "TransactionExpired"):
        play.world.ok(simple(play), play.alice, expiration=EpochExpiration(0))


def test_validity_windows(play: Play) -> None:
    info = play.world.node.service_info()
    now, chain = info.timestamp_ms, info.chain

    def run(window: ValidDuring) -> None:
        play.world.ok(simple(play), play.alice, expiration=window)

    run(ValidDuring(0, 1, None, now + 5, chain, 1))
    with rejected(play, "InvalidChainId"):
        run(ValidDuring(0, 1, None, None, bytes(32), 1))
    for window in (
        ValidDuring(1, 2, None, None, chain, 1),
        ValidDuring(0, 0, now + 1, None, chain, 1),
        ValidDuring(0, 0, None, now - 1, chain, 1),
    ):
        with rejected(play, "TransactionExpired"):
            run(window)


def test_refused_transactions_can_be_repaired(play: Play) -> None:
    data = play.world.data(simple(play), play.alice, budget=1)
    raw = data.encode()
    with rejected(play, "GasBudgetTooLow"):
        play.world.node.execute(raw, [play.alice.sign(raw)])
    fixed: TransactionData = replace(data, gas_data=replace(data.gas_data, budget=10_000_000))
    raw = fixed.encode()
    assert play.world.node.execute(raw, [play.alice.sign(raw)]).effects.ok


# ------------------------------------------------------------------------------------- other kinds of keys


def _ecdsa(scheme: KeyScheme, number: int) -> tuple[PublicKey, ec.EllipticCurvePrivateKey]:
    curve = ec.SECP256K1() if scheme is KeyScheme.SECP256K1 else ec.SECP256R1()
    key = ec.derive_private_key(number, curve)
    raw = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    return PublicKey(scheme, raw), key


def _sign_ecdsa(scheme: KeyScheme, key: ec.EllipticCurvePrivateKey, raw: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(signing_hash(raw), ec.ECDSA(SHA256())))
    order = ORDERS[scheme]
    return r.to_bytes(32, "big") + min(s, order - s).to_bytes(32, "big")


ORDERS = {
    KeyScheme.SECP256K1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
    KeyScheme.SECP256R1: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
}


def from_address(play: Play, address: bytes) -> bytes:
    """BCS of a transaction of an account that the faucet filled."""
    node = play.world.node
    node.fund_address(address, 1_000_000_000)
    (coin,) = node.objects_owned_by(address).items
    gas = GasData((coin.ref,), address, 1000, 10_000_000)
    return TransactionData(simple(play).kind, address, gas).encode()


@pytest.mark.parametrize("scheme", list(ORDERS))
def test_accounts_of_ecdsa_keys(play: Play, scheme: KeyScheme) -> None:
    public, key = _ecdsa(scheme, 7)
    raw = from_address(play, address_of_key(public))
    signature = SimpleSignature(public, _sign_ecdsa(scheme, key, raw)).serialize()
    assert play.world.node.execute(raw, [signature]).effects.ok


def test_accounts_of_several_keys(play: Play) -> None:
    first, second = _ecdsa(KeyScheme.SECP256K1, 7), _ecdsa(KeyScheme.SECP256R1, 8)
    third = PublicKey(KeyScheme.ED25519, play.alice.public)
    committee = MultiSigPublicKey(((first[0], 1), (second[0], 1), (third, 1)), 2)
    raw = from_address(play, address_of_multisig(committee))
    parts = (
        (KeyScheme.SECP256K1, _sign_ecdsa(KeyScheme.SECP256K1, first[1], raw)),
        (KeyScheme.ED25519, play.alice.key.sign(signing_hash(raw))),
    )
    few = MultiSig(parts[:1], 0b001, committee).serialize()
    with rejected(play, "InvalidSignature"):
        play.world.node.execute(raw, [few])
    enough = MultiSig(parts, 0b101, committee).serialize()
    assert play.world.node.execute(raw, [enough]).effects.ok
