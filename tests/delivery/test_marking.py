"""Marketing tools brought to the wanted state: level-triggered, through crashes, outages, joins, lag and foreign hands."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from hub.contract import Claim, Http, Proof, Refused, TryLater
from hub.conversations.commands import Resolve
from hub.customers.merging import Merge, Unmerge
from hub.delivery.marking import MarkCarrier, ReadingBack, Tools
from hub.delivery.outbox import judge as outcome_of
from hub.delivery.owed import MarkAgain, reconcile
from hub.holds.ledger import iso
from hub.holds.marks import NoteLooked, NoteMarked
from hub.holds.reasons import PlaceHold
from hub.holds.renewal import RenewLeases
from hub.marketing import Check, Fate, Marked, Proved, ReadBack, Step, ToolSettings, Wish
from hub.policy import DAY, Policy
from hub.storage.records import Agent
from hub.storage.sqlite_hot import SqliteHot
from tests.delivery import ADA, BEN, MAIL, SECOND, START, Ground, Insert, ground

MAIL_OF_ADA = "ada@example.com"


class Shelf:
    """A marketing tool in memory: profiles by their identifiers, with what was written last and what reading shows."""

    Settings: ClassVar[type[ToolSettings]] = ToolSettings
    label, lapse, settles, reads_back = "Shelf", "at once", 2.0, True
    kinds: ClassVar[tuple[str, ...]] = ("email", "phone", "external_id")
    proved = Proved.LIVE

    def __init__(self, *values: str) -> None:
        self.kept: dict[str, dict[str, Any]] = {value: {} for value in values}
        self.shown: dict[str, dict[str, Any]] | None = None  # None: reading shows what was written
        self.segment: bool | None = None
        self.calls: list[list[Wish]] = []
        self.trouble: Exception | None = None
        self.after: Exception | None = None  # raised once the call was carried out: its answer is lost
        self.refuses: set[str] = set()
        self.same: dict[str, str] = {}  # an identifier -> the one whose profile it is

    async def mark(self, wishes: Sequence[Wish], http: Http, now: float) -> list[Marked]:
        if self.trouble is not None:
            raise self.trouble
        self.calls.append(list(wishes))
        results = []
        for wish in wishes:
            if wish.value in self.refuses:
                results.append(Marked(fate=Fate.REFUSED, error="It does not like this one."))
            elif self.same.get(wish.value, wish.value) not in self.kept:
                results.append(Marked(fate=Fate.ABSENT))
            else:
                profile = self.same.get(wish.value, wish.value)
                self.kept[profile] = {"held": wish.held, "until": wish.until, **wish.traits}
                results.append(Marked(fate=Fate.ACCEPTED, profile=f"of {profile}"))
        if self.after is not None:
            raise self.after
        return results

    async def read(self, wishes: Sequence[Wish], http: Http, now: float) -> list[ReadBack]:
        if self.trouble is not None:
            raise self.trouble
        shelf = self.kept if self.shown is None else self.shown
        return [
            ReadBack(
                present=wish.value in shelf,
                held=bool(shelf.get(wish.value, {}).get("held")),
                until=str(shelf.get(wish.value, {}).get("until", "")),
                effective=self.segment,
            )
            for wish in wishes
        ]

    async def test(self, http: Http, now: float) -> list[Check]:
        return []

    async def prepare(self, http: Http, now: float) -> list[Check]:
        return []

    def steps(self) -> list[Step]:
        return []

    def is_sandbox(self) -> bool:
        return True


class Bench:
    """A hub with one tool: what waits is carried, and what is due is looked at, when told."""

    def __init__(self, hub: Ground, shelf: Shelf, settings: ToolSettings) -> None:
        self.hub, self.shelf = hub, shelf
        tools = Tools({"shelf": (shelf, settings)})
        self.hot = SqliteHot(hub.path)
        http: Any = None
        self.carrier = MarkCarrier(tools, hub.reader, self.hot, hub.writer, http)
        self.reading = ReadingBack(tools, hub.reader, hub.writer, http)

    async def carry(self) -> int:
        """Carry all that is due; how many rows."""
        done = 0
        while rows := [row for row in await self.hub.claims() if row.kind == "mark"]:
            for row in rows:
                try:
                    outcome = await self.carrier.carry(row)
                except Exception as error:
                    outcome = outcome_of(error, row)
                await self.hub.run(outcome)
                done += 1
        return done

    async def look(self, after: float = 5.0) -> None:
        """Time passes, and what is due is looked at and carried."""
        self.hub.clock.pass_(after)
        await self.reading.look()
        await self.carry()

    async def marks(self) -> dict[str, str]:
        return {mark.value: mark.state for mark in await self.hub.all("mark")}

    async def mark(self, value: str = ADA) -> Any:
        return next(mark for mark in await self.hub.all("mark") if mark.value == value)

    def said(self, type_: str) -> list[dict[str, Any]]:
        return [json.loads(e.data) for e in self.hub.events if e.type == type_]


@asynccontextmanager
async def bench(tmp_path: Path, *values: str, **settings: Any) -> AsyncIterator[Bench]:
    async with ground(tmp_path, tools=("shelf",)) as hub:
        await hub.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        made = Bench(hub, Shelf(*values), ToolSettings(type="shelf", **settings))
        try:
            yield made
        finally:
            await made.hot.close()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, ADA, BEN, MAIL_OF_ADA) as made:
        yield made


async def test_a_hold_is_told_read_back_and_cleared(one: Bench) -> None:
    ticket = await one.hub.hears()
    await one.carry()
    assert await one.marks() == {ADA: "accepted"}
    assert one.shelf.kept[ADA]["held"]
    await one.look()
    mark = await one.mark()
    assert (mark.state, mark.confirmed_at - mark.asked_at) == ("confirmed", 5 * SECOND)
    assert one.said("mark.confirmed")[0]["took_ms"] == 5_000
    await one.hub.run(Resolve(ticket, 1))
    await one.carry()
    assert one.shelf.kept[ADA] | {"support_resolved_at": ""} == {
        **{"held": False, "until": "", "support_status": "resolved", "support_open_tickets": 0, "support_tickets": 1},
        **{"support_resolved_at": "", "support_satisfaction": None, "support_optouts": None},
    }
    await one.look()
    assert await one.marks() == {ADA: "confirmed"}


async def test_the_same_state_is_written_once_however_often_it_is_carried(one: Bench) -> None:
    await one.hub.hears()
    await one.hub.hears(text="Hello?")
    await one.carry()
    await one.hub.run(MarkAgain("shelf", (1,)))
    assert await one.carry() == 1
    assert len(one.shelf.calls) == 1


async def test_what_changed_back_before_it_was_told_is_not_told(one: Bench) -> None:
    ticket = await one.hub.hears()
    await one.hub.run(Resolve(ticket, 1))
    assert await one.carry() == 2
    assert one.shelf.calls == [], "nobody was held there, so nobody is freed"
    assert await one.marks() == {}


async def test_nobody_is_created_and_who_signs_up_while_held_is_found(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        await one.hub.hears()
        await one.carry()
        assert await one.marks() == {ADA: "absent"}
        one.shelf.kept[ADA] = {}
        await one.look(3_700)
        assert one.shelf.kept[ADA]["held"]


async def test_every_identifier_is_told_and_one_refused_stops_no_other(one: Bench) -> None:
    one.shelf.refuses = {MAIL_OF_ADA}
    await one.hub.hears(claims=(Claim("email", MAIL_OF_ADA, Proof.CLAIMED),))
    await one.carry()
    assert await one.marks() == {ADA: "accepted", MAIL_OF_ADA: "failed"}
    assert "support_status" in one.shelf.kept[ADA]
    one.shelf.refuses = set()
    await one.look(6 * 3_600 + 1)
    assert one.shelf.kept[MAIL_OF_ADA]["held"], "and is tried again"
    assert "support_status" not in one.shelf.kept[MAIL_OF_ADA], "what is merely claimed is held, and told nothing of its claimant"


async def test_an_outage_of_days_is_caught_up_with(one: Bench) -> None:
    one.shelf.trouble = TryLater("It is down.", 600.0)
    ticket = await one.hub.hears()
    for _ in range(20):
        await one.carry()
        one.hub.clock.pass_(4 * 3_600)
    assert await one.marks() == {ADA: "pending"}
    assert (await one.mark()).error == "It is down."
    one.shelf.trouble = None
    await one.carry()
    assert one.shelf.kept[ADA]["held"]
    assert (await one.mark()).asked_at == START, "measured from when the ticket opened"
    await one.hub.run(Resolve(ticket, 1))
    await one.carry()
    assert not one.shelf.kept[ADA]["held"]


async def test_a_revoked_key_is_said_and_nothing_is_forgotten(one: Bench) -> None:
    one.shelf.trouble = Refused("The key is not accepted.")
    await one.hub.hears()
    await one.carry()
    assert await one.marks() == {ADA: "failed"}
    assert [said["error"] for said in one.said("mark.failed")] == ["The key is not accepted."]
    [row] = await one.hub.deliveries("mark")
    assert row.state == "queued", "a mended key finds it waiting"
    one.shelf.trouble = None
    one.hub.clock.pass_(400)
    await one.carry()
    assert one.shelf.kept[ADA]["held"]


async def test_what_the_outbox_gave_up_is_taken_up_again(one: Bench) -> None:
    one.shelf.trouble = TryLater("It is down.")
    await one.hub.hears()
    while (await one.hub.deliveries("mark"))[0].state != "failed":
        await one.carry()
        one.hub.clock.pass_(3_700)
        await one.hub.run(RenewLeases(one.hub.clock() + Policy().hold_renew_under))
    one.shelf.trouble = None
    for _ in range(8):
        await one.look(3_600)
    assert one.shelf.kept[ADA]["held"]


async def test_an_answer_lost_after_the_write_ends_in_the_same_state(one: Bench) -> None:
    one.shelf.after = TryLater("The answer was lost.")
    await one.hub.hears()
    await one.carry()
    one.shelf.after = None
    one.hub.clock.pass_(60)
    await one.carry()
    await one.look()
    assert await one.marks() == {ADA: "confirmed"}


async def test_a_tool_that_shows_a_write_late_is_waited_for_and_not_written_again(one: Bench) -> None:
    one.shelf.shown = {ADA: {}}
    await one.hub.hears()
    await one.carry()
    for _ in range(3):
        await one.look(30)
    assert (await one.marks(), len(one.shelf.calls)) == ({ADA: "accepted"}, 1)
    one.shelf.shown = None
    await one.look(60)
    assert await one.marks() == {ADA: "confirmed"}


async def test_a_foreign_hand_is_found_and_the_hold_is_set_again(one: Bench) -> None:
    await one.hub.hears()
    await one.carry()
    await one.look()
    one.shelf.kept[ADA]["held"] = False
    await one.look(6 * 3_600 + 1)
    assert one.shelf.kept[ADA]["held"], "repaired"
    assert "shows the profile free" in one.said("mark.drifted")[0]["error"]
    await one.look(10)
    assert (await one.mark()).state == "confirmed"


async def test_somebody_who_sets_it_back_each_time_is_not_fought_every_second(one: Bench) -> None:
    await one.hub.hears()
    await one.carry()
    await one.look()
    for _ in range(600):
        one.shelf.kept[ADA]["held"] = False
        await one.look(60)
    assert (await one.mark()).drifts >= 2
    assert len(one.shelf.calls) < 25, "in ten hours"


async def test_the_tools_own_segment_is_awaited(one: Bench) -> None:
    one.shelf.segment = False
    await one.hub.hears()
    await one.carry()
    await one.look()
    assert await one.marks() == {ADA: "confirmed"}
    one.shelf.segment = True
    await one.look(60)
    mark = await one.mark()
    assert (mark.state, one.said("mark.effective")[0]["took_ms"]) == ("effective", (mark.effective_at - START) // 1_000)


async def test_a_renewed_lease_is_told(one: Bench) -> None:
    await one.hub.hears()
    await one.carry()
    before = one.shelf.kept[ADA]["until"]
    one.hub.clock.pass_(4.5 * 86_400)
    await one.hub.run(RenewLeases(one.hub.clock() + Policy().hold_renew_under))
    await one.carry()
    assert one.shelf.kept[ADA]["until"] > before


async def test_two_customers_merged_are_held_together_and_apart_again_as_they_were(one: Bench) -> None:
    await one.hub.hears(ADA)
    await one.hub.run(Resolve(await one.hub.hears(BEN), 1))
    await one.carry()
    merged = await one.hub.run(Merge(1, 2, "agent:1", 1, "the same person"))
    await one.carry()
    assert [one.shelf.kept[who].get("held") for who in (ADA, BEN)] == [True, True]
    await one.hub.run(Unmerge(merged.join_id, 1, 2, "agent:1", 1))
    await one.carry()
    assert [one.shelf.kept[who]["held"] for who in (ADA, BEN)] == [True, False]


async def test_an_address_two_customers_claim_is_free_when_both_are(one: Bench) -> None:
    shared = (Claim("email", MAIL_OF_ADA, Proof.CLAIMED),)
    first, second = await one.hub.hears(ADA, claims=shared), await one.hub.hears(BEN, claims=shared)
    await one.carry()
    await one.hub.run(Resolve(first, 1))
    await one.carry()
    assert [one.shelf.kept[who]["held"] for who in (ADA, BEN, MAIL_OF_ADA)] == [False, True, True]
    await one.hub.run(Resolve(second, 1))
    await one.carry()
    assert not one.shelf.kept[MAIL_OF_ADA]["held"]


async def test_a_tool_of_another_brand_or_channel_is_not_told(tmp_path: Path) -> None:
    async with bench(tmp_path, ADA, brands=("outlet",)) as one:
        await one.hub.hears()
        await one.carry()
        assert one.shelf.calls == []
    (tmp_path / "second").mkdir()
    async with bench(tmp_path / "second", ADA, channel="email") as one:
        ticket = await one.hub.hears()
        await one.hub.run(Resolve(ticket, 1))
        await one.hub.run(PlaceHold(1, 5, "agent:1", channels=("sms",)))
        await one.carry()
        assert not one.shelf.kept[ADA].get("held"), "only text messages annoyed them"


async def test_a_cleared_profile_is_looked_at_once_more_and_then_left_alone(one: Bench) -> None:
    ticket = await one.hub.hears(channel=MAIL, sender=MAIL_OF_ADA)
    await one.carry()
    await one.hub.run(Resolve(ticket, 1))
    await one.carry()
    await one.look()
    await one.look(8 * DAY / SECOND)
    mark = await one.mark(MAIL_OF_ADA)
    assert (mark.state, mark.check_at) == ("confirmed", None)
    assert not one.shelf.kept[MAIL_OF_ADA]["held"]


async def test_reconciling_reads_everything_back_at_once_and_repairs_it(one: Bench) -> None:
    await one.hub.hears(ADA)
    await one.hub.run(Resolve(await one.hub.hears(BEN), 1))
    await one.carry()
    await one.look()
    one.shelf.kept[ADA]["held"] = False
    assert await reconcile("shelf", one.hub.reader, one.hub.writer) == (1, 1), "Ben was never told of there"
    await one.carry()
    await one.look(1)
    assert one.shelf.kept[ADA]["held"]


async def test_a_profile_two_customers_share_in_a_tool_is_free_when_both_are(one: Bench) -> None:
    one.shelf.same = {MAIL_OF_ADA: ADA}
    first, second = await one.hub.hears(ADA), await one.hub.hears(MAIL_OF_ADA, channel=MAIL)
    await one.carry()
    await one.hub.run(Resolve(first, 1))
    await one.carry()
    assert one.shelf.kept[ADA]["held"], "the other ticket is open"
    await one.hub.run(Resolve(second, 1))
    await one.carry()
    assert not one.shelf.kept[ADA]["held"]


async def test_somebody_the_tool_never_knew_is_forgotten_when_they_are_free(tmp_path: Path) -> None:
    async with bench(tmp_path) as one:
        ticket = await one.hub.hears()
        await one.carry()
        await one.hub.run(Resolve(ticket, 1))
        await one.carry()
        before = len(await one.hub.deliveries("mark"))
        for _ in range(48):
            await one.look(3_601)
        assert len(await one.hub.deliveries("mark")) - before <= 1, "not asked about every hour for ever"


async def test_who_was_freed_before_a_tool_came_back_is_not_waited_for(one: Bench) -> None:
    one.shelf.trouble = TryLater("It is down.")
    ticket = await one.hub.hears()
    await one.carry()
    await one.hub.run(Resolve(ticket, 1))
    one.shelf.trouble = None
    one.hub.clock.pass_(60)
    await one.carry()
    for _ in range(8):
        await one.look(6 * 3_601)
    assert (await one.mark()).state != "pending"


async def test_a_hold_whose_answer_was_lost_is_cleared_when_the_ticket_is_resolved_meanwhile(one: Bench) -> None:
    one.shelf.after = TryLater("The answer was lost.")
    ticket = await one.hub.hears()
    await one.carry()
    assert one.shelf.kept[ADA]["held"]
    one.shelf.after = None
    await one.hub.run(Resolve(ticket, 1))
    one.hub.clock.pass_(3_600)
    await one.carry()
    assert not one.shelf.kept[ADA]["held"]


async def test_a_process_that_dies_once_the_tool_has_taken_a_hold_does_not_forget_it(one: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = await one.hub.hears()
    [row] = [row for row in await one.hub.claims() if row.kind == "mark"]
    monkeypatch.setattr(NoteMarked, "decide", lambda self, facts: (_ for _ in ()).throw(Refused("killed before it could be noted")))
    with pytest.raises(Refused):
        await one.carrier.carry(row)
    monkeypatch.undo()
    assert one.shelf.kept[ADA]["held"]
    await one.hub.run(Resolve(ticket, 1))
    one.hub.clock.pass_(3_600)
    await one.carry()  # its lease is over ...
    one.hub.clock.pass_(60)
    await one.carry()
    assert not one.shelf.kept[ADA]["held"]


async def test_an_old_reading_never_overwrites_what_was_told_in_the_same_commit(one: Bench) -> None:
    ticket = await one.hub.hears()
    await one.carry()
    await one.look()
    await one.hub.run(Resolve(ticket, 1))
    await one.carry()
    await one.look()
    mark = await one.mark()
    until = iso(START + 9 * DAY)
    wish = Wish(kind="phone", value=ADA, held=True, until=until, reasons=("open_ticket",), version=mark.version + 1)
    told = NoteMarked("shelf", 1, START, ((wish, Marked(fate=Fate.ACCEPTED, profile=mark.profile)),), 5 * SECOND)
    read = NoteLooked((((mark.id, ADA), mark.said, ReadBack(present=True)),))
    await asyncio.gather(one.hub.run(told), one.hub.run(read))
    assert (await one.mark()).held


async def test_a_ticket_resolved_after_its_hold_had_ended_is_told_as_resolved(one: Bench) -> None:
    ticket = await one.hub.hears()
    await one.carry()
    for _ in range(22):
        one.hub.clock.pass_(86_400)
        await one.hub.run(RenewLeases(one.hub.clock() + Policy().hold_renew_under))
        await one.carry()
    assert (one.shelf.kept[ADA]["held"], one.shelf.kept[ADA]["support_status"]) == (False, "open")
    await one.hub.run(Resolve(ticket, 1))
    await one.carry()
    assert one.shelf.kept[ADA]["support_status"] == "resolved"


async def test_an_answer_nobody_expected_stops_no_other_work_and_is_not_asked_for_every_second(one: Bench) -> None:
    await one.hub.hears()
    await one.carry()
    one.shelf.trouble = KeyError("data")
    for _ in range(5):
        await one.look(1)
    assert one.reading._not_before["shelf"] > one.hub.clock()
    one.shelf.trouble = None
    await one.look(400)
    assert await one.marks() == {ADA: "confirmed"}
