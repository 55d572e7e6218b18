"""`dtp` where standard input and output are not what they should be: closed, full, broken off, read by nobody."""

import json
import signal
import subprocess
import sys

import pytest

#: Seconds; only a failing test waits so long.
PATIENCE = 240


def shell(redirections, *arguments):
    """`dtp` with arguments, started by a shell with these redirections; the finished process."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -P -m dtp "$@" {redirections}', sys.executable, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def test_cat_without_standard_input(serve):
    _, address = serve("--exec", "sh=sh -c 'cat; echo end'")
    ended = shell("<&-", "cat", address["sh"])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"end\n", b"")


def test_cat_without_standard_output(serve):
    _, address = serve("--exec", "sh=sh -c 'echo lost'")
    ended = shell(">&-", "cat", address["sh"])
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_cat_whose_output_is_full(serve):
    _, address = serve("--exec", "yes")
    ended = shell(">/dev/full", "cat", address["exec"])
    assert (ended.returncode, ended.stderr) == (3, b"dtp: can't write the output: No space left on device\n")


def test_cat_tells_that_the_connection_is_cut(serve):
    server, address = serve("--echo")
    command = [sys.executable, "-P", "-m", "dtp", "cat", address["echo"]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as cat:
        cat.stdin.write(b"there?\n")
        cat.stdin.flush()
        assert cat.stdout.readline() == b"there?\n"
        server.signal(signal.SIGKILL)
        assert cat.stderr.readline() == b"dtp: the connection is cut; trying for 60 s to get it back\n"
        cat.send_signal(signal.SIGINT)
        assert cat.wait(PATIENCE) == 130
        assert cat.stderr.read() == b""


def test_input_that_breaks_off_is_not_taken_for_its_end(serve, tmp_path):
    mark = tmp_path / "whole"
    program, address = serve("--exec", f"sh=sh -c 'cat && touch {mark}'")
    ended = shell("0>/dev/null", "cat", "--json", address["sh"])  # open, but not for reading
    error = json.loads(ended.stderr)["error"]
    assert (ended.returncode, error["code"], error["exit_code"]) == (3, "input", 3)
    program.wait()
    assert not mark.exists()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_results_that_can_not_be_written(home, options):
    assert shell("", "keygen").returncode == 0
    ended = shell(">/dev/full", "id", *options)
    assert ended.returncode == 3
    assert b"can't write the output: No space left on device" in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("ping", "--help")])
def test_help_that_can_not_be_written(arguments):
    ended = shell(">/dev/full", *arguments)
    assert (ended.returncode, ended.stderr) == (3, b"dtp: can't write the output: No space left on device\n")


def test_results_that_nobody_reads_end_like_sigpipe(dtp, serve):
    _, address = serve("--echo")
    ping = dtp("ping", "-c", "0", "--interval", "0", address["echo"])
    assert ping.line().startswith("peer")
    ping.stdout.close()
    assert ping.process.wait(PATIENCE) == 141
    ping.wait(141)
    assert ping.errors == b""


def test_a_demo_in_the_dark():
    ended = shell("<&- 2>&-", "demo", "--size", "100k")
    assert ended.returncode == 0
    assert ended.stdout.endswith(b"equal: the file arrived as it was sent\n")
