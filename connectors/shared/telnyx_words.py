"""Telnyx's words and ours: message statuses, and error codes as an agent can act on them."""

from __future__ import annotations

from hub.contract import DeliveryEvent, MessageStatus

# `to[].status` in https://developers.telnyx.com/api-reference/callbacks/delivery-update. A carrier that confirms nothing
# (`delivery_unconfirmed`) leaves a message sent.
STATUSES = {
    "scheduled": MessageStatus.QUEUED,
    "queued": MessageStatus.QUEUED,
    "sending": MessageStatus.SENDING,
    "sent": MessageStatus.SENT,
    "delivery_unconfirmed": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "delivery_failed": MessageStatus.FAILED,
    "sending_failed": MessageStatus.FAILED,
    "expired": MessageStatus.FAILED,
    "cancelled": MessageStatus.FAILED,
}

# The same words as news of a delivery.
EVENTS = {
    "sent": DeliveryEvent.SENT,
    "delivery_unconfirmed": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "delivery_failed": DeliveryEvent.BOUNCED,
    "expired": DeliveryEvent.BOUNCED,
    "sending_failed": DeliveryEvent.REJECTED,
    "cancelled": DeliveryEvent.REJECTED,
}

# After these the number takes nothing, now or later: a landline, or no number at all.
NEVER = frozenset({"10002", "40001", "40012", "40310"})

# https://developers.telnyx.com/docs/messaging/messages/error-codes and .../development/api-fundamentals/api-errors; what an agent
# can do about it stands in the same line. A code missing here is told in Telnyx's own words.
ERRORS = {
    "10001": "The number is not in use.",
    "10002": "This is not a valid phone number.",
    "10003": "Telnyx could not use an address (of a file, or of the hub). Check the hub's public URL.",
    "10004": "Telnyx misses a field. Check this channel's settings.",
    "10005": "Telnyx knows no such number or messaging profile. Check this channel's settings.",
    "10006": "Telnyx knows no such messaging profile. Check messaging_profile_id in this channel's settings.",
    "10007": "Telnyx failed. It may work later.",
    "10009": "Telnyx did not accept the API key. Check api_key in this channel's settings.",
    "10010": "The Telnyx account may not do this. Its owner must settle that with Telnyx.",
    "10011": "Too many messages at once for this Telnyx account. Send it again later.",
    "10015": "Telnyx did not accept the message, perhaps for its length. Shorten it.",
    "10016": "The number has to begin with + and its country code.",
    "40001": "The number is a landline, or cannot be reached by SMS. Try another channel.",
    "40002": "The carrier took the message for unwanted. Reword it, without shortened links, and send it later.",
    "40003": "Carriers have blocked the channel's number for unwanted messages. Its owner must settle that with Telnyx.",
    "40004": "The carrier rejected the message without a reason. It may work later.",
    "40005": "The message expired before the phone could be reached. It may work later.",
    "40006": "The carrier cannot be reached. It may work later.",
    "40007": "Telnyx stopped what looked like two machines answering each other.",
    "40008": "The carrier did not deliver the message and gave no reason. Try another channel.",
    "40009": "The carrier did not accept the text. Reword it.",
    "40011": "Too many messages at once for the carrier. Send it again later.",
    "40012": "The carrier does not know this number.",
    "40013": "The carrier does not accept the number this channel sends from. Check the channel's address.",
    "40014": "The message waited at Telnyx until it expired: the number sends too slowly. Send it again later.",
    "40015": "Telnyx took the message for unwanted. Reword it, without shortened links.",
    "40016": "The brand has used up its messages to T-Mobile for today. Send it again tomorrow.",
    "40017": "AT&T took the message for unwanted. Reword it, without shortened links.",
    "40018": "Too many messages a minute to AT&T for this US business texting campaign. Send it again later.",
    "40300": "The customer has opted out by STOP. They must write START before anything can be sent to them here.",
    "40301": "This number takes no such message (SMS or MMS). Send the text alone, with a link to the file.",
    "40302": "The text is too long. Split it.",
    "40304": "Telnyx does not take this text and these files together. Send them one after the other.",
    "40305": "The number this channel sends from is not the Telnyx account's, or not its messaging profile's. Check the channel's address.",
    "40306": "Telnyx does not know this channel's sender name. Set it up in the messaging profile.",
    "40308": "The number this channel sends from cannot send files. Send a link instead.",
    "40309": "Telnyx may not send to this country. Allow it in the messaging profile (allowed destinations).",
    "40310": "This is not a valid phone number.",
    "40312": "The messaging profile is switched off. Switch it on at Telnyx.",
    "40314": "Messaging is switched off for the Telnyx account. Its owner must settle that with Telnyx.",
    "40315": "Telnyx has stopped the number this channel sends from: too many of its messages were unwanted.",
    "40316": "The message is empty.",
    "40317": "The files are too many or too large: ten, and 1 MB in all. Send a link instead.",
    "40318": "Too many messages wait at Telnyx for this number. Send it again later.",
    "40319": "The number this channel sends from cannot send this to the customer's number. Try another channel.",
    "40320": "The number this channel sends from is not ready yet. Send it again later.",
    "40321": "The messaging profile has no number that can send this. Add one at Telnyx.",
    "40322": "Telnyx does not allow this content. Reword it.",
    "40328": "The text is too long for an SMS. Split it.",
    "40329": "The channel's toll-free number is not verified yet. Finish its verification at Telnyx.",
}


def explain(code: str, said: str = "") -> str:
    """An error in plain words with Telnyx's code; `said` is Telnyx's own text, for codes the table lacks."""
    words = ERRORS.get(code) or said or "Telnyx gave no reason."
    return f"{words} (Telnyx error {code})" if code else words
