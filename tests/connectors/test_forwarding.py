"""Mails our own machines send on: the customer is who they name, nobody else's mail is believed to be theirs, and it proves nothing."""

import pytest

from connectors.shared.forwarding import listed
from connectors.shared.mail_auth import Judgement
from connectors.shared.mail_settings import EmailSettings
from connectors.shared.mime import read_mail, to_message
from hub.contract import InboundMessage, Proof

MAILBOX = EmailSettings.model_validate(
    {
        "type": "mime",
        "address": "support@shop.example",
        "smtp": {"host": "127.0.0.1"},
        "trusted_forwarders": ["Team@shop.example", "lists.shop.example"],
        "form_senders": ["form@shop.example", "@forms.example"],
    }
)


def read(lines: str, proof: Proof = Proof.DMARC) -> InboundMessage:
    raw = (lines + "\nMessage-ID: <1@x>\n\nWhere is my parcel?\n").replace("\n", "\r\n").encode()
    return to_message(*read_mail(raw), Judgement(proof), mailbox=MAILBOX)


LIST = "\nList-Id: <team.shop.example>\nPrecedence: list"
ANA = ("ana@else.example", Proof.CLAIMED)
CASES = [
    # A forwarder: X-Original-From, else Reply-To; its words about a list say nothing.
    ("From: 'Ana' via Team <team@shop.example>\nX-Original-From: Ana <ana@else.example>\nReply-To: bob@else.example" + LIST, ANA, ""),
    ("From: team@shop.example\nReply-To: Ana <ana@else.example>" + LIST, ANA, ""),
    ("From: anything@lists.shop.example\nReply-To: ana@else.example" + LIST, ANA, ""),  # the whole domain is trusted
    ("From: TEAM@SHOP.example\nReply-To: ana@else.example", ANA, ""),
    ("From: team@shop.example\nReply-To: team@shop.example, ana@else.example" + LIST, ANA, ""),  # the list answers to itself as well
    ("From: team@shop.example\nReply-To: support@shop.example" + LIST, ("team@shop.example", Proof.DMARC), ""),  # only us: its From stands
    ("From: team@shop.example" + LIST, ("team@shop.example", Proof.DMARC), ""),
    ("From: team@shop.example\nX-Original-From: nobody" + LIST, ("team@shop.example", Proof.DMARC), ""),
    ("From: team@shop.example\nReply-To: ana@else.example\nAuto-Submitted: auto-replied", ANA, "auto-reply"),  # a customer's own machine
    # A form: each Reply-To its own customer; it may call itself automatic.
    ("From: form@shop.example\nReply-To: Ana <ana@else.example>", ANA, ""),
    ("From: x@forms.example\nReply-To: ana@else.example\nPrecedence: bulk\nAuto-Submitted: auto-generated", ANA, ""),
    ("From: form@shop.example\nX-Original-From: bob@else.example\nReply-To: ana@else.example", ANA, ""),
    ("From: form@shop.example\nX-Original-From: bob@else.example", ("form@shop.example", Proof.DMARC), ""),  # a form has no such header
    ("From: form@shop.example\nAuto-Submitted: auto-generated", ("form@shop.example", Proof.DMARC), "auto-reply"),  # the form's own mail
    # Others.
    ("From: sub@a.lists.shop.example\nReply-To: ana@else.example" + LIST, ("sub@a.lists.shop.example", Proof.DMARC), "list"),
    ("From: eve@shop.example\nReply-To: ana@else.example", ("eve@shop.example", Proof.DMARC), ""),
    ("From: team@shop.example.evil.example\nX-Original-From: ana@else.example", ("team@shop.example.evil.example", Proof.DMARC), ""),
    ("From: team@shop.example, eve@evil.example\nReply-To: ana@else.example", ("team@shop.example", Proof.CLAIMED), ""),
]


@pytest.mark.parametrize(("lines", "sender", "automatic"), CASES)
def test_who_wrote_a_mail_that_one_of_our_machines_sent(lines, sender, automatic):
    found = read(lines)
    assert (found.claims[0].value, found.claims[0].proof) == sender
    assert found.automatic == automatic


@pytest.mark.parametrize("lines", [case[0] for case in CASES])
@pytest.mark.parametrize("proof", [Proof.CLAIMED, Proof.SEEN])
def test_who_is_not_proved_to_be_our_machine_is_not_believed(lines, proof):
    found = read(lines, proof)
    assert "else.example" not in found.claims[0].value


def test_a_customer_named_by_a_machine_is_named_alone():
    found = read("From: form@shop.example\nReply-To: Ana <ana@else.example>, bob@else.example")
    assert [(claim.value, claim.proof) for claim in found.claims] == [ANA]  # neither the machine nor another address is tied to them
    assert found.sender_name == "Ana"


def test_two_customers_of_one_form_are_two():
    one, other = (read(f"From: form@shop.example\nReply-To: {who}@else.example") for who in ("ana", "bob"))
    assert one.claims[0].value != other.claims[0].value


@pytest.mark.parametrize(
    ("address", "entry", "expected"),
    [
        ("a@x.example", "a@x.example", True),
        ("A@X.example", "a@x.EXAMPLE", True),
        ("a@x.example", "x.example", True),
        ("a@x.example", "@x.example", True),
        ("a@x.example", " x.example ", True),
        ("a@y.x.example", "x.example", False),
        ("b@x.example", "a@x.example", False),
        ("a@bücher.example", "xn--bcher-kva.example", True),
        ("a@x.example", "", False),
        ("a@x.example", "@", False),
        ("a@x.example", "example", False),
    ],
)
def test_entries_are_addresses_or_whole_domains(address, entry, expected):
    assert listed(address, [entry]) is expected
