"""Connectors: one file a vendor, translating between its words and `hub.contract`.

The tables below are the whole registry: a `type` in config.yaml is a key here. Each names a module and a class; the module
is imported when a configuration first uses it, so a connector nobody configured costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

CHANNELS = {
    "twilio_sms": "connectors.twilio_sms:TwilioSms",
    "twilio_whatsapp": "connectors.twilio_whatsapp:TwilioWhatsApp",
    "sendgrid": "connectors.email.sendgrid:SendgridEmail",
    "mime": "connectors.email.raw:RawEmail",
    "webchat": "connectors.webchat:WebChat",
}
ROOMS = {
    "slack": "connectors.slack:Slack",
}
DESTINATIONS = {
    "webhook": "connectors.webhook:Webhook",
    # Marketing tools with profiles (hub.marketing).
    "klaviyo": "connectors.klaviyo:Klaviyo",
    "braze": "connectors.braze:Braze",
    "hubspot": "connectors.hubspot:HubSpot",
    "customerio": "connectors.customerio:CustomerIo",
    "iterable": "connectors.iterable:Iterable",
    "mailchimp": "connectors.mailchimp:Mailchimp",
    "segment": "connectors.segment:Segment",
}


def load(entry: str) -> Any:
    """The class a registry entry names."""
    module, _, name = entry.partition(":")
    return getattr(import_module(module), name)
