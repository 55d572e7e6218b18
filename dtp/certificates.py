"""Which faults of a server's certificate only a person mends."""

from __future__ import annotations

import ssl
from typing import Final

#: OpenSSL's codes (X509_V_ERR_*) for a certificate of another name or address, of an issuer that isn't trusted, and
#: for one that was revoked. One that has expired is not among them: servers renew theirs by themselves, if late.
_FOR_GOOD: Final = {18, 19, 20, 21, 23, 62, 64}


def is_refused_for_good(error: BaseException | None) -> bool:
    """Return whether `error`, or what it comes from, is a server's certificate that won't do later either."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_code in _FOR_GOOD
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
