"""A node of a chain whose answers a test chooses: one that is away, that lies, or that answers late."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias, cast

from dtp.chain.node._wire import NodeRpc

#: Answers a call in the place of the node: given the genuine call, and the call's arguments.
Answer: TypeAlias = Callable[..., Any]


class ScriptedNode:
    """The nodes that a client speaks with, and what they answer in place of the truth.

    `ChainClient(network, signer, rpc=ScriptedNode())`. All calls reach the network as they would without it, until an
    answer is set for one of them, by the name of the method of `NodeRpc`: `node.answers["execute"] = answer`, or for
    a while `with node.answering(execute=answer)`. `answer(genuine, *args, **options)` is called as the method is,
    with the genuine one first, which it may call. It raises `NodeUnavailable` for a node that is away, `NodeRefused`
    for one that says no.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def __call__(self, url: str, *, timeout: float) -> NodeRpc:
        """Return what speaks with the node at a URL."""
        return cast(NodeRpc, _ScriptedRpc(self, NodeRpc(url, timeout=timeout)))

    def answer_to(self, name: str, genuine: Any) -> Any:
        """Return what is called in place of a method."""
        answer = self.answers.get(name)
        return genuine if answer is None else partial(answer, genuine)

    @contextmanager
    def answering(self, **answers: Answer) -> Iterator[None]:
        """Answer so within `with`, and as before behind it."""
        before = dict(self.answers)
        self.answers.update(answers)
        try:
            yield
        finally:
            self.answers.clear()
            self.answers.update(before)


class _ScriptedRpc:
    def __init__(self, node: ScriptedNode, genuine: NodeRpc) -> None:
        self._node = node
        self._genuine = genuine

    def __getattr__(self, name: str) -> Any:
        return self._node.answer_to(name, getattr(self._genuine, name))
