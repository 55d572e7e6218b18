"""Random transactions, valid and not, on the embedded node and in a second model of the packages: nothing differs, no
coin vanishes or appears, and whatever the state, every coin and every storage deposit comes back in bounded time."""

from collections import Counter

import pytest
from chain_model.compare import run, shrink
from chain_model.played import Played
from chain_model.writer import ACCOUNTS

from dtp.localnet.node import LocalNode

#: Kinds of outcomes (function and refusal) that so many histories come to at least: else they try too little.
LEAST_KINDS = {8: 110, 400: 350}


def play(first, histories, length):
    """Histories of these seeds; kinds of outcomes, each with how often it was."""
    kinds = Counter()
    with LocalNode.open(now=None) as node:
        played = Played(node, ACCOUNTS)
        for seed in range(first, first + histories):
            comparison, found = run(played, seed, length)
            if found is not None:
                steps = shrink(played, comparison.steps, found.what)
                pytest.fail(f"seed {seed}: {found}\n" + "\n".join(map(str, steps)))
            kinds.update(comparison.outcomes)
    return kinds


def test_the_node_does_what_the_model_says():
    assert len(play(1, 8, 60)) >= LEAST_KINDS[8]


@pytest.mark.long
@pytest.mark.parametrize("first", range(1000, 3000, 400))
def test_the_node_does_what_the_model_says_over_many_histories(first):
    assert len(play(first, 400, 120)) >= LEAST_KINDS[400]
