"""A wish to be written to no more in free text: flagged, confirmed by an agent, told to destinations, and never a hold."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.conversations.stopping import ConfirmStop, TakeBackStop, wants_no_more
from hub.policy import Refusal
from hub.storage.records import Agent
from tests.delivery import ADA, START, Ground, Insert, ground

WISHES = (
    *("Stop texting me", "please unsubscribe me", "Take me off your list", "remove me from this mailing list", "opt out"),
    *("don't contact me again", "Do not email me", "no more emails please", "Stop sending me these", "Enough with the texts!"),
    *("I don't want any more messages", "Bitte keine Werbung mehr", "Ich möchte den Newsletter abbestellen"),
    *("Streichen Sie mich aus Ihrem Verteiler", "Je veux me désabonner", "Ne m'envoyez plus rien", "quiero darme de baja"),
    *("No me envíen más mensajes", "parem de me enviar mensagens", "Non scrivetemi più", "Ik wil me afmelden", "Lütfen mesaj atmayın"),  # noqa: RUF001
)
NO_WISHES = (
    *("Can I stop by the shop?", "Please cancel my order", "Where is my parcel?", "The delivery did not stop at my house"),
    *("Don't send it to my old address", "Please don't send me the parcel until Monday", "When do you end the sale?"),
    *("I never got a message", "Keine Ahnung, wo das Paket ist", "Ich habe keine Antwort bekommen", "My email does not work"),
    *("Please stop the order", "I want to quit my subscription of coffee"),
)


@pytest.mark.parametrize("text", WISHES)
def test_a_wish_to_stop_is_seen(text: str) -> None:
    assert wants_no_more(text)


@pytest.mark.parametrize("text", NO_WISHES)
def test_what_is_no_wish_to_stop_is_left_alone(text: str) -> None:
    assert not wants_no_more(text)


def test_a_long_text_is_judged_by_its_beginning_and_quickly() -> None:
    assert not wants_no_more("don't want " * 100_000)


HEARS = {"marketing": frozenset({"optout.recorded", "optout.withdrawn"}), "deaf": frozenset[str]()}


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Ground]:
    async with ground(tmp_path, destinations=("marketing", "deaf"), hears=HEARS) as laid:
        await laid.run(Insert((Agent(1, "robin@shop.example", "Robin", "", "agent", START),)))
        yield laid


async def told(hub: Ground) -> list[tuple[str, str, dict[str, Any]]]:
    rows = [(row.target, json.loads(row.payload)) for row in await hub.deliveries("hold")]
    return [(target, said["type"], said["data"]) for target, said in rows if said["type"].startswith("optout.")]


async def test_the_channels_own_stop_is_told_with_its_words_and_moves_no_hold(hub: Ground) -> None:
    await hub.hears()
    holds = [(hold.id, hold.released_at) for hold in await hub.all("hold")]
    await hub.hears(text="STOP", opts="out")
    await hub.hears(text="STOP", opts="out")
    data = {"customer_id": 1, "channel": "sms", "identifier": {"kind": "phone", "value": ADA}, "words": "STOP", "by": "customer"}
    assert await told(hub) == [("marketing", "optout.recorded", data)], "once, and only to who wants to hear of it"
    assert [(hold.id, hold.released_at) for hold in await hub.all("hold")] == holds
    await hub.hears(text="START", opts="in")
    assert [type_ for _, type_, _ in await told(hub)] == ["optout.recorded", "optout.withdrawn"]


async def test_free_text_becomes_an_opt_out_only_when_an_agent_says_so(hub: Ground) -> None:
    await hub.hears(text="Please stop texting me.")
    assert await hub.all("opt_out") == []
    message = (await hub.all("message"))[-1].id
    assert await hub.run(ConfirmStop(message, ("phone", ADA), 1))
    assert not await hub.run(ConfirmStop(message, ("phone", ADA), 1)), "it is one already"
    [row] = await hub.all("opt_out")
    assert (row.kind, row.value, row.channel_id, row.words, row.actor) == ("phone", ADA, 1, "Please stop texting me.", "agent:1")
    assert (await told(hub))[0][2]["by"] == "agent:1"
    with pytest.raises(Refusal, match="stop"):
        await hub.answers(1)


async def test_an_agent_takes_back_their_own_reading_and_never_the_customers_word(hub: Ground) -> None:
    await hub.hears(text="Stop sending me the wrong size!")
    await hub.run(ConfirmStop((await hub.all("message"))[-1].id, ("phone", ADA), 1))
    await hub.run(TakeBackStop(1, 1, 1))
    assert (await told(hub))[-1][1] == "optout.withdrawn"
    await hub.answers(1)
    await hub.hears(text="STOP", opts="out")
    with pytest.raises(Refusal, match="Only they can take it back"):
        await hub.run(TakeBackStop(1, 2, 1))
    with pytest.raises(Refusal, match="no such opt-out"):
        await hub.run(TakeBackStop(1, 99, 1))


async def test_our_own_words_are_no_wish_of_the_customers(hub: Ground) -> None:
    ticket = await hub.hears()
    answer = await hub.answers(ticket, "Reply STOP to stop messages.")
    with pytest.raises(Refusal, match="what a customer wrote"):
        await hub.run(ConfirmStop(answer, ("phone", ADA), 1))


async def test_a_stop_said_after_an_agent_read_one_is_the_customers_own(hub: Ground) -> None:
    await hub.hears(text="Please stop texting me.")
    await hub.run(ConfirmStop((await hub.all("message"))[-1].id, ("phone", ADA), 1))
    await hub.hears(text="STOP", opts="out")
    [row] = await hub.all("opt_out")
    assert (row.actor, row.words) == ("", "STOP")
    with pytest.raises(Refusal, match="Only they"):
        await hub.run(TakeBackStop(1, row.id, 1))
