"""The same thing comes twice, or an answer does not come at all: F2, F3, F4."""

from __future__ import annotations

import asyncio
import html

from bench.chaos.promise import BrokenPromise, Run, Tally
from bench.chaos.world import world


async def delivered_again(run: Run) -> Tally:
    """F2: every message up to five times, at once and out of order: one row, one announcement, one webhook id."""
    messages = run.size(200, 10_000)
    people = messages // 2
    async with world(run, room=True) as here:
        await here.hub.start()
        offers = here.provider.write(messages, people)
        # Each customer's first message alone, so that there is somebody to write; every copy of it at once.
        copies = [offer for offer in offers for _ in range(run.dice.randint(1, 5))]
        run.dice.shuffle(copies)
        slots = asyncio.Semaphore(48)

        async def once(offer: object) -> int:
            async with slots:
                return await here.provider.offer(offer)  # type: ignore[arg-type]

        for status in await asyncio.gather(*map(once, copies)):
            if status != 200:
                raise BrokenPromise(f"a copy was answered {status}")
        await here.drained(patience=run.size(60, 300))
        # The next day's copy: no cache remembers it, the key does.
        await asyncio.gather(*map(once, run.dice.sample(offers, 50)))
        tally = await here.timeline()
        tally.add(await here.notices())
        await here.sound()
        rows = await here.rows("SELECT (SELECT count(*) FROM dedupe), (SELECT count(*) FROM raw_request)")
        if rows != [(messages, messages)]:
            raise BrokenPromise(f"{messages} messages left {rows[0][0]} keys and {rows[0][1]} requests")
        tally.doubled += len(here.outside.slack_posts) - people
        tally.lost += max(0, people - len(here.outside.slack_posts))
        await here.hub.stop()
    tally.tried = messages
    tally.notes += [f"{len(copies)} deliveries, {people} cards in the room"]
    return tally


async def send_answer_lost(run: Run) -> Tally:
    """F3: the provider takes a reply and its answer is lost: it ends as sent, or as unknown and shown; it never goes out again."""
    lost = run.size(12, 500)  # answers; as many come through
    replies = 2 * lost
    async with world(run) as here:
        await here.hub.start("--look-soon")
        await here.sign_in()
        await here.provider.deliver(here.provider.write(replies, replies))
        tickets = await here.tickets()
        # Its list cannot be read at first either: so far nobody can know.
        here.outside.down.add("twilio_list")
        here.outside.answers_to_lose["twilio"] = lost
        await asyncio.gather(*(here.agent.reply(id_, f"reply to ticket {id_}") for id_ in tickets))
        await here.agent.press_again()
        await here.drained(patience=run.size(30, 300))
        doubtful = await here.rows("SELECT ticket_id, text, error FROM message WHERE status = 'unknown' ORDER BY id")
        if len(doubtful) != lost:
            raise BrokenPromise(f"{lost} answers were lost and {len(doubtful)} replies are unknown")
        ticket, _, why = doubtful[0]
        if not why or why not in html.unescape(await here.agent.page(f"/inbox/all?ticket={ticket}")):
            raise BrokenPromise("the page does not show that a reply is of unknown fate")
        # Of every second one its provider tells what became of it, out of order and twice.
        by_text = {message.body: message for message in here.outside.twilio_messages}
        told = [by_text[text] for _, text, _ in doubtful[::2]]
        for message in told:
            for word in run.dice.sample(("sent", "delivered", "delivered"), 3):
                if (answer := await here.actor.report(message, word)).status != 200:
                    raise BrokenPromise(f"a status report was answered {answer.status}")
        delivered = await here.rows("SELECT count(*) FROM message WHERE status = 'delivered'")
        if delivered != [(len(told),)]:
            raise BrokenPromise(f"{len(told)} replies were reported as delivered, {delivered[0][0]} are shown so")
        # A restart neither sends them again nor settles them.
        await here.hub.stop()
        await here.hub.start("--look-soon")
        here.outside.down.clear()
        unknown = "SELECT text, error FROM message WHERE status = 'unknown'"
        await here.until(unknown, lambda rows: not rows, "finding what is in the provider's list", run.size(75, 300))
        await here.drained()
        tally = await here.replies()
        if replies != len(here.outside.twilio_messages):
            raise BrokenPromise(f"{replies} replies left {len(here.outside.twilio_messages)} messages at the provider")
        await here.hub.stop()
    found = lost - len(told) - tally.unresolved
    tally.tried = lost
    tally.notes.append(f"{len(told)} resolved by reports, {found} found in the provider's list")
    return tally


async def hook_answer_lost(run: Run) -> Tally:
    """F4: the marketing tool takes a hold and its answer is lost: told again under the same id until the answer comes."""
    people = run.size(20, 1_000)
    async with world(run) as here:
        await here.hub.start()
        here.outside.answers_to_lose["marketing"] = people // 2
        await here.provider.deliver(here.provider.write(people, people))
        # The waits between two tries are tried elsewhere; so many of them are not sat out.
        await here.drained(patience=run.size(60, 300), passing=0.0 if run.full else 2.0)
        tally = await here.notices()
        again = len(here.outside.hooks) - len({hook.id for hook in here.outside.hooks})
        if again != people // 2:
            raise BrokenPromise(f"{people // 2} answers were lost and {again} webhooks came again")
        if left := await here.rows("SELECT state, error FROM delivery WHERE state <> 'done'"):
            raise BrokenPromise(f"{len(left)} webhooks are not noted as delivered: {left[:3]}")
        await here.hub.stop()
    tally.tried = people // 2
    tally.notes += [f"{again} came again under the same id"]
    return tally
