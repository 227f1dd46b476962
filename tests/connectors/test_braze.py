"""Braze: the hold on every profile that shares an address, errors inside successes, the gate asked as a campaign goes out, and Currents.

Braze publishes no client for Python and no specification to judge by: the stand-in follows the vendor's pages and samples.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError

from connectors.braze import Braze, BrazeSettings, by_hand, differences, planned, same
from connectors.braze.api import INSTANCES, Api, item_errors
from connectors.sandbox.tools.braze import BEARER, BrazeStandIn, Gate
from connectors.sandbox.tools.stand_in import Profile
from hub.app import Running, sandbox_token
from hub.contract import Claim, HttpResponse, InboundMessage, Proof, Refused, Request, TryLater, Unparseable, Verdict
from hub.conversations.ingest import Ingest, item
from hub.http import GuardedHttp
from hub.marketing import Campaign, Fate, HearsSends, WatchesCampaigns, Wish
from tests.connectors.tool_conformance import DAY, NOW, Clock, Line, ToolConformance, iso, wish

CONSENT = {"email_subscribe", "push_subscribe", "subscription_groups"}


class TestBrazeConforms(ToolConformance):
    tool = "braze"


@dataclass
class Recorder:
    """The guarded client, keeping the bodies that went out."""

    http: GuardedHttp
    sent: list[tuple[str, Any]]

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        self.sent.append((url.split("/", 3)[3], json.loads(more["body"]) if more.get("body") else None))
        return await self.http.request(method, url, **more)

    def tracked(self) -> list[dict[str, Any]]:
        """The objects of all calls of /users/track."""
        return [one for path, body in self.sent if path == "users/track" for one in body["attributes"]]


@dataclass
class Workspace:
    clock: Clock
    stand_in: BrazeStandIn
    line: Recorder

    def build(self, **settings: Any) -> Braze:
        given = {"type": "braze", "base_url": self.stand_in.url, **self.stand_in.credentials, **settings}
        return Braze(BrazeSettings.model_validate(given), "crm")

    async def mark(self, *wishes: Wish, **settings: Any) -> list[Any]:
        return list(await self.build(**settings).mark(wishes, self.line, self.clock()))

    async def read(self, *wishes: Wish) -> list[Any]:
        return list(await self.build().read(wishes, self.line, self.clock()))

    async def hold(self, profile: Profile) -> None:
        [marked] = await self.mark(wish("external_id", profile.keys["external_id"]))
        assert marked.fate is Fate.ACCEPTED


@pytest.fixture
async def workspace() -> AsyncIterator[Workspace]:
    clock = Clock()
    stand_in = BrazeStandIn(clock)
    await stand_in.start()
    client = GuardedHttp(["127.0.0.1"])
    workspace = Workspace(clock, stand_in, Recorder(client, []))
    yield workspace
    await client.close()
    await stand_in.stop()
    assert not [one for one in workspace.line.tracked() if CONSENT & one.keys()], "no call touches consent"


# --- what is written -------------------------------------------------------------------------------------------------


async def test_every_profile_that_shares_an_address_is_held(workspace: Workspace) -> None:
    """A write by the address would reach the one that changed last."""
    twins = [workspace.stand_in.add_profile(email="Ann@example.org", external_id=f"c_{number}") for number in (1, 2)]
    asked = wish("email", "ann@example.org")
    [marked] = await workspace.mark(asked)
    assert (marked.fate, marked.profile) == (Fate.ACCEPTED, twins[0].id)
    assert [workspace.stand_in.shown(twin)["support_hold"] for twin in twins] == [True, True]
    [back] = await workspace.read(asked)
    assert back.held
    workspace.stand_in.meddle(twins[1], {"support_hold": False})
    [back] = await workspace.read(asked)
    assert (back.present, back.held) == (True, False), "held only when all of them are"
    free = wish("email", "ann@example.org", held=False, version=2)
    [back] = await workspace.read(free)
    assert back.held, "and free only when all of them are"


async def test_the_earliest_lease_of_profiles_that_share_an_address_is_told(workspace: Workspace) -> None:
    for number in (2, 9, 10):
        profile = workspace.stand_in.add_profile(email="ann@example.org", external_id=f"c_{number}")
        workspace.stand_in.meddle(profile, {"support_hold": True, "support_hold_until": iso(NOW + number * DAY)})
    [back] = await workspace.read(wish("email", "ann@example.org"))
    assert back.until == "2025-11-26T16:00:00.000Z"


async def test_only_updates_are_written_and_by_brazes_own_id(workspace: Workspace) -> None:
    profile = workspace.stand_in.add_profile(external_id="c_1")
    await workspace.hold(profile)
    [one] = workspace.line.tracked()
    assert one["_update_existing_only"] is True
    assert one["braze_id"] == profile.id
    assert not {"external_id", "email", "phone"} & one.keys(), "one identifier an object, or another profile may be meant"


async def test_what_stands_costs_no_data_point(workspace: Workspace) -> None:
    workspace.stand_in.add_profile(external_id="c_1")
    traits = {"support_status": "open", "support_open_tickets": 1, "support_resolved_at": iso(NOW)}
    await workspace.mark(wish("external_id", "c_1", traits=traits))
    assert workspace.stand_in.data_points == 7
    await workspace.mark(wish("external_id", "c_1", traits=traits))
    assert workspace.stand_in.data_points == 7, "nothing new, though Braze spells times its own way"
    await workspace.mark(wish("external_id", "c_1", traits=traits | {"support_open_tickets": 2}))
    assert workspace.stand_in.data_points == 8, "the one trait that changed"
    await workspace.mark(wish("external_id", "c_1", version=2, traits=traits | {"support_open_tickets": 2}))
    assert workspace.stand_in.data_points == 12, "the hold's own four go together"


SEEN = {
    "support_hold": True,
    "support_hold_until": "2025-12-01T16:00:00.000Z",
    "support_hold_reason": "open_ticket",
    "support_hold_version": 5,
    "support_status": "open",
}


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, set()),  # as it stands
        ({"version": 4, "held": False}, set()),  # older than what stands there
        ({"version": 6}, {"support_hold", "support_hold_until", "support_hold_reason", "support_hold_version"}),
        ({"until": "2025-12-02T16:00:00Z"}, {"support_hold", "support_hold_until", "support_hold_reason", "support_hold_version"}),
        ({"traits": {"support_status": "resolved"}}, {"support_status"}),
        ({"traits": {"support_status": None}}, {"support_status"}),
        ({"traits": {"support_satisfaction": None}}, set()),  # not there as it is
        ({"traits": {"support_open_tickets": 0}}, {"support_open_tickets"}),  # not there is not nought
    ],
)
def test_what_differs_is_written(given: dict[str, Any], changed: set[str]) -> None:
    more = {"version": 5, "until": "2025-12-01T16:00:00Z", "traits": {"support_status": "open"}} | given
    held = more.pop("held", True)
    asked = wish("external_id", "c_1", held=held, **({key: value for key, value in more.items() if held or key != "until"}))
    assert set(differences(SEEN, asked)) == changed


@pytest.mark.parametrize(
    ("seen", "wanted", "alike"),
    [
        (1, True, False),  # a number is no flag
        (True, 1, False),
        (2.0, 2, True),
        (None, None, True),
        ("", None, False),
        ("2025-12-01T16:00:00.000Z", "2025-12-01T16:00:00Z", True),
        ("2025-12-01 16:00:00 UTC", "2025-12-01T16:00:00Z", False),  # read by nobody: written again
        ("open", "open", True),
        (["open"], "open", False),
    ],
)
def test_what_is_the_same(seen: Any, wanted: Any, alike: bool) -> None:
    assert same(seen, wanted) is alike


async def test_fifty_ids_are_one_look_up_and_one_write(workspace: Workspace) -> None:
    for number in range(50):
        workspace.stand_in.add_profile(external_id=f"c_{number}")
    await workspace.mark(*[wish("external_id", f"c_{number}") for number in range(50)])
    assert [path for path, _ in workspace.line.sent] == ["users/export/ids", "users/track"]
    assert len(workspace.stand_in.writes) == 50


async def test_an_address_is_looked_up_alone_and_only_what_is_needed_is_exported(workspace: Workspace) -> None:
    await workspace.mark(wish("email", "ann+news@example.org"), wish("phone", "+14155550001"))
    fields = ["braze_id", "external_id", "email", "phone", "custom_attributes"]
    assert [body for _, body in workspace.line.sent] == [
        {"email_address": "ann+news@example.org", "fields_to_export": fields},
        {"phone": "+14155550001", "fields_to_export": fields},
    ]


async def test_many_profiles_of_one_address_are_written_fifty_a_call(workspace: Workspace) -> None:
    for number in range(60):
        workspace.stand_in.add_profile(external_id=f"c_{number}", email="all@example.org")
    [marked] = await workspace.mark(wish("email", "all@example.org"))
    assert marked.fate is Fate.ACCEPTED
    assert len(workspace.stand_in.writes) == 60
    assert [len(body["attributes"]) for path, body in workspace.line.sent if path == "users/track"] == [50, 10]


# --- whom Braze does not know ----------------------------------------------------------------------------------------


async def test_an_unknown_address_is_never_made_a_profile(workspace: Workspace) -> None:
    """Braze subscribes whoever gets an address."""
    answers = await workspace.mark(wish("email", "new@example.org"), wish("phone", "+14155550009"), create_profiles=True)
    assert [marked.fate for marked in answers] == [Fate.ABSENT, Fate.ABSENT]
    assert "subscribe" in answers[0].error
    assert workspace.stand_in.profiles == []
    assert workspace.line.tracked() == []


async def test_a_profile_that_is_made_has_no_address_and_no_empty_attributes(workspace: Workspace) -> None:
    await workspace.mark(wish("external_id", "c_9", held=False, traits={"support_status": None}), create_profiles=True)
    [one] = workspace.line.tracked()
    assert one == {"external_id": "c_9", "_update_existing_only": False, "support_hold": False, "support_hold_version": 1}


async def test_an_external_id_is_another_in_other_letters(workspace: Workspace) -> None:
    profile = workspace.stand_in.add_profile(external_id="C_1")
    [marked] = await workspace.mark(wish("external_id", "c_1"))
    assert marked.fate is Fate.ABSENT
    assert workspace.stand_in.shown(profile) == {}


# --- errors inside successes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unnamed", [False, True])
async def test_of_several_refused_inside_a_success_each_is_refused_alone(workspace: Workspace, unnamed: bool) -> None:
    people = [workspace.stand_in.add_profile(external_id=f"c_{number}") for number in range(5)]
    workspace.stand_in.quirks.refused = {"c_1", "c_3"}
    workspace.stand_in.quirks.unnamed_errors = unnamed
    answers = await workspace.mark(*[wish("external_id", f"c_{number}") for number in range(5)])
    assert [marked.fate is Fate.ACCEPTED for marked in answers] == [True, False, True, False, True]
    assert "blacklisted" in answers[1].error
    assert [bool(workspace.stand_in.shown(profile)) for profile in people] == [True, False, True, False, True]


@pytest.mark.parametrize("unnamed", [False, True])
async def test_a_call_all_of_whose_objects_are_refused(workspace: Workspace, unnamed: bool) -> None:
    for number in range(3):
        workspace.stand_in.add_profile(external_id=f"c_{number}")
    workspace.stand_in.quirks.refused = {"c_0", "c_1", "c_2"}
    workspace.stand_in.quirks.unnamed_errors = unnamed
    answers = await workspace.mark(*[wish("external_id", f"c_{number}") for number in range(3)])
    assert [marked.fate for marked in answers] == [Fate.REFUSED] * 3
    assert all(marked.error for marked in answers)
    assert workspace.stand_in.writes == []


async def test_one_of_the_profiles_of_an_address_refused_is_said(workspace: Workspace) -> None:
    for number in (1, 2):
        workspace.stand_in.add_profile(external_id=f"c_{number}", email="ann@example.org")
    workspace.stand_in.quirks.refused = {"c_2"}
    both, first = await workspace.mark(wish("email", "ann@example.org"), wish("external_id", "c_1"))
    assert (both.fate, first.fate) == (Fate.REFUSED, Fate.ACCEPTED)


@pytest.mark.parametrize(
    ("answer", "errors"),
    [
        ({"message": "success"}, {}),
        ({"errors": []}, {}),
        ({"errors": [{"type": "it is bad.", "input_array": "attributes", "index": 2}]}, {2: "it is bad"}),
        ({"errors": [{"type": "it is bad", "input_array": "events", "index": 2}]}, {-1: "it is bad"}),  # not one of ours
        ({"errors": ["it is bad"]}, {-1: "it is bad"}),
        ({"errors": "it is bad"}, {}),  # no list: the page knows of none such
        ({"errors": [{"index": True}]}, {-1: "it gives no reason"}),
    ],
)
def test_errors_are_read_object_by_object(answer: dict[str, Any], errors: dict[int, str]) -> None:
    assert item_errors(answer) == errors


async def test_what_maintenance_queues_is_accepted_and_not_confirmed(workspace: Workspace) -> None:
    workspace.stand_in.add_profile(external_id="c_1")
    workspace.stand_in.quirks.maintenance = True
    [marked] = await workspace.mark(wish("external_id", "c_1"))
    assert marked.fate is Fate.ACCEPTED
    [back] = await workspace.read(wish("external_id", "c_1"))
    assert (back.present, back.held) == (True, False)


# --- refusals, and waits ---------------------------------------------------------------------------------------------


class Answering:
    """A network that gives one answer."""

    def __init__(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"{}") -> None:
        self._response = HttpResponse(status, headers or {}, body)

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        return self._response


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"x-ratelimit-reset": str(int(NOW) + 30)}, 30.0),
        ({"x-ratelimit-reset": str(int(NOW) + 90_000)}, 3_600.0),  # an absurd wait shelves nothing for ever
        ({"x-ratelimit-reset": str(int(NOW) - 5)}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({"x-ratelimit-reset": "9" * 400}, None),
        ({"x-ratelimit-retry-after": "7", "x-ratelimit-reset": str(int(NOW) + 30)}, 7.0),
        ({"retry-after": "4"}, 4.0),
        ({}, None),
    ],
)
async def test_the_wait_is_read_from_the_moment_the_window_ends(headers: dict[str, str], wait: float | None) -> None:
    api = Api(Answering(429, headers), "https://rest.iad-01.braze.com", SecretStr("k"), "crm", NOW)
    with pytest.raises(TryLater) as caught:
        await api.get("/x", {})
    assert caught.value.retry_after == wait


@pytest.mark.parametrize(
    ("status", "body", "error", "says"),
    [
        (401, b"{}", Refused, "destinations.crm.api_key"),
        (403, b'{"message": "inactive"}', Refused, "inactive"),
        (404, b"<html>", Refused, "destinations.crm.instance"),
        (302, b"", Refused, "destinations.crm.base_url"),
        (201, b"<html>", TryLater, "not JSON"),
        (408, b"", TryLater, "408"),
        (599, b"", TryLater, "599"),
    ],
)
async def test_refusals_say_what_to_mend(status: int, body: bytes, error: type[Exception], says: str) -> None:
    api = Api(Answering(status, None, body), "https://rest.iad-01.braze.com", SecretStr("a-secret-key"), "crm", NOW)
    with pytest.raises(error, match=says) as caught:
        await api.post("/users/track", {})
    assert "a-secret-key" not in str(caught.value)


async def test_a_success_that_says_otherwise_is_none(workspace: Workspace) -> None:
    body = b'{"message": "Your plan does not allow this"}'
    [marked] = await workspace.build().mark([wish("external_id", "c_1")], Answering(201, None, body), NOW)
    assert marked.fate is Fate.REFUSED
    assert "Your plan" in marked.error


async def test_a_test_touches_nobody_and_names_each_permission(workspace: Workspace) -> None:
    workspace.stand_in.add_profile(external_id="c_1")
    checks = await workspace.build().test(workspace.line, NOW)
    assert [(check.name, check.ok) for check in checks] == [("look-up", True), ("writing", True), ("campaigns", True)]
    workspace.stand_in.quirks.lacks = {"/users/track", "/messages/scheduled_broadcasts"}
    checks = await workspace.build().test(workspace.line, NOW)
    assert [check.ok for check in checks] == [True, False, False]
    assert workspace.stand_in.writes == []
    assert len(workspace.stand_in.profiles) == 1


# --- settings and steps ----------------------------------------------------------------------------------------------


def test_the_instance_decides_the_host() -> None:
    tool = Braze(BrazeSettings(type="braze", api_key=SecretStr("k")), "crm")
    assert isinstance(tool, WatchesCampaigns)
    assert isinstance(tool, HearsSends)
    assert not tool.is_sandbox()
    assert BrazeSettings(type="braze", api_key=SecretStr("k"), instance="eu-02").instance == "EU-02"
    assert len(set(INSTANCES.values())) == len(INSTANCES)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"instance": "MOON-01"}, "base_url"),
        ({"base_url": "http://rest.example.com"}, "https"),
        ({"base_url": "rest.iad-01.braze.com"}, "https"),
        ({"api_key": ""}, "REST API key"),
        ({"api_key": "two words"}, "REST API key"),
        ({"webhook_secret": "short"}, "16 characters"),
        ({"webhook_secret": "with spaces and more"}, "16 characters"),
        ({"watch_days": 0}, "watch_days"),
    ],
)
def test_wrong_settings_are_refused_with_the_remedy(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        BrazeSettings.model_validate({"type": "braze", "api_key": "k"} | settings)


def test_the_steps_hold_the_filter_the_gate_and_the_tag(workspace: Workspace) -> None:
    pasted = [step.paste for step in workspace.build().steps()]
    assert by_hand.SEGMENT in pasted
    assert by_hand.GATE in pasted
    assert "support-hold" in pasted
    assert "https://YOUR-HUB/tools/crm/hooks" in pasted
    assert "support-hold" not in [step.paste for step in workspace.build(excluded_tag="").steps()]
    assert planned.gate({"messages": {"1": {"channel": "email", "body": by_hand.GATE}}}) == (True, False), "what is pasted is recognised"


# --- campaigns that are coming ---------------------------------------------------------------------------------------

ASKS = '{% connected_content https://h/api/v1/holds/check?x=1 :no_cache :save g %}{% if g.hold %}{% abort_message("x") %}{% endif %}'
REPEATS = ASKS.replace(":no_cache ", "")
POSTS = ASKS.replace(":no_cache", ":method post")


@pytest.mark.parametrize(
    ("bodies", "excludes", "mend"),
    [
        ([ASKS], True, ""),
        ([ASKS, ASKS], True, ""),
        ([POSTS], True, ""),
        ([ASKS, "Hello"], None, planned.MEND),  # one variant asks nobody
        (["Hello"], None, planned.MEND),
        ([REPEATS], None, planned.MEND_CACHED),
        ([ASKS, REPEATS], None, planned.MEND_CACHED),
        ([ASKS.replace("abort_message", "assign")], None, planned.MEND),  # asks and sends all the same
        ([], None, planned.MEND),
    ],
)
def test_a_campaign_leaves_out_the_held_where_every_message_asks(bodies: list[str], excludes: bool | None, mend: str) -> None:
    messages = {str(number): {"channel": "email", "body": body} for number, body in enumerate(bodies)}
    messages["control"] = {"channel": "email", "type": "control"}
    broadcast = {"id": "c", "name": "Sale", "next_send_time": "2025-11-25T09:00:00+00:00"}
    seen = planned.campaign(broadcast, {"channels": ["email"], "messages": messages}, NOW, "")
    assert (seen.excludes_hold, seen.mend) == (excludes, mend)
    canvas = planned.campaign(broadcast, {"steps": [{"messages": {key: value}} for key, value in messages.items()]}, NOW, "")
    assert canvas.excludes_hold is excludes


@pytest.mark.parametrize(("tags", "excludes"), [(["Support-Hold", "x"], True), (["x"], None), ([], None)])
def test_a_tag_is_the_marketers_word(tags: list[str], excludes: bool | None) -> None:
    seen = planned.campaign({"id": "c", "tags": tags}, {}, NOW, "support-hold")
    assert seen.excludes_hold is excludes
    assert ("support-hold" in seen.mend) is (excludes is None)
    assert planned.campaign({"id": "c", "tags": tags}, {}, NOW, "").excludes_hold is None


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2025-11-24T16:00:00+00:00", NOW),
        ("2025-11-24T11:00:00-05:00", NOW),
        ("2025-11-25T06:00:00", NOW),  # local to each recipient: fourteen hours earlier somewhere
        ("", None),
        ("daily", None),
    ],
)
def test_when_it_goes_out_first(text: str, at: float | None) -> None:
    assert planned.send_time(text) == at


@pytest.mark.parametrize(
    ("channels", "word"),
    [(["email"], "email"), (["ios_push", "android_push"], "push"), (["email", "sms"], "other"), (["webhook"], "other"), ([], "other")],
)
def test_the_one_channel_of_a_campaign(channels: list[str], word: str) -> None:
    assert planned.channel({"channels": channels}) == word


async def test_what_is_scheduled_is_told_soonest_first(workspace: Workspace) -> None:
    stand_in = workspace.stand_in
    stand_in.broadcasts = [
        {"id": "late", "name": "Late", "type": "Campaign", "tags": [], "next_send_time": iso(NOW + 3 * DAY)},
        {"id": "walk", "name": "Walk", "type": "Canvas", "tags": ["support-hold"], "next_send_time": iso(NOW + DAY)},
        {"id": "gone", "name": "Deleted meanwhile", "type": "Campaign", "tags": [], "next_send_time": iso(NOW - 60)},
        {"id": "far", "name": "Far", "type": "Campaign", "tags": [], "next_send_time": iso(NOW + 40 * DAY)},
    ]
    stand_in.campaigns = [{"id": "late", "channels": ["sms"], "messages": {"m": {"channel": "sms", "body": ASKS}}}]
    stand_in.canvases = [{"id": "walk", "channels": ["email"], "steps": []}]
    seen = await workspace.build().campaigns(workspace.line, NOW)
    assert seen == [
        Campaign(id="gone", name="Deleted meanwhile", channel="other", status="sending", send_at=NOW - 60, mend=seen[0].mend),
        Campaign(id="walk", name="Walk", channel="email", status="scheduled", send_at=NOW + DAY, excludes_hold=True),
        Campaign(id="late", name="Late", channel="sms", status="scheduled", send_at=NOW + 3 * DAY, excludes_hold=True),
    ]


async def test_a_key_that_may_not_see_what_is_scheduled_is_said(workspace: Workspace) -> None:
    workspace.stand_in.quirks.lacks = {"/messages/scheduled_broadcasts"}
    with pytest.raises(Refused, match=r"destinations\.crm\.api_key"):
        await workspace.build().campaigns(workspace.line, NOW)


async def test_a_key_that_may_not_see_messages_still_tells_what_is_scheduled(workspace: Workspace) -> None:
    workspace.stand_in.broadcasts = [{"id": "c", "name": "Sale", "type": "Campaign", "tags": [], "next_send_time": iso(NOW + DAY)}]
    workspace.stand_in.quirks.lacks = {"/campaigns/details"}
    [seen] = await workspace.build().campaigns(workspace.line, NOW)
    assert (seen.name, seen.channel, seen.excludes_hold) == ("Sale", "other", None)


# --- Currents --------------------------------------------------------------------------------------------------------


def hook(body: Any, authorization: str = f"Bearer {BEARER}") -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"authorization": authorization} if authorization else {})
    return Request("POST", "https://hub.example/tools/crm/hooks", headers, raw)


@pytest.mark.parametrize(
    ("authorization", "secret", "verdict"),
    [
        (f"Bearer {BEARER}", BEARER, Verdict.GOOD),
        (f"bearer  {BEARER} ", BEARER, Verdict.GOOD),
        (f"Bearer {BEARER}x", BEARER, Verdict.BAD),
        ("Bearer \udcff", BEARER, Verdict.BAD),
        (f"Basic {BEARER}", BEARER, Verdict.UNSIGNED),
        ("Bearer ", BEARER, Verdict.UNSIGNED),
        ("", BEARER, Verdict.UNSIGNED),
        (f"Bearer {BEARER}", "", Verdict.NO_KEY),
        ("Bearer ", "", Verdict.NO_KEY),
    ],
)
def test_the_bearer_token_is_judged(authorization: str, secret: str, verdict: Verdict, workspace: Workspace) -> None:
    assert workspace.build(webhook_secret=secret).verify(hook({"events": []}, authorization), NOW) is verdict


def event(kind: str, **more: Any) -> dict[str, Any]:
    user = {"user_id": "639a35d192b0df004d06514c", "external_user_id": "c_1", "timezone": "America/New_York"}
    about = {"campaign_id": "camp-1", "campaign_name": "Sale", "email_address": "ann@example.org", "send_id": "s"}
    return {"event_type": f"users.messages.{kind}", "id": "e-1", "time": 2_033_802_504, "user": user, "properties": about} | more


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (event("email.Send"), {"kind": "external_id", "value": "c_1", "channel": "email", "prevented": False, "campaign": "Sale"}),
        (event("email.Abort"), {"prevented": True, "profile": "639a35d192b0df004d06514c", "campaign_id": "camp-1"}),
        (event("pushnotification.Send"), {"channel": "push"}),
        (event("whatsapp.Send"), {"channel": "whatsapp"}),
        (event("email.Send", user={"user_id": "u"}), {"kind": "email", "value": "ann@example.org", "profile": "u"}),
        (event("sms.Send", user={"user_id": "u"}, properties={"to_phone_number": "+1415"}), {"kind": "phone", "value": "+1415"}),
        (event("sms.Send", user={"user_id": "u"}, properties={}), {"kind": "", "value": "", "profile": "u"}),
        (event("email.Send", properties={"canvas_id": "v", "canvas_name": "Walk"}), {"campaign_id": "v", "campaign": "Walk"}),
        (event("email.Send", user=None, properties=None), {"kind": "", "profile": "", "campaign": ""}),
    ],
)
def test_a_message_sent_or_aborted_is_told(one: dict[str, Any], wanted: dict[str, Any], workspace: Workspace) -> None:
    [seen] = workspace.build().parse_sends(hook({"events": [one]}))
    assert (seen.provider_key, seen.at) == ("e-1", 2_033_802_504.0)
    assert {name: getattr(seen, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {"events": []},
        {"events": [event("email.Open")]},
        {"events": [event("webhook.Send")]},  # a call to a machine
        {"events": [event("email.Retry")]},
        {"events": [{"event_type": "users.behaviors.Purchase"}]},
        {"events": [{"event_type": "users.canvas.exit.Send"}]},
        {"events": [{}]},
        {"events": [], "more": 1},
    ],
)
def test_what_is_no_message_is_borne_in_silence(body: Any, workspace: Workspace) -> None:
    assert list(workspace.build().parse_sends(hook(body))) == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        [],
        {"events": {}},
        {"other": []},
        {"events": ["x"]},
        {"events": [event("email.Send", id="")]},
        {"events": [event("email.Send", id=7)]},
        {"events": [event("email.Send", time="now")]},
        {"events": [event("email.Send", time=True)]},
    ],
)
def test_what_cannot_be_read_is_said(body: Any, workspace: Workspace) -> None:
    with pytest.raises(Unparseable):
        workspace.build().parse_sends(hook(body))


def test_a_wrong_token_is_not_the_end_of_the_export() -> None:
    """Braze stops an export and drops its events at a 401; at a 503 it tries again."""
    assert Braze.answers.bad_signature_until_verified == 503


# --- the gate, truly asked -------------------------------------------------------------------------------------------


@dataclass
class Door:
    """A gate on loopback in the hub's shape: who is held, and what it was asked."""

    held: set[str]
    asked: list[tuple[str, str]]
    url: str = ""
    status: int = 200

    async def check(self, request: web.Request) -> web.Response:
        whom = request.query.get("external_id", "")
        if request.method == "POST":
            whom = next(one["value"] for one in (await request.json())["identifiers"] if one["kind"] == "external_id")
        self.asked.append((request.headers.get("Authorization", ""), whom))
        return web.json_response({"hold": whom in self.held}, status=self.status)


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    door = Door(set(), [])
    app = web.Application()
    app.router.add_route("*", "/api/v1/holds/check", door.check)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    door.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/holds/check"
    try:
        yield door
    finally:
        await runner.cleanup()


def ends(events: list[dict[str, Any]]) -> dict[str, str]:
    return {event["user"]["external_user_id"]: event["event_type"].rpartition(".")[2] for event in events}


def people(workspace: Workspace) -> Iterator[Profile]:
    for number in (1, 2, 3):
        yield workspace.stand_in.add_profile(external_id=f"c+{number}", email=f"p{number}@example.org")


async def test_whom_the_gate_holds_is_not_sent(workspace: Workspace) -> None:
    list(people(workspace))
    async with door() as gate:
        gate.held = {"c+2"}
        sent = await workspace.stand_in.run_campaign(gate=Gate(gate.url, "t"))
        assert ends(sent) == {"c+1": "Send", "c+2": "Abort", "c+3": "Send"}
        assert gate.asked == [("Bearer t", "c+1"), ("Bearer t", "c+2"), ("Bearer t", "c+3")]
        assert ends(await workspace.stand_in.run_campaign(gate=Gate(gate.url, post=True))) == ends(sent)


async def test_a_hold_placed_between_two_campaigns_counts_only_without_the_cache(workspace: Workspace) -> None:
    list(people(workspace))
    async with door() as gate:
        for no_cache, second in ((True, "Abort"), (False, "Send")):
            gate.held.clear()
            await workspace.stand_in.run_campaign(gate=Gate(gate.url, no_cache=no_cache))
            gate.held = {"c+2"}
            workspace.clock.now += 240
            sent = await workspace.stand_in.run_campaign(gate=Gate(gate.url, no_cache=no_cache))
            assert ends(sent)["c+2"] == second
        workspace.clock.now += 61
        assert ends(await workspace.stand_in.run_campaign(gate=Gate(gate.url, no_cache=False)))["c+2"] == "Abort", "after five minutes"


@pytest.mark.parametrize(("closed", "end"), [(True, "Abort"), (False, "Send")])
async def test_a_gate_that_fails_is_closed_or_open_as_the_message_says(workspace: Workspace, closed: bool, end: str) -> None:
    list(people(workspace))
    async with door() as gate:
        gate.status = 503
        assert set(ends(await workspace.stand_in.run_campaign(gate=Gate(gate.url, closed=closed))).values()) == {end}
    assert set(ends(await workspace.stand_in.run_campaign(gate=Gate(gate.url, closed=closed))).values()) == {end}, "nobody there"


async def test_the_gate_may_be_asked_more_often_than_is_sent(workspace: Workspace) -> None:
    list(people(workspace))
    workspace.stand_in.quirks.renders = 3
    async with door() as gate:
        assert len(await workspace.stand_in.run_campaign(gate=Gate(gate.url))) == 3
        assert len(gate.asked) == 9


async def test_a_filter_holds_as_soon_as_the_segment_shows_it_and_until_the_lease_ends(workspace: Workspace) -> None:
    first, *_ = people(workspace)
    workspace.stand_in.quirks.segment_lag = 60.0
    workspace.clock.now += 61
    await workspace.hold(first)
    assert "c+1" in ends(await workspace.stand_in.run_campaign(filtered=True)), "the segment lags"
    workspace.clock.now += 61
    assert "c+1" not in ends(await workspace.stand_in.run_campaign(filtered=True))
    workspace.clock.now = NOW + 7 * DAY + 1
    assert "c+1" in ends(await workspace.stand_in.run_campaign(filtered=True)), "the lease ran out: no hub was needed"


async def test_who_unsubscribed_is_sent_nothing_by_anybody(workspace: Workspace) -> None:
    first, *_ = people(workspace)
    first.consent["email"] = "unsubscribed"
    await workspace.hold(first)
    assert "c+1" not in ends(await workspace.stand_in.run_campaign())
    assert first.consent["email"] == "unsubscribed"


async def test_what_a_campaign_did_comes_in_by_currents(workspace: Workspace) -> None:
    list(people(workspace))
    heard: list[Request] = []

    async def hear(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        heard.append(Request("POST", str(request.url), headers, await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/hooks", hear)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with door() as gate:
            gate.held = {"c+2"}
            sent = await workspace.stand_in.run_campaign("camp-9", "Sale", gate=Gate(gate.url))
        assert await workspace.stand_in.export_currents(f"http://127.0.0.1:{runner.addresses[0][1]}/hooks", sent * 40) == [200, 200]
    finally:
        await runner.cleanup()
    tool = workspace.build()
    assert [tool.verify(request, NOW) for request in heard] == [Verdict.GOOD, Verdict.GOOD]
    seen = [one for request in heard for one in tool.parse_sends(request)]
    assert len(seen) == 120
    assert len({one.provider_key for one in seen}) == 3
    assert {one.value: one.prevented for one in seen} == {"c+1": False, "c+2": True, "c+3": False}
    assert {(one.campaign_id, one.campaign, one.channel, one.at) for one in seen} == {("camp-9", "Sale", "email", NOW)}


async def test_the_hubs_own_gate_stops_a_campaign_and_lets_it_go(workspace: Workspace, running: Running) -> None:
    held, free = list(people(workspace))[:2]
    claims = (Claim("phone", "+12025550123", Proof.CHANNEL), Claim("email", held.keys["email"], Proof.CLAIMED))
    said = InboundMessage(provider_key="m-1", claims=claims, text="Where is my parcel?")
    await running.hub.writer.run(Ingest(running.hub.channels["sms"].rule.id, (item(said, True),), None))
    url = f"http://127.0.0.1:{running.port}/api/v1/holds/check"
    token = sandbox_token(running.hub.secret)
    for post in (False, True):
        sent = ends(await workspace.stand_in.run_campaign(gate=Gate(url, token, post=post)))
        assert (sent[held.keys["external_id"]], sent[free.keys["external_id"]]) == ("Abort", "Send")
    sent = ends(await workspace.stand_in.run_campaign(gate=Gate(url, "a wrong token")))
    assert set(sent.values()) == {"Abort"}, "nobody is sent where the hub does not say that they may be"


async def test_the_network_is_only_what_braze_documents(workspace: Workspace) -> None:
    workspace.stand_in.add_profile(external_id="c_1", email="ann@example.org", phone="+14155550001")
    workspace.stand_in.broadcasts = [{"id": "x", "name": "X", "type": kind, "next_send_time": iso(NOW)} for kind in ("Canvas", "Campaign")]
    tool, line = workspace.build(create_profiles=True), Line(workspace.line.http)
    asked = [wish("external_id", "c_1"), wish("email", "ann@example.org"), wish("phone", "+14155550001"), wish("external_id", "c_2")]
    await tool.mark(asked, line, NOW)
    await tool.read(asked, line, NOW)
    await tool.prepare(line, NOW)
    await tool.campaigns(line, NOW)
    assert {(method, path) for method, path, _ in line.seen} == {
        ("POST", "/users/export/ids"),
        ("POST", "/users/track"),
        ("GET", "/messages/scheduled_broadcasts"),
        ("GET", "/campaigns/details"),
        ("GET", "/canvas/details"),
    }
