"""The configuration as the rules that decisions read."""

from __future__ import annotations

from hub.config import HoldSettings, SatisfactionSettings
from hub.contract import Channel, ChannelSettings
from hub.policy import DAY, SECOND, ChannelRule, HoldRules
from hub.survey_policy import MINUTE, SurveyPolicy, minutes


def channel_rule(id_: int, name: str, own: ChannelSettings, connector: Channel) -> ChannelRule:
    """What a decision may know of a channel."""
    return ChannelRule(
        id_,
        name,
        connector.label,
        own.brand,
        connector.reaches,
        connector.idempotent,
        mails="email" in connector.reaches,
        site=getattr(own, "site", ""),
        window=int(getattr(connector, "window_hours", 0) * 3_600 * SECOND),
    )


def hold_rules(own: HoldSettings) -> HoldRules:
    """The rules of holds as decisions read them."""
    return HoldRules(
        statuses=frozenset(own.statuses),
        tags=frozenset(own.tags),
        tags_not=frozenset(own.tags_not),
        priorities=frozenset(own.priorities),
        longest=int(own.longest_days * DAY),
        resume=own.resume,
        cool_down=int(own.cool_down_days * DAY),
        low_score=int(own.low_score_days * DAY),
        complaint_tags=frozenset(own.complaint_tags),
        complaint=int(own.complaint_days * DAY),
    )


def survey_rules(own: SatisfactionSettings) -> SurveyPolicy:
    """The rules of the survey as decisions read them."""
    return SurveyPolicy(
        kind=own.kind,
        delay=int(own.delay_minutes * MINUTE),
        every=int(own.every_days * DAY),
        life=int(own.life_days * DAY),
        quiet_from=minutes(own.quiet_from),
        quiet_until=minutes(own.quiet_until),
        time_zone=own.time_zone,
        language=own.language,
        questions=own.questions,
    )
