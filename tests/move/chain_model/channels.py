"""Module `channel`."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from .hosts import Hosts
from .things import (
    CLOSED,
    CLOSING,
    DRAINING,
    MIB_SHIFT,
    OPEN,
    SUI,
    Channel,
    Lane,
    Refused,
    Voucher,
    check_key,
    need,
)


class Channels(Hosts):
    """Escrow between a client and a server."""

    def open(self, sender, host, beacon, service, revision, deposit, key, coin=SUI):
        terms = self.admit(host, beacon, service, sender, False)
        need(terms.coin == coin, "host", "EWrongCoin")
        need(deposit >= terms.min_deposit, "channel", "EDepositTooSmall")
        need(terms.revision == revision, "channel", "ETermsChanged")
        self.new_channel(sender, host, service, terms, deposit, None, key)

    def open_with_pass(self, sender, host, beacon, plan, pass_, revision, key):
        entry = self.plans[plan]
        held = self.passes[pass_]
        service = self.plans[held.plan].service if held.plan in self.plans else self.pass_service[pass_]
        need(entry.host == host, "pass", "EForeignHost")
        need(held.plan == plan, "pass", "EForeignPass")
        need(pass_ in entry.accounts, "pass", "EUnknownPass")
        account = entry.accounts[pass_]
        need(not account.revoked, "pass", "ERevoked")
        need(self.elapsed(entry, pass_) < account.periods, "pass", "ELapsed")  # type: ignore[attr-defined]
        terms = self.admit(host, beacon, service, sender, True)
        need(terms.revision == revision, "channel", "ETermsChanged")
        free = replace(terms, coin=entry.coin, price_request=0, price_mib=0, min_deposit=0, credit=0)
        self.new_channel(sender, host, service, free, 0, pass_, key)

    def new_channel(self, sender, host, service, terms, deposit, pass_, key):
        server = self.hosts[host].owner
        need(sender != server, "channel", "ESelfChannel")
        check_key(key, "channel")
        self.pay(sender, -deposit)
        name = self.name("channel")
        self.channels[name] = Channel(
            host, service, sender, server, terms, pass_, deposit, deposit, self.now, self.now, self.epoch
        )
        self.tell(
            "ChannelOpened",
            channel=name,
            host=host,
            service=service,
            client=sender,
            server=server,
            deposit=deposit,
            revision=terms.revision,
            pass_=pass_,
            coin=terms.coin,
        )
        self.push_lane(name, key)

    def push_lane(self, name: str, key: str | bytes) -> None:
        check_key(key, "channel")
        lanes = self.channels[name].lanes
        lanes.append(Lane(key))
        self.tell("LaneChanged", channel=name, lane=len(lanes) - 1, key=key)

    def opened(self, name: str) -> Channel:
        need(self.channels[name].state == OPEN, "channel", "EChannelClosed")
        return self.channels[name]

    def unsettled(self, name: str) -> Channel:
        need(self.channels[name].state <= CLOSING, "channel", "EChannelClosed")
        return self.channels[name]

    def top_up(self, sender, channel, amount):
        entry = self.opened(channel)
        need(entry.pass_ is None, "channel", "EUnderPass")
        least = 0 if sender == entry.client else entry.terms.min_deposit
        need(amount > 0 and amount >= least, "channel", "EDepositTooSmall")
        self.pay(sender, -amount)
        entry.deposited += amount
        entry.balance += amount
        self.tell("ToppedUp", channel=channel, amount=amount, coin=entry.terms.coin)

    def add_lane(self, sender, channel, key):
        entry = self.opened(channel)
        need(sender == entry.client, "channel", "ENotClient")
        need(len(entry.lanes) < 16, "channel", "ETooManyLanes")
        self.push_lane(channel, key)

    def rotate_lane(self, sender, channel, lane, key):
        entry = self.opened(channel)
        need(sender == entry.client, "channel", "ENotClient")
        check_key(key, "channel")
        need(lane < len(entry.lanes), "channel", "ENoLane")
        found = entry.lanes[lane]
        need(self.now >= found.old_until_ms, "channel", "ERotationPending")
        found.old_key, found.key, found.old_until_ms = found.key, key, self.now + entry.terms.claim_ms
        self.tell("LaneChanged", channel=channel, lane=lane, key=key)

    def claim(self, sender, channel, voucher):
        need(sender == self.channels[channel].server, "channel", "ENotServer")
        self.pay(sender, self.accept(sender, channel, voucher))

    def claim_for(self, sender, channel, voucher):
        self.pay(self.channels[channel].server, self.accept(sender, channel, voucher))

    def claimable(self, entry: Channel) -> None:
        need(entry.state == OPEN or self.now < entry.claims_until_ms, "channel", "EClaimWindowOver")

    def accept(self, sender: str, name: str, voucher: Voucher) -> int:
        entry = self.unsettled(name)
        self.claimable(entry)
        need(voucher.channel == name, "channel", "EForeignVoucher")
        need(voucher.lane < len(entry.lanes), "channel", "ENoLane")
        need(self.now <= voucher.not_after_ms, "channel", "EVoucherExpired")
        terms = entry.terms
        worth = (voucher.requests * terms.price_request << MIB_SHIFT) + voucher.bytes * terms.price_mib
        need(voucher.amount <= worth >> MIB_SHIFT, "channel", "EOverPrice")
        preimage = voucher.preimage or b""
        if voucher.lock is not None:
            need(len(voucher.lock) == 32, "channel", "EBadHashLock")
            fits = len(preimage) == 32 and hashlib.sha256(preimage).digest() == voucher.lock
            need(fits, "channel", "EWrongPreimage")
        lane = entry.lanes[voucher.lane]
        by_server = sender == entry.server
        more = max(0, voucher.amount - lane.amount)
        requests = max(0, voucher.requests - lane.requests) if by_server else 0
        count = max(0, voucher.bytes - lane.bytes) if by_server else 0
        if not (more or requests or count):
            raise Refused("channel", "EStaleVoucher" if voucher.amount == lane.amount else "EShrunkVoucher")
        honoured = entry.closing_ms if entry.state == CLOSING else self.now
        keys = [lane.key] + ([lane.old_key] if honoured < lane.old_until_ms else [])
        need(voucher.signer in keys and not voucher.spoiled, "channel", "EBadSignature")
        lane.sequence = max(lane.sequence, voucher.sequence)
        lane.amount += more
        lane.requests += requests
        lane.bytes += count
        entry.owed += more
        entry.requests += requests
        entry.bytes += count
        entry.active_ms = self.now
        paid = self.take_due(entry)
        self.tell(
            "Claimed",
            channel=name,
            lane=voucher.lane,
            sequence=voucher.sequence,
            amount=voucher.amount,
            paid=paid,
            preimage=preimage,
            coin=terms.coin,
        )
        return paid

    def room(self, entry: Channel) -> int:
        if entry.epoch != self.epoch:
            entry.epoch, entry.epoch_spent = self.epoch, 0
        return entry.terms.epoch_cap - entry.epoch_spent

    def take_due(self, entry: Channel) -> int:
        """What the server is paid now; credits of the client are kept back."""
        due = min(entry.reserved, self.room(entry))
        kept = min(entry.credit_due, due)
        entry.owed -= due
        entry.credit_due -= kept
        entry.epoch_spent += due
        entry.credited += kept
        entry.claimed += due - kept
        entry.client_credit += kept
        entry.balance -= due
        return due - kept

    def pay_owed(self, sender, channel):
        entry = self.unsettled(channel)
        paid = self.take_due(entry)
        self.tell("OwedPaid", channel=channel, amount=paid, coin=entry.terms.coin)
        self.pay(entry.server, paid)

    def request_close(self, sender, channel):
        entry = self.opened(channel)
        idle = self.now >= entry.active_ms + entry.terms.idle_ms
        need(sender == entry.client or idle, "channel", "ETooEarly")
        entry.state, entry.closing_ms = CLOSING, self.now
        self.tell("CloseRequested", channel=channel, until_ms=entry.claims_until_ms)

    def finalize(self, sender, channel):
        entry = self.channels[channel]
        need(entry.state in (CLOSING, DRAINING), "channel", "ENotClosing")
        need(entry.state == DRAINING or self.now >= entry.claims_until_ms, "channel", "ETooEarly")
        self.settle(channel, self.take_due(entry))

    def release(self, sender, channel):
        entry = self.unsettled(channel)
        need(sender == entry.server, "channel", "ENotServer")
        self.settle(channel, self.take_due(entry))

    def settle(self, name: str, to_server: int) -> None:
        entry = self.channels[name]
        free = entry.unowed
        entry.refunded += free
        entry.balance -= free
        to_client = free + entry.client_credit
        entry.client_credit = 0
        entry.state = DRAINING if entry.balance else CLOSED
        self.tell(
            "Settled",
            channel=name,
            to_server=to_server,
            to_client=to_client,
            state=entry.state,
            coin=entry.terms.coin,
        )
        self.pay(entry.server, to_server)
        self.pay(entry.client, to_client)

    def close_agreed(self, sender, channel, total, not_after_ms, key, signer, spoiled=False):
        """`key` is the account whose key is shown (or bytes), `signer` who signed."""
        entry = self.unsettled(channel)
        need(sender in (entry.client, entry.server), "channel", "ENotParty")
        need(self.now <= not_after_ms, "channel", "EAgreementExpired")
        check_key(key, "channel")
        other = entry.server if sender == entry.client else entry.client
        need(key == other, "channel", "EWrongSigner")
        need(signer == key and not spoiled, "channel", "EBadSignature")
        need(total >= entry.claimed, "channel", "EAgreedTooLow")
        rest = total - entry.claimed
        need(rest <= entry.balance, "channel", "EAgreedTooHigh")
        entry.claimed, entry.owed = total, 0
        entry.balance -= rest
        self.settle(channel, rest)

    def destroy(self, sender, channel):
        entry = self.channels[channel]
        need(sender == entry.client, "channel", "ENotClient")
        need(entry.state == CLOSED, "channel", "ENotClosed")
        del self.channels[channel]

    def channel_migrate(self, sender, channel):
        need(sender == self.channels[channel].server, "channel", "ENotServer")
        raise Refused("channel", "EUpToDate")
