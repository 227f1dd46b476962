"""Who is asked how they were served, when, and what an answer means: pure decisions, and the units of work that carry them out.

A ticket is asked about once for ever. Its row is laid down when the ticket is resolved (`on_resolved_survey`, in that transaction) and
judged again when its time has come: by then the ticket may be open again, or its customer may have been asked about another one.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from datetime import UTC, tzinfo

from hub import keys
from hub.conversations.commands import Reply
from hub.conversations.text import storable
from hub.conversations.windows import is_open
from hub.policy import SECOND, Policy, Refusal
from hub.storage.facts import Facts, Needs
from hub.storage.marketing_records import Survey
from hub.storage.records import Event, Ticket
from hub.survey_policy import SurveyPolicy

LONGEST_COMMENT = 2_000  # characters
AUTOMATIC = "survey"  # what the message that asks is marked with


# --- what an answer means --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scale:
    """The answers a kind of survey takes, and where bad ends and good begins."""

    lowest: int
    highest: int
    low: int
    good: int

    @property
    def numbers(self) -> range:
        return range(self.lowest, self.highest + 1)


# CSAT counts 4 and 5 of 5 as satisfied, the Net Promoter Score 9 and 10 as promoters and up to 6 as detractors (Reichheld, "The One
# Number You Need to Grow", HBR 12/2003), the Customer Effort Score 2.0 asks for agreement from 1 to 7 (CEB, 2013) and 5 up agree.
SCALES: dict[str, Scale] = {
    "csat": Scale(1, 5, 2, 4),
    "nps": Scale(0, 10, 6, 9),
    "effort": Scale(1, 7, 3, 5),
}


def is_low(kind: str, score: int, policy: SurveyPolicy) -> bool:
    """Whether an answer is a bad one, after which marketing had better wait."""
    return score <= policy.low.get(kind, SCALES[kind].low)


def is_good(kind: str, score: int, policy: SurveyPolicy) -> bool:
    """Whether an answer is a good one."""
    return not is_low(kind, score, policy) and score >= policy.good.get(kind, SCALES[kind].good)


# --- the link --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """What a link names: a survey, its ticket, and the language it was asked in."""

    survey_id: int
    ticket_id: int
    language: str


def token(secret: bytes, link: Link) -> str:
    """The last part of a survey's address. Whoever shows it may answer: it is the only key, and told to nobody but the customer."""
    return keys.signed(keys.derive(secret, "survey"), f"{link.survey_id}-{link.ticket_id}-{link.language}")


def token_names(secret: bytes, shown: str) -> Link | None:
    """What a token of ours names; None for one that is not ours, found out without asking the database."""
    payload = keys.unsigned(keys.derive(secret, "survey"), shown) if shown.isascii() and len(shown) < 100 else None
    if payload is None:
        return None
    survey_id, ticket_id, language = payload.split("-")
    return Link(int(survey_id), int(ticket_id), language)


# --- whether and when ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a ticket and its customer just before they are asked. `zone` is where the customer lives, as far as known."""

    answered: bool  # an agent wrote to them on this ticket
    by_person: bool  # somebody wrote who is no machine
    doubtful: bool  # a message whose sender may not be who they seem
    last_asked_at: int | None  # about any of their tickets
    heard_at: int | None  # when they last wrote on this channel from this address
    zone: tzinfo = UTC


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a survey that is due: `ask`, `later` (at `at`) or `skip` (for the reason `why`)."""

    do: str
    why: str = ""
    at: int = 0


# why a ticket was not asked about -> in words
SKIPPED: dict[str, str] = {
    "off": "Surveys are switched off",
    "reopened": "The ticket was opened again",
    "spam": "The ticket is spam",
    "automatic": "A machine wrote, not a person",
    "doubtful": "The sender may not be who they seem",
    "unanswered": "No agent had answered",
    "recent": "Asked a short while ago",
    "opted_out": "They want no messages there",
    "window": "The channel takes no message now",
    "no_way": "There was no safe way to write to them",
}


def judge(ticket: Ticket | None, opted_out: bool, can_write: bool, seen: Seen, rules: SurveyPolicy, now: int) -> Verdict:
    """Whether a customer is asked about a ticket now. Pure."""
    if rules.kind == "off":
        return Verdict("skip", "off")
    if ticket is None or ticket.status != "resolved":
        return Verdict("skip", "reopened")
    if ticket.spam_at is not None:
        return Verdict("skip", "spam")
    if not seen.by_person:
        return Verdict("skip", "automatic")
    if seen.doubtful:
        return Verdict("skip", "doubtful")
    if not seen.answered:
        return Verdict("skip", "unanswered")
    if seen.last_asked_at is not None and now - seen.last_asked_at < rules.every:
        return Verdict("skip", "recent")
    if opted_out:
        return Verdict("skip", "opted_out")
    if not can_write:
        return Verdict("skip", "window")
    at = after_quiet(now, seen.zone, rules)
    return Verdict("later", at=at) if at > now else Verdict("ask")


def after_quiet(now: int, zone: tzinfo, rules: SurveyPolicy) -> int:
    """`now`, or the end of the quiet hours it falls into (microseconds UTC). Pure."""
    begin, end = rules.quiet_from, rules.quiet_until
    there = datetime.datetime.fromtimestamp(now / SECOND, zone)
    minute = there.hour * 60 + there.minute
    quiet = begin <= minute < end if begin <= end else minute >= begin or minute < end
    if not quiet:
        return now
    day = there.date() + datetime.timedelta(days=1 if minute >= end else 0)
    # The wall clock's time on that day, whatever the difference to UTC is by then. Never the past: an hour that the clock goes through
    # twice is quiet twice.
    wakes = datetime.datetime(day.year, day.month, day.day, end // 60, end % 60, tzinfo=zone)
    return max(int(wakes.timestamp()) * SECOND, now + 60 * SECOND)


# --- units of work ---------------------------------------------------------------------------------------------------


def on_resolved_survey(facts: Facts, event: Event) -> None:
    """Reaction: a ticket was resolved, so its customer is asked a while later, unless they were asked about it before."""
    rules = facts.policy.survey
    ticket = facts.tickets.get(event.ticket_id or 0)
    found = facts.found.get(("survey", "ticket_id", event.ticket_id))
    # A ticket that comes to its end otherwise than by being resolved (nothing is left on it) is nothing to ask about.
    if rules.kind == "off" or ticket is None or found is None:
        return
    due_at = facts.now + rules.delay
    if not found:
        facts.insert(Survey(facts.new_id("survey"), ticket.id, ticket.channel_id, ticket.identifier_id, rules.kind, "waiting", due_at))
        return
    survey = found[0]
    if survey.asked_at is None:
        survey.kind, survey.state, survey.due_at, survey.why = rules.kind, "waiting", due_at, ""
        survey.channel_id, survey.identifier_id = ticket.channel_id, ticket.identifier_id
        facts.change(survey)


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the customer of a ticket now, or note why not. `text` is the whole message; `seen` was read a moment before."""

    survey_id: int
    ticket_id: int
    text: str
    seen: Seen

    @property
    def _reply(self) -> Reply:
        return Reply(self.ticket_id, None, self.text, f"survey-{self.survey_id}", automatic=AUTOMATIC)

    def needs(self, needs: Needs) -> None:
        self._reply.needs(needs)
        needs.rows.add(("survey", "id", self.survey_id))

    def decide(self, facts: Facts) -> str:
        """What was done: `ask`, `later`, `skip`, or nothing where it is somebody else's already."""
        survey = next(iter(facts.found[("survey", "id", self.survey_id)]), None)
        if survey is None or survey.state != "waiting" or survey.due_at > facts.now:
            return ""
        verdict = self._judge(facts)
        if verdict.do == "ask":
            try:
                survey.message_id = self._reply.decide(facts).message_id
            except Refusal:  # their address went to somebody else, or the channel is gone; nothing was changed
                verdict = Verdict("skip", "no_way")
            else:
                ticket = facts.tickets[self.ticket_id]
                survey.state, survey.asked_at, survey.expires_at = "asked", facts.now, facts.now + facts.policy.survey.life
                survey.channel_id, survey.identifier_id = ticket.channel_id, ticket.identifier_id
        if verdict.do == "later":
            survey.due_at = verdict.at
        elif verdict.do == "skip":
            survey.state, survey.why = "skipped", verdict.why
        facts.change(survey)
        return verdict.do

    def _judge(self, facts: Facts) -> Verdict:
        ticket = facts.tickets.get(self.ticket_id)
        stopped = ticket is not None and _stopped(ticket, facts)
        can_write = ticket is not None and _window(ticket, self.seen.heard_at, facts.policy, facts.now)
        return judge(ticket, stopped, can_write, self.seen, facts.policy.survey, facts.now)


def _stopped(ticket: Ticket, facts: Facts) -> bool:
    own = facts.identifiers_of.get(facts.live_customer(ticket.conversation_id).id, ())
    identifier = next((one for one in own if one.id == ticket.identifier_id), None)
    rows = facts.opt_outs.get((identifier.kind, identifier.value), ()) if identifier is not None else ()
    return any(row.channel_id == ticket.channel_id and row.ended_at is None for row in rows)


def _window(ticket: Ticket, heard_at: int | None, policy: Policy, now: int) -> bool:
    rule = policy.channels.get(ticket.channel_id)
    return rule is not None and is_open(rule, heard_at, now)


@dataclass(frozen=True, slots=True)
class Answer:
    """A customer's answer, or another one in its place while the link lives."""

    survey_id: int
    ticket_id: int
    score: int
    comment: str

    def needs(self, needs: Needs) -> None:
        needs.rows.add(("survey", "id", self.survey_id))
        needs.tickets.add(self.ticket_id)

    def decide(self, facts: Facts) -> bool:
        """Whether it is new; the same once more changes nothing. Raises Refusal."""
        survey = next(iter(facts.found[("survey", "id", self.survey_id)]), None)
        ticket = facts.tickets.get(self.ticket_id)
        if survey is None or ticket is None or survey.ticket_id != self.ticket_id or survey.asked_at is None:
            raise Refusal("There is no such survey.")
        if not is_live(survey.state, survey.expires_at, facts.now):
            raise Refusal("This survey is over.")
        if self.score not in SCALES[survey.kind].numbers:
            raise Refusal("This is no answer to the question.")
        comment = storable(self.comment.strip())[:LONGEST_COMMENT]
        scored = survey.score != self.score
        if not scored and survey.comment == comment:
            return False
        survey.state, survey.score, survey.comment, survey.answered_at = "answered", self.score, comment, facts.now
        facts.change(survey)
        if scored:
            rules = facts.policy.survey
            said = {
                **{"survey": survey.id, "kind": survey.kind, "score": self.score},
                **{"low": is_low(survey.kind, self.score, rules), "good": is_good(survey.kind, self.score, rules)},
            }
            customer = facts.live_customer(ticket.conversation_id)
            facts.emit("survey.answered", customer_id=customer.id, ticket_id=ticket.id, data=json.dumps(said))
        return True


def is_live(state: str, expires_at: int | None, now: int) -> bool:
    """Whether a survey's link still takes an answer."""
    return state in ("asked", "answered") and expires_at is not None and now < expires_at


@dataclass(frozen=True, slots=True)
class Expire:
    """These links have run out without an answer."""

    survey_ids: tuple[int, ...]

    def needs(self, needs: Needs) -> None:
        needs.rows.update(("survey", "id", id_) for id_ in self.survey_ids)

    def decide(self, facts: Facts) -> int:
        """How many had."""
        over = [row for id_ in self.survey_ids for row in facts.found[("survey", "id", id_)] if row.state == "asked"]
        over = [row for row in over if not is_live(row.state, row.expires_at, facts.now)]
        for survey in over:
            survey.state = "expired"
            facts.change(survey)
        return len(over)
