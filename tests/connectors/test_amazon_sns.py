"""Amazon SNS: only a message that our own topic signed is taken, and only Amazon's own hosts are asked about it."""

from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from connectors.shared.amazon_sns import is_certificate_url, is_confirming_url, string_to_sign
from hub.contract import (
    HttpResponse,
    Ignored,
    NoAnswer,
    NotSent,
    Request,
    TryLater,
    Unparseable,
    Verdict,
)
from tests.connectors.amazon_messages import (
    CERTIFICATE,
    NOW,
    TOPIC,
    Amazon,
    certificate,
    channel,
    posted,
    sns,
    verdict,
)

# --- Whose message it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1", "2"])
async def test_what_our_topic_signed_is_taken(version):
    assert await verdict(posted(sns("hi", version))) is Verdict.GOOD
    assert await verdict(posted(sns("hi\nthere ü", version, Subject="a subject"))) is Verdict.GOOD


def test_what_is_signed_is_what_amazons_page_says():
    message = {"Type": "Notification", "Message": "m", "MessageId": "i", "Subject": "s", "Timestamp": "t", "TopicArn": "a", "Token": "x"}
    assert string_to_sign(message) == b"Message\nm\nMessageId\ni\nSubject\ns\nTimestamp\nt\nTopicArn\na\nType\nNotification\n"
    del message["Subject"]
    assert string_to_sign(message) == b"Message\nm\nMessageId\ni\nTimestamp\nt\nTopicArn\na\nType\nNotification\n"
    message |= {"Type": "SubscriptionConfirmation", "SubscribeURL": "u"}
    assert (
        string_to_sign(message)
        == b"Message\nm\nMessageId\ni\nSubscribeURL\nu\nTimestamp\nt\nToken\nx\nTopicArn\na\nType\nSubscriptionConfirmation\n"
    )


OTHERS_TOPIC = "arn:aws:sns:eu-central-1:999999999999:evil"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (sns("hi") | {"Message": "ho"}, Verdict.BAD),
        (sns("hi") | {"Subject": "added"}, Verdict.BAD),
        (sns("hi") | {"MessageId": "other"}, Verdict.BAD),
        (sns("hi") | {"SignatureVersion": "2"}, Verdict.BAD),
        (sns("hi") | {"SignatureVersion": "3"}, Verdict.BAD),
        (sns("hi") | {"Signature": "AAAA"}, Verdict.BAD),
        (sns("hi") | {"Signature": "no base64!"}, Verdict.BAD),
        (sns("hi") | {"Signature": ""}, Verdict.UNSIGNED),
        (sns("hi", TopicArn=OTHERS_TOPIC), Verdict.BAD),  # signed by Amazon, for a topic of somebody else
        (sns("hi") | {"Type": "Else"}, Verdict.UNSIGNED),
        ({"notificationType": "Received"}, Verdict.UNSIGNED),  # raw message delivery is on
        ([], Verdict.UNSIGNED),
        (sns("x" * 2_000_000), Verdict.UNSIGNED),  # more than SNS carries: not worth the reading
    ],
)
async def test_nothing_else_is(message, expected):
    assert await verdict(posted(message)) is expected


async def test_the_certificate_is_fetched_once_and_kept():
    made, amazon = channel(), Amazon()
    for _ in range(3):
        assert await verdict(posted(sns("hi")), made, amazon) is Verdict.GOOD
    assert [url for _, url, _ in amazon.asked] == [CERTIFICATE]


def test_without_its_certificate_a_message_is_neither_good_nor_lost():
    assert channel().verify(posted(sns("hi")), NOW) is Verdict.NO_KEY  # the hub answers 503, and SNS tries again


@pytest.mark.parametrize(
    "answer",
    [
        HttpResponse(404, {}, b""),
        HttpResponse(500, {}, b""),
        HttpResponse(200, {}, b"no certificate"),
        HttpResponse(200, {}, certificate(ec.generate_private_key(ec.SECP256R1()))),
        NotSent("refused"),
        NoAnswer("lost"),
    ],
)
async def test_a_certificate_that_cannot_be_had_is_asked_for_again(answer):
    amazon = Amazon()
    amazon.pages[CERTIFICATE] = answer
    with pytest.raises(TryLater, match="certificate"):
        await channel().prepare(posted(sns("hi")), amazon)


FOREIGN = [
    "https://evil.example/SimpleNotificationService-0123456789abcdef.pem",
    "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-0123456789abcdef.pem",
    "https://user@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123456789abcdef.pem",
    "https://evil.sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://bucket.s3.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",  # anybody's file at Amazon
    "https://sns.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-0123456789abcdef.pem",
    "https://sns.eu-central-1.amazonaws.com/?Action=Publish&x=.pem",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem?x=1",
    "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem#x",
    "https://sns.eu-central-1.amazonaws.com\\@evil.example/SimpleNotificationService-0.pem",
    "https://[::1/x.pem",
    "",
]


@pytest.mark.parametrize("url", FOREIGN)
async def test_no_other_address_is_asked_for_a_certificate(url):
    assert not is_certificate_url(url)
    amazon = Amazon()
    assert await verdict(posted(sns("hi", SigningCertURL=url)), amazon=amazon) is Verdict.BAD
    assert amazon.asked == []


async def test_a_strangers_topic_makes_us_fetch_nothing():
    amazon = Amazon()
    assert await verdict(posted(sns("hi", TopicArn=OTHERS_TOPIC)), amazon=amazon) is Verdict.BAD
    assert amazon.asked == []


def test_amazons_own_addresses_are_known():
    assert is_certificate_url(CERTIFICATE)
    assert is_certificate_url("https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-0123456789abcdef.pem")


# --- Subscribing -----------------------------------------------------------------------------------------------------


def subscribe_url(**changed) -> str:
    return "https://sns.eu-central-1.amazonaws.com/?" + urlencode(
        {"Action": "ConfirmSubscription", "TopicArn": TOPIC, "Token": "t1"} | changed
    )


def subscription(url: str) -> Request:
    return posted(sns("You have chosen to subscribe", Type="SubscriptionConfirmation", Token="t1", SubscribeURL=url))


async def test_a_subscription_of_our_topic_is_confirmed_at_amazon():
    amazon, sent = Amazon(), subscription(subscribe_url())
    amazon.pages[subscribe_url()] = HttpResponse(200, {}, b"<ConfirmSubscriptionResponse/>")
    made = channel()
    assert await verdict(sent, made, amazon) is Verdict.GOOD
    assert await made.expand(sent, amazon) == sent
    assert [url for _, url, _ in amazon.asked] == [CERTIFICATE, subscribe_url()]
    (found,) = made.parse(sent)
    assert isinstance(found, Ignored)


@pytest.mark.parametrize(
    "url",
    [
        subscribe_url().replace("sns.eu-central-1.amazonaws.com", "evil.example"),
        subscribe_url().replace("https", "http"),
        subscribe_url(Action="Publish"),
        subscribe_url(TopicArn=OTHERS_TOPIC),
        subscribe_url() + "&Action=Publish",
        subscribe_url().replace("/?", "/other?"),
        "",
    ],
)
async def test_no_other_address_is_confirmed(url):
    assert not is_confirming_url(url, TOPIC)
    amazon = Amazon()
    with pytest.raises(Unparseable, match="console"):
        await channel().expand(subscription(url), amazon)
    assert amazon.asked == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (HttpResponse(500, {}, b""), TryLater),
        (HttpResponse(429, {}, b""), TryLater),
        (NotSent("x"), TryLater),
        (NoAnswer("x"), TryLater),
        (HttpResponse(400, {}, b""), Unparseable),  # the token has expired
    ],
)
async def test_a_confirmation_that_fails_says_so(answer, outcome):
    amazon = Amazon()
    amazon.pages[subscribe_url()] = answer
    with pytest.raises(outcome):
        await channel().expand(subscription(subscribe_url()), amazon)
