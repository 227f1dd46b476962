"""Proof of a mail's sender: verdicts of mail servers we have reason to believe, held against the From domain.

From is free text. What proves it is a passing DKIM signature or SPF check of a domain *aligned* with From's (RFC 7489
section 3.1), or a DMARC pass. A verdict counts only where our own server or the signed provider wrote it; half of what
stands in such a verdict (envelope sender, signing identity) is the sender's own text, so it is parsed, never searched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from connectors.shared.mail_headers import Headers, ascii_domain, comment_end, quoted_end
from hub.contract import Proof

DMARC_FAIL = (
    "The sender's domain rejects this mail (DMARC fail): it may be forged. "
    "It is kept; check with the customer by another way before answering."
)

# Second-level names under country codes that belong to a registry, not to one organisation ("co.uk"). The full Public
# Suffix List is not needed: a mistake here only decides whether a parent may vouch for its own sub-domain.
_REGISTRY_LABELS = frozenset({"co", "com", "org", "net", "gov", "ac", "edu", "or", "ne", "go", "gob", "gouv", "nom"})
_ENTRY = r"@[A-Za-z0-9.-]+\s*:\s*[a-z]+(?:\s*\([A-Za-z0-9 _-]*\))?"
_DKIM_FIELD = re.compile(rf"(?:\{{\s*{_ENTRY}(?:\s*,\s*{_ENTRY})*\s*\}}\s*)+")
_DKIM_ENTRY = re.compile(r"@([A-Za-z0-9.-]+)\s*:\s*([a-z]+)")
_DKIM_TAG = re.compile(r"(?:^|;)\s*[id]\s*=([^;]*)")
_PLAIN_IDENTITY = re.compile(r"(?:(?:[A-Za-z0-9._+/-]|=3D)*@)?[A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is known of the sender: the proof for From, and a doubt in plain words (empty: none)."""

    proof: Proof = Proof.CLAIMED
    doubt: str = ""


def aligned(domain: str, from_domain: str) -> bool:
    """Whether two domains are one organisation's: equal, or one a sub-domain of the other on a dot boundary.

    The shorter must be something one organisation can own: two labels at least, and not a registry's (`co.uk`).
    """
    one, other = sorted((ascii_domain(domain), ascii_domain(from_domain)), key=len)
    labels = one.split(".")
    if not one or len(labels) < 2 or not all(labels):
        return False
    return one == other or (owned(one) and other.endswith("." + one))


def owned(domain: str) -> bool:
    """Whether one organisation can own a domain (in its ASCII form): it has two labels at least and is not a registry's (`co.uk`)."""
    labels = domain.split(".")
    if len(labels) < 2 or not all(labels):
        return False
    return not (len(labels) == 2 and len(labels[1]) == 2 and labels[0] in _REGISTRY_LABELS)


def dkim_passes(field: str, headers: Headers) -> list[str]:
    """The domains SendGrid's `dkim` field says passed, such as `{@a.example : pass, @b.example : fail}`; empty when in doubt."""
    return [domain.lower() for domain, result in _DKIM_ENTRY.findall(field) if result == "pass"] if dkim_told(field, headers) else []


def dkim_told(field: str, headers: Headers) -> bool:
    """Whether SendGrid's `dkim` field can be read as a verdict at all.

    The field is not JSON (sendgrid/docs#1991), may hold a stack trace (sendgrid/docs#6483), and prints the signature's own
    `i=` text, which the sender writes: a field that does not match the grammar to its last character, or a signature whose
    identity could imitate it, proves nothing.
    """
    if len(field) > 4000 or not _DKIM_FIELD.fullmatch(field.strip()):
        return False
    for name in ("dkim-signature", "domainkey-signature"):
        for signature in headers.all(name):
            for identity in _DKIM_TAG.findall(signature[:8000]):
                if not _PLAIN_IDENTITY.fullmatch("".join(identity.split())):
                    return False
    return True


def judge_sendgrid(from_domain: str, headers: Headers, *, spf: str, dkim: str, envelope_from: str) -> Judgement:
    """Judge by the fields SendGrid computed: an aligned DKIM pass, or an SPF pass with an aligned envelope sender.

    https://www.twilio.com/docs/sendgrid/for-developers/parsing-email/setting-up-the-inbound-parse-webhook
    """
    if any(aligned(domain, from_domain) for domain in dkim_passes(dkim, headers)):
        return Judgement(Proof.DMARC)
    spf_passed = spf.split()[:1] == ["pass"]
    if spf_passed and aligned(envelope_from.rpartition("@")[2], from_domain):
        return Judgement(Proof.DMARC)
    return Judgement()


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One `method=result` of an Authentication-Results header with its properties (`header.from` -> value), lower case."""

    method: str
    result: str
    properties: dict[str, str]


def authentication_results(value: str) -> tuple[str, list[MethodResult]] | None:
    """Read one Authentication-Results value (RFC 8601 section 2.2): the authserv-id and its results; None when malformed."""
    groups: list[list[str]] = [[]]
    word, at = "", 0
    while at < len(value):
        char = value[at]
        end = at + 1
        if char == '"':
            end, inner = quoted_end(value, at)
            word += inner.replace(";", "_").replace("=", "_") or " "
        elif char == "(":
            end = comment_end(value, at)
        elif not char.isspace() and char != ";":
            word += char
        if end > len(value):
            return None  # a quote or comment that never closes: no telling whose words these are
        if char in "(;" or char.isspace():
            groups[-1] += [word] if word else []
            word = ""
        if char == ";":
            groups.append([])
        at = end
    groups[-1] += [word] if word else []
    if not groups[0]:
        return None
    results = []
    for words in groups[1:]:
        pairs = [word.lower().partition("=") for word in words]
        if pairs and pairs[0][1]:
            properties: dict[str, str] = {}
            for name, equals, found in pairs[1:]:
                if equals:  # said twice and differently, one of them is not the server's own word
                    properties[name] = found if properties.get(name, found) == found else ""
            results.append(MethodResult(pairs[0][0].partition("/")[0], pairs[0][2], properties))
    return groups[0][0].lower(), results


def judge_results(from_domain: str, values: Sequence[str], authserv_id: str) -> Judgement:
    """Judge by the Authentication-Results headers that carry exactly our own server's id; all others are a stranger's text.

    A DMARC pass proves From, and where the domain publishes no policy an aligned DKIM or SPF pass does, which is what DMARC asks
    for. One `dmarc=fail` outweighs any pass. The server must itself remove arriving headers that carry its id (RFC 8601 section 5).
    """
    verdicts: list[str] = []
    passed = False
    for value, results in _ours(values, authserv_id):
        for found in results:
            if found.method == "dmarc":
                judged = found.properties.get("header.from", from_domain).rpartition("@")[2]
                same = ascii_domain(judged) == ascii_domain(from_domain)
                verdicts.append(found.result if same or found.result == "fail" else "other-domain")
            elif found.result == "pass" and _plain(value):
                passed = passed or any(aligned(domain, from_domain) for domain in _vouching(found))
    if "fail" in verdicts:
        return Judgement(Proof.CLAIMED, DMARC_FAIL)
    if verdicts and all(verdict == "pass" for verdict in verdicts):
        return Judgement(Proof.DMARC)
    if passed and all(verdict in _NO_POLICY for verdict in verdicts):
        return Judgement(Proof.DMARC)
    return Judgement()


_NO_POLICY = frozenset({"none", "temperror", "permerror", "bestguesspass", "pass"})
_LONGEST = 16_000
_SIGNATURE_START = re.compile(r'\bheader\.b="[A-Za-z0-9+/=]*"')  # as OpenDKIM writes it


def _ours(values: Sequence[str], authserv_id: str) -> list[tuple[str, list[MethodResult]]]:
    """Each Authentication-Results header of our own server, with what it says."""
    name = authserv_id.lower()
    # What does not even hold the name is not read: a stranger may add megabytes of such headers. None of a server's own is that long.
    read = (
        [(value, authentication_results(value)) for value in values if name in value[:_LONGEST].lower() and len(value) <= _LONGEST]
        if name
        else []
    )
    return [(value, found[1]) for value, found in read if found is not None and found[0] == authserv_id.lower()]


def _plain(value: str) -> bool:
    """Whether nothing in a header could be a sender's own text posing as the server's.

    An envelope sender with blanks, brackets or semicolons needs quotes (RFC 5321 section 4.1.2), so without quotes there is none.
    """
    bare = _SIGNATURE_START.sub("", value)
    return '"' not in bare and "\\" not in bare


def _vouching(found: MethodResult) -> list[str]:
    """The domains that a passing result speaks for: who signed, or whose mail the envelope says it is."""
    said = found.properties
    if found.method == "dkim":  # the identity lies within the signing domain (RFC 6376 section 3.5); some servers name it alone
        return [said["header.d"] if "header.d" in said else said.get("header.i", "").rpartition("@")[2]]
    return [said.get("smtp.mailfrom", "").rpartition("@")[2]] if found.method == "spf" else []


def wrote(values: Sequence[str], authserv_id: str) -> bool:
    """Whether one of the Authentication-Results headers is our own server's, whatever it says."""
    return bool(_ours(values, authserv_id))


def told(values: Sequence[str], authserv_id: str) -> bool:
    """Whether our own server has judged who signed a mail: by DKIM, or by DMARC, which holds DKIM and SPF against From."""
    return any(
        found.result != "temperror" and (found.method == "dkim" or (found.method == "dmarc" and found.result in ("pass", "fail")))
        for _, results in _ours(values, authserv_id)
        for found in results
    )
