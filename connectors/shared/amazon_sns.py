"""Amazon SNS over HTTPS: whose signature a message bears, and which of Amazon's addresses may be asked about it.

https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html. The certificate is named in the message itself, so
what proves it is that Amazon's own host serves it over HTTPS; and since anybody can have a topic at Amazon and point it at us, a
signature proves nothing until the topic is one of ours.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from hub.contract import Http, NoAnswer, NotSent, TryLater, Unparseable, Verdict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

TOPIC = re.compile(r"arn:aws(?:-cn|-us-gov)?:sns:[a-z0-9-]{3,30}:[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?")
_HOST = re.compile(r"sns\.[a-z0-9-]{3,30}\.amazonaws\.com(?:\.cn)?")
_CERTIFICATE = re.compile(r"/SimpleNotificationService-[A-Za-z0-9]{1,80}\.pem")
_SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}
MAX_CERTIFICATES = 16  # Amazon has one at a time for each region, renewed about once a year


def read_message(body: bytes) -> dict[str, str] | None:
    """The text fields of an SNS message; None where the body is not one."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("Type"), str) or found["Type"] not in _SIGNED:
        return None
    return {name: value for name, value in found.items() if isinstance(value, str)}


def is_certificate_url(url: str) -> bool:
    """Whether a URL is where Amazon keeps the certificates SNS signs with."""
    return _is_amazons(url) and bool(_CERTIFICATE.fullmatch(urlsplit(url).path)) and "?" not in url and "#" not in url


def is_confirming_url(url: str, topic: str) -> bool:
    """Whether a URL confirms the subscription to this topic at Amazon, and does nothing else."""
    if not _is_amazons(url) or urlsplit(url).path not in ("", "/"):
        return False
    asked = parse_qs(urlsplit(url).query)
    return asked.get("Action") == ["ConfirmSubscription"] and asked.get("TopicArn") == [topic]


def _is_amazons(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(_HOST.fullmatch(parts.netloc))  # netloc: no port and no credentials either


def string_to_sign(message: Mapping[str, str]) -> bytes:
    """What SNS signs: the names and values of the fields for this type, one a line; a Subject only where there is one."""
    return "".join(f"{name}\n{message[name]}\n" for name in _SIGNED[message["Type"]] if name in message).encode("utf-8", "surrogatepass")


class Certificates:
    """The public keys of the certificates fetched so far, by their URL."""

    def __init__(self) -> None:
        self._keys: dict[str, RSAPublicKey] = {}

    def __contains__(self, url: str) -> bool:
        return url in self._keys

    async def fetch(self, url: str, http: Http) -> None:
        """Fetch a certificate from Amazon (see `is_certificate_url`, which the caller has asked). Raises TryLater."""
        try:
            answer = await http.request("GET", url, max_bytes=50_000)
        except (NotSent, NoAnswer) as error:
            raise TryLater(f"Amazon's signing certificate could not be fetched: {error}") from error
        if answer.status != 200:
            raise TryLater(f"Amazon's signing certificate could not be fetched: {urlsplit(url).hostname} answered {answer.status}.")
        key = _public_key(answer.body)
        while len(self._keys) >= MAX_CERTIFICATES:
            del self._keys[next(iter(self._keys))]
        self._keys[url] = key

    def judge(self, message: Mapping[str, str]) -> Verdict:
        """Judge the signature of a message; NO_KEY while its certificate has not been fetched."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA1, SHA256

        signature, url = message.get("Signature", ""), message.get("SigningCertURL", "")
        if not signature:
            return Verdict.UNSIGNED
        # SHA-1 is what topics sign with unless set to SignatureVersion 2. Nobody but Amazon chooses what is signed with its key.
        hashed = {"1": SHA1, "2": SHA256}.get(message.get("SignatureVersion", ""))
        if hashed is None or not is_certificate_url(url):
            return Verdict.BAD
        key = self._keys.get(url)
        if key is None:
            return Verdict.NO_KEY
        try:
            key.verify(base64.b64decode(signature, validate=True), string_to_sign(message), PKCS1v15(), hashed())
        except (InvalidSignature, binascii.Error, ValueError):
            return Verdict.BAD
        return Verdict.GOOD


def _public_key(pem: bytes) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        key = load_pem_x509_certificate(pem).public_key()
    except ValueError as error:
        raise TryLater("Amazon's signing certificate cannot be read.") from error
    if not isinstance(key, RSAPublicKey):
        raise TryLater("Amazon's signing certificate holds no RSA key.")
    return key


async def confirm(message: Mapping[str, str], http: Http) -> None:
    """Confirm the subscription an authentic message of our own topic asks for. Raises TryLater, or Unparseable where it is too late."""
    url = message.get("SubscribeURL", "")
    if not is_confirming_url(url, message.get("TopicArn", "")):
        raise Unparseable("Amazon's confirmation names an address that is not SNS's own. Confirm the subscription in the SNS console.")
    try:
        answer = await http.request("GET", url)
    except (NotSent, NoAnswer) as error:  # asked twice, it is confirmed all the same
        raise TryLater(f"The subscription could not be confirmed at Amazon: {error}") from error
    if answer.status == 429 or answer.status >= 500:
        raise TryLater(f"The subscription could not be confirmed: Amazon answered {answer.status}.")
    if answer.status != 200:
        raise Unparseable(
            f"The subscription was not confirmed: Amazon answered {answer.status}. Request confirmation anew in the SNS console."
        )


def notified(message: Mapping[str, str]) -> dict[str, Any] | None:
    """The JSON object a notification carries; None for plain words. Never raises."""
    try:
        found = json.loads(message.get("Message", ""))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
