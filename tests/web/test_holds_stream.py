"""`POST /api/v1/holds/check` as a stream: in order, to the end whatever a line says, in bounded memory, beside other callers."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import pytest

from hub.config import CampaignSettings, Settings
from hub.conversations.commands import Resolve
from hub.holds import receipt
from hub.keys import derive
from hub.web import holds_stream
from hub.web.holds_stream import BATCH, LONGEST_LINE, batches
from tests.test_api import ADA, BEN, NOBODY, Api, api

__all__ = ["api"]  # a fixture

NDJSON = {"Content-Type": "application/x-ndjson"}


async def asked(api: Api, body: Any, **query: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The answered lines, and the last one."""
    async with api.http.post(api.url, params=query, data=body, headers=NDJSON) as answer:
        text = await answer.text()
        assert answer.status == 200, text
        assert answer.content_type == "application/x-ndjson"
        assert answer.headers["Cache-Control"] == "no-store"
    *lines, last = [json.loads(line) for line in text.splitlines()]
    assert last["done"] is True
    return lines, last


def lines_of(*values: str) -> bytes:
    return "".join(json.dumps({"kind": "email" if "@" in value else "phone", "value": value}) + "\n" for value in values).encode()


async def test_each_line_is_answered_in_its_place_and_the_last_line_counts(api: Api) -> None:
    lines, last = await asked(api, lines_of(NOBODY, "ada@example.com", BEN, ADA))
    assert [(one["line"], one["value"], one["held"], one["known"]) for one in lines] == [
        (1, NOBODY, False, False),
        (2, "ada@example.com", True, True),
        (3, BEN, False, True),
        (4, ADA, True, True),
    ]
    assert lines[1]["reasons"] == ["open_ticket"]
    assert all(one["as_of"].endswith("Z") for one in lines)
    assert (last["lines"], last["held"], last["known"], last["unreadable"], last["degraded"]) == (4, 2, 3, 0, 0)
    assert last["as_of"]["from"] <= last["as_of"]["to"]
    assert last["on_failure"] == "closed"


async def test_bare_lines_are_of_the_kind_the_stream_names(api: Api) -> None:
    lines, _ = await asked(api, f'{ADA}\r\n\n"{BEN}"\n{{"kind": "email", "value": "ada@example.com"}}', kind="phone")
    assert [(one["line"], one["held"]) for one in lines] == [(1, True), (3, False), (4, True)], "an empty line is counted and not answered"


async def test_a_line_nobody_can_read_is_held_and_the_stream_goes_on(api: Api) -> None:
    endless = b'{"kind": "email", "value": "' + b"a" * 200_000 + b'"}'
    body = b"\n".join([b"{", b"\xff\xfe", lines_of(BEN).strip(), endless, lines_of(ADA).strip(), b'{"kind": "phone", "value": "call me"}'])
    lines, last = await asked(api, body)
    assert [(one["line"], one["held"], one["reasons"]) for one in lines] == [
        (1, True, ["unreadable_line"]),
        (2, True, ["unreadable_line"]),
        (3, False, []),
        (4, True, ["unreadable_line"]),
        (5, True, ["open_ticket"]),
        (6, True, ["unreadable_identifier"]),
    ]
    assert [one["line"] for one in lines if "error" in one] == [1, 2, 4]
    assert (last["held"], last["unreadable"]) == (5, 4)
    transactional, _ = await asked(api, body, **{"class": "transactional"})
    assert not any(one["held"] for one in transactional)


async def test_only_the_held_ones_may_be_asked_for(api: Api) -> None:
    lines, last = await asked(api, lines_of(NOBODY, ADA, BEN), only="held")
    assert [one["line"] for one in lines] == [2]
    assert (last["lines"], last["held"]) == (3, 1)


@pytest.mark.parametrize("query", [{"kind": "device"}, {"only": "free"}, {"brand": "outlet"}, {"class": "promo"}, {"phone": ADA}], ids=str)
async def test_a_stream_that_cannot_be_answered_is_refused_before_it_begins(api: Api, query: dict[str, str]) -> None:
    async with api.http.post(api.url, params=query, data=lines_of(ADA), headers=NDJSON) as answer:
        assert (answer.status, answer.content_type) == (400, "application/problem+json")


async def test_a_stream_needs_a_token_as_any_question(api: Api) -> None:
    async with aiohttp.ClientSession() as http, http.post(api.url, data=lines_of(ADA), headers=NDJSON) as answer:
        assert answer.status == 401


async def test_the_receipt_of_a_stream_is_over_every_byte_that_was_answered(api: Api) -> None:
    async with api.http.post(api.url, params={"campaign": "winter-sale"}, data=lines_of(ADA, BEN), headers=NDJSON) as answer:
        body = await answer.read()
    told, last = body[: body.rindex(b"\n", 0, -1) + 1], json.loads(body.splitlines()[-1])
    assert last["sha256"] == hashlib.sha256(told).hexdigest()
    question = ("winter-sale", "", "", "marketing", f"stream:{last['sha256']}")
    assert receipt.proves(derive(api.running.hub.secret, "receipt"), question, last["receipt_id"])


async def test_a_stream_is_longer_than_any_other_body_may_be(api: Api) -> None:
    """Three megabytes and more than one batch, whoever sends them at once or in drops; each line keeps its number."""
    people = 3 * BATCH + 7
    whole = b"".join(f'{{"kind": "phone", "value": "{ADA if n % 7 == 0 else NOBODY}"{" " * 900}}}\n'.encode() for n in range(people))

    async def in_drops() -> AsyncIterator[bytes]:
        for start in range(0, len(whole), 70_001):
            yield whole[start : start + 70_001]

    for body in (io.BytesIO(whole), in_drops()):
        lines, last = await asked(api, body)
        assert [one["line"] for one in lines] == list(range(1, people + 1))
        assert [one["line"] for one in lines if one["held"]] == list(range(1, people + 1, 7))
        assert last["lines"] == people


async def test_a_slow_caller_is_answered_as_its_lines_come(api: Api) -> None:
    """Full duplex: the answer to a line is there before the next line is sent."""
    more: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while (part := await more.get()) is not None:
            yield part

    more.put_nowait(lines_of(ADA))
    async with api.http.post(api.url, data=body(), headers=NDJSON) as answer:
        assert json.loads(await answer.content.readline())["held"] is True
        await api.running.hub.writer.run(Resolve(1, 1))
        more.put_nowait(lines_of(ADA)[:20])
        more.put_nowait(lines_of(ADA)[20:])
        assert json.loads(await answer.content.readline())["held"] is False, "each line as of when it is answered"
        more.put_nowait(None)
        assert json.loads(await answer.content.readline())["done"] is True


async def test_a_caller_that_does_not_read_is_not_read_from(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back-pressure: what is sent and not taken back stays with the caller; given up after a while, the hub is whole."""
    monkeypatch.setattr(holds_stream, "STALLED", 0.5)
    _, writer = await asyncio.open_connection("127.0.0.1", api.running.port, limit=1)
    head = f"POST /api/v1/holds/check?kind=phone HTTP/1.1\r\nHost: x\r\nAuthorization: {api.http.headers['Authorization']}\r\n"
    writer.write(f"{head}Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    part = b"".join(f"{NOBODY}\n".encode() for _ in range(5_000))
    chunk = f"{len(part):x}\r\n".encode() + part + b"\r\n"
    taken = 0

    async def send_on() -> None:
        nonlocal taken
        while True:
            writer.write(chunk)
            async with asyncio.timeout(5):
                await writer.drain()
            taken += len(part)

    with pytest.raises((TimeoutError, ConnectionError)):  # it stops taking, then hangs up
        await send_on()
    assert taken < 60_000_000, "what it had taken and not answered would lie in its memory"
    writer.transport.abort()
    assert (await api.get(phone=ADA))[1]["held"] is True
    assert not api.running._runner.app[holds_stream.OPEN], "given up"  # type: ignore[union-attr]


async def test_single_checks_are_answered_while_a_stream_runs(api: Api) -> None:
    body = lines_of(*([NOBODY, ADA] * 4_000))
    streaming = asyncio.create_task(asked(api, body))
    singles = 0
    while not streaming.done():
        assert (await api.get(phone=ADA))[1]["held"] is True
        singles += 1
    assert (await streaming)[1]["held"] == 4_000
    assert singles > 10


async def test_no_more_than_a_few_streams_run_at_once(api: Api) -> None:
    streams = api.running._runner.app[holds_stream.OPEN]  # type: ignore[union-attr]
    others = [object() for _ in range(holds_stream.MOST)]
    streams.update(others)
    async with api.http.post(api.url, data=lines_of(ADA), headers=NDJSON) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
    streams.difference_update(others)
    assert (await asked(api, lines_of(ADA)))[1]["held"] == 1


@pytest.mark.parametrize(("campaign", "held"), [("careful", True), ("winter-sale", True), ("newsletter", False)])
async def test_a_database_that_does_not_answer_kills_no_stream(
    api: Api, monkeypatch: pytest.MonkeyPatch, settings: Settings, campaign: str, held: bool
) -> None:
    declared = {"newsletter": CampaignSettings(on_failure="open"), "winter-sale": CampaignSettings(on_failure="closed")}
    api.running.hub.settings.holds.campaigns.update(declared)
    monkeypatch.setattr(holds_stream, "WAITS", (0.0,))
    hot: Any = api.running.hub.hot
    answers = hot.hold_facts

    async def broken(keys: Any) -> Any:
        if (BEN, "phone") in keys:
            raise holds_stream.StorageBusy("locked")
        return await answers(keys)

    hot.hold_facts = broken
    monkeypatch.setattr(holds_stream, "BATCH", 1)
    lines, last = await asked(api, lines_of(ADA, BEN, NOBODY), campaign=campaign)
    assert [(one["held"], one["known"], one.get("degraded", False)) for one in lines] == [
        (True, True, False),
        (held, False, True),
        (False, False, False),
    ]
    assert (last["degraded"], last["on_failure"]) == (1, "closed" if held else "open")


class Body:
    """A body that comes in these pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)

    async def readany(self) -> bytes:
        return next(self._pieces, b"")


LONG = b"x" * (LONGEST_LINE + 1)
# pieces as they come -> lines
PIECES: list[tuple[list[bytes], list[bytes | None]]] = [
    ([], []),
    ([b"a\nb\n"], [b"a", b"b"]),
    ([b"a\nb"], [b"a", b"b"]),
    ([b"a", b"b", b"\nc"], [b"ab", b"c"]),
    ([b"\n\n"], [b"", b""]),
    ([LONG, b"\nb"], [None, b"b"]),
    ([LONG, LONG, b"y\nb\n"], [None, b"b"]),
    ([b"a\n" + LONG], [b"a", None]),
    ([LONG + b"\n" + b"b"], [LONG, b"b"]),  # whole, so it is for `read_line` to judge
]


@pytest.mark.parametrize(("pieces", "lines"), PIECES)
async def test_lines_are_cut_wherever_the_network_cuts_them(pieces: list[bytes], lines: list[bytes | None]) -> None:
    found: list[bytes | None] = []
    async for some in batches(Body(pieces)):  # type: ignore[arg-type]
        found += some
    assert found == lines
