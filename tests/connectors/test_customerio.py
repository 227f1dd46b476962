"""Customer.io: attributes, the hold segment, messages and webhooks, against a stand-in that the vendor's own client agrees with."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import customerio
import pytest
from pydantic import ValidationError
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from connectors.customerio import CustomerIo, CustomerIoSettings
from connectors.customerio.api import HOSTS, Api
from connectors.customerio.people import attributes_of, iso_of
from connectors.sandbox.tools.customerio import SIGNING_KEY, SITE_ID, TRACK_KEY, CustomerIoStandIn
from hub.contract import Http, HttpResponse, Refused, Request, TryLater, Unparseable, Verdict
from hub.http import GuardedHttp
from hub.marketing import Fate, HearsSends, Marked, ReportsSends, SendSeen, WatchesCampaigns
from tests.connectors.tool_conformance import DAY, NOW, Clock, Line, ToolConformance, iso, wish

CREDENTIALS = CustomerIoStandIn.credentials


class TestCustomerIoConforms(ToolConformance):
    tool = "customerio"


class Heard:
    """The line, keeping what was sent."""

    def __init__(self, http: Http) -> None:
        self.http = http
        self.calls: list[tuple[str, str, Any]] = []

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        self.calls.append((method, url, json.loads(more.get("body") or b"null")))
        return await self.http.request(method, url, **more)


@pytest.fixture
async def stand_in() -> AsyncIterator[CustomerIoStandIn]:
    stand_in = CustomerIoStandIn(Clock())
    await stand_in.start()
    yield stand_in
    await stand_in.stop()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    client = GuardedHttp(["127.0.0.1"])
    yield Line(client)
    await client.close()


def build(stand_in: CustomerIoStandIn, **settings: Any) -> CustomerIo:
    given = {"type": "customerio", "base_url": stand_in.url, **CREDENTIALS, **settings}
    return CustomerIo(CustomerIoSettings.model_validate(given), "crm")


class Unencrypted(HTTPAdapter):
    """The vendor's client speaks https alone; the stand-in does not."""

    def send(self, request: PreparedRequest, *args: Any, **more: Any) -> Response:
        request.url = str(request.url).replace("https://", "http://", 1)
        return super().send(request, *args, **more)


def client(stand_in: CustomerIoStandIn) -> customerio.CustomerIO:
    address = urlsplit(stand_in.url)
    made = customerio.CustomerIO(SITE_ID, TRACK_KEY, host=address.hostname, port=address.port, retries=0)
    made.http.mount("https://", Unencrypted())
    return made


async def ask(stand_in: CustomerIoStandIn, call: Callable[[customerio.CustomerIO], Any]) -> Any:
    """Something of the vendor's client, its connections closed after it."""

    def run() -> Any:
        with client(stand_in) as made:
            return call(made)

    return await asyncio.to_thread(run)


# --- the vendor's own client as judge --------------------------------------------------------------------------------


async def test_the_vendors_client_sets_and_clears_in_the_stand_in_what_our_connector_reads(stand_in: CustomerIoStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann+news@example.org", external_id="c/1")
    tool, until = build(stand_in), int(NOW + DAY)
    for number, (name, held) in enumerate([("ann+news@example.org", True), ("c/1", False), (f"cio_{profile.id}", True)]):
        attributes = {"support_hold": held, "support_hold_until": until if held else "", "_update": True}
        await ask(stand_in, lambda made, name=name, attributes=attributes: made.identify(name, **attributes))
        [back] = await tool.read([wish("email", "ann+news@example.org")], line, NOW)
        assert (back.held, back.until, back.effective) == (held, iso(until) if held else "", True), number
    assert stand_in.failures == []
    assert len(stand_in.profiles) == 1


async def test_the_vendors_client_sends_our_connectors_batch_and_the_stand_in_takes_it(stand_in: CustomerIoStandIn, line: Line) -> None:
    for keys in ({"email": "ann@example.org"}, {"external_id": "c_1"}, {"phone": "+14155550001"}):
        stand_in.add_profile(**keys)
    heard = Heard(line)
    wishes = [wish("email", "ann@example.org"), wish("external_id", "c_1"), wish("phone", "+14155550001")]
    await build(stand_in).mark(wishes, heard, NOW)
    [batch] = [body["batch"] for method, url, body in heard.calls if url.endswith("/api/v2/batch")]
    done, before = [(one["profile"], one["attributes"]) for one in stand_in.writes], [dict(one.attributes) for one in stand_in.profiles]
    stand_in.writes.clear()
    for one in stand_in.profiles:
        stand_in.meddle(one, {}, tuple(one.attributes))
    answer = await ask(stand_in, lambda made: made.batch(batch))
    assert answer.status_code == 200
    assert [(one["profile"], one["attributes"]) for one in stand_in.writes] == done
    assert [one.attributes for one in stand_in.profiles] == before


async def test_the_vendors_client_is_told_by_207_which_item_was_not_taken(stand_in: CustomerIoStandIn) -> None:
    stand_in.add_profile(email="ann@example.org")
    good = {"type": "person", "action": "identify", "identifiers": {"email": "ann@example.org"}, "attributes": {"support_hold": True}}
    answer = await ask(stand_in, lambda made: made.batch([good | {"identifiers": {}}, good]))
    assert answer.status_code == 207
    assert [error["batch_index"] for error in answer.json()["errors"]] == [0]
    assert stand_in.profiles[0].attributes == {"support_hold": True}


async def test_the_vendors_client_with_a_wrong_key_is_refused_by_the_stand_in(stand_in: CustomerIoStandIn) -> None:
    stand_in.quirks.track_revoked = True
    with pytest.raises(customerio.CustomerIOException, match="401"):
        await ask(stand_in, lambda made: made.identify("c_1", support_hold=True))


async def test_the_stand_in_serves_no_call_that_deletes_or_suppresses(stand_in: CustomerIoStandIn) -> None:
    stand_in.add_profile(external_id="c_1")
    for call in (lambda made: made.suppress("c_1"), lambda made: made.unsuppress("c_1"), lambda made: made.delete("c_1")):
        with pytest.raises(customerio.CustomerIOException, match="404"):
            await ask(stand_in, call)
    assert len(stand_in.profiles) == 1


def test_the_hosts_are_those_of_the_vendors_client() -> None:
    for region in (customerio.Regions.US, customerio.Regions.EU):
        assert HOSTS[region.name] == (f"https://{region.track_host}", f"https://{region.api_host}")


# --- writing ---------------------------------------------------------------------------------------------------------


async def test_nobody_is_made_by_a_person_who_is_gone_before_the_write(stand_in: CustomerIoStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")

    class Deleting(Heard):
        async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
            if url.endswith("/batch"):
                stand_in.profiles.remove(profile)
            return await super().request(method, url, **more)

    tool = build(stand_in)
    [marked] = await tool.mark([wish("email", "ann@example.org")], Deleting(line), NOW)
    assert marked.fate is Fate.ACCEPTED, "Customer.io says nothing of it"
    assert (stand_in.profiles, len(stand_in.failures)) == ([], 1)
    [back] = await tool.read([wish("email", "ann@example.org")], line, NOW)
    assert not back.present, "reading it back does"


async def test_a_change_overtaken_on_its_way_does_not_undo_the_later_one(stand_in: CustomerIoStandIn, line: Line) -> None:
    """Two processes looked before either wrote."""
    profile = stand_in.add_profile(email="ann@example.org")
    tool, heard = build(stand_in), Heard(line)
    await tool.mark([wish("email", "ann@example.org", version=1)], heard, NOW)
    await tool.mark([wish("email", "ann@example.org", held=False, version=2)], heard, NOW + 5)
    first = next(body for method, url, body in heard.calls if url.endswith("/batch"))
    answer = await ask(stand_in, lambda made: made.batch(first["batch"]))
    assert answer.status_code == 200, "nor does it say anything of that"
    assert (profile.attributes["support_hold"], profile.attributes["support_hold_version"]) == (False, 2)


async def test_one_that_spoils_the_batch_is_refused_alone(stand_in: CustomerIoStandIn, line: Line) -> None:
    for number in range(3):
        stand_in.add_profile(email=f"ann{number}@example.org")
    stand_in.quirks.spoiled_batch = True
    stand_in.quirks.refused.add("ann1@example.org")
    answers = await build(stand_in).mark([wish("email", f"ann{number}@example.org") for number in range(3)], line, NOW)
    assert [marked.fate for marked in answers] == [Fate.ACCEPTED, Fate.REFUSED, Fate.ACCEPTED]
    assert "ann1" not in answers[1].error


async def test_a_refused_item_says_why_without_the_address(stand_in: CustomerIoStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    stand_in.quirks.refused.add("ann@example.org")
    [marked] = await build(stand_in).mark([wish("email", "ann@example.org")], line, NOW)
    assert marked.error == "Customer.io refuses this person: invalid, identifiers."


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            wish("email", "a@example.org", version=5, traits={"support_resolved_at": iso(NOW), "support_optouts": None}),
            {"support_hold": True, "support_hold_until": int(NOW + 7 * DAY), "support_resolved_at": int(NOW), "support_optouts": ""},
        ),
        (
            wish("email", "a@example.org", held=False, version=5, traits={"support_status": "resolved", "support_open_tickets": 0}),
            {"support_hold": False, "support_hold_until": "", "support_hold_reason": "", "support_open_tickets": 0},
        ),
    ],
)
def test_times_are_written_in_unix_seconds_and_nothing_of_consent(asked: Any, said: dict[str, Any]) -> None:
    written = attributes_of(asked)
    assert {name: written[name] for name in said} == said
    assert written["support_hold_version"] == 5
    assert all(name.startswith("support_") for name in written)


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("1764000000", "2025-11-24T16:00:00Z"),
        ("2025-11-24T16:00:00Z", "2025-11-24T16:00:00Z"),
        ("", ""),
        ("soon", "soon"),
        ("9e99", "9e99"),
    ],
)
def test_a_time_somebody_else_wrote_is_shown_as_far_as_it_is_one(kept: str, shown: str) -> None:
    assert iso_of(kept) == shown


async def test_the_track_keys_refusal_names_its_own_setting(stand_in: CustomerIoStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    stand_in.quirks.track_revoked = True
    tool = build(stand_in)
    with pytest.raises(Refused, match=r"Track API \(401\).*destinations\.crm\.api_key, and with it site_id"):
        await tool.mark([wish("email", "ann@example.org")], line, NOW)
    checks = await tool.test(line, NOW)
    assert [check.name for check in checks if not check.ok] == ["Track API key"]
    with pytest.raises(Refused, match="Track"):
        await tool.prepare(line, NOW)


# --- who is who ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", ["ann+news@example.org", "ann%2Bnews@example.org"])
async def test_only_an_encoded_address_is_somebody(stand_in: CustomerIoStandIn, line: Line, raw: str) -> None:
    """The quirk itself: 200 with nobody in it."""
    stand_in.add_profile(email="ann+news@example.org")
    headers = {"authorization": f"Bearer {CREDENTIALS['app_api_key']}"}
    answer = await line.request("GET", f"{stand_in.url}/v1/customers?email={raw}", headers=headers)
    assert answer.status == 200
    assert len(json.loads(answer.body)["results"]) == ("%2B" in raw)


async def test_an_address_that_is_no_identifier_there_holds_everybody_who_bears_it(stand_in: CustomerIoStandIn, line: Line) -> None:
    both = [stand_in.add_profile(email="family@example.org", external_id=id) for id in ("c_1", "c_2")]
    tool = build(stand_in)
    [marked] = await tool.mark([wish("email", "family@example.org")], line, NOW)
    assert marked == Marked(fate=Fate.ACCEPTED, profile=both[0].id)
    assert [one.attributes["support_hold"] for one in both] == [True, True]
    stand_in.meddle(both[1], {"support_hold": False})
    [back] = await tool.read([wish("email", "family@example.org")], line, NOW)
    assert (back.held, back.effective) == (False, True)


async def test_an_address_that_many_bear_says_nothing_about_one(stand_in: CustomerIoStandIn, line: Line) -> None:
    for number in range(11):
        stand_in.add_profile(email="info@example.org", external_id=f"c_{number}")
    [marked] = await build(stand_in).mark([wish("email", "info@example.org")], line, NOW)
    assert (marked.fate, "11 or more people" in marked.error) == (Fate.REFUSED, True)
    assert stand_in.writes == []


async def test_a_phone_that_is_no_identifier_there_is_found_by_its_attribute(stand_in: CustomerIoStandIn, line: Line) -> None:
    stand_in.quirks.no_phone_identifier = True
    profile = stand_in.add_profile(external_id="c_1", phone="+14155550001")
    tool = build(stand_in)
    one, two = await tool.mark([wish("phone", "+14155550001"), wish("external_id", "c_1")], line, NOW)
    assert one == two == Marked(fate=Fate.ACCEPTED, profile=profile.id)
    assert len(stand_in.writes) == 1


async def test_an_identifier_the_workspace_does_not_take_is_refused_alone(stand_in: CustomerIoStandIn, line: Line) -> None:
    stand_in.quirks.no_phone_identifier = True
    stand_in.add_profile(phone="+14155550001")  # found, but by nothing that it could be written by
    stand_in.add_profile(email="ann@example.org")
    tool = build(stand_in)
    wishes = [wish("phone", "+14155550001"), wish("email", "ann@example.org")]
    one, two = await tool.mark(wishes, line, NOW)
    assert (one.fate, two.fate) == (Fate.REFUSED, Fate.ACCEPTED)
    assert [back.present for back in await tool.read(wishes, line, NOW)] == [False, True]


# --- the segment -----------------------------------------------------------------------------------------------------


async def test_a_lease_that_ran_out_frees_its_person_in_the_segment(stand_in: CustomerIoStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    tool, asked = build(stand_in), wish("email", "ann@example.org")
    await tool.mark([asked], line, NOW)
    [back] = await tool.read([asked], line, NOW)
    assert (back.held, back.effective) == (True, True)
    stand_in.clock.now += 8 * DAY  # type: ignore[attr-defined]
    [back] = await tool.read([asked], line, NOW + 8 * DAY)
    assert (back.held, back.effective) == (True, True), "the segment shows what the lease says"


async def test_a_hold_whose_time_is_in_the_wrong_form_is_not_effective(stand_in: CustomerIoStandIn, line: Line) -> None:
    profile = stand_in.add_profile(email="ann@example.org")
    stand_in.meddle(profile, {"support_hold": True, "support_hold_until": iso(NOW + DAY)})
    [back] = await build(stand_in).read([wish("email", "ann@example.org")], line, NOW)
    assert (back.held, back.effective) == (True, False)


async def test_without_the_segment_nothing_is_said_about_effect(stand_in: CustomerIoStandIn, line: Line) -> None:
    stand_in.add_profile(email="ann@example.org")
    tool, asked = build(stand_in), wish("email", "ann@example.org")
    await tool.mark([asked], line, NOW)
    made = stand_in.segments.pop()
    assert (await tool.read([asked], line, NOW))[0].effective is None
    checks = {check.name: check for check in await tool.prepare(line, NOW)}
    assert not checks["Hold segment"].ok, "the API makes none that attributes move"
    stand_in.segments.append(made | {"name": "SUPPORT HOLD ", "type": "manual"})
    checks = {check.name: check for check in await tool.test(line, NOW)}
    assert "manual" in checks["Hold segment"].text
    stand_in.segments[-1] = made
    assert (await tool.read([asked], line, NOW))[0].effective is True
    stand_in.segments[-1] = made | {"id": 8}  # deleted and made anew
    assert [(await tool.read([asked], line, NOW))[0].effective for _ in range(2)] == [False, True]


# --- what was sent ---------------------------------------------------------------------------------------------------


async def test_what_was_sent_is_told_with_its_recipient_and_campaign(stand_in: CustomerIoStandIn, line: Line) -> None:
    tool = build(stand_in)
    assert isinstance(tool, ReportsSends)
    assert not isinstance(tool, WatchesCampaigns), "nothing there tells what is scheduled"
    ann = stand_in.add_profile(email="ann@example.org", phone="+14155550001", external_id="c_1")
    weekly = stand_in.add_newsletter("Weekly offers")
    stand_in.send([ann], weekly)
    stand_in.clock.now += 60  # type: ignore[attr-defined]
    stand_in.send([ann], None, campaign_id=23, kind="twilio")
    stand_in.send([ann])  # a receipt: transactional
    stand_in.send([ann], weekly, kind="webhook")
    stand_in.send([ann], weekly, kind="push", recipient=None)
    mail, push, sms = sorted(await tool.sends(NOW - 10, line, NOW + 60), key=lambda one: (one.at, one.channel))
    assert mail == SendSeen(
        provider_key="RPILAgUB00000001=",
        at=NOW,
        kind="email",
        value="ann@example.org",
        profile=ann.id,
        channel="email",
        campaign_id=f"newsletters/{weekly}",
        campaign="Weekly offers",
    )
    assert (push.kind, push.value, push.channel) == ("external_id", "c_1", "push")
    assert (sms.kind, sms.value, sms.channel, sms.campaign_id, sms.campaign) == ("phone", "+14155550001", "sms", "campaigns/23", "")
    assert [one.at for one in await tool.sends(NOW + 1, line, NOW + 60)] == [NOW + 60, NOW + 60]
    assert "offers" not in repr([one for one in (mail, push, sms) if one.campaign == ""]).lower(), "no subject, no text"


async def test_more_than_a_page_is_told_the_oldest_first_and_read_on(stand_in: CustomerIoStandIn, line: Line) -> None:
    """1,500 marketing messages behind 3,000 receipts: a page of the newest would hide the oldest."""
    tool, clock = build(stand_in), stand_in.clock
    ann = stand_in.add_profile(email="ann@example.org")
    weekly = stand_in.add_newsletter("Weekly offers")
    for second in range(300):
        clock.now = NOW + second  # type: ignore[attr-defined]
        stand_in.send([ann] * 5, weekly)
        stand_in.send([ann] * 10)
    first = await tool.sends(NOW, line, NOW + 300)
    assert len(first) == 1_000
    assert [one.at for one in first] == sorted(one.at for one in first)
    second = await tool.sends(first[-1].at, line, NOW + 300)
    assert len({one.provider_key for one in (*first, *second)}) == 1_500
    assert len(second) < 1_000, "which says that there are no more"
    assert sum(call[1] == "/v1/messages" for call in stand_in.calls) < 40


async def test_a_second_with_more_than_can_be_told_is_left_behind(stand_in: CustomerIoStandIn, line: Line) -> None:
    ann = stand_in.add_profile(email="ann@example.org")
    stand_in.send([ann] * 1_200, stand_in.add_newsletter("Weekly offers"))
    assert len(await build(stand_in).sends(NOW - 5, line, NOW + 5)) == 1_000


# --- webhooks --------------------------------------------------------------------------------------------------------


def request(headers: dict[str, str], body: bytes) -> Request:
    return Request(method="POST", url="https://hub.example/tools/crm/hooks", headers=headers, body=body)


async def test_a_webhook_tells_the_same_message_that_asking_does(stand_in: CustomerIoStandIn, line: Line) -> None:
    tool = build(stand_in)
    assert isinstance(tool, HearsSends)
    ann = stand_in.add_profile(email="ann@example.org", phone="+14155550001", external_id="c_1")
    weekly = stand_in.add_newsletter("Weekly offers")
    sent = [*stand_in.send([ann], weekly), *stand_in.send([ann], weekly, kind="twilio"), *stand_in.send([ann], weekly, kind="in_app")]
    asked = await tool.sends(NOW, line, NOW)
    told = []
    for message in sent:
        hook = request(*stand_in.webhook(message))
        assert tool.verify(hook, NOW) is Verdict.GOOD
        told += tool.parse_sends(hook)
    # A webhook bears ids alone; the one that comes first is what is kept.
    assert told == [replace(one, campaign="") for one in asked]


async def test_other_metrics_and_transactional_messages_are_left_out(stand_in: CustomerIoStandIn) -> None:
    tool = build(stand_in)
    ann = stand_in.add_profile(email="ann@example.org")
    [receipt] = stand_in.send([ann])
    assert tool.parse_sends(request(*stand_in.webhook(receipt))) == []
    [letter] = stand_in.send([ann], 10)
    for metric in ("drafted", "attempted", "delivered", "opened", "unsubscribed"):
        assert tool.parse_sends(request(*stand_in.webhook(letter, metric))) == []
    both = letter | {"transactional_message_id": 3}
    assert tool.parse_sends(request({}, json.dumps({"metric": "sent", "object_type": "email", "data": both}).encode())) == []
    consent = {"metric": "subscribed", "object_type": "customer", "event_id": "1", "timestamp": 1, "data": {"customer_id": "1"}}
    assert tool.parse_sends(request({}, json.dumps(consent).encode())) == []


async def test_a_signature_is_over_version_time_and_body(stand_in: CustomerIoStandIn) -> None:
    tool = build(stand_in)
    [letter] = stand_in.send([stand_in.add_profile(email="ann@example.org")], 10)
    headers, body = stand_in.webhook(letter)
    cases: list[tuple[str, dict[str, str], bytes, float, Verdict]] = [
        ("as signed", headers, body, NOW, Verdict.GOOD),
        ("tried again for seven days", headers, body, NOW + 7 * DAY, Verdict.GOOD),
        ("in capitals", headers | {"x-cio-signature": headers["x-cio-signature"].upper()}, body, NOW, Verdict.GOOD),
        ("too old", headers, body, NOW + 9 * DAY, Verdict.BAD),
        ("from the future", headers, body, NOW - 9 * DAY, Verdict.BAD),
        ("another body", headers, body + b" ", NOW, Verdict.BAD),
        ("another time", headers | {"x-cio-timestamp": str(int(NOW) + 1)}, body, NOW, Verdict.BAD),
        ("no time", headers | {"x-cio-timestamp": "soon"}, body, NOW, Verdict.BAD),
        ("other digits", headers | {"x-cio-timestamp": "١٧٦٤٠٠٠٠٠٠"}, body, NOW, Verdict.BAD),
        ("no signature of ASCII", headers | {"x-cio-signature": "ä"}, body, NOW, Verdict.BAD),
        ("another key", *stand_in.webhook(letter, key=SIGNING_KEY + "x"), NOW, Verdict.BAD),
        ("unsigned", {}, body, NOW, Verdict.UNSIGNED),
        ("half signed", {"x-cio-signature": headers["x-cio-signature"]}, body, NOW, Verdict.UNSIGNED),
    ]
    for name, given, said, now, verdict in cases:
        assert tool.verify(request(given, said), now) is verdict, name
    assert build(stand_in, webhook_signing_key="").verify(request(headers, body), NOW) is Verdict.NO_KEY


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"metric": "sent"}',
        b'{"metric": 1, "data": {}}',
        b'{"metric": "sent", "object_type": "email", "timestamp": 1, "data": {"newsletter_id": 1}}',
        b'{"metric": "sent", "object_type": "email", "timestamp": "x", "data": {"newsletter_id": 1, "delivery_id": "d"}}',
    ],
)
def test_a_webhook_that_cannot_be_understood_says_so(body: bytes) -> None:
    tool = CustomerIo(CustomerIoSettings.model_validate({"type": "customerio", **CREDENTIALS}), "crm")
    with pytest.raises(Unparseable, match=r"Customer\.io"):
        tool.parse_sends(request({}, body))


# --- set-up and settings ---------------------------------------------------------------------------------------------


class Answering:
    """A network that answers everything alike."""

    def __init__(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.answer = HttpResponse(status=status, headers=headers or {}, body=body)
        self.urls: list[str] = []

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        self.urls.append(url)
        return self.answer


class Limited:
    """A network that takes no call until it was let be for a while."""

    def __init__(self, times: int, wait: str) -> None:
        self.times, self.wait, self.calls = times, wait, 0

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        self.calls += 1
        limited = self.calls <= self.times
        return HttpResponse(status=429 if limited else 200, headers={"retry-after": self.wait} if limited else {}, body=b"{}")


@pytest.mark.parametrize(
    ("times", "wait", "waited", "raised"),
    [
        (0, "1", 0, None),
        (3, "1", 3, None),  # ten calls a second are allowed, fifty people are more: begun anew each time it would never end
        (1_000, "1", 40, 1.0),
        (1, "30", 0, 30.0),
        (1, "", 0, None),  # a daily quota: no wait is named
    ],
)
async def test_short_waits_are_waited_and_long_ones_told(times: int, wait: str, waited: int, raised: float | None) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    given = CustomerIoSettings.model_validate({"type": "customerio", **CREDENTIALS})
    network = Limited(times, wait)
    api = Api(network, HOSTS["us"], given.site_id, given.api_key, given.app_api_key, "crm", pause)
    if raised is None and wait:
        assert await api.app("GET", "/v1/segments") == {}
    else:
        with pytest.raises(TryLater) as caught:
            await api.app("GET", "/v1/segments")
        assert caught.value.retry_after == raised
    assert pauses == [1.0] * waited


async def test_fifty_people_are_read_in_few_calls(stand_in: CustomerIoStandIn, line: Line) -> None:
    wishes = [wish("email", f"ann{number}@example.org") for number in range(50)]
    for one in wishes:
        stand_in.add_profile(email=one.value)
    tool = build(stand_in)
    await tool.mark(wishes, line, NOW)
    stand_in.calls.clear()
    assert {back.effective for back in await tool.read(wishes, line, NOW)} == {True}
    assert len(stand_in.calls) == 50 * 2 + 2


@pytest.mark.parametrize(
    ("status", "body", "raised", "said"),
    [
        (301, b"", Refused, r"destinations\.crm\.region"),
        (403, b"", Refused, r"destinations\.crm\.app_api_key"),
        (200, b"<html>", TryLater, "not JSON"),
        (200, b"[]", TryLater, "not JSON"),
        (408, b"", TryLater, "its own end"),
    ],
)
async def test_an_odd_answer_is_never_taken_for_nobody(status: int, body: bytes, raised: type[Exception], said: str) -> None:
    tool = CustomerIo(CustomerIoSettings.model_validate({"type": "customerio", **CREDENTIALS}), "crm")
    for call in (tool.mark, tool.read):
        with pytest.raises(raised, match=said):
            await call([wish("email", "ann@example.org")], Answering(status, body), NOW)


async def test_the_region_chooses_the_hosts_and_a_wrong_one_is_named() -> None:
    tool = CustomerIo(CustomerIoSettings.model_validate({"type": "customerio", "region": "eu", **CREDENTIALS}), "crm")
    network = Answering(200, b'{"region": "us"}')
    checks = await tool.test(network, NOW)
    assert {urlsplit(url).hostname for url in network.urls} == {"track-eu.customer.io", "api-eu.customer.io"}
    assert not checks[0].ok
    assert "region us. Mend destinations.crm.region" in checks[0].text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"api_key": "two words"}, "api_key"),
        ({"app_api_key": ""}, "app_api_key"),
        ({"site_id": ""}, "site_id"),
        ({"region": "de"}, "region"),
        ({"base_url": "http://track.example"}, "https"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CustomerIoSettings.model_validate({"type": "customerio", **CREDENTIALS, **settings})
