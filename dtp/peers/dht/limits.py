"""The limits of a DHT node, each with its default and its reason. All times are seconds, all sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DhtLimits:
    """What one node spends on others, and how it looks things up. docs/dht.md has the limits as a table."""

    # ------------------------------------------------------------------------------------------------ Kademlia
    #: Contacts in a bucket, and nodes that keep a record: so many that they hardly ever all leave within an hour.
    k: int = 20
    #: Questions of a lookup that are under way at once, while it comes nearer: Kademlia's own figure.
    alpha: int = 3
    #: Paths of a lookup that share no node, so that one liar can mislead only one of them.
    paths: int = 3
    #: Nearest nodes that each path asks, before all nearest ones are asked together.
    path_width: int = 3
    #: Questions of one lookup in total, so that a liar with ever nearer nodes can't keep it going forever.
    lookup_questions: int = 120
    #: Nodes that have stored a record when `put_record` ends; the others follow.
    enough: int = 8

    # ----------------------------------------------------------------------------------- routing table
    #: Contacts of one subnet (IPv4 /24, IPv6 /48) in a bucket, and among the nodes that a lookup asks: addresses of
    #: one subnet are cheap. Doesn't apply to loopback, private addresses and private networks.
    per_subnet: int = 2
    #: Contacts of one subnet in the whole table.
    table_per_subnet: int = 10
    #: Nodes that wait for a place in a full bucket: enough for a bucket that loses several at once.
    replacements: int = 8
    #: Unanswered questions after which a contact is removed from the table: one or two may be lost packets.
    failures: int = 2
    #: Silence after which an old contact in a full bucket has to answer, or else makes room for a newcomer.
    questionable: float = 300.0
    #: Time between two probes of the contact that was silent longest. It gets shorter after each that is gone, and
    #: longer after each that answers, so the cost of upkeep depends on how many leave.
    probe_shortest: float = 1.0
    probe_longest: float = 60.0
    #: Time after which a bucket without lookups is refreshed (Kademlia, 2.3).
    refresh: float = 3600.0
    #: Proven nodes that are remembered besides the table, so that the next lookup needs no new proofs. 400 bytes
    #: each.
    known: int = 512

    # ------------------------------------------------------------------------------------------- time
    #: The expected round trip before any was measured.
    first_timeout: float = 1.0
    #: The shortest time until another node is asked as well: a LAN answers sooner, but one question too many is
    #: cheap.
    shortest_timeout: float = 0.005
    #: The shortest time until a question counts as unanswered, so that a node that is busy for a moment isn't given
    #: up.
    shortest_patience: float = 0.25
    #: The longest time until another node is asked as well.
    longest_timeout: float = 2.0
    #: After so many times the current timeout a question counts as unanswered. It is sent again once, after the
    #: first.
    give_up: float = 3.0
    #: Lifetime of a token; the previous one stays valid as long. A stolen token can be used for an hour at most.
    token_lifetime: float = 1800.0
    #: Time between two attempts to find other nodes while there are none, doubled each time up to the longest.
    bootstrap_shortest: float = 1.0
    bootstrap_longest: float = 60.0
    #: How long an operation waits for the first node to answer, before it fails.
    join_patience: float = 5.0
    #: Time between two checks whether any other node is known; host names are then resolved anew.
    join_every: float = 60.0

    # ------------------------------------------------------------------------------------- records
    #: Time between two publications of a record to the nodes now nearest to it. Of 20 nodes with a mean lifetime of
    #: ten minutes 7 are left then.
    republish: float = 600.0
    #: Records that are kept, and their bytes: what a small device can spare.
    records: int = 4096
    record_bytes: int = 2 * 1024 * 1024
    #: Records of one author. New authors are easy to make; the next limit bounds these.
    per_author: int = 128
    #: Records from one subnet (IPv4 /24, IPv6 /48); there is no such limit for loopback and private addresses.
    per_source: int = 512
    #: Providers of one content that are kept. An answer has room for seven of them, in turns.
    providers: int = 64
    #: How many nodes nearer to a record a node may know and still keep the record, as a multiple of k.
    far: int = 2

    # ----------------------------------------------------------------------------------------- quotas
    #: Questions that a proven node may ask per second, and at once: a twentieth of a core.
    peer_rate: float = 500.0
    peer_burst: float = 2000.0
    #: First contacts (tokens) per second for one subnet, and at once.
    stranger_rate: float = 50.0
    stranger_burst: float = 200.0
    #: Proofs (one signature verified and one made: 120 us) per second for all nodes together, and at once: a tenth
    #: of a core.
    proof_rate: float = 800.0
    proof_burst: float = 3000.0
    #: Nodes and subnets whose quotas are remembered; the least recently seen are dropped first.
    quota_entries: int = 4096
    #: Requests per minute of one node to be dialled by others.
    checks_per_minute: float = 6.0
    #: Our own questions that wait for answers; any more fail at once.
    pending: int = 1024

    # ---------------------------------------------------------------------------------- reachability
    #: Time between two checks whether others can reach this node.
    check: float = 1800.0
    #: How long the packet of such a check may take.
    check_patience: float = 10.0
    #: Nodes that are asked to have this one dialled.
    check_askers: int = 3


DEFAULT_LIMITS = DhtLimits()
