"""The limits of a DHT node, each with its default and its reason. All times are seconds, all sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DhtLimits:
    """What one node spends on others, and how it looks for things. docs/dht.md has them as a table."""

    # ------------------------------------------------------------------------------------------------ Kademlia
    #: Contacts in a bucket, and nodes that keep a record: so many that hardly ever all of them go within an hour.
    k: int = 20
    #: Questions of a lookup that are on their way at once, until it comes no nearer: Kademlia's own figure.
    alpha: int = 3
    #: Paths of a lookup that share no node, so that one liar leads only one of them astray.
    paths: int = 3
    #: Nearest nodes that each path asks before all nearest ones are asked together.
    path_width: int = 3
    #: Questions that one lookup asks in all: a liar with ever nearer nodes can't keep it busy for ever.
    lookup_questions: int = 120
    #: Nodes that have a record before `put_record` is done; the others get it meanwhile.
    enough: int = 8

    # ----------------------------------------------------------------------------------- routing table
    #: Contacts of one subnet (IPv4 /24, IPv6 /48) in a bucket, and among the nodes that a lookup asks: addresses
    #: of one subnet are cheap. Not on loopback, on private addresses and in networks with a key.
    per_subnet: int = 2
    #: Contacts of one subnet in the whole table.
    table_per_subnet: int = 10
    #: Nodes that wait for a place in a full bucket: enough for a bucket that loses some at once.
    replacements: int = 8
    #: Unanswered questions after which a contact leaves the table: one may be a lost packet, or two.
    failures: int = 2
    #: Silence after which an old contact in a full bucket has to answer, or makes room for a newcomer.
    questionable: float = 300.0
    #: From one look at the contact that was silent longest to the next. Shorter after each that is gone, longer after
    #: each that answers: what upkeep costs follows from how many leave.
    probe_shortest: float = 1.0
    probe_longest: float = 60.0
    #: A bucket that nothing was looked up in for so long is refreshed (Kademlia, 2.3).
    refresh: float = 3600.0
    #: Proven nodes that are remembered besides the table, so that the next lookup needs no new proof. 400 bytes each.
    known: int = 512

    # ------------------------------------------------------------------------------------------- time
    #: What a round trip is expected to take before any was seen.
    first_timeout: float = 1.0
    #: The shortest time until another node is asked beside it: a LAN answers sooner, one too many is cheap.
    shortest_timeout: float = 0.005
    #: The shortest time until a question counts as unanswered: a node that was busy for a moment isn't given up.
    shortest_patience: float = 0.25
    #: The longest.
    longest_timeout: float = 2.0
    #: Times that before a question counts as unanswered. It is sent again once, after the first.
    give_up: float = 3.0
    #: How long a token is good for; so is the one before. Stolen ones are of use for an hour at most.
    token_lifetime: float = 1800.0
    #: From one attempt to find others to the next, while there are none: doubled up to the longest.
    bootstrap_shortest: float = 1.0
    bootstrap_longest: float = 60.0
    #: How long an operation waits for the first node to answer, before it says that there is none.
    join_patience: float = 5.0
    #: From one look whether any other is known to the next; names of hosts are looked up anew.
    join_every: float = 60.0

    # ------------------------------------------------------------------------------------- records
    #: From one time that a record is given to the nodes now nearest to it to the next. Of 20 nodes that live ten
    #: minutes in the mean 7 are left after it.
    republish: float = 600.0
    #: Records that are kept, and their bytes: what a small device can spare.
    records: int = 4096
    record_bytes: int = 2 * 1024 * 1024
    #: Records of one author. Authors are cheap to make; what bounds them is the next one.
    per_author: int = 128
    #: Records that came from one subnet (IPv4 /24, IPv6 /48); from loopback and private addresses as many as fit.
    per_source: int = 512
    #: Providers of one content that are kept. An answer has room for seven, and takes turns.
    providers: int = 64
    #: Nodes nearer to a record, as multiples of k, that one may know and keep it all the same.
    far: int = 2

    # ----------------------------------------------------------------------------------------- quotas
    #: Questions a second that a proven node may ask, and at once: a twentieth of a core.
    peer_rate: float = 500.0
    peer_burst: float = 2000.0
    #: First contacts (tokens) a second for one subnet, and at once.
    stranger_rate: float = 50.0
    stranger_burst: float = 200.0
    #: Proofs (a signature checked, one made: 120 us) a second for all together, and at once: a tenth of a core.
    proof_rate: float = 800.0
    proof_burst: float = 3000.0
    #: Nodes and subnets whose quotas are remembered; the least recently seen is forgotten first.
    quota_entries: int = 4096
    #: Requests a minute of one node to have it dialled by others.
    checks_per_minute: float = 6.0
    #: Questions of ours that wait for an answer; more are refused here.
    pending: int = 1024

    # ---------------------------------------------------------------------------------- reachability
    #: From one check whether others can reach this node to the next.
    check: float = 1800.0
    #: How long the dialled packet may take.
    check_patience: float = 10.0
    #: Nodes that are asked to have this one dialled.
    check_askers: int = 3


DEFAULT_LIMITS = DhtLimits()
