"""Twilio's words and ours: message statuses, and error codes as an agent can act on them."""

from __future__ import annotations

from hub.contract import DeliveryEvent, MessageStatus

# https://www.twilio.com/docs/messaging/api/message-resource#message-status-values. A word missing here changes nothing: `unknown` is
# ours alone and means that we do not know whether a message left.
STATUSES = {
    "accepted": MessageStatus.QUEUED,
    "scheduled": MessageStatus.QUEUED,
    "queued": MessageStatus.QUEUED,
    "sending": MessageStatus.SENDING,
    "sent": MessageStatus.SENT,
    "partially_delivered": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.READ,
    "undelivered": MessageStatus.FAILED,
    "failed": MessageStatus.FAILED,
    "canceled": MessageStatus.FAILED,
}

# The same words as news of a delivery.
EVENTS = {
    "sent": DeliveryEvent.SENT,
    "partially_delivered": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "read": DeliveryEvent.READ,
    "undelivered": DeliveryEvent.BOUNCED,  # a carrier or WhatsApp gave it back
    "failed": DeliveryEvent.REJECTED,  # Twilio never handed it on
    "canceled": DeliveryEvent.REJECTED,
}

# After these the number takes nothing, now or later: it is no number, a landline, or out of service.
NEVER = frozenset({"21211", "21214", "21217", "21614", "21635", "30005", "30006"})

# https://www.twilio.com/docs/api/errors, the range of messaging; what an agent can do about it stands in the same line. A code
# missing here is told in Twilio's own words. What fails may cost all the same: `undelivered` what any message costs, `failed` a fee
# unless the cause was Twilio's or Meta's own (https://help.twilio.com/articles/27502337507483); 21627 and 30010 are about the price.
ERRORS = {
    # Refused as it was handed over
    "20003": "Twilio did not accept the account SID and auth token. Check this channel's settings.",
    "20404": "Twilio does not know this account. Check account_sid in this channel's settings.",
    "20429": "Too many messages at once for this Twilio account. Send it again later.",
    "21211": "This is not a valid phone number.",
    "21212": "The number this channel sends from is not valid. Check its address.",
    "21214": "This number cannot be reached.",
    "21217": "This does not look like a phone number.",
    "21265": "This is a short code, which takes no messages from us.",
    "21266": "The customer's number is the channel's own number.",
    "21267": "A trial account cannot send from a name. Upgrade the Twilio account, or send from a number.",
    "21268": "This is a premium number, to which Twilio does not send.",
    "21269": "This is an information service's number, to which Twilio does not send.",
    "21408": "Twilio may not send to this country. Enable the region in the Twilio console (Messaging, Geo permissions).",
    "21601": "The number this channel sends from takes no messages. Check the channel's address.",
    "21602": "The message is empty.",
    "21603": "No number to send from is set. Check the channel's address.",
    "21604": "No number to send to was named.",
    "21605": "The text is longer than 160 characters, more than this number may send.",
    "21606": "The number this channel sends from does not belong to the Twilio account, or cannot send this. Check the channel's address.",
    "21607": "The number this channel sends from is not in the Twilio sandbox. Check the channel's address.",
    "21608": "A trial account sends only to verified numbers. Verify this number at Twilio or upgrade the account.",
    "21609": "Twilio did not accept the status callback address. Check the hub's public URL.",
    "21610": "The customer has opted out by STOP. They must write START before anything can be sent to them here.",
    "21611": "Too many messages wait at Twilio for the number this channel sends from. Send it again later.",
    "21612": "Twilio cannot reach this number from the channel's number. Try another channel.",
    "21614": "This number cannot receive SMS. Try another channel.",
    "21617": "The text is longer than 1,600 characters. Split it.",
    "21619": "A message needs a text, a file or a template.",
    "21620": "Twilio could not use the address of a file. Check the hub's public URL.",
    "21621": "The number this channel sends from cannot send files. Send a link instead.",
    "21623": "Too many files for one message. Send them one by one.",
    "21627": "The charge for this message is above the limit set at Twilio.",
    "21635": "This is a landline, which takes no SMS. Try another channel.",
    "21654": "Twilio knows no such template. Fetch the templates again.",
    "21655": "This template's id is not one of Twilio's. Fetch the templates again.",
    "21656": "A variable of the template is missing, or has a line break or too many spaces in it. Fill in every one.",
    "21659": "The number this channel sends from does not belong to Twilio. Check the channel's address.",
    "21660": "The number this channel sends from belongs to another Twilio account. Check the channel's address.",
    "21661": "The number this channel sends from cannot send SMS. Check the channel's address.",
    "21701": "Twilio knows no such Messaging Service. Check messaging_service_sid in this channel's settings.",
    "21703": "The Messaging Service has no number that can send this. Add one to its sender pool in the Twilio console.",
    "21704": "The Messaging Service has no numbers. Add one to its sender pool in the Twilio console.",
    "21705": "Twilio knows no such Messaging Service. Check messaging_service_sid in this channel's settings.",
    "21712": "The number this channel sends from belongs to another Messaging Service. Check the channel's settings.",
    "21910": "The customer's address and the channel's are of different kinds (WhatsApp and SMS). Check the channel's address.",
    # Not delivered
    "30001": "Twilio's queue for this number was full. Send it again later.",
    "30002": "The Twilio account is suspended. Its owner must settle that with Twilio.",
    "30003": "The phone could not be reached: switched off, out of coverage, or no longer in service.",
    "30004": "The message was blocked: the number or its carrier does not take messages from us.",
    "30005": "The number is unknown or no longer in service.",
    "30006": "The number is a landline, or its carrier cannot be reached by SMS. Try another channel.",
    "30007": "The carrier or Twilio filtered the message as unwanted. Reword it, without shortened links.",
    "30008": "The carrier reported a failure without a reason. It may work later.",
    "30009": "A part of a long message was lost on the way. Ask the customer to send it again.",
    "30010": "The message would have cost more than the highest price allowed at Twilio. Shorten it, or raise the limit there.",
    "30011": "The customer's number or country takes no MMS. Send the text alone, with a link to the file.",
    "30012": "The time Twilio was given to deliver it was too short. Send it again.",
    "30013": "The time Twilio was given to deliver it was too long. Send it again.",
    "30014": "Twilio could not send a field of this message on. Send plain text.",
    "30017": "The carrier's network is overloaded. Send it again later.",
    "30018": "The carrier takes messages only from senders registered with it. Register the sender in the Twilio console.",
    "30019": "The file is larger than the carrier takes. Send a smaller one, or a link.",
    "30022": "Too many messages a minute for this US business texting campaign (A2P 10DLC). Send it again later.",
    "30023": "The brand has used up its messages to this US carrier for today (A2P 10DLC). Send it again tomorrow.",
    "30024": "The carrier does not know the number this channel sends from yet: newly registered or ported. Send it again later.",
    "30027": "The brand has used up its messages to T-Mobile for today. Send it again tomorrow.",
    "30032": "The channel's toll-free number is not verified yet. Finish its verification in the Twilio console.",
    "30033": "The channel's US business texting campaign (A2P 10DLC) is suspended. Its owner must settle that with Twilio.",
    "30034": "The channel's number is not registered for business texting in the US (A2P 10DLC). Register it in the Twilio console.",
    "30035": "The channel's number is still being registered for business texting in the US, which takes up to a day. Send it again later.",
    "30036": "The message waited at Twilio until it expired: the number sends too slowly. Send it again later.",
    "30037": "The Twilio account may not send messages. Its owner must settle that with Twilio.",
    "30038": "Twilio takes one-time codes only by its own product for them. Send something else.",
    "30039": "Twilio stopped what looked like two machines answering each other.",
    "30044": "A trial account sends only short messages. Shorten it, or upgrade the Twilio account.",
    "30046": "The phone never confirmed that the message came. It may work later.",
    "30410": "The carrier did not answer in time. It may work later.",
    "30450": "Twilio blocks messages to this destination for a while, since too many went there. Send it again later.",
    "30453": "Twilio took the message for fraud and did not deliver it. Send it again after some hours.",
    "30454": "The Twilio account has reached its limit for this destination. Send it again later.",
    "30500": "Twilio failed. Send it again later.",
    # WhatsApp and other channels
    "63001": "The channel's login at its provider was refused. Connect it anew in the Twilio console.",
    "63002": "Twilio knows no sender at this channel's address. Check it.",
    "63003": "Nobody can be reached at this address on this channel. Try another one.",
    "63005": "The channel did not accept this content. Send plain text or another kind of file.",
    "63006": "The channel could not show this message. Send plain text.",
    "63007": "Twilio knows no WhatsApp sender at this channel's address. Check it, and that the sender is approved.",
    "63008": "The WhatsApp sender is set up wrongly. Look at it in the Twilio console.",
    "63009": "WhatsApp returned an error with this message. Send it again later.",
    "63010": "Twilio failed. Send it again later.",
    "63012": "WhatsApp failed. Send it again later.",
    "63013": "The message goes against WhatsApp's policy and was not delivered.",
    "63014": "The customer has blocked us on this channel. Try another one.",
    "63015": "The customer has not joined Twilio's WhatsApp sandbox.",
    "63016": "More than 24 hours have passed since the customer last wrote: WhatsApp then takes only an approved template.",
    "63018": "Too many messages at once for this WhatsApp sender. Send it again later.",
    "63019": "WhatsApp could not fetch the file.",
    "63020": "Twilio has been given no business account at Meta for this sender. Its owner must accept Twilio's invitation there.",
    "63021": "WhatsApp does not take this content. Send plain text or another kind of file.",
    "63022": "WhatsApp has not confirmed the sender's display name. Look at the sender in the Twilio console.",
    "63023": "WhatsApp returned an error without a reason. It may work later.",
    "63024": "This number cannot receive WhatsApp messages. Try another channel.",
    "63025": "The file is already there under this name at WhatsApp. Send it again under another name.",
    "63027": "WhatsApp has no such template in this language. Fetch the templates again.",
    "63028": "The number of variables is not the template's. Fill in every one.",
    "63029": "The customer's phone could not load the template. Send another one.",
    "63030": "WhatsApp does not take a field of this message. Send plain text.",
    "63031": "The customer's number is the channel's own number.",
    "63032": "WhatsApp limits messages to this customer at present.",
    "63033": "The customer has blocked us on WhatsApp. Try another channel.",
    "63035": "The operation is not allowed on this channel.",
    "63036": "This number cannot receive such messages. Try another channel.",
    "63038": "The Twilio account has sent as many messages today as it may. Send it again tomorrow.",
    "63040": "WhatsApp rejected this template. Change it and submit it again in the Twilio console.",
    "63041": "WhatsApp paused this template, because people complained. Use another one, or wait.",
    "63042": "WhatsApp disabled this template for good, because people complained. Use another one.",
    "63049": "WhatsApp chose not to deliver this marketing message, to spare the customer. Do not send it again today.",
    "63050": "The customer wants no marketing from us on WhatsApp.",
    "63051": "Meta has locked the WhatsApp business account. Its owner must settle that with Meta.",
}


def explain(code: str, said: str = "") -> str:
    """An error in plain words with Twilio's code; `said` is Twilio's own text, for codes the table lacks."""
    words = ERRORS.get(code) or said or "Twilio gave no reason."
    return f"{words} (Twilio error {code})" if code else words
