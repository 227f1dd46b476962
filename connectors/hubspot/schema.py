"""What a hold is made of in HubSpot: contact properties, which must be there before they are written, and an active list of them.

Shapes: `POST /crm/v3/properties/contacts` and `POST /crm/v3/lists` of the vendor's specification [V]; how a filter is nested and how
a date is compared with now: https://developers.hubspot.com/docs/api-reference/crm-lists-v3/list-filters [V].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hub.marketing import Step

HOLD, UNTIL, REASON, VERSION = "support_hold", "support_hold_until", "support_hold_reason", "support_hold_version"
CORE = frozenset({HOLD, UNTIL, REASON, VERSION})  # without these there is no hold; the others may be missing

# Property -> (label, type, field type) as HubSpot calls them. What is in no property is not written: one unknown name would have
# HubSpot refuse the hold with it.
PROPERTIES: Mapping[str, tuple[str, str, str]] = {
    HOLD: ("Support hold", "bool", "booleancheckbox"),
    UNTIL: ("Support hold until", "datetime", "date"),
    REASON: ("Support hold reason", "string", "text"),
    VERSION: ("Support hold version", "number", "number"),
    "support_status": ("Support status", "string", "text"),
    "support_resolved_at": ("Support resolved at", "datetime", "date"),
    "support_open_tickets": ("Support open tickets", "number", "number"),
    "support_tickets": ("Support tickets", "number", "number"),
    "support_satisfaction": ("Support satisfaction", "string", "text"),
    "support_optouts": ("Support opt-outs", "string", "text"),
}

CONTACTS = "0-1"  # HubSpot's object type


def creation(name: str) -> dict[str, Any]:
    """The body that creates a property."""
    label, kind, field = PROPERTIES[name]
    body: dict[str, Any] = {
        "name": name,
        "label": label,
        "type": kind,
        "fieldType": field,
        "groupName": "contactinformation",
        "description": "Written by the support hub.",
        "formField": False,
        "hidden": False,
    }
    if kind == "bool":
        body["options"] = [{"label": word.capitalize(), "value": word, "hidden": False} for word in ("true", "false")]
    return body


def list_creation(name: str) -> dict[str, Any]:
    """The body that creates the active list: on hold, and not run out."""
    held = {"operationType": "BOOL", "operator": "IS_EQUAL_TO", "value": True, "includeObjectsWithNoValueSet": False}
    ahead = {
        "operationType": "TIME_POINT",
        "type": "TIME_POINT",
        "operator": "IS_AFTER",
        "timePoint": {"timeType": "INDEXED", "timezoneSource": "CUSTOM", "zoneId": "UTC", "indexReference": {"referenceType": "NOW"}},
        "endpointBehavior": "EXCLUSIVE",
        "propertyParser": "VALUE",
        "includeObjectsWithNoValueSet": False,
    }
    filters = [
        {"filterType": "PROPERTY", "property": HOLD, "operation": held},
        {"filterType": "PROPERTY", "property": UNTIL, "operation": ahead},
    ]
    both = {"filterBranchType": "AND", "filterBranchOperator": "AND", "filterBranches": [], "filters": filters}
    either = {"filterBranchType": "OR", "filterBranchOperator": "OR", "filterBranches": [both], "filters": []}
    return {"name": name, "objectTypeId": CONTACTS, "processingType": "DYNAMIC", "filterBranch": either}


def list_lacks(found: Mapping[str, Any]) -> str:
    """What is wrong with a list that bears the name, in words; empty where nothing is."""
    if found.get("processingType") != "DYNAMIC":
        return "is not an active one, so HubSpot does not keep it up to date"
    asked = str(found.get("filterBranch") or "")
    missing = [name for name in (HOLD, UNTIL) if not re.search(rf"\b{name}\b", asked)]
    return f"does not ask for {' and '.join(missing)}" if asked and missing else ""


def steps(name: str) -> Sequence[Step]:
    """What a person does in HubSpot."""
    return (
        Step(
            text="Create an active list of contacts (CRM > Segments, formerly Lists > Create > Active), unless prepare has done it. "
            "Its name and its two filters, joined by AND:",
            paste=f"{name}\nSupport hold is equal to True\nAND\nSupport hold until is after now",
        ),
        Step(
            text='In every marketing e-mail, Recipients > "Don\'t send to": choose the list. Better, put it into your templates:',
            paste=name,
        ),
        Step(
            text="In every workflow that sends marketing, Settings > Unenrollment and suppression > Suppression lists: choose the list. "
            "A contact in the middle of it is taken out.",
            paste=name,
        ),
        Step(text="For SMS and ads built on lists: exclude the same list.", paste=name),
    )
