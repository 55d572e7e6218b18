/// An example of a package on top of `transport`: ratings that cost what they say.
///
/// Whoever closed a channel may stamp its server once, and the stamp carries what was really paid. A reader weighs stars
/// by money, so praise is as expensive as the service it praises.
module stamps::stamp;

use sui::event;
use transport::channel::Channel;

/// Most stars of a stamp.
const MAX_STARS: u8 = 5;
/// State of a channel from which all is paid out.
const STATE_CLOSED: u8 = 3;

#[error(code = 0)]
const ENotClient: vector<u8> = b"only the channel's client may stamp";
#[error(code = 1)]
const ENotClosed: vector<u8> = b"close the channel first";
#[error(code = 2)]
const ETooManyStars: vector<u8> = b"five stars are the most";

/// A rating by one client of one server. Owned by the client, who may show it or give it away.
public struct Stamp has key, store {
    id: UID,
    channel: ID,
    server: address,
    paid: u64,
    stars: u8,
}

/// A server was rated.
public struct Stamped has copy, drop {
    channel: ID,
    server: address,
    paid: u64,
    stars: u8,
}

/// Rate the server of a closed channel of the sender, and delete the channel, so that it can be rated once only.
public fun stamp<T>(channel: Channel<T>, stars: u8, ctx: &mut TxContext): Stamp {
    assert!(channel.client() == ctx.sender(), ENotClient);
    assert!(channel.state() == STATE_CLOSED, ENotClosed);
    assert!(stars <= MAX_STARS, ETooManyStars);
    let stamp = Stamp {
        id: object::new(ctx),
        channel: object::id(&channel),
        server: channel.server(),
        paid: channel.claimed(),
        stars,
    };
    event::emit(Stamped { channel: stamp.channel, server: stamp.server, paid: stamp.paid, stars });
    channel.destroy(ctx);
    stamp
}

/// The server, what it was paid, and the stars.
public fun content(stamp: &Stamp): (address, u64, u8) { (stamp.server, stamp.paid, stamp.stars) }
