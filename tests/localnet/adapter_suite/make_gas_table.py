"""Write `genuine_gas.json`: own transactions, equal in what gas counts, with the figures that Sui's suite states.

The figures are those of the suite as of 5 January 2026, protocol version 106.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from suite_files import SuiteTest, parse_tasks
from suite_sources import compile_tests

HERE = Path(__file__).parent
#: A loop that makes ids, keeps them, and deletes them from the end.
KEEP_IDS = """module loop::ids {
    public entry fun keep(count: u64, ctx: &mut TxContext) {
        let mut held: vector<UID> = vector[];
        let mut at = 0;
        while (at < count) {
            let fresh = object::new(ctx);
            vector::push_back(&mut held, fresh);
            at = at + 1;
        };
        at = 0;
        while (at < count) {
            let last = vector::pop_back(&mut held);
            object::delete(last);
            at = at + 1;
        };
        vector::destroy_empty(held);
    }
}"""


def hundred_payments() -> str:
    """Return a program that pays a hundred coins to a hundred addresses."""
    inputs = " ".join(["7", *(f"@{at:#x}" for at in range(100))])
    lines = [f"//# programmable --sender P --inputs {inputs}"]
    lines.append(f"//> 0: SplitCoins(Gas, [{', '.join(['Input(0)'] * 100)}]);")
    lines += [
        f"//> {at + 1}: TransferObjects([NestedResult(0, {at})], Input({at + 1}));" for at in range(100)
    ]
    return "\n".join(lines)


PAY = (
    "//# programmable --sender P --inputs 25 @P\n"
    "//> SplitCoins(Gas, [Input(0)]); TransferObjects([Result(0)], Input(1))\n"
)
ROWS: tuple[tuple[str, str, dict[int, list[int]]], ...] = (
    (
        "sui/coin_transfer",
        f"//# init --accounts P Q\n{PAY}"
        "//# run sui::pay::split_and_transfer --type-args sui::sui::SUI --args object(1,0) 5 @Q --sender P\n",
        {1: [1000000, 1976000, 0, 0], 2: [1000000, 2964000, 1956240, 19760]},
    ),
    (
        "transfer_object/transfer_coin",
        "//# init --accounts P Q R\n//# programmable --sender R --inputs @P\n//> TransferObjects([Gas], Input(0))\n"
        "//# transfer-object 0,2 --sender P --recipient Q\n",
        {1: [1000000, 988000, 0, 0], 2: [1000000, 1976000, 978120, 9880]},
    ),
    (
        "programmable/split_coins",
        f"//# init --accounts P Q\n{PAY}"
        "//# programmable --sender P --inputs object(1,0) 2 @Q\n"
        "//> 0: SplitCoins(Input(0), [Input(1)]); TransferObjects([NestedResult(0,0)], Input(2))\n"
        "//# programmable --sender P --inputs object(1,0) 2 @Q\n"
        "//> 0: SplitCoins(Input(0), [Input(1), Input(1)]);\n"
        "//> TransferObjects([NestedResult(0,0), NestedResult(0,1)], Input(2))\n",
        {2: [1000000, 2964000, 1956240, 19760], 3: [1000000, 3952000, 1956240, 19760]},
    ),
    (
        "programmable/gas_coin_by_reference",
        f"//# init --accounts P\n{PAY}"
        "//# programmable --sender P --inputs 10 --gas-budget 10000000000\n"
        "//> 0: SplitCoins(Gas, [Input(0)]); MergeCoins(Gas, [Result(0)])\n",
        {2: [1000000, 988000, 978120, 9880]},
    ),
    (
        "programmable/large_pay_sui",
        f"//# init --accounts P\n{hundred_payments()}\n",
        {1: [1000000, 99788000, 0, 0]},
    ),
    (
        "size_limits/new_id_limits_tests",
        f"//# init --addresses loop=0x0\n//# publish\n{KEEP_IDS}\n"
        + "".join(f"//# run loop::ids::keep --args {n} --gas-budget 50000000000\n" for n in (1, 256, 2048)),
        {
            2: [1000000, 988000, 978120, 9880],
            3: [1000000, 988000, 978120, 9880],
            4: [13000000, 988000, 978120, 9880],
        },
    ),
)


def main(framework: Path, cache: Path) -> None:
    """Compile what has sources and write the table."""
    table = []
    for name, script, gas in ROWS:
        test = SuiteTest(name, parse_tasks(script), {}, script)
        made = compile_tests([test], {name: {}}, framework, cache)
        modules = {
            str(number): {
                "package": entry.package,
                "place": entry.place.hex(),
                "modules": [base64.b64encode(m).decode() for m in entry.modules],
            }
            for (_, number), entry in made.items()
        }
        table.append({"from": name, "script": script, "modules": modules, "gas": gas})
    (HERE / "genuine_gas.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]) / "crates/sui-framework/packages", Path(sys.argv[2]))
