"""Anything may happen to a few people in any order: nobody is joined wrongly, shown what is another's, or not given back by an undo.

Hypothesis chooses what happens, the real writer does it, and after every step the database is compared with the model beside it. The
short form is part of the tests. The long form takes a number of steps and tells what they were; IDENTITY_SEED chooses others:
`IDENTITY_STEPS=10000 pytest -s tests/customers/test_identity_machine.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from sqlalchemy import create_engine

from hub.contract import Claim, HolderChanged, Identified, Proof
from hub.conversations.commands import AddNote, Reopen, Reply, Resolve
from hub.customers import merging, suggestions
from hub.customers.disclosure import ProvedKey, readable, visible_messages
from hub.policy import DAY, Refusal
from hub.storage.channels import RegisterChannels
from tests.customers.identity_laws import check
from tests.customers.identity_model import Name, People, Refused, Said, Uttered
from tests.storage import CHAT, MAIL, POLICY, SMS, WHATSAPP, heard, message, open_store

STEPS = int(os.environ.get("IDENTITY_STEPS", "0"))
SEED = int(os.environ.get("IDENTITY_SEED", "1"))
EACH = 50  # rules a run; some find nothing to do

RULES = replace(POLICY, hold_lease=3_650 * DAY)
ME = 7
BY = merging.agent(ME)

FOUR = range(4)
people = st.sampled_from(FOUR)
maybe = st.sampled_from((None, *FOUR))
flag = st.booleans()
pick = st.integers(0, 10_000)

PROOFS = {"phone": Proof.CHANNEL, "wa_user_id": Proof.CHANNEL, "device": Proof.CHANNEL, "email": Proof.DMARC, "user_id": Proof.SIGNED}


def number(person: int) -> Said:
    return Said("phone", f"+1202555010{person}")


def mailbox(person: int, proven: bool = True) -> Said:
    # The last one is a post, which any number of people may fill.
    return Said("email", "info@example.com" if person == FOUR[-1] else f"p{person}@example.com", proven)


def account(person: int) -> Said:
    """Accounts of two sites: nobody has two of one, and anybody may have one of each."""
    return Said("user_id", f"u{person}", site="shop" if person < 3 else "outlet")


def claims(*said: Said, signed: bool = False) -> list[Claim]:
    """As a connector hands them over. In a chat whatever is no browser or account came in a token or as a code: `signed`."""
    proof = {**PROOFS, "email": Proof.SIGNED, "phone": Proof.OTP} if signed else PROOFS
    return [Claim(one.kind, one.value, proof[one.kind] if one.proven else Proof.CLAIMED, one.site) for one in said]


class Identity(RuleBasedStateMachine):
    """The hub's writer over a fresh file, and the model."""

    steps: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0
        self._directory = tempfile.TemporaryDirectory()
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        opening = self._stack.enter_async_context(open_store(Path(self._directory.name), RULES))
        self.store = self._runner.run(opening)
        assert isinstance(self.store.path, Path)
        self.db = sqlite3.connect(self.store.path, isolation_level=None)
        self.engine = create_engine(f"sqlite:///{self.store.path}")
        self.numbers = itertools.count(1)
        self.model = People()
        self.browsers = {person: (Said("device", f"browser-{person}"), None) for person in FOUR}
        self.run(RegisterChannels(tuple((POLICY.channels[n].name, "") for n in (SMS, WHATSAPP, MAIL, CHAT))))

    def teardown(self) -> None:
        self.engine.dispose()
        self.db.close()
        self._runner.run(self._stack.aclose())
        self._runner.close()
        self._directory.cleanup()

    # --- doing and reading ---

    def run(self, work: Any) -> Any:
        self.store.clock.advance(1)
        return self._runner.run(self.store.run(work))

    def rows(self, sql: str, *arguments: Any) -> list[Any]:
        return self.db.execute(sql, arguments).fetchall()

    def one_of(self, rows: Sequence[Any], chosen: int) -> Any:
        return rows[chosen % len(rows)] if rows else None

    def customers(self) -> list[int]:
        """The live ones."""
        return [row[0] for row in self.rows("SELECT id FROM customer WHERE merged_into IS NULL ORDER BY id")]

    def step(self, name: str) -> None:
        type(self).steps[name] += 1
        self.taken += 1

    def agent(self, name: str, work: Any, model: Callable[[Any], Any]) -> Any:
        """An agent's command is refused where the model's is; else both did it. `model` is told what came of it."""
        self.step(name)
        before = self.joined()
        refused = False
        try:
            outcome = self.run(work)
        except Refusal:
            refused = True
            outcome = None
        try:
            model(outcome)
        except Refused:
            assert refused, f"{work} was not refused"
        else:
            assert not refused, f"{work} was refused"
        self.compare(before if name != "merge" else None)
        return None if refused else outcome

    def hears(self, name: str, work: Any, said: Sequence[Said], text: str = "", copies: Sequence[Said] = ()) -> None:
        self.step(name)
        before = self.joined()
        self.run(work)
        speaker = self.model.event(said)
        if text:
            proved = frozenset(one.key for one in said if one.proven or one is said[0])
            self.model.uttered[text] = Uttered(text, speaker, proved, frozenset(one.value for one in copies))
        self.compare(before)

    def text(self) -> str:
        return f"m{next(self.numbers)}"

    # --- customers ---

    @rule(person=people, named=flag)
    def sends_a_text(self, person: int, named: bool) -> None:
        text = self.text()
        said = message(*claims(number(person)), text=text, key=text, sender_name=f"P{person}" if named else "")
        self.hears("text", heard(SMS, said), [number(person)], text)

    @rule(person=people, of=maybe, named=flag)
    def writes_on_whatsapp(self, person: int, of: int | None, named: bool) -> None:
        """With the number the account is known by, or without one (a user with a username)."""
        text = self.text()
        said = [Said("wa_user_id", f"US.{person}"), *([number(of)] if of is not None else [])]
        heard_of = message(*claims(*said), text=text, key=text, sender_name=f"W{person}" if named else "")
        self.hears("whatsapp", heard(WHATSAPP, heard_of), said, text)

    @rule(person=people, proven=flag, copied=maybe, vouched=maybe)
    def sends_a_mail(self, person: int, proven: bool, copied: int | None, vouched: int | None) -> None:
        """Perhaps with something proven beside it, which counts only if the sender is proven too."""
        text = self.text()
        said = [mailbox(person, proven), *([number(vouched)] if vouched is not None else [])]
        copies = [mailbox(copied)] if copied is not None and copied != person else []
        mail = message(*claims(*said), text=text, key=text, cc=tuple(one.value for one in copies), sender_name=f"M{person}")
        self.hears("mail", heard(MAIL, mail), said, text, copies)

    @rule(person=people, typed=maybe)
    def chats(self, person: int, typed: int | None) -> None:
        """As whoever the browser's session is, perhaps typing an address that may be anybody's."""
        text = self.text()
        device, signed_in = self.browsers[person]
        said = [*([signed_in] if signed_in is not None else []), device, *([mailbox(typed, False)] if typed is not None else [])]
        self.hears("chat", heard(CHAT, message(*claims(*said), text=text, key=text)), said, text)

    @rule(person=people, at=people, told=maybe)
    def signs_in(self, person: int, at: int, told: int | None) -> None:
        """The site vouches for its visitor, and perhaps for an address of theirs; a browser that was another's begins anew."""
        device, before = self.browsers[at]
        if before not in (None, account(person)):
            device = Said("device", f"browser-{at}-{next(self.numbers)}")
        self.browsers[at] = (device, account(person))
        said = [account(person), device, *([mailbox(told)] if told is not None else [])]
        work = heard(CHAT, Identified(provider_key=self.text(), claims=tuple(claims(*said, signed=True)), sender_name=f"U{person}"))
        self.hears("sign in", work, said)

    @precondition(lambda self: any(account for _, account in self.browsers.values()))
    @rule(person=people)
    def signs_out(self, person: int) -> None:
        self.step("sign out")
        self.browsers[person] = (Said("device", f"browser-{person}-{next(self.numbers)}"), None)

    @rule(person=people, at=people)
    def borrows_a_browser(self, person: int, at: int) -> None:
        """An account's words from a browser that another one may be signed in at: no session of ours, but the rule must hold."""
        text = self.text()
        said = [account(person), self.browsers[at][0]]
        self.hears("borrowed browser", heard(CHAT, message(*claims(*said), text=text, key=text)), said, text)

    @rule(person=people, other=people, by_mail=flag)
    def answers_with_a_code(self, person: int, other: int, by_mail: bool) -> None:
        """A code that was sent to an address comes back from a browser's session."""
        device, signed_in = self.browsers[person]
        address = mailbox(other) if by_mail else number(other)
        said = [*([signed_in] if signed_in is not None else []), device, address]
        work = heard(CHAT, Identified(provider_key=self.text(), claims=tuple(claims(*said, signed=True))))
        self.hears("code", work, said)

    @precondition(lambda self: any(name.said.kind == "phone" and not name.ended for name in self.model.names))
    @rule(person=people)
    def loses_the_number(self, person: int) -> None:
        self.step("disconnect")
        before = self.joined()
        self.run(heard(SMS, HolderChanged(provider_key=self.text(), previous=tuple(claims(number(person))))))
        self.model.changed_hands([number(person)], [])
        self.compare(before)

    @rule(person=people, of=people, to=people, renamed=flag)
    def changes_the_number(self, person: int, of: int, to: int, renamed: bool) -> None:
        self.step("number change")
        before = self.joined()
        own = Said("wa_user_id", f"US.{person}")
        previous = [number(of), own]
        present = [Said("wa_user_id", f"US.{person}x") if renamed else own, number(to)]
        told = HolderChanged(provider_key=self.text(), previous=tuple(claims(*previous)), present=tuple(claims(*present)))
        self.run(heard(WHATSAPP, told))
        self.model.changed_hands(previous, present)
        self.compare(before)

    @rule(person=people, out=flag)
    def sends_a_stop_word(self, person: int, out: bool) -> None:
        text = self.text()
        said = message(*claims(number(person)), text=text, key=text, opts="out" if out else "in")
        key = (SMS, "phone", number(person).value)
        self.model.stopped = self.model.stopped | {key} if out else self.model.stopped - {key}
        self.hears("stop word", heard(SMS, said), [number(person)], text)

    @precondition(lambda self: self.model.uttered)
    @rule(days=st.sampled_from((1, 8)))
    def time_passes(self, days: int) -> None:
        self.step("time")
        self.store.clock.advance(days * 86_400)

    # --- agents ---

    @precondition(lambda self: len(self.customers()) > 1)
    @rule(one=pick, other=pick)
    def merge(self, one: int, other: int) -> None:
        # By an id that may be of somebody joined since: ids never die.
        known = [row[0] for row in self.rows("SELECT id FROM customer")]
        left, right = self.one_of(known, one), self.one_of(known, other)
        if left is None or left == right:
            return
        live = [min(self.model.person(id_)) for id_ in (left, right)]
        self.agent("merge", merging.Merge(left, right, BY, ME), lambda _: self.model.merge(*live))

    @precondition(lambda self: self.model.ties)
    @rule(chosen=pick)
    def unmerge(self, chosen: int) -> None:
        """Any tie: an agent's merge or a join by proof."""
        row = self.one_of(self._ties(), chosen)
        if row is not None:
            self.agent("unmerge", merging.Unmerge(*row, BY, ME), lambda _: self.model.unmerge(row[1], row[2]))

    @precondition(lambda self: len(self.customers()) > 1)
    @rule(one=pick, other=pick)
    def reject(self, one: int, other: int) -> None:
        left, right = self.one_of(self.customers(), one), self.one_of(self.customers(), other)
        if left is not None:
            self.agent("reject", merging.Reject(left, right, BY, ME), lambda _: self.model.reject(left, right))

    @precondition(lambda self: len(self.model.names) > 3)
    @rule(chosen=pick)
    def take_out(self, chosen: int) -> None:
        row = self.one_of(self.rows("SELECT customer_id, id FROM identifier WHERE customer_id IS NOT NULL ORDER BY id"), chosen)
        if row is not None:
            name = self._name(row[1])
            self.agent("take out", merging.TakeOut(row[0], row[1], BY, ME), lambda _: self.model.take_out(name))

    @rule(chosen=pick, whom=pick)
    def move_ticket(self, chosen: int, whom: int) -> None:
        row = self.one_of(self.rows("SELECT id, conversation_id FROM ticket ORDER BY id"), chosen)
        to = self.one_of(self.customers(), whom)
        if row is None or row[1] == to:
            return
        moved = [text for (text,) in self.rows("SELECT text FROM message WHERE ticket_id = ? AND direction <> 'note'", row[0])]

        def done(_: int) -> None:
            for text in moved:
                self.model.uttered[text].given = to

        self.agent("move ticket", merging.MoveTicket(row[0], to, ME), done)

    @rule(chosen=pick, whom=pick)
    def move_message(self, chosen: int, whom: int) -> None:
        row = self.one_of(self.rows("SELECT id, conversation_id, text FROM message WHERE direction <> 'note' ORDER BY id"), chosen)
        to = self.one_of(self.customers(), whom)
        if row is None or row[1] == to:
            return

        def done(ticket: int) -> None:
            # It goes with the ticket it stands on from now on, and that with its own home.
            self.model.uttered[row[2]].given = self.rows("SELECT home_id FROM ticket WHERE id = ?", ticket)[0][0]

        self.agent("move message", merging.MoveMessage(row[0], row[1], to, ME), done)

    @rule(chosen=pick, to=pick)
    def reply(self, chosen: int, to: int) -> None:
        """To any address of the customer's that some channel reaches."""
        ticket = self.one_of(self.rows("SELECT id, conversation_id FROM ticket ORDER BY id"), chosen)
        if ticket is None:
            return
        own = self.rows("SELECT id, kind, value FROM identifier WHERE customer_id = ? AND ended_at IS NULL ORDER BY id", ticket[1])
        ways = [(rule.id, *row) for row in own for rule in POLICY.channels.values() if row[1] in rule.reaches]
        channel, identifier, kind, value = self.one_of(ways, to) or (None, None, "", "")
        if channel is None or (channel, kind, value) in self.model.stopped:
            return
        text = self.text()
        self.step("reply")
        self.run(Reply(ticket[0], ME, text, text, channel_id=channel, identifier_id=identifier, confirmed_way=True))
        name = self._name(identifier)
        self.model.uttered[text] = Uttered(text, name, frozenset({name.said.key}))
        self.compare(None)

    @rule(chosen=pick, what=st.sampled_from((Resolve, Reopen, AddNote)))
    def handle(self, chosen: int, what: Any) -> None:
        ticket = self.one_of(self.rows("SELECT id FROM ticket ORDER BY id"), chosen)
        if ticket is None:
            return
        self.step(what.__name__)
        try:
            self.run(what(ticket[0], ME, "A note.", self.text()) if what is AddNote else what(ticket[0], ME))
        except Refusal:
            return
        self.compare(None)

    @precondition(lambda self: len(self.customers()) > 2)
    @rule(one=pick, two=pick, three=pick, twice=flag, first=flag, meanwhile=flag)
    def merge_and_undo(self, one: int, two: int, three: int, twice: bool, first: bool, meanwhile: bool) -> None:
        """Whatever was before one or two merges is there again after they are taken back, in whichever order."""
        live = self.customers()
        a, b, c = (self.one_of(live, chosen) for chosen in (one, two, three))
        if len({a, b, c}) < 3:
            return
        before, hinted = self.everything(), self.hinted()
        done = [self.agent("merge", merging.Merge(a, b, BY, ME), lambda _: self.model.merge(a, b))]
        pairs = [(a, b)]
        if twice:
            left = min(a, b)
            done.append(self.agent("merge", merging.Merge(c, b, BY, ME), lambda _: self.model.merge(c, left)))
            pairs.append((c, left))
        if meanwhile:
            self.run(AddNote(self.rows("SELECT max(id) FROM ticket")[0][0] or 0, ME, "Meanwhile.", self.text()))
        undoing = list(zip(done, pairs, strict=True))
        for merged, pair in undoing if first else undoing[::-1]:
            work = merging.Unmerge(merged.join_id, *pair, BY, ME)
            self.agent("undo", work, lambda _, pair=pair: self.model.unmerge(*pair))
        after = self.everything()
        assert after == before, {table: (set(before[table]) ^ set(after[table])) for table in before if before[table] != after[table]}
        # Of what was suggested only the pairs that somebody has just parted are hidden.
        assert self.hinted() - hinted == set()
        assert all({left, right} in ({a, b}, {c, min(a, b)}, {c, max(a, b)}) for left, right, _ in hinted - self.hinted())

    def everything(self) -> dict[str, list[Any]]:
        """All that an undone merge must leave as it was, but versions and logs."""
        return {
            "customer": self.rows("SELECT id, name, own_name, merged_into FROM customer ORDER BY id"),
            "identifier": self.rows("SELECT * FROM identifier ORDER BY id"),
            "evidence": self.rows("SELECT * FROM evidence ORDER BY id"),
            "message": self.rows("SELECT * FROM message WHERE text <> 'Meanwhile.' ORDER BY id"),
            "ticket": self.rows("SELECT * FROM ticket ORDER BY id"),
            "hold": self.rows("SELECT * FROM hold ORDER BY id"),
            "opt_out": self.rows("SELECT * FROM opt_out ORDER BY id"),
            "lanes": self.rows("SELECT id, lane, state FROM delivery WHERE kind = 'reply' ORDER BY id"),
        }

    def hinted(self) -> set[tuple[int, int, str]]:
        with self.engine.connect() as connection:
            return {(row.left_id, row.right_id, row.reasons) for row in connection.execute(suggestions.newest(10_000))}

    def _ties(self) -> list[Any]:
        return self.rows(
            "SELECT id, left_id, right_id FROM join_log j WHERE undoes IS NULL "
            "AND NOT EXISTS (SELECT 1 FROM join_log u WHERE u.undoes = j.id) ORDER BY id"
        )

    def _name(self, identifier_id: int) -> Name:
        row = self.rows("SELECT kind, site, value, standing, epoch FROM identifier WHERE id = ?", identifier_id)[0]
        return next(name for name in self.model.names if name.key == row)

    # --- what must be so ---

    def joined(self) -> dict[int, int]:
        return {row[0]: row[1] or row[0] for row in self.rows("SELECT id, merged_into FROM customer")}

    def compare(self, before: dict[int, int] | None) -> None:
        """The database against the model; `before`: who was one customer before a step that is no agent's merge."""
        check(self.rows)
        live = self.joined()
        wanted = {home: min(self.model.person(home)) for home in live}
        assert live == wanted, {home: (live[home], wanted[home]) for home in live if live[home] != wanted[home]}
        known = self.rows("SELECT kind, site, value, standing, epoch, home_id, ended_at, shared_at FROM identifier")
        names = {row[:5]: row[5:] for row in known}
        held = {name.key: name for name in self.model.names}
        assert names.keys() == held.keys()
        for key, (home, ended, shared) in names.items():
            name = held[key]
            assert (home, ended is not None, shared is not None) == (name.home, name.ended, name.shared), key
        self._messages(wanted)
        if before is not None:
            self._joins(before, live)
        # It costs more than all the rest. By this run's own steps: a failure that is played again must come at the same one.
        if STEPS or self.taken % 3 == 0:
            self._disclosure()
        out = {tuple(row) for row in self.rows("SELECT channel_id, kind, value FROM opt_out WHERE ended_at IS NULL")}
        assert out == self.model.stopped

    def _messages(self, live: dict[int, int]) -> None:
        there = dict(self.rows("SELECT text, conversation_id FROM message WHERE direction <> 'note'"))
        assert there.keys() == self.model.uttered.keys()
        for text, one in self.model.uttered.items():
            home = self.model.home_of(one)
            assert home is not None, text
            assert there[text] == live[home], f"{text} is customer {there[text]}'s and should be {live[home]}'s"

    def _joins(self, before: dict[int, int], live: dict[int, int]) -> None:
        """Whom proof made one had no two accounts of a site, and nobody had said that they are two."""
        accounts: dict[int, set[tuple[str, str]]] = {}
        for home, site, value in self.rows("SELECT home_id, site, value FROM identifier WHERE kind = 'user_id' AND home_id IS NOT NULL"):
            accounts.setdefault(before.get(home, home), set()).add((site, value))
        apart = self.rows("SELECT left_id, right_id FROM cannot_link WHERE ended_at IS NULL")
        groups: dict[int, set[int]] = {}
        for home, customer in live.items():
            groups.setdefault(customer, set()).add(before.get(home, home))
        for were in groups.values():
            for left, right in itertools.combinations(were, 2):
                two = [(a, b) for a in accounts.get(left, ()) for b in accounts.get(right, ()) if a[0] == b[0] and a != b]
                assert not two, f"customers {left} and {right} were joined and have the accounts {two}"
                said = [row for row in apart if {before.get(row[0]), before.get(row[1])} == {left, right}]
                assert not said, f"customers {left} and {right} were joined against {said}"

    def _disclosure(self) -> None:
        """Whoever proves an identifier now is shown what it said and was told, all of it and nothing else."""
        with self.engine.connect() as connection:
            texts = dict(self.rows("SELECT id, text FROM message"))
            for id_, kind, site, value in self.rows(
                "SELECT id, kind, site, value FROM identifier WHERE ended_at IS NULL AND standing = 'proven'"
            ):
                name = self._name(id_)
                own = {text for text, one in self.model.uttered.items() if one.name is name}
                shown = connection.execute(visible_messages([ProvedKey(kind, site, value)], list(POLICY.channels), limit=10_000))
                seen = {row.text for row in shown}
                assert seen == (set() if name.shared else own), f"{value} is shown {seen}"
                for text in seen:
                    assert name.said.key in self.model.uttered[text].proved, f"{value} is shown {text} and had not proved it"
                copied = {text for text, one in self.model.uttered.items() if kind == "email" and value in one.copies and not name.shared}
                assert {texts[row[0]] for row in connection.execute(readable([id_]))} == own | copied


def run(steps: int) -> Counter[str]:
    """So many steps at least; the same ones each time."""
    Identity.steps = Counter()
    seed(SEED)(Identity)
    run_state_machine_as_test(
        Identity,
        settings=settings(
            max_examples=steps // (EACH * 3 // 4) + 1,
            stateful_step_count=EACH,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Identity.steps


def test_whatever_happens_everybody_stays_who_they_are() -> None:
    assert run(400).total() > 400


@pytest.mark.skipif(not STEPS, reason="the long form: IDENTITY_STEPS=10000")
@pytest.mark.timeout(3_600)
def test_whatever_happens_for_long() -> None:
    done = run(STEPS)
    sys.stdout.write(f"{done.total()} steps: {dict(done.most_common())}\n")
    assert done.total() >= STEPS
