"""`dtp host service` and `remove`: what a host serves, what it costs, and who may come."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from dtp.cli.accounts import WalletOptions, account_options, executed_record
from dtp.cli.durations import duration
from dtp.cli.host_caps import ServiceNumber, host_option, owned_host, print_record, service_argument
from dtp.cli.output import print_result
from dtp.cli.show import table
from dtp.cli.terms import (
    BEARERS,
    KINDS,
    MODES,
    change_lines,
    changed_rate,
    changed_terms,
    changes,
    kind_numbers,
    service_record,
)
from dtp.errors import ConfigError

if TYPE_CHECKING:
    from dtp.chain import ChainClient, Program
    from dtp.chain.host import Host, Service


@click.command()
@service_argument
@host_option
@click.option("--kind", type=click.Choice(KINDS), help="What it speaks. [default: tcp; it stays]")
@click.option("--mode", type=click.Choice(MODES), help="Who may open channels. [default: open]")
@click.option("--price-request", metavar="AMOUNT", help="Price of a request. [default: 0]")
@click.option("--price-mib", metavar="AMOUNT", help="Price of a MiB. [default: 0]")
@click.option("--min-deposit", metavar="AMOUNT", help="Least deposit of a channel. [default: 0]")
@click.option("--epoch-cap", metavar="AMOUNT",
              help="Most that may be claimed in one epoch, or none. [default: none]")  # fmt: skip
@click.option("--bearer", type=click.Choice(BEARERS), help="Who bears transport cost. [default: split]")
@click.option("--credit", metavar="AMOUNT", help="What a frame of 16 KiB is credited with. [default: 0]")
@click.option("--idle", type=duration(whole=True),
              help="After this time unused, anyone may ask for a channel's close. [default: 1d]")  # fmt: skip
@click.option("--claim", type=duration(whole=True),
              help="How long claims count after a close was asked for. [default: 1h]")  # fmt: skip
@click.option("--coin", metavar="TYPE", help="The coin that all amounts are of. [default: SUI]")
@click.option("--rate-requests", metavar="RATE",
              help="Connections of an account, and frames of a pipe: 100/s, 10/m, none. [default: none]")  # fmt: skip
@click.option("--burst-requests", metavar="NUMBER", type=click.IntRange(1),
              help="... and how many at once. [default: those of the rate's time]")  # fmt: skip
@click.option("--rate-bytes", metavar="RATE",
              help="What a pipe may carry to the host: 10MiB/s, none. [default: none]")  # fmt: skip
@click.option("--burst-bytes", metavar="SIZE",
              help="... and how much at once. [default: that of the rate's time]")  # fmt: skip
@click.option("--window", type=click.IntRange(0),
              help="Frames that a pipe may be ahead; 0: no limit. [default: 0]")  # fmt: skip
@click.option("--post-fee", metavar="AMOUNT", help="Least fee of a message. [default: 0]")
@click.option("--open/--closed", "is_open", default=None, help="Whether it takes channels. [default: open]")
@account_options
def service(number: ServiceNumber, host_id: str | None, account: WalletOptions, **options: Any) -> None:
    """Add a service to a host, or change it: settings that aren't given stay as they are. The defaults are for a new
    service.

    Open channels keep their terms, except channels from when the service was free: once it has a price, they aren't
    served any more.

    SERVICE is its name, as addresses have it (dtp://0x.../files), or its number on chain.

    An AMOUNT is 0.001SUI or 1000000MIST, or a number of MIST; of another coin a number of its smallest unit.
    """

    async def work(chain: ChainClient) -> tuple[dict[str, Any], list[str]]:
        from dtp.pay.hosting import note_named

        found, cap = await owned_host(chain, host_id)
        note_named(chain, number.name)
        known = found.services.get(number)
        wanted = _wanted(number, known, options)
        record = {"host": found.id, "service": number, "open": wanted.open, "added": known is None}
        changed = {} if known is None else changes(service_record(known), service_record(wanted))
        if known is not None and not changed:
            return {**record, "changes": {}}, []
        executed = await chain.execute(_program(found, cap, number, wanted))
        lines = [] if known is None else change_lines(changed, known.terms, wanted.terms)
        return {**record, "changes": changed, **executed_record(executed)}, lines

    record, lines = account.run_connected(work)
    shown = {name: value for name, value in record.items() if name != "changes"}
    text = "\n".join([table(shown), *(lines or ["nothing to change"] if not record["added"] else [])])
    print_result(record, text)


def _wanted(number: int, known: Service | None, options: dict[str, Any]) -> Service:
    """Return the service as it is to be: what isn't named stays, or is as in a new one. Raises `ConfigError`."""
    from dtp.chain.host import RateLimit, Service
    from dtp.chain.wallet import parse_amount

    terms = changed_terms(None if known is None else known.terms, options)
    kinds = kind_numbers()
    base = known or Service(kinds["tcp"], True, 0, terms, RateLimit(), 0, 0, b"")
    kind = base.kind if options["kind"] is None else kinds[options["kind"]]
    if known is not None and known.kind != kind:
        raise ConfigError(
            f"service {number} speaks {service_record(known)['kind']}, and a service's kind stays: "
            "use another number, or 'dtp host remove' it first"
        )
    if terms.coin != base.terms.coin and base.post_fee and options["post_fee"] is None:
        raise ConfigError("--coin changes what amounts are of: name --post-fee, too, in the new coin's units")
    fee, mode, window, is_open = (options[each] for each in ("post_fee", "mode", "window", "is_open"))
    return dataclasses.replace(
        base,
        kind=kind,
        open=base.open if is_open is None else is_open,
        mode=base.mode if mode is None else MODES.index(mode),
        # The chain counts the revision.
        terms=terms if known is None else dataclasses.replace(terms, revision=known.terms.revision),
        rate=RateLimit(
            *(
                changed_rate(
                    getattr(base.rate, each), each, options[f"rate_{each}"], options[f"burst_{each}"]
                )
                for each in ("requests", "bytes")
            )
        ),
        window=base.window if window is None else window,
        post_fee=base.post_fee if fee is None else parse_amount(fee, terms.coin),
    )


def _program(found: Host, cap: str, number: int, wanted: Service) -> Program:
    """Return what makes a service so, and touches nothing that is so already."""
    from dtp.chain import Program
    from dtp.chain import host as module

    program, place = Program(), (found.id, cap, number)
    known = found.services.get(number)
    if known is None:
        module.add_service(
            program,
            *place,
            wanted.terms,
            kind=wanted.kind,
            mode=wanted.mode,
            rate=wanted.rate,
            window=wanted.window,
            post_fee=wanted.post_fee,
        )
        known = dataclasses.replace(wanted, open=False)  # as all are that are new
    if known.terms != wanted.terms:
        module.set_terms(program, *place, wanted.terms, known.terms_hash)
    if known.mode != wanted.mode:
        module.set_mode(program, *place, wanted.mode)
    if (known.rate, known.window, known.post_fee) != (wanted.rate, wanted.window, wanted.post_fee):
        module.set_limits(program, *place, wanted.rate, wanted.window, wanted.post_fee)
    if known.open != wanted.open:
        module.set_open(program, *place, wanted.open)
    return program


@click.command()
@service_argument
@host_option
@account_options
def remove(number: int, host_id: str | None, account: WalletOptions) -> None:
    """Remove a service from a host. Open channels settle by their own terms; their pipes stop."""

    async def work(chain: ChainClient) -> dict[str, Any]:
        from dtp.chain import Program
        from dtp.chain import host as module

        found, cap = await owned_host(chain, host_id)
        program = Program()
        module.remove_service(program, found.id, cap, number)
        executed = await chain.execute(program)
        return {"host": found.id, "service": number, **executed_record(executed)}

    print_record(account.run_connected(work))
