"""The inside of `hub.capped`: a process of little memory that does what it is told, one thing after the other.

It reads from standard input and answers on standard output, each message as eight bytes of length and a pickle. What it is told comes
from the hub alone; what it is given to read comes from strangers, which is why it is a process of its own.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import struct
import sys
from importlib import import_module
from typing import Any, BinaryIO

LENGTH = struct.Struct(">Q")


def limit(megabytes: int) -> None:
    """Cap this process's memory, and let everybody else go first."""
    size = megabytes * 1_048_576
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        os.nice(5)


def read(stream: BinaryIO) -> Any:
    """One message. Raises EOFError at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(LENGTH.unpack(head)[0]))  # noqa: S301 (written by the hub itself)


def do(name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    """("done", result) or ("failed", exception), of the function `module:name`."""
    module, _, function = name.partition(":")
    try:
        return "done", getattr(import_module(module), function)(*arguments)
    except Exception as error:  # told to whoever asked; MemoryError among them
        return "failed", error


def parse(make: Any, settings: Any, place: Any, request: Any) -> Any:
    """What a connector makes of a request."""
    return make(settings, place).parse(request)


def main() -> None:
    limit(int(sys.argv[1]))
    incoming, outgoing = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    with contextlib.suppress(EOFError):
        while True:
            name, arguments = read(incoming)
            outcome = do(name, arguments)
            try:
                told = pickle.dumps(outcome)
            except Exception as error:
                told = pickle.dumps(("failed", RuntimeError(f"{type(error).__name__}: {error}")))
            outgoing.write(LENGTH.pack(len(told)) + told)
            outgoing.flush()


if __name__ == "__main__":
    main()
