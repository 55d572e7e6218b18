"""What both sides of a rival need to trust each other: a certificate and a key file, made once a run."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path

#: The name in the certificate.
HOST = "bench.invalid"


def make(folder: Path) -> None:
    """Write `cert.pem`, `key.pem` (P-256, the usual choice) and `shared.key` into `folder`."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name_of_file, content in (("key.pem", private), ("shared.key", os.urandom(32))):
        (folder / name_of_file).touch(mode=0o600)
        (folder / name_of_file).write_bytes(content)


def context(folder: str, *, server: bool, mutual: bool = False) -> ssl.SSLContext:
    """A TLS 1.3 context with the run's certificate; `mutual`: the client has to prove itself, too."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    if server or mutual:
        made.load_cert_chain(Path(folder, "cert.pem"), Path(folder, "key.pem"))
    if not server or mutual:
        made.load_verify_locations(Path(folder, "cert.pem"))
        made.verify_mode = ssl.CERT_REQUIRED
    return made
