"""Meta's words in ours: statuses, errors, webhook fields, kinds of messages and files.

Statuses: https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/status
Errors: https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes
"""

from __future__ import annotations

import re

from hub.contract import DeliveryEvent, MessageStatus

STATUSES = {
    "sent": MessageStatus.SENT,
    "delivered": MessageStatus.DELIVERED,
    "read": MessageStatus.READ,
    "played": MessageStatus.READ,  # a voice message was listened to
    "failed": MessageStatus.FAILED,
}

EVENTS = {
    "sent": DeliveryEvent.SENT,
    "delivered": DeliveryEvent.DELIVERED,
    "read": DeliveryEvent.READ,
    "played": DeliveryEvent.READ,
    "failed": DeliveryEvent.REJECTED,
}

UNDELIVERABLE = "131026"
STOPPED_MARKETING = "131050"

ERRORS = {
    # Who we are
    "0": "Meta does not accept the access token. Set a new access_token in this channel's settings.",
    "3": "The access token lacks a permission (whatsapp_business_messaging). Grant it at Meta, and set the new access_token.",
    "10": "The access token lacks a permission (whatsapp_business_messaging). Grant it at Meta, and set the new access_token.",
    "190": "The access token has expired or was withdrawn. Set a new access_token in this channel's settings.",
    "200": "The access token lacks a permission. Grant it at Meta, and set the new access_token.",
    # Too fast
    "4": "Meta takes no more calls from this app for now. It is tried again later.",
    "80007": "Meta takes no more calls for this WhatsApp business account for now. It is tried again later.",
    "130429": "Too many messages at once from this number. It is tried again later.",
    "131048": "Meta limits this number, because people blocked it or marked it as spam. Look at its quality in WhatsApp Manager.",
    "131056": "Too many messages to this customer in a short time. It is tried again later.",
    "131057": "Meta is moving or upgrading this number and takes nothing from it for some minutes. It is tried again later.",
    "131064": "Meta limits this business account for now, because people objected to its messages. Look into WhatsApp Manager.",
    # Policy
    "368": "Meta has restricted the WhatsApp business account for breaking its policy. Its owner must settle that with Meta.",
    "130497": "Meta does not let this business write to customers in that country.",
    "131031": "Meta has locked the WhatsApp business account. Its owner must settle that with Meta.",
    # The call
    "1": "Meta did not understand the request, or failed. Send it again later.",
    "2": "Meta is overloaded or under repair. It is tried again later.",
    "33": "Meta knows no such number: it was deleted there. Check phone_number_id in this channel's settings.",
    "100": "Meta did not take the request: something in it is missing or wrong.",
    "131000": "Meta failed without a reason. It may work later.",
    "131005": "The access token lacks a permission. Grant it at Meta, and set the new access_token.",
    "131008": "Meta misses something in the request.",
    "131009": "Meta does not take a value in the request. Check phone_number_id, and that the customer's number is complete.",
    "131016": "Meta is out of service for the moment. It may work later.",
    # The message
    "130403": "Meta does not let this business use that function.",
    "130472": "Meta did not deliver it: this customer is part of an experiment with marketing messages. Another try changes nothing.",
    "131021": "The customer's number is the channel's own number.",
    UNDELIVERABLE: "WhatsApp cannot reach this customer: no WhatsApp on this number, an old version, or its new terms not accepted.",
    "131030": "The number is not on the list of test recipients. Add it at Meta, or take a real number into use.",
    "131037": "The display name of the channel's number is not approved yet. Look into WhatsApp Manager.",
    "131042": "Meta could not charge for it: the WhatsApp business account has a payment problem. Its owner must look into Meta's billing.",
    "131045": "The channel's number is not registered properly. Register it again at Meta.",
    "131047": "More than 24 hours have passed since the customer last wrote: WhatsApp then takes only an approved template.",
    "131049": "WhatsApp chose not to deliver this marketing message, to spare the customer. Do not send it again today.",
    STOPPED_MARKETING: "The customer wants no marketing from us on WhatsApp.",
    "131051": "WhatsApp does not take this kind of message.",
    "131052": "WhatsApp could not hand over the customer's file. Ask them to send it again.",
    "131053": "WhatsApp could not take the file: it could not be fetched, or its kind or content is not supported.",
    "131055": "WhatsApp does not let this number use that function.",
    "131060": "The message is not available at WhatsApp. Ask the customer to send it again.",
    "131062": "This message cannot go to somebody who shows no phone number (a one-time code needs one).",
    # Templates
    "132000": "The number of variables is not the template's. Fill in every one.",
    "132001": "WhatsApp has no such template in this language, or has not approved it. Fetch the templates again.",
    "132005": "The filled-in template is too long. Shorten the variables.",
    "132007": "The template's content goes against WhatsApp's policy. Change it and submit it again.",
    "132008": "A variable of the template is of the wrong kind. Fetch the templates again.",
    "132012": "A variable is not of the form the template wants. Fetch the templates again.",
    "132015": "WhatsApp paused this template, because people complained. Use another one, or wait.",
    "132016": "WhatsApp disabled this template for good, because people complained. Use another one.",
    "132018": "A variable of the template is not accepted: no line breaks, tabs or more than four blanks in a row.",
    "132068": "The flow behind the template is blocked at Meta.",
    "132069": "The flow behind the template is throttled at Meta. Send it again in an hour.",
    # The number
    "133000": "A deregistration of the number at Meta was not finished. Finish it there.",
    "133004": "Meta's registration is out of service. Send it again later.",
    "133005": "The two-step PIN of the number was wrong. Register it again at Meta.",
    "133006": "The channel's number must be verified at Meta before it can be used.",
    "133008": "The two-step PIN of the number was wrong too often. Meta says when to try again.",
    "133009": "The two-step PIN of the number was tried too fast. Try again in a moment.",
    "133010": "The channel's number is not registered for the Cloud API. Register it at Meta (WhatsApp, API Setup).",
    "133015": "The number was deleted at Meta a moment ago. Wait five minutes, then register it again.",
    "133016": "The number was registered and deregistered too often. Meta blocks that for 72 hours.",
    "134011": "Meta's payments terms are not accepted. Its owner must accept them in WhatsApp Manager.",
    "134101": "The template is still being prepared at Meta. Send it again in ten minutes.",
    "134102": "The template cannot be used at present. Look at it in WhatsApp Manager.",
    "135000": "Meta failed on the request without a reason. Send it again later.",
    "1752041": "Meta is handling such a request already.",
    "2388103": "The template is known to WhatsApp in another form. Fetch the templates again.",
}

# What the fields of a webhook tell that say nothing of a customer's message.
FIELDS = {
    "account_alerts": "an alert about the WhatsApp business account: see WhatsApp Manager",
    "account_review_update": "Meta's review of the WhatsApp business account",
    "account_settings_update": "a setting of the number was changed at Meta",
    "account_update": "a change to the WhatsApp business account: see WhatsApp Manager",
    "automatic_events": "an event of Meta's advertising",
    "business_capability_update": "how many people the business may write to was changed by Meta",
    "business_status_update": "a change to the business at Meta",
    "calls": "a call: calls are not taken here",
    "flows": "news of a flow",
    "group_lifecycle_update": "a group was made or deleted",
    "group_participants_update": "somebody joined or left a group",
    "group_settings_update": "a group's settings were changed",
    "group_status_update": "a group was suspended or released",
    "history": "the history of the WhatsApp Business app from before this channel",
    "message_echoes": "a message this business wrote somewhere else",
    "message_template_components_update": "a template was changed at Meta: fetch the templates again",
    "message_template_quality_update": "the quality of a template was judged anew: see WhatsApp Manager",
    "message_template_status_update": "a template was approved, rejected, paused or disabled: fetch the templates again",
    "messaging_handovers": "a conversation was handed to another app",
    "partner_solutions": "news of a partner solution",
    "payment_configuration_update": "the set-up of payments was changed",
    "phone_number_name_update": "the display name of a number was judged: see WhatsApp Manager",
    "phone_number_quality_update": "the quality or the limit of a number was changed: see WhatsApp Manager",
    "security": "a security setting of the number was changed: see WhatsApp Manager",
    "smb_app_state_sync": "the address book of the WhatsApp Business app",
    "smb_message_echoes": "a message this business wrote in the WhatsApp Business app",
    "standby": "a message that another app answers",
    "template_category_update": "Meta put a template into another category: fetch the templates again",
    "template_correct_category_detection": "Meta thinks a template belongs into another category",
    "tracking_events": "an event of Meta's advertising",
}

# Meta's own words for file types; `mimetypes` would answer differently from machine to machine.
ENDINGS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/gif": "gif",
    "audio/aac": "aac",
    "audio/amr": "amr",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/ogg": "ogg",
    "video/mp4": "mp4",
    "video/3gpp": "3gp",
    "text/plain": "txt",
    "text/csv": "csv",
    "application/pdf": "pdf",
    "application/zip": "zip",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
}

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def explain(code: str, said: str = "") -> str:
    """An error in plain words with Meta's code; `said` is Meta's own text, which is all there is for codes the table lacks, and is added
    where the table cannot say what was wrong."""
    # 200 to 299 are all permissions.
    words = ERRORS.get("200" if re.fullmatch("2[0-9]{2}", code) else code, "")
    if code in ("100", "131008", "131009") and said:
        words = f"{words} Meta says: {said}"
    words = words or said or "Meta gave no reason."
    return f"{words} (Meta error {code})" if code else words


def clean(said: object) -> str:
    """A text of Meta's without what no text column takes (NUL, half of a surrogate pair); empty where it is no text."""
    return _UNSTORABLE.sub("", said) if isinstance(said, str) else ""


def file_name(kind: str, content_type: str) -> str:
    """A file name people understand, since WhatsApp has names only for documents: `image.jpg`, `voice message.ogg`."""
    ending = ENDINGS.get(content_type, "")
    return f"{kind}.{ending}" if ending else kind
