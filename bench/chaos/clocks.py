"""Time does what it should not, and others are away for long: F13, F14, F16, F17."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bench.chaos.outside import Offer, share
from bench.chaos.promise import BrokenPromise, Run, Tally
from bench.chaos.proxy import Proxy
from bench.chaos.world import World, ticket_of, world
from connectors.sandbox import marketing

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
JUMPS = (DAY, -DAY, 1.0, -1.0, HOUR, 3 * HOUR, -3 * HOUR, 7 * DAY, -7 * DAY, 400 * DAY)


async def clock_jumps(run: Run) -> Tally:
    """F13: the wall clock jumps by a day and back while replies are on their way: no lease is stolen, order is kept."""
    jumps = run.size(2, 10)
    messages = run.size(30, 1_000)
    tolerance = marketing.TOLERANCE_SECONDS
    async with world(run) as here:
        slow = await _slow_providers(here)
        # Whoever is told at a wrong time refuses the signature; that is not what is tried here.
        marketing.TOLERANCE_SECONDS = 10**9
        try:
            await here.hub.start()
            await here.sign_in()
            await here.provider.deliver(here.provider.write(20, 20))
            await here.drained()
            for number, jump in enumerate(JUMPS[:jumps]):
                tickets = [id_ for id_ in await here.tickets() if id_ not in set(here.agent.wanted.values())][:5]
                told = len(here.outside.hooks)
                slow.silent()
                await asyncio.gather(*(here.agent.reply(id_, f"reply to ticket {id_} at jump {number}") for id_ in tickets))
                strangers = here.provider.write(20, 20, first=1_000 + 20 * number, word=f"jump {number} stranger")
                await here.provider.deliver(strangers)
                await here.until(
                    "SELECT count(*) FROM delivery WHERE state = 'sending'",
                    lambda rows: rows[0][0] >= 10,
                    "sends under way as the clock jumps",
                )
                await here.hub.command(clock=jump)
                # What waits for its due time must still move; so must new work.
                await here.provider.deliver(here.provider.write(messages // 2, 20, word=f"jump {number} message"))
                # Two of the worker's looks at what has become due.
                await asyncio.sleep(2.2)
                slow.silent(False)
                await here.provider.deliver(here.provider.write(messages // 2, 20, word=f"after jump {number}"))
                await here.drained()
                again = len(here.outside.hooks) - told - len({hook.id for hook in here.outside.hooks[told:]})
                if again:
                    raise BrokenPromise(f"clock {jump:+.0f} s: {again} webhooks under way were taken over and told twice")
                await here.hub.command(clock=0.0)
            await here.provider.settle()
            tally = await here.timeline()
            tally.add(await here.replies())
            tally.add(await here.notices())
            if tally.unresolved:
                raise BrokenPromise(f"{tally.unresolved} replies became unknown by a jump of the clock")
            await _in_order(here)
            await here.hub.stop()
        finally:
            marketing.TOLERANCE_SECONDS = tolerance
            await slow.stop()
    tally.tried = len(here.provider.offers)
    tally.notes += [f"{jumps} jumps"]
    return tally


async def _slow_providers(here: World) -> Proxy:
    """Put a proxy, which can fall silent, before every provider the hub calls."""
    way = Proxy(here.server.port)
    await way.start()

    def change(settings: dict[str, object]) -> None:
        settings["channels"]["sms"]["base_url"] = f"http://127.0.0.1:{way.port}"  # type: ignore[index]
        settings["destinations"]["marketing"]["url"] = f"http://127.0.0.1:{way.port}/marketing/hooks"  # type: ignore[index]
        settings["allowed_hosts"] = [*settings["allowed_hosts"], f"127.0.0.1:{way.port}"]  # type: ignore[misc]

    here.rewrite(change)
    return way


async def _in_order(here: World) -> None:
    """Each customer's messages stand in the order they were written. Raises BrokenPromise."""
    written = {offer.text: at for at, offer in enumerate(here.provider.offers.values())}
    last: dict[int, int] = {}
    rows = await here.rows("SELECT conversation_id, text FROM message WHERE direction = 'in' ORDER BY id")
    for conversation, text in rows:
        if written[text.strip()] < last.get(conversation, -1):
            raise BrokenPromise(f"{text!r} stands after what was written later")
        last[conversation] = written[text.strip()]
    # And as an agent reads them.
    conversation, ticket = (await here.rows("SELECT conversation_id, max(id) FROM ticket GROUP BY conversation_id ORDER BY 1"))[0]
    page = await here.agent.page(f"/inbox/all?ticket={ticket}")
    said = [text.strip() for one, text in rows if one == conversation][-10:]
    places = [page.rfind(text) for text in said]
    if -1 in places or places != sorted(places):
        raise BrokenPromise("a conversation's page does not show what was said in the order it was said")


async def provider_hangs(run: Run) -> Tally:
    """F14: one provider takes connections and never answers: nobody else waits for it."""
    replies = run.size(10, 200)
    hangs = run.size(2, 8)
    async with world(run, room=True) as here:
        way = Proxy(here.server.port)
        await way.start()

        def change(settings: dict[str, dict[str, dict[str, object]]]) -> None:
            settings["channels"]["sms"]["base_url"] = f"http://127.0.0.1:{way.port}"
            settings["allowed_hosts"] = [*settings["allowed_hosts"], f"127.0.0.1:{way.port}"]  # type: ignore[assignment]

        here.rewrite(change)
        try:
            await here.hub.start()
            await here.sign_in()
            await here.provider.deliver(here.provider.write(replies, replies))
            await here.drained()
            tickets = await here.tickets()
            way.silent()
            await asyncio.gather(*(here.agent.reply(id_, f"reply to ticket {id_}") for id_ in tickets))
            seen, told, cards = len(here.provider.answers), len(here.outside.hooks), len(here.outside.slack_posts)
            began = time.monotonic()
            people = 0
            while time.monotonic() - began < hangs:
                await here.provider.deliver(here.provider.write(20, 20, first=1_000 + people, mails=2, word="meanwhile"))
                people += 18 + (2 if not people else 0)  # the mails are of the same two each time
            others = "SELECT kind, target FROM delivery WHERE kind <> 'reply' AND state <> 'done'"
            await here.until(others, lambda rows: not rows, "delivery to the other targets while one hangs", 20)
            waits = [answer.seconds for answer in here.provider.answers[seen:]]
            slow = share(waits, 0.99)
            if here.provider.waiting or slow > (0.5 if run.full else PATIENT):
                raise BrokenPromise(f"while a provider hangs, {len(here.provider.waiting)} messages are refused; p99 {slow:.2f} s")
            way.silent(False)
            await here.drained(patience=90)
            tally = await here.timeline()
            tally.add(await here.replies())
            tally.add(await here.notices())
            if len(here.outside.hooks) == told or len(here.outside.slack_posts) == cards:
                raise BrokenPromise("nothing was delivered elsewhere meanwhile: this run proved nothing")
            await here.hub.stop()
        finally:
            await way.stop()
    tally.tried = replies
    tally.notes += [f"{len(waits)} messages acknowledged meanwhile, p99 {slow * 1e3:.0f} ms"]
    return tally


PATIENT = 2.0  # seconds: the short form shares the machine with other tests


async def provider_down(run: Run) -> Tally:
    """F16: a provider is down for six hours: nothing is lost or doubled, and each conversation's replies leave in order."""
    conversations = run.size(6, 500)
    each = run.size(2, 20)
    steps = run.size(3, 24)
    async with world(run) as here:
        await here.hub.start()
        await here.sign_in()
        await here.provider.deliver(here.provider.write(conversations, conversations))
        await here.drained(patience=run.size(30, 300))
        here.outside.down.add("twilio")
        tickets = await here.tickets()
        for number in range(each):
            taken = await asyncio.gather(*(here.agent.reply(id_, f"reply to ticket {id_} number {number}") for id_ in tickets))
            if not all(taken):
                raise BrokenPromise("a reply was refused because its provider is down")
        tries = [await _tries(here)]
        for hour in range(steps):
            await here.let_pass(6 * HOUR / steps)
            await _tried_again(here, tries[-1], f"a try in step {hour} of the outage")
            tries.append(await _tries(here))
        if (herd := tries[-1] - tries[0]) > 10 * conversations + 72:
            raise BrokenPromise(f"{herd} tries in six hours at a provider that is down, for {conversations} conversations")
        here.outside.down.clear()
        before = await _left(here)
        while before:
            # Whoever waits its longest is due within the hour.
            await here.let_pass(HOUR)
            await here.until(LEFT, lambda rows, more=before: rows[0][0] < more, "a reply to leave once its provider is up", 30)
            before = await _left(here)
        tally = await here.replies()
        sent: dict[int, list[str]] = {}
        for message in here.outside.twilio_messages:
            sent.setdefault(ticket_of(message.body), []).append(message.body)
        wrong = [ticket for ticket, texts in sent.items() if texts != sorted(texts, key=lambda text: int(text.rpartition(" ")[2]))]
        if wrong:
            raise BrokenPromise(f"replies left out of order in {len(wrong)} conversations")
        if tally.unresolved or len(here.outside.twilio_messages) != conversations * each:
            raise BrokenPromise(f"{conversations * each} replies left {len(here.outside.twilio_messages)} messages at the provider")
        await here.hub.stop()
    tally.notes += [f"{tries[-1]} tries in six hours for {conversations} conversations"]
    return tally


TRIES = "SELECT sum(attempt) FROM delivery WHERE kind = 'reply'"
LEFT = "SELECT count(*) FROM delivery WHERE state IN ('queued', 'sending')"


async def _tries(here: World) -> int:
    return int((await here.rows(TRIES))[0][0])


async def _left(here: World) -> int:
    return int((await here.rows(LEFT))[0][0])


async def _tried_again(here: World, before: int, what: str) -> None:
    await here.until(TRIES, lambda rows: rows[0][0] > before, what)
    await here.until("SELECT count(*) FROM delivery WHERE state = 'sending'", lambda rows: rows == [(0,)], "an end of the tries")


# --- F17: we were away ---


def postfix() -> Iterator[float]:
    """Seconds from one try to the next of a mail server of one's own: 5 min doubling to 4,000 s (postconf(5)), for five days."""
    wait = 300.0
    while True:
        yield wait
        wait = min(wait * 2, 4_000.0)


def sendgrid() -> Iterator[float]:
    """Every 7.5 min for an hour, then every 3 h."""
    yield from [7.5 * MINUTE] * 8
    while True:
        yield 3 * HOUR


def mailgun() -> Iterator[float]:
    """About 8 hours in all."""
    yield from (minutes * MINUTE for minutes in (10, 10, 15, 30, 60, 120, 240))


def postmark() -> Iterator[float]:
    """About 10.5 hours in all."""
    yield from (minutes * MINUTE for minutes in (1, 5, 10, 10, 10, 15, 30, 60, 120, 360))


@dataclass(frozen=True, slots=True)
class Patience:
    """How a provider tries again, and for how long."""

    waits: object
    window: float  # seconds it goes on trying


# What each really does: its own documentation, read 2026-11; SendGrid gives up after 72 h.
PROVIDERS = {
    "own mail server": Patience(postfix, 5 * DAY),
    "SendGrid": Patience(sendgrid, 72 * HOUR),
    "Mailgun": Patience(mailgun, 8 * HOUR),
    "Postmark": Patience(postmark, 10.5 * HOUR),
}


def comes_through(written: float, waits: Iterable[float], window: float, back: float) -> float | None:
    """When a message written at `written`, while we are away until `back`, is delivered; None: its provider gave up. Pure."""
    at = written
    for wait in itertools.chain((0.0,), waits):
        at += wait
        if at - written > window:
            return None
        if at >= back:
            return at
    return None


async def we_were_away(run: Run) -> Tally:
    """F17: our own downtime of 1, 8 and 60 hours: whatever its provider still holds is taken; Twilio's is found in its list."""
    each = run.size(4, 200)
    tally = Tally()
    notes = []
    for away in (1 * HOUR, 8 * HOUR, 60 * HOUR):
        async with world(run, f"away-{away:.0f}") as here:
            await here.hub.start()
            await here.provider.deliver(here.provider.write(5, 5))
            await here.hub.stop()
            due: list[tuple[float, Offer]] = []
            beyond: dict[str, int] = {}
            for name, patience in PROVIDERS.items():
                for offer in here.provider.write(each, each, mails=each, word=name):
                    at = comes_through(run.dice.uniform(0.0, away), patience.waits(), patience.window, away)  # type: ignore[operator]
                    if at is None:
                        beyond[name] = beyond.get(name, 0) + 1
                        del here.provider.offers[offer.sid]
                    else:
                        due.append((at, offer))
            # Twilio tries for 15 seconds: nothing of this will ever be delivered.
            listed = here.provider.write(each, each, first=100, word="Twilio")
            began = time.time()
            for offer in listed:
                wrote = began + run.dice.uniform(0.0, away)
                here.outside.clock = lambda wrote=wrote: wrote
                await here.actor.sms(offer.sender, offer.text, sid=offer.sid, told=False)
            here.outside.clock = lambda began=began, away=away: began + away
            await here.hub.start("--clock", str(away))
            for at, offer in sorted(due, key=lambda pair: pair[0]):
                await here.hub.command(clock=at)
                if await here.provider.offer(offer) != 200:
                    raise BrokenPromise(f"{offer.text}: refused after {away / HOUR:.0f} h away")
            all_found = f"SELECT count(*) FROM message WHERE text LIKE 'Twilio%' HAVING count(*) = {each}"
            await here.until(all_found, bool, "finding Twilio's messages in its list", 30)
            for offer in listed:
                offer.acknowledged = True
            found = await here.timeline()
            tally.add(found)
            await here.hub.stop()
            given_up = ", ".join(f"{name} gave up on {count}" for name, count in beyond.items())
            notes.append(f"{away / HOUR:.0f} h: {len(due)} came again" + (f" ({given_up}: beyond their window)" if given_up else ""))
    tally.notes += [*notes, "Twilio's from its list"]
    return tally
