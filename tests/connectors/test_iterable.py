"""Iterable: fields of a user in its own spelling, failures inside successes, the data feed asked as a campaign goes out, and webhooks.

Iterable publishes no client for Python. Its own specification is the judge, of our calls and of the stand-in's answers: whole where it
lies beside the project, by its names always.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pytest
from aiohttp import web
from jsonschema import Draft4Validator
from pydantic import SecretStr, ValidationError

from connectors.iterable import Iterable, IterableSettings, by_hand, field_name, fields_of, planned, stands
from connectors.iterable.api import Api, iso, to_date, unix
from connectors.sandbox.tools.iterable import BEARER, Feed, IterableStandIn
from connectors.sandbox.tools.stand_in import Profile
from hub.app import Running, sandbox_token
from hub.contract import Claim, HttpResponse, InboundMessage, Proof, Refused, Request, TryLater, Unparseable, Verdict
from hub.conversations.ingest import Ingest, item
from hub.http import GuardedHttp
from hub.marketing import Campaign, Fate, HearsSends, WatchesCampaigns, Wish
from tests.connectors.tool_conformance import DAY, NOW, Clock, ToolConformance, wish
from tests.connectors.tool_conformance import iso as iso_of
from tests.shared_data import shared

NAMES_NONE = "no page of Iterable's names a header that says how long"


class TestIterableConforms(ToolConformance):
    tool = "iterable"
    names_wait = NAMES_NONE


class TestIterableConformsByBulkUpdate(ToolConformance):
    tool = "iterable"
    names_wait = NAMES_NONE
    settings: ClassVar[dict[str, Any]] = {"updates": "bulk"}


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: list[tuple[str, str]]
    body: Any
    status: int
    answer: Any


@dataclass
class Recorder:
    """The guarded client, keeping what went out and what came back."""

    http: GuardedHttp
    calls: list[Call]

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        response = await self.http.request(method, url, **more)
        parts, body = urlsplit(url), more.get("body")
        query = parse_qsl(parts.query, keep_blank_values=True)
        given = json.loads(body) if body else None
        self.calls.append(Call(method, parts.path, query, given, response.status, json.loads(response.body)))
        return response

    def bodies(self, path: str) -> list[Any]:
        return [call.body for call in self.calls if call.path == path]


@dataclass
class Project:
    clock: Clock
    stand_in: IterableStandIn
    line: Recorder

    def build(self, **settings: Any) -> Iterable:
        given = {"type": "iterable", "base_url": self.stand_in.url, **self.stand_in.credentials, **settings}
        return Iterable(IterableSettings.model_validate(given), "crm")

    async def mark(self, *wishes: Wish, **settings: Any) -> list[Any]:
        return list(await self.build(**settings).mark(wishes, self.line, self.clock()))

    async def read(self, *wishes: Wish) -> list[Any]:
        return list(await self.build().read(wishes, self.line, self.clock()))


@pytest.fixture
async def project() -> AsyncIterator[Project]:
    clock = Clock()
    stand_in = IterableStandIn(clock)
    await stand_in.start()
    client = GuardedHttp(["127.0.0.1"])
    yield Project(clock, stand_in, Recorder(client, []))
    await client.close()
    await stand_in.stop()


# --- the vendor's specification as judge -----------------------------------------------------------------------------

USER = {"email", "userId", "dataFields", "mergeNestedObjects", "preferUserId"}
# Every call we make: the names of its parameters, and of its body, as the specification has them.
SPECIFIED: dict[tuple[str, str], tuple[set[str], set[str]]] = {
    ("GET", "/api/users/getByEmail"): ({"email"}, set()),
    ("GET", "/api/users/byUserId"): ({"userId"}, set()),
    ("GET", "/api/users/getFields"): (set(), set()),
    ("POST", "/api/users/update"): (set(), USER | {"createNewFields"}),
    ("POST", "/api/users/bulkUpdate"): (set(), {"users", "createNewFields"}),
    ("GET", "/api/lists"): (set(), set()),
    ("GET", "/api/campaigns"): ({"page", "pageSize", "sort", "campaignState"}, set()),
    ("GET", "/api/templates/email/get"): ({"templateId", "locale"}, set()),
    ("GET", "/api/templates/push/get"): ({"templateId", "locale"}, set()),
}


async def every_call(project: Project) -> list[Call]:
    """All that the connector ever says, and all that the stand-in ever answers it."""
    stand_in = project.stand_in
    stand_in.add_profile(email="ann@example.org", external_id="c_1", phone="+14155550001")
    stand_in.add_profile(email="gone@example.org")
    stand_in.lists = [{"id": 7, "name": "Support hold", "listType": "Dynamic", "createdAt": 1_700_000_000_000}]
    stand_in.templates = {3: {"templateId": 3, "dataFeedIds": [5], "name": "Sale"}}
    stand_in.campaigns = [entry(1), entry(2, messageMedium="Push", templateId=3), entry(3, messageMedium="Email", templateId=4)]
    stand_in.quirks.refused = {"gone@example.org"}
    asked = [
        wish("email", "ann@example.org", traits={"support_status": "open", "support_satisfaction": None}),
        wish("external_id", "c_1", version=2, held=False),
        wish("email", "gone@example.org"),
        wish("email", "new@example.org"),
        wish("external_id", "c_new"),
        wish("email", "no address"),
    ]
    for updates in ("single", "bulk"):
        await project.mark(*asked, updates=updates, create_profiles=updates == "single")
        await project.mark(*(wish(one.kind, one.value, version=9) for one in asked), updates=updates)
        stand_in.meddle(stand_in.profiles[0], {"support_hold": None})
    await project.read(*asked)
    tool = project.build(gate_feed=5)
    await tool.prepare(project.line, NOW)
    await tool.campaigns(project.line, NOW)
    stand_in.quirks.revoked = True
    await tool.test(project.line, NOW)
    assert {(call.method, call.path) for call in project.line.calls} == set(SPECIFIED)
    return project.line.calls


async def test_every_call_is_one_of_the_specification(project: Project) -> None:
    for call in await every_call(project):
        params, body = SPECIFIED[call.method, call.path]
        assert {name for name, _ in call.query} <= params
        assert set(call.body or ()) <= body
        for user in (call.body or {}).get("users", ()):
            assert set(user) <= USER
            assert len({"email", "userId"} & set(user)) == 1, "one identifier, never two"


def strict(schema: Any) -> Any:
    """A schema that knows no names but its own."""
    if isinstance(schema, dict):
        inner = {key: strict(value) for key, value in schema.items()}
        return inner | ({"additionalProperties": False} if "properties" in schema else {})
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


async def test_calls_and_answers_are_those_of_the_whole_specification(project: Project) -> None:
    """api-docs.json of https://github.com/Iterable/api-client, where a copy lies beside the project."""
    spec = json.loads(shared("specs_iterable", "api-docs.json").read_bytes())
    definitions = strict(spec["definitions"])
    # Told as an object there; the vendor's own client reads a number.
    definitions["CampaignsResponse"]["properties"]["totalCampaignsCount"] = {"type": "integer"}

    def check(value: Any, schema: Any) -> None:
        Draft4Validator({**strict(schema), "definitions": definitions}).validate(value)

    for call in await every_call(project):
        told = spec["paths"][call.path][call.method.lower()]
        named = {one["name"]: one for one in told["parameters"]}
        for name, value in call.query:
            assert named[name]["in"] == "query"
            check(
                int(value) if named[name]["type"] == "integer" else [value] if named[name]["type"] == "array" else value,
                in_query(named[name]),
            )
        if call.body is not None:
            check(call.body, named["body"]["schema"])
        schema = told["responses"].get(str(call.status), {}).get("schema")
        check(call.answer, schema or {"$ref": "#/definitions/IterableApiResponse"})


def in_query(parameter: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameter.items() if key in {"type", "items", "enum"}}


# --- what is written -------------------------------------------------------------------------------------------------


async def test_fields_are_in_iterables_own_spelling(project: Project) -> None:
    project.stand_in.add_profile(email="ann@example.org")
    traits = {"support_resolved_at": "2025-11-24T16:00:00Z", "support_open_tickets": 1, "support_status": "open"}
    await project.mark(wish("email", "Ann@Example.org", version=7, traits=traits))
    [body] = project.line.bodies("/api/users/update")
    assert body == {
        "email": "ann@example.org",
        "dataFields": {
            "supportHold": True,
            "supportHoldUntil": "2025-12-01 16:00:00 +00:00",
            "supportHoldReason": "open_ticket",
            "supportHoldVersion": 7,
            "supportResolvedAt": "2025-11-24 16:00:00 +00:00",
            "supportOpenTickets": 1,
            "supportStatus": "open",
        },
        "mergeNestedObjects": True,
        "createNewFields": True,
    }
    assert project.stand_in.types["supportHoldUntil"] == "date"
    [back] = await project.read(wish("email", "ann@example.org"))
    assert back.until == "2025-12-01T16:00:00Z"


@pytest.mark.parametrize("updates", ["single", "bulk"])
async def test_a_project_that_drops_fields_it_does_not_know_takes_ours(project: Project, updates: str) -> None:
    """Else it says success and keeps nothing."""
    profile = project.stand_in.add_profile(email="ann@example.org")
    project.stand_in.quirks.drops_fields = True
    await project.mark(wish("email", "ann@example.org"), updates=updates)
    assert project.stand_in.shown(profile)["support_hold"] is True


async def test_a_field_of_another_type_is_said_before_and_refused_after(project: Project) -> None:
    project.stand_in.add_profile(email="ann@example.org")
    project.stand_in.types["supportHold"] = "string"
    checks = {check.name: check for check in await project.build().test(project.line, NOW)}
    assert not checks["fields"].ok
    assert "supportHold is string and must be boolean" in checks["fields"].text
    for updates in ("single", "bulk"):
        [marked] = await project.mark(wish("email", "ann@example.org"), updates=updates)
        assert marked.fate is Fate.REFUSED
        assert "invalidDataEmails" in marked.error or "RequestFieldsTypesMismatched" in marked.error


async def test_emptied_fields_that_stay_with_nothing_in_them_are_no_change(project: Project) -> None:
    project.stand_in.add_profile(email="ann@example.org")
    free = wish("email", "ann@example.org", held=False, version=2)
    await project.mark(free)
    await project.mark(free)
    assert len(project.stand_in.writes) == 1
    [back] = await project.read(free)
    assert (back.held, back.until) == (False, "")


async def test_an_unknown_user_id_is_made_only_on_demand_and_then_in_every_kind_of_project(project: Project) -> None:
    [marked] = await project.mark(wish("external_id", "c_9"))
    assert marked.fate is Fate.ABSENT
    assert project.line.bodies("/api/users/update") == []
    await project.mark(wish("external_id", "c_9", held=False), create_profiles=True)
    [body] = project.line.bodies("/api/users/update")
    assert body["preferUserId"] is True
    assert body["dataFields"] == {"supportHold": False, "supportHoldVersion": 1}


async def test_one_user_found_twice_is_named_by_the_users_id(project: Project) -> None:
    project.stand_in.add_profile(email="ann@example.org", external_id="c_1")
    answers = await project.mark(wish("email", "ANN@example.org"), wish("external_id", "c_1"))
    assert [marked.profile for marked in answers] == ["c_1", "c_1"]
    assert len(project.line.bodies("/api/users/update")) == 1


# --- failures inside successes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", ["single", "bulk"])
async def test_who_was_forgotten_is_refused_alone(project: Project, updates: str) -> None:
    people = [project.stand_in.add_profile(email=f"p{number}@example.org") for number in range(4)]
    project.stand_in.quirks.refused = {"p1@example.org", "p3@example.org"}
    answers = await project.mark(*[wish("email", f"P{number}@example.org") for number in range(4)], updates=updates)
    assert [marked.fate is Fate.ACCEPTED for marked in answers] == [True, False, True, False]
    assert ("forgottenEmails" if updates == "bulk" else "ForgottenUserError") in answers[1].error
    assert [bool(project.stand_in.shown(profile)) for profile in people] == [True, False, True, False]


async def test_fifty_users_are_one_bulk_update(project: Project) -> None:
    for number in range(50):
        project.stand_in.add_profile(email=f"p{number}@example.org")
    await project.mark(*[wish("email", f"p{number}@example.org") for number in range(50)], updates="bulk")
    assert [len(body["users"]) for body in project.line.bodies("/api/users/bulkUpdate")] == [50]


class Answering:
    """A network that answers look-ups with a user and everything else with one answer."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._answer = HttpResponse(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        if method == "GET" and "/getByEmail" in url:
            email = dict(parse_qsl(urlsplit(url).query))["email"]
            return HttpResponse(200, {}, json.dumps({"user": {"email": email, "dataFields": {}}}).encode())
        return self._answer


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ({"successCount": 2, "failCount": 0}, []),
        ({"successCount": 1, "failCount": 1, "failedUpdates": {"invalidEmails": ["A@example.org"]}}, [0]),
        ({"successCount": 1, "failCount": 1, "invalidEmails": ["b@example.org"]}, [1]),  # as older answers have it
        ({"successCount": 0, "failCount": 1}, [0, 1]),  # which one it does not say
        ({"successCount": 0, "failCount": 2, "failedUpdates": {"conflictEmails": ["a@example.org"]}}, [0, 1]),
        ({"successCount": 2, "failCount": 0, "failedUpdates": None, "filteredOutFields": ["other"]}, []),
        ({"successCount": 2, "failCount": 0, "filteredOutFields": ["supportHold"]}, [0, 1]),  # a success that kept nothing
        ({"code": "BatchTooLarge", "msg": "too large"}, [0, 1]),
    ],
)
async def test_the_failures_of_a_bulk_update(answer: dict[str, Any], refused: list[int], project: Project) -> None:
    asked = [wish("email", "a@example.org"), wish("email", "b@example.org")]
    answers = await project.build(updates="bulk").mark(asked, Answering(200, answer), NOW)
    assert [index for index, marked in enumerate(answers) if marked.fate is Fate.REFUSED] == refused
    assert all(marked.error for marked in answers if marked.fate is Fate.REFUSED)


@pytest.mark.parametrize(
    ("code", "error"),
    [("RateLimitExceeded", TryLater), ("DatabaseError", TryLater), ("BadApiKey", Refused), ("Unauthorized", Refused)],
)
async def test_a_200_with_the_code_of_a_failure_is_that_failure(project: Project, code: str, error: type[Exception]) -> None:
    project.stand_in.add_profile(email="ann@example.org")
    project.stand_in.quirks.success_with_code = code
    with pytest.raises(error):
        await project.mark(wish("email", "ann@example.org"))
    with pytest.raises(error):
        await project.read(wish("email", "ann@example.org"))


@pytest.mark.parametrize(
    ("code", "fate"),
    [("UnknownEmailError", Fate.ABSENT), ("NotFound", Fate.ABSENT), ("GenericError", Fate.REFUSED), ("BadParams", Fate.REFUSED)],
)
async def test_a_200_with_the_code_of_an_unknown_user_is_absent(project: Project, code: str, fate: Fate) -> None:
    project.stand_in.quirks.success_with_code = code
    [marked] = await project.mark(wish("email", "ann@example.org"))
    assert marked.fate is fate
    assert (code in marked.error) is (fate is Fate.REFUSED)


async def test_an_address_that_is_none_is_refused_alone(project: Project) -> None:
    project.stand_in.add_profile(email="ann@example.org")
    answers = await project.mark(wish("email", "not an address"), wish("email", "ann@example.org"))
    assert [marked.fate for marked in answers] == [Fate.REFUSED, Fate.ACCEPTED]
    assert [back.present for back in await project.read(wish("email", "not an address"))] == [False]


@pytest.mark.parametrize(
    ("status", "body", "headers", "error", "says"),
    [
        (401, {"code": "BadApiKey", "msg": "x"}, {}, Refused, "destinations.crm.api_key"),
        (403, b"<html>", {}, Refused, "destinations.crm.data_center"),
        (301, b"", {}, Refused, "destinations.crm.base_url"),
        (200, b"<html>", {}, TryLater, "not JSON"),
        (429, {"code": "RateLimitExceeded"}, {"retry-after": "9"}, TryLater, "fewer calls"),
        (503, b"", {}, TryLater, "503"),
        (400, {"code": "RateLimitExceeded", "msg": "x"}, {}, TryLater, "fewer calls"),
    ],
)
async def test_refusals_say_what_to_mend(status: int, body: Any, headers: dict[str, str], error: type[Exception], says: str) -> None:
    api = Api(Answering(status, body, headers), "https://api.iterable.com", SecretStr("a-secret-key"), "crm")
    with pytest.raises(error, match=says) as caught:
        await api.post("/api/users/update", {})
    assert "a-secret-key" not in str(caught.value)
    assert getattr(caught.value, "retry_after", None) == (9.0 if headers else None)


# --- pure parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "as_iso"),
    [
        ("2025-11-24 16:00:00 +00:00", NOW, "2025-11-24T16:00:00Z"),
        ("2025-11-24T16:00:00Z", NOW, "2025-11-24T16:00:00Z"),
        ("2025-11-24T11:00:00-05:00", NOW, "2025-11-24T16:00:00Z"),
        ("2025-11-24 16:00:00", None, "2025-11-24 16:00:00"),  # in whose zone?
        ("2025-13-45 16:00:00 +00:00", None, "2025-13-45 16:00:00 +00:00"),
        ("open", None, "open"),
        (None, None, ""),
        (5, None, "5"),
    ],
)
def test_dates_are_read(text: Any, at: float | None, as_iso: str) -> None:
    assert unix(text) == at
    assert iso(text) == as_iso
    if isinstance(text, str):
        assert to_date(text) == ("2025-11-24 16:00:00 +00:00" if at is not None else text)


@pytest.mark.parametrize(
    ("trait", "name"),
    [("support_open_tickets", "supportOpenTickets"), ("support_status", "supportStatus"), ("plain", "plain"), ("a__b", "aB")],
)
def test_names_are_camel_case(trait: str, name: str) -> None:
    assert field_name(trait) == name


@pytest.mark.parametrize(
    ("seen", "alike"),
    [
        ({}, True),
        ({"supportHold": 1}, False),  # a number is no flag
        ({"supportHoldVersion": 1.0}, True),
        ({"supportHoldUntil": "2025-12-01T16:00:00Z"}, True),
        ({"supportHoldUntil": None}, False),
        ({"supportStatus": None}, True),
        ({"supportStatus": ""}, False),
    ],
)
def test_what_stands_is_not_written(seen: dict[str, Any], alike: bool) -> None:
    wanted = fields_of(wish("email", "a@example.org", traits={"support_status": None}))
    assert stands({name: value for name, value in wanted.items() if value is not None} | seen, wanted) is alike


# --- settings, steps, tests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"api_key": ""}, "server-side"),
        ({"api_key": "two words"}, "server-side"),
        ({"base_url": "http://api.iterable.com"}, "https"),
        ({"data_center": "moon"}, "data_center"),
        ({"webhook_secret": "short"}, "16 characters"),
        ({"webhook_secret": "sixteen and spaces"}, "16 characters"),
        ({"updates": "both"}, "updates"),
    ],
)
def test_wrong_settings_are_refused_with_the_remedy(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        IterableSettings.model_validate({"type": "iterable", "api_key": "k"} | settings)


def test_what_it_can_do_besides() -> None:
    tool = Iterable(IterableSettings(type="iterable", api_key=SecretStr("k"), data_center="eu"), "crm")
    assert isinstance(tool, WatchesCampaigns)
    assert isinstance(tool, HearsSends)
    assert not tool.is_sandbox()


def test_the_steps_hold_the_filter_and_the_feed(project: Project) -> None:
    pasted = [step.paste for step in project.build(hold_list_name="Leave alone").steps()]
    assert by_hand.SEGMENT in pasted
    assert by_hand.FEED in pasted
    assert "Leave alone" in pasted
    assert "https://YOUR-HUB/tools/crm/hooks" in pasted


@pytest.mark.parametrize(
    ("lists", "ok"),
    [
        ([], False),
        ([{"id": 7, "name": " support HOLD ", "listType": "Dynamic"}], True),
        ([{"id": 7, "name": "Support hold", "listType": "Standard"}], False),  # nobody keeps that one up to date
    ],
)
async def test_the_list_of_held_users_is_looked_for(project: Project, lists: list[dict[str, Any]], ok: bool) -> None:
    project.stand_in.lists = lists
    checks = {check.name: check.ok for check in await project.build().test(project.line, NOW)}
    assert checks == {"credentials": True, "fields": True, "list": ok}


async def test_a_key_that_may_not_see_lists_is_said(project: Project) -> None:
    project.stand_in.quirks.lacks = {"/api/lists"}
    checks = await project.build().test(project.line, NOW)
    assert [check.ok for check in checks] == [True, True, False]
    with pytest.raises(Refused, match="api_key"):
        await project.build().campaigns(project.line, NOW)


# --- campaigns that are coming ---------------------------------------------------------------------------------------


def entry(id: int, **more: Any) -> dict[str, Any]:
    whole = {
        "id": id,
        "name": f"Sale {id}",
        "type": "Blast",
        "campaignState": "Scheduled",
        "messageMedium": "Email",
        "createdAt": 1_700_000_000_000,
        "updatedAt": 1_700_000_000_000,
        "createdByUserId": "marketer@example.org",
        "startAt": int((NOW + DAY) * 1_000),
        "listIds": [1, 2],
        "suppressionListIds": [],
    }
    return whole | more


@pytest.mark.parametrize(
    ("more", "coming"),
    [
        ({}, True),
        ({"campaignState": "Recurring"}, True),
        ({"campaignState": "Running"}, True),
        ({"campaignState": "Ready"}, True),
        ({"campaignState": "Ready", "startAt": None}, False),  # nobody has said when
        ({"campaignState": "Draft"}, False),
        ({"campaignState": "Finished"}, False),
        ({"type": "Triggered", "campaignState": "Running"}, False),
    ],
)
def test_which_campaigns_are_coming(more: dict[str, Any], coming: bool) -> None:
    assert planned.coming(entry(1, **more)) is coming


@pytest.mark.parametrize(
    ("suppressed", "hold_list", "feeds", "gate_feed", "excludes"),
    [
        ([7], 7, None, 0, True),
        ([], 7, None, 0, False),
        ([9], 7, None, 0, False),
        ([], 0, None, 0, None),  # no list, no gate: nothing is known
        ([], 7, {5}, 5, True),  # its template asks the gate
        ([], 7, {6}, 5, False),
        ([], 7, None, 5, None),  # there is a gate, and whether it asks cannot be read
        ([], 0, {6}, 5, None),
        ([], 0, {5}, 5, True),
        ([7], 7, None, 5, True),
    ],
)
def test_whether_a_campaign_leaves_out_the_held(
    suppressed: list[int], hold_list: int, feeds: set[int] | None, gate_feed: int, excludes: bool | None
) -> None:
    seen = planned.campaign(entry(1, suppressionListIds=suppressed), hold_list, "Support hold", feeds, gate_feed)
    assert seen.excludes_hold is excludes
    assert bool(seen.mend) is (excludes is not True)


def test_recipients_are_fixed_when_it_starts() -> None:
    started = int((NOW - 60) * 1_000)
    assert planned.campaign(entry(1, campaignState="Running", startAt=started), 7, "h", None, 0).frozen_at == NOW - 60
    assert planned.campaign(entry(1), 7, "h", None, 0).frozen_at is None


async def test_what_is_coming_is_told_soonest_first(project: Project) -> None:
    stand_in = project.stand_in
    stand_in.lists = [{"id": 7, "name": "Support hold", "listType": "Dynamic", "createdAt": 1}]
    stand_in.campaigns = [
        entry(1, startAt=int((NOW + 3 * DAY) * 1_000), suppressionListIds=[7]),
        entry(2, messageMedium="SMS"),
        entry(3, campaignState="Finished"),
        entry(4, type="Triggered", campaignState="Running"),
        entry(5, templateId=3, startAt=int((NOW + 4 * DAY) * 1_000)),
    ]
    stand_in.templates = {3: {"templateId": 3, "dataFeedIds": [4, 5]}}
    seen = await project.build(gate_feed=5).campaigns(project.line, NOW)
    assert [(one.id, one.channel, one.excludes_hold) for one in seen] == [("2", "sms", None), ("1", "email", True), ("5", "email", True)]
    seen = await project.build().campaigns(project.line, NOW)
    assert [(one.id, one.excludes_hold) for one in seen] == [("2", False), ("1", True), ("5", False)]
    assert seen[1] == Campaign(
        id="1", name="Sale 1", channel="email", status="scheduled", send_at=NOW + 3 * DAY, excludes_hold=True, audiences=("1", "2")
    )


async def test_all_pages_of_campaigns_are_read(project: Project) -> None:
    project.stand_in.campaigns = [entry(number) for number in range(1, 2_002)]
    assert len(await project.build().campaigns(project.line, NOW)) == 2_001
    assert [dict(call.query)["page"] for call in project.line.calls if call.path == "/api/campaigns"] == ["1", "2", "3"]


# --- webhooks --------------------------------------------------------------------------------------------------------


def hook(body: Any, authorization: str = BEARER) -> Request:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Request("POST", "https://hub.example/tools/crm/hooks", {"authorization": authorization} if authorization else {}, raw)


@pytest.mark.parametrize(
    ("authorization", "secret", "verdict"),
    [
        (BEARER, BEARER, Verdict.GOOD),  # auth type Basic: the token as it was typed
        (f"Basic {BEARER}", BEARER, Verdict.GOOD),
        (f"OAuth2 {BEARER}", BEARER, Verdict.GOOD),
        (f"Bearer {BEARER}", BEARER, Verdict.GOOD),
        (f"Digest {BEARER}", BEARER, Verdict.BAD),
        (f"{BEARER}x", BEARER, Verdict.BAD),
        ("Basic", BEARER, Verdict.BAD),
        ("\udcff", BEARER, Verdict.BAD),
        ("", BEARER, Verdict.UNSIGNED),
        (BEARER, "", Verdict.NO_KEY),
        ("", "", Verdict.NO_KEY),
    ],
)
def test_the_token_is_judged(authorization: str, secret: str, verdict: Verdict, project: Project) -> None:
    assert project.build(webhook_secret=secret).verify(hook({}, authorization), NOW) is verdict


# As in https://support.iterable.com/hc/en-us/articles/208013936-System-Webhooks.
SKIPPED = {
    "email": "docs@example.org",
    "eventName": "emailSendSkip",
    "dataFields": {
        "createdAt": "2025-11-24 16:00:00 +00:00",
        "reason": "DataFeedError",
        "campaignId": 721398,
        "messageId": "98430abe1b98",
        "email": "docs@example.org",
    },
}


def event(name: str, **about: Any) -> dict[str, Any]:
    return {**SKIPPED, "eventName": name, "dataFields": SKIPPED["dataFields"] | about}  # type: ignore[operator]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (SKIPPED, {"prevented": True, "channel": "email", "campaign_id": "721398", "provider_key": "emailSendSkip:98430abe1b98"}),
        (event("emailSend", campaignName="Sale"), {"prevented": False, "campaign": "Sale", "kind": "email", "value": "docs@example.org"}),
        ({**event("smsSend"), "userId": "c_1"}, {"channel": "sms", "kind": "external_id", "value": "c_1", "profile": "c_1"}),
        (event("pushSend"), {"channel": "push"}),
        (event("webPushSendSkip"), {"channel": "push", "prevented": True}),
        (event("whatsAppSend"), {"channel": "whatsapp"}),
        (event("inAppSend"), {"channel": "other"}),
        ({**SKIPPED, "email": None}, {"kind": "email", "value": "docs@example.org"}),
        (event("emailSend", campaignId=None, workflowId=5), {"campaign_id": ""}),
    ],
)
def test_a_message_sent_or_skipped_is_told(body: dict[str, Any], wanted: dict[str, Any], project: Project) -> None:
    [seen] = project.build().parse_sends(hook(body))
    assert seen.at == NOW
    assert {name: getattr(seen, name) for name in wanted} == wanted


def test_an_event_without_the_messages_id_is_one_event_however_often_it_comes(project: Project) -> None:
    first, again, other = (
        project.build().parse_sends(hook(event("emailSend", messageId=None, campaignId=campaign)))[0].provider_key for campaign in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    "name", ["emailOpen", "emailBounce", "emailUnSubscribe", "smsReceived", "journeyExit", "emailSender", "triggeredSend"]
)
def test_what_is_no_message_is_borne_in_silence(name: str, project: Project) -> None:
    assert list(project.build().parse_sends(hook(event(name)))) == []


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff",
        b"",
        5,
        {},
        {"eventName": 5},
        {"eventName": "emailSend"},
        {"eventName": "emailSend", "dataFields": []},
        event("emailSend", createdAt="yesterday"),
        event("emailSend", createdAt=None),
    ],
)
def test_what_cannot_be_read_is_said(body: Any, project: Project) -> None:
    with pytest.raises(Unparseable):
        project.build().parse_sends(hook(body))


# --- the gate, truly asked -------------------------------------------------------------------------------------------


@dataclass
class Door:
    """A gate on loopback in the hub's shape: who is held, and what it was asked."""

    held: set[str]
    asked: list[tuple[str, str]]
    url: str = ""
    status: int = 0

    async def feed(self, request: web.Request) -> web.Response:
        self.asked.append((request.headers.get("Authorization", ""), request.query["email"]))
        held = request.query["email"] in self.held
        return web.json_response({"hold": held}, status=self.status or (423 if held else 200))


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    door = Door(set(), [])
    app = web.Application()
    app.router.add_get("/api/v1/holds/feed", door.feed)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    door.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/holds/feed"
    try:
        yield door
    finally:
        await runner.cleanup()


def people(project: Project) -> Iterator[Profile]:
    for number in (1, 2, 3):
        yield project.stand_in.add_profile(email=f"p+{number}@example.org")


def ends(events: list[dict[str, Any]]) -> dict[str, str]:
    return {event["email"]: event["dataFields"].get("reason", "sent") for event in events}


async def test_whom_the_gate_holds_is_skipped(project: Project) -> None:
    list(people(project))
    async with door() as gate:
        gate.held = {"p+2@example.org"}
        sent = await project.stand_in.run_campaign(feed=Feed(gate.url, "t"))
        assert ends(sent) == {"p+1@example.org": "sent", "p+2@example.org": "DataFeedError", "p+3@example.org": "sent"}
        assert gate.asked == [("Bearer t", f"p+{number}@example.org") for number in (1, 2, 3)]


async def test_the_hubs_own_feed_stops_a_campaign_and_lets_it_go(project: Project, running: Running) -> None:
    held, free, _ = [profile.keys["email"] for profile in people(project)]
    claims = (Claim("phone", "+12025550123", Proof.CHANNEL), Claim("email", held, Proof.CLAIMED))
    said = InboundMessage(provider_key="m-1", claims=claims, text="Where is my parcel?")
    await running.hub.writer.run(Ingest(running.hub.channels["sms"].rule.id, (item(said, True),), None))
    url = f"http://127.0.0.1:{running.port}/api/v1/holds/feed"
    sent = ends(await project.stand_in.run_campaign(feed=Feed(url, sandbox_token(running.hub.secret))))
    assert (sent[held], sent[free]) == ("DataFeedError", "sent")
    sent = ends(await project.stand_in.run_campaign(feed=Feed(url, "a wrong token")))
    assert set(sent.values()) == {"DataFeedError"}, "nobody is sent where the hub does not say that they may be"


async def test_a_cached_feed_repeats_a_stale_answer_for_an_hour(project: Project) -> None:
    list(people(project))
    async with door() as gate:
        for cached, second in ((False, "DataFeedError"), (True, "sent")):
            gate.held.clear()
            await project.stand_in.run_campaign(feed=Feed(gate.url, cached=cached))
            gate.held = {"p+2@example.org"}
            project.clock.now += 3_000
            assert ends(await project.stand_in.run_campaign(feed=Feed(gate.url, cached=cached)))["p+2@example.org"] == second
        project.clock.now += 601
        assert ends(await project.stand_in.run_campaign(feed=Feed(gate.url, cached=True)))["p+2@example.org"] == "DataFeedError"


async def test_a_feed_that_fails_skips_everybody(project: Project) -> None:
    list(people(project))
    async with door() as gate:
        gate.status = 503
        assert set(ends(await project.stand_in.run_campaign(feed=Feed(gate.url))).values()) == {"DataFeedError"}
    assert set(ends(await project.stand_in.run_campaign(feed=Feed(gate.url))).values()) == {"DataFeedError"}, "nobody there"


async def test_a_suppression_list_holds_as_soon_as_it_shows_it_and_until_the_lease_ends(project: Project) -> None:
    list(people(project))
    project.stand_in.quirks.segment_lag = 60.0
    project.clock.now += 61
    await project.mark(wish("email", "p+1@example.org"))
    assert "p+1@example.org" in ends(await project.stand_in.run_campaign(suppressed=True)), "the list lags"
    project.clock.now += 61
    assert "p+1@example.org" not in ends(await project.stand_in.run_campaign(suppressed=True))
    project.clock.now = NOW + 7 * DAY + 60
    assert "p+1@example.org" in ends(await project.stand_in.run_campaign(suppressed=True)), "the lease ran out: no hub was needed"


async def test_who_unsubscribed_is_sent_nothing_by_anybody(project: Project) -> None:
    first, *_ = people(project)
    first.consent["email"] = "unsubscribed"
    await project.mark(wish("email", "p+1@example.org"))
    assert "p+1@example.org" not in ends(await project.stand_in.run_campaign())


async def test_what_a_campaign_did_comes_in_by_webhook(project: Project) -> None:
    list(people(project))
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
            gate.held = {"p+2@example.org"}
            sent = await project.stand_in.run_campaign(9, "Sale", feed=Feed(gate.url))
        assert await project.stand_in.call_webhook(f"http://127.0.0.1:{runner.addresses[0][1]}/hooks", sent * 2) == [200] * 6
    finally:
        await runner.cleanup()
    tool = project.build()
    assert {tool.verify(request, NOW) for request in heard} == {Verdict.GOOD}
    seen = [one for request in heard for one in tool.parse_sends(request)]
    assert len({one.provider_key for one in seen}) == 3
    assert {one.value: one.prevented for one in seen} == {"p+1@example.org": False, "p+2@example.org": True, "p+3@example.org": False}
    assert {(one.campaign_id, one.channel, one.at) for one in seen} == {("9", "email", NOW)}


def test_the_lease_of_the_stand_in_and_ours_are_one(project: Project) -> None:
    assert iso_of(NOW) == iso(to_date(iso_of(NOW)))
