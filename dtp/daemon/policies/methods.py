"""Which methods may be called: shell patterns for JSON-RPC methods or HTTP requests."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

from dtp.daemon.config.model import MethodRule
from dtp.daemon.policies.base import Denial, Event, MethodCall, Moment, Policy
from dtp.daemon.reasons import Reason

#: The number of methods whose verdict is cached: more than any service has, and few enough that making up names
#: gains nothing.
_REMEMBERED = 1024
#: The most characters of a cached method. A call's method may be as long as a message, so caching all of them could
#: take a GiB.
_LONGEST = 256


def pattern_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern that matches what any of `patterns` does: `*`, `?` and `[...]` as in a shell,
    case-sensitive.

    An HTTP request is "GET /path"; a pattern without a blank, such as "GET", matches its verb.
    """
    known = tuple(patterns)
    spelled = [translate(one) for one in known]
    spelled += [translate(f"{one} *") for one in known if " " not in one]
    return re.compile("|".join(spelled) or r"(?!)")


def folded(method: str) -> str:
    """Return one spelling for all that differ in case or in Unicode form, since many backends treat them alike.

    Takes quadratic time for names beyond ASCII. Such names are short when they get here, or have nothing to
    normalize.
    """
    if method.isascii():
        return method.lower()
    return unicodedata.normalize("NFKC", method).casefold()


class Net:
    """Patterns of methods in rules against them, which another spelling or a slash at the end can't evade."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._pattern = pattern_of(folded(one) for one in patterns)

    def matches_method(self, method: str) -> bool:
        """True if one of the patterns matches `method`."""
        name = folded(method)
        return self._pattern.match(name) is not None or (
            name.endswith("/") and self._pattern.match(name.rstrip("/")) is not None
        )


class MethodsPolicy(Policy):
    """A method has to match one of `allow`, if there are any, and none of `deny`. Streams without methods pass.

    Allowed methods have to be spelt exactly as in the rule; denied ones are denied in any case of letters.
    """

    name = "methods"
    asks = (MethodCall,)
    by_method = True

    def __init__(self, rule: MethodRule) -> None:
        self._allow = pattern_of(rule.allow) if rule.allow else None
        self._deny = Net(rule.deny)
        self._allowed = lru_cache(_REMEMBERED)(self._matches_rule)

    def _matches_rule(self, method: str) -> bool:
        if self._deny.matches_method(method):
            return False
        return self._allow is None or self._allow.match(method) is not None

    def check_event(self, event: Event, now: Moment) -> Denial | None:
        """Deny a method by its name."""
        assert isinstance(event, MethodCall)
        # Alternative readings come from the caller, too, and can be as long as the caller likes.
        kept = len(event.method) <= _LONGEST and not event.also
        if not event.method or all(
            map(self._allowed if kept else self._matches_rule, (event.method, *event.also))
        ):
            return None
        return self.make_denial(Reason.METHOD, f"the method {event.method[:64]!r} is not allowed here")
