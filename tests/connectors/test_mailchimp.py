"""Mailchimp: the tag, its merge fields, campaigns and reports, against a stand-in that the vendor's own client agrees with."""

import asyncio
import hashlib
import hmac
import inspect
import re
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlencode

import mailchimp_marketing
import pytest
from mailchimp_marketing.api import campaigns_api, lists_api, reports_api
from mailchimp_marketing.api_client import ApiClientError
from pydantic import ValidationError

from connectors.mailchimp import FIELDS, Mailchimp, MailchimpSettings, field_tag
from connectors.mailchimp.campaigns import excludes_tag
from connectors.sandbox.tools.mailchimp import AUDIENCE, KEY, MailchimpStandIn
from hub.contract import Refused, Request, TryLater, Unparseable, Verdict
from hub.http import GuardedHttp
from hub.marketing import Fate, HearsSends, ReportsSends, RevertsCampaigns, WatchesCampaigns
from tests.connectors.tool_conformance import NOW, Clock, Line, ToolConformance, wish

CREDENTIALS = MailchimpStandIn.credentials


class TestMailchimpConforms(ToolConformance):
    tool = "mailchimp"
    names_wait = "Mailchimp sends no Retry-After and no rate headers"
    writes_each = 2  # the tag, then the merge fields


class TestMailchimpWithoutFieldsConforms(ToolConformance):
    """The tag alone; what it cannot keep is judged below."""

    tool = "mailchimp"
    settings = {"merge_fields": False}  # noqa: RUF012
    names_wait = "Mailchimp sends no Retry-After and no rate headers"
    orders = "a tag has no version"
    spares_writes = "without a version nothing can be known to stand"
    keeps_detail = "a tag is there or not"


@pytest.fixture
async def stand_in() -> AsyncIterator[MailchimpStandIn]:
    stand_in = MailchimpStandIn(Clock())
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    client = GuardedHttp(["127.0.0.1"])
    yield Line(client)
    await client.close()


def build(stand_in: MailchimpStandIn, **settings: Any) -> Mailchimp:
    given = {"type": "mailchimp", "base_url": stand_in.url, **CREDENTIALS, **settings}
    return Mailchimp(MailchimpSettings.model_validate(given), "crm")


def client(stand_in: MailchimpStandIn) -> Any:
    made = mailchimp_marketing.Client({"api_key": KEY})
    made.api_client.host = f"{stand_in.url}/3.0"
    return made


# --- the vendor's own client as judge --------------------------------------------------------------------------------


async def test_the_vendors_client_finds_in_the_stand_in_what_our_connector_wrote(stand_in: MailchimpStandIn, line: Line) -> None:
    stand_in.add_profile(email="Ann+news@example.org")
    tool = build(stand_in)
    await tool.prepare(line, NOW)
    await tool.mark([wish("email", "ann+news@example.org", version=4)], line, NOW)
    official, key = client(stand_in), hashlib.md5(b"ann+news@example.org").hexdigest()

    def ask() -> tuple[Any, ...]:
        lists = official.lists
        return lists.get_list_member(AUDIENCE, key), lists.list_segments(AUDIENCE), lists.get_list_merge_fields(AUDIENCE, count=50)

    member, segments, fields = await asyncio.to_thread(ask)
    assert [tag["name"] for tag in member["tags"]] == ["support_hold"]
    assert member["merge_fields"]["SUPHOLDREA"] == "open_ticket"
    assert member["merge_fields"]["SUPHOLDVER"] == 4
    assert member["status"] == "subscribed"
    tag = next(segment for segment in segments["segments"] if segment["name"] == "support_hold")
    saved = next(segment for segment in segments["segments"] if segment["type"] == "saved")
    assert saved["options"]["conditions"] == [
        {"condition_type": "StaticSegment", "field": "static_segment", "op": "static_not", "value": tag["id"]}
    ]
    made = {field["tag"]: field for field in fields["merge_fields"]}
    assert {field_tag(name) for name in FIELDS} < set(made)
    assert not any(made[field_tag(name)]["public"] for name in FIELDS), "customers never see them on a form"


async def test_the_vendors_client_sets_and_clears_in_the_stand_in_what_our_connector_reads(stand_in: MailchimpStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in)
    await tool.prepare(line, NOW)
    official, key = client(stand_in), hashlib.md5(b"ann@example.org").hexdigest()
    for status, held in (("active", True), ("inactive", False)):
        body = {"tags": [{"name": "support_hold", "status": status}]}
        answer = await asyncio.to_thread(official.lists.update_list_member_tags, AUDIENCE, key, body)
        assert answer.status_code == 204
        [back] = await tool.read([wish("email", "ann@example.org")], line, NOW)
        assert (back.present, back.held) == (True, held)


@pytest.mark.parametrize(
    ("call", "status", "title"),
    [
        (lambda lists: lists.get_list_member(AUDIENCE, "0" * 32), 404, "Resource Not Found"),
        (lambda lists: lists.get_list("nowhere000"), 404, "Resource Not Found"),
        (
            lambda lists: lists.add_list_merge_field(AUDIENCE, {"tag": "MUCHTOOLONGTAG", "name": "x", "type": "text"}),
            400,
            "Invalid Resource",
        ),
        (
            lambda lists: lists.set_list_member(
                AUDIENCE, hashlib.md5(b"new@example.org").hexdigest(), {"email_address": "new@example.org"}
            ),
            400,
            "Invalid Resource",
        ),
    ],
)
async def test_the_stand_in_refuses_as_the_vendor_does(
    stand_in: MailchimpStandIn, call: Callable[[Any], Any], status: int, title: str
) -> None:
    with pytest.raises(ApiClientError) as caught:
        await asyncio.to_thread(call, client(stand_in).lists)
    assert caught.value.status_code == status
    assert title in str(caught.value.text)


async def test_who_unsubscribed_cannot_be_subscribed_by_api(stand_in: MailchimpStandIn) -> None:
    """Negative twin of what we never send."""
    profile = stand_in.add_profile(email="ann@example.org")
    profile.consent["email"] = "unsubscribed"
    key = hashlib.md5(b"ann@example.org").hexdigest()
    with pytest.raises(ApiClientError) as caught:
        await asyncio.to_thread(
            client(stand_in).lists.update_list_member, AUDIENCE, key, {"status": "subscribed", "merge_fields": {"FNAME": "A"}}
        )
    assert "Member In Compliance State" in str(caught.value.text)


async def test_every_call_of_ours_is_one_the_vendors_client_knows(stand_in: MailchimpStandIn, line: Line) -> None:
    known = {
        (method, re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "$"))
        for api in (lists_api, campaigns_api, reports_api)
        for path, method in re.findall(r"call_api\(\s*'([^']+)', '(\w+)'", inspect.getsource(api))
    }
    assert len(known) > 100
    profile = stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in, create_profiles=True)
    await tool.prepare(line, NOW)
    await tool.mark([wish("email", "ann@example.org"), wish("email", "new@example.org")], line, NOW)
    await tool.read([wish("email", "ann@example.org"), wish("email", "nobody@example.org")], line, NOW)
    campaign = stand_in.add_campaign("Sale", NOW + 60, segment_opts={"saved_segment_id": 40_001})
    await tool.campaigns(line, NOW)
    await tool.revert(campaign, line)
    stand_in.send(campaign, [profile])
    await tool.sends(NOW - 60, line, NOW)
    called = {(method, path.removeprefix("/3.0")) for method, path, _ in line.seen}
    assert len({re.sub(r"[0-9a-f]{32}|[0-9]{4,}", "*", path) for _, path in called}) >= 11
    assert not [(method, path) for method, path in called if not any(method == m and pattern.match(path) for m, pattern in known)]


async def test_the_hold_is_written_as_a_sync_so_that_no_automation_fires(stand_in: MailchimpStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    sent: list[bytes] = []
    tool = build(stand_in)
    await tool.prepare(line, NOW)
    inner = line.http.request

    class Noting:
        async def request(self, *args: Any, **kwargs: Any) -> Any:
            sent.append(kwargs.get("body") or b"")
            return await inner(*args, **kwargs)

    await tool.mark([wish("email", "ann@example.org")], Noting(), NOW)
    assert b'{"tags": [{"name": "support_hold", "status": "active"}], "is_syncing": true}' in sent
    assert not [body for body in sent if b'"status": "subscribed"' in body or b'"status": "unsubscribed"' in body]


# --- what is Mailchimp's own -----------------------------------------------------------------------------------------


async def test_an_audience_that_is_not_there_is_no_missing_contact(stand_in: MailchimpStandIn, line: Line) -> None:
    """Both answer 404, and everybody would be absent in silence."""
    stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in, audience="ffffffffff")
    for call in (tool.mark, tool.read):
        with pytest.raises(Refused, match=r"Mend destinations\.crm\.audience"):
            await call([wish("email", "ann@example.org")], line, NOW)
    [check] = await tool.test(line, NOW)
    assert not check.ok
    assert "destinations.crm.audience" in check.text


async def test_a_bare_403_is_throttling_and_one_with_a_body_is_not(stand_in: MailchimpStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    stand_in.quirks.status, stand_in.quirks.bare_403 = 403, True
    with pytest.raises(TryLater):
        await build(stand_in).mark([wish("email", "ann@example.org")], line, NOW)
    stand_in.quirks.bare_403 = False
    with pytest.raises(Refused, match=r"destinations\.crm\.api_key"):
        await build(stand_in).mark([wish("email", "ann@example.org")], line, NOW)


async def test_two_versions_in_one_call_end_at_the_higher(stand_in: MailchimpStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in)
    await tool.prepare(line, NOW)
    await tool.mark([wish("email", "ann@example.org", version=2), wish("email", "ann@example.org", held=False, version=1)], line, NOW)
    assert stand_in.shown(profile)["support_hold"] is True


async def test_an_archived_contact_is_absent(stand_in: MailchimpStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    stand_in.archived.add(profile.id)
    [marked] = await build(stand_in).mark([wish("email", "ann@example.org")], line, NOW)
    assert marked.fate is Fate.ABSENT
    assert stand_in.writes == []


async def test_a_contact_with_many_tags_is_read_to_the_end(stand_in: MailchimpStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in)
    await tool.prepare(line, NOW)
    await tool.mark([wish("email", "ann@example.org")], line, NOW)
    stand_in.most_tags = 0
    [back] = await tool.read([wish("email", "ann@example.org")], line, NOW)
    assert back.held
    assert stand_in.calls[-1][1].endswith(f"/members/{profile.id}/tags")


async def test_nothing_is_created_by_testing(stand_in: MailchimpStandIn, line: Line) -> None:
    before = (list(stand_in.segments), list(stand_in.merge_fields))
    checks = await build(stand_in).test(line, NOW)
    assert [check.ok for check in checks] == [True, False, False]
    assert (stand_in.segments, stand_in.merge_fields) == before
    assert {method for method, _, _ in line.seen} == {"GET"}


def test_merge_tags_are_ten_capitals_and_all_different() -> None:
    tags = {name: field_tag(name) for name in FIELDS}
    assert len(set(tags.values())) == len(FIELDS)
    assert all(re.fullmatch(r"[A-Z]{4,10}", tag) for tag in tags.values())
    assert tags["support_hold_until"] in Mailchimp.lapse


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"api_key": "0123456789abcdef"}, "data centre"),
        ({"api_key": "0123456789abcdef-us19.evil.example/"}, "data centre"),
        ({"audience": "a1/../b2"}, "audience"),
        ({"plan": "enterprise"}, "plan"),
    ],
)
def test_a_wrong_setting_is_named(changed: dict[str, str], key: str) -> None:
    good = {"type": "mailchimp", **CREDENTIALS}
    MailchimpSettings.model_validate(good)
    with pytest.raises(ValidationError, match=key) as caught:
        MailchimpSettings.model_validate(good | changed)
    assert "0123456789abcdef" not in str(caught.value)


# --- campaigns -------------------------------------------------------------------------------------------------------


def condition(op: str, value: object = 7) -> dict[str, Any]:
    return {"condition_type": "StaticSegment", "field": "static_segment", "op": op, "value": value}


@pytest.mark.parametrize(
    ("options", "excludes"),
    [
        ({}, False),  # to everybody
        ({"match": "all", "conditions": [condition("static_not")]}, True),
        ({"match": "any", "conditions": [condition("static_not")]}, True),  # any of one
        ({"match": "all", "conditions": [condition("static_is", 3), condition("static_not", "7")]}, True),
        ({"match": "any", "conditions": [condition("static_is", 3), condition("static_not")]}, False),
        ({"match": "all", "conditions": [condition("static_is")]}, False),
        ({"match": "all", "conditions": [condition("static_not", 8)]}, False),
        ({"match": "all", "conditions": [{"op": "static_not"}]}, False),
        ({"saved_segment_id": 5}, None),
        ({"prebuilt_segment_id": "x"}, None),
    ],
)
def test_whether_a_campaign_leaves_the_tag_out(options: dict[str, Any], excludes: bool | None) -> None:
    assert excludes_tag(options, 7) is excludes
    assert excludes_tag(options, None) is not True


async def test_scheduled_campaigns_are_seen_with_what_they_leave_out(stand_in: MailchimpStandIn, line: Line) -> None:
    tool = build(stand_in)
    await tool.prepare(line, NOW)
    saved = stand_in.segments[1]
    safe = {"saved_segment_id": saved["id"]}
    everybody = stand_in.add_campaign("To everybody", NOW + 3_600)
    careful = stand_in.add_campaign("Careful", NOW + 7_200, segment_opts=safe)
    stand_in.add_campaign("Sent long ago", NOW - 9_000, status="sent")
    going = stand_in.add_campaign(
        "Going out", NOW - 60, status="sending", segment_opts={"match": "all", "conditions": [condition("static_is")]}
    )
    stand_in.add_campaign("Of another audience", NOW + 60)
    stand_in.campaigns[-1]["recipients"]["list_id"] = "0000000000"
    seen = {one.id: one for one in await tool.campaigns(line, NOW)}
    assert set(seen) == {everybody, careful, going}
    assert (seen[everybody].excludes_hold, seen[everybody].frozen_at, seen[everybody].send_at) == (False, None, NOW + 3_600)
    assert "support_hold" in seen[everybody].mend
    assert (seen[careful].excludes_hold, seen[careful].frozen_at) == (True, NOW), "a snapshot, since its creation at the earliest"
    assert "anew" in seen[careful].mend
    assert (seen[going].excludes_hold, seen[going].frozen_at, seen[going].revertable) == (False, NOW - 60, False)
    essentials = {one.id: one for one in await build(stand_in, plan="essentials").campaigns(line, NOW)}
    assert (essentials[careful].frozen_at, essentials[careful].mend) == (None, "")
    assert isinstance(tool, WatchesCampaigns)


async def test_a_scheduled_campaign_is_put_back_to_draft(stand_in: MailchimpStandIn, line: Line) -> None:
    tool = build(stand_in)
    campaign = stand_in.add_campaign("Sale", NOW + 60)
    assert isinstance(tool, RevertsCampaigns)
    assert "draft" in await tool.revert(campaign, line)
    assert stand_in.campaigns[0]["status"] == "save"
    with pytest.raises(Refused):
        await tool.revert(campaign, line)


async def test_a_long_report_is_read_on_from_where_it_was_left(stand_in: MailchimpStandIn, line: Line) -> None:
    tool = build(stand_in)
    assert isinstance(tool, ReportsSends)
    people = [stand_in.add_profile(email=f"p{number}@example.org") for number in range(2_300)]
    campaign = stand_in.add_campaign("Sale", NOW)
    stand_in.send(campaign, people)
    seen: dict[str, str] = {}
    since, pages = NOW - 60, []
    while len(pages) < 5:
        page = await tool.sends(since, line, NOW)
        pages.append(len(page))
        assert len(page) <= 1_000
        assert [one.at for one in page] == sorted(one.at for one in page)
        seen.update({one.provider_key: one.value for one in page})
        if len(page) < 1_000:
            break
        since = page[-1].at
    assert len(pages) == 3
    assert sorted(seen.values()) == sorted(person.keys["email"] for person in people)
    assert (page[0].campaign, page[0].kind, page[0].channel) == ("Sale", "email", "email")
    assert page[0].at == pytest.approx(NOW, abs=0.01)
    assert await tool.sends(NOW + 60, line, NOW) == []
    stand_in.campaigns[0]["recipients"]["list_id"] = "0000000000"
    assert await tool.sends(NOW - 60, line, NOW) == [], "another audience is another destination's"


# --- webhooks --------------------------------------------------------------------------------------------------------

FORM = urlencode(
    {"type": "campaign", "fired_at": "2025-11-24 16:00:00", "data[id]": "c1", "data[subject]": "Sale", "data[status]": "sent"}
).encode()


def request(body: bytes = FORM, at: float = NOW, secret: str = CREDENTIALS["webhook_secret"], header: str | None = None) -> Request:
    signature = hmac.new(secret.encode(), f"{at:.0f}.".encode() + body, hashlib.sha256).hexdigest()
    given = f"t={at:.0f},v1={signature}" if header is None else header
    headers = {"content-type": "application/x-www-form-urlencoded"} | ({"x-mailchimp-signature": given} if given else {})
    return Request("POST", "https://hub.example/in/crm", headers, body)


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (request(), Verdict.GOOD),
        (request(at=NOW - 299), Verdict.GOOD),
        (request(at=NOW - 301), Verdict.BAD),
        (request(at=NOW + 301), Verdict.BAD),
        (request(secret="another"), Verdict.BAD),
        (Request("POST", "https://hub.example/", request().headers, FORM + b"&x=1"), Verdict.BAD),
        (request(header=""), Verdict.UNSIGNED),
        (request(header="nonsense"), Verdict.UNSIGNED),
        (request(header="t=1764000000"), Verdict.UNSIGNED),
        (request(header="t=soon,v1=00"), Verdict.BAD),
        (request(header="t=1764000000,v1=ü"), Verdict.BAD),
    ],
)
def test_webhooks_are_judged_by_their_signature(given: Request, verdict: Verdict) -> None:
    tool = Mailchimp(MailchimpSettings.model_validate({"type": "mailchimp", **CREDENTIALS}), "crm")
    assert isinstance(tool, HearsSends)
    assert tool.verify(given, NOW) is verdict
    keyless = Mailchimp(MailchimpSettings.model_validate({"type": "mailchimp", **CREDENTIALS, "webhook_secret": ""}), "crm")
    assert keyless.verify(given, NOW) is Verdict.NO_KEY


def test_a_campaign_event_tells_of_the_campaign_and_of_no_recipient() -> None:
    tool = Mailchimp(MailchimpSettings.model_validate({"type": "mailchimp", **CREDENTIALS}), "crm")
    [seen] = tool.parse_sends(request())
    assert (seen.campaign_id, seen.campaign, seen.at, seen.value, seen.prevented) == ("c1", "Sale", NOW, "", False)
    [cancelled] = tool.parse_sends(request(FORM.replace(b"=sent", b"=canceled")))
    assert cancelled.prevented
    assert tool.parse_sends(request(FORM.replace(b"type=campaign", b"type=unsubscribe"))) == []
    for broken in (FORM.replace(b"2025", b"soon"), FORM.replace(b"c1", b""), b"type=campaign&x=%FF".replace(b"%FF", b"\xff")):
        with pytest.raises(Unparseable):
            tool.parse_sends(request(broken))
