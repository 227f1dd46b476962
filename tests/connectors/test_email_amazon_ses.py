"""Amazon SES: each of its verdicts weighs what it proves, our key reads our own bucket alone, and mails leave whole.

There are no recordings: the requests are made as Amazon's documentation shows them. Who may post: `test_amazon_sns`.
"""

import base64
import json
from dataclasses import replace
from email import message_from_bytes, policy

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import ValidationError

from connectors.shared.aws_signature import AwsKey, sign
from hub.contract import (
    STATUS_AFTER,
    Channel,
    Checks,
    DeliveryEvent,
    DeliveryUpdate,
    Expands,
    HttpResponse,
    Ignored,
    InboundMessage,
    NoAnswer,
    NotSent,
    OutboundAttachment,
    OutboundMessage,
    Proof,
    Refused,
    TryLater,
    Unknown,
    Unparseable,
)
from hub.http import GuardedHttp
from tests.connectors.amazon_messages import (
    BY_API,
    KEY_ID,
    NOW,
    PLACE,
    SECRET,
    TOPIC,
    Amazon,
    channel,
    posted,
    sns,
)

# --- Mails -----------------------------------------------------------------------------------------------------------

MAIL = b"From: Ana <ana@shop.example>\r\nTo: support@hub.example\r\nSubject: Hello\r\nMessage-ID: <1@shop.example>\r\n\r\nhi \xc3\xbc\r\n"
PASSED = {"spf": "PASS", "dkim": "PASS", "dmarc": "PASS", "spam": "PASS", "virus": "PASS"}


def received(content: str | None = None, action: dict | None = None, source="ana@shop.example", **verdicts) -> dict:
    told = {
        "notificationType": "Received",
        "receipt": {
            "recipients": ["support+tok-1@hub.example"],
            "action": action or {"type": "SNS", "topicArn": TOPIC, "encoding": "UTF8"},
            **{f"{name}Verdict": {"status": status} for name, status in (PASSED | verdicts).items()},
        },
        "mail": {"source": source, "messageId": "d6iitobk75ur44p8kdnnp7g2n800", "destination": ["support+tok-1@hub.example"]},
    }
    return told | ({} if content is None else {"content": content})


def read(told: dict) -> InboundMessage:
    (found,) = channel().parse(posted(sns(told)))
    assert isinstance(found, InboundMessage)
    return found


@pytest.mark.parametrize(
    ("content", "encoding"), [(MAIL.decode(), "UTF8"), (base64.b64encode(MAIL).decode(), "BASE64"), (MAIL.decode(), "")]
)
def test_a_mail_in_the_notification_is_read(content, encoding):
    found = read(received(content, {"type": "SNS", "encoding": encoding}))
    assert (found.text.strip(), found.subject, found.message_id) == ("hi ü", "Hello", "<1@shop.example>")
    assert (found.external_id, found.reply_token, found.original) == ("d6iitobk75ur44p8kdnnp7g2n800", "tok-1", MAIL)
    assert (found.claims[0].proof, found.doubt, found.spam, found.unchecked) == (Proof.DMARC, "", {"flagged": False}, False)


# (verdicts, envelope sender, what From is then worth, a word of the doubt)
JUDGED = [
    ({}, "bounce@mailer.example", Proof.DMARC, ""),
    ({"dmarc": "FAIL"}, "ana@shop.example", Proof.CLAIMED, "DMARC"),
    ({"dmarc": "GRAY"}, "ana@shop.example", Proof.DMARC, ""),  # no policy: SPF passed for the domain in From
    ({"dmarc": "GRAY"}, "bounces@mail.shop.example", Proof.DMARC, ""),
    ({"dmarc": "GRAY"}, "bounce@mailer.example", Proof.CLAIMED, ""),  # DKIM passed, nobody says for whom
    ({"dmarc": "GRAY", "spf": "FAIL"}, "ana@shop.example", Proof.CLAIMED, ""),
    ({"dmarc": "PROCESSING_FAILED", "spf": "GRAY"}, "ana@shop.example", Proof.CLAIMED, ""),
    ({"dmarc": "", "spf": "", "dkim": ""}, "ana@shop.example", Proof.CLAIMED, ""),
    ({"virus": "FAIL"}, "ana@shop.example", Proof.DMARC, "virus"),
]


@pytest.mark.parametrize(("verdicts", "source", "proof", "doubt"), JUDGED)
def test_each_verdict_of_amazon_weighs_what_it_proves(verdicts, source, proof, doubt):
    found = read(received(MAIL.decode(), source=source, **verdicts))
    assert found.claims[0].proof is proof
    assert doubt in found.doubt
    assert bool(found.doubt) is bool(doubt)


@pytest.mark.parametrize(
    ("status", "spam"), [("PASS", {"flagged": False}), ("FAIL", {"flagged": True}), ("GRAY", {}), ("PROCESSING_FAILED", {})]
)
def test_amazons_word_of_spam_is_told(status, spam):
    assert read(received(MAIL.decode(), spam=status)).spam == spam


@pytest.mark.parametrize(
    ("verdicts", "unchecked"),
    [
        ({"dmarc": "GRAY", "spf": "FAIL"}, True),
        ({"dmarc": "GRAY", "spf": "FAIL", "dkim": "FAIL"}, False),
        ({"dmarc": "FAIL"}, False),
        ({}, False),
    ],
)
def test_a_signature_nobody_named_is_checked_after_the_commit(verdicts, unchecked):
    signed = "DKIM-Signature: v=1; a=rsa-sha256; d=shop.example; s=x; h=from; bh=x; b=x\r\n" + MAIL.decode()
    assert read(received(signed, **verdicts)).unchecked is unchecked


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        ("In-Reply-To: <0107018f-3a2b-000000@eu-central-1.amazonses.com>", "0107018f-3a2b-000000"),
        ("References: <0107018f-3a2b-000000@email.amazonses.com> <2@shop.example>", "0107018f-3a2b-000000"),
        ("In-Reply-To: <0107018f-3a2b-000000@amazonses.com.evil.example>", ""),
        ("In-Reply-To: <m2@hub.example>", ""),
        ("X: y", ""),
    ],
)
def test_an_answer_names_our_mail_by_the_id_amazon_gave_it(line, quoted):
    assert read(received(f"{line}\r\n{MAIL.decode()}")).quoted_id == quoted


def test_a_null_envelope_sender_is_a_machines():
    assert read(received(MAIL.decode(), source="<>")).automatic


async def test_the_mails_own_signature_can_be_checked():
    async def nothing(name):
        return []

    (checked,) = await channel().check(posted(sns(received(MAIL.decode()))), NOW, nothing)
    assert checked.proved is None


@pytest.mark.parametrize(
    "told",
    [
        received("no base64", {"type": "SNS", "encoding": "BASE64"}),
        received(None, {"type": "S3", "bucketName": "mails", "objectKey": "k"}),  # expand did not run
    ],
)
def test_a_mail_that_cannot_be_read_is_unparseable(told):
    with pytest.raises(Unparseable):
        channel().parse(posted(sns(told)))


def test_a_body_that_is_no_message_of_sns_names_the_setting():
    with pytest.raises(Unparseable, match="raw message delivery"):
        channel().parse(posted(received(MAIL.decode())))


@pytest.mark.parametrize(
    "message",
    [
        "Successfully validated SNS topic for Amazon SES event publishing.",
        "[" * 100_000,
        {"notificationType": "AmazonSnsSubscriptionSucceeded", "message": "You have successfully subscribed"},
        received(None, {"type": "Lambda"}),
    ],
)
def test_what_is_about_no_mail_is_ignored(message):
    (found,) = channel().parse(posted(sns(message)))
    assert isinstance(found, Ignored)


# --- Mails in S3 -----------------------------------------------------------------------------------------------------

IN_S3 = received(None, {"type": "S3", "bucketName": "mails", "objectKey": "in/d6 ü"})
OBJECT = "https://mails.s3.eu-central-1.amazonaws.com/in/d6%20%C3%BC"


async def test_a_mail_in_our_bucket_is_fetched_with_a_signed_request_and_read():
    made, amazon = channel(**BY_API, s3_bucket="mails"), Amazon()
    amazon.pages[OBJECT] = HttpResponse(200, {}, MAIL)
    (found,) = made.parse(await made.expand(posted(sns(IN_S3)), amazon))
    assert (found.text.strip(), found.original) == ("hi ü", MAIL)
    ((method, url, headers),) = amazon.asked
    assert (method, url) == ("GET", OBJECT)
    assert headers == sign(AwsKey(KEY_ID, SECRET, "eu-central-1", "s3"), "GET", OBJECT, NOW)
    assert SECRET not in str(headers)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"s3_bucket": "mails", "s3_region": "us-east-1"}, "https://mails.s3.us-east-1.amazonaws.com/a/b"),
        ({"s3_bucket": "mails.shop.example"}, "https://s3.eu-central-1.amazonaws.com/mails.shop.example/a/b"),
        ({"s3_bucket": "mails", "s3_region": "cn-north-1"}, "https://mails.s3.cn-north-1.amazonaws.com.cn/a/b"),
    ],
)
def test_where_a_bucket_lies(settings, url):
    assert channel(**BY_API, **settings).settings.object_url("a/b") == url


@pytest.mark.parametrize(
    ("settings", "action"),
    [
        ({"s3_bucket": "mails"}, {"bucketName": "others", "objectKey": "k"}),
        ({"s3_bucket": "mails"}, {"bucketName": "mails", "objectKey": "../others/k"}),
        ({"s3_bucket": "mails"}, {"bucketName": "mails", "objectKey": ""}),
        ({}, {"bucketName": "mails", "objectKey": "k"}),
        ({}, {"bucketName": "", "objectKey": "k"}),
        ({}, {}),
    ],
)
async def test_our_key_reads_no_other_bucket(settings, action):
    amazon = Amazon()
    with pytest.raises(Unparseable):
        await channel(**BY_API, **settings).expand(posted(sns(received(None, {"type": "S3", **action}))), amazon)
    assert amazon.asked == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (HttpResponse(404, {}, b""), Unparseable),
        (HttpResponse(403, {}, b""), TryLater),
        (HttpResponse(503, {}, b""), TryLater),
        (NotSent("x"), TryLater),
        (NoAnswer("x"), TryLater),
    ],
)
async def test_a_mail_that_cannot_be_fetched_is_asked_for_again_or_kept_aside(answer, outcome):
    amazon = Amazon()
    amazon.pages[OBJECT] = answer
    with pytest.raises(outcome):
        await channel(**BY_API, s3_bucket="mails").expand(posted(sns(IN_S3)), amazon)


async def test_nothing_is_fetched_where_there_is_nothing_to_fetch():
    amazon, made = Amazon(), channel(**BY_API, s3_bucket="mails")
    for message in (received(MAIL.decode()), {"eventType": "Send", "mail": {}}, "words", IN_S3 | {"content": MAIL.decode()}):
        sent = posted(sns(message))
        assert await made.expand(sent, amazon) is sent
    assert amazon.asked == []


# --- News ------------------------------------------------------------------------------------------------------------

ABOUT = {
    "messageId": "00000137860315fd",
    "destination": ["ana@shop.example", "cy@shop.example"],
    "commonHeaders": {"messageId": "<m@hub.example>"},
    "tags": {"hub_delivery": ["42"]},
}


def bounced(kind: str, sub: str) -> dict:
    gone = {"emailAddress": "ana@shop.example", "diagnosticCode": "smtp; 550 5.1.1 no such user"}
    return {"bounce": {"bounceType": kind, "bounceSubType": sub, "bouncedRecipients": [gone]}}


BOTH = ["ana@shop.example", "cy@shop.example"]
ONE = ["ana@shop.example"]
# (Amazon's word, its object, what we make of it, of whom, gone for good)
NEWS = [
    ("Send", {"send": {}}, DeliveryEvent.SENT, BOTH, False),
    ("Delivery", {"delivery": {"recipients": ONE}}, DeliveryEvent.DELIVERED, ONE, False),
    ("Bounce", bounced("Permanent", "General"), DeliveryEvent.BOUNCED, ONE, True),
    ("Bounce", bounced("Permanent", "NoEmail"), DeliveryEvent.BOUNCED, ONE, True),
    ("Bounce", bounced("Permanent", "OnAccountSuppressionList"), DeliveryEvent.BOUNCED, ONE, True),
    ("Bounce", bounced("Transient", "MailboxFull"), DeliveryEvent.BOUNCED, ONE, False),
    ("Bounce", bounced("Transient", "General"), DeliveryEvent.BOUNCED, ONE, False),
    ("Bounce", bounced("Undetermined", "Undetermined"), DeliveryEvent.BOUNCED, ONE, False),
    ("Complaint", {"complaint": {"complainedRecipients": [{"emailAddress": "ana@shop.example"}]}}, DeliveryEvent.COMPLAINED, ONE, False),
    ("Reject", {"reject": {"reason": "Bad content"}}, DeliveryEvent.REJECTED, BOTH, False),
    ("Rendering Failure", {"failure": {"errorMessage": "no attribute"}}, DeliveryEvent.REJECTED, BOTH, False),
    (
        "DeliveryDelay",
        {"deliveryDelay": {"delayType": "MailboxFull", "delayedRecipients": [{"emailAddress": "ana@shop.example"}]}},
        DeliveryEvent.DEFERRED,
        ONE,
        False,
    ),
    ("Open", {"open": {}}, DeliveryEvent.OPENED, BOTH, False),
    ("Click", {"click": {"link": "https://x.example"}}, DeliveryEvent.CLICKED, BOTH, False),
    ("Subscription", {"subscription": {"newTopicPreferences": {"unsubscribeAll": True}}}, DeliveryEvent.UNSUBSCRIBED, BOTH, False),
    ("Subscription", {"subscription": {"newTopicPreferences": {"unsubscribeAll": False}}}, DeliveryEvent.OTHER, BOTH, False),
    ("Something new", {}, DeliveryEvent.OTHER, BOTH, False),
]


@pytest.mark.parametrize("shape", ["notificationType", "eventType"])
@pytest.mark.parametrize(("word", "about", "ours", "whom", "permanent"), NEWS)
def test_each_word_of_amazon_has_one_of_ours_in_both_shapes(shape, word, about, ours, whom, permanent):
    found = channel().parse(posted(sns({shape: word, "mail": ABOUT, **about})))
    assert all(isinstance(update, DeliveryUpdate) for update in found)
    assert [update.recipient for update in found] == whom
    assert {(update.event, update.status, update.permanent) for update in found} == {(ours, STATUS_AFTER[ours], permanent)}
    assert {(update.provider_message_id, update.mail_id, update.delivery_id) for update in found} == {
        ("00000137860315fd", "<m@hub.example>", 42)
    }
    assert len({update.provider_key for update in found}) == len(whom)
    failed = ours in (DeliveryEvent.BOUNCED, DeliveryEvent.REJECTED, DeliveryEvent.DEFERRED)
    assert all(bool(update.error) is failed for update in found)


def test_an_error_has_the_other_servers_words():
    (update,) = channel().parse(posted(sns({"eventType": "Bounce", "mail": ABOUT, **bounced("Permanent", "General")})))
    assert update.error == "Bounce: Permanent General: smtp; 550 5.1.1 no such user"


def test_the_same_news_delivered_again_has_the_same_keys():
    message = sns({"eventType": "Send", "mail": ABOUT})
    first, again = ([update.provider_key for update in channel().parse(posted(message))] for _ in range(2))
    assert first == again
    other = sns({"eventType": "Send", "mail": ABOUT}, MessageId="another")
    assert not {update.provider_key for update in channel().parse(posted(other))} & set(first)


@pytest.mark.parametrize(
    "mail",
    [{}, {"destination": "x"}, {"destination": [{}, None, 7]}, {"tags": []}, {"tags": {"hub_delivery": ["x"]}}, {"commonHeaders": 1}],
)
def test_news_with_odd_fields_is_still_news(mail):
    (update,) = channel().parse(posted(sns({"eventType": "Send", "mail": mail})))
    assert (update.event, update.recipient, update.delivery_id) == (DeliveryEvent.SENT, "", None)


# --- The way out -----------------------------------------------------------------------------------------------------


def outbound(**changed) -> OutboundMessage:
    file = OutboundAttachment("a.txt", "text/plain", 1, lambda: b"x", "https://hub.example/f")
    known = OutboundMessage(
        delivery_id=42,
        to="ana@shop.example",
        text="Hello Ana",
        subject="Re: Hello",
        message_id="<m2@hub.example>",
        in_reply_to="<1@shop.example>",
        reply_token="tok-1",
        attachments=(file,),
        cc=("cy@shop.example",),
    )
    return replace(known, **changed)


class Provider:
    """SES's API on loopback: keeps what came, answers what it is told to."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answer = lambda: web.json_response({"MessageId": "0107018f"})

    async def take(self, request: web.Request) -> web.Response:
        self.seen.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return self.answer()


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_post("/v2/email/outbound-emails", made.take)
    async with TestServer(app, host="127.0.0.1") as server:
        made.url = str(server.make_url("")).rstrip("/")
        yield made


@pytest.fixture
async def http():
    client = GuardedHttp(["127.0.0.1"])
    yield client
    await client.close()


async def test_a_mail_leaves_whole_signed_and_marked_as_ours(provider, http):
    made = channel(**BY_API, base_url=provider.url, configuration_set="support", smtp=None)
    sent = await made.send(outbound(), http)
    assert sent.provider_message_id == "0107018f"
    ((headers, body),) = provider.seen
    asked = json.loads(body)
    assert asked["FromEmailAddress"] == "support@hub.example"
    assert asked["Destination"] == {"ToAddresses": ["ana@shop.example"], "CcAddresses": ["cy@shop.example"]}
    assert asked["EmailTags"] == [{"Name": "hub_delivery", "Value": "42"}]
    assert asked["ConfigurationSetName"] == "support"
    mail = message_from_bytes(base64.b64decode(asked["Content"]["Raw"]["Data"]), policy=policy.default)
    assert (mail["message-id"], mail["reply-to"], mail["in-reply-to"]) == (
        "<m2@hub.example>",
        "support+tok-1@hub.example",
        "<1@shop.example>",
    )
    assert mail.get_body(("plain",)).get_content().strip() == "Hello Ana"
    assert [part.get_filename() for part in mail.iter_attachments()] == ["a.txt"]
    url = f"{provider.url}/v2/email/outbound-emails"
    expected = sign(AwsKey(KEY_ID, SECRET, "eu-central-1", "ses"), "POST", url, NOW, {"content-type": "application/json"}, body)
    assert {name: headers[name] for name in expected} == expected  # as they arrived: host and date are what was signed


def test_where_ses_is_asked():
    assert channel(**BY_API).settings.send_url == "https://email.eu-central-1.amazonaws.com/v2/email/outbound-emails"


@pytest.mark.parametrize("bad", [{"to": "nobody"}, {"subject": "a\r\nBcc: x@y.example"}, {"cc": ("x",)}, {"message_id": "no id"}])
async def test_what_could_start_a_header_of_its_own_never_leaves(provider, http, bad):
    with pytest.raises(Refused):
        await channel(**BY_API, base_url=provider.url).send(outbound(**bad), http)
    assert provider.seen == []


@pytest.mark.parametrize(
    ("status", "kind", "outcome", "words"),
    [
        (400, "MessageRejected", Refused, "MessageRejected"),
        (400, "BadRequestException:http://internal.amazon.com/coral/com.amazonaws.sesv2/", Refused, "BadRequestException"),
        (400, "LimitExceededException", TryLater, "later"),
        (400, "Throttling", TryLater, "later"),
        (429, "TooManyRequestsException", TryLater, "later"),
        (403, "SignatureDoesNotMatch", Refused, "access_key_id"),
        (404, "NotFoundException", Refused, "NotFoundException"),
        (500, "InternalFailure", Unknown, "may or may not"),
        (503, "ServiceUnavailable", Unknown, "may or may not"),
    ],
)
async def test_each_answer_means_one_thing(provider, http, status, kind, outcome, words):
    provider.answer = lambda: web.json_response({"message": "why"}, status=status, headers={"x-amzn-ErrorType": kind})
    with pytest.raises(outcome, match=words) as caught:
        await channel(**BY_API, base_url=provider.url).send(outbound(), http)
    assert "why" in str(caught.value)
    assert SECRET not in str(caught.value)


async def test_an_answer_that_names_no_message_is_unknown(provider, http):
    provider.answer = lambda: web.Response(text="<html>")
    with pytest.raises(Unknown):
        await channel(**BY_API, base_url=provider.url).send(outbound(), http)


@pytest.mark.parametrize(("lost", "outcome"), [(NotSent("x"), TryLater), (NoAnswer("x"), Unknown)])
async def test_a_lost_answer_is_unknown_and_a_refused_connection_is_tried_again(lost, outcome):
    amazon, made = Amazon(), channel(**BY_API)
    amazon.pages[made.settings.send_url] = lost
    with pytest.raises(outcome):
        await made.send(outbound(), amazon)


# --- Settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"topics": ()}, "topics"),
        ({"topics": ("support-mail",)}, "topics"),
        ({"topics": (TOPIC, "arn:aws:sns:*:*:*")}, "topics"),
        ({"smtp": None}, "secret_access_key"),
        ({"access_key_id": "x"}, "both or neither"),
        ({**BY_API, "region": "eu"}, "region"),
        ({**BY_API, "region": "evil.example/"}, "region"),
        ({**BY_API, "s3_region": "x.evil.example"}, "s3_region"),
        ({"s3_bucket": "mails"}, "s3_bucket"),
        ({**BY_API, "s3_bucket": "evil.example/"}, "s3_bucket"),
        ({**BY_API, "base_url": "http://email.eu-central-1.amazonaws.com"}, "https"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_names_itself(extra, words):
    with pytest.raises(ValidationError, match=words) as caught:
        channel(**extra)
    assert SECRET not in str(caught.value)


def test_it_is_a_channel_as_the_contract_says():
    made = channel(**BY_API)
    assert isinstance(made, Channel)
    assert isinstance(made, Expands)
    assert isinstance(made, Checks)
    assert SECRET not in repr(made.settings)
    assert not made.is_sandbox()
    assert channel(**BY_API, base_url="http://127.0.0.1:9").is_sandbox()
    # SNS gives up on a 4xx: nothing is lost while the first messages show that a setting is wrong.
    assert (made.answers.bad_signature, made.answers.bad_signature_until_verified) == (403, 503)
    assert made.to_paste()[0][1] == PLACE.inbound_url
