"""Identity files: read and written by OpenSSL too, private from the first byte, and refused with a reason."""

import contextlib
import os
import re
import shutil
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from dtp.identity import (
    Identity,
    IdentityFileError,
    IdentityFileExists,
    IdentityFileMissing,
    PassphraseNeeded,
    PassphraseWrong,
    pem,
    verify_static,
)
from dtp.identity.private import OpenToOthers, open_to_others

IDENTITY = Identity(bytes(range(32)), bytes(range(32, 64)))
OTHER = Identity(bytes(range(1, 33)), bytes(range(33, 65)))
openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the openssl command")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "identity.pem"


def save_cheaply(path, passphrase, *, overwrite=False):
    """Save encrypted, in tests that are not about how dear a guess is."""
    pem.write(
        IDENTITY.seed, IDENTITY.static_private, path, passphrase, overwrite=overwrite, cost=(2**4, 8, 1)
    )


def put(path, content, mode=0o600):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def same(one, other):
    return (one.id, one.seed, one.static_private, one.static_proof) == (
        other.id,
        other.seed,
        other.static_private,
        other.static_proof,
    )


def blocks_of(path):
    return re.findall(r"-----BEGIN.*?-----END [A-Z ]+-----\n", path.read_text(), re.DOTALL)


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **options).stdout


def test_there_and_back(path):
    assert IDENTITY.save(path) == path
    loaded = Identity.load(path)
    assert same(loaded, IDENTITY)
    assert loaded.static_stored
    assert str(IDENTITY.id) in path.read_text()


@pytest.mark.parametrize("passphrase", ["correct horse", b"\xff\x00 not utf-8", "ünïcode ☃"])
def test_there_and_back_encrypted(path, passphrase):
    save_cheaply(path, passphrase)
    assert same(Identity.load(path, passphrase), IDENTITY)
    text = path.read_bytes()
    assert IDENTITY.seed not in text
    with pytest.raises(PassphraseWrong, match="does not open"):
        Identity.load(path, "another")
    with pytest.raises(PassphraseNeeded, match="encrypted"):
        Identity.load(path)


def test_the_passphrase_is_asked_for_once_and_only_if_needed(path):
    asked = []

    def ask():
        asked.append(1)
        return "secret"

    IDENTITY.save(path)
    Identity.load(path, ask)
    assert asked == []
    save_cheaply(path, "secret", overwrite=True)
    assert same(Identity.load(path, ask), IDENTITY)
    assert asked == [1]


def test_every_encryption_has_its_own_salt(path):
    bodies = set()
    for _ in range(3):
        save_cheaply(path, "secret", overwrite=True)
        bodies.update(blocks_of(path))
    assert len(bodies) == 6


def test_an_empty_passphrase_is_refused(path):
    with pytest.raises(IdentityFileError, match="protects nothing"):
        IDENTITY.save(path, "")
    assert not path.exists()


# --- The same through OpenSSL's own program.


@openssl
def test_openssl_reads_both_blocks(path, tmp_path):
    IDENTITY.save(path)
    public = run("openssl", "pkey", "-in", path, "-pubout", "-outform", "DER", "-out", tmp_path / "public")
    assert public == ""
    assert (tmp_path / "public").read_bytes()[-32:] == IDENTITY.id.key
    static = put(tmp_path / "static.pem", blocks_of(path)[1])
    run("openssl", "pkey", "-in", static, "-pubout", "-outform", "DER", "-out", tmp_path / "public")
    assert (tmp_path / "public").read_bytes()[-32:] == IDENTITY.static_public


@openssl
def test_openssl_reads_what_is_encrypted(path, tmp_path):
    IDENTITY.save(path, "correct horse")  # with the real cost: OpenSSL has a limit for scrypt's memory
    for block, public in zip(blocks_of(path), (IDENTITY.id.key, IDENTITY.static_public), strict=True):
        one = put(tmp_path / "one.pem", block)
        run("openssl", "pkey", "-in", one, "-passin", "pass:correct horse", "-pubout", "-outform", "DER",
            "-out", tmp_path / "public")  # fmt: skip
        assert (tmp_path / "public").read_bytes()[-32:] == public
    parameters = run("openssl", "asn1parse", "-in", path)
    for expected in ("PBES2", "scrypt", "aes-256-cbc", "INTEGER           :4000", "INTEGER           :05"):
        assert expected in parameters


@openssl
@pytest.mark.parametrize("kdf", [["-scrypt"], ["-v2", "aes-256-cbc", "-iter", "600000"]])
def test_what_openssl_encrypted_is_read(path, tmp_path, kdf):
    plain = tmp_path / "plain.pem"
    run("openssl", "genpkey", "-algorithm", "ED25519", "-out", plain)
    run("openssl", "pkcs8", "-topk8", *kdf, "-in", plain, "-passout", "pass:x", "-out", path)
    path.chmod(0o600)
    plain.chmod(0o600)
    assert Identity.load(path, "x").id == Identity.load(plain).id


@openssl
def test_openssl_verifies_a_signature(path, tmp_path):
    IDENTITY.save(path)
    (tmp_path / "message").write_bytes(b"what was said")
    (tmp_path / "signature").write_bytes(IDENTITY.sign(b"what was said"))
    said = run("openssl", "pkeyutl", "-verify", "-rawin", "-inkey", path, "-in", tmp_path / "message",
               "-sigfile", tmp_path / "signature")  # fmt: skip
    assert "Signature Verified Successfully" in said


def test_a_file_with_only_the_identity_key(path):
    IDENTITY.save(path)
    put(path, blocks_of(path)[0])
    first, second = Identity.load(path), Identity.load(path)
    assert first.id == second.id == IDENTITY.id
    assert not first.static_stored
    assert first.static_public != second.static_public
    assert verify_static(first.id, first.static_public, first.static_proof)


# --- Who may read it.


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_the_mode_is_0600_whatever_the_umask(path, umask):
    before = os.umask(umask)
    try:
        IDENTITY.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same(Identity.load(path), IDENTITY)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o666, 0o620, 0o601])
def test_a_file_open_to_others_is_refused(path, mode):
    IDENTITY.save(path)
    path.chmod(mode)
    with pytest.raises(OpenToOthers, match=f"mode {mode:04o}.*chmod 600 {re.escape(str(path))}"):
        Identity.load(path)


@pytest.mark.parametrize(
    ("owner", "group", "mode", "close"),
    [
        (0, 7, 0o640, ""),  # a service's user reads it, and can't replace it
        (0, 0, 0o440, ""),  # as systemd gives credentials
        (0, 7, 0o660, "chmod 640"),
        (0, 7, 0o644, "chmod 640"),
        (0, 0, 0o644, "chmod 600"),
        (7, 7, 0o640, "chmod 600"),
        (7, 7, 0o600, ""),
    ],
)
def test_what_belongs_to_root_may_be_for_a_group(owner, group, mode, close):
    found = os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, group, 0, 0, 0, 0))
    assert open_to_others(found) == close


def test_a_stricter_mode_is_fine(path):
    IDENTITY.save(path)
    path.chmod(0o400)
    assert same(Identity.load(path), IDENTITY)


def test_an_existing_file_stays(path):
    IDENTITY.save(path)
    with pytest.raises(IdentityFileExists, match="left as it is"):
        OTHER.save(path)
    assert same(Identity.load(path), IDENTITY)
    OTHER.save(path, overwrite=True)
    assert same(Identity.load(path), OTHER)
    assert os.listdir(path.parent) == ["identity.pem"]


def test_folders_are_made_private(tmp_path):
    path = tmp_path / "one" / "two" / "identity.pem"
    IDENTITY.save(path)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert same(Identity.load(path), IDENTITY)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_write_that_fails_leaves_what_was_there(path, monkeypatch, overwrite):
    if overwrite:
        OTHER.save(path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityFileError, match="No space left"):
        IDENTITY.save(path, overwrite=overwrite)
    monkeypatch.undo()
    assert os.listdir(path.parent) == (["identity.pem"] if overwrite else [])
    if overwrite:
        assert same(Identity.load(path), OTHER)


def test_a_symbolic_link_is_not_followed_when_writing(path, tmp_path):
    victim = put(tmp_path / "victim", "precious")
    path.symlink_to(victim)
    with pytest.raises(IdentityFileExists):
        IDENTITY.save(path)
    IDENTITY.save(path, overwrite=True)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()


def test_a_pipe_is_read(tmp_path):
    IDENTITY.save(tmp_path / "identity.pem")
    reading, writing = os.pipe()
    os.write(writing, (tmp_path / "identity.pem").read_bytes())
    os.close(writing)
    try:
        assert same(Identity.load(f"/dev/fd/{reading}"), IDENTITY)
    finally:
        os.close(reading)


# --- What else people have in files.


def pkcs8(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
PUBLIC = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n"
FOREIGN = [
    ("", "is empty"),
    (" \n", "is empty"),
    ("hello", "no PEM block"),
    ("suiprivkey1qzwant3kaegmjy4qxex93s0jzvemekkjmyv3r2sjwgnv2y479pgsywhveae\n", "keygen --import"),
    (OPENSSH, "an OpenSSH key"),
    (CERTIFICATE, "a certificate"),
    (PUBLIC, "a public key only"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n", "an RSA key"),
    ("-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----\n", "another curve"),
    ("-----BEGIN DH PARAMETERS-----\nMIIB\n-----END DH PARAMETERS-----\n", "'DH PARAMETERS' block"),
    ("-----BEGIN PRIVATE KEY-----\nMIIB", "cut off"),
    ("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", "can't be read"),
    ("-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n", "can't be read"),
    ("-----BEGIN PRIVATE KEY-----\n" + "A" * 70_000, "larger than 64 KiB"),
    (pkcs8(ec.generate_private_key(ec.SECP256R1())), "type _?(EllipticCurve|EC)"),
    (pkcs8(rsa.generate_private_key(65537, 1024)), "type _?RSA"),
    (pkcs8(ed448.Ed448PrivateKey.generate()), "type Ed448"),
    (pkcs8(x448.X448PrivateKey.generate()), "type X448"),
]


@pytest.mark.parametrize(("content", "reason"), FOREIGN, ids=[reason for _, reason in FOREIGN])
def test_foreign_files_are_explained(path, content, reason):
    put(path, content)
    with pytest.raises(IdentityFileError, match=reason) as caught:
        Identity.load(path)
    assert str(path) in str(caught.value)


def test_the_wrong_number_of_keys(path):
    IDENTITY.save(path)
    first, second = blocks_of(path)
    for content, counts in (
        (second, "0 Ed25519 and 1 X25519"),
        (first + first, "2 Ed25519"),
        (first + second * 2, "2 X"),
    ):
        put(path, content)
        with pytest.raises(IdentityFileError, match=counts):
            Identity.load(path)


def test_exchanged_blocks_are_noticed(path, tmp_path):
    IDENTITY.save(path)
    OTHER.save(tmp_path / "other.pem")
    mine, foreign = blocks_of(path)[0], blocks_of(tmp_path / "other.pem")[0]
    put(path, path.read_text().replace(mine, foreign))
    with pytest.raises(IdentityFileError, match=f"says it is {IDENTITY.id} but its key is {OTHER.id}"):
        Identity.load(path)


def test_a_static_key_can_not_be_planted_beside_an_encrypted_identity(path, tmp_path):
    save_cheaply(path, "secret")
    OTHER.save(tmp_path / "other.pem")
    put(path, blocks_of(path)[0] + blocks_of(tmp_path / "other.pem")[1])
    with pytest.raises(IdentityFileError, match="an encrypted and an unencrypted block"):
        Identity.load(path, "secret")


def test_encryption_with_another_kdf_is_read(path):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(IDENTITY.seed)
    put(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    assert Identity.load(path, b"x").id == IDENTITY.id


def test_every_damaged_byte_of_an_encrypted_file_is_refused_or_harmless(path):
    """No byte leads to another identity, another error than ours, or a crash."""
    save_cheaply(path, "secret")
    text = path.read_bytes()
    for place in range(len(text)):
        put(path, text[:place] + bytes([text[place] ^ 1 << place % 6]) + text[place + 1 :])
        with contextlib.suppress(IdentityFileError):
            assert Identity.load(path, "secret").id == IDENTITY.id


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(IdentityFileMissing, match=r"'dtp keygen --identity .*' makes one"):
        Identity.load(tmp_path / "none.pem")
    with pytest.raises(IdentityFileError, match="Is a directory"):
        Identity.load(tmp_path)
    file = put(tmp_path / "file", "")
    for overwrite in (False, True):
        with pytest.raises(IdentityFileError, match=f"can't write {file}.*: Not a directory"):
            IDENTITY.save(file / "identity.pem", overwrite=overwrite)
    with pytest.raises(IdentityFileError, match="can't write"):
        IDENTITY.save(tmp_path, overwrite=True)
