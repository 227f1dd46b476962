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
    "whatsapp_cloud": "connectors.whatsapp_cloud:WhatsAppCloud",
    "telnyx_sms": "connectors.telnyx_sms:TelnyxSms",
    "sendgrid": "connectors.email.sendgrid:SendgridEmail",
    "mailgun": "connectors.email.mailgun:MailgunEmail",
    "mailersend": "connectors.email.mailersend:MailerSendEmail",
    "postmark": "connectors.email.postmark:PostmarkEmail",
    "resend": "connectors.email.resend:ResendEmail",
    "brevo": "connectors.email.brevo:BrevoEmail",
    "mandrill": "connectors.email.mandrill:MandrillEmail",
    "amazon_ses": "connectors.email.amazon_ses:AmazonSesEmail",
    "mime": "connectors.email.raw:RawEmail",
    "smtp_listener": "connectors.email.listener:SmtpListener",
    "imap": "connectors.email.imap:ImapEmail",
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
