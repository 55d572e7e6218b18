/// What our packages use of `std::vector`.
#[defines_primitive(vector)]
module std::vector;

#[bytecode_instruction]
public native fun length<Element>(v: &vector<Element>): u64;

#[syntax(index)]
#[bytecode_instruction]
public native fun borrow<Element>(v: &vector<Element>, i: u64): &Element;

#[bytecode_instruction]
public native fun push_back<Element>(v: &mut vector<Element>, e: Element);

#[syntax(index)]
#[bytecode_instruction]
public native fun borrow_mut<Element>(v: &mut vector<Element>, i: u64): &mut Element;

#[bytecode_instruction]
public native fun pop_back<Element>(v: &mut vector<Element>): Element;

#[bytecode_instruction]
public native fun destroy_empty<Element>(v: vector<Element>);

#[bytecode_instruction]
public native fun swap<Element>(v: &mut vector<Element>, i: u64, j: u64);

#[bytecode_instruction]
public native fun empty<Element>(): vector<Element>;

public native fun append<Element>(lhs: &mut vector<Element>, other: vector<Element>);

public native fun is_empty<Element>(v: &vector<Element>): bool;

public native fun swap_remove<Element>(v: &mut vector<Element>, i: u64): Element;

public native fun contains<Element>(v: &vector<Element>, e: &Element): bool;
