"""What Mailchimp plans to send, and what it sent."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from connectors.mailchimp.api import LARGE, MOST, TAG, Api, iso_of, unix_of
from hub.contract import Http, Refused, Request, Unparseable, Verdict
from hub.marketing import Campaign, SendSeen

_SIGNATURE_SECONDS = 300.0


async def planned(api: Api, plan: str, admin: str, http: Http) -> Sequence[Campaign]:
    """Scheduled and sending campaigns of this audience.

    When recipients are fixed depends on the plan [V, help "Schedule or pause a regular email"]: for the whole audience, and for
    segments on Free and Essentials, at the time of sending; on Standard and Premium a segment is a snapshot. When it was taken is
    not told, so the campaign's creation is what we count from.
    """
    tag = await api.find_tag(http)
    found: list[Campaign] = []
    for status in ("schedule", "sending"):
        asked = urlencode({"status": status, "list_id": api.audience, "count": MOST})
        said = await api.call(http, "GET", f"/campaigns?{asked}", max_bytes=LARGE)
        for one in said.json.get("campaigns", []):
            options = one.get("recipients", {}).get("segment_opts") or {}
            saved = options.get("saved_segment_id")
            if saved and not options.get("conditions"):
                segment = await api.call(http, "GET", f"{api.list}/segments/{int(saved)}", missing=True)
                options = {**options, **(segment.json.get("options") or {})}
            found.append(_campaign(one, status, options, excludes_tag(options, tag), plan, admin, api.audience))
    return found


def _campaign(
    one: Mapping[str, Any], status: str, options: Mapping[str, Any], excludes: bool | None, plan: str, admin: str, audience: str
) -> Campaign:
    segmented = bool(options.get("conditions") or options.get("saved_segment_id") or options.get("prebuilt_segment_id"))
    send_at = unix_of(one.get("send_time"))
    frozen = send_at if status == "sending" else None
    if status == "schedule" and segmented and plan in {"standard", "premium"}:
        frozen = unix_of(one.get("create_time"))
    mend = ""
    if excludes is not True:
        mend = f"Pause the campaign and add to its segment: Tags | contact is not tagged | {TAG}."
    elif frozen is not None and status == "schedule":
        mend = "Pause the campaign, generate its segment anew and schedule it again."
    saved = options.get("saved_segment_id")
    return Campaign(
        id=str(one["id"]),
        name=str(one.get("settings", {}).get("title", "")),
        channel="email",
        status="scheduled" if status == "schedule" else "sending",
        send_at=send_at,
        frozen_at=frozen,
        excludes_hold=excludes,
        audiences=(audience, *((str(saved),) if saved else ())),
        mend=mend,
        url=f"{admin}/campaigns/show/?id={one['web_id']}" if admin and one.get("web_id") else "",
        revertable=status == "schedule",
    )


async def unschedule(api: Api, campaign_id: str, http: Http) -> str:
    """Unschedule it [V: POST /campaigns/{id}/actions/unschedule]: it becomes a draft, for everybody."""
    said = await api.call(http, "POST", f"/campaigns/{quote(campaign_id, safe='')}/actions/unschedule", {}, refusable=True)
    if said.status != 204:
        raise Refused(said.refusal())
    return "The campaign is a draft again; nobody gets it until somebody schedules it anew in Mailchimp."


async def sent_since(api: Api, since: float, http: Http) -> Sequence[SendSeen]:
    """Who got which campaign, from the reports [V: GET /reports/{id}/sent-to], at most 1,000.

    A report tells one time for the whole campaign. So that a long one can be read on from where it was left, the recipient's
    place in the report is added as microseconds.
    """
    asked = urlencode({"since_send_time": iso_of(since - 1.0), "count": MOST, "fields": "reports"})
    reports = (await api.call(http, "GET", f"/reports?{asked}", max_bytes=LARGE)).json.get("reports", [])
    seen: list[SendSeen] = []
    for report in sorted(reports, key=lambda report: str(report.get("send_time", ""))):
        sent = unix_of(report.get("send_time"))
        if sent is None or report.get("list_id") != api.audience:
            continue
        start = max(0, round((since - sent) * 1_000_000))
        page = urlencode({"count": MOST, "offset": start, "fields": "sent_to.email_address,sent_to.email_id,sent_to.status"})
        said = await api.call(http, "GET", f"/reports/{quote(str(report['id']), safe='')}/sent-to?{page}", max_bytes=LARGE)
        for place, one in enumerate(said.json.get("sent_to", []), start):
            seen.append(
                SendSeen(
                    provider_key=f"{report['id']}:{one['email_id']}",
                    at=sent + place / 1_000_000,
                    kind="email",
                    value=str(one.get("email_address", "")),
                    profile=str(one["email_id"]),
                    channel="email",
                    campaign_id=str(report["id"]),
                    campaign=str(report.get("campaign_title", "")),
                )
            )
        if len(seen) >= MOST:
            break
    return sorted(seen, key=lambda one: one.at)[:MOST]


def judged(secret: str, request: Request, now: float) -> Verdict:
    """Judge `X-Mailchimp-Signature: t=...,v1=...`, the hex HMAC-SHA256 of `t.body`, at most five minutes old [V]."""
    if not secret:
        return Verdict.NO_KEY
    given = dict(part.strip().partition("=")[::2] for part in request.headers.get("x-mailchimp-signature", "").split(","))
    at, signature = given.get("t", ""), given.get("v1", "")
    if not at or not signature:
        return Verdict.UNSIGNED
    if not re.fullmatch(r"[0-9]{1,15}", at, re.ASCII) or abs(now - int(at)) > _SIGNATURE_SECONDS:
        return Verdict.BAD
    wanted = hmac.new(secret.encode(), at.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    return Verdict.GOOD if hmac.compare_digest(wanted.encode(), signature.encode()) else Verdict.BAD


def told(request: Request) -> Sequence[SendSeen]:
    """The `campaign` event: that a campaign went out or was cancelled. It names no recipient; `sent_since` tells them."""
    try:
        form = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    except UnicodeDecodeError as error:
        raise Unparseable("the form is not UTF-8") from error
    if form.get("type") != "campaign":
        return []
    campaign, at = form.get("data[id]", ""), unix_of(form.get("fired_at", "").replace(" ", "T"))
    if not campaign or at is None:
        raise Unparseable("a campaign event without data[id] or a readable fired_at")
    return [
        SendSeen(
            provider_key=f"campaign:{campaign}:{form['fired_at']}",
            at=at,
            channel="email",
            campaign_id=campaign,
            campaign=form.get("data[subject]", ""),
            prevented=form.get("data[status]", "sent") != "sent",
        )
    ]


def excludes_tag(options: Mapping[str, Any], tag: int | None) -> bool | None:
    """Whether a campaign's `segment_opts` leave tagged contacts out. None: it goes to something whose conditions are not told."""
    conditions = options.get("conditions") or []
    if not conditions:
        return None if options.get("saved_segment_id") or options.get("prebuilt_segment_id") else False
    named = [one for one in conditions if one.get("op") == "static_not" and tag is not None and _number(one.get("value")) == tag]
    return bool(named) and (options.get("match") == "all" or len(named) == len(conditions))


def _number(value: object) -> int | None:
    try:
        return int(str(value))
    except ValueError:
        return None
