"""What a person does in Braze's dashboard, where no API can: the segment, its exclusion, the gate, the export of what was sent.

The words of the filters are those of the dashboard
(https://www.braze.com/docs/user_guide/data/activation/custom_data/data_types/), the gate's lines Liquid with Connected Content
(https://www.braze.com/docs/user_guide/personalization_and_dynamic_content/connected_content/: GET is cached for five minutes and up to
four hours unless `:no_cache`; an answer that takes over two seconds is not put in; `abort_message` with a reason) [V].
"""

from __future__ import annotations

from hub.marketing import Step

SEGMENT = "support_hold IS TRUE AND support_hold_until IN LESS THAN 30 DAYS IN FUTURE"

# YOUR-HUB, YOUR-TOKEN and YOUR-CAMPAIGN are filled in by whoever pastes it. `hold` is missing where the hub did not answer in time.
GATE = (
    "{% connected_content https://YOUR-HUB/api/v1/holds/check?external_id={{${user_id} | url_param_escape}}"
    "&email={{${email_address} | url_param_escape}}&campaign=YOUR-CAMPAIGN "
    ':headers {"Authorization": "Bearer YOUR-TOKEN"} :no_cache :save gate %}'
    "{% if gate.hold != false %}{% abort_message('support_hold') %}{% endif %}"
)


def steps(name: str, tag: str) -> tuple[Step, ...]:
    """The steps for the destination of this name; `tag` says of a campaign that it leaves held customers out (empty: none does)."""
    tagging = Step(text="Tag each campaign and Canvas that has one of the two, so that the hub's watch knows of it.", paste=tag)
    return (
        Step(
            text="After the first hold, Data Settings > Custom Attributes: see that support_hold is a Boolean and support_hold_until "
            "is a Time."
        ),
        Step(text="Audience > Segments > Create Segment, named Support hold, with both of these filters:", paste=SEGMENT),
        Step(
            text="In every marketing campaign, and for the entry of every marketing Canvas: Target Audience > Additional Filters. "
            "In a Canvas set the opposite (is in) as an exit criterion too.",
            paste="Segment Membership IS NOT IN Support hold",
        ),
        Step(
            text="Safer still: at the very top of each message, the gate. It is asked as the message is made, so a hold placed a second "
            "before counts. Keep :no_cache: without it Braze repeats an answer for five minutes and more. As it stands, nothing is "
            "sent while the hub does not answer; with gate.hold == true instead, it is.",
            paste=GATE,
        ),
        *((tagging,) if tag else ()),
        Step(
            text="To see what was sent and aborted: Partner Integrations > Data Export > Create New Current > Custom Currents Export. "
            f"Choose the Send and Abort events of every channel; the bearer token is destinations.{name}.webhook_secret, the endpoint:",
            paste=f"https://YOUR-HUB/tools/{name}/hooks",
        ),
    )
