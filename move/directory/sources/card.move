/// What an account says of itself, where everybody sees the same: its devices, its mailboxes, its wallets.
///
/// An account is named by the hash of its first key and its first recovery key, so whoever knows the name can check
/// every card of it. All that a card says is signed by the account's key and may be submitted by anyone. The recovery
/// key makes another key the account's; what the key before has said is void from then on. A wallet is linked by its
/// own transaction and the account key's signature: one account, many wallets.
///
/// A card keeps what its keys have signed, so a node can withhold a card, but can't forge one.
module directory::card;

use std::bcs;
use sui::{clock::Clock, event, hash, table::{Self, Table}};

// === Constants ===

/// Version of the shared objects that this code works on.
const VERSION: u16 = 1;

/// Devices of one account, as in cards off the chain.
const MAX_DEVICES: u64 = 64;
/// Bytes of a device's label.
const MAX_LABEL_BYTES: u64 = 64;
/// Mailboxes of one account.
const MAX_MAILBOXES: u64 = 8;
/// Bytes of a mailbox's address.
const MAX_MAILBOX_BYTES: u64 = 256;
/// Wallets of one account.
const MAX_WALLETS: u64 = 32;
/// Changes of an account's key, as in cards off the chain.
const MAX_ROTATIONS: u64 = 32;
/// Length of a public key.
const KEY_BYTES: u64 = 32;
/// Length of the hash of a prekey bundle, when there is one.
const HASH_BYTES: u64 = 32;
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

/// What the hash that names an account begins with.
const ACCOUNT_DOMAIN: vector<u8> = b"dtp.account.v1";
/// Domain of what an account says of itself.
const CARD_DOMAIN: vector<u8> = b"dtp.directory.v1";
/// Domain of a change of the account's key: the same bytes as off the chain, where it counts as well.
const ROTATION_DOMAIN: vector<u8> = b"dtp.card.rotation.v1";
/// Domain of linking and unlinking a wallet.
const WALLET_DOMAIN: vector<u8> = b"dtp.wallet.v1";
/// Domain of the end of an account.
const END_DOMAIN: vector<u8> = b"dtp.card.end.v1";

// === Errors ===

#[error(code = 0)]
const EWrongVersion: vector<u8> =
    b"object is of another version: call the package's newest release";
#[error(code = 1)]
const EUpToDate: vector<u8> = b"the object is of this version already";
#[error(code = 2)]
const EBadKey: vector<u8> = b"a public key is 32 bytes";
#[error(code = 3)]
const EWeakKey: vector<u8> =
    b"anyone can sign for this key: it is a point of small order, or not in its one encoding";
#[error(code = 4)]
const EKeyUsed: vector<u8> = b"this key was a key of the account before: take a new one";
#[error(code = 5)]
const EBadSignature: vector<u8> = b"the signature does not verify";
#[error(code = 6)]
const ECardExists: vector<u8> = b"the account has a card: update it";
#[error(code = 7)]
const ENoCard: vector<u8> = b"the directory has no card of that account or wallet";
#[error(code = 8)]
const EForeignDirectory: vector<u8> = b"this card belongs to another directory";
#[error(code = 9)]
const ERevoked: vector<u8> = b"the account was ended by its recovery key";
#[error(code = 10)]
const EExpired: vector<u8> = b"the card would end before it begins";
#[error(code = 11)]
const ETooManyDevices: vector<u8> = b"an account has at most 64 devices";
#[error(code = 12)]
const EUnequalDevices: vector<u8> = b"there have to be as many labels as device keys";
#[error(code = 13)]
const EDeviceTwice: vector<u8> = b"a device is named twice";
#[error(code = 14)]
const ELabelTooLong: vector<u8> = b"a device's label is at most 64 bytes";
#[error(code = 15)]
const ETooManyMailboxes: vector<u8> = b"an account has at most 8 mailboxes";
#[error(code = 16)]
const EMailboxTooLong: vector<u8> = b"a mailbox's address is at most 256 bytes";
#[error(code = 17)]
const EBadPrekeys: vector<u8> = b"the hash of the prekeys is empty or 32 bytes";
#[error(code = 18)]
const ETooManyWallets: vector<u8> = b"an account has at most 32 wallets";
#[error(code = 19)]
const EWalletTaken: vector<u8> = b"the wallet is linked to an account already: unlink it first";
#[error(code = 20)]
const EWalletNotLinked: vector<u8> = b"the wallet isn't linked to this account";
#[error(code = 21)]
const ETooManyRotations: vector<u8> = b"an account's key is changed at most 32 times";

// === Types ===

/// Finds the card of an account, and the account of a wallet. Shared; made once, when the package is published.
public struct Directory has key {
    id: UID,
    version: u16,
    cards: Table<vector<u8>, ID>,
    wallets: Table<address, ID>,
}

/// What an account says of itself. Shared; never deleted, since it is the account's history.
public struct Card has key {
    id: UID,
    version: u16,
    directory: ID,
    /// The account's name: hash of the two first keys.
    account: vector<u8>,
    first_key: vector<u8>,
    first_recovery: vector<u8>,
    /// Each change of the account's key, with the signature of the recovery key before.
    rotations: vector<Rotation>,
    /// Rises with everything that the account's key signs.
    sequence: u64,
    contents: Contents,
    /// Of the account's key over `statement_bytes` of the contents; empty when there are none, since the key was changed
    /// or the account was ended.
    signature: vector<u8>,
    /// The sequence number in that signature.
    signed_sequence: u64,
    /// When the contents were signed, as the chain's clock has it, in ms.
    issued_ms: u64,
    wallets: vector<address>,
    revoked: bool,
}

/// A further key of an account.
public struct Rotation has copy, drop, store {
    key: vector<u8>,
    recovery: vector<u8>,
    signature: vector<u8>,
}

/// A machine that speaks for an account.
public struct Device has copy, drop, store {
    key: vector<u8>,
    label: vector<u8>,
}

/// What an account's key has signed of the account.
public struct Contents has copy, drop, store {
    /// X25519 key to which a first message is sealed; empty for none.
    encryption_key: vector<u8>,
    /// Hash of the prekey bundle in the mailboxes; empty for none.
    prekeys: vector<u8>,
    devices: vector<Device>,
    mailboxes: vector<vector<u8>>,
    /// Last ms at which it holds; 0 for good.
    expires_ms: u64,
}

/// What the account's key signs of `Contents`, in BCS, in this order of fields.
public struct Statement has copy, drop {
    domain: vector<u8>,
    directory: ID,
    account: vector<u8>,
    /// 1 for the first key of the account.
    generation: u64,
    sequence: u64,
    contents: Contents,
}

/// What the account's key signs to link a wallet, or to unlink one that is lost, in BCS.
public struct WalletStatement has copy, drop {
    domain: vector<u8>,
    directory: ID,
    account: vector<u8>,
    generation: u64,
    sequence: u64,
    wallet: address,
    linked: bool,
}

/// What the recovery key signs to end the account, in BCS.
public struct EndStatement has copy, drop {
    domain: vector<u8>,
    directory: ID,
    account: vector<u8>,
    generation: u64,
}

// === Events ===

/// The directory was made.
public struct DirectoryCreated has copy, drop {
    directory: ID,
}

/// An account has a card now.
public struct CardCreated has copy, drop {
    card: ID,
    account: vector<u8>,
}

/// An account has said something new of itself.
public struct CardUpdated has copy, drop {
    card: ID,
    account: vector<u8>,
    sequence: u64,
}

/// The account's key was changed; the contents are void until the new key signs some.
public struct KeyRotated has copy, drop {
    card: ID,
    account: vector<u8>,
    generation: u64,
    key: vector<u8>,
}

/// A wallet was linked, or unlinked.
public struct WalletChanged has copy, drop {
    card: ID,
    account: vector<u8>,
    wallet: address,
    linked: bool,
}

/// The account was ended for good.
public struct CardRevoked has copy, drop {
    card: ID,
    account: vector<u8>,
}

/// An object was moved to this version.
public struct Migrated has copy, drop {
    object: ID,
    from: u16,
    to: u16,
}

// === The directory ===

fun init(ctx: &mut TxContext) { create(ctx) }

fun create(ctx: &mut TxContext) {
    let directory = Directory {
        id: object::new(ctx),
        version: VERSION,
        cards: table::new(ctx),
        wallets: table::new(ctx),
    };
    event::emit(DirectoryCreated { directory: object::id(&directory) });
    transfer::share_object(directory);
}

/// Move the directory to this version. Anyone may call it: it changes nothing else.
public fun migrate_directory(directory: &mut Directory) {
    assert!(directory.version < VERSION, EUpToDate);
    let object = object::id(directory);
    event::emit(Migrated { object, from: directory.version, to: VERSION });
    directory.version = VERSION;
}

/// Move a card to this version. Anyone may call it: it changes nothing else.
public fun migrate(card: &mut Card) {
    assert!(card.version < VERSION, EUpToDate);
    event::emit(Migrated { object: object::id(card), from: card.version, to: VERSION });
    card.version = VERSION;
}

// === Saying ===

/// What an account says of itself. Keys and labels of devices are two vectors of one length.
public fun new_contents(
    encryption_key: vector<u8>,
    prekeys: vector<u8>,
    device_keys: vector<vector<u8>>,
    device_labels: vector<vector<u8>>,
    mailboxes: vector<vector<u8>>,
    expires_ms: u64,
): Contents {
    assert!(encryption_key.is_empty() || encryption_key.length() == KEY_BYTES, EBadKey);
    assert!(prekeys.is_empty() || prekeys.length() == HASH_BYTES, EBadPrekeys);
    assert!(device_keys.length() <= MAX_DEVICES, ETooManyDevices);
    assert!(device_keys.length() == device_labels.length(), EUnequalDevices);
    assert!(mailboxes.length() <= MAX_MAILBOXES, ETooManyMailboxes);
    let mut i = 0;
    while (i < mailboxes.length()) {
        assert!(mailboxes[i].length() <= MAX_MAILBOX_BYTES, EMailboxTooLong);
        i = i + 1;
    };
    let devices = new_devices(&device_keys, &device_labels);
    Contents { encryption_key, prekeys, devices, mailboxes, expires_ms }
}

/// A card of an account that has said nothing yet. Anyone may make it: it says no more than the account's name does.
/// Share it with `share`, behind the account's first `update`, or behind the rotations that there were off the chain.
public fun new(
    directory: &mut Directory,
    key: vector<u8>,
    recovery: vector<u8>,
    ctx: &mut TxContext,
): Card {
    directory.assert_version();
    assert_key(&key);
    assert_key(&recovery);
    assert!(key != recovery, EKeyUsed);
    let account = account_name(&key, &recovery);
    assert!(!directory.cards.contains(account), ECardExists);
    let card = Card {
        id: object::new(ctx),
        version: VERSION,
        directory: object::id(directory),
        account,
        first_key: key,
        first_recovery: recovery,
        rotations: vector[],
        sequence: 0,
        contents: no_contents(),
        signature: vector[],
        signed_sequence: 0,
        issued_ms: 0,
        wallets: vector[],
        revoked: false,
    };
    directory.cards.add(account, object::id(&card));
    event::emit(CardCreated { card: object::id(&card), account });
    card
}

/// Share a new card.
public fun share(card: Card) { transfer::share_object(card) }

/// Replace what a card says. The signature is by the account's key, over `statement_bytes` with the next sequence number.
public fun update(card: &mut Card, contents: Contents, signature: vector<u8>, clock: &Clock) {
    card.assert_usable();
    let now = clock.timestamp_ms();
    assert!(contents.expires_ms == 0 || contents.expires_ms > now, EExpired);
    let sequence = card.sequence + 1;
    let message = statement_bytes(
        card.directory,
        card.account,
        card.generation(),
        sequence,
        contents,
    );
    assert_signed(&signature, &card.key(), &message);
    card.sequence = sequence;
    card.contents = contents;
    card.signature = signature;
    card.signed_sequence = sequence;
    card.issued_ms = now;
    event::emit(CardUpdated { card: object::id(card), account: card.account, sequence });
}

/// Make another key the account's. The signature is by the recovery key, over `rotation_bytes`. What the card said is
/// void until the new key signs something; wallets stay linked.
public fun rotate(card: &mut Card, key: vector<u8>, recovery: vector<u8>, signature: vector<u8>) {
    card.assert_usable();
    assert!(card.rotations.length() < MAX_ROTATIONS, ETooManyRotations);
    assert_key(&key);
    assert_key(&recovery);
    assert!(key != recovery && !card.was_key(&key) && !card.was_key(&recovery), EKeyUsed);
    let generation = card.generation() + 1;
    let message = rotation_bytes(card.account, generation, key, recovery);
    assert_signed(&signature, &card.recovery(), &message);
    card.rotations.push_back(Rotation { key, recovery, signature });
    card.forget();
    event::emit(KeyRotated { card: object::id(card), account: card.account, generation, key });
}

/// End the account for good. The signature is by the recovery key, over `end_bytes`. Wallets can still be unlinked.
public fun revoke(card: &mut Card, signature: vector<u8>) {
    card.assert_usable();
    let message = end_bytes(card.directory, card.account, card.generation());
    assert_signed(&signature, &card.recovery(), &message);
    card.forget();
    card.revoked = true;
    event::emit(CardRevoked { card: object::id(card), account: card.account });
}

// === Wallets ===

/// Link the sender's wallet to the account. The signature is by the account's key, over `wallet_bytes` with the next
/// sequence number.
public fun link_wallet(
    directory: &mut Directory,
    card: &mut Card,
    signature: vector<u8>,
    ctx: &mut TxContext,
) {
    directory.assert_card(card);
    card.assert_usable();
    let wallet = ctx.sender();
    assert!(card.wallets.length() < MAX_WALLETS, ETooManyWallets);
    assert!(!directory.wallets.contains(wallet), EWalletTaken);
    card.assert_wallet_signed(wallet, true, &signature);
    card.wallets.push_back(wallet);
    directory.wallets.add(wallet, object::id(card));
    card.tell_wallet(wallet, true);
}

/// Unlink the sender's wallet, also of an account that was ended.
public fun unlink_wallet(directory: &mut Directory, card: &mut Card, ctx: &mut TxContext) {
    directory.assert_card(card);
    directory.remove_wallet(card, ctx.sender());
}

/// Unlink a wallet that is lost. The signature is by the account's key, over `wallet_bytes` with the next sequence number.
public fun unlink_lost_wallet(
    directory: &mut Directory,
    card: &mut Card,
    wallet: address,
    signature: vector<u8>,
) {
    directory.assert_card(card);
    card.assert_usable();
    card.assert_wallet_signed(wallet, false, &signature);
    directory.remove_wallet(card, wallet);
}

// === Reading ===

/// Whether the directory has a card of this account.
public fun has_card(directory: &Directory, account: vector<u8>): bool {
    directory.cards.contains(account)
}

/// The card of an account.
public fun card_of_account(directory: &Directory, account: vector<u8>): ID {
    assert!(directory.cards.contains(account), ENoCard);
    *directory.cards.borrow(account)
}

/// Whether a wallet is linked to an account.
public fun has_account(directory: &Directory, wallet: address): bool {
    directory.wallets.contains(wallet)
}

/// The card of the account to which a wallet is linked.
public fun card_of_wallet(directory: &Directory, wallet: address): ID {
    assert!(directory.wallets.contains(wallet), ENoCard);
    *directory.wallets.borrow(wallet)
}

/// The account's name.
public fun account(card: &Card): vector<u8> { card.account }

/// How many keys the account has had: 1 for the first.
public fun generation(card: &Card): u64 { card.rotations.length() + 1 }

/// The account's key.
public fun key(card: &Card): vector<u8> {
    if (card.rotations.is_empty()) card.first_key
    else card.rotations[card.rotations.length() - 1].key
}

/// The key that makes another one the account's.
public fun recovery(card: &Card): vector<u8> {
    if (card.rotations.is_empty()) card.first_recovery
    else card.rotations[card.rotations.length() - 1].recovery
}

/// The sequence number of what the account's key signed last.
public fun sequence(card: &Card): u64 { card.sequence }

/// X25519 key to which a first message is sealed; empty for none.
public fun encryption_key(card: &Card): vector<u8> { card.contents.encryption_key }

/// Hash of the prekey bundle in the mailboxes; empty for none.
public fun prekeys(card: &Card): vector<u8> { card.contents.prekeys }

/// Addresses of the account's mailboxes.
public fun mailboxes(card: &Card): vector<vector<u8>> { card.contents.mailboxes }

/// The account's wallets.
public fun wallets(card: &Card): vector<address> { card.wallets }

/// Whether a key is one of the account's devices now.
public fun names_device(card: &Card, key: vector<u8>, clock: &Clock): bool {
    if (!card.is_current(clock)) return false;
    let devices = &card.contents.devices;
    let mut i = 0;
    while (i < devices.length()) {
        if (devices[i].key == key) return true;
        i = i + 1;
    };
    false
}

/// Whether what the card says holds: signed by the account's key of today, not expired, not ended.
public fun is_current(card: &Card, clock: &Clock): bool {
    if (card.signature.is_empty()) return false;
    let ends = card.contents.expires_ms;
    ends == 0 || clock.timestamp_ms() <= ends
}

/// Whether the account was ended.
public fun is_revoked(card: &Card): bool { card.revoked }

/// The exact bytes that the account's key signs of what a card says.
public fun statement_bytes(
    directory: ID,
    account: vector<u8>,
    generation: u64,
    sequence: u64,
    contents: Contents,
): vector<u8> {
    let domain = CARD_DOMAIN;
    bcs::to_bytes(&Statement { domain, directory, account, generation, sequence, contents })
}

/// The exact bytes that the account's key signs to link a wallet, or to unlink a lost one.
public fun wallet_bytes(
    directory: ID,
    account: vector<u8>,
    generation: u64,
    sequence: u64,
    wallet: address,
    linked: bool,
): vector<u8> {
    let domain = WALLET_DOMAIN;
    bcs::to_bytes(
        &WalletStatement { domain, directory, account, generation, sequence, wallet, linked },
    )
}

/// The exact bytes that the recovery key signs to make `key` the account's of this generation. They name no directory:
/// a rotation counts off the chain and on every chain.
public fun rotation_bytes(
    account: vector<u8>,
    generation: u64,
    key: vector<u8>,
    recovery: vector<u8>,
): vector<u8> {
    let domain = ROTATION_DOMAIN;
    let mut message = bcs::to_bytes(&domain);
    message.append(account);
    let mut shift = 32u8;
    while (shift > 0) {
        shift = shift - 8;
        message.push_back(((generation >> shift) & 0xff) as u8);
    };
    message.append(key);
    message.append(recovery);
    message
}

/// The exact bytes that the recovery key signs to end an account.
public fun end_bytes(directory: ID, account: vector<u8>, generation: u64): vector<u8> {
    bcs::to_bytes(&EndStatement { domain: END_DOMAIN, directory, account, generation })
}

// === Private ===

fun forget(card: &mut Card) {
    card.contents = no_contents();
    card.signature = vector[];
    card.signed_sequence = 0;
    card.issued_ms = 0;
}

fun no_contents(): Contents {
    Contents {
        encryption_key: vector[],
        prekeys: vector[],
        devices: vector[],
        mailboxes: vector[],
        expires_ms: 0,
    }
}

fun new_devices(keys: &vector<vector<u8>>, labels: &vector<vector<u8>>): vector<Device> {
    let mut devices = vector[];
    let mut i = 0;
    while (i < keys.length()) {
        let key = keys[i];
        let label = labels[i];
        assert_key(&key);
        assert!(label.length() <= MAX_LABEL_BYTES, ELabelTooLong);
        let mut before = 0;
        while (before < i) {
            assert!(keys[before] != key, EDeviceTwice);
            before = before + 1;
        };
        devices.push_back(Device { key, label });
        i = i + 1;
    };
    devices
}

fun account_name(key: &vector<u8>, recovery: &vector<u8>): vector<u8> {
    let mut named = ACCOUNT_DOMAIN;
    named.append(*key);
    named.append(*recovery);
    hash::blake2b256(&named)
}

/// True for all keys that the account has, or had.
fun was_key(card: &Card, key: &vector<u8>): bool {
    if (key == &card.first_key || key == &card.first_recovery) return true;
    let mut i = 0;
    while (i < card.rotations.length()) {
        let rotation = &card.rotations[i];
        if (key == &rotation.key || key == &rotation.recovery) return true;
        i = i + 1;
    };
    false
}

fun assert_wallet_signed(card: &mut Card, wallet: address, linked: bool, signature: &vector<u8>) {
    let sequence = card.sequence + 1;
    let generation = card.generation();
    let message = wallet_bytes(card.directory, card.account, generation, sequence, wallet, linked);
    assert_signed(signature, &card.key(), &message);
    card.sequence = sequence;
}

fun remove_wallet(directory: &mut Directory, card: &mut Card, wallet: address) {
    let mut i = 0;
    while (i < card.wallets.length() && card.wallets[i] != wallet) i = i + 1;
    assert!(i < card.wallets.length(), EWalletNotLinked);
    card.wallets.swap_remove(i);
    directory.wallets.remove(wallet);
    card.tell_wallet(wallet, false);
}

fun tell_wallet(card: &Card, wallet: address, linked: bool) {
    event::emit(WalletChanged { card: object::id(card), account: card.account, wallet, linked });
}

fun assert_signed(signature: &vector<u8>, key: &vector<u8>, message: &vector<u8>) {
    assert!(sui::ed25519::ed25519_verify(signature, key, message), EBadSignature);
}

fun assert_key(key: &vector<u8>) {
    assert!(key.length() == KEY_BYTES, EBadKey);
    assert!(!is_weak_key(key), EWeakKey);
}

/// True when signatures of the key can be made without its secret, or when it is not in the one encoding of its point.
/// The chain checks Ed25519 by ZIP-215: it takes such keys, and any message is signed by a point of small order.
fun is_weak_key(key: &vector<u8>): bool {
    let mut y = *key;
    let last = KEY_BYTES - 1;
    let top = y[last] & SIGN_MASK;
    *(&mut y[last]) = top;
    let small = SMALL_ORDER;
    small.contains(&y) || is_unreduced(&y)
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

fun assert_version(directory: &Directory) {
    assert!(directory.version == VERSION, EWrongVersion);
}

fun assert_card(directory: &Directory, card: &Card) {
    directory.assert_version();
    assert!(card.version == VERSION, EWrongVersion);
    assert!(card.directory == object::id(directory), EForeignDirectory);
}

fun assert_usable(card: &Card) {
    assert!(card.version == VERSION, EWrongVersion);
    assert!(!card.revoked, ERevoked);
}

// === Tests ===

#[test_only]
public fun init_for_testing(ctx: &mut TxContext) { create(ctx) }

#[test_only]
public fun set_version_for_testing(card: &mut Card, version: u16) { card.version = version }

#[test_only]
public fun set_directory_version_for_testing(directory: &mut Directory, version: u16) {
    directory.version = version
}
