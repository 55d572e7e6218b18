"""What a daemon serves: the services that it exposes and the places that it forwards, including those that a reload
has replaced and that still have streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from socket import socket
from typing import TYPE_CHECKING

from dtp.daemon.config.model import Config, Expose, Telemetry
from dtp.daemon.patience import Patience
from dtp.daemon.policies import Clock, Denial, Policies, Policy
from dtp.daemon.reasons import Reason
from dtp.daemon.relays.absent import Absent
from dtp.daemon.relays.expose import Exposed
from dtp.daemon.relays.forward import FORWARDS, Forwarded
from dtp.daemon.relays.kept import Kept
from dtp.daemon.relays.ledger import ServedSession
from dtp.daemon.relays.pools import Pools
from dtp.identity import PeerId
from dtp.net.connection import Connection

if TYPE_CHECKING:
    from dtp.daemon.observing.telemetry import Spans

#: Sockets that are already listening, by the address or URL in the configuration.
Adopted = Mapping[str, Sequence[socket]]


class ExposedServices:
    """The exposed services by name, and the stores that they answer from."""

    def __init__(
        self,
        make: Callable[[Expose, Sequence[Policy]], Exposed],
        kept: Kept,
        policies: Policies,
        charge_of: Callable[[Expose], Callable[[Connection, int], Awaitable[str]] | None],
        patience: float,
    ) -> None:
        """`charge_of` returns what gets requests of a service paid; `patience` is that of `Absent`."""
        self.by_name: dict[str, Exposed] = {}
        self.absent = Absent(lambda: (each.ledger for each in self.list_parts()), patience)
        self._make, self.kept, self._policies, self._charge_of = make, kept, policies, charge_of
        self._replaced: list[Exposed] = []
        self._spans: Spans | None = None

    def find_service(self, name: str) -> Exposed | None:
        """Return the service of that name as it is served now, or None."""
        return self.by_name.get(name)

    def list_parts(self) -> list[Exposed]:
        """Return all services, including replaced ones that still have streams."""
        self._replaced = [each for each in self._replaced if each.ledger.open or each.active]
        return [*self.by_name.values(), *self._replaced]

    def list_sessions(self) -> Iterator[ServedSession]:
        """Return the open sessions of all services."""
        return (session for each in self.list_parts() for session in each.ledger.open)

    @property
    def active(self) -> int:
        """The number of admitted streams that aren't over."""
        return sum(each.active for each in self.list_parts())

    def tell_spans(self, settings: Telemetry | None, identity: PeerId) -> None:
        """Report each stream that ends to a collector, if one is configured."""
        if settings is not None:
            from dtp.daemon.observing.telemetry import Spans

            self._spans = Spans(settings, str(identity))

    def apply_config(self, config: Config, everywhere: Sequence[Policy]) -> list[Exposed]:
        """Apply `config`, keeping services that it doesn't change, and return those that were replaced.
        `everywhere` are the policies that hold for all services together."""
        fresh: dict[str, Exposed] = {}
        for expose in config.expose:
            known = self.by_name.get(expose.service)
            policies = (*everywhere, *self._policies.policies_for(expose.service, expose.rules))
            if known is not None and known.config == expose and known.chain.policies == policies:
                fresh[expose.service] = known
            else:
                self.kept.equip_service(made := self._make(expose, policies))
                made.log.spans, made.absent, fresh[expose.service] = self._spans, self.absent, made
        replaced = [known for name, known in self.by_name.items() if fresh.get(name) is not known]
        for known in replaced:
            known.backends.stop_checks()
        self._replaced += replaced
        self.by_name = fresh
        self._policies.keep_scopes({"", *fresh})
        for exposed in fresh.values():
            exposed.charge = self._charge_of(exposed.config)
            exposed.backends.start_checks()
        return replaced

    async def close_stores(self, config: Config | None) -> None:
        """Close the stores that `config` doesn't have, after ending their streams. Clients ask again elsewhere for
        what wasn't answered."""
        for each in self.list_parts() if config is None else self._replaced:
            if self.kept.ends_with(each, config):
                each.abort_streams(Reason.DRAINING)
                await each.wait_empty()
        await self.kept.keep_stores(config)

    async def close_spans(self) -> None:
        """Send the last spans. Idempotent."""
        if self._spans is not None:
            await self._spans.exporter.close()
            self._spans = None


class ForwardedPlaces:
    """The places at which local programs connect, and the connections over which they are forwarded."""

    def __init__(
        self, pools: Pools, no_room: Callable[[], Denial | None], patience: Patience, clock: Clock
    ) -> None:
        """`no_room`, `patience` and `clock` are passed to each `Forwarded`."""
        self.by_place: dict[str, Forwarded] = {}
        self.pools = pools
        self._no_room, self._patience, self._clock = no_room, patience, clock
        self._replaced: list[Forwarded] = []

    def list_parts(self) -> list[Forwarded]:
        """Return all forwards, including replaced ones that still have streams."""
        self._replaced = [each for each in self._replaced if each.ledger.open or each.active]
        return [*self.by_place.values(), *self._replaced]

    async def listen_locally(self, config: Config, adopted: Adopted) -> dict[str, Forwarded]:
        """Start listening at the places of `config` that are new, and return their forwards. Raise `ListenError`,
        after which none of them listens."""
        made: dict[str, Forwarded] = {}
        try:
            for forward in config.forward:
                place = forward.name
                if place not in self.by_place:
                    serve, pool = FORWARDS[forward.kind], self.pools.pool_of(forward)
                    made[place] = serve(
                        forward, pool, self.pools.pool_for, self._no_room, self._patience, clock=self._clock
                    )
                    await made[place].start_listening(list(adopted.get(place, ())))
        except BaseException:
            for forwarded in made.values():
                await forwarded.stop_listening()
            raise
        return made

    async def apply_config(self, config: Config, made: Mapping[str, Forwarded]) -> None:
        """Apply `config`, for which the new forwards `made` are listening already."""
        wanted = {forward.name: forward for forward in config.forward}
        for place, known in list(self.by_place.items()):
            if place not in wanted:
                await known.stop_listening()
                self._replaced.append(self.by_place.pop(place))
            elif known.config != wanted[place]:
                known.config, known.pool = wanted[place], self.pools.pool_of(wanted[place])
        self.by_place.update(made)
        self.pools.keep_used(forwarded.pool for forwarded in self.by_place.values())

    @property
    def sockets(self) -> dict[str, list[socket]]:
        """The listening sockets by place. They stay owned by the forwards."""
        return {place: forwarded.sockets for place, forwarded in self.by_place.items()}

    async def stop_listening(self) -> None:
        """Accept no more programs; open streams go on."""
        for forwarded in self.by_place.values():
            await forwarded.stop_listening()

    async def hand_over(self) -> None:
        """Accept no more programs without removing the sockets' files: another process has copies of the
        sockets."""
        for forwarded in self.by_place.values():
            await forwarded.hand_over()
