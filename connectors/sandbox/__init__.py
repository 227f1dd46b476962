"""Stand-in providers on loopback, and the people who use them: for the demo and for the tests of the whole product.

They speak to the hub as the real ones do, through its public endpoints with genuine signatures, and receive what the
connectors really send. Nothing here reaches another machine.
"""

from __future__ import annotations

from connectors.sandbox.actor import HubAnswer, SandboxActor
from connectors.sandbox.demo import SandboxDemo
from connectors.sandbox.server import SandboxSecrets, SandboxServer
from connectors.sandbox.state import SandboxState

__all__ = ["HubAnswer", "SandboxActor", "SandboxDemo", "SandboxSecrets", "SandboxServer", "SandboxState"]
