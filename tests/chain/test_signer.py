"""Signers: addresses, signatures of all schemes checked by another library, external commands that lie."""

import asyncio
import json
import sys

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from dtp.chain import channel
from dtp.chain.errors import SignerError
from dtp.chain.signer import CommandSigner, KeySigner, Scheme, Signer, address_of, check_signature
from dtp.identity import Identity
from dtp.sui.transaction import signing_hash

from .conftest import run

TRANSACTION = b"the BCS of a transaction"


@pytest.mark.parametrize("scheme", list(Scheme))
def test_every_scheme_signs_what_another_library_verifies(scheme):
    signer = KeySigner(scheme, bytes([7]) * 32)
    signature = run(signer.sign_transaction(TRANSACTION))
    digest = signing_hash(TRANSACTION)
    assert signature[0] == scheme
    body, public = signature[1:65], signature[65:]
    if scheme is Scheme.ED25519:
        ed25519.Ed25519PublicKey.from_public_bytes(public).verify(body, digest)
    else:
        curve = ec.SECP256K1() if scheme is Scheme.SECP256K1 else ec.SECP256R1()
        r, s = int.from_bytes(body[:32], "big"), int.from_bytes(body[32:], "big")
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, public)
        key.verify(encode_dss_signature(r, s), digest, ec.ECDSA(hashes.SHA256()))
    assert address_of(scheme, public) == signer.address
    check_signature(signer.address, TRANSACTION, signature)
    assert isinstance(signer, Signer)


@pytest.mark.parametrize("scheme", [Scheme.SECP256K1, Scheme.SECP256R1])
def test_the_lower_s_is_taken(scheme):
    """The chain refuses the higher one."""
    signer = KeySigner.generate(scheme)
    order = {
        Scheme.SECP256K1: 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141,
        Scheme.SECP256R1: 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    }[scheme]

    async def many():
        return [await signer.sign_transaction(bytes([n])) for n in range(40)]

    assert all(int.from_bytes(each[33:65], "big") <= order // 2 for each in run(many()))


@pytest.mark.parametrize("scheme", list(Scheme))
def test_the_chain_takes_signatures_of_every_scheme(scheme, net, client):
    from dtp.chain.wallet import send

    signer = KeySigner.generate(scheme)
    net.fund(signer.address)

    async def work():
        async with client(signer) as chain:
            await send(chain, "0x5", 1000)
            return await chain.balance(signer.address)

    assert run(work()).total < 10_000_000_000 - 1000


def test_an_identity_is_its_account():
    identity = Identity.generate()
    assert KeySigner.from_identity(identity).address == identity.id.sui_address


def test_known_wallet_export():
    """A vector of SIP-15's reference: the bech32 form and the flagged bytes are the same key."""
    signer = KeySigner(Scheme.ED25519, bytes(range(32)))
    from dtp.identity import bech32

    text = bech32.encode("suiprivkey", signer.flagged, variant="bech32")
    assert KeySigner.from_text(text).address == signer.address
    assert KeySigner.from_text(f"  {text}\n").scheme is Scheme.ED25519


@pytest.mark.parametrize("text", ["", "suiprivkey1", "dtp1" + "q" * 58, "suiprivkey1" + "q" * 50, "hunter2"])
def test_bad_exports_are_refused_without_quoting_them(text):
    with pytest.raises(SignerError) as refused:
        KeySigner.from_text(text)
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize(
    "data", [b"", bytes(32), bytes(34), b"\3" + bytes(32), b"\1" + bytes(32), b"\2" + b"\xff" * 32]
)
def test_bad_keys(data):
    with pytest.raises(SignerError):
        KeySigner.from_flagged(data)


def test_no_secret_is_shown():
    signer = KeySigner(Scheme.ED25519, b"s" * 32)
    assert "ssss" not in repr(signer)
    assert (b"s" * 32).hex() not in repr(signer)


def test_statements_are_signed_and_nothing_that_could_be_a_transaction():
    signer = KeySigner.generate()
    agreement = channel.agreement_bytes(channel.CloseAgreement("0x1", 5, 9))
    signature = signer.sign_statement(agreement)
    ed25519.Ed25519PublicKey.from_public_bytes(signer.public_key).verify(signature, agreement)
    for other in (b"", signing_hash(TRANSACTION), b"dtp.close.v1", b"\x0cxtp.close.v1", bytes(40)):
        with pytest.raises(SignerError):
            signer.sign_statement(other)
    with pytest.raises(SignerError, match="SECP256K1"):
        KeySigner.generate(Scheme.SECP256K1).sign_statement(agreement)


# ---- external commands

ANSWER = """
import base64, json, sys
question = json.load(sys.stdin)
assert question["version"] == 1
print(json.dumps({"signature": base64.b64encode(bytes.fromhex(sys.argv[1])).decode()}))
"""


def external(signer, code, *arguments, timeout=30.0):
    return CommandSigner(signer.address, [sys.executable, "-c", code, *arguments], timeout)


def test_an_external_command_signs():
    inner = KeySigner.generate()
    signature = run(inner.sign_transaction(TRANSACTION))
    outer = external(inner, ANSWER, signature.hex())
    assert outer.address == inner.address
    assert run(outer.sign_transaction(TRANSACTION)) == signature


def test_a_command_that_signs_something_else_is_found_out():
    inner = KeySigner.generate()
    signature = run(inner.sign_transaction(b"another transaction"))
    with pytest.raises(SignerError, match="does not verify"):
        run(external(inner, ANSWER, signature.hex()).sign_transaction(TRANSACTION))


def test_a_command_that_signs_with_another_key_is_found_out():
    signature = run(KeySigner.generate().sign_transaction(TRANSACTION))
    with pytest.raises(SignerError, match="another account"):
        run(external(KeySigner.generate(), ANSWER, signature.hex()).sign_transaction(TRANSACTION))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('hello')", "did not print"),
        ("print('{}')", "did not print"),
        ("print('{\"signature\": 5}')", "did not print"),
        ("import json; print(json.dumps({'signature': 'AAAA'}))", "no form of Sui's"),
        ("import sys; sys.exit('no key for you')", "no key for you"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9"),
    ],
)
def test_commands_that_fail(code, message):
    with pytest.raises(SignerError, match=message):
        run(external(KeySigner.generate(), code).sign_transaction(TRANSACTION))


def test_a_command_that_is_not_there():
    with pytest.raises(SignerError, match="can't start"):
        run(CommandSigner("0x1", ["/nonexistent/signer"]).sign_transaction(TRANSACTION))


def test_a_command_that_never_answers_is_ended():
    """It waits for a line that doesn't come; the limit is over at once."""
    code = "import sys; sys.stdin.read(); sys.stdout.flush(); import threading; threading.Event().wait()"
    with pytest.raises(SignerError, match="no signature within"):
        run(external(KeySigner.generate(), code, timeout=0.0).sign_transaction(TRANSACTION))


def test_a_cancelled_command_is_ended():
    async def work():
        code = "import threading; threading.Event().wait()"
        task = asyncio.ensure_future(external(KeySigner.generate(), code).sign_transaction(TRANSACTION))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(work())


def test_the_question_is_plain_json():
    code = "import sys, json; q = json.load(sys.stdin); sys.exit(json.dumps(sorted(q)))"
    with pytest.raises(SignerError) as refused:
        run(external(KeySigner.generate(), code).sign_transaction(TRANSACTION))
    assert json.dumps(["address", "transaction", "version"]) in str(refused.value)
