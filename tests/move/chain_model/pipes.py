"""Module `pipe`."""

from __future__ import annotations

from .channels import Channels
from .things import (
    BY_CLIENT,
    BY_SERVER,
    CREDIT_BYTES,
    SUI,
    TO_CLIENT,
    TO_SERVER,
    Channel,
    Closed,
    Pipe,
    need,
)


class Pipes(Channels):
    """Frames, acknowledgements, credits and messages."""

    def direction(self, entry: Channel, sender: str) -> int:
        need(sender in (entry.client, entry.server), "channel", "ENotParty")
        return TO_SERVER if sender == entry.client else TO_CLIENT

    def pipe_open(self, sender, channel):
        entry = self.opened(channel)
        way = self.direction(entry, sender)
        if entry.free[way]:
            old = entry.free[way].pop()
        else:
            need(len(entry.acks[way]) < 16, "channel", "ETooManyPipes")
            old = Closed(len(entry.acks[way]), 0, 0, 0)
            entry.acks[way].append(0)
        pipe = Pipe(channel, sender, way, old.index, old.sequence, old.requests_tat, old.bytes_tat)
        self.pipes[self.name("pipe")] = pipe

    def pipe_send(self, sender, pipe, channel, host, flags, size):
        found = self.pipes[pipe]
        need(found.channel == channel, "pipe", "EForeignChannel")
        entry = self.channels[channel]
        need(entry.host == host, "pipe", "EForeignHost")
        self.opened(channel)
        service = self.reachable(host, entry.service, entry.client)
        ahead = found.sequence - entry.acks[found.direction][found.index]
        need(service.window == 0 or ahead < service.window, "pipe", "EOverWindow")
        need(size <= 131_072, "pipe", "EFrameTooLarge")
        if found.direction == TO_SERVER:
            rate = service.rate
            found.requests_tat = self.gcra(found.requests_tat, rate.request_interval, rate.request_burst, 1)
            found.bytes_tat = self.gcra(found.bytes_tat, rate.byte_interval, rate.byte_burst, size)
        found.sequence += 1
        found.metered += size
        self.tell(
            "Frame",
            channel=channel,
            direction=found.direction,
            index=found.index,
            sequence=found.sequence,
            flags=flags,
            size=size,
        )

    def gcra(self, tat: int, interval: int, burst: int, units: int) -> int:
        if not interval:
            return tat
        now = self.now * 1_000_000
        after = max(tat, now) + interval * units
        need(after <= now + interval * burst, "pipe", "EOverRate")
        return after

    def pipe_ack(self, sender, channel, index, sequence):
        entry = self.opened(channel)
        way = 1 - self.direction(entry, sender)
        need(index < len(entry.acks[way]), "channel", "ENoPipe")
        need(sequence > entry.acks[way][index], "channel", "EStaleAck")
        for closed in entry.free[way]:
            need(closed.index != index or sequence <= closed.sequence, "channel", "EUnsentAck")
        entry.acks[way][index] = sequence
        entry.active_ms = self.now

    def creditable(self, channel: str, bearer: int) -> Channel:
        entry = self.unsettled(channel)
        need(entry.terms.bearer == bearer, "channel", "ENotBorne")
        self.claimable(entry)
        return entry

    def collect_credit(self, sender, pipe, channel):
        found = self.pipes[pipe]
        need(found.channel == channel, "pipe", "EForeignChannel")
        need(found.direction == TO_CLIENT, "pipe", "EWrongDirection")
        entry = self.creditable(channel, BY_CLIENT)
        count = min(entry.bytes - entry.credited_bytes, found.metered - found.credited)
        credit = entry.terms.credit
        due = count * credit // CREDIT_BYTES
        amount = min(due, entry.unowed, self.room(entry))
        if amount < due:
            count = -(-amount * CREDIT_BYTES // credit)
        entry.credited_bytes += count
        entry.credited += amount
        entry.epoch_spent += amount
        entry.balance -= amount
        self.note(found, count, amount)
        self.pay(sender, amount)

    def charge_credit(self, sender, pipe, channel):
        found = self.pipes[pipe]
        need(found.channel == channel, "pipe", "EForeignChannel")
        need(found.direction == TO_SERVER, "pipe", "EWrongDirection")
        entry = self.creditable(channel, BY_SERVER)
        count = min(entry.bytes - entry.credited_bytes, found.metered - found.credited)
        amount = count * entry.terms.credit // CREDIT_BYTES
        entry.credited_bytes += count
        entry.credit_due += amount
        self.note(found, count, amount)

    def note(self, pipe: Pipe, count: int, amount: int) -> None:
        pipe.credited += count
        self.tell(
            "Credited",
            channel=pipe.channel,
            direction=pipe.direction,
            index=pipe.index,
            bytes=count,
            amount=amount,
        )

    def pipe_close(self, sender, pipe, channel):
        found = self.pipes[pipe]
        need(found.channel == channel, "pipe", "EForeignChannel")
        entry = self.channels[channel]
        acks = entry.acks[found.direction]
        acks[found.index] = min(acks[found.index], found.sequence)
        left = Closed(found.index, found.sequence, found.requests_tat, found.bytes_tat)
        entry.free[found.direction].append(left)
        del self.pipes[pipe]

    def pipe_destroy(self, sender, pipe):
        del self.pipes[pipe]

    def post(self, sender, host, service, reply_key, size, fee):
        found = self.admissible(host, service, sender)
        need(found.terms.coin == SUI, "host", "EWrongCoin")
        need(len(reply_key) == 32, "pipe", "EBadReplyKey")
        need(size <= 131_072, "pipe", "EFrameTooLarge")
        need(size > 0, "pipe", "EEmptyMessage")
        need(fee >= found.post_fee, "pipe", "EFeeTooSmall")
        self.pay(sender, -fee)
        self.pay(self.hosts[host].owner, fee)
        self.tell(
            "Posted",
            host=host,
            service=service,
            sender=sender,
            reply_key=reply_key,
            fee=fee,
            coin=SUI,
            size=size,
        )
