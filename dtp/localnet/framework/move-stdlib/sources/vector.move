/// `vector`: eight instructions of the machine, and what is built on them.
#[defines_primitive(vector)]
module std::vector;

public use fun std::string::utf8 as vector.to_string;
public use fun std::string::try_utf8 as vector.try_to_string;
public use fun std::ascii::string as vector.to_ascii_string;
public use fun std::ascii::try_string as vector.try_to_ascii_string;

const EINDEX_OUT_OF_BOUNDS: u64 = 0x20000;

#[bytecode_instruction]
public native fun empty<Element>(): vector<Element>;

#[bytecode_instruction]
public native fun length<Element>(v: &vector<Element>): u64;

#[bytecode_instruction, syntax(index)]
public native fun borrow<Element>(v: &vector<Element>, i: u64): &Element;

#[bytecode_instruction]
public native fun push_back<Element>(v: &mut vector<Element>, e: Element);

#[bytecode_instruction, syntax(index)]
public native fun borrow_mut<Element>(v: &mut vector<Element>, i: u64): &mut Element;

#[bytecode_instruction]
public native fun pop_back<Element>(v: &mut vector<Element>): Element;

#[bytecode_instruction]
public native fun destroy_empty<Element>(v: vector<Element>);

#[bytecode_instruction]
public native fun swap<Element>(v: &mut vector<Element>, i: u64, j: u64);

public fun singleton<Element>(e: Element): vector<Element> {
    vector[e]
}

public fun reverse<Element>(v: &mut vector<Element>) {
    let mut left = 0;
    let mut right = v.length();
    while (left + 1 < right) {
        right = right - 1;
        v.swap(left, right);
        left = left + 1;
    }
}

public fun append<Element>(lhs: &mut vector<Element>, mut other: vector<Element>) {
    other.reverse();
    while (other.length() > 0) lhs.push_back(other.pop_back());
    other.destroy_empty();
}

public fun is_empty<Element>(v: &vector<Element>): bool {
    v.length() == 0
}

public fun contains<Element>(v: &vector<Element>, e: &Element): bool {
    let (found, _) = v.index_of(e);
    found
}

public fun index_of<Element>(v: &vector<Element>, e: &Element): (bool, u64) {
    let length = v.length();
    let mut at = 0;
    while (at < length) {
        if (&v[at] == e) return (true, at);
        at = at + 1;
    };
    (false, 0)
}

public fun remove<Element>(v: &mut vector<Element>, mut i: u64): Element {
    let length = v.length();
    if (i >= length) abort EINDEX_OUT_OF_BOUNDS;
    while (i + 1 < length) {
        v.swap(i, i + 1);
        i = i + 1;
    };
    v.pop_back()
}

public fun insert<Element>(v: &mut vector<Element>, e: Element, mut i: u64) {
    let length = v.length();
    if (i > length) abort EINDEX_OUT_OF_BOUNDS;
    v.push_back(e);
    while (i < length) {
        v.swap(i, length);
        i = i + 1;
    }
}

public fun swap_remove<Element>(v: &mut vector<Element>, i: u64): Element {
    let length = v.length();
    if (length == 0) abort EINDEX_OUT_OF_BOUNDS;
    v.swap(i, length - 1);
    v.pop_back()
}

public fun skip<Element: drop>(mut v: vector<Element>, n: u64): vector<Element> {
    let length = v.length();
    if (n >= length) return vector[];
    let mut rest = vector[];
    let mut left = length - n;
    while (left > 0) {
        rest.push_back(v.pop_back());
        left = left - 1;
    };
    rest.reverse();
    rest
}

public fun take<Element: drop>(mut v: vector<Element>, n: u64): vector<Element> {
    assert!(n <= v.length());
    while (v.length() > n) {
        v.pop_back();
    };
    v
}

public fun flatten<Element>(mut v: vector<vector<Element>>): vector<Element> {
    let mut all = vector[];
    v.reverse();
    while (v.length() > 0) all.append(v.pop_back());
    v.destroy_empty();
    all
}
