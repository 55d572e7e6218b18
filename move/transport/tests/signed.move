/// Signatures for the tests. Written by `tests/move/signed_fixtures.py`; don't edit.
#[test_only]
module transport::signed;

use transport::channel::{Self, Voucher};

/// A voucher and its signature.
public struct Signed has drop {
    voucher: Voucher,
    signature: vector<u8>,
}

/// An agreed close, the other party's public key and its signature.
public struct Agreed has drop {
    total: u64,
    not_after_ms: u64,
    key: vector<u8>,
    signature: vector<u8>,
}

public fun voucher(signed: &Signed): (Voucher, vector<u8>) { (signed.voucher, signed.signature) }

public fun agreement(agreed: &Agreed): (u64, u64, vector<u8>, vector<u8>) {
    (agreed.total, agreed.not_after_ms, agreed.key, agreed.signature)
}

public fun server(): address { @0x29dfbf688abce7ab43bb8e70cae158ae961196e721440f515482f8ba1684390f }

public fun client(): address { @0x7799ea80594c35644321148485238c7a7a1c6549809e1795e6747c6d4da2504c }

public fun key_a(): vector<u8> { x"ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1" }

public fun key_b(): vector<u8> { x"ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c" }

public fun key_c(): vector<u8> { x"6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1" }

public fun preimage(): vector<u8> { x"0707070707070707070707070707070707070707070707070707070707070707" }

public fun channel_id(): ID { object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975) }

public fun pass_channel_id(): ID { object::id_from_address(@0xdba72804cc9504a82bbaa13ed4a83a0e2c6219d7e45125cf57fd10cbab957a97) }

/// Ten requests at ten each.
public fun first(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        100,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"7128adac62f8df31fe49a2ae12bdfe5054f3d17f4a9ce39bed689a413b79119c7b8c8bb7424ecde28faa2bd806b9292b7be8471482b899a75175b9b05ec74b09" }
}

/// Ten more requests, and bytes.
public fun second(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        2,
        250,
        20,
        100,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"ea5cf06120ceb3f64b493e7a7f073bd2dbd34a4103668764a620c1961e806b95f7c6637abcc5d30e3c8a32aac2a4ebaab2c8a085758a7ac98d4b39315c59150a" }
}

/// Most of the deposit, and bytes of three frames.
public fun third(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        3,
        900,
        50,
        50000,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"7610b1e2daa7a569586eb156b7d64ed332d903a456dbe1887c74d10667ab2340c4f65f75bb4c10bff03460df9ed0df2d3cf64f62c540d97497ca97188d827708" }
}

/// More than the deposit.
public fun fourth(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        4,
        5000,
        100,
        50000,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"4444fb7d06ff9777d47b6d1af45683d983eea1211fbae2b6e58d867fd11c3477297d562e68fce5dcddd134cdf266f7d17f276d3adf8527b88063a856fae40901" }
}

/// As the fourth, in the next sequence.
public fun last(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        5,
        5000,
        100,
        50000,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"9c270fd76bbd7a643c0de5cf0bd48f5235d283b48261eb5e54f9ab11e29d975457cb96f2dd064dde42be78fa209742854575a580a7b0911aa03893ac70e52d0e" }
}

/// As the first, and the bytes of four frames of 16 KiB.
public fun carried(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        100,
        10,
        65536,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"23d7b9bd1c00e26ab3519fc1fae7eaccd50922480e13482f152c452e96885005da1f3ce682f92d224e8ef4cf16c1aaa53212b29e54754723cefad89fb53b5206" }
}

/// Less than the first was for.
public fun shrunk_amount(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        2,
        99,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"149819b2a89b7e04fa9d74e05ca7700bc2120714b673726a51054975f83a9305d3cdf3c0d556a4a0c4ea823dfeb8b4fdba37fc68f23b3e2f9bef7a033c7ced05" }
}

/// Fewer requests than the first counted.
public fun shrunk_requests(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        2,
        100,
        9,
        10,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"e0d2ecbf20639f3d792afd4158f16d8accdc15204253a27542c3479b7b4c1cee6fc8292e5284eba06100d46e840c82accb2ec00569aef07c4fab47c1c27aa50d" }
}

/// Fewer bytes than the second counted.
public fun shrunk_bytes(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        3,
        250,
        20,
        99,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"e9dee238a03a90e3fd32363339602ef3e3b04d684a451b52052d0711146000bba43eb4823bb4ba6d5b27cab35b65ba608ec8a6b63b4437d836a232e8a0ed2807" }
}

/// The first's sequence with another amount.
public fun other_sum(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        90,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"cec2795845912471e50f0c1719ac8325cfdc3a3bda865ae8087d5f7508ec1de7601b2a5454434f9c98b8ca4755e3abf9e46c73fa8a421ef976a161218ce87a0c" }
}

/// One more than ten requests cost.
public fun overpriced(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        101,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"142979bef79bdc90b202e8f5b102bbf09bf3cf2d2e4e6c61448a0a4518d0d314c9246ddffc5a091ba6f0c0838b745b63b68bc0bd9169c87076341890197b2103" }
}

/// A byte short of a MiB at three a MiB, rounded down.
public fun rounded_down(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        2,
        0,
        1048575,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"2fb6868fe797defdcaf466480c7650ce031b42fbb617564f6dd116448cbb1104ba78a20b4717717ae2c964ee77e95da5e762061ec0737dde8314bed7be51340f" }
}

/// A byte short of a MiB at three a MiB, rounded up.
public fun rounded_up(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        3,
        0,
        1048575,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"0911ed43da0499d695c366fb9e348a199ba8019fdc114d79040d2476dfc35b18653c743b63d935a8d510f9ca6670544c1b67752fe1e21853a1f8c96be631990f" }
}

/// Good until the millisecond 1,000,500.
public fun short_lived(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        100,
        10,
        0,
        option::none(),
        1000500,
    );
    Signed { voucher, signature: x"2d588b07faece52900ad9496acd6cd7a55a4a3cc9327cd901e62ae8748a56bf4c1b0054ab201abe4d70c760548268a12657f95896bd0e0744dc4a4d4dc79650d" }
}

/// For another channel.
public fun foreign(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x0000000000000000000000000000000000000000000000000000000000000001),
        0,
        1,
        100,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"eeba870536165aee9b9392a1de6aec145ad0c2343fed35f18170039c0e52bcf6ecd247f1b48631942fc9ab26dd4b28a4d5c383665e4b77750b650600c97e360c" }
}

/// Pays only with the preimage.
public fun locked(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        100,
        10,
        0,
        option::some(x"4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294e0"),
        18446744073709551615,
    );
    Signed { voucher, signature: x"93a6e1d34b7c7be21f9ee87dd17f756552f280f6a7fbe295384b043e6aed8113d883b234a4529a2f6a941c81511e4006f56169372a1e1518bd3b834bd6346f04" }
}

/// A hash lock that is a byte short.
public fun badly_locked(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        100,
        10,
        0,
        option::some(x"4bb06f8e4e3a7715d201d573d0aa423762e55dabd61a2c02278fa56cc6d294"),
        18446744073709551615,
    );
    Signed { voucher, signature: x"33bf5c25dd814eb250a3cdb11016b5434a794251283b7d16db89e129b05ec048934102ef1de58b2c68a6b6cb05d9e78d75058cddb62e539492a618fc9096c205" }
}

/// Signed by another lane's key.
public fun forged(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        100,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"d3f2c4980ce4fb0dd9fb46a7490ea153b80c3a8e1bc837ef44295f370ece927e4f8e3759d9beb27cbcd075e7dbc201e5c24b88d252c3806adf5c02b33ddd6e0a" }
}

/// For a lane that isn't there.
public fun laneless(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        5,
        1,
        100,
        10,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"9111747720209aca66b1497510403905102f13c593723acbbfc325ae9e1701f69a1dbc31ad68a9d8618f567fb30b8d5d1d40f3e223ac6a58783ed63411ed1c07" }
}

/// Of the second lane, by its key.
public fun lane_one(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        1,
        1,
        300,
        30,
        0,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"f521b08fb01d56b9ad7c3c6997192c77e4656c39f0812f3e9ec06c3cce2590d10a883938096784fe2fa06d399c5716cec81040b673f81f22e9e32544829a2007" }
}

/// Of the first lane, by its new key.
public fun rotated(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        2,
        250,
        20,
        100,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"739408cf578c06ec0efafce6a82311c5d2d84d0118b85bf41c1adec99957dbda8700036daec379cc86aba0c589235ed0c174be8562b251e293cbfd678063c901" }
}

/// All that fits.
public fun huge(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        0,
        1,
        18446744073709551615,
        18446744073709551615,
        18446744073709551615,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"bbf14b75dad4a8f20124f15ffe9c22994cf37cded340072683276d6b9f8cfa0867558d9e19f30f3259311ccb00f94ab75801ff7a2ac878a51ee7fbba63fb0303" }
}

/// All that fits, again.
public fun huge_lane_one(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0x63d9a65220318469fb169034d8a011eae3f014fed2a1f8c006183e2ece3c3975),
        1,
        1,
        18446744073709551615,
        18446744073709551615,
        18446744073709551615,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"7a631bccbc0dd18cd2e5e7b0331d5f343a75b748d30da0677d03028ca06de9f7fe02dfd0afd3add1f441ee174d9535035ac0181273fa1909b9d0143f7a476b08" }
}

/// What was used under a pass.
public fun receipt(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0xdba72804cc9504a82bbaa13ed4a83a0e2c6219d7e45125cf57fd10cbab957a97),
        0,
        1,
        0,
        5,
        20000,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"481eb74e80bd84436e0a4d683d32e334b0f104e5d4c9db45bef13bf5db477505d3e9f25dcd52837c46cf4a7b6bf8acf15ae7be10547e6f6ae4ec69238f89400b" }
}

/// Asks for money under a pass.
public fun priced_receipt(): Signed {
    let voucher = channel::new_voucher(
        object::id_from_address(@0xdba72804cc9504a82bbaa13ed4a83a0e2c6219d7e45125cf57fd10cbab957a97),
        0,
        1,
        1,
        5,
        20000,
        option::none(),
        18446744073709551615,
    );
    Signed { voucher, signature: x"4bca9277c625eb98d68c0615370b2b4956d209be6927981bb94eec486665f4f7712bd09453dbaded8a383c20eff4d256b19134fb5fd1b43e2b9cfff9e1256706" }
}

/// The server agrees to 400 in all.
public fun agreed_by_server(): Agreed {
    Agreed {
        total: 400,
        not_after_ms: 18446744073709551615,
        key: x"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
        signature: x"e293b9c41282756e3114a0d6a0b3b3f1c5f577446758b1178209610f6f75a8de0da97ce1fd01abd8da856d534f8492238818a56d8c682f95c2937fa0400ff60d",
    }
}

/// The client agrees to 400 in all.
public fun agreed_by_client(): Agreed {
    Agreed {
        total: 400,
        not_after_ms: 18446744073709551615,
        key: x"8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394",
        signature: x"f9214f28cc3b463fd49be14dd73fdd4fe8ba89fe4aab65f7986ac03ea6233f4a888fb2747aa232e5556b05cd723dc961bdd7348bfb34233c60efb26ef45b9e01",
    }
}

/// Somebody else agrees.
public fun agreed_by_stranger(): Agreed {
    Agreed {
        total: 400,
        not_after_ms: 18446744073709551615,
        key: x"ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1",
        signature: x"d25bbc7e277fd8b567b3cdbb55f2f0f84bbcb750534090d665e4fcb7db10e4d0e6b6064cdbb44e238f0122ee447ccd20a3bb0289803573e78638e9ec3478c600",
    }
}

/// One less than the first voucher.
public fun agreed_low(): Agreed {
    Agreed {
        total: 99,
        not_after_ms: 18446744073709551615,
        key: x"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
        signature: x"a5fd5c02593e09a7adb99bd10731cd39a7822f48925a46f842584e5052ffc9b66c2859223409595d5d800c5317e7ec37a56aec3ff44a1692546350ee5653a101",
    }
}

/// One more than the deposit.
public fun agreed_high(): Agreed {
    Agreed {
        total: 1001,
        not_after_ms: 18446744073709551615,
        key: x"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
        signature: x"208800143d632ff8a9d808185acea857651da3d25df70b31a85a6c20a263756eb7de3ed58edb749dca050ac92580c5e55385a8013eaeb8bafe07388aae02a809",
    }
}

/// Good until the millisecond 1,000,500.
public fun agreed_briefly(): Agreed {
    Agreed {
        total: 400,
        not_after_ms: 1000500,
        key: x"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c",
        signature: x"4934bb889ae9fd3fa74ada4065a44fc2c1f70ca6c5a00e3b143b8f3890c1f18199e4233728a3fe649e09cfb4ea0747a4a611e6256305e5617f12bca98e8f1906",
    }
}
