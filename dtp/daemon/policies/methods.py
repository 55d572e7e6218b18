"""Which methods may be called: patterns, as in a shell, of JSON-RPC methods or of HTTP requests."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

from dtp.daemon.config.model import MethodRule
from dtp.daemon.policies.base import Denial, Event, MethodCall, Moment, Policy
from dtp.daemon.reasons import Reason

#: Methods whose verdict is remembered: more than any service has, few enough that inventing names gains nothing.
_REMEMBERED = 1024
#: Characters of a method that is remembered. A call's may have as many as a message: a GiB, if all of them were kept.
_LONGEST = 256


def pattern_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return what matches as one of `patterns` means: `*`, `?` and `[...]` as in a shell, and a case that counts.

    An HTTP request is "GET /path"; a pattern without a blank, such as "GET", means its verb.
    """
    known = tuple(patterns)
    spelled = [translate(one) for one in known]
    spelled += [translate(f"{one} *") for one in known if " " not in one]
    return re.compile("|".join(spelled) or r"(?!)")


def folded(method: str) -> str:
    """Return one spelling for all that differ in case or in forms of one character: to many backends they are one.

    Takes quadratic time where a name is beyond ASCII: such a one is short when it comes here, or has nothing to
    normalize.
    """
    if method.isascii():
        return method.lower()
    return unicodedata.normalize("NFKC", method).casefold()


class Net:
    """What rules against methods go by: nobody escapes it by another spelling, or a slash at the end."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._pattern = pattern_of(folded(one) for one in patterns)

    def matches_method(self, method: str) -> bool:
        """True if one of the patterns means `method`."""
        name = folded(method)
        return self._pattern.match(name) is not None or (
            name.endswith("/") and self._pattern.match(name.rstrip("/")) is not None
        )


class MethodsPolicy(Policy):
    """A method has to match one of `allow`, if there are any, and none of `deny`. Streams without methods pass.

    What is allowed has to be spelt as the rule spells it; what is denied is so in any case of letters.
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
        """Deny a method by its name alone."""
        assert isinstance(event, MethodCall)
        # What it may mean as well comes from the caller, too, and is as long as the caller likes.
        kept = len(event.method) <= _LONGEST and not event.also
        if not event.method or all(
            map(self._allowed if kept else self._matches_rule, (event.method, *event.also))
        ):
            return None
        return self.make_denial(Reason.METHOD, f"the method {event.method[:64]!r} is not allowed here")
