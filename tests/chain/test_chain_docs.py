"""The code in docs/chain.md is one program that prints what it says, and its tests pass."""

import ast
import asyncio
import contextlib
import inspect
import io
import re
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "chain.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def promised(code):
    return [line.partition("# -> ")[2] for line in code.splitlines() if "# -> " in line]


def blocks(of_tests):
    return [code for code in _BLOCK.findall(DOCUMENT.read_text()) if ("def test_" in code) == of_tests]


def test_the_program():
    async def limited(awaitable):
        async with asyncio.timeout(60):
            await awaitable

    names = {}
    with asyncio.Runner() as runner:
        for code in blocks(of_tests=False):
            shown = io.StringIO()
            compiled = compile(code, str(DOCUMENT), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            with contextlib.redirect_stdout(shown):
                result = eval(compiled, names)
                if inspect.isawaitable(result):
                    runner.run(limited(result))
            assert shown.getvalue().splitlines() == promised(code), code


def test_the_tests(dtp_client, dtp_wallet, dtp_clock):
    from dtp.chain import Program

    (code,) = blocks(of_tests=True)
    names: dict[str, Any] = {"asyncio": asyncio, "Program": Program}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    fixtures = {"dtp_client": dtp_client, "dtp_wallet": dtp_wallet, "dtp_clock": dtp_clock}
    for name in ("test_pays", "test_waits"):
        wanted = inspect.signature(names[name]).parameters
        names[name](**{each: fixtures[each] for each in wanted})
