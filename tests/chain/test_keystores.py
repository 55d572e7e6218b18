"""Files of keys: what is written is read back, what others may read is refused, no message quotes a key."""

import base64
import json
import stat

import pytest

from dtp.chain.errors import KeystoreError
from dtp.chain.keystores import address_in, load_key, load_sui_keystore, save_key, sui_signer
from dtp.chain.signer import KeySigner, Scheme
from dtp.identity import Identity, IdentityFileError, IdentityFileExists, PassphraseWrong
from dtp.identity.private import OpenToOthers


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("passphrase", [None, "secret"])
def test_keys_are_kept(tmp_path, scheme, passphrase):
    signer = KeySigner.generate(scheme)
    path = save_key(signer, tmp_path / "key.pem", passphrase)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    back = load_key(path, passphrase)
    assert (back.address, back.flagged) == (signer.address, signer.flagged)
    assert address_in(path) == signer.address
    assert signer.flagged[1:] not in path.read_bytes()
    if passphrase:
        assert b"ENCRYPTED" in path.read_bytes()


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_passphrase_is_asked_for_only_when_needed(tmp_path, scheme):
    asked = []
    plain = save_key(KeySigner.generate(scheme), tmp_path / "plain.pem")
    sealed = save_key(KeySigner.generate(scheme), tmp_path / "sealed.pem", "x")

    def ask():
        asked.append(1)
        return "x"

    load_key(plain, ask)
    assert not asked
    load_key(sealed, ask)
    assert asked == [1]


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_wrong_passphrase(tmp_path, scheme):
    path = save_key(KeySigner.generate(scheme), tmp_path / "key.pem", "right")
    with pytest.raises((KeystoreError, PassphraseWrong)):
        load_key(path, "wrong")


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_file_that_is_there_is_left_alone(tmp_path, scheme):
    path = tmp_path / "key.pem"
    path.write_text("mine")
    with pytest.raises((KeystoreError, IdentityFileExists)):
        save_key(KeySigner.generate(scheme), path)
    assert path.read_text() == "mine"


def test_an_identity_file_is_an_account(tmp_path):
    identity = Identity.generate()
    identity.save(tmp_path / "identity.pem")
    assert load_key(tmp_path / "identity.pem").address == identity.id.sui_address
    assert address_in(tmp_path / "identity.pem") == identity.id.sui_address


def test_files_that_others_may_read_are_refused(tmp_path):
    path = save_key(KeySigner.generate(Scheme.SECP256K1), tmp_path / "key.pem")
    path.chmod(0o644)
    with pytest.raises(OpenToOthers, match="chmod 600"):
        load_key(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----\n", b"\xff" * 99]
)
def test_files_that_are_no_keys(tmp_path, content):
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises((KeystoreError, IdentityFileError)):
        load_key(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(KeystoreError, match="can't read"):
        load_key(tmp_path / "none.pem")


def sui_folder(tmp_path, signers, active=None):
    tmp_path.mkdir(exist_ok=True)
    keystore = tmp_path / "sui.keystore"
    keystore.write_text(json.dumps([base64.b64encode(each.flagged).decode() for each in signers]))
    keystore.chmod(0o600)
    if active is not None:
        (tmp_path / "client.yaml").write_text(f'---\nkeystore:\n  File: x\nactive_address: "{active}"\n')
    return tmp_path


def test_the_sui_command_lines_keys(tmp_path):
    signers = [KeySigner.generate(scheme) for scheme in Scheme]
    folder = sui_folder(tmp_path, signers, signers[1].address)
    assert list(load_sui_keystore(folder)) == [each.address for each in signers]
    assert sui_signer(folder=folder).address == signers[1].address
    assert sui_signer(signers[2].address, folder).scheme is Scheme.SECP256R1


def test_the_folder_comes_from_the_environment(tmp_path, monkeypatch):
    signer = KeySigner.generate()
    monkeypatch.setenv("SUI_CONFIG_DIR", str(sui_folder(tmp_path, [signer], signer.address)))
    assert sui_signer().address == signer.address


def test_an_account_that_is_not_in_it(tmp_path):
    folder = sui_folder(tmp_path, [KeySigner.generate()], "0x5")
    with pytest.raises(KeystoreError, match=r"no key for 0x0+5"):
        sui_signer(folder=folder)
    (folder / "client.yaml").write_text("keystore: {}\n")
    with pytest.raises(KeystoreError, match="names no active_address"):
        sui_signer(folder=folder)
    (folder / "client.yaml").unlink()
    with pytest.raises(KeystoreError, match=r"can't read .*client\.yaml"):
        sui_signer(folder=folder)


@pytest.mark.parametrize("text", ["", "{}", '["AAAA"]', '["not base64!"]', "[5]", '["' + "A" * 44 + '"'])
def test_broken_keystores_are_not_quoted(tmp_path, text):
    path = tmp_path / "sui.keystore"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeystoreError) as refused:
        load_sui_keystore(tmp_path)
    assert "AAAA" not in str(refused.value)
