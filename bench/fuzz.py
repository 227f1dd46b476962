"""`python -m bench.fuzz --seconds 600 --corpus DIR... mail|webhook|reply`: changed inputs without end, and what the worst of them did.

With atheris (coverage-guided; it is no dependency, `pip install atheris`) each input is chosen by what code the last ones reached;
without it the same mutations are drawn blindly. Fails on an exception that is not the code's own word for "cannot be read", on an input
of more than two seconds (timed again without instrumentation), and on a process that grew by more than 100 MB. What failed is kept as a
file: `--replay FILE` runs it alone.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SLOW = 2.0  # seconds for one input
GROWTH = 100_000_000  # bytes of the whole process
MAX_INPUT = 64_000
WARM_UP = 300  # inputs until what is imported late and cached has been

# --- What is fed -----------------------------------------------------------------------------------------------------

Target = Callable[[bytes], None]


def mail_target() -> Target:
    """A mail through its whole way: read, judged, made a message."""
    from connectors.shared.mail_auth import judge_results
    from connectors.shared.mail_settings import EmailSettings
    from connectors.shared.mime import from_address, read_mail, to_message
    from hub.contract import Unparseable

    known = {"type": "mime", "address": "support@hub.example", "smtp": {"host": "127.0.0.1"}}
    settings = EmailSettings.model_validate(known | {"trusted_forwarders": ["shop.example"], "form_senders": ["form@else.example"]})

    def run(data: bytes) -> None:
        try:
            headers, body = read_mail(data)
            judgement = judge_results(from_address(headers).rpartition("@")[2], headers.all("authentication-results"), "mx.hub.example")
            to_message(headers, body, judgement, mailbox=settings, unjudged=True)
        except Unparseable:
            pass

    return run


def reply_target() -> Target:
    """A mail's text; the first byte says whether it comes with HTML."""
    from connectors.shared.reply_text import written

    def run(data: bytes) -> None:
        text = data[1:].decode("utf-8", "replace")
        written(text, text if data[:1] == b"<" else "")

    return run


def webhook_target() -> Target:
    """A request to every connector in turn: a line `TYPE CONTENT-TYPE`, then the body (see `as_input`)."""
    import connectors
    from hub.app import lone_channel
    from hub.config import ConfigError
    from hub.contract import Request, Unparseable

    channels: dict[str, Any] = {}
    for type_ in connectors.CHANNELS:
        try:
            channels[type_] = lone_channel(type_, {})
        except ConfigError as error:
            print(f"left out: {type_} ({error})", flush=True)
    names = sorted(channels)

    def run(data: bytes) -> None:
        line, _, body = data.partition(b"\n")
        type_, _, content_type = line.decode("latin-1").partition(" ")
        channel = channels.get(type_) or channels[names[sum(line) % len(names)]]
        headers = {"content-type": "".join(char for char in content_type if char.isprintable())}
        for query in ("", "?delivery=1&token=x"):
            try:
                channel.parse(Request("POST", f"http://localhost/in/recorded{query}", headers, body))
            except Unparseable:
                pass

    return run


TARGETS: dict[str, Callable[[], Target]] = {"mail": mail_target, "webhook": webhook_target, "reply": reply_target}

# --- What it begins with ---------------------------------------------------------------------------------------------

MAIL = (
    b"From: Ana <ana@shop.example>\nTo: support@hub.example\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nMessage-ID: <1@shop.example>\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; charset=utf-8\n\n<p>Hi<br>On Monday Bob wrote:</p>\n"
    b"--b\nContent-Type: text/calendar\n\nBEGIN:VEVENT\nSUMMARY:x\nEND:VEVENT\n--b--\n"
)
REPLY = b" Thanks!\n\nOn Mon, 23 Nov 2026 at 10:00, Support <support@hub.example> wrote:\n> Where is it?\n\n-- \nAna\n"


def as_input(type_: str, content_type: str, body: bytes) -> bytes:
    """A request as one byte string: what `webhook_target` takes apart again."""
    return f"{type_} {content_type}\n".encode() + body


def seeds(target: str, folders: Sequence[Path], types: Sequence[str] = ()) -> list[bytes]:
    """The inputs to begin with: small ones of our own, and every file of the folders, recorded requests taken out of theirs."""
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size <= 2_000_000)
    if target == "mail":
        return [MAIL, *(path.read_bytes()[:MAX_INPUT] for path in files)]
    if target == "reply":
        return [REPLY, *(lead + path.read_bytes()[: MAX_INPUT - 1] for path in files for lead in (b" ", b"<"))]
    found = [as_input(type_, "application/json", b'{"event": "x", "id": "1"}') for type_ in types]
    found += [as_input(type_, "application/x-www-form-urlencoded", b"From=%2B491701234567&Body=Hi&MessageSid=SM1") for type_ in types]
    for path in files:
        found += [one[:MAX_INPUT] for one in _recorded(path, types)]
    return found


def _recorded(path: Path, types: Sequence[str]) -> list[bytes]:
    """The requests of a file: recordings (a list with `request`), bodies by name, or the file itself for every connector."""
    data = path.read_bytes()
    try:
        held = json.loads(data) if path.suffix == ".json" else None
    except ValueError:
        held = None
    of = next((type_ for type_ in sorted(types, key=len, reverse=True) if path.name.startswith(type_)), "")
    if isinstance(held, list) and held and isinstance(held[0], dict) and "request" in held[0]:
        requests = [entry["request"] for entry in held]
        bodies = [
            base64.b64decode(request["body_base64"]) if "body_base64" in request else str(request.get("body") or "").encode()
            for request in requests
        ]
        kinds = [str(request.get("content_type") or "") for request in requests]
        return [as_input(of or "?", kind, body) for kind, body in zip(kinds, bodies, strict=True)]
    if isinstance(held, dict):
        out = []
        for body in held.values():
            form = isinstance(body, str)
            raw = body.encode() if form else json.dumps(body).encode()
            kind = "application/x-www-form-urlencoded" if form else "application/json"
            out += [as_input(type_, kind, raw) for type_ in types if ("twilio" in type_) == form]
        return out
    return [as_input(type_, "multipart/form-data; boundary=xYzZY", data) for type_ in types]


# --- How it is changed -----------------------------------------------------------------------------------------------

# fmt: off
WORDS = [
    b"\n", b"\r\n", b"\n\n", b" ", b"\t", b"\x00", b"\xff", b"\x1b$", b"=", b"=?utf-8?b?", b"?=", b"<", b">", b"(", b")", b'"', b"\\",
    b";", b",", b":", b"--b", b"--", b"> ", b"-- \n", b"@", b"a@b.example", b"%00", b"&", b"{", b"}", b"[", b"]", b'":', b"null", b"1e999",
    b"-1", b"[[[[", b"\xe2\x80\xae", b"\xed\xa0\x80", b"&lt;", b"<!--", b"<div>", b"<blockquote>", b"From: ", b"Message-ID: <",
    b"Content-Type: multipart/report; boundary=b\n\n", b"Content-Type: message/rfc822\n\n", b"Content-Type: message/delivery-status\n\n",
    b"Content-Transfer-Encoding: base64\n", b"Content-Transfer-Encoding: x-uuencode\n", b"charset=utf-7", b"BEGIN:VEVENT\n",
    b"Final-Recipient: rfc822;", b"On Mon, 1 Jan 2026 at 10:00, X <a@b> wrote:\n", b"From: X\nSent: Y\nTo: Z\n", b"________________\n",
    b"Am 1.1.2026 schrieb X:\n",
]
# fmt: on


def mutate(data: bytes, rng: random.Random, others: Sequence[bytes], limit: int = MAX_INPUT) -> bytes:
    """An input changed in one to five places: words put in, pieces doubled many times, moved, dropped, or taken from another input."""
    for _ in range(rng.randint(1, 5)):
        at, to = sorted((rng.randint(0, len(data)), rng.randint(0, len(data))))
        match rng.randrange(8):
            case 0:
                data = data[:at] + rng.choice(WORDS) + data[at:]
            case 1:  # what is quadratic shows in a long row
                piece = rng.choice(WORDS) if rng.random() < 0.6 else data[at : min(to, at + 40)]
                data = data[:at] + piece * (1 << rng.randint(1, 14)) + data[at:]
            case 2:
                data = data[:at] + data[to:]
            case 3:
                data = data[:to] + data[at:to] + data[to:]
            case 4:
                other = rng.choice(others)
                begin = rng.randint(0, len(other))
                data = data[:at] + other[begin : begin + rng.randint(0, 4_000)] + data[to:]
            case 5:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
            case 6:
                lines = data.split(b"\n")
                one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
                lines[one], lines[two] = lines[two], lines[one]
                data = b"\n".join(lines)
            case _:
                data = data.replace(rng.choice(WORDS), rng.choice(WORDS))
        data = data[: 2 * limit]
    return data[:limit]


# --- Running ---------------------------------------------------------------------------------------------------------


class Run:
    """One campaign: feeds inputs, keeps the worst, and ends the process with a report when its time is over."""

    def __init__(self, name: str, target: Target, seconds: float, keep: Path, engine: str) -> None:
        self.name, self.target, self.keep, self.engine = name, target, keep, engine
        self.began = time.monotonic()
        self.until = self.began + seconds
        self.inputs = 0
        self.slowest = 0.0
        self.slow: list[Path] = []
        self.before = 0

    def feed(self, data: bytes) -> None:
        """Run one input. Ends the process on a crash, or when the time is over."""
        if time.monotonic() >= self.until:
            self.finish()
        self.inputs += 1
        if self.inputs == WARM_UP:
            self.before = _peak()
        started = time.process_time()
        try:
            self.target(data)
        except Exception as error:
            print(f"CRASH on input {self.inputs}: {error!r}; kept as {self._kept(data, 'crash')}", flush=True)
            sys.excepthook(*sys.exc_info())
            self.finish(failed=True)
        took = time.process_time() - started
        if took > self.slowest:
            self.slowest = took
            path = self._kept(data, "slowest")
            if took > SLOW and len(self.slow) < 5:
                self.slow.append(self._kept(data, f"slow-{len(self.slow)}"))
                print(f"slow: {took:.2f} s, kept as {path}", flush=True)

    def _kept(self, data: bytes, word: str) -> Path:
        path = self.keep / f"{self.name}-{word}"
        path.write_bytes(data)
        return path

    def finish(self, failed: bool = False) -> None:
        """Print what was found and end the process: 0, or 1 where something failed."""
        grown = _peak() - (self.before or _peak())
        alone = max([_replayed(self.name, path) for path in self.slow], default=0.0)
        took = time.monotonic() - self.began
        print(
            f"{self.name}: {self.inputs} inputs in {took:.0f} s ({self.engine}), slowest {self.slowest:.3f} s"
            + (f" (alone, without instrumentation: {alone:.3f} s)" if self.slow else "")
            + f", grown by {grown / 1e6:.1f} MB after the first {WARM_UP}, kept in {self.keep}",
            flush=True,
        )
        failed = failed or alone > SLOW or grown > GROWTH
        print("FAILED" if failed else "passed", flush=True)
        os._exit(1 if failed else 0)  # libFuzzer's own end would say nothing


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _replayed(name: str, path: Path) -> float:
    command = [sys.executable, "-m", "bench.fuzz", "--replay", str(path), name]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return float(told.stdout.split()[-1]) if told.returncode == 0 else 999.0


def guided(run: Run, begin: list[bytes], seed: int) -> None:
    """By atheris. Never returns."""
    import atheris

    others = begin or [b""]
    folder = run.keep / f"{run.name}-corpus"  # libFuzzer adds to it what reached new code
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(begin):
        (folder / f"{number:05}").write_bytes(data)

    def changed(data: bytes, max_size: int, number: int) -> bytes:
        rng = random.Random(number)
        return mutate(data, rng, others, max_size) if rng.random() < 0.5 else bytes(atheris.Mutate(data, max_size))

    arguments = [sys.argv[0], str(folder), f"-max_len={MAX_INPUT}", f"-seed={seed}", "-timeout=60", "-rss_limit_mb=4096", "-verbosity=0"]
    atheris.Setup(arguments, run.feed, custom_mutator=changed)
    atheris.Fuzz()


def blind(run: Run, begin: list[bytes], seed: int) -> None:
    """By seeded mutations alone. Never returns."""
    rng = random.Random(seed)
    for data in begin:
        run.feed(data)
    while True:
        run.feed(mutate(rng.choice(begin), rng, begin))


def main() -> None:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="python -m bench.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("target", choices=sorted(TARGETS))
    command.add_argument("--seconds", type=float, default=600)
    command.add_argument("--corpus", type=Path, nargs="*", default=[], help="folders whose files are begun with")
    command.add_argument("--seed", type=int, default=1)
    command.add_argument("--blind", action="store_true", help="without atheris, even where it is installed")
    command.add_argument("--keep", type=Path, default=None, help="where failing inputs go (default: a new temporary folder)")
    command.add_argument("--replay", type=Path, default=None, help="run this one input and print its seconds")
    given = command.parse_args()

    if given.replay is not None:
        target = TARGETS[given.target]()
        target(given.replay.read_bytes())  # what is imported late
        started = time.process_time()
        target(given.replay.read_bytes())
        print(f"seconds: {time.process_time() - started:.3f}")
        return

    engine = "blind mutations"
    if given.blind:
        target = TARGETS[given.target]()
    else:
        try:
            import atheris
        except ImportError:
            target = TARGETS[given.target]()
        else:
            engine = "atheris"
            with atheris.instrument_imports(include=["connectors", "flufl"]):
                target = TARGETS[given.target]()
                import flufl.bounce  # noqa: F401  (what is imported late is instrumented too)

                from connectors.shared import reply_text  # noqa: F401

    import connectors

    keep = given.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    begin = seeds(given.target, given.corpus, sorted(connectors.CHANNELS))
    print(f"{given.target}: {len(begin)} inputs to begin with, {engine}, {given.seconds:.0f} s", flush=True)
    run = Run(given.target, target, given.seconds, keep, engine)
    (guided if engine == "atheris" else blind)(run, begin, given.seed)


if __name__ == "__main__":
    main()
