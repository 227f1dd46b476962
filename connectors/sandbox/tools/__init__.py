"""Stand-ins of marketing tools on loopback, with the quirks that make a naive integration fail.

Each is one file and one class; the table is the whole registry, for `hub simulate TOOL`, the sandbox and the tests.
"""

from __future__ import annotations

from importlib import import_module

from connectors.sandbox.tools.stand_in import StandIn

TOOLS = {
    "klaviyo": "connectors.sandbox.tools.klaviyo:KlaviyoStandIn",
    "braze": "connectors.sandbox.tools.braze:BrazeStandIn",
    "hubspot": "connectors.sandbox.tools.hubspot:HubSpotStandIn",
    "customerio": "connectors.sandbox.tools.customerio:CustomerIoStandIn",
    "iterable": "connectors.sandbox.tools.iterable:IterableStandIn",
    "mailchimp": "connectors.sandbox.tools.mailchimp:MailchimpStandIn",
    "segment": "connectors.sandbox.tools.segment:SegmentStandIn",
}


def load(tool: str) -> type[StandIn]:
    """The stand-in of a tool. Raises KeyError for one there is none of."""
    module, _, name = TOOLS[tool].partition(":")
    found: type[StandIn] = getattr(import_module(module), name)
    return found
