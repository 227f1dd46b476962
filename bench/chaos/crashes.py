"""The server dies, at named points and at any moment: F1, F5; it is asked to stop: F6; there are two of it: F7."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import statistics
import time

from bench.chaos.outside import Offer
from bench.chaos.promise import BrokenPromise, Run, Tally
from bench.chaos.victim import HALF_WRITTEN, POINTS
from bench.chaos.world import UP_AGAIN, World, world
from tests.postgres import postgresql_missing

BODY_HALF_READ, ANSWERED, ANSWER_LOST, CHECKPOINT, ANY = "I1", "I5", "O3", "W", "random"
NAMED = ("I1", "I2", "I3", "I4", "I5", "O1", "O2", "O3", "O4", "O5", HALF_WRITTEN)
AT_PROVIDER = {"O1", "O2", "O3", "O4"}
CUSTOMERS = 40
REPLIES = 8  # a cycle


async def killed_anywhere(run: Run) -> Tally:
    """F1: SIGKILL at every named point and at random times, under load."""
    points = list(_short(run.engine) if not run.full else (*NAMED, ANY))
    if run.engine == "sqlite" and shutil.which("strace"):
        points.append(CHECKPOINT)
    cycles = run.size(len(points), 200)
    messages = run.size(40, 100)
    notes = [] if CHECKPOINT in points or run.engine != "sqlite" else ["no strace: not killed inside a checkpoint"]
    took: list[float] = []
    async with world(run) as here:
        # A log that is moved into the database every few pages is there to be interrupted.
        arguments = ("--checkpoint-every", "100") if run.engine == "sqlite" else ()
        await here.hub.start(*arguments)
        await here.sign_in()
        await here.provider.deliver(here.provider.write(CUSTOMERS, CUSTOMERS))
        for cycle in range(cycles):
            point = points[cycle % len(points)]
            try:
                await _cycle(here, point, cycle, messages)
            except BrokenPromise as broken:
                raise BrokenPromise(f"cycle {cycle}, killed at {point}: {broken}") from None
            await here.leases_run_out()
            acknowledged = {offer.text for offer in here.provider.acknowledged}
            took.append(await here.hub.start(*arguments))
            stored = {text.strip() for (text,) in await here.rows("SELECT text FROM message WHERE direction = 'in'")}
            if lost := acknowledged - stored:
                raise BrokenPromise(f"cycle {cycle}, killed at {point}: {len(lost)} acknowledged messages are gone, such as {min(lost)!r}")
            await here.provider.settle()
            await here.agent.press_again()
        await here.drained()
        await here.hub.stop()
        await here.sound()
        tally = await here.timeline()
        tally.add(await here.replies())
        tally.add(await here.notices())
    tally.tried = len(here.provider.offers)
    again = statistics.median(took)
    tally.notes += [f"{cycles} kills at {len(points)} points, {len(here.agent.wanted)} replies, up again in {again:.1f} s", *notes]
    # The short form runs beside other tests, which take the cores it starts on.
    if run.full and again > UP_AGAIN:
        raise BrokenPromise(f"up again after {again:.1f} s, not {UP_AGAIN:g} (median of {cycles})")
    return tally


def _short(engine: str) -> tuple[str, ...]:
    """Where the short form kills: at a commit and at random on both engines, at the other points on either, by turns."""
    everywhere = ("I3", "I4", ANY)
    others = [point for point in NAMED if point not in everywhere]
    if not postgresql_missing():
        others = others[0 if engine == "sqlite" else 1 :: 2]
    return (*others, *everywhere)


async def _cycle(here: World, point: str, cycle: int, messages: int) -> None:
    """Load until the server is dead."""
    run, hub, provider = here.run, here.hub, here.provider
    # Known people and ten new ones.
    people = {"senders": CUSTOMERS, "first": cycle * 10 + 10}
    offers = provider.write(messages, **people, mails=8 if point == HALF_WRITTEN else 2, word=f"cycle {cycle} message")
    # New tickets each time: one whose last answer is of unknown fate keeps its lane shut for two minutes, as it should.
    tickets = [id_ for id_ in await here.tickets() if id_ not in set(here.agent.wanted.values())][:REPLIES]
    texts = {f"reply to ticket {id_} in cycle {cycle}": id_ for id_ in tickets}
    helpers = [asyncio.create_task(_agent(here, texts))]
    tracer: asyncio.subprocess.Process | None = None
    if point in POINTS or point == HALF_WRITTEN:
        await hub.command(die=point, after=run.dice.randint(1, 4 if point in AT_PROVIDER | {HALF_WRITTEN} else 12))
    elif point == ANSWERED:
        at = len(provider.acknowledged) + run.dice.randint(1, messages // 2)
        provider.on_acknowledged = lambda count: hub.signal(signal.SIGKILL) if count >= at else None
    elif point == ANSWER_LOST:
        here.outside.when_sent(run.dice.randint(1, 4), lambda: hub.signal(signal.SIGKILL))
    elif point == BODY_HALF_READ:
        helpers.append(asyncio.create_task(_half_a_body(here, offers[0])))
    elif point == CHECKPOINT:
        tracer = await _kill_in_checkpoint(here, run.dice.randint(1, 30))
    else:
        helpers.append(asyncio.create_task(_at_any_time(here, run.dice.uniform(0.0, 0.4))))
    try:
        await provider.deliver(offers)
        # Where the load ended first, there is more of it until the point is reached.
        deadline = time.monotonic() + 20
        while hub.alive and time.monotonic() < deadline:
            await provider.deliver(provider.write(20, **people, mails=2, word=f"cycle {cycle} more"))
        await hub.killed()
    finally:
        provider.on_acknowledged = lambda count: None
        await asyncio.gather(*helpers)
        if tracer is not None:
            await tracer.wait()


async def _agent(here: World, texts: dict[str, int]) -> None:
    await asyncio.gather(*(here.agent.reply(ticket, text) for text, ticket in texts.items()))


async def _half_a_body(here: World, offer: Offer) -> None:
    """Begin to deliver a message, and kill the server in the middle of its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", here.hub.port)
    head = "POST /in/sms HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\n"
    writer.write(head.encode() + b"MessageSid=" + offer.sid.encode())
    await writer.drain()
    await asyncio.sleep(here.run.dice.uniform(0.0, 0.1))
    here.hub.signal(signal.SIGKILL)
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


async def _at_any_time(here: World, seconds: float) -> None:
    await asyncio.sleep(seconds)
    here.hub.signal(signal.SIGKILL)


async def _kill_in_checkpoint(here: World, write: int) -> asyncio.subprocess.Process:
    """SIGKILL at the so-manieth write into the database file itself: only a checkpoint writes there."""
    inject = ("-e", "trace=pwrite64", "-P", here.settings["storage"]["database"], "-e", f"inject=pwrite64:signal=KILL:when={write}")
    return await traced(here.hub.pid, *inject)


async def traced(pid: int, *arguments: str) -> asyncio.subprocess.Process:
    """strace on a running process, once it is attached. It ends with the process, or by SIGTERM."""
    tracer = await asyncio.create_subprocess_exec(
        *("strace", "-f", "-o", "/dev/null", *arguments, "-p", str(pid)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert tracer.stderr is not None
    async with asyncio.timeout(10):
        while b"attached" not in (line := await tracer.stderr.readline()):
            if not line:
                raise BrokenPromise("strace could not attach")
    return tracer


async def crashed_in_sending(run: Run) -> Tally:
    """F5: killed between marking a send and noting its outcome: repeated under the same id where that is harmless, else shown."""
    cycles = run.size(3, 200)
    tally = Tally()
    async with world(run) as here:
        await here.hub.start()
        await here.sign_in()
        for cycle in range(cycles):
            point = ("O2", "O4", "hook")[cycle % 3]
            # People of their own: the first hold of each is news.
            offers = here.provider.write(6, 6, first=cycle * 6, word=f"cycle {cycle} question")
            if point == "hook":
                here.outside.when_told(run.dice.randint(1, 5), lambda: here.hub.signal(signal.SIGKILL))
                await here.provider.deliver(offers)
            else:
                await here.provider.deliver(offers)
                await here.drained()
                tickets = (await here.tickets())[-6:]
                await here.hub.command(die=point, after=run.dice.randint(1, 6))
                await _agent(here, {f"reply to ticket {id_} in cycle {cycle}": id_ for id_ in tickets})
            await here.hub.killed()
            await here.leases_run_out()
            await here.hub.start()
            await here.provider.settle()
            await here.agent.press_again()
            await here.drained()
        tally.add(await here.timeline())
        tally.add(await here.replies())
        told = await here.notices()
        tally.add(told)
        again = len(here.outside.hooks) - len({hook.id for hook in here.outside.hooks})
        if not (tally.lost or tally.doubled) and not (again and tally.unresolved):
            raise BrokenPromise("no crash hit a send under way: this run proved nothing")
        await here.hub.stop()
    tally.tried = cycles
    tally.notes += [f"{again} webhooks came again under the same id"]
    return tally


async def asked_to_stop(run: Run) -> Tally:
    """F6: SIGTERM under load: everything accepted is answered, nothing is left in doubt, exit 0 within 10 s."""
    rounds = run.size(2, 20)
    slowest = 0.0
    async with world(run) as here:
        for number in range(rounds):
            await here.hub.start()
            if not number:
                await here.sign_in()
                await here.provider.deliver(here.provider.write(CUSTOMERS, CUSTOMERS))
            tickets = (await here.tickets())[:20]
            offers = here.provider.write(run.size(200, 600), 150, mails=4, word=f"round {number} message")
            stream = asyncio.create_task(_listen(here))
            load = asyncio.create_task(here.provider.deliver(offers))
            agent = asyncio.create_task(_agent(here, {f"reply to ticket {id_} in round {number}": id_ for id_ in tickets}))
            await asyncio.sleep(run.dice.uniform(0.05, 0.5))
            began = time.monotonic()
            await here.hub.stop(within=10.0)
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.gather(load, agent, stream)
            unknown = await here.rows("SELECT count(*) FROM delivery WHERE state = 'unknown'")
            if unknown != [(0,)]:
                raise BrokenPromise(f"round {number}: {unknown[0][0]} deliveries are of unknown fate after an orderly stop")
            if await here.rows("SELECT count(*) FROM delivery WHERE state = 'sending'") != [(0,)]:
                raise BrokenPromise(f"round {number}: leases were not given back")
        await here.hub.start()
        await here.provider.settle()
        await here.agent.press_again()
        await here.drained()
        await here.sound()
        tally = await here.timeline()
        tally.add(await here.replies())
        tally.add(await here.notices())
        await here.hub.stop()
    if tally.unresolved:
        raise BrokenPromise(f"{tally.unresolved} replies are of unknown fate after orderly stops")
    tally.tried = len(here.provider.offers)
    tally.notes += [f"{rounds} stops, {slowest:.1f} s at most"]
    return tally


async def _listen(here: World) -> int:
    """An inbox page left open: its stream must not keep the server from stopping. Returns how much it was told."""
    heard = 0
    with contextlib.suppress(OSError, Exception):
        async with here.agent.browser.get(f"{here.hub.url}/stream") as stream:
            async for line in stream.content:
                heard += line.startswith(b"event: ")
    return heard


async def two_on_one_file(run: Run) -> Tally:
    """F7 on SQLite: a second server on the same file refuses to start and does the first no harm."""
    starts = run.size(2, 20)
    async with world(run) as here:
        await here.hub.start()
        second, _ = here.another("second")
        for _ in range(starts):
            load = asyncio.create_task(here.provider.deliver(here.provider.write(50, 20)))
            with contextlib.suppress(BrokenPromise):
                await second.start()
            if second.alive:
                raise BrokenPromise("a second server runs on the same database file")
            code = await second.ended()
            if code <= 0 or "open in another hub process" not in second.tail():
                raise BrokenPromise(f"the second server ended with {code} and does not say why: {second.tail()}")
            await load
        if here.provider.waiting:
            raise BrokenPromise("the first server refused messages while the second tried to start")
        await here.hub.stop()
        await here.sound()
        tally = await here.timeline()
    tally.tried = starts
    return tally


async def two_on_one_database(run: Run) -> Tally:
    """F7 on PostgreSQL: two servers share the work, either may be killed, and a reply in one is seen by browsers on both."""
    rounds = run.size(2, 20)
    async with world(run) as here:
        await here.hub.start()
        second, second_door = here.another("second")
        await second.start()
        await here.sign_in()
        doors = {here.hub: here.actor, second: second_door}
        for number in range(rounds):
            victim, survivor = (second, here.hub) if number % 2 else (here.hub, second)
            await _seen_on_both(here, [here.hub.url, second.url], number)
            offers = here.provider.write(run.size(80, 300), 60, word=f"round {number} message")
            tickets = [id_ for id_ in await here.tickets() if id_ not in set(here.agent.wanted.values())][:20]
            load = asyncio.create_task(_through_both(here, offers, list(doors.values())))
            texts = {f"reply to ticket {id_} in round {number}": id_ for id_ in tickets}
            pressing = [here.agent.reply(id_, text, url=survivor.url) for text, id_ in texts.items()]
            await asyncio.sleep(run.dice.uniform(0.0, 0.5))
            victim.signal(signal.SIGKILL)
            await asyncio.gather(*pressing)
            await victim.killed()
            if not run.full:
                await here.leases_run_out(victim)  # in the full form they do so by themselves
            await load
            # What the dead one's customers wrote comes through the other one.
            for _ in range(3):
                waiting = here.provider.waiting
                await asyncio.gather(*(here.provider.offer(offer, doors[survivor]) for offer in waiting))
            if here.provider.waiting:
                raise BrokenPromise(f"round {number}: the survivor refuses {len(here.provider.waiting)} messages")
            for text, id_ in texts.items():
                if text not in here.agent.taken and not await here.agent.reply(id_, text, url=survivor.url):
                    raise BrokenPromise(f"round {number}: the survivor refuses a reply")
            await victim.start()
        # A lease of the dead one ends by itself; until then its rows are nobody's.
        await here.drained(patience=120)
        tally = await here.timeline()
        tally.add(await here.replies())
        tally.add(await here.notices())
        await here.hub.stop()
        await second.stop()
    tally.tried = len(here.provider.offers)
    tally.notes += [f"{rounds} kills"]
    return tally


async def _through_both(here: World, offers: list[Offer], doors: list[object]) -> None:
    slots = asyncio.Semaphore(32)

    async def one(at: int, offer: Offer) -> None:
        async with slots:
            await here.provider.offer(offer, doors[at % len(doors)])  # type: ignore[arg-type]

    await asyncio.gather(*(one(at, offer) for at, offer in enumerate(offers)))


async def _seen_on_both(here: World, urls: list[str], number: int) -> None:
    """A message taken and a reply written at the first server reach a stream at each."""
    here.provider.write(1, 1, first=1_000_000 + number, word=f"seen {number}")
    streams = [await here.agent.browser.get(f"{url}/stream") for url in urls]
    try:
        waits = [asyncio.create_task(_event(stream, "message.received")) for stream in streams]
        await here.provider.settle()
        await _all(waits, "a customer's message", urls)
        ticket = (await here.tickets())[-1]
        waits = [asyncio.create_task(_event(stream, "message.updated")) for stream in streams]
        await here.agent.reply(ticket, f"reply to ticket {ticket} seen {number}")
        await _all(waits, "a reply", urls)
    finally:
        for stream in streams:
            stream.close()


async def _all(waits: list[asyncio.Task[None]], what: str, urls: list[str]) -> None:
    done, late = await asyncio.wait(waits, timeout=5)
    for one in late:
        one.cancel()
    if late or any(one.exception() for one in done):
        raise BrokenPromise(f"{what} did not reach the browsers of {len(urls)} servers within 5 s")


async def _event(stream: object, word: str) -> None:
    async for line in stream.content:  # type: ignore[attr-defined]
        if word.encode() in line:
            return
    raise BrokenPromise("the stream ended")
