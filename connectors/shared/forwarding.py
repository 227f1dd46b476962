"""Mails that one of our own machines sends on for a customer: who wrote them, and how far that is believed.

A group or list that the shop owns, and the mailer of its contact form, write under their own name, with the customer in another header.
Which those are the administrator says (`trusted_forwarders`, `form_senders`), and a mail only counts as theirs where their own From is
proved: anybody can write their name. What such a mail says of its sender proves nothing; it is the customer's own claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from connectors.shared.mail_headers import Headers, Mailbox, ascii_domain
from connectors.shared.mail_settings import EmailSettings
from hub.contract import Proof


@dataclass(frozen=True, slots=True)
class Author:
    """Who wrote a mail, and by which of our machines it came: `forwarder`, `form`, or none (its From stands)."""

    mailbox: Mailbox
    by: Literal["", "forwarder", "form"] = ""


def author(headers: Headers, sender: Mailbox, proof: Proof, mailbox: EmailSettings) -> Author:
    """Decide who wrote a mail that came from `sender`, whose From is proved as `proof` says."""
    if proof is not Proof.DMARC:
        return Author(sender)
    machines = (*mailbox.trusted_forwarders, *mailbox.form_senders)
    if listed(sender.address, mailbox.form_senders):
        found = _other(headers, ("reply-to",), mailbox, machines)
        return Author(found, "form") if found else Author(sender)
    if listed(sender.address, mailbox.trusted_forwarders):
        found = _other(headers, ("x-original-from", "reply-to"), mailbox, machines)
        return Author(found or sender, "forwarder")  # without a name of its writer it is still no list's mail
    return Author(sender)


def listed(address: str, entries: Sequence[str]) -> bool:
    """Whether an address is one of `entries`, each an address or a whole domain (`shop.example` or `@shop.example`)."""
    local, _, domain = address.lower().rpartition("@")
    domain = ascii_domain(domain)
    for entry in entries:
        theirs, _, place = entry.strip().lower().rpartition("@")
        if domain and ascii_domain(place) == domain and theirs in ("", local):
            return True
    return False


def _other(headers: Headers, names: Sequence[str], mailbox: EmailSettings, machines: Sequence[str]) -> Mailbox | None:
    """The first address in these headers that is neither ours nor a machine's; a list that answers to itself names nobody."""
    whole = [entry for entry in machines if "@" in entry.strip().lstrip("@")]
    for found in headers.addresses(*names)[:20]:
        if found.address.lower() != mailbox.address.lower() and not listed(found.address, whole):
            return found
    return None
