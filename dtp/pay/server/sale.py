"""What sells a service: the parts of the server's side, tied to each other, for `dtp.serve` and for `dtpd`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from dtp.chain.firewall import Firewall
from dtp.chain.node.client import ChainClient
from dtp.pay.claims import Policy
from dtp.pay.server.book import BookLimits, ChannelBook
from dtp.pay.server.cashier import Cashier, claiming
from dtp.pay.server.gate import TicketGate
from dtp.pay.server.ledger import Ledger
from dtp.pay.server.pass_proofs import PassProofs
from dtp.pay.server.quota import PassQuotas
from dtp.pay.store.holding import VoucherStore
from dtp.pay.store.journal import Journal


@dataclass(frozen=True)
class SaleParts:
    """Who is let in (`firewall`, `gate`, by what `book` remembers of channels), what connections used and paid
    (`ledger`), and what is claimed (`cashier`), all over one `journal`."""

    journal: Journal[VoucherStore]
    firewall: Firewall
    book: ChannelBook
    gate: TicketGate
    ledger: Ledger
    cashier: Cashier


def assemble_sale(
    chain: ChainClient,
    firewall: Firewall,
    store: VoucherStore,
    policy: Policy,
    *,
    unclaimed_in: Callable[[str], int | None] | None = None,
    limits: BookLimits | None = None,
    least_revision: int = 0,
    clock: Callable[[], float] = time.time,
) -> SaleParts:
    """Return the parts for what `firewall` lets in, whose vouchers are kept in `store` and claimed by `policy`.

    `unclaimed_in` says how much of a coin is served for passes that aren't proven yet; without, `policy` does.
    `limits` are the book's, `least_revision` is the gate's.
    """
    journal = Journal(store)
    book = ChannelBook(chain, limits=limits or BookLimits(), clock=clock)
    proofs = PassProofs(claiming(chain, journal), unclaimed_in or policy.unclaimed_in)
    quotas = PassQuotas(chain, journal, firewall, proofs, clock)
    gate = TicketGate(book, firewall, journal, quotas, least_revision=least_revision, clock=clock)
    ledger = Ledger(book, journal, chain, quotas, gate.now_ms, policy)
    cashier = Cashier(
        chain,
        journal,
        gate.now_ms,
        policy=policy,
        busy=lambda: ledger.channels,
        on_channel=book.add_read,
        on_claimed=ledger.on_claimed,
    )
    ledger.on_channel = cashier.watch_close
    ledger.on_unclaimed = cashier.claim_soon
    return SaleParts(journal, firewall, book, gate, ledger, cashier)
