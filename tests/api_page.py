"""Makes `docs/api.md`, the list of public names, out of the code: `python -P tests/api_page.py > docs/api.md`."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from pathlib import Path

DTP = Path(__file__).parents[1] / "dtp"

HEAD = """\
# Names

What can be imported, by module, and what each is in a line; `help(name)` has the rest. What is in `dtp` itself
is loaded when it is used, so that importing it stays fast. Names that are on no line here may change in any version.

Every error is a `dtp.DtpError`; the [guide](guide.md#errors) says whose fault each family is.
"""

#: Module -> what is said of it, and its public names where they aren't all of `__all__`.
MODULES: dict[str, tuple[str, str]] = {
    "dtp": ("What most programs need.", ""),
    "dtp.identity": ("Identities and their files.", ""),
    "dtp.identity.sealing": (
        "Sealing bytes to identities.",
        "SealBroken SealError open_sealed seal",
    ),
    "dtp.socket": ("Blocking sockets; `dtp.socket` is also there behind `import dtp`.", ""),
    "dtp.net.resolver": (
        "Where peers are: for programs that look them up by themselves.",
        "Candidate Directory HostResolver HostPlace NotResolved ResolveFailed Resolver StaticResolver",
    ),
    "dtp.files": ("Files over streams.", ""),
    "dtp.node.node": ("What a node is made of.", "KnownPeer NodeError NodeLimits"),
    "dtp.peers.book": ("Peers that are known.", "BookNotKept Known PeerBook"),
    "dtp.peers.links": (
        "Links between nodes, for protocols of your own.",
        "LinkLimits PeerLink PeerLinks TooManyLinks",
    ),
    "dtp.peers.private": ("Private networks.", "NetworkKeyError NotOfNetwork PrivateNetwork"),
    "dtp.peers.record": (
        "What peers say of themselves.",
        "PeerRecord PeerRecordError PeerRecordExpired PeerRecordForged PeerRecordFromFuture RecordNotSigned",
    ),
    "dtp.session.codes": (
        "Codes and errors of connections.",
        "CloseCode CloseDetail ConnectionClosed ConnectionLost ConnectionRefused DatagramTooLarge HandshakeError"
        " HandshakeRefused ProtocolError Refusal Refuse StreamClosed StreamRefused StreamReset TooManyStreams"
        " WrongIdentity",
    ),
    "dtp.peers.dht": ("Public facts among peers.", ""),
    "dtp.messaging.person.messenger": ("Messages to people.", "Message Messenger"),
    "dtp.messaging.person.group": ("Groups of people.", "Group Room"),
    "dtp.messaging.person.groups.group_topics": ("Large groups.", "GroupTopics"),
    "dtp.messaging.calls.calling": ("Calls of people.", "ActiveCall CallEnded Calls Media"),
    "dtp.messaging.calls.media": ("Media of calls.", "MediaEnd"),
    "dtp.messaging.calls.book": ("Where a call is.", "Phase"),
    "dtp.messaging.calls.signals": ("Why a call is over.", "Reason"),
    "dtp.messaging.person.contacts": ("Whom one knows.", "Contact"),
    "dtp.messaging.person.notices": ("What happens besides messages.", "Notice What"),
    "dtp.messaging.person.rent": ("Room in mailboxes that have a price.", "Rent"),
    "dtp.messaging.person.posts": ("Messages through the chain.", "ChainPosts"),
    "dtp.messaging.mailbox.selling": ("Selling it.", "selling_room"),
    "dtp.messaging.person.attachments": (
        "Files of messages.",
        "Attachment AttachmentBroken AttachmentGone AttachmentTooLarge",
    ),
    "dtp.messaging.person.card_sources": (
        "Where cards are found.",
        "CardEnded CardRolledBack CardSource ChainCards DhtCards",
    ),
    "dtp.messaging.cards": ("Who somebody is.", ""),
    "dtp.messaging.mailbox": ("Mailboxes.", ""),
    "dtp.messaging.login.client": (
        "Names and passwords.",
        "LoginGone LoginSession Remember login recover_account register_account",
    ),
    "dtp.messaging.login.vault": ("What an account has.", "Setting Vault"),
    "dtp.messaging.login.service": ("A login server.", "LoginService"),
    "dtp.messaging.login.store": ("What a login server keeps.", "LoginStore invitation_hash"),
    "dtp.messaging.login.sessions": ("Who is logged in.", "Login Sessions"),
    "dtp.messaging.login.limits": ("What a login server gives.", "LoginLimits"),
    "dtp.messaging.login.protocol": ("What a login server says.", "LOGIN_SERVICE LoginRefused Refusal"),
    "dtp.messaging.login.errors": ("What goes wrong with logins.", "*"),
    "dtp.messaging.tips.line": ("Lines for tips.", "TipLine"),
    "dtp.messaging.tips.line_store": ("What a line keeps.", "KeptLetter Tip"),
    "dtp.messaging.tips.finding": ("How lines are found.", "ask_card find_line serve_card"),
    "dtp.messaging.tips.posts": (
        "Tips through the chain.",
        "answer_post collect_posts read_answers send_tip",
    ),
    "dtp.messaging.tips.tipster": ("Tips to lines.", "Seen Tipster"),
    "dtp.messaging.tips.words": ("Words to come back with.", "TipWords"),
    "dtp.messaging.tips.letter": ("What is written under tips.", "ReplyTo TipLetter"),
    "dtp.messaging.tips.errors": (
        "What goes wrong with tips.",
        "LetterForged LineUnreached MetadataKept TipError WordsWrong",
    ),
    "dtp.messaging.tips.reward": (
        "Rewards for tips.",
        "Claim ClaimForged RewardError RewardGone claim_reward lock_reward read_reward refund_reward",
    ),
    "dtp.messaging.errors": ("What goes wrong with messages.", "*"),
    "dtp.gossip": ("Topics without a broker.", ""),
    "dtp.gossip.engines.nats": ("Topics over NATS.", "NatsEngine"),
    "dtp.gossip.engines.zenoh": ("Topics over zenoh.", "ZenohEngine"),
    "dtp.gossip.engines.mqtt": ("Devices that speak MQTT.", "MqttBridge"),
    "dtp.broadcast.producing": ("Shows: a producer's end.", "Broadcast parse_show"),
    "dtp.broadcast.hearing": ("Shows: a listener's end.", "HeardSegment ShowStream listen_to"),
    "dtp.broadcast.places": ("Where a show is served.", "Place addresses_of"),
    "dtp.broadcast.parents": ("How long a listener waits.", "Patience"),
    "dtp.broadcast.sealed.admission": (
        "Who gets the keys of a sealed show.",
        "Guests KeyAdmission Refusal SeatClaim",
    ),
    "dtp.broadcast.sealed.opening": ("Opening what is sealed, such as a recording.", "Opener"),
    "dtp.broadcast.money.tickets": (
        "Keys of a show for those who hold tickets or passes.",
        "PassHolders TicketHolders seat_claim",
    ),
    "dtp.broadcast.recording": ("Shows in files.", "Recorder Recording RecordingError"),
    "dtp.broadcast.format": (
        "What a show is made of.",
        "Announcement Equivocation Flag Position Segment SegmentSigner Verifier",
    ),
    "dtp.broadcast.money.air": ("Shows: when they are on air.", "Air Hysteresis"),
    "dtp.broadcast.money.audience": ("Shows: what listeners paid to say.", "AudienceLine Entry"),
    "dtp.broadcast.money.shows": (
        "Shows on the chain.",
        "NoShare NotProducer Refund ShowTerms ask buy collect create end fund read_show refund shares_of",
    ),
    "dtp.broadcast.gateway.server": ("Shows in browsers.", "Gateway GatewayError"),
    "dtp.broadcast.errors": ("What goes wrong with shows.", "*"),
    "dtp.carriers": ("What carries bytes, for a carrier of your own.", ""),
    "dtp.carriers.errors": ("What goes wrong with carriers.", "*"),
    "dtp.pay.terms": ("What a side risks and spends.", "Exposure Prices Spending Usage"),
    "dtp.pay.claims": ("When a server claims.", "Policy"),
    "dtp.pay.serving": ("Selling a service.", "Selling Serving serve"),
    "dtp.pay.metered": ("Connections that are paid.", "Metered PaidRequest"),
    "dtp.pay.errors": ("What goes wrong with paying.", "*"),
    "dtp.pay.passes": ("Subscriptions.", "PassHeld PeriodsOutOfRange"),
    "dtp.chain": ("A client for Sui.", ""),
    "dtp.chain.errors": ("What goes wrong with a chain.", "*"),
    "dtp.chain.host": (
        "Hosts on chain: the objects. What changes them takes a `Program`, and is in the module's own documentation.",
        "Beacon Bearer Endpoint Host HostCap HostCreated HostList ServiceKind Mode OpCap RateLimit Rate"
        " Rights Role Service Terms",
    ),
    "dtp.chain.channel": ("Payment channels on chain.", "Channel ChannelError ChannelOpened Claimed Voucher"),
    "dtp.chain.host_state": (
        "Hosts on chain, as they are now.",
        "HostOffline HostState HostUnusable PlaceUnknown RouteError ServiceClosed ServiceMissing read_host",
    ),
    "dtp.chain.resolver": ("Finding hosts on chain.", "HostDirectory"),
    "dtp.chain.heartbeat": ("Keeping a host's endpoints known.", "EndpointsApart Heartbeats"),
    "dtp.chain.firewall": ("Who is let in by a host's lists.", "AccessRules Firewall decide read_rules"),
    "dtp.chain.keystores": (
        "Keys in files.",
        "load_key load_sui_keystore save_key sui_config_dir sui_signer",
    ),
    "dtp.chain.wallet": ("Coins.", "FaucetGift format_amount parse_amount request_sui send"),
    "dtp.chain.pipes.carrier": ("Connections over the chain.", "kind_for"),
    "dtp.chain.pipes.funds": ("What they may cost.", "DepositTooHigh PipeFunds"),
    "dtp.chain.pipes.where": ("Where they go.", "ChannelInUse NoPipeChannel Timing"),
    "dtp.chain.pipes.opening": ("What is left of them.", "Reclaimed reclaim"),
    "dtp.chain.pipes.posts": (
        "Sealed messages through the chain.",
        "FeeTooHigh PostKeyMissing PostTooLong ReceivedPost ReplyKey SentPost answers read_post read_posts"
        " send_answer send_post",
    ),
    "dtp.graph": ("Replicated graphs.", ""),
    "dtp.graph.models": ("Typed models over nodes.", ""),
    "dtp.graph.query.errors": ("What goes wrong with queries.", "QueryError UnsupportedQuery"),
    "dtp.crdt": ("The data types below graphs.", ""),
    "dtp.crdt.text": (
        "Texts that merge.",
        "Format Patch Text TextDeltaError TextFormat TextMarkError TextMarksLimit",
    ),
    "dtp.crdt.list": ("Lists that merge.", "List ListPatch"),
    "dtp.crdt.replicated": ("What texts and lists share.", "Anchor Version"),
    "dtp.core.sequence": ("What goes wrong with them.", "*"),
    "dtp.unicode": ("What goes wrong with text that becomes bytes.", "TextNotUnicode"),
    "dtp.core.errors": ("What goes wrong with bytes.", "*"),
    "dtp.localnet.grpc.localnet": (
        "A Sui-compatible network in your program.",
        "Localnet LocalnetThread PortTaken StateFolderError",
    ),
    "dtp.testing.clock": ("Virtual time.", "DeadlockError FakeClockLoop LivelockError VirtualTimeError run"),
    "dtp.testing.pairs": ("Sessions without a carrier.", "SessionPair Wire entropy shake_hands"),
    "dtp.testing.carriers": ("The contract of carriers.", "check_carrier"),
    "dtp.testing.carrier_ends": ("Ends of carriers, for tests of your own.", "Bench ContractError settle"),
    "dtp.testing.strategies": (
        "What Hypothesis draws; see [testing](testing.md).",
        "Edit Faults Step addresses amounts faults frames graph_edits graph_values identities peer_ids play read_by"
        " services steps terms usages vouchers",
    ),
    "dtp.testing.nodes": ("A node of a chain whose answers you choose.", "ScriptedNode"),
    "dtp.testing.resolvers": ("The contract of resolvers.", "FakeResolver check_resolver"),
}


def names_of(module: str) -> list[str]:
    """Return the public names of a row of `MODULES`; "*" stands for the errors that it defines."""
    loaded = importlib.import_module(module)
    chosen = MODULES[module][1]
    if chosen == "*":
        return sorted(
            name
            for name, value in vars(loaded).items()
            if inspect.isclass(value) and value.__module__ == module and issubclass(value, Exception)
        )
    return sorted(chosen.split() or loaded.__all__)


def every_name() -> set[str]:
    """Return all names that the page lists."""
    return {name for module in MODULES for name in names_of(module)}


def first_line(module: str, name: str) -> str:
    """Return the first sentence of what the code says of a name. Raise `LookupError` where it says nothing."""
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value):
        text = inspect.getdoc(value) or ""
        if inspect.isclass(value) and value.__doc__ is None:
            text = ""
    else:
        text = _comment(name)
    if not text or text.startswith(f"{name}("):  # what a dataclass writes by itself
        raise LookupError(f"{module}.{name} has no docstring, nor a comment '#: ...' above it")
    text = text.split("\n\n")[0].replace("\n", " ")
    ends = (found.start() for found in re.finditer(r"(?<=[^.])[.:;](?=\s|$)", text))
    sentence = text[: next((end for end in ends if text[:end].count("(") == text[:end].count(")")), None)]
    return " ".join(sentence.split()).replace("|", "\\|")


def _comment(name: str) -> str:
    """Return what stands in lines `#: ...` above the assignment to `name` somewhere in the sources, else ""."""
    wanted = re.compile(rf"((?:^#: .*\n)+)^{name}\b[^=\n]*=", re.MULTILINE)
    for path in sorted(DTP.rglob("*.py")):
        if found := wanted.search(path.read_text()):
            return " ".join(line.removeprefix("#: ") for line in found[1].splitlines())
    return ""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for module, (about, _) in MODULES.items():
        rows = "\n".join(f"| `{name}` | {first_line(module, name)} |" for name in names_of(module))
        parts.append(f"## {module}\n\n" + textwrap.fill(about, 130) + f"\n\n| name | |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
