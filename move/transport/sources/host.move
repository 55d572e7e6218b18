/// Who a host is, what its services cost, who may come in, and which of its endpoints are alive.
///
/// Two shared objects: `Host` is cold (read by everybody, written when the owner changes something), `Beacon` is
/// hot (written by every heartbeat), so that heartbeats don't contend with openings. Rights are objects:
/// `HostCap` is the owner, `OpCap` a daemon's hot key with some rights that the owner revokes all at once by
/// raising the generation. A host starts with nothing; a service starts closed.
module transport::host;

use std::type_name::{Self, TypeName};
use sui::{clock::Clock, event, table::{Self, Table}, vec_map::{Self, VecMap}};

// === Constants ===

/// Version of the shared objects that this code works on.
const VERSION: u16 = 1;

/// Services of one host; keeps `Host` far below the object limit.
const MAX_SERVICES: u64 = 32;
/// Endpoints of one beacon.
const MAX_ENDPOINTS: u64 = 16;
/// Bytes of an endpoint's hint (a carrier URL, possibly encrypted).
const MAX_HINT_BYTES: u64 = 512;
/// Length of an Ed25519 public key.
const KEY_BYTES: u64 = 32;
/// Last byte of an Ed25519 public key without the sign of x.
const SIGN_MASK: u8 = 0x7f;
/// y of the eight points of small order, without the sign of x.
const SMALL_ORDER: vector<vector<u8>> = vector[
    x"0000000000000000000000000000000000000000000000000000000000000000",
    x"0100000000000000000000000000000000000000000000000000000000000000",
    x"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    x"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    x"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];
/// First byte of the smallest y that isn't reduced, 2^255 - 19; its last is `SIGN_MASK`, the others are 0xff.
const UNREDUCED: u8 = 0xed;
/// Length of the hash of a service's terms, when there is one.
const HASH_BYTES: u64 = 32;

/// Bounds of a beacon's time to live: ten seconds to one day.
const MIN_TTL_MS: u64 = 10_000;
const MAX_TTL_MS: u64 = 86_400_000;
/// Bounds of the window for claims after a close was requested: one minute to thirty days.
const MIN_CLAIM_MS: u64 = 60_000;
const MAX_CLAIM_MS: u64 = 2_592_000_000;
/// Longest idle time before anyone may ask for a channel's close: one year of 366 days.
const MAX_IDLE_MS: u64 = 31_622_400_000;

/// Anyone who isn't denied may open a channel.
const MODE_OPEN: u8 = 0;
/// Only addresses on the host's allow-list may open a channel.
const MODE_ALLOW_LIST: u8 = 1;
/// Only holders of a pass may open a channel.
const MODE_PASS: u8 = 2;

/// Each side bears the transport cost of what it sends.
const BEARER_SPLIT: u8 = 0;
/// The client bears the transport cost: frames the server sends are credited to the server.
const BEARER_CLIENT: u8 = 1;
/// The server bears the transport cost: frames the client sends are credited to the client.
const BEARER_SERVER: u8 = 2;

/// An endpoint that takes traffic.
const ROLE_ACTIVE: u8 = 0;
/// An endpoint that takes traffic when no active one is fresh.
const ROLE_STANDBY: u8 = 1;

/// May send heartbeats.
const RIGHT_HEARTBEAT: u8 = 1;
/// May enroll and remove endpoints.
const RIGHT_ENDPOINTS: u8 = 2;
/// May edit the allow-list and the deny-list.
const RIGHT_FIREWALL: u8 = 4;
/// May revoke passes (which pays their holders back).
const RIGHT_PASSES: u8 = 8;
const RIGHTS_ALL: u8 = 15;

/// The list in an event.
const LIST_ALLOW: u8 = 0;
const LIST_DENY: u8 = 1;

// === Errors ===

#[error(code = 0)]
const EWrongVersion: vector<u8> =
    b"object is of another version: call the package's newest release";
#[error(code = 1)]
const EWrongCap: vector<u8> = b"this cap belongs to another host";
#[error(code = 2)]
const EForeignBeacon: vector<u8> = b"this beacon belongs to another host";
#[error(code = 3)]
const ENoService: vector<u8> = b"the host has no service of that number";
#[error(code = 4)]
const EServiceExists: vector<u8> = b"the host already has a service of that number";
#[error(code = 5)]
const ETooManyServices: vector<u8> = b"a host has at most 32 services";
#[error(code = 6)]
const EServiceClosed: vector<u8> = b"the service is closed";
#[error(code = 7)]
const EDenied: vector<u8> = b"the address is on the host's deny-list";
#[error(code = 8)]
const ENotAllowed: vector<u8> = b"the address isn't on the host's allow-list";
#[error(code = 9)]
const ENeedsPass: vector<u8> = b"the service is for subscribers: open with a pass";
#[error(code = 10)]
const ENotFresh: vector<u8> = b"no endpoint of the host is alive";
#[error(code = 11)]
const EBadMode: vector<u8> = b"mode is 0 (open), 1 (allow-list) or 2 (pass)";
#[error(code = 12)]
const EBadBearer: vector<u8> = b"bearer is 0 (split), 1 (client) or 2 (server)";
#[error(code = 13)]
const EBadClaimTime: vector<u8> = b"claim_ms is between one minute and thirty days";
#[error(code = 14)]
const EBadIdleTime: vector<u8> = b"idle_ms is between claim_ms and 366 days";
#[error(code = 15)]
const EZeroCap: vector<u8> = b"an epoch cap of zero would make every claim impossible";
#[error(code = 16)]
const EBadTermsHash: vector<u8> = b"the hash of the terms is empty or 32 bytes";
#[error(code = 17)]
const EBadRate: vector<u8> = b"a rate with an interval needs a burst of at least one";
#[error(code = 18)]
const EBadTtl: vector<u8> = b"ttl_ms is between ten seconds and one day";
#[error(code = 19)]
const EBadKey: vector<u8> = b"an Ed25519 public key is 32 bytes";
#[error(code = 20)]
const EBadRole: vector<u8> = b"role is 0 (active) or 1 (standby)";
#[error(code = 21)]
const EHintTooLong: vector<u8> = b"a hint is at most 512 bytes";
#[error(code = 22)]
const EEndpointExists: vector<u8> = b"the beacon already has an endpoint of that key";
#[error(code = 23)]
const ETooManyEndpoints: vector<u8> = b"a beacon has at most 16 endpoints";
#[error(code = 24)]
const ENoEndpoint: vector<u8> = b"the beacon has no endpoint of that key";
#[error(code = 25)]
const EFenced: vector<u8> = b"a newer generation of this endpoint is running: stop this one";
#[error(code = 26)]
const ERevokedOperator: vector<u8> = b"the owner revoked this operator cap";
#[error(code = 27)]
const EMissingRight: vector<u8> = b"the operator cap lacks the right for this";
#[error(code = 28)]
const EBadRights: vector<u8> =
    b"rights are a sum of 1 (heartbeat), 2 (endpoints), 4 (firewall), 8 (passes)";
#[error(code = 29)]
const EListsNotEmpty: vector<u8> = b"empty the allow-list and the deny-list first";
#[error(code = 30)]
const EWrongCoin: vector<u8> = b"the service's prices are in another coin";
#[error(code = 31)]
const EHeardSince: vector<u8> = b"the endpoint has sent another heartbeat since: it is alive";
#[error(code = 32)]
const EWeakKey: vector<u8> =
    b"anyone can sign for this key: it is a point of small order, or not in its one encoding";
#[error(code = 33)]
const ENoOwner: vector<u8> = b"a host can't be paid at the zero address";
#[error(code = 34)]
const EUpToDate: vector<u8> = b"the object is of this version already";

// === Types ===

/// A host: cold, shared. Found from its owner through the owned `HostCap`.
public struct Host has key {
    id: UID,
    version: u16,
    /// Where the host is paid; the server side of every channel opened from now on.
    owner: address,
    /// Its `Beacon`.
    beacon: ID,
    /// Operator caps of a lower generation are void.
    op_generation: u64,
    /// Rises with every change of any service's terms, so that no two terms share a revision.
    revision: u64,
    services: VecMap<u16, Service>,
    allow: Table<address, bool>,
    deny: Table<address, bool>,
}

/// One service of a host.
public struct Service has copy, drop, store {
    /// What is spoken: 0 tcp, 1 udp, 2 http, 3 json-rpc, 4 grpc, 5 websocket, 255 other. Not interpreted on-chain.
    kind: u8,
    open: bool,
    mode: u8,
    terms: Terms,
    rate: RateLimit,
    /// Frames that one pipe may send ahead of the receiver's acknowledgement; 0 is no limit.
    window: u64,
    /// Least fee of a connectionless message, in the terms' coin.
    post_fee: u64,
    /// Hash of the human-readable terms, or empty.
    terms_hash: vector<u8>,
}

/// Price and timing of a service. Copied into a channel when it opens: a later change never touches it.
public struct Terms has copy, drop, store {
    revision: u64,
    /// The coin that all amounts are in.
    coin: TypeName,
    price_request: u64,
    price_mib: u64,
    min_deposit: u64,
    /// Most that may leave a channel in one epoch by claims and credits together.
    epoch_cap: u64,
    /// Who bears transport cost: `BEARER_*`.
    bearer: u8,
    /// What a frame of 16 KiB is worth to the side that sent it; another one by its weight.
    credit: u64,
    /// Of a channel without a claim for this long anyone may ask for the close.
    idle_ms: u64,
    /// How long claims still count after a close was requested, and how long an old lane key is honoured.
    claim_ms: u64,
}

/// GCRA parameters for what one pipe may carry towards the server.
public struct RateLimit has copy, drop, store {
    requests: Rate,
    bytes: Rate,
}

/// One token bucket in GCRA form: a unit every `interval_ns`, at most `burst` at once. Interval 0 is no limit.
public struct Rate has copy, drop, store {
    interval_ns: u64,
    burst: u64,
}

/// Liveness of a host's endpoints: hot, shared. A heartbeat touches only this.
public struct Beacon has key {
    id: UID,
    version: u16,
    host: ID,
    op_generation: u64,
    /// An endpoint is fresh for this long after its last heartbeat: hours. Within it others ask the endpoint itself.
    ttl_ms: u64,
    endpoints: vector<Endpoint>,
}

/// One endpoint: a machine that serves the host.
public struct Endpoint has copy, drop, store {
    /// Ed25519 public key that the handshake must prove.
    key: vector<u8>,
    weight: u16,
    role: u8,
    /// Fencing number: heartbeats of a lower generation are refused.
    generation: u64,
    /// Time of the last heartbeat; 0 before the first, and once somebody has said that it answers nobody.
    seen_ms: u64,
    /// 0 idle to 65535 full, as the endpoint sees itself.
    load: u16,
    /// Carrier URL, possibly encrypted, possibly empty.
    hint: vector<u8>,
}

/// The owner of a host. Whoever holds it decides everything about the host but not about open channels.
public struct HostCap has key, store {
    id: UID,
    host: ID,
}

/// What a daemon's hot key may do, as long as the host's generation is this one.
public struct OpCap has key, store {
    id: UID,
    host: ID,
    generation: u64,
    rights: u8,
}

// === Events ===

/// A host was created.
public struct HostCreated has copy, drop {
    host: ID,
    beacon: ID,
    owner: address,
}

/// A service was added or changed; read the host for the whole.
public struct ServiceChanged has copy, drop {
    host: ID,
    service: u16,
    revision: u64,
    open: bool,
}

/// A service was removed.
public struct ServiceRemoved has copy, drop {
    host: ID,
    service: u16,
}

/// All operator caps of lower generations are void.
public struct OperatorsRevoked has copy, drop {
    host: ID,
    generation: u64,
}

/// An endpoint was enrolled (or changed, or suspected) or removed.
public struct EndpointChanged has copy, drop {
    host: ID,
    key: vector<u8>,
    generation: u64,
    enrolled: bool,
}

/// The host is paid elsewhere from now on.
public struct OwnerChanged has copy, drop {
    host: ID,
    owner: address,
}

/// Addresses were put on a list of the host, or taken off; those that were there, or weren't, are named too.
public struct ListChanged has copy, drop {
    host: ID,
    /// 0 the allow-list, 1 the deny-list.
    list: u8,
    added: bool,
    addresses: vector<address>,
}

/// The host and its beacon were moved to another version of the package.
public struct HostMigrated has copy, drop {
    host: ID,
    from: u16,
    to: u16,
}

// === Creation ===

/// A new host with its beacon and its owner's cap. The sender is paid until `set_owner` says otherwise.
/// Share host and beacon with `share`, keep the cap.
public fun new(ttl_ms: u64, ctx: &mut TxContext): (Host, Beacon, HostCap) {
    assert_ttl(ttl_ms);
    let host_uid = object::new(ctx);
    let host_id = host_uid.to_inner();
    let beacon = Beacon {
        id: object::new(ctx),
        version: VERSION,
        host: host_id,
        op_generation: 0,
        ttl_ms,
        endpoints: vector[],
    };
    let host = Host {
        id: host_uid,
        version: VERSION,
        owner: ctx.sender(),
        beacon: object::id(&beacon),
        op_generation: 0,
        revision: 0,
        services: vec_map::empty(),
        allow: table::new(ctx),
        deny: table::new(ctx),
    };
    event::emit(HostCreated { host: host_id, beacon: host.beacon, owner: host.owner });
    (host, beacon, HostCap { id: object::new(ctx), host: host_id })
}

/// Share a new host and its beacon.
public fun share(host: Host, beacon: Beacon) {
    transfer::share_object(host);
    transfer::share_object(beacon);
}

/// Delete a host with its beacon; the storage deposit comes back. Open channels keep their own terms and settle
/// without the host; only their pipes stop. The cap stays, since plans of the host are drawn with it. Both lists must
/// be empty.
public fun destroy(host: Host, beacon: Beacon, cap: &HostCap) {
    assert_owner(&host, cap);
    assert_beacon(&host, &beacon);
    assert!(host.allow.is_empty() && host.deny.is_empty(), EListsNotEmpty);
    let Host { id, allow, deny, .. } = host;
    id.delete();
    allow.destroy_empty();
    deny.destroy_empty();
    let Beacon { id, .. } = beacon;
    id.delete();
}

/// Throw away a host's cap, for ever: nobody can change the host or draw its plans any more.
public fun destroy_cap(cap: HostCap) {
    let HostCap { id, .. } = cap;
    id.delete();
}

// === The owner ===

/// Change where the host is paid. Channels that are open keep paying the address they were opened with.
public fun set_owner(host: &mut Host, cap: &HostCap, owner: address) {
    assert_owner(host, cap);
    assert!(owner != @0x0, ENoOwner);
    host.owner = owner;
    event::emit(OwnerChanged { host: object::id(host), owner });
}

/// Move a host and its beacon to this version of the package: older ones refuse them from then on. Open channels keep
/// their own version.
public fun migrate(host: &mut Host, beacon: &mut Beacon, cap: &HostCap) {
    assert!(cap.host == object::id(host), EWrongCap);
    assert!(host.beacon == object::id(beacon), EForeignBeacon);
    assert!(host.version < VERSION, EUpToDate);
    event::emit(HostMigrated { host: object::id(host), from: host.version, to: VERSION });
    host.version = VERSION;
    beacon.version = VERSION;
}

/// Terms in coin `T`; the revision is set when they are given to a service. `epoch_cap` of 2^64-1 is no cap.
public fun new_terms<T>(
    price_request: u64,
    price_mib: u64,
    min_deposit: u64,
    epoch_cap: u64,
    bearer: u8,
    credit: u64,
    idle_ms: u64,
    claim_ms: u64,
): Terms {
    assert!(
        bearer == BEARER_SPLIT || bearer == BEARER_CLIENT || bearer == BEARER_SERVER,
        EBadBearer,
    );
    assert!(epoch_cap > 0, EZeroCap);
    assert!(claim_ms >= MIN_CLAIM_MS && claim_ms <= MAX_CLAIM_MS, EBadClaimTime);
    assert!(idle_ms >= claim_ms && idle_ms <= MAX_IDLE_MS, EBadIdleTime);
    Terms {
        revision: 0,
        coin: type_name::with_defining_ids<T>(),
        price_request,
        price_mib,
        min_deposit,
        epoch_cap,
        bearer,
        credit,
        idle_ms,
        claim_ms,
    }
}

/// What one pipe may carry towards the server; an interval of 0 is no limit.
public fun new_rate_limit(
    request_interval_ns: u64,
    request_burst: u64,
    byte_interval_ns: u64,
    byte_burst: u64,
): RateLimit {
    assert!(request_interval_ns == 0 || request_burst > 0, EBadRate);
    assert!(byte_interval_ns == 0 || byte_burst > 0, EBadRate);
    RateLimit {
        requests: Rate { interval_ns: request_interval_ns, burst: request_burst },
        bytes: Rate { interval_ns: byte_interval_ns, burst: byte_burst },
    }
}

/// Add a service. It starts closed.
public fun add_service(
    host: &mut Host,
    cap: &HostCap,
    service: u16,
    kind: u8,
    mode: u8,
    terms: Terms,
    rate: RateLimit,
    window: u64,
    post_fee: u64,
    terms_hash: vector<u8>,
) {
    assert_owner(host, cap);
    assert_mode(mode);
    assert!(!host.services.contains(&service), EServiceExists);
    assert!(host.services.length() < MAX_SERVICES, ETooManyServices);
    assert_terms_hash(&terms_hash);
    let terms = host.with_next_revision(terms);
    host
        .services
        .insert(
            service,
            Service { kind, open: false, mode, terms, rate, window, post_fee, terms_hash },
        );
    host.emit_changed(service);
}

/// Replace the terms of a service under a new revision. Open channels are not touched.
public fun set_terms(
    host: &mut Host,
    cap: &HostCap,
    service: u16,
    terms: Terms,
    terms_hash: vector<u8>,
) {
    assert_owner(host, cap);
    assert_terms_hash(&terms_hash);
    let terms = host.with_next_revision(terms);
    let entry = host.service_mut(service);
    entry.terms = terms;
    entry.terms_hash = terms_hash;
    host.emit_changed(service);
}

/// Open or close a service. Closing also stops the pipes of its open channels; money is not affected.
public fun set_open(host: &mut Host, cap: &HostCap, service: u16, open: bool) {
    assert_owner(host, cap);
    host.service_mut(service).open = open;
    host.emit_changed(service);
}

/// Choose who may open channels: 0 anyone, 1 the allow-list, 2 holders of a pass.
public fun set_mode(host: &mut Host, cap: &HostCap, service: u16, mode: u8) {
    assert_owner(host, cap);
    assert_mode(mode);
    host.service_mut(service).mode = mode;
    host.emit_changed(service);
}

/// Change rate limit, window and least fee of a message. They hold for open channels' pipes from now on.
public fun set_limits(
    host: &mut Host,
    cap: &HostCap,
    service: u16,
    rate: RateLimit,
    window: u64,
    post_fee: u64,
) {
    assert_owner(host, cap);
    let entry = host.service_mut(service);
    entry.rate = rate;
    entry.window = window;
    entry.post_fee = post_fee;
    host.emit_changed(service);
}

/// Remove a service. Its open channels settle by their own terms; their pipes stop.
public fun remove_service(host: &mut Host, cap: &HostCap, service: u16) {
    assert_owner(host, cap);
    assert!(host.services.contains(&service), ENoService);
    let (_, _) = host.services.remove(&service);
    event::emit(ServiceRemoved { host: object::id(host), service });
}

// === Operators ===

/// A cap for a daemon's hot key. `rights` is a sum of 1 heartbeat, 2 endpoints, 4 firewall, 8 passes.
public fun new_operator(host: &Host, cap: &HostCap, rights: u8, ctx: &mut TxContext): OpCap {
    assert_owner(host, cap);
    assert!(rights > 0 && rights <= RIGHTS_ALL, EBadRights);
    OpCap { id: object::new(ctx), host: object::id(host), generation: host.op_generation, rights }
}

/// Void all operator caps there are, by raising the generation of host and beacon.
public fun revoke_operators(host: &mut Host, beacon: &mut Beacon, cap: &HostCap) {
    assert_owner(host, cap);
    assert_beacon(host, beacon);
    host.op_generation = host.op_generation + 1;
    beacon.op_generation = host.op_generation;
    event::emit(OperatorsRevoked { host: object::id(host), generation: host.op_generation });
}

/// Throw away an operator cap.
public fun destroy_operator(cap: OpCap) {
    let OpCap { id, .. } = cap;
    id.delete();
}

/// Put addresses on the allow-list; those already on it stay. Operator with the firewall right.
public fun allow(host: &mut Host, cap: &OpCap, addresses: vector<address>) {
    assert_operator(host, cap, RIGHT_FIREWALL);
    insert_all(&mut host.allow, &addresses);
    host.emit_list(LIST_ALLOW, true, addresses);
}

/// Take addresses off the allow-list; those not on it are skipped. Operator with the firewall right.
public fun disallow(host: &mut Host, cap: &OpCap, addresses: vector<address>) {
    assert_operator(host, cap, RIGHT_FIREWALL);
    remove_all(&mut host.allow, &addresses);
    host.emit_list(LIST_ALLOW, false, addresses);
}

/// Put addresses on the deny-list, which wins over every mode. Operator with the firewall right.
public fun deny(host: &mut Host, cap: &OpCap, addresses: vector<address>) {
    assert_operator(host, cap, RIGHT_FIREWALL);
    insert_all(&mut host.deny, &addresses);
    host.emit_list(LIST_DENY, true, addresses);
}

/// Take addresses off the deny-list; those not on it are skipped. Operator with the firewall right.
public fun undeny(host: &mut Host, cap: &OpCap, addresses: vector<address>) {
    assert_operator(host, cap, RIGHT_FIREWALL);
    remove_all(&mut host.deny, &addresses);
    host.emit_list(LIST_DENY, false, addresses);
}

// === Endpoints ===

/// Change how long a heartbeat keeps an endpoint fresh.
public fun set_ttl(beacon: &mut Beacon, cap: &HostCap, ttl_ms: u64) {
    beacon.assert_beacon_version();
    assert!(beacon.host == cap.host, EWrongCap);
    assert_ttl(ttl_ms);
    beacon.ttl_ms = ttl_ms;
}

/// Add an endpoint. It isn't fresh before its first heartbeat. Operator with the endpoints right.
public fun enroll(
    beacon: &mut Beacon,
    cap: &OpCap,
    key: vector<u8>,
    weight: u16,
    role: u8,
    generation: u64,
    hint: vector<u8>,
) {
    beacon.assert_beacon_operator(cap, RIGHT_ENDPOINTS);
    assert!(key.length() == KEY_BYTES, EBadKey);
    assert!(!is_weak_key(&key), EWeakKey);
    assert!(role == ROLE_ACTIVE || role == ROLE_STANDBY, EBadRole);
    assert!(hint.length() <= MAX_HINT_BYTES, EHintTooLong);
    assert!(beacon.find(&key).is_none(), EEndpointExists);
    assert!(beacon.endpoints.length() < MAX_ENDPOINTS, ETooManyEndpoints);
    event::emit(EndpointChanged { host: beacon.host, key, generation, enrolled: true });
    beacon
        .endpoints
        .push_back(Endpoint { key, weight, role, generation, seen_ms: 0, load: 0, hint });
}

/// Change weight, role and hint of an endpoint. Operator with the endpoints right.
public fun configure(
    beacon: &mut Beacon,
    cap: &OpCap,
    key: vector<u8>,
    weight: u16,
    role: u8,
    hint: vector<u8>,
) {
    beacon.assert_beacon_operator(cap, RIGHT_ENDPOINTS);
    assert!(role == ROLE_ACTIVE || role == ROLE_STANDBY, EBadRole);
    assert!(hint.length() <= MAX_HINT_BYTES, EHintTooLong);
    let host = beacon.host;
    let endpoint = beacon.endpoint_mut(&key);
    endpoint.weight = weight;
    endpoint.role = role;
    endpoint.hint = hint;
    event::emit(EndpointChanged { host, key, generation: endpoint.generation, enrolled: true });
}

/// Remove an endpoint. Operator with the endpoints right.
public fun withdraw(beacon: &mut Beacon, cap: &OpCap, key: vector<u8>) {
    beacon.assert_beacon_operator(cap, RIGHT_ENDPOINTS);
    let place = beacon.find(&key);
    assert!(place.is_some(), ENoEndpoint);
    let endpoint = beacon.endpoints.swap_remove(place.destroy_some());
    event::emit(EndpointChanged {
        host: beacon.host,
        key,
        generation: endpoint.generation,
        enrolled: false,
    });
}

/// Say that an endpoint is alive. A higher generation takes the endpoint over and fences the older process off.
/// Operator with the heartbeat right. No event: the beacon itself says it.
public fun heartbeat(
    beacon: &mut Beacon,
    cap: &OpCap,
    key: vector<u8>,
    generation: u64,
    load: u16,
    clock: &Clock,
) {
    beacon.assert_beacon_operator(cap, RIGHT_HEARTBEAT);
    let endpoint = beacon.endpoint_mut(&key);
    assert!(generation >= endpoint.generation, EFenced);
    endpoint.generation = generation;
    endpoint.seen_ms = clock.timestamp_ms();
    endpoint.load = load;
}

/// Say that an endpoint answers nobody: it isn't fresh until its next heartbeat. Who is alive all the same reads this
/// in the beacon and sends one. `generation` and `seen_ms` are of the heartbeat that is doubted: a later one stands.
/// Operator with the endpoints right.
public fun suspect(
    beacon: &mut Beacon,
    cap: &OpCap,
    key: vector<u8>,
    generation: u64,
    seen_ms: u64,
) {
    beacon.assert_beacon_operator(cap, RIGHT_ENDPOINTS);
    let host = beacon.host;
    let endpoint = beacon.endpoint_mut(&key);
    assert!(endpoint.generation == generation && endpoint.seen_ms == seen_ms, EHeardSince);
    endpoint.seen_ms = 0;
    event::emit(EndpointChanged { host, key, generation, enrolled: true });
}

// === Reading ===

/// Where the host is paid.
public fun owner(host: &Host): address { host.owner }

/// The host's beacon.
public fun beacon(host: &Host): ID { host.beacon }

/// The generation that operator caps must have.
public fun op_generation(host: &Host): u64 { host.op_generation }

/// The host that this cap owns.
public fun cap_host(cap: &HostCap): ID { cap.host }

/// True when the host has a service of that number.
public fun has_service(host: &Host, service: u16): bool { host.services.contains(&service) }

/// The service of that number.
public fun service(host: &Host, service: u16): &Service {
    let place = host.services.get_idx_opt(&service);
    assert!(place.is_some(), ENoService);
    let (_, entry) = host.services.get_entry_by_idx(place.destroy_some());
    entry
}

/// True when the address is on the allow-list.
public fun is_allowed(host: &Host, who: address): bool { host.allow.contains(who) }

/// True when the address is on the deny-list.
public fun is_denied(host: &Host, who: address): bool { host.deny.contains(who) }

/// What the service speaks.
public fun kind(service: &Service): u8 { service.kind }

/// True when the service is open.
public fun is_open(service: &Service): bool { service.open }

/// Who may open channels of the service.
public fun mode(service: &Service): u8 { service.mode }

/// The service's terms.
public fun terms(service: &Service): &Terms { &service.terms }

/// The service's rate limit.
public fun rate(service: &Service): &RateLimit { &service.rate }

/// Frames that a pipe of the service may send unacknowledged; 0 is no limit.
public fun window(service: &Service): u64 { service.window }

/// Least fee of a connectionless message to the service.
public fun post_fee(service: &Service): u64 { service.post_fee }

/// Hash of the service's human-readable terms, or empty.
public fun terms_hash(service: &Service): vector<u8> { service.terms_hash }

/// The rate of requests (frames).
public fun requests(rate: &RateLimit): &Rate { &rate.requests }

/// The rate of bytes.
public fun bytes(rate: &RateLimit): &Rate { &rate.bytes }

/// Nanoseconds per unit; 0 is no limit.
public fun interval_ns(rate: &Rate): u64 { rate.interval_ns }

/// Units at once.
public fun burst(rate: &Rate): u64 { rate.burst }

/// Revision of the terms.
public fun revision(terms: &Terms): u64 { terms.revision }

/// Coin of the terms.
public fun coin(terms: &Terms): TypeName { terms.coin }

/// Price of a request.
public fun price_request(terms: &Terms): u64 { terms.price_request }

/// Price of a MiB.
public fun price_mib(terms: &Terms): u64 { terms.price_mib }

/// Least deposit of a channel.
public fun min_deposit(terms: &Terms): u64 { terms.min_deposit }

/// Most that may leave a channel in one epoch by claims and credits together.
public fun epoch_cap(terms: &Terms): u64 { terms.epoch_cap }

/// Who bears transport cost.
public fun bearer(terms: &Terms): u8 { terms.bearer }

/// Worth of a metered frame of 16 KiB.
public fun credit(terms: &Terms): u64 { terms.credit }

/// Idle time after which anyone may ask for a channel's close.
public fun idle_ms(terms: &Terms): u64 { terms.idle_ms }

/// Time for claims after a requested close, and of grace for an old lane key.
public fun claim_ms(terms: &Terms): u64 { terms.claim_ms }

/// True when at least one endpoint sent a heartbeat within the beacon's time to live.
public fun is_fresh(beacon: &Beacon, clock: &Clock): bool {
    let now = clock.timestamp_ms();
    let mut i = 0;
    while (i < beacon.endpoints.length()) {
        let seen = beacon.endpoints[i].seen_ms;
        if (seen > 0 && now <= seen + beacon.ttl_ms) return true;
        i = i + 1;
    };
    false
}

/// The beacon's endpoints.
public fun endpoints(beacon: &Beacon): &vector<Endpoint> { &beacon.endpoints }

/// An endpoint's key.
public fun endpoint_key(endpoint: &Endpoint): vector<u8> { endpoint.key }

/// An endpoint's generation.
public fun endpoint_generation(endpoint: &Endpoint): u64 { endpoint.generation }

/// Time of an endpoint's last heartbeat; 0 before the first.
public fun endpoint_seen_ms(endpoint: &Endpoint): u64 { endpoint.seen_ms }

// === For the other modules of this package ===

/// Abort unless `who` may open a channel of the service now; returns its terms.
/// `with_pass` tells that the caller has checked a pass for it.
public(package) fun admit(
    host: &Host,
    beacon: &Beacon,
    service: u16,
    who: address,
    with_pass: bool,
    clock: &Clock,
): Terms {
    host.assert_version();
    host.assert_beacon(beacon);
    let entry = host.admissible(service, who);
    assert!(entry.mode != MODE_PASS || with_pass, ENeedsPass);
    assert!(beacon.is_fresh(clock), ENotFresh);
    entry.terms
}

/// The service, if it is open and `who` isn't denied.
public(package) fun reachable(host: &Host, service: u16, who: address): &Service {
    host.assert_version();
    let entry = host.service(service);
    assert!(entry.open, EServiceClosed);
    assert!(!host.deny.contains(who), EDenied);
    entry
}

/// The service, if `who` may come in but for a pass: as `reachable`, and on the allow-list where the service has one.
/// Who buys a pass has none yet, and a message is the way to ask for one.
public(package) fun admissible(host: &Host, service: u16, who: address): &Service {
    let entry = host.reachable(service, who);
    assert!(entry.mode != MODE_ALLOW_LIST || host.allow.contains(who), ENotAllowed);
    entry
}

/// True when `who` can't come in whatever it holds: the service was removed, or `who` is denied or not on its
/// allow-list. A service that is closed refuses everybody, maybe for an hour: that isn't meant.
public(package) fun refuses(host: &Host, service: u16, who: address): bool {
    host.assert_version();
    if (!host.services.contains(&service) || host.deny.contains(who)) return true;
    host.service(service).mode == MODE_ALLOW_LIST && !host.allow.contains(who)
}

/// True when signatures of the key can be made without its secret, or when it is not in the one encoding of its point.
/// The chain checks Ed25519 by ZIP-215: it takes such keys, and any message is signed by a point of small order.
/// `key` has 32 bytes.
public(package) fun is_weak_key(key: &vector<u8>): bool {
    let mut y = *key;
    let last = KEY_BYTES - 1;
    let top = y[last] & SIGN_MASK;
    *(&mut y[last]) = top;
    let small = SMALL_ORDER;
    small.contains(&y) || is_unreduced(&y)
}

/// Abort unless the terms are in coin `T`.
public(package) fun assert_coin<T>(terms: &Terms) {
    assert!(terms.coin == type_name::with_defining_ids<T>(), EWrongCoin);
}

/// The same terms without any price, in coin `T`: what a channel under a pass gets, whose coin is the plan's.
public(package) fun free<T>(mut terms: Terms): Terms {
    terms.coin = type_name::with_defining_ids<T>();
    terms.price_request = 0;
    terms.price_mib = 0;
    terms.min_deposit = 0;
    terms.credit = 0;
    terms
}

/// Abort unless the cap owns the host.
public(package) fun assert_owner(host: &Host, cap: &HostCap) {
    host.assert_version();
    assert!(cap.host == object::id(host), EWrongCap);
}

/// Abort unless the cap is a valid operator of the host with the right to revoke passes.
public(package) fun assert_pass_operator(host: &Host, cap: &OpCap) {
    host.assert_operator(cap, RIGHT_PASSES);
}

public(package) fun assert_version(host: &Host) {
    assert!(host.version == VERSION, EWrongVersion);
}

public(package) fun bearer_client(): u8 { BEARER_CLIENT }

public(package) fun bearer_server(): u8 { BEARER_SERVER }

public(package) fun key_bytes(): u64 { KEY_BYTES }

// === Private ===

fun assert_operator(host: &Host, cap: &OpCap, right: u8) {
    host.assert_version();
    assert!(cap.host == object::id(host), EWrongCap);
    assert!(cap.generation == host.op_generation, ERevokedOperator);
    assert!(cap.rights & right != 0, EMissingRight);
}

fun assert_beacon_operator(beacon: &Beacon, cap: &OpCap, right: u8) {
    beacon.assert_beacon_version();
    assert!(cap.host == beacon.host, EWrongCap);
    assert!(cap.generation == beacon.op_generation, ERevokedOperator);
    assert!(cap.rights & right != 0, EMissingRight);
}

fun assert_beacon_version(beacon: &Beacon) {
    assert!(beacon.version == VERSION, EWrongVersion);
}

fun assert_beacon(host: &Host, beacon: &Beacon) {
    beacon.assert_beacon_version();
    assert!(host.beacon == object::id(beacon), EForeignBeacon);
}

fun assert_mode(mode: u8) {
    assert!(mode == MODE_OPEN || mode == MODE_ALLOW_LIST || mode == MODE_PASS, EBadMode);
}

fun assert_ttl(ttl_ms: u64) {
    assert!(ttl_ms >= MIN_TTL_MS && ttl_ms <= MAX_TTL_MS, EBadTtl);
}

fun assert_terms_hash(terms_hash: &vector<u8>) {
    assert!(terms_hash.is_empty() || terms_hash.length() == HASH_BYTES, EBadTermsHash);
}

fun with_next_revision(host: &mut Host, mut terms: Terms): Terms {
    host.revision = host.revision + 1;
    terms.revision = host.revision;
    terms
}

fun service_mut(host: &mut Host, service: u16): &mut Service {
    let place = host.services.get_idx_opt(&service);
    assert!(place.is_some(), ENoService);
    let (_, entry) = host.services.get_entry_by_idx_mut(place.destroy_some());
    entry
}

fun emit_changed(host: &Host, service: u16) {
    let entry = host.service(service);
    event::emit(ServiceChanged {
        host: object::id(host),
        service,
        revision: entry.terms.revision,
        open: entry.open,
    });
}

fun emit_list(host: &Host, list: u8, added: bool, addresses: vector<address>) {
    event::emit(ListChanged { host: object::id(host), list, added, addresses });
}

/// True when y is 2^255 - 19 or more: its point has another encoding.
fun is_unreduced(y: &vector<u8>): bool {
    if (y[0] < UNREDUCED || y[KEY_BYTES - 1] != SIGN_MASK) return false;
    let mut i = 1;
    while (i < KEY_BYTES - 1) {
        if (y[i] != 0xff) return false;
        i = i + 1;
    };
    true
}

fun find(beacon: &Beacon, key: &vector<u8>): Option<u64> {
    let mut i = 0;
    while (i < beacon.endpoints.length()) {
        if (&beacon.endpoints[i].key == key) return option::some(i);
        i = i + 1;
    };
    option::none()
}

fun endpoint_mut(beacon: &mut Beacon, key: &vector<u8>): &mut Endpoint {
    let place = beacon.find(key);
    assert!(place.is_some(), ENoEndpoint);
    &mut beacon.endpoints[place.destroy_some()]
}

fun insert_all(list: &mut Table<address, bool>, addresses: &vector<address>) {
    let mut i = 0;
    while (i < addresses.length()) {
        if (!list.contains(addresses[i])) list.add(addresses[i], true);
        i = i + 1;
    };
}

fun remove_all(list: &mut Table<address, bool>, addresses: &vector<address>) {
    let mut i = 0;
    while (i < addresses.length()) {
        if (list.contains(addresses[i])) {
            let _ = list.remove(addresses[i]);
        };
        i = i + 1;
    };
}

// === Tests ===

#[test_only]
public fun set_version_for_testing(host: &mut Host, version: u16) { host.version = version }

#[test_only]
public fun set_beacon_version_for_testing(beacon: &mut Beacon, version: u16) {
    beacon.version = version
}
