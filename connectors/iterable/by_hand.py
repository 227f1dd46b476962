"""What a person does in Iterable, where no API can: the list, its suppression, the gate, the webhook.

`now` in a segmentation is the start of the current minute (https://support.iterable.com/hc/en-us/articles/360012688571); a data feed
that answers other than 200 skips the message with the reason DataFeedError (articles/360021169631-Send-Skips) and must answer a GET
within 10 seconds (articles/45728211053332) [V].
"""

from __future__ import annotations

from hub.marketing import Step

SEGMENT = "supportHold equals true AND supportHoldUntil is after now"
FEED = "https://YOUR-HUB/api/v1/holds/feed?email={{email}}&external_id={{userId}}&campaign=YOUR-CAMPAIGN"


def steps(name: str, hold_list: str) -> tuple[Step, ...]:
    """The steps for the destination of this name; `hold_list` is what the list of held users is called."""
    return (
        Step(
            text="After the first hold, Settings > Data Schema Management > User Profile Fields: see that supportHold is Boolean and "
            "supportHoldUntil a date. A type cannot be changed later."
        ),
        Step(text=f"Audience > Segmentation: both of these user properties; save it as a dynamic list named {hold_list}.", paste=SEGMENT),
        Step(text="In every marketing campaign: Audience > Select Lists > Dynamic lists, as a suppression list.", paste=hold_list),
        Step(
            text="In every marketing journey: before each message a filter of the same two; who matches it goes past the message.",
            paste=SEGMENT,
        ),
        Step(
            text="Safer still: Content > Data Feeds, a feed of type JSON with the header Authorization: Bearer YOUR-TOKEN, added to the "
            "templates. Leave its cache off. It answers 200 for who may be sent to; anything else, and the hub being away, skips the "
            f"message. Put the feed's id into destinations.{name}.gate_feed, so that the hub's watch knows of it.",
            paste=FEED,
        ),
        Step(
            text="To see what was sent and skipped: Integrations > System Webhooks > Create Webhook, auth type Basic with the token of "
            f"destinations.{name}.webhook_secret. Choose every Send and Send Skip event, status Enabled.",
            paste=f"https://YOUR-HUB/tools/{name}/hooks",
        ),
    )
