#[test_only]
module transport::voucher_refusals;

use sui::{sui::SUI, test_scenario as ts};
use transport::{
    channel::{Self, Channel},
    channel_world::{agree, close_by_client, close_by_stranger, finalize_by_stranger, open},
    signed,
    world
};

#[test, expected_failure(abort_code = channel::EForeignVoucher)]
fun foreign_voucher() {
    let mut w = open();
    w.claim(signed::foreign());
    w.end();
}

#[test, expected_failure(abort_code = channel::EVoucherExpired)]
fun voucher_expired() {
    let mut w = open();
    w.wait(501);
    w.claim(signed::short_lived());
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleVoucher)]
fun stale_voucher() {
    let mut w = open();
    w.claim(signed::first());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun an_older_voucher_after_a_newer_one() {
    let mut w = open();
    w.claim(signed::second());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun a_voucher_of_the_same_sequence_for_less() {
    let mut w = open();
    w.claim(signed::first());
    w.claim(signed::other_sum());
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun shrunk_voucher() {
    let mut w = open();
    w.claim(signed::first());
    w.claim(signed::shrunk_amount());
    w.end();
}

#[test]
fun counts_never_shrink() {
    let mut w = open();
    w.claim(signed::first());
    assert!(w.claim(signed::shrunk_requests()) == 0);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (requests, bytes) = channel.usage();
        assert!(requests == 10 && bytes == 10);
    });
    w.end();
}

/// A client has the lane's key, and may sign and claim what it likes under any sequence.
#[test]
fun what_a_client_claims_for_less_voids_nothing_that_the_server_holds() {
    let mut w = open();
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::shrunk_amount().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
        let (sequence, amount) = channel.lane_progress(0);
        assert!(sequence == 2 && amount == 99);
        // Its counts are no evidence of anything.
        let (requests, bytes) = channel.usage();
        assert!(requests == 0 && bytes == 0);
    });
    assert!(w.receive(signed::server()) == 99);
    assert!(w.claim(signed::first()) == 1);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (requests, _) = channel.usage();
        assert!(requests == 10);
        world::assert_conserved(channel);
    });
    w.end();
}

/// Else one MIST more than the server holds would take its transport credits from it.
#[test]
fun what_a_client_claims_for_more_voids_no_evidence() {
    let mut w = open();
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::second().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    assert!(w.receive(signed::server()) == 250);
    assert!(w.claim(signed::first()) == 0);
    w.as_client();
    world::channel!(&mut w, |channel, _, _| {
        let (sequence, amount) = channel.lane_progress(0);
        assert!(sequence == 2 && amount == 250 && channel.owed() == 0);
        let (requests, bytes) = channel.usage();
        assert!(requests == 10 && bytes == 0);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EShrunkVoucher)]
fun a_voucher_for_less_with_more_counts_that_is_not_the_servers_claim() {
    let mut w = open();
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::second().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
        let (voucher, signature) = signed::first().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleVoucher)]
fun a_claim_of_counts_alone_that_is_not_the_servers() {
    let mut w = open();
    w.claim(signed::first());
    w.as_client();
    world::channel!(&mut w, |channel, clock, ctx| {
        let (voucher, signature) = signed::shrunk_requests().voucher();
        channel.claim_for(voucher, signature, vector[], clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EStaleVoucher)]
fun a_newer_voucher_for_nothing_more() {
    let mut w = open();
    w.claim(signed::second());
    w.claim(signed::shrunk_bytes());
    w.end();
}

#[test, expected_failure(abort_code = channel::EOverPrice)]
fun over_price() {
    let mut w = open();
    w.claim(signed::overpriced());
    w.end();
}

#[test, expected_failure(abort_code = channel::EOverPrice)]
fun over_price_by_rounding_up() {
    let mut w = world::with_channel(world::terms_with(3, 1_000, 0, 0));
    w.claim(signed::rounded_up());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadHashLock)]
fun bad_hash_lock() {
    let mut w = open();
    w.claim_with(signed::badly_locked(), signed::preimage());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongPreimage)]
fun wrong_preimage() {
    let mut w = open();
    w.claim_with(signed::locked(), signed::key_a());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongPreimage)]
fun wrong_preimage_when_it_is_missing() {
    let mut w = open();
    w.claim(signed::locked());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature() {
    let mut w = open();
    w.claim(signed::forged());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_when_the_amount_was_changed() {
    let mut w = open();
    let (_, signature) = signed::first().voucher();
    let forever = 18_446_744_073_709_551_615;
    let voucher = channel::new_voucher(
        signed::channel_id(),
        0,
        1,
        99,
        10,
        0,
        option::none(),
        forever,
    );
    let (s, clock) = w.parts();
    let mut channel = s.take_shared<Channel<SUI>>();
    channel.claim_for(voucher, signature, vector[], clock, s.ctx());
    ts::return_shared(channel);
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_of_an_old_key_after_its_grace() {
    let mut w = open();
    world::channel!(
        &mut w,
        |channel, clock, ctx| channel.rotate_lane(0, signed::key_c(), clock, ctx),
    );
    w.wait(world::claim_ms());
    w.claim(signed::first());
    w.end();
}

#[test, expected_failure(abort_code = channel::EBadSignature)]
fun bad_signature_under_an_agreement() {
    let mut w = open();
    let (total, not_after, key, _) = signed::agreed_by_server().agreement();
    let (_, _, _, signature) = signed::agreed_high().agreement();
    world::channel!(&mut w, |channel, clock, ctx| {
        channel.close_agreed(total, not_after, key, signature, clock, ctx);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClosing)]
fun not_closing() {
    let mut w = open();
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClosing)]
fun not_closing_any_more() {
    let mut w = open();
    close_by_client(&mut w);
    w.wait(world::claim_ms());
    finalize_by_stranger(&mut w);
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early() {
    let mut w = open();
    close_by_client(&mut w);
    w.wait(world::claim_ms() - 1);
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early_for_the_server_to_ask_for_the_close() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, clock, ctx| channel.request_close(clock, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early_for_a_stranger_to_ask_for_the_close() {
    let mut w = open();
    w.wait(1_000);
    w.claim(signed::first());
    w.wait(world::idle_ms() - 1);
    close_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::ETooEarly)]
fun too_early_to_finalize_an_idle_channel() {
    let mut w = open();
    w.wait(world::idle_ms());
    close_by_client(&mut w);
    w.wait(world::claim_ms() - 1);
    finalize_by_stranger(&mut w);
    w.end();
}

#[test, expected_failure(abort_code = channel::EAgreementExpired)]
fun agreement_expired() {
    let mut w = open();
    w.wait(501);
    agree(&mut w, signed::agreed_briefly());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongSigner)]
fun wrong_signer() {
    let mut w = open();
    agree(&mut w, signed::agreed_by_stranger());
    w.end();
}

#[test, expected_failure(abort_code = channel::EWrongSigner)]
fun wrong_signer_when_one_signs_for_itself() {
    let mut w = open();
    agree(&mut w, signed::agreed_by_client());
    w.end();
}

#[test, expected_failure(abort_code = channel::EAgreedTooLow)]
fun agreed_too_low() {
    let mut w = open();
    w.claim(signed::first());
    w.as_client();
    agree(&mut w, signed::agreed_low());
    w.end();
}

#[test, expected_failure(abort_code = channel::EAgreedTooHigh)]
fun agreed_too_high() {
    let mut w = open();
    agree(&mut w, signed::agreed_high());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClosed)]
fun not_closed() {
    let mut w = open();
    let (s, _) = w.parts();
    let channel = s.take_shared<Channel<SUI>>();
    channel.destroy(s.ctx());
    w.end();
}

#[test, expected_failure(abort_code = channel::ENotClient)]
fun not_client_to_destroy() {
    let mut w = open();
    w.as_server();
    world::channel!(&mut w, |channel, _, ctx| channel.release(ctx));
    w.as_server();
    let (s, _) = w.parts();
    let channel = s.take_shared<Channel<SUI>>();
    channel.destroy(s.ctx());
    w.end();
}

#[test]
fun the_client_adds_any_sum_and_others_the_least_deposit() {
    let mut w = open();
    w.as_client();
    let little = w.mint(1);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(little, ctx));
    w.as_stranger();
    let least = w.mint(100);
    world::channel!(&mut w, |channel, _, ctx| {
        channel.top_up(least, ctx);
        assert!(channel.deposited() == 1_101);
        world::assert_conserved(channel);
    });
    w.end();
}

#[test, expected_failure(abort_code = channel::EDepositTooSmall)]
fun deposit_too_small_of_a_stranger_who_adds_to_it() {
    let mut w = open();
    w.as_stranger();
    let dust = w.mint(99);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(dust, ctx));
    w.end();
}

#[test, expected_failure(abort_code = channel::EDepositTooSmall)]
fun deposit_too_small_when_nothing_is_added() {
    let mut w = open();
    w.as_client();
    let nothing = w.mint(0);
    world::channel!(&mut w, |channel, _, ctx| channel.top_up(nothing, ctx));
    w.end();
}
