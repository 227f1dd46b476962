"""Messages of Amazon SNS as its documentation shows them, signed with a certificate of our own, and Amazon's hosts to ask about them."""

import base64
import functools
import json
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from connectors.email.amazon_ses import AmazonSesEmail
from connectors.shared.amazon_sns import string_to_sign
from hub.contract import (
    HttpResponse,
    Place,
    Request,
    Verdict,
)

PLACE = Place(name="support", inbound_url="https://hub.example/in/support", key=b"k" * 32)
TOPIC = "arn:aws:sns:eu-central-1:123456789012:support-mail"
CERTIFICATE = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
KEY_ID, SECRET = "AKIDEXAMPLE", "SECRETWORD"
BY_API = {"access_key_id": KEY_ID, "secret_access_key": SECRET, "region": "eu-central-1"}


def channel(**extra) -> AmazonSesEmail:
    known = {"type": "amazon_ses", "address": "support@hub.example", "smtp": {"host": "smtp.hub.example"}, "topics": (TOPIC,)}
    return AmazonSesEmail(AmazonSesEmail.Settings(**(known | extra)), PLACE, lambda: NOW)


@functools.cache
def authority() -> tuple[rsa.RSAPrivateKey, bytes]:
    """A key and its certificate, as Amazon has one in each region."""
    key = rsa.generate_private_key(65537, 2048)
    return key, certificate(key)


def certificate(key) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    start = datetime(2025, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    made = made.not_valid_before(start).not_valid_after(start + timedelta(days=800))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def sns(message: object, version="1", **fields) -> dict[str, str]:
    """An SNS notification, signed."""
    known = {
        "Type": "Notification",
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Message": message if isinstance(message, str) else json.dumps(message),
        "Timestamp": "2026-01-02T03:04:00.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE,
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
    } | fields
    return known | {"Signature": signature(known, version)}


def signature(message: dict[str, str], version: str) -> str:
    hashed = hashes.SHA1() if version == "1" else hashes.SHA256()
    return base64.b64encode(authority()[0].sign(string_to_sign(message), padding.PKCS1v15(), hashed)).decode()


def posted(message: object) -> Request:
    return Request("POST", PLACE.inbound_url, {"content-type": "text/plain; charset=UTF-8"}, json.dumps(message).encode())


class Amazon:
    """The guarded client as Amazon's hosts would answer it; it keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.pages: dict[str, HttpResponse | Exception] = {CERTIFICATE: HttpResponse(200, {}, authority()[1])}

    async def request(self, method, url, *, headers=None, body=None, timeout=15.0, max_bytes=1_000_000):
        self.asked.append((method, url, dict(headers or {})))
        found = self.pages.get(url, HttpResponse(404, {}, b""))
        if isinstance(found, Exception):
            raise found
        return found


async def verdict(sent: Request, made: AmazonSesEmail | None = None, amazon: Amazon | None = None) -> Verdict:
    made = made or channel()
    await made.prepare(sent, amazon or Amazon())
    return made.verify(sent, NOW)
