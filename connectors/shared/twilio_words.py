"""Twilio's words and ours: message statuses, error codes as an agent can act on them, and names for files that come without one."""

from __future__ import annotations

from hub.contract import MessageStatus

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

# https://www.twilio.com/docs/api/errors; what an agent can do about it stands in the same line.
ERRORS = {
    "20003": "Twilio did not accept the account SID and auth token. Check this channel's settings.",
    "20404": "Twilio does not know this account. Check account_sid in this channel's settings.",
    "21211": "This is not a valid phone number.",
    "21212": "The number this channel sends from is not valid. Check its address.",
    "21266": "The customer's number is the channel's own number.",
    "21408": "Twilio may not send to this country. Enable the region in the Twilio console (Messaging, Geo permissions).",
    "21606": "The number this channel sends from does not belong to the Twilio account, or cannot send this. Check the channel's address.",
    "21608": "A trial account sends only to verified numbers. Verify this number at Twilio or upgrade the account.",
    "21609": "Twilio did not accept the status callback address. Check the hub's public URL.",
    "21610": "The customer has opted out by STOP. They must write START before anything can be sent to them here.",
    "21612": "Twilio cannot reach this number from the channel's number. Try another channel.",
    "21614": "This number cannot receive SMS. Try another channel.",
    "21617": "The text is longer than 1,600 characters. Split it.",
    "21620": "Twilio could not use the address of a file. Check the hub's public URL.",
    "21623": "Too many files for one message. Send them one by one.",
    "30001": "Twilio's queue for this number was full. Send it again later.",
    "30002": "The Twilio account is suspended. Its owner must settle that with Twilio.",
    "30003": "The phone could not be reached: switched off, out of coverage, or no longer in service.",
    "30004": "The message was blocked: the number or its carrier does not take messages from us.",
    "30005": "The number is unknown or no longer in service.",
    "30006": "The number is a landline, or its carrier cannot be reached by SMS. Try another channel.",
    "30007": "The carrier or Twilio filtered the message as unwanted. Reword it, without shortened links.",
    "30008": "The carrier reported a failure without a reason. It may work later.",
    "30032": "The channel's toll-free number is not verified yet. Finish its verification in the Twilio console.",
    "30034": "The channel's number is not registered for business texting in the US (A2P 10DLC). Register it in the Twilio console.",
    "30410": "The carrier did not answer in time. It may work later.",
    "63003": "Nobody can be reached at this address on this channel. Try another one.",
    "63005": "The channel did not accept this content. Send plain text or another kind of file.",
    "63007": "Twilio knows no WhatsApp sender at this channel's address. Check it, and that the sender is approved.",
    "63013": "The message goes against WhatsApp's policy and was not delivered.",
    "63014": "The customer has blocked us on this channel. Try another one.",
    "63015": "The customer has not joined Twilio's WhatsApp sandbox.",
    "63016": "More than 24 hours have passed since the customer last wrote: WhatsApp then takes only an approved template.",
    "63018": "Too many messages at once for this WhatsApp sender. Send it again later.",
    "63019": "WhatsApp could not fetch the file.",
    "63024": "This number cannot receive WhatsApp messages. Try another channel.",
    "63032": "WhatsApp limits messages to this customer at present.",
}

# Vendors' own words for file types; `mimetypes` would answer differently from machine to machine.
MEDIA_ENDINGS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/gif": "gif",
    "image/webp": "webp",
    "image/heic": "heic",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/mp4": "m4a",
    "audio/aac": "aac",
    "audio/amr": "amr",
    "audio/3gpp": "3gp",
    "video/mp4": "mp4",
    "video/3gpp": "3gp",
    "video/quicktime": "mov",
    "text/vcard": "vcf",
    "text/x-vcard": "vcf",
    "text/plain": "txt",
    "text/csv": "csv",
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
}


def explain(code: str, said: str = "") -> str:
    """An error in plain words with Twilio's code; `said` is Twilio's own text, for codes the table lacks."""
    words = ERRORS.get(code) or said or "Twilio gave no reason."
    return f"{words} (Twilio error {code})" if code else words


def media_name(content_type: str, number: int) -> str:
    """A file name people understand, since Twilio tells none: `image-1.jpg`, `contact-1.vcf`, `file-2.pdf`."""
    ending = MEDIA_ENDINGS.get(content_type, "")
    major = content_type.partition("/")[0]
    noun = "contact" if ending == "vcf" else major if major in ("image", "audio", "video") else "file"
    return f"{noun}-{number}.{ending}" if ending else f"{noun}-{number}"
