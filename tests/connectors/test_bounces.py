"""Returned mails and complaints: each says of which address, which of our mails, and whether for good; a person's mail says nothing."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.shared import bounces
from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import make_body, read_headers, read_mail, to_message
from hub.contract import DeliveryEvent, DeliveryUpdate, InboundMessage, MessageStatus, Proof
from tests.shared_data import shared

MAILBOX = EmailSettings.model_validate({"type": "mime", "address": "support@hub.example", "smtp": {"host": "127.0.0.1"}})


def message_of(raw: bytes, **extra) -> InboundMessage:
    return to_message(*read_mail(raw), Judgement(), mailbox=MAILBOX, **extra)


def mail(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()


# --- The bounce collection (mail_bounces_flufl/SOURCE.txt: GNU Mailman's, Apache-2.0) -----------------------------------


def said_of(found: InboundMessage) -> dict[str, list[str]]:
    """What the collection's expectations say: who could not be reached for now, and who for good."""
    kinds = {"temporary": DeliveryEvent.DEFERRED, "permanent": DeliveryEvent.BOUNCED}
    return {kind: sorted(report.recipient.lower() for report in found.reports if report.event is event) for kind, event in kinds.items()}


def test_all_63_published_bounces_name_the_addresses_the_library_finds():
    expected = json.loads(shared("mail_bounces_flufl", "expected.json").read_text())
    assert len(expected) == 63
    nameless = 0
    for name, addresses in expected.items():
        found = message_of(shared("mail_bounces_flufl", name).read_bytes())
        assert said_of(found) == {kind: sorted(map(str.lower, these)) for kind, these in addresses.items()}, name
        assert not any(report.permanent for report in found.reports if report.event is not DeliveryEvent.BOUNCED), name
        nameless += not found.reports
        assert bool(found.reports) <= (found.automatic == "bounce"), name
        assert found.claims[0].proof is Proof.CLAIMED
    assert nameless == 2


def test_the_mail_that_came_back_is_named_wherever_the_bounce_holds_its_message_id():
    paths = shared("mail_bounces_flufl").glob("*_*.txt")
    named = {path.name for path in paths if any(report.mail_id for report in message_of(path.read_bytes()).reports)}
    assert {"dsn_01.txt", "dsn_02.txt", "dsn_04.txt", "dsn_06.txt", "dsn_09.txt", "dsn_14.txt", "dsn_17.txt", "exim_01.txt"} < named
    assert {"groupwise_01.txt", "postfix_02.txt", "yahoo_13.txt"} < named  # as an attachment without a report, and in a newer report


# --- Reports by the standard ------------------------------------------------------------------------------------------

DSN = """From: Mail Delivery System <mailer-daemon@mx.example>
To: support@hub.example
Subject: Undelivered Mail Returned to Sender
Message-ID: <bounce-1@mx.example>
Date: Fri, 20 Nov 2026 10:00:00 +0100
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: text/plain

I could not deliver your mail.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example

{block}
--b
{copy}
--b--
"""
COPY = "Content-Type: message/rfc822\n\nFrom: support@hub.example\nMessage-ID: <12.abc@hub.example>\nSubject: Re: Hi\n\nHello"
FAILED = (
    "Final-Recipient: rfc822; ana@shop.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 <ana@shop.example> unknown"
)


def dsn(block: str = FAILED, copy: str = COPY) -> InboundMessage:
    return message_of(mail(DSN.format(block=block, copy=copy)))


def test_a_delivery_report_is_a_bounce_that_says_it_all():
    found = dsn()
    assert found.automatic == "bounce"
    (report,) = found.reports
    assert report == DeliveryUpdate(
        provider_key=report.provider_key,
        status=MessageStatus.FAILED,
        event=DeliveryEvent.BOUNCED,
        recipient="ana@shop.example",
        mail_id="<12.abc@hub.example>",
        error="The mail could not be delivered: the address does not exist (5.1.1). The server said: 550 5.1.1 <ana@shop.example> unknown",
        permanent=True,
    )
    assert report.provider_key == dsn().reports[0].provider_key
    again = message_of(b"Received: by another way\r\n" + mail(DSN.format(block=FAILED, copy=COPY)))
    assert again.reports == found.reports  # whichever way it comes


FINAL = "Final-Recipient: rfc822; ana@shop.example\n"
RECIPIENTS = [  # the block of a recipient, and the event, the address, whether it is marked
    (FAILED, "bounced", "ana@shop.example", True),
    ("Final-Recipient: rfc822;ana@shop.example\nAction: failed", "bounced", "ana@shop.example", True),  # no code at all
    ("Final-Recipient: rfc822; <ana@shop.example>\nAction: Failed (gone)\nStatus: 5.0.0", "bounced", "ana@shop.example", True),
    ("Final-Recipient: <ana@shop.example>\nAction: failed\nStatus: 5.1.1", "bounced", "ana@shop.example", True),  # no type
    ("Final-Recipient: utf-8; änne@shop.example\nAction: failed\nStatus: 5.1.1", "bounced", "änne@shop.example", True),
    ("Original-Recipient: rfc822;b@x.example\nFinal-Recipient: rfc822; x@far.example\nAction: failed", "bounced", "b@x.example", True),
    ("Original-Recipient: x400; /C=de\nFinal-Recipient: rfc822; x@far.example\nAction: failed", "bounced", "x@far.example", True),
    (FINAL + "Action: error\nStatus: 5.1.1", "bounced", "ana@shop.example", True),  # opensmtpd
    # Given up for good, and nothing is said against the address.
    (FINAL + "Action: failed\nStatus: 4.4.7", "bounced", "ana@shop.example", False),
    (FINAL + "Action: failed\nStatus: 5.2.2", "bounced", "ana@shop.example", False),  # full
    (FINAL + "Action: failed\nStatus: 5.7.1", "bounced", "ana@shop.example", False),
    (FINAL + "Action: failed\nStatus: 5.3.4", "bounced", "ana@shop.example", False),  # too big
    (FINAL + "Action: failed\nDiagnostic-Code: smtp; 451 later", "bounced", "ana@shop.example", False),
    # For now.
    (FINAL + "Action: delayed\nStatus: 4.4.1", "deferred", "ana@shop.example", False),
    (FINAL + "Action: delayed\nStatus: 5.1.1", "deferred", "ana@shop.example", False),
    (FINAL + "Status: 4.2.2", "deferred", "ana@shop.example", False),
    # No failure.
    (FINAL + "Action: delivered\nStatus: 2.0.0", "delivered", "ana@shop.example", False),
    (FINAL + "Action: relayed\nStatus: 2.0.0", "other", "ana@shop.example", False),
]  # fmt: skip


@pytest.mark.parametrize(("block", "event", "recipient", "permanent"), RECIPIENTS)
def test_what_a_recipients_block_says(block, event, recipient, permanent):
    (report,) = dsn(block).reports
    assert (report.event, report.recipient, report.permanent) == (event, recipient, permanent)


def test_of_several_recipients_each_is_told_once():
    two = f"{FAILED}\n\nFinal-Recipient: rfc822; bob@else.example\nAction: delayed\nStatus: 4.4.1\n\n{FAILED}"
    assert [(report.recipient, report.event) for report in dsn(two).reports] == [
        ("ana@shop.example", DeliveryEvent.BOUNCED),
        ("bob@else.example", DeliveryEvent.DEFERRED),
    ]


COPIES = [
    (COPY, "<12.abc@hub.example>"),
    ("Content-Type: text/rfc822-headers\n\nSubject: Re: Hi\nMessage-ID: <12.abc@hub.example>\n", "<12.abc@hub.example>"),
    ("Content-Type: message/rfc822\n\nmessage-id:\n <12.abc@hub.example>\n\nHello", "<12.abc@hub.example>"),  # folded
    ("Content-Type: message/global-headers\n\nMessage-ID: <12.abc@hub.example>\n", "<12.abc@hub.example>"),
    ("Content-Type: text/plain\n\nNothing came back.\n", ""),
]


@pytest.mark.parametrize(("copy", "mail_id"), COPIES)
def test_the_mail_that_came_back_is_named_by_its_copy(copy, mail_id):
    assert dsn(copy=copy).reports[0].mail_id == mail_id


PLAIN = """From: MAILER-DAEMON@mx.example
Subject: failure notice
Date: Fri, 20 Nov 2026 10:00:00 +0100
Message-ID: <q@mx.example>
{more}
Hi. This is the qmail-send program at mx.example.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<ana@shop.example>:
192.0.2.1 does not like recipient.
Remote host said: 550 5.1.1 no such user
Giving up on 192.0.2.1.

--- Below this line is a copy of the message.

Return-Path: <support@hub.example>
From: support@hub.example
Message-ID: <12.abc@hub.example>
Subject: Re: Hi

Hello
"""


def test_a_bounce_by_no_standard_is_read_by_its_words():
    (report,) = message_of(mail(PLAIN.format(more=""))).reports
    assert (report.recipient, report.mail_id, report.permanent) == ("ana@shop.example", "<12.abc@hub.example>", True)
    assert (
        report.error
        == "The mail could not be delivered: the address does not exist (5.1.1). The server said: Remote host said: 550 5.1.1 no such user"
    )


def test_without_a_copy_the_thread_names_the_mail():
    text = PLAIN.format(more="In-Reply-To: <12.abc@hub.example>\n").replace("Message-ID: <12.abc@hub.example>\n", "")
    assert message_of(mail(text)).reports[0].mail_id == "<12.abc@hub.example>"


def test_a_bounce_that_came_taken_apart_is_read_too():
    head, _, text = PLAIN.format(more="").partition("\n\n")
    found = to_message(read_headers(mail(head)), make_body([(text, None)], []), Judgement(), mailbox=MAILBOX)
    assert (found.automatic, [report.recipient for report in found.reports]) == ("bounce", ["ana@shop.example"])


PEOPLE = [  # a person quotes, answers or sends on a returned mail: their words are theirs
    PLAIN.replace("MAILER-DAEMON@mx.example", "ana@shop.example").replace("failure notice", "Fwd: failure notice"),
    PLAIN.replace("MAILER-DAEMON@mx.example", "ana@shop.example").replace("failure notice", "WG: failure notice"),
    PLAIN.replace("MAILER-DAEMON@mx.example", "ana@shop.example").replace("failure notice", "Why did I get this?"),
    PLAIN.replace("MAILER-DAEMON@mx.example", "ana@shop.example").replace("{more}", "In-Reply-To: <1@hub.example>\n"),
    DSN.replace("mailer-daemon@mx.example", "ana@shop.example").replace("Undelivered Mail", "Fwd: Undelivered Mail")
    .replace("multipart/report; report-type=delivery-status", "multipart/mixed").format(block=FAILED, copy=COPY),
]  # fmt: skip


@pytest.mark.parametrize("text", PEOPLE)
def test_a_persons_mail_about_a_bounce_is_not_one(text):
    found = message_of(mail(text.replace("{more}", "")))
    assert (found.automatic, found.reports) == ("", ())


def test_a_bounce_without_a_sender_of_its_own_still_reports_and_proves_nothing():
    found = to_message(
        *read_mail(mail(PLAIN.format(more="").replace("MAILER-DAEMON@mx.example", "Postmaster <>"))),
        Judgement(Proof.DMARC),
        mailbox=MAILBOX,
    )
    assert found.reports[0].recipient == "ana@shop.example"
    assert (found.claims[0].value, found.claims[0].proof) == ("mailer-daemon@unknown.invalid", Proof.CLAIMED)


# --- Complaints (RFC 5965) --------------------------------------------------------------------------------------------

ARF = """From: <abusedesk@isp.example>
Subject: FW: Re: Hi
Message-ID: <arf-1@isp.example>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: text/plain

This is an e-mail abuse report.
--b
Content-Type: message/feedback-report

Feedback-Type: {kind}
User-Agent: SomeGenerator/1.0
Version: 1
{more}
--b
Content-Type: message/rfc822

From: support@hub.example
To: Ana <ana@shop.example>
Message-ID: <12.abc@hub.example>

Hello
--b--
"""


@pytest.mark.parametrize(
    ("kind", "more", "event", "recipients"),
    [
        ("abuse", "Original-Rcpt-To: <ana@shop.example>", DeliveryEvent.COMPLAINED, ["ana@shop.example"]),
        ("abuse", "Original-Rcpt-To: rfc822; ana@shop.example", DeliveryEvent.COMPLAINED, ["ana@shop.example"]),
        ("abuse", "Original-Rcpt-To: a@x.example\nOriginal-Rcpt-To: b@x.example", DeliveryEvent.COMPLAINED, ["a@x.example", "b@x.example"]),
        ("fraud", "Removal-Recipient: ana@shop.example", DeliveryEvent.COMPLAINED, ["ana@shop.example"]),
        ("abuse", "Source-IP: 192.0.2.1", DeliveryEvent.COMPLAINED, ["ana@shop.example"]),  # the copy says to whom
        ("not-spam", "Original-Rcpt-To: ana@shop.example", DeliveryEvent.OTHER, ["ana@shop.example"]),
        ("auth-failure", "Original-Rcpt-To: ana@shop.example", DeliveryEvent.OTHER, ["ana@shop.example"]),  # RFC 6591
    ],
)
def test_a_feedback_report_is_a_complaint_of_its_recipient(kind, more, event, recipients):
    found = message_of(mail(ARF.format(kind=kind, more=more)))
    assert found.automatic == "complaint"
    assert [(report.event, report.recipient, report.mail_id, report.permanent) for report in found.reports] == [
        (event, recipient, "<12.abc@hub.example>", False) for recipient in recipients
    ]


# --- Purpose-made input -----------------------------------------------------------------------------------------------

DAEMON = "From: postmaster@mx.example\nSubject: Undeliverable\n"
HOSTILE = {
    "a line of commas": DAEMON + "\n" + "a," * 2_000_000,
    "a line of angles": DAEMON + "\n" + "<" * 2_000_000,
    "lines of reports": DAEMON + "\n" + "<a@b.example>: host said 550 5.1.1 no\n" * 60_000,
    "lines that nearly fit every pattern": DAEMON + "\nthe following addresses had\n" + " (expanded from: <" * 200_000,
    "100,000 blocks": DSN.format(block="\n\n".join([FAILED] * 200), copy=COPY),
    "a Message-ID of blanks": DAEMON + "\n" + "Message-ID:" + " \n" * 200_000,
    "a status of digits": DSN.format(block="Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: " + "5." * 100_000, copy=COPY),
    "a diagnostic of semicolons": DSN.format(block=FAILED + ";" * 200_000, copy=COPY),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_bounce_keeps_us_busy(text):
    started = time.process_time()
    assert len(message_of(mail(text)).reports) <= bounces.MOST_REPORTS
    assert time.process_time() - started < 2


@given(
    st.lists(
        st.sampled_from(["\n", " ", "<", ">", "a@b.example", ":", "550 ", "5.1.1", "message", "The following", "rfc822;", ",", "=41"]),
        max_size=80,
    )
)
@settings(max_examples=100, deadline=None)
def test_no_words_of_a_daemon_raise(words):
    text = "".join(words)
    for raw in (mail(DAEMON + "\n" + text), mail(DSN.format(block=text.replace("{", ""), copy=COPY))):
        for report in message_of(raw).reports:
            assert report.provider_key.startswith("report:")
