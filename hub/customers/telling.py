"""What is noted about who is who, as sentences with dates. Pure: rows in, sentences out.

For agents and the business's own programs; nothing of it is shown to a customer. A browser's key is never told.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from hub.contract import Proof
from hub.conversations.wording import address, moment
from hub.customers import bridging, joining
from hub.customers.bonds import home_of
from hub.customers.resolution import PROVEN, TOGETHER, TYING
from hub.storage.records import CannotLink, Customer, Evidence, Identifier, JoinLog


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened, as a sentence. `at` is microseconds UTC; `about` says what kind of thing: `came` (how an identifier came
    to be theirs), `together` (two proved at once), `claimed`, `shared`, `passed on`, `undone` or `parted`."""

    at: int
    text: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of a live customer, as it was read. `homes` are its nodes, itself among them; `spoke` says by message who wrote it
    and on which channel; `people` names the live customers that other homes are part of: home -> (id, name)."""

    customer: Customer
    homes: Sequence[Customer] = ()
    own: Sequence[Identifier] = ()
    others: Sequence[Identifier] = ()  # named in the evidence or in a tie, and somebody else's or nobody's
    evidence: Sequence[Evidence] = ()
    ties: Sequence[JoinLog] = ()
    cannot: Sequence[CannotLink] = ()
    agents: Mapping[int, str] = field(default_factory=dict)
    spoke: Mapping[int, tuple[int | None, int | None]] = field(default_factory=dict)  # message -> (channel, identifier)
    labels: Mapping[int, str] = field(default_factory=dict)  # channel -> as people read it
    people: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    cut: bool = False


class Words:
    """How the rows' ids read."""

    def __init__(self, rows: Rows, zone: tzinfo) -> None:
        self.rows = rows
        self._zone = zone
        self.by_id = {one.id: one for one in (*rows.others, *rows.own)}
        self.own = {one.id for one in rows.own}
        browsers = [one.id for one in sorted(rows.own, key=lambda one: one.id) if one.kind == "device"]
        self._browsers = {id_: f"chat visitor {n}" if len(browsers) > 1 else "the chat visitor" for n, id_ in enumerate(browsers, 1)}

    def day(self, at: int) -> str:
        then = moment(at, self._zone)
        return f"{then.day} {then:%B %Y}"

    def called(self, identifier_id: int | None, first: bool = False) -> str:
        """An identifier within a sentence, or as the `first` word of one."""
        one = self.by_id.get(identifier_id or 0)
        if one is None:
            text = "an address that is gone"
        elif one.kind == "device":
            text = self._browsers.get(one.id, "another chat visitor")
        elif one.kind == "user_id":
            text = f"customer number {one.value}" + (f" on {one.site}" if one.site else "")
        elif one.kind == "wa_user_id":
            text = f"WhatsApp user {one.value}"
        elif one.kind == "sender_word":
            text = f"the sender {one.value}"
        else:
            return address(one.kind, one.value)
        return text[0].upper() + text[1:] if first else text

    def home(self, home_id: int) -> str:
        """A node by its number and what belongs to it."""
        node = next((one for one in self.rows.homes if one.id == home_id), None)
        if node is None:
            live, name = self.rows.people.get(home_id, (home_id, ""))
            return f"#{live} ({name})" if name else f"#{live}"
        own = [self.called(one.id) for one in self.rows.own if home_of(one) == home_id]
        names = [part for part in (" ".join(node.own_name.split()), *own[:2]) if part]
        if len(own) > 2:
            names.append(f"{len(own) - 2} more")
        return f"#{home_id} ({', '.join(names)})" if names else f"#{home_id}"

    def actor(self, actor: str) -> str:
        kind, _, name = actor.partition(":")
        if kind == "agent":
            known = self.rows.agents.get(int(name) if name.isdigit() else 0, "")
            return f"the agent {known}" if known else "an agent"
        if kind == "program":
            return f"the program {name}" if name else "a program"
        if kind == "record":
            return self.record(actor)
        return {"hub": "the hub", "channel": "the channel", "command line": "somebody at the command line"}.get(actor, actor)

    def record(self, source: str) -> str:
        """The business's own record, by the name of its source where it has one."""
        kind, _, name = source.partition(":")
        return f"your own record ({name})" if kind == "record" and name else "your own record"

    def channel(self, evidence: Evidence) -> str:
        """The channel a fact was observed on, as people read it; empty where that is not known."""
        kind, _, number = evidence.source.partition(":")
        if not number.isdigit():
            return ""
        channel_id = self.rows.spoke.get(int(number), (None, None))[0] if kind == "message" else int(number)
        return self.rows.labels.get(channel_id or 0, "") if kind in ("message", "identified", "notice") else ""

    def wrote(self, evidence: Evidence) -> bool:
        """Whether the fact is a message that the identifier itself wrote."""
        kind, _, number = evidence.source.partition(":")
        if kind != "message" or not number.isdigit():
            return False
        return self.rows.spoke.get(int(number), (None, evidence.identifier_id))[1] == evidence.identifier_id


def came(words: Words) -> Iterable[Line]:
    """How each identifier came to be theirs."""
    noted: dict[int, Evidence] = {}
    for one in words.rows.evidence:
        if one.other_id is None and one.identifier_id in words.own:
            noted[one.identifier_id] = one  # the last: a value that passed through other hands came here by that
    for identifier in words.rows.own:
        seen = noted.get(identifier.id) or Evidence(0, identifier.id, None, identifier.proof, "", identifier.first_seen)
        yield Line(seen.at, _first(identifier, seen, words), "came")


def _first(one: Identifier, seen: Evidence, words: Words) -> str:
    called, day = words.called(one.id, first=True), words.day(seen.at)
    if seen.proof == Proof.CHANNEL:
        if one.kind == "device":
            return f"{called} wrote first on {day}." if words.wrote(seen) else f"{called} first came on {day}."
        channel = words.channel(seen) if one.kind == "phone" else ""
        if words.wrote(seen):
            return f"{channel} {called} wrote first on {day}.".lstrip()
        return f"{called} came with it on {day}: the channel itself said so."
    if seen.proof == Proof.SIGNED and one.kind == "user_id":
        return f"They first signed in{f' on {one.site}' if one.site else ''} as {one.value} on {day}."
    return {
        Proof.DMARC.value: f"{called} wrote first on {day}; its mail domain vouched for the mail.",
        Proof.SIGNED.value: f"{called} stood in your site's signed token on {day}.",
        Proof.OTP.value: f"A one-time code sent to {words.called(one.id)} came back on {day}.",
        Proof.AGENT.value: f"An agent noted {words.called(one.id)} on {day}.",
        Proof.RECORD.value: f"Y{words.record(seen.source)[1:]} has named {words.called(one.id)} since {day}.",
        Proof.CLAIMED.value: f"{called} wrote first on {day}, without proof of who sent it.",
    }.get(seen.proof, f"{called} came on {day}, unproven.")


def at_one_home(words: Words) -> Iterable[tuple[Evidence, Identifier]]:
    """Proof that ties two identifiers of one home: no join was ever needed."""
    for one in words.rows.evidence:
        if one.other_id not in words.own or one.identifier_id not in words.own or one.proof not in TYING or one.withdrawn_at is not None:
            continue
        left, right = words.by_id[one.identifier_id], words.by_id[one.other_id]
        if home_of(left) == home_of(right):
            yield one, right


def together(words: Words) -> Iterable[Line]:
    for one, _ in at_one_home(words):
        yield Line(one.at, proved_together(one, words), "together")


# The side that a proof is about, by kind: the address a code went to, the account a site signed for.
_PROVED = {Proof.OTP.value: ("email", "phone"), Proof.SIGNED.value: ("user_id", "email", "phone"), Proof.DMARC.value: ("email",)}


def _sides(one: Evidence, words: Words) -> tuple[Identifier | None, Identifier | None]:
    """(what was proved, beside what) of a fact about two identifiers."""
    left, right = words.by_id.get(one.identifier_id), words.by_id.get(one.other_id or 0)
    for kind in _PROVED.get(one.proof, ()):
        for proved, beside in ((right, left), (left, right)):
            if proved is not None and proved.kind == kind:
                return proved, beside
    return right, left


def proved_together(one: Evidence, words: Words) -> str:
    """A fact that ties two identifiers, as a sentence."""
    what, beside = _sides(one, words)
    proved, other = words.called(what.id if what else None), words.called(beside.id if beside else None)
    on = f"On {words.day(one.at)}"
    so = "so they are one person's"
    if one.source.startswith("notice:"):
        return f"{on} the channel told of a change of account or number, from {other} to {proved}: {so}."
    if one.proof == Proof.OTP:
        there = f"in the chat of {other}" if beside is not None and beside.kind == "device" else f"by {other}"
        return f"{on} a one-time code sent to {proved} was answered {there}: {so}."
    if one.proof == Proof.SIGNED:
        if what is not None and what.kind == "user_id":
            where = f" on {what.site}" if what.site else ""
            if beside is not None and beside.kind in ("email", "phone"):
                return f"{on} they signed in{where} as {what.value} with {other}: {so}."
            return f"{on} {other} signed in{where} as {what.value}: {so}."
        return f"{on} your site's signed token named {proved} beside {other}: {so}."
    return {
        Proof.CHANNEL.value: f"{on} the channel itself named {other} and {proved} as one sender: {so}.",
        Proof.DMARC.value: f"{on} a mail from {proved}, which its domain vouched for, proved {other} too: {so}.",
        Proof.AGENT.value: f"{on} an agent confirmed that {other} and {proved} belong together.",
        Proof.RECORD.value: f"{on} {words.record(one.source)} named {other} and {proved} as one person's.",
    }.get(one.proof, f"{on} {other} and {proved} were proved together: {so}.")


DEFAULT_REASON = "an agent merged them"  # `merging.Merge` without words of its own


def tied(row: JoinLog, evidence: Mapping[int, Evidence], words: Words) -> str:
    if row.op == "merge":
        reason = f": {row.rule}" if row.rule and row.rule != DEFAULT_REASON else ""
        merged = f"On {words.day(row.at)} {words.actor(row.actor)} merged {words.home(row.left_id)} and {words.home(row.right_id)}{reason}"
        return merged if merged.endswith((".", "!", "?")) else f"{merged}."
    for id_ in ids_in(row.evidence_ids):
        if id_ in evidence:
            proof = evidence[id_]
            ended = f" That was withdrawn on {words.day(proof.withdrawn_at)}; the join stays." if proof.withdrawn_at is not None else ""
            return proved_together(proof, words) + ended
    how = "" if row.rule in ("", TOGETHER) else f" ({row.rule})"
    return f"On {words.day(row.at)} {_pair(row, words)} were proved together{how}: so they are one person's."


def ids_in(noted: str) -> list[int]:
    try:
        ids = json.loads(noted or "[]")
    except ValueError:
        return []
    return [id_ for id_ in ids if isinstance(id_, int)] if isinstance(ids, list) else []


def _pair(row: JoinLog, words: Words) -> str:
    if row.left_identifier in words.by_id and row.right_identifier in words.by_id:
        return f"{words.called(row.left_identifier)} and {words.called(row.right_identifier)}"
    return f"{words.home(row.left_id)} and {words.home(row.right_id)}"


def undoable(row: JoinLog, homes: Collection[int], live: Iterable[JoinLog]) -> bool:
    """Whether taking this tie back parts anybody: the two may be tied in another way too."""
    ends = {row.left_id, row.right_id}
    rest = [one for one in live if {one.left_id, one.right_id} != ends]
    return not any(ends <= side for side in joining.components({*homes, *ends}, rest))


def claimed(words: Words) -> Iterable[Line]:
    """What is only said, and what is proved but may tie nobody."""
    proven = {(one.kind, one.site, one.value) for one in words.rows.own if one.standing == PROVEN}
    for one in words.rows.evidence:
        other = words.by_id.get(one.other_id or 0)
        if other is None or one.identifier_id not in words.own or (other.id in words.own and other.standing == PROVEN):
            continue
        if (other.kind, other.site, other.value) in proven:
            continue  # what they said first they proved later
        by, named, day = words.called(one.identifier_id, first=True), words.called(other.id), words.day(one.at)
        ended = f" It was withdrawn on {words.day(one.withdrawn_at)}." if one.withdrawn_at is not None else ""
        if one.proof == Proof.SEEN:
            text = f"{by} merely named {named} on {day}: it proves nothing."
        elif one.proof == Proof.CLAIMED:
            text = f"{by} gave {named} on {day}: claimed, not proved, so it joins nobody."
        elif other.shared_at is not None:
            text = f"{by} proved {named} too, on {day}; it is more than one person's and ties nobody."
        elif reason := bridging.why_not(other.kind, other.value):
            text = f"{by} came with {named} on {day}, which ties nobody: it is {reason}."
        elif one.proof == Proof.RECORD:
            text = f"On {day} {words.record(one.source)} named {named} beside {words.called(one.identifier_id)}; that joined nobody."
        else:
            text = f"{by} came with {named} on {day}, and is somebody else all the same."
        yield Line(one.at, text + ended, "claimed")


def states(words: Words) -> Iterable[Line]:
    """What is shared, and what has passed on to another holder."""
    for one in words.rows.own:
        called = words.called(one.id, first=True)
        if one.shared_at is not None:
            yield Line(
                one.shared_at, f"{called} turned out to be two people's on {words.day(one.shared_at)}: it ties nobody since.", "shared"
            )
        if one.ended_at is not None:
            when = words.day(one.ended_at)
            passed = f"{called} passed out of their hands on {when}: what came by it before stays here, what comes later does not."
            yield Line(one.ended_at, passed, "passed on")


def undone(words: Words) -> Iterable[Line]:
    made = {row.id: row for row in words.rows.ties}
    for row in words.rows.ties:
        if row.undoes is None:
            continue
        was = made.get(row.undoes)
        what = f"the join of {_pair(row, words)}" + (f" made on {words.day(was.at)}" if was is not None else "")
        how = {
            "share": "an address turned out to be two people's, which ended",
            "split": f"{words.actor(row.actor)} took an address out, which ended",
        }.get(row.op, f"{words.actor(row.actor)} took back")
        yield Line(row.at, f"On {words.day(row.at)} {how} {what}.", "undone")


def parted(words: Words, homes: Collection[int]) -> Iterable[Line]:
    """What a person said parts them from others."""
    for row in words.rows.cannot:
        here, there = (row.left_id, row.right_id) if row.left_id in homes else (row.right_id, row.left_id)
        said = f"On {words.day(row.at)} {words.actor(row.actor)} said that {words.home(here)} and {words.home(there)} are two people"
        then = (
            f"; that held until {words.day(row.ended_at)}." if row.ended_at is not None else ": later proof asks an agent and joins nobody."
        )
        yield Line(row.at, said + then, "parted")
