"""`dtp localnet`: a Sui-compatible network on this machine, for development and tests."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from dtp.cli.options import verbose_option
from dtp.cli.output import json_option, print_line
from dtp.cli.run import run, when_stdin_ends


@click.command("localnet")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to listen.")
@click.option("--port", default=9000, show_default=True, type=click.IntRange(0, 65535),
              help="Port of the node (gRPC, sui.rpc.v2); 0 takes a free one.")  # fmt: skip
@click.option("--faucet-port", default=9123, show_default=True, type=click.IntRange(0, 65535),
              help="Port of the faucet (HTTP); 0 takes a free one.")  # fmt: skip
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Keep the chain in this folder. [default: in memory, gone at the end]")  # fmt: skip
@click.option(
    "--fund", multiple=True, metavar="ADDRESS", help="Give an account SUI at the start; may be repeated."
)
@click.option("--until-eof", is_flag=True, help="End when standard input ends.")
@verbose_option
@json_option
def localnet(
    host: str, port: int, faucet_port: int, state: Path | None, fund: tuple[str, ...], until_eof: bool
) -> None:
    """Run a Sui-compatible network here: one node that executes Move, and a faucet. Ctrl-C ends it.

    It speaks what Sui's full nodes speak, so the same commands and programs work with either. It is for development:
    it takes anyone's requests, and gives SUI to whoever asks.

    \b
    Examples:
      dtp localnet
      dtp localnet --state ./chain --fund 0x...
      dtp localnet --port 0 --faucet-port 0 --json
    """
    run(_localnet(host, port, faucet_port, state, fund, until_eof))


def _text(url: str, faucet: str, chain: str, state: Path | None) -> str:
    from dtp.chain.node.networks import NETWORKS

    usual = NETWORKS["localnet"]
    lines = [
        f"node    {url}",
        f"faucet  {faucet}",
        f"chain   {chain}, {f'kept in {state}' if state is not None else 'in memory: gone at the end'}",
    ]
    if (url, faucet) != (usual.endpoints[0], usual.faucet):
        lines.append(f"use it  export DTP_NETWORK={url} DTP_FAUCET={faucet}")
    return "\n".join([*lines, "Ctrl-C ends it."])


async def _localnet(
    host: str, port: int, faucet_port: int, state: Path | None, fund: tuple[str, ...], until_eof: bool
) -> None:
    from dtp.localnet.grpc.localnet import Localnet
    from dtp.sui.names import format_address, parse_address

    accounts = [parse_address(each) for each in fund]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    if until_eof:
        when_stdin_ends(stop.set)
    net = Localnet(state)
    await net.start(host, port, faucet_port)
    try:
        for each in accounts:
            net.node.fund_address(each)
        record = {
            "event": "listening",
            "url": net.url,
            "faucet": net.faucet_url,
            "chain_id": net.chain_id,
            "state": str(state) if state is not None else None,
            "funded": [format_address(each) for each in accounts],
        }
        print_line(record, _text(net.url, net.faucet_url, net.chain_id, state))
        await stop.wait()
    finally:
        await net.close()
