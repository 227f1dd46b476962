"""Who really sent a mail: only an aligned verdict of a server we believe proves From; everything else stays a claim."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.shared.mail_auth import (
    DMARC_FAIL,
    Judgement,
    aligned,
    authentication_results,
    dkim_passes,
    judge_results,
    judge_sendgrid,
    told,
)
from connectors.shared.mail_headers import Headers
from hub.contract import Proof

PROVEN, CLAIMED, DOUBTED = Judgement(Proof.DMARC), Judgement(), Judgement(Proof.CLAIMED, DMARC_FAIL)


@pytest.mark.parametrize(
    ("domain", "from_domain", "expected"),
    [
        ("shop.example", "shop.example", True),
        ("Shop.Example.", "shop.example", True),
        ("mail.shop.example", "shop.example", True),
        ("shop.example", "mail.shop.example", True),
        ("evilshop.example", "shop.example", False),  # no dot boundary
        ("shop.example.evil.example", "shop.example", False),
        ("a.shop.example", "b.shop.example", False),  # siblings: nobody vouches for a sibling
        ("example", "shop.example", False),  # a top level is nobody's
        ("co.uk", "bank.co.uk", False),
        ("evil.co.uk", "co.uk", False),
        ("mail.bank.co.uk", "bank.co.uk", True),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("", "shop.example", False),
        ("", "", False),
        (".example", "shop.example", False),
        ("shop..example", "shop..example", False),
        ("ü" * 300, "shop.example", False),
    ],
)
def test_alignment_means_one_organisation_on_a_dot_boundary(domain, from_domain, expected):
    assert aligned(domain, from_domain) is expected


def test_two_domains_that_an_old_codec_folds_into_one_are_not_aligned():
    """IDNA 2003 wrote fa\u00df.de as fass.de: whoever owns the latter could speak for everybody at the former."""
    for one, other in (("fass.de", "fa\u00df.de"), ("xn--fa-hia.de", "fass.de"), ("\u03c3.example", "\u03c2.example")):
        assert not aligned(one, other)
        assert judge_results(other, [f"mx.hub.example; dmarc=pass header.from={one}"], "mx.hub.example") == Judgement()
    assert aligned("xn--fa-hia.de", "FA\u00df.de")


@pytest.mark.parametrize(
    ("field", "passed"),
    [
        ("{@gmail.com : pass}", ["gmail.com"]),
        ("{@A.example:pass}", ["a.example"]),
        ("{@a.example : pass, @b.example : fail}", ["a.example"]),
        ("{@a.example : fail}{@b.example : pass}", ["b.example"]),
        ("{@a.example : fail (body has been altered), @b.example : pass}", ["b.example"]),
        ("none", []),
        ("", []),
        ("{}", []),
        ("{@a.example : passed}", []),
        ("{@a.example : temperror}", []),
        ("{@a.example : pass} and more", []),  # not the grammar to its last character
        ('{"x : pass, @bank.example"@evil.example : pass}', []),  # a quoted local part in i=
        ("{x@a.example : pass}", []),
        ("{@XXX : invalid (public key: invalid data\n at /opt/perl/x.pm line 186)}", []),  # sendgrid/docs#6483
        ("{@a.example : pass" + " " * 5000 + "}", []),
    ],
)
def test_the_dkim_field_is_read_by_its_grammar_or_not_at_all(field, passed):
    assert dkim_passes(field, Headers([])) == passed


@pytest.mark.parametrize(
    ("signature", "trusted"),
    [
        ("v=1; d=evil.example; i=@evil.example; s=a; b=x", True),
        ("v=1; d=evil.example; i=bounce+a=3Db@evil.example; b=x", True),
        ("v=1; a=rsa-sha256; ...", True),
        ("v=1; d=evil.example; i=@bank.example : pass, @evil.example; b=x", False),  # prints as a second, passing entry
        ('v=1; d=evil.example; i="a"@evil.example; b=x', False),
        ("v=1; d=evil.example; i=a=2C=40bank.example@evil.example; b=x", False),  # the same, quoted-printable
    ],
)
def test_a_signature_that_could_imitate_a_verdict_voids_the_dkim_field(signature, trusted):
    field = "{@bank.example : pass, @evil.example : pass}"
    assert bool(dkim_passes(field, Headers([("DKIM-Signature", signature)]))) is trusted


SENDGRID = [
    ({"dkim": "{@shop.example : pass}"}, PROVEN),
    ({"dkim": "{@mail.shop.example : pass}"}, PROVEN),
    ({"dkim": "{@shop.example : fail}"}, CLAIMED),
    ({"dkim": "{@sendgrid.com : pass}"}, CLAIMED),  # a pass, of somebody else
    ({"dkim": "{@evil.example : pass, @shop.example : fail}"}, CLAIMED),
    ({"spf": "pass", "envelope_from": "bounce@shop.example"}, PROVEN),
    ({"spf": "pass", "envelope_from": "x@mail.shop.example"}, PROVEN),
    ({"spf": "pass", "envelope_from": "eve@evil.example"}, CLAIMED),
    ({"spf": "pass", "envelope_from": ""}, CLAIMED),  # a null sender: SPF spoke of the HELO name
    ({"spf": "softfail", "envelope_from": "x@shop.example"}, CLAIMED),
    ({"spf": "fail (not pass)", "envelope_from": "x@shop.example"}, CLAIMED),
    ({"spf": "passed", "envelope_from": "x@shop.example"}, CLAIMED),
    ({"spf": "pass", "envelope_from": "x@evil.example@shop.example"}, PROVEN),  # the last @ counts, as it did for SPF
    ({"dkim": "none", "spf": "none"}, CLAIMED),
    ({}, CLAIMED),
]


@pytest.mark.parametrize(("fields", "expected"), SENDGRID)
def test_sendgrids_fields_prove_an_aligned_sender_only(fields, expected):
    assert judge_sendgrid("shop.example", Headers([]), **({"spf": "", "dkim": "", "envelope_from": ""} | fields)) == expected


OURS = "mx.hub.example"
RESULTS = [
    ([f"{OURS}; dmarc=pass header.from=shop.example"], PROVEN),
    ([f"{OURS} 1; spf=pass smtp.mailfrom=x; dmarc=pass (p=REJECT dis=NONE) header.from=Shop.Example"], PROVEN),
    (["MX.hub.example;\tdmarc=pass"], PROVEN),
    ([f'"{OURS}"; dmarc=pass'], PROVEN),
    ([f"{OURS}; dmarc=fail header.from=shop.example"], DOUBTED),
    ([f"{OURS}; dmarc=fail; dmarc=pass"], DOUBTED),
    ([f"{OURS}; dmarc=pass; dmarc=fail"], DOUBTED),
    ([f"{OURS}; dmarc=pass", f"{OURS}; dmarc=fail"], DOUBTED),
    ([f"{OURS}; dmarc=none"], CLAIMED),
    ([f"{OURS}; dmarc=pass", f"{OURS}; dmarc=none"], CLAIMED),
    ([f"{OURS}; dmarc=bestguesspass"], CLAIMED),
    ([f"{OURS}; dmarc=passed"], CLAIMED),
    ([f"{OURS}; dmarc=pass header.from=evil.example"], CLAIMED),  # judged another From
    # An aligned pass of DKIM or SPF is what DMARC asks for, whether or not the domain publishes a policy:
    ([f"{OURS}; spf=pass; dkim=pass header.d=shop.example"], PROVEN),
    ([f"{OURS}; dkim=pass header.d=mail.shop.example header.s=s1"], PROVEN),
    ([f'{OURS}; dkim=pass (2048-bit key) header.d=shop.example header.i=@shop.example header.b="aB+/c="'], PROVEN),  # OpenDKIM
    ([f"{OURS}; dkim=pass header.i=@shop.example header.s=s1 header.b=aBc"], PROVEN),
    ([f"{OURS}; dkim=fail header.d=shop.example; dkim=pass header.d=shop.example"], PROVEN),  # one of two signatures survived
    ([f"{OURS}; dkim=pass header.d=shop.example; dmarc=none header.from=shop.example"], PROVEN),
    ([f"{OURS}; dkim=pass header.d=shop.example", f"{OURS}; dmarc=none"], PROVEN),
    ([f"{OURS}; spf=pass smtp.mailfrom=bounce@mail.shop.example"], PROVEN),
    ([f"{OURS}; spf=pass smtp.mailfrom=shop.example"], PROVEN),
    ([f"{OURS}; dkim=pass header.d=evil.example"], CLAIMED),
    ([f"{OURS}; dkim=pass header.d=evil.example header.i=@shop.example"], CLAIMED),
    ([f"{OURS}; dkim=pass header.d=shop.example header.d=evil.example"], CLAIMED),
    ([f"{OURS}; dkim=pass header.d=shop.example; dmarc=fail"], DOUBTED),
    ([f"{OURS}; dkim=pass header.d=shop.example; dmarc=pass header.from=evil.example"], CLAIMED),  # judged another From
    ([f"{OURS}; dkim=temperror header.d=shop.example"], CLAIMED),
    ([f"{OURS}; dkim=pass"], CLAIMED),
    ([f"{OURS}; spf=pass smtp.helo=shop.example"], CLAIMED),  # a null sender: SPF spoke of the HELO name
    ([f"{OURS}; spf=softfail smtp.mailfrom=x@shop.example"], CLAIMED),
    ([f"{OURS}; arc=pass header.d=shop.example"], CLAIMED),
    (["mx.evil.example; dkim=pass header.d=shop.example"], CLAIMED),
    ([f'{OURS}; spf=pass (of "a) smtp.mailfrom=x@shop.example (b"@evil.example)'], CLAIMED),
    ([f'{OURS}; spf=pass (of "a); dkim=pass header.d=shop.example (b"@evil.example)'], CLAIMED),
    ([f"{OURS}; spf=pass smtp.mailfrom=a\\ b@shop.example"], CLAIMED),
    ([f"{OURS}; none"], CLAIMED),
    (["mx.evil.example; dmarc=pass"], CLAIMED),  # a stranger's verdict
    ([f"{OURS}.evil.example; dmarc=pass"], CLAIMED),
    ([f"evil {OURS}; dmarc=pass"], CLAIMED),
    ([f"(c) {OURS}; dmarc=pass"], PROVEN),
    (["mx.evil.example; dmarc=fail", f"{OURS}; dmarc=pass"], PROVEN),  # nor can a stranger cast doubt
    # What a server echoes of the sender's own text:
    ([f'{OURS}; spf=pass (domain of "a) dmarc=pass (b"@evil.example) smtp.mailfrom="a) dmarc=pass (b"@evil.example'], CLAIMED),
    ([f"{OURS}; (note (x) dmarc=pass) spf=fail"], CLAIMED),
    ([f"{OURS}; (x; dmarc=pass;) spf=fail"], CLAIMED),
    ([f'{OURS}; spf=fail smtp.mailfrom="; dmarc=pass;"@evil.example'], CLAIMED),
    ([f'{OURS}; spf=fail reason="x; dmarc=pass"'], CLAIMED),
    ([f"{OURS}; spf=fail smtp.mailfrom=dmarc=pass@evil.example"], CLAIMED),
    ([f"{OURS}; spf=fail dmarc=pass"], CLAIMED),  # a property, not a result
    ([f"{OURS}; dmarc=pass (unclosed"], CLAIMED),
    ([f'{OURS}; dmarc=pass "unclosed'], CLAIMED),
    ([""], CLAIMED),
    ([], CLAIMED),
]


@pytest.mark.parametrize(("values", "expected"), RESULTS, ids=[str(row[0])[:60] for row in RESULTS])
def test_only_our_own_servers_verdict_is_read(values, expected):
    assert judge_results("shop.example", values, OURS) == expected


def test_without_a_configured_id_no_verdict_is_read():
    assert judge_results("shop.example", ["; dmarc=pass", "mx.hub.example; dmarc=pass"], "") == CLAIMED


@given(st.text(alphabet=st.sampled_from(list('"();=\\ ab.@')), max_size=40))
@settings(max_examples=400, deadline=None)
def test_no_text_inside_a_quote_or_comment_becomes_a_verdict(inner):
    quoted = inner.replace("\\", "\\\\").replace('"', '\\"')
    comment = inner.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    value = f'{OURS}; spf=fail ({comment}; dmarc=pass) smtp.mailfrom="{quoted}; dmarc=pass"@evil.example'
    assert judge_results("shop.example", [value], OURS) == CLAIMED
    read = authentication_results(value)
    assert read is not None
    assert [found.method for found in read[1]] == ["spf"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([f"{OURS}; dkim=pass header.d=shop.example"], True),
        ([f"{OURS}; dkim=fail"], True),
        ([f"{OURS}; dkim=none"], True),
        ([f"{OURS}; dmarc=fail"], True),
        ([f"{OURS}; spf=fail", f"{OURS}; dmarc=pass"], True),
        ([f"{OURS}; dkim=temperror"], False),  # its own look-up failed: ours may not
        ([f"{OURS}; dmarc=none"], False),  # no policy says nothing of signatures
        ([f"{OURS}; spf=pass smtp.mailfrom=x@shop.example"], False),
        (["mx.evil.example; dkim=fail"], False),  # a stranger cannot keep us from looking
        ([], False),
    ],
)
def test_whether_our_own_server_judged_the_signature(values, expected):
    assert told(values, OURS) is expected
    assert told(values, "") is False
