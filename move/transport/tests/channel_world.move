/// What tests of channels share.
#[test_only]
module transport::channel_world;

use transport::{signed, world::{Self, World}};

public fun open(): World { world::with_channel(world::terms()) }

public fun capped(cap: u64): World { world::with_channel(world::terms_with(1_048_576, cap, 0, 0)) }

public fun close_by_client(w: &mut World) {
    w.as_client();
    world::channel!(w, |channel, clock, ctx| channel.request_close(clock, ctx));
}

public fun close_by_stranger(w: &mut World) {
    w.as_stranger();
    world::channel!(w, |channel, clock, ctx| channel.request_close(clock, ctx));
}

public fun finalize_by_stranger(w: &mut World) {
    w.as_stranger();
    world::channel!(w, |channel, clock, ctx| channel.finalize(clock, ctx));
}

public fun agree(w: &mut World, agreed: signed::Agreed) {
    let (total, not_after, key, signature) = agreed.agreement();
    world::channel!(w, |channel, clock, ctx| {
        channel.close_agreed(total, not_after, key, signature, clock, ctx);
        world::assert_conserved(channel);
    });
}
