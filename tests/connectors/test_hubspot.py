"""HubSpot: contact properties, an active list and scheduled e-mails, against a stand-in that the vendor's own client agrees with."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hubspot.crm import contacts, lists, properties
from hubspot.marketing import emails
from pydantic import ValidationError

from connectors.hubspot import HubSpot, HubSpotSettings
from connectors.hubspot.api import wait
from connectors.hubspot.contacts import bearing
from connectors.hubspot.emails import campaign
from connectors.hubspot.schema import PROPERTIES, creation, list_creation
from connectors.sandbox.tools.hubspot import ACCESS, OWN_ID, HubSpotStandIn
from connectors.sandbox.tools.stand_in import Profile
from hub.contract import Http, HttpResponse, Refused, TryLater
from hub.http import GuardedHttp
from hub.marketing import Check, Fate, KnowsAudiences, Marked, WatchesCampaigns
from tests.connectors.tool_conformance import DAY, NOW, Clock, Line, ToolConformance, wish

CREDENTIALS = HubSpotStandIn.credentials


class TestHubSpotConforms(ToolConformance):
    tool = "hubspot"


class Heard:
    """The line, keeping the bodies that were sent."""

    def __init__(self, http: Http) -> None:
        self.http, self.bodies = http, []  # type: ignore[var-annotated]

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        self.bodies.append((method, url.partition("/crm/v3")[2].partition("?")[0], json.loads(more.get("body") or b"null")))
        return await self.http.request(method, url, **more)


@pytest.fixture
async def stand_in() -> AsyncIterator[HubSpotStandIn]:
    stand_in = HubSpotStandIn(Clock())
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    client = GuardedHttp(["127.0.0.1"])
    yield Line(client)
    await client.close()


def build(stand_in: HubSpotStandIn, **settings: Any) -> HubSpot:
    given = {"type": "hubspot", "base_url": stand_in.url, **CREDENTIALS, **settings}
    return HubSpot(HubSpotSettings.model_validate(given), "crm")


async def prepared(stand_in: HubSpotStandIn, line: Http, **settings: Any) -> HubSpot:
    tool = build(stand_in, **settings)
    await tool.prepare(line, NOW)
    return tool


def client(module: Any, stand_in: HubSpotStandIn) -> Any:
    """The vendor's own client of one part of its API, at the stand-in."""
    configuration = module.Configuration(host=stand_in.url)
    configuration.access_token = ACCESS
    return module.ApiClient(configuration)


async def ask(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
    return await asyncio.to_thread(call, *args, **more)


def failed(checks: Any) -> list[str]:
    return [check.name for check in checks if not check.ok]


# --- the vendor's own client as judge --------------------------------------------------------------------------------


async def test_the_vendors_client_reads_in_the_stand_in_what_our_connector_wrote(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann+news@example.org")
    tool = await prepared(stand_in, line)
    await tool.mark([wish("email", "Ann+news@example.org", version=4)], line, NOW)
    batch = contacts.BatchApi(client(contacts, stand_in))
    asked = contacts.BatchReadInputSimplePublicObjectId(
        id_property="email",
        inputs=[contacts.SimplePublicObjectId(id="ann+news@example.org"), contacts.SimplePublicObjectId(id="nobody@example.org")],
        properties=["support_hold", "support_hold_reason", "support_hold_version"],
        properties_with_history=[],
    )
    answer = await ask(batch.read, asked)
    assert isinstance(answer, contacts.BatchResponseSimplePublicObjectWithErrors)
    assert answer.errors[0].category == "OBJECT_NOT_FOUND"
    assert answer.errors[0].context == {"ids": ["nobody@example.org"]}
    [contact] = answer.results
    shown = {"support_hold": "true", "support_hold_reason": "open_ticket", "support_hold_version": "4", "hs_object_id": contact.id}
    assert contact.properties == shown


async def test_the_vendors_client_sets_and_clears_in_the_stand_in_what_our_connector_reads(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    tool = await prepared(stand_in, line)
    batch = contacts.BatchApi(client(contacts, stand_in))
    for word, held in (("true", True), ("", False), ("true", True), ("false", False)):
        one = contacts.SimplePublicObjectBatchInput(id=profile.id, properties={"support_hold": word})
        await ask(batch.update, contacts.BatchInputSimplePublicObjectBatchInput(inputs=[one]))
        [back] = await tool.read([wish("email", "ann@example.org")], line, NOW)
        assert (back.present, back.held, back.profile) == (True, held, profile.id)


async def test_the_vendors_client_searches_the_stand_in_as_our_connector_does(stand_in: HubSpotStandIn) -> None:
    profile = stand_in.add_profile(phone="(415) 555-0001")
    one = contacts.Filter(property_name="hs_searchable_calculated_phone_number", operator="IN", values=["4155550001"])
    asked = contacts.PublicObjectSearchRequest(filter_groups=[contacts.FilterGroup(filters=[one])], properties=["phone"], limit=10)
    found = await ask(contacts.SearchApi(client(contacts, stand_in)).do_search, asked)
    assert (found.total, found.results[0].id, found.results[0].properties["phone"]) == (1, profile.id, "(415) 555-0001")


async def test_the_vendors_client_sees_the_properties_and_the_list_our_connector_made(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    tool = await prepared(stand_in, line)
    await tool.mark([wish("email", "ann@example.org")], line, NOW)
    core = properties.CoreApi(client(properties, stand_in))
    for name, (label, kind, field) in PROPERTIES.items():
        made = await ask(core.get_by_name, "contacts", name)
        assert (made.label, made.type, made.field_type, made.form_field) == (label, kind, field, False)
    found = (await ask(lists.ListsApi(client(lists, stand_in)).get_by_name, "support hold", "0-1")).list
    assert (found.name, found.processing_type) == ("Support hold", "DYNAMIC")
    members = await ask(lists.MembershipsApi(client(lists, stand_in)).get_lists, "0-1", profile.id)
    assert [one.list_id for one in members.results] == [found.list_id]


async def test_what_our_connector_sends_fits_the_vendors_models(stand_in: HubSpotStandIn, line: Line) -> None:
    """The models raise for a missing field, a null or a word that is not in the specification."""
    heard = Heard(line)
    for keys in ({"email": "ann@example.org"}, {"phone": "+14155550001"}, {"external_id": "c_1"}):
        stand_in.add_profile(**keys)
    tool = await prepared(stand_in, heard)
    wishes = [wish("email", "ann@example.org"), wish("phone", "+14155550001"), wish("external_id", "c_1")]
    await tool.mark(wishes, heard, NOW)
    await tool.mark([wish("email", "new@example.org")], heard, NOW)
    sent = {path: body for method, path, body in heard.bodies if method == "POST"}
    models = {
        "/objects/contacts/batch/read": (contacts, "BatchReadInputSimplePublicObjectId"),
        "/objects/contacts/batch/update": (contacts, "BatchInputSimplePublicObjectBatchInput"),
        "/objects/contacts/search": (contacts, "PublicObjectSearchRequest"),
        "/properties/contacts": (properties, "PropertyCreate"),
        "/properties/contacts/batch/read": (properties, "BatchReadInputPropertyName"),
        "/lists": (lists, "ListCreateRequest"),
    }
    assert set(sent) == set(models)
    for path, (module, model) in models.items():
        checked = modelled(module, model, sent[path])
        assert checked, path
    for name in PROPERTIES:
        assert modelled(properties, "PropertyCreate", creation(name)).name == name
    held, ahead = list_creation("x")["filterBranch"]["filterBranches"][0]["filters"]
    assert modelled(lists, "PublicBoolPropertyOperation", held["operation"]).value is True
    assert modelled(lists, "PublicTimePointOperation", ahead["operation"]).operator == "IS_AFTER"
    assert modelled(lists, "PublicIndexedTimePoint", ahead["operation"]["timePoint"]).zone_id == "UTC"
    for one in (held, ahead):
        assert modelled(lists, "PublicPropertyFilter", one).filter_type == "PROPERTY"


def modelled(module: Any, model: str, body: Any) -> Any:
    """A body as one of the vendor's models, every field of it known there; what is nested is checked as far as models go."""
    kind = getattr(module.models, model) if hasattr(module.models, model) else getattr(module, model)
    unknown = set(body) - set(kind.attribute_map.values())
    assert not unknown - {"dataSensitivity"}, (model, unknown)  # of a later version of the specification
    back = {wire: name for name, wire in kind.attribute_map.items()}
    given = {}
    for wire, value in body.items():
        if wire not in back:
            continue
        inner = kind.openapi_types[back[wire]].removeprefix("list[").removesuffix("]")
        if isinstance(value, list) and value and isinstance(value[0], dict) and hasattr(module, inner):
            given[back[wire]] = [modelled(module, inner, one) for one in value]
        else:
            given[back[wire]] = value
    return kind(**given)


async def test_the_vendors_client_lists_the_stand_ins_e_mails(stand_in: HubSpotStandIn) -> None:
    stand_in.add_campaign("Black Friday", NOW + DAY, include=["7"], exclude=["1"])
    page = await ask(emails.MarketingEmailsApi(client(emails, stand_in)).get_page, limit=5)
    [one] = page.results
    assert (one.name, one.state) == ("Black Friday", "SCHEDULED")
    assert one.to.contact_ils_lists.exclude == ["1"]
    assert one.publish_date.timestamp() == NOW + DAY


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_a_hold_without_its_property_is_refused_and_names_it(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in)
    with pytest.raises(Refused, match=r"support_hold_until.*Prepare destinations\.crm"):
        await tool.mark([wish("email", "ann@example.org")], line, NOW)
    assert stand_in.writes == []
    assert "Properties" in failed(await tool.test(line, NOW))


async def test_a_missing_property_of_a_trait_does_not_keep_the_hold_back(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    tool = await prepared(stand_in, line)
    del stand_in.properties["support_open_tickets"]
    asked = wish("email", "ann@example.org", traits={"support_open_tickets": 2, "support_status": "open", "support_of_tomorrow": 1})
    [marked] = await tool.mark([asked], line, NOW)
    assert marked.fate is Fate.ACCEPTED
    assert profile.attributes["support_hold"] == "true"
    assert profile.attributes["support_status"] == "open"
    assert "support_open_tickets" not in profile.attributes


@pytest.mark.parametrize("quirk", ["all_or_nothing", "silent"])
async def test_a_bad_contact_is_refused_alone_however_the_batch_says_it(stand_in: HubSpotStandIn, line: Line, quirk: str) -> None:
    for number in range(3):
        stand_in.add_profile(email=f"ann{number}@example.org")
    tool = await prepared(stand_in, line)
    setattr(stand_in.quirks, quirk, True)
    stand_in.quirks.refused.add("ann1@example.org")
    answers = await tool.mark([wish("email", f"ann{number}@example.org") for number in range(3)], line, NOW)
    assert [marked.fate for marked in answers] == [Fate.ACCEPTED, Fate.REFUSED, Fate.ACCEPTED]
    assert "ann1" not in answers[1].error, "HubSpot's message repeats the address; ours does not"


async def test_a_contact_deleted_between_look_up_and_write_is_refused_alone(stand_in: HubSpotStandIn, line: Line) -> None:
    ann, ben = (stand_in.add_profile(email=f"{name}@example.org") for name in ("ann", "ben"))
    tool = await prepared(stand_in, line)

    class Deleting(Heard):
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            if url.endswith("/batch/update"):
                stand_in.profiles.remove(ann)
            return await super().request(method, url, **more)

    answers = await tool.mark([wish("email", "ann@example.org"), wish("email", "ben@example.org")], Deleting(line), NOW)
    assert [marked.fate for marked in answers] == [Fate.REFUSED, Fate.ACCEPTED]
    assert "OBJECT_NOT_FOUND" in answers[0].error
    assert ben.attributes["support_hold"] == "true"


async def test_one_that_came_to_be_meanwhile_is_refused_and_found_the_next_time(stand_in: HubSpotStandIn, line: Line) -> None:
    tool = await prepared(stand_in, line, create_profiles=True)

    class Creating(Heard):
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            if url.endswith("/objects/contacts"):
                stand_in.add_profile(email="ann@example.org")
            return await super().request(method, url, **more)

    [marked] = await tool.mark([wish("email", "ann@example.org")], Creating(line), NOW)
    assert (marked.fate, "CONFLICT" in marked.error) == (Fate.REFUSED, True)
    [marked] = await tool.mark([wish("email", "ann@example.org")], line, NOW)
    assert marked == Marked(fate=Fate.ACCEPTED, profile=stand_in.profiles[0].id)


async def test_two_wishes_that_disagree_about_one_contact_end_at_the_later_one(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org", phone="+14155550001")
    tool = await prepared(stand_in, line)
    await tool.mark([wish("email", "ann@example.org", held=False, version=2), wish("phone", "+14155550001", version=3)], line, NOW)
    assert (profile.attributes["support_hold"], len(stand_in.writes)) == ("true", 1)


# --- who is who ------------------------------------------------------------------------------------------------------


async def test_a_secondary_address_finds_its_contact(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    stand_in.meddle(profile, {"hs_additional_emails": "a.smith@example.org;ann@old.example"})
    tool = await prepared(stand_in, line)
    one, two = await tool.mark([wish("email", "Ann@old.example"), wish("email", "ann@example.org")], line, NOW)
    assert one == two == Marked(fate=Fate.ACCEPTED, profile=profile.id)


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ("+14155550001", True),
        ("+1 (415) 555-0001", True),
        ("(415) 555-0001", True),  # without a country code it may be the same number: to hold one too many does no harm
        ("+44 415 555 0001", False),  # the same local number of another country
        ("+14155550002", False),
        ("n/a", False),
        ("", False),
    ],
)
def test_a_contact_bears_a_number_in_any_spelling(stored: str, found: bool) -> None:
    contact = {"id": "1", "properties": {"phone": None, "mobilephone": stored}}
    assert bool(bearing("+14155550001", [contact, contact]).contacts) is found


async def test_a_number_spelt_otherwise_is_found_by_its_local_part(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(phone="(415) 555-0001")
    abroad = stand_in.add_profile(phone="+44 415 555 0001")
    tool = await prepared(stand_in, line)
    [marked] = await tool.mark([wish("phone", "+14155550001")], line, NOW)
    assert marked == Marked(fate=Fate.ACCEPTED, profile=profile.id)
    assert abroad.attributes == {}


async def test_a_number_shared_by_contacts_holds_all_of_them(stand_in: HubSpotStandIn, line: Line) -> None:
    both = [stand_in.add_profile(email=f"{name}@example.org", phone="+14155550001") for name in ("ann", "ben")]
    tool = await prepared(stand_in, line)
    [marked] = await tool.mark([wish("phone", "+14155550001")], line, NOW)
    assert marked.profile == both[0].id
    assert [one.attributes["support_hold"] for one in both] == ["true", "true"]
    stand_in.meddle(both[1], {"support_hold": "false"})
    [back] = await tool.read([wish("phone", "+14155550001")], line, NOW)
    assert (back.held, back.effective) == (False, True), "held is what all of them are"


async def test_a_switchboards_number_says_nothing_about_one_person(stand_in: HubSpotStandIn, line: Line) -> None:
    for _ in range(101):  # more than a page
        stand_in.add_profile(phone="+14155550001")
    tool = await prepared(stand_in, line)
    [marked] = await tool.mark([wish("phone", "+14155550001")], line, NOW)
    assert (marked.fate, marked.error.startswith("101 contacts")) == (Fate.REFUSED, True)
    assert stand_in.writes == []


async def test_a_new_contact_is_found_by_phone_once_search_knows_it(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.add_profile(phone="+14155550001")
    stand_in.quirks.search_lag = 10.0
    tool = await prepared(stand_in, line)
    [marked] = await tool.mark([wish("phone", "+14155550001")], line, NOW)
    assert marked.fate is Fate.ABSENT
    stand_in.clock.now += 11.0  # type: ignore[attr-defined]
    [marked] = await tool.mark([wish("phone", "+14155550001")], line, NOW)
    assert marked.fate is Fate.ACCEPTED


async def test_without_a_property_for_it_nobody_is_known_by_the_business_own_id(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.add_profile(external_id="c_1")
    tool = await prepared(stand_in, line, external_id_property="", create_profiles=True)
    [marked] = await tool.mark([wish("external_id", "c_1")], line, NOW)
    assert (marked.fate, "external_id_property" in marked.error) == (Fate.ABSENT, True)


async def test_an_own_id_that_is_not_unique_is_refused_and_named(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.properties[OWN_ID]["hasUniqueValue"] = False
    stand_in.add_profile(external_id="c_1")
    tool = await prepared(stand_in, line)
    with pytest.raises(Refused, match=r"destinations\.crm\.external_id_property"):
        await tool.mark([wish("external_id", "c_1")], line, NOW)
    assert failed(await tool.test(line, NOW)) == ["Own id"]
    assert failed(await build(stand_in, external_id_property="nothing").test(line, NOW)) == ["Own id"]


# --- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "policy", "seconds"),
    [
        ({"retry-after": "7"}, "DAILY", 7.0),  # the vendor's own word comes first
        ({}, "SECONDLY", 1.0),
        ({}, "TEN_SECONDLY_ROLLING", 10.0),
        ({"x-hubspot-ratelimit-interval-milliseconds": "5000"}, "TEN_SECONDLY_ROLLING", 5.0),
        ({}, "DAILY", 3_600.0),  # no sense in asking again at once
        ({"x-hubspot-ratelimit-daily-remaining": "0"}, "TEN_SECONDLY_ROLLING", 3_600.0),
        ({"x-hubspot-ratelimit-daily-remaining": "17"}, "", None),
        ({"x-hubspot-ratelimit-interval-milliseconds": "soon"}, "SOME_NEW_LIMIT", None),
    ],
)
def test_the_wait_of_a_limit_is_until_it_is_given_back(headers: dict[str, str], policy: str, seconds: float | None) -> None:
    assert wait(headers, policy) == seconds


async def test_the_daily_limit_is_waited_for_an_hour_at_a_time(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.quirks.status, stand_in.quirks.policy = 429, "DAILY"
    with pytest.raises(TryLater, match="daily limit") as caught:
        await build(stand_in).mark([wish("email", "ann@example.org")], line, NOW)
    assert caught.value.retry_after == 3_600.0


@pytest.mark.parametrize(("status", "seconds"), [(423, 2.0), (477, 90.0), (504, 90.0)])
async def test_a_locked_record_and_an_account_that_moves_are_tried_later(
    stand_in: HubSpotStandIn, line: Line, status: int, seconds: float
) -> None:
    stand_in.quirks.status, stand_in.quirks.retry_after = status, "90"
    with pytest.raises(TryLater) as caught:
        await build(stand_in).read([wish("email", "ann@example.org")], line, NOW)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (200, b'{"status":"error","category":"VALIDATION_ERROR","message":"no"}', Refused),  # an error inside a success
        (200, b"<html>maintenance</html>", TryLater),
        (200, b"[]", TryLater),
        (301, b"", Refused),
        (403, b'{"category":"MISSING_SCOPES"}', Refused),
        (404, b"<html>nothing here</html>", Refused),  # a wrong base_url is no unknown contact
        (400, b"", Refused),
    ],
)
async def test_an_odd_answer_is_never_taken_for_nobody(status: int, body: bytes, raised: type[Exception]) -> None:
    class Odd:
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            return HttpResponse(status=status, headers={}, body=body)

    tool = HubSpot(HubSpotSettings.model_validate({"type": "hubspot", **CREDENTIALS}), "crm")
    for call in (tool.mark, tool.read):
        with pytest.raises(raised):
            await call([wish("email", "ann@example.org")], Odd(), NOW)


# --- the list --------------------------------------------------------------------------------------------------------


async def test_a_lease_that_ran_out_frees_its_contact_in_the_list(stand_in: HubSpotStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    tool = await prepared(stand_in, line)
    asked = wish("email", "ann@example.org")
    await tool.mark([asked], line, NOW)
    assert stand_in.in_segment(profile)
    stand_in.clock.now += 8 * DAY  # type: ignore[attr-defined]
    assert not stand_in.in_segment(profile)
    [back] = await tool.read([asked], line, NOW + 8 * DAY)
    assert (back.held, back.effective) == (True, True), "the list shows what the lease says"


async def test_without_the_list_nothing_is_said_about_effect(stand_in: HubSpotStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    tool = await prepared(stand_in, line)
    await tool.mark([wish("email", "ann@example.org")], line, NOW)
    made = stand_in.lists.pop()
    for _ in range(2):
        [back] = await build(stand_in).read([wish("email", "ann@example.org")], line, NOW)
        assert (back.held, back.effective) == (True, None)
    stand_in.lists.append(made)
    [back] = await tool.read([wish("email", "ann@example.org")], line, NOW)
    assert back.effective is True


async def test_memberships_that_are_told_of_some_only_say_nothing(stand_in: HubSpotStandIn, line: Line) -> None:
    wishes = [wish("email", f"{name}@example.org") for name in ("ann", "ben")]
    for one in wishes:
        stand_in.add_profile(email=one.value)
    tool = await prepared(stand_in, line)
    await tool.mark(wishes, line, NOW)

    class Forgetful(Heard):
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            answer = await super().request(method, url, **more)
            if not url.endswith("/memberships/batch/read"):
                return answer
            body = json.loads(answer.body)
            return HttpResponse(status=207, headers={}, body=json.dumps(body | {"results": body["results"][:1]}).encode())

    assert [back.effective for back in await tool.read(wishes, line, NOW)] == [True, True]
    assert [back.effective for back in await tool.read(wishes, Forgetful(line), NOW)] == [None, None]


@pytest.mark.parametrize(
    ("processing", "branch", "said"),
    [
        ("MANUAL", None, "not an active one"),
        ("DYNAMIC", {"filterBranchType": "OR", "filterBranches": [], "filters": [{"property": "support_hold"}]}, "support_hold_until"),
    ],
)
async def test_a_list_of_that_name_that_holds_nobody_is_named(
    stand_in: HubSpotStandIn, line: Line, processing: str, branch: Any, said: str
) -> None:
    stand_in.add_list("SUPPORT HOLD", branch, processing)
    checks: dict[str, Check] = {check.name: check for check in await build(stand_in).prepare(line, NOW)}
    assert not checks["Hold list"].ok
    assert said in checks["Hold list"].text
    assert len(stand_in.lists) == 1


async def test_a_property_of_another_type_in_the_way_is_named(stand_in: HubSpotStandIn, line: Line) -> None:
    tool = await prepared(stand_in, line)
    assert failed(await tool.test(line, NOW)) == []
    stand_in.properties["support_hold"]["type"] = "string"
    [wrong] = [check for check in await tool.prepare(line, NOW) if not check.ok]
    assert "support_hold must be of the type bool" in wrong.text


async def test_a_token_without_a_scope_is_told_of_part_by_part(stand_in: HubSpotStandIn, line: Line) -> None:
    class Scoped(Heard):
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            if "/lists" in url or "/marketing" in url:
                return HttpResponse(status=403, headers={}, body=b'{"status":"error","category":"MISSING_SCOPES"}')
            return await super().request(method, url, **more)

    tool = build(stand_in)
    checks = await tool.prepare(Scoped(line), NOW)
    assert failed(checks) == ["Hold list", "Campaign watch"]
    assert all("destinations.crm.access_token" in check.text for check in checks if not check.ok)
    stand_in.add_profile(email="ann@example.org")
    await tool.mark([wish("email", "ann@example.org")], Scoped(line), NOW)
    [back] = await tool.read([wish("email", "ann@example.org")], Scoped(line), NOW)
    assert (back.held, back.effective) == (True, None)


# --- campaigns -------------------------------------------------------------------------------------------------------


async def test_scheduled_e_mails_are_told_with_what_they_leave_out(stand_in: HubSpotStandIn, line: Line) -> None:
    tool = await prepared(stand_in, line, account_id="42")
    assert isinstance(tool, WatchesCampaigns)
    [hold] = [one["listId"] for one in stand_in.lists]
    stand_in.add_campaign("Draft", NOW + DAY, state="DRAFT")
    stand_in.add_campaign("Sent", NOW - DAY, state="PUBLISHED")
    stand_in.add_campaign("From a workflow", NOW, state="AUTOMATED")
    open_ = stand_in.add_campaign("To everybody", NOW + 2 * DAY, include=["7", "8"], exclude=["9"])
    stand_in.add_campaign("Careful", NOW + DAY, include=["7"], exclude=["9", hold])
    stand_in.add_campaign("Under way", NOW - 60, state="PROCESSING", include=["7"], exclude=[hold])
    for number in range(200):  # two more pages
        stand_in.add_campaign(f"Old {number}", NOW - DAY, state="PUBLISHED")
    under_way, careful, everybody = await tool.campaigns(line, NOW)
    assert (everybody.name, everybody.excludes_hold, everybody.audiences) == ("To everybody", False, ("7", "8"))
    assert (everybody.id, everybody.send_at, everybody.frozen_at, everybody.status) == (open_, NOW + 2 * DAY, None, "scheduled")
    assert everybody.url == f"https://app.hubspot.com/email/42/edit/{open_}/settings"
    assert '"Support hold"' in everybody.mend
    assert (careful.excludes_hold, careful.mend) == (True, "")
    assert (under_way.status, under_way.frozen_at) == ("sending", NOW - 60)
    assert "content" not in str(line.seen)


@pytest.mark.parametrize(
    ("email", "hold", "excludes"),
    [
        ({"state": "SCHEDULED", "to": {"contactIlsLists": {"exclude": [5]}}}, "5", True),
        ({"state": "SCHEDULED_AB", "to": {"contactIlsLists": {"include": ["5"]}}}, "5", False),
        ({"state": "SCHEDULED", "to": {"contactLists": {"exclude": ["5"]}}}, "5", None),  # old ids, of which ours is none
        ({"state": "SCHEDULED"}, "5", None),
        ({"state": "SCHEDULED", "to": {"contactIlsLists": {"exclude": ["5"]}}}, "", None),
    ],
)
def test_what_is_not_told_of_recipients_is_not_guessed(email: dict[str, Any], hold: str, excludes: bool | None) -> None:
    judged = campaign(email, hold, "Support hold", "")
    assert judged is not None
    assert judged.excludes_hold is excludes
    assert bool(judged.mend) is (excludes is not True)


def test_a_transactional_e_mail_is_no_campaign() -> None:
    assert campaign({"state": "SCHEDULED", "isTransactional": True}, "5", "Support hold", "") is None


async def test_the_lists_of_a_contact_are_told(stand_in: HubSpotStandIn, line: Line) -> None:
    profile: Profile = stand_in.add_profile(email="ann@example.org")
    tool = await prepared(stand_in, line)
    assert isinstance(tool, KnowsAudiences)
    assert await tool.audiences(profile.id, line) == frozenset()
    await tool.mark([wish("email", "ann@example.org")], line, NOW)
    assert await tool.audiences(profile.id, line) == {"1"}
    assert await tool.audiences("999999", line) == frozenset()


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"access_token": ""}, "private app"),
        ({"access_token": "two words"}, "private app"),
        ({"access_token": "x", "base_url": "http://hubspot.example"}, "https"),
        ({"access_token": "x", "external_id_property": "Customer Number"}, "external_id_property"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        HubSpotSettings.model_validate({"type": "hubspot", **settings})
