"""TLS on stream sockets, for `wss://`. Certificates are always verified; 1.2 is the oldest version."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import socket
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final

from cryptography import x509

from dtp.carriers.errors import CarrierUrlError
from dtp.carriers.stream_socket import StreamSocketCarrier

log = logging.getLogger("dtp.carriers")


def client_context(url: str, ca: str | None) -> ssl.SSLContext:
    """Return what a client needs: trust in the authorities of this system, or only in those of the PEM file `ca`.

    Raises `CarrierUrlError` when the file can't be used; `url` is for its message.
    """
    try:
        return _client_context(ca, os.stat(ca).st_mtime_ns if ca is not None else 0)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CarrierUrlError(f"{url}: ca={ca} is not a PEM file of certificates: {error}") from error


@lru_cache(maxsize=16)
def _client_context(ca: str | None, _changed: int) -> ssl.SSLContext:
    """Kept, because reading the system's authorities takes some 10 ms; anew when the file was changed."""
    return _strict(ssl.create_default_context(cafile=ca))


#: Codes of OpenSSL for a certificate that isn't valid yet, or no more (X509_verify_cert_error_string(3)).
_TIMES = {9, 10}


def explain_tls_error(error: ssl.SSLError) -> str:
    """Return what went wrong. Where it is the time of a certificate, with that of this machine: either may be
    wrong."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _TIMES:
        return f"{error}; by this machine's clock it is {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}"
    return str(error)


_DAY: Final = 24 * 3600.0
#: Seconds before a certificate's end in which it is said that it isn't renewed: most are renewed a month before.
_LATE: Final = 7 * _DAY


class ServerTls:
    """What a listener has for TLS: read again whenever its files have changed, since certificates end after some
    weeks, and a listener runs for months. One that isn't renewed is told of in the log: its clients refuse it, and
    tell nobody here why."""

    def __init__(
        self, url: str, cert: str | None, key: str | None, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises as `server_context`. `clock` is Unix time."""
        self._url, self._cert, self._key = url, cert, key
        self._clock, self._told = clock, 0.0
        self._seen = self._look_at_files()
        self._context = server_context(url, cert, key)
        self._ends = self._read_end()
        self._tell_end()

    def _look_at_files(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in filter(None, (self._cert, self._key)):
            try:
                there = os.stat(path)
            except OSError:  # between an old one and its successor
                found.append(None)
            else:
                found.append((there.st_mtime_ns, there.st_size, there.st_ino))
        return found

    @property
    def context(self) -> ssl.SSLContext:
        """What the next connection is to use. Files that can't be used leave it as it was, which is logged once."""
        seen = self._look_at_files()
        if seen != self._seen:
            self._seen = seen
            try:
                self._context = server_context(self._url, self._cert, self._key)
            except CarrierUrlError as error:
                log.warning("%s; what was there before stays in use", error)
            else:
                log.info("%s: the certificate was read again", self._url)
                self._ends = self._read_end()
        self._tell_end()
        return self._context

    def _read_end(self) -> float:
        """Return until when the certificate is good, Unix time; for ever where its file was taken away just now."""
        assert self._cert is not None
        try:
            found = x509.load_pem_x509_certificate(Path(self._cert).read_bytes())
        except (OSError, ValueError):  # then it is read again by whoever comes next
            return math.inf
        return found.not_valid_after_utc.timestamp()

    def _tell_end(self) -> None:
        """Say once a day that the certificate ends, or has ended, however the clock goes."""
        now = self._clock()
        if now < self._ends - _LATE or abs(now - self._told) < _DAY:
            return
        self._told = now
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._ends))
        what = "ends" if now < self._ends else "has ended, and clients refuse it: it ended"
        log.warning("%s: the certificate %s %s; renew %s", self._url, what, when, self._cert)


def server_context(url: str, cert: str | None, key: str | None) -> ssl.SSLContext:
    """Return what a server needs: its certificate chain and private key, as paths of PEM files.

    Raises `CarrierUrlError`, without asking for a passphrase, when they can't be used.
    """
    if cert is None:
        raise CarrierUrlError(f"{url}: to listen at wss takes cert=/chain.pem and key=/key.pem")
    context = _strict(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))

    def no_passphrase() -> str:
        raise ValueError("the key has a passphrase")

    try:
        context.load_cert_chain(cert, key, no_passphrase)
    except (OSError, ValueError) as error:
        raise CarrierUrlError(f"{url}: cert={cert} and key={key or cert} can't be used: {error}") from error
    return context


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without renegotiation, writing never has to wait for reading: the carrier relies on that.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsSocketCarrier(StreamSocketCarrier):
    """A carrier over a TLS socket whose handshake is done."""

    scheme: ClassVar[str] = "tls"
    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, *, source: str, remote: str) -> None:
        super().__init__(sock, source=source, remote=remote)
        self._recv_into, self._send = self._tls_recv_into, self._tls_send

    def detach(self) -> None:
        """Do nothing: the keys stay here."""

    def _stop_watching(self) -> None:
        super()._stop_watching()
        self._recv_into, self._send = self._sock.recv_into, self._sock.send  # they would keep what has them

    def _tls_recv_into(self, buffer: memoryview) -> int:
        try:
            return self._sock.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _tls_send(self, data: memoryview | bytearray) -> int:
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # OpenSSL has taken part of it and wants the same bytes again: they stay at the front of what
            # waits.
            raise BlockingIOError from None

    def _on_readable(self) -> bool:
        # What OpenSSL has decrypted already makes no socket readable: read until it has nothing.
        more = self._is_open() and not self._paused and super()._on_readable()
        if more:
            self._loop.call_soon(self._on_readable)
        return more

    def resume_reading(self) -> None:
        if self._paused:
            super().resume_reading()
            self._loop.call_soon(self._on_readable)

    def _shutdown_writing(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._sock.unwrap()  # sends close_notify; the other side's is not waited for
        self._sock.shutdown(socket.SHUT_WR)
