"""Module `host`."""

from __future__ import annotations

from dataclasses import replace

from .base import Base
from .things import (
    DAY,
    ENDPOINTS,
    FIREWALL,
    HEARTBEAT,
    Endpoint,
    Host,
    Operator,
    Refused,
    Service,
    Terms,
    check_key,
    need,
)


class Hosts(Base):
    """Hosts with their beacons, services, operators, lists and endpoints."""

    def host_new(self, sender: str, ttl_ms: int) -> None:
        need(10_000 <= ttl_ms <= DAY, "host", "EBadTtl")
        host = self.name("host")
        self.hosts[host] = Host(sender, ttl_ms, sender)
        self.caps[host] = sender
        self.tell("HostCreated", host=host, beacon="beacon-" + host, owner=sender)

    def owned(self, host: str, cap: str) -> Host:
        need(cap == host, "host", "EWrongCap")
        return self.hosts[host]

    def service(self, host: Host, service: int) -> Service:
        need(service in host.services, "host", "ENoService")
        return host.services[service]

    def changed(self, name: str, service: int) -> None:
        entry = self.hosts[name].services[service]
        self.tell(
            "ServiceChanged", host=name, service=service, revision=entry.terms.revision, open=entry.open
        )

    def add_service(self, sender, host, cap, service, terms, mode, rate, window, post_fee, terms_hash, kind):
        terms.check()
        rate.check()
        entry = self.owned(host, cap)
        need(mode in (0, 1, 2), "host", "EBadMode")
        need(service not in entry.services, "host", "EServiceExists")
        need(len(entry.services) < 32, "host", "ETooManyServices")
        need(len(terms_hash) in (0, 32), "host", "EBadTermsHash")
        entry.revision += 1
        terms = replace(terms, revision=entry.revision)
        entry.services[service] = Service(kind, False, mode, terms, rate, window, post_fee, terms_hash)
        self.changed(host, service)

    def set_terms(self, sender, host, cap, service, terms, terms_hash):
        terms.check()
        entry = self.owned(host, cap)
        need(len(terms_hash) in (0, 32), "host", "EBadTermsHash")
        found = self.service(entry, service)
        entry.revision += 1
        found.terms, found.terms_hash = replace(terms, revision=entry.revision), terms_hash
        self.changed(host, service)

    def set_open(self, sender, host, cap, service, open):
        self.service(self.owned(host, cap), service).open = open
        self.changed(host, service)

    def set_mode(self, sender, host, cap, service, mode):
        entry = self.owned(host, cap)
        need(mode in (0, 1, 2), "host", "EBadMode")
        self.service(entry, service).mode = mode
        self.changed(host, service)

    def set_limits(self, sender, host, cap, service, rate, window, post_fee):
        rate.check()
        found = self.service(self.owned(host, cap), service)
        found.rate, found.window, found.post_fee = rate, window, post_fee
        self.changed(host, service)

    def remove_service(self, sender, host, cap, service):
        entry = self.owned(host, cap)
        self.service(entry, service)
        del entry.services[service]
        self.tell("ServiceRemoved", host=host, service=service)

    def set_owner(self, sender, host, cap, owner):
        entry = self.owned(host, cap)
        need(owner != "nobody", "host", "ENoOwner")
        entry.owner = owner
        self.tell("OwnerChanged", host=host, owner=owner)

    def host_migrate(self, sender, host, beacon, cap):
        need(cap == host, "host", "EWrongCap")
        need(beacon == host, "host", "EForeignBeacon")
        raise Refused("host", "EUpToDate")

    def host_destroy(self, sender, host, beacon, cap):
        entry = self.owned(host, cap)
        need(beacon == host, "host", "EForeignBeacon")
        need(not entry.allow and not entry.deny, "host", "EListsNotEmpty")
        del self.hosts[host]

    def new_operator(self, sender, host, cap, rights, to):
        entry = self.owned(host, cap)
        need(0 < rights <= 15, "host", "EBadRights")
        self.operators[self.name("operator")] = Operator(host, to, entry.generation, rights)

    def revoke_operators(self, sender, host, beacon, cap):
        entry = self.owned(host, cap)
        need(beacon == host, "host", "EForeignBeacon")
        entry.generation += 1
        self.tell("OperatorsRevoked", host=host, generation=entry.generation)

    def destroy_cap(self, sender, host):
        del self.caps[host]

    def destroy_operator(self, sender, operator):
        del self.operators[operator]

    def operating(self, host: str, operator: str, right: int) -> Host:
        cap = self.operators[operator]
        need(cap.host == host, "host", "EWrongCap")
        need(cap.generation == self.hosts[host].generation, "host", "ERevokedOperator")
        need(bool(cap.rights & right), "host", "EMissingRight")
        return self.hosts[host]

    def edit_list(self, sender, host, operator, which, add, addresses):
        entry = self.operating(host, operator, FIREWALL)
        members = (entry.allow, entry.deny)[which]
        members.update(addresses) if add else members.difference_update(addresses)
        self.tell("ListChanged", host=host, list=which, added=add, addresses=tuple(addresses))

    def set_ttl(self, sender, host, cap, ttl_ms):
        need(cap == host, "host", "EWrongCap")
        need(10_000 <= ttl_ms <= DAY, "host", "EBadTtl")
        self.hosts[host].ttl_ms = ttl_ms

    def endpoint(self, host: Host, key: bytes) -> Endpoint:
        for found in host.endpoints:
            if found.key == key:
                return found
        raise Refused("host", "ENoEndpoint")

    def enroll(self, sender, host, operator, key, weight, role, generation, hint):
        entry = self.operating(host, operator, ENDPOINTS)
        check_key(key, "host")
        need(role in (0, 1), "host", "EBadRole")
        need(len(hint) <= 512, "host", "EHintTooLong")
        need(all(e.key != key for e in entry.endpoints), "host", "EEndpointExists")
        need(len(entry.endpoints) < 16, "host", "ETooManyEndpoints")
        entry.endpoints.append(Endpoint(key, weight, role, generation, hint))
        self.tell("EndpointChanged", host=host, key=key, generation=generation, enrolled=True)

    def configure(self, sender, host, operator, key, weight, role, hint):
        entry = self.operating(host, operator, ENDPOINTS)
        need(role in (0, 1), "host", "EBadRole")
        need(len(hint) <= 512, "host", "EHintTooLong")
        found = self.endpoint(entry, key)
        found.weight, found.role, found.hint = weight, role, hint
        self.tell("EndpointChanged", host=host, key=key, generation=found.generation, enrolled=True)

    def withdraw(self, sender, host, operator, key):
        entry = self.operating(host, operator, ENDPOINTS)
        found = self.endpoint(entry, key)
        at, last = entry.endpoints.index(found), entry.endpoints.pop()
        if last is not found:
            entry.endpoints[at] = last  # a vector of Move is kept whole by its last element
        self.tell("EndpointChanged", host=host, key=key, generation=found.generation, enrolled=False)

    def heartbeat(self, sender, host, operator, key, generation, load):
        found = self.endpoint(self.operating(host, operator, HEARTBEAT), key)
        need(generation >= found.generation, "host", "EFenced")
        found.generation, found.seen_ms, found.load = generation, self.now, load

    def suspect(self, sender, host, operator, key, generation, seen_ms):
        found = self.endpoint(self.operating(host, operator, ENDPOINTS), key)
        need((found.generation, found.seen_ms) == (generation, seen_ms), "host", "EHeardSince")
        found.seen_ms = 0
        self.tell("EndpointChanged", host=host, key=key, generation=generation, enrolled=True)

    def admissible(self, host: str, service: int, who: str) -> Service:
        found = self.reachable(host, service, who)
        need(found.mode != 1 or who in self.hosts[host].allow, "host", "ENotAllowed")
        return found

    def reachable(self, host: str, service: int, who: str) -> Service:
        found = self.service(self.hosts[host], service)
        need(found.open, "host", "EServiceClosed")
        need(who not in self.hosts[host].deny, "host", "EDenied")
        return found

    def admit(self, host: str, beacon: str, service: int, who: str, with_pass: bool) -> Terms:
        need(beacon == host, "host", "EForeignBeacon")
        found = self.admissible(host, service, who)
        need(found.mode != 2 or with_pass, "host", "ENeedsPass")
        entry = self.hosts[host]
        fresh = any(e.seen_ms and self.now <= e.seen_ms + entry.ttl_ms for e in entry.endpoints)
        need(fresh, "host", "ENotFresh")
        return replace(found.terms)
