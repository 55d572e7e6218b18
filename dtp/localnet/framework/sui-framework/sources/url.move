/// Text that is meant as a URL. Nothing checks it.
module sui::url;

use std::ascii::{Self, String};

public struct Url has copy, drop, store {
    url: String,
}

public fun new_unsafe(url: String): Url {
    Url { url }
}

public fun new_unsafe_from_bytes(bytes: vector<u8>): Url {
    Url { url: ascii::string(bytes) }
}

public fun inner_url(self: &Url): String {
    self.url
}

public fun update(self: &mut Url, url: String) {
    self.url = url
}
