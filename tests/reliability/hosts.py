"""Two "hosts" on one machine: network namespaces joined by a veth pair whose link can be cut."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from launching import Attempt

ADDRESSES = ("10.77.31.1", "10.77.31.2")
PORT = 29577


def why_not() -> str:
    """Why there can be no namespaces here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "network namespaces need the program ip (iproute2)"
    name = f"mf{uuid.uuid4().hex[:8]}"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"network namespaces are not allowed here: {tried.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return ""


def ip(*words: str) -> None:
    """Run the program ip."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Hosts:
    """Two namespaces, in the block, each with a loopback and one end of the cable."""

    def __enter__(self) -> Self:
        tag = uuid.uuid4().hex[:6]
        self.names, self.cards = (f"mf{tag}a", f"mf{tag}b"), (f"v{tag}a", f"v{tag}b")
        for name in self.names:
            ip("netns", "add", name)
        ip("link", "add", self.cards[0], "type", "veth", "peer", "name", self.cards[1])
        for name, card, address in zip(self.names, self.cards, ADDRESSES, strict=True):
            ip("link", "set", card, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", card)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", card, "up")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name in self.names:  # the cable goes with them
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def node(self, number: int, words: Sequence[str], folder: Path, **more: Any) -> Attempt:
        """The torchrun of host `number`, 0 or 1."""
        return node(
            words,
            folder,
            at=ADDRESSES[number],
            is_host=number == 0,
            environment={"GLOO_SOCKET_IFNAME": self.cards[number]},
            prefix=["ip", "netns", "exec", self.names[number]],
            **more,
        )

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        ip("-n", self.names[0], "link", "set", self.cards[0], "down")

    def mend(self) -> None:
        """The link is back."""
        ip("-n", self.names[0], "link", "set", self.cards[0], "up")


def node(
    words: Sequence[str], folder: Path, *, at: str = "", is_host: bool, **more: Any
) -> Attempt:
    """The torchrun of one of several nodes, with one rank, all of them on this host.

    Args:
        words, folder, more: as in Attempt; `options` more for torchrun.
        at: its address; the rendezvous is at that of the first.
        is_host: of the rendezvous.
    """
    options = [
        *("--rdzv-backend", "c10d", "--rdzv-id", "faces"),
        *("--rdzv-endpoint", f"{ADDRESSES[0] if at else '127.0.0.1'}:{PORT}"),
        *("--rdzv-conf", f"is_host={int(is_host)}", "--local-addr", at or "127.0.0.1"),
        *more.pop("options", ("--nnodes", "2")),
    ]
    variables = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", **more.pop("environment", {})}
    return Attempt(
        words, folder, ranks=1, forked=False, options=options, environment=variables, **more
    )
