"""Signature Version 4 against the examples Amazon publishes with their results."""

import hashlib
from datetime import UTC, datetime

import pytest

from connectors.shared.aws_signature import AwsKey, sign

IAM_2013 = datetime(2013, 5, 24, tzinfo=UTC).timestamp()
SUITE = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
S3 = AwsKey("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "us-east-1", "s3")
SERVICE = AwsKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "service")
IAM = AwsKey("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1", "iam")
BUCKET = "https://examplebucket.s3.amazonaws.com"
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html, and Amazon's Signature Version 4 test suite.
PUBLISHED = [
    (
        "S3, get object",
        (S3, "GET", f"{BUCKET}/test.txt", IAM_2013, {"Range": "bytes=0-9"}),
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    (
        "S3, put object",
        (
            S3,
            "PUT",
            f"{BUCKET}/test%24file.text",
            IAM_2013,
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
        ),
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    (
        "S3, bucket lifecycle: a query name without a value",
        (S3, "GET", f"{BUCKET}/?lifecycle", IAM_2013),
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    (
        "S3, list objects",
        (S3, "GET", f"{BUCKET}/?prefix=J&max-keys=2", IAM_2013),
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
    (
        "suite, get-vanilla",
        (SERVICE, "GET", "https://example.amazonaws.com/", SUITE),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    ),
    (
        "suite, post-vanilla",
        (SERVICE, "POST", "https://example.amazonaws.com", SUITE),
        "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
    ),
    (
        "IAM, ListUsers",
        (IAM, "GET", "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", SUITE, FORM),
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
    ),
]


@pytest.mark.parametrize(("name", "call", "signature"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_amazons_published_examples_come_out_the_same(name, call, signature):
    assert sign(*call)["authorization"].endswith(f"Signature={signature}"), name


def test_the_headers_say_who_signed_what_and_when():
    sent = sign(S3, "GET", f"{BUCKET}/test.txt", IAM_2013)
    assert sent["x-amz-date"] == "20130524T000000Z"
    assert sent["x-amz-content-sha256"] == hashlib.sha256(b"").hexdigest()
    assert sent["authorization"].startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;x-amz-content-sha256;x-amz-date, "
    )


def test_a_temporary_keys_token_is_sent_and_signed():
    temporary = AwsKey("AKIDEXAMPLE", SERVICE.secret, "us-east-1", "service", "TOKEN")
    sent = sign(temporary, "GET", "https://example.amazonaws.com/", SUITE)
    assert sent["x-amz-security-token"] == "TOKEN"
    assert "host;x-amz-date;x-amz-security-token" in sent["authorization"]


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("GET", "https://example.amazonaws.com/", b""),
        ("POST", "https://example.amazonaws.com/x", b""),
        ("POST", "https://other.amazonaws.com/", b""),
        ("POST", "https://example.amazonaws.com/?a=b", b""),
        ("POST", "https://example.amazonaws.com/", b"x"),
    ],
)
def test_any_change_of_the_request_changes_the_signature(method, url, body):
    signed = sign(SERVICE, "POST", "https://example.amazonaws.com/", SUITE)["authorization"]
    assert sign(SERVICE, method, url, SUITE, None, body)["authorization"] != signed


def test_no_secret_shows_in_a_repr():
    assert "wJalr" not in repr(S3)
    assert "TOKEN" not in repr(AwsKey("a", "b", "c", "d", "TOKEN"))
