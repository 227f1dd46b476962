"""How a mail looks: nobody's words become markup, links lead where they say, images stand in it, our own reader finds the new words."""

from email import message_from_bytes, policy
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from connectors.email.raw import RawEmail
from connectors.shared.mail_auth import Judgement
from connectors.shared.mime import read_mail, to_message
from connectors.shared.smtp import build
from hub.contract import OutboundAttachment, OutboundMessage
from hub.web.mail_dress import dress, linked
from hub.web.pages import environment

PAGES = environment()
FOOTER = "Shop GmbH · Example Street 1\nhttps://shop.example/imprint"
SETTINGS = RawEmail.Settings(type="mime", address="support@hub.example", sender_name="Shop", smtp={"host": "127.0.0.1", "security": "none"})
PNG = bytes.fromhex("89504e470d0a1a0a") + b"image"


def mail(**extra) -> OutboundMessage:
    known = {"delivery_id": 7, "to": "ana@shop.example", "text": "Hello Ana,\nit is on its way.\n\nBest,\nMia", "subject": "Re: Lamp"}
    return OutboundMessage(**(known | {"message_id": "<7@hub.example>"} | extra))


def file(name: str, kind: str, content_id: str = "", data: bytes = PNG) -> OutboundAttachment:
    return OutboundAttachment(name, kind, len(data), lambda: data, "https://hub.example/f/1", content_id)


class Tags(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(str.__str__(html))  # what escapes its own pieces would spoil the comparison

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_an_answer_has_its_paragraphs_its_footer_and_the_words_it_answers():
    dressed = dress(PAGES, FOOTER, mail(quoted="Where is it?\n\nAna"))
    assert dressed.text == (
        "Hello Ana,\nit is on its way.\n\nBest,\nMia\n\n"
        "-- \nShop GmbH · Example Street 1\nhttps://shop.example/imprint\n\nana@shop.example wrote:"
    )
    found = Tags(dressed.html)
    names = [tag for tag, _ in found.tags]
    assert (names.count("p"), names.count("blockquote"), "table" in names, "script" in names) == (6, 1, False, False)
    assert "Hello Ana,<br>\nit is on its way.</p>" in dressed.html
    before, _, quote = dressed.html.partition("<blockquote")
    assert "ana@shop.example wrote:" in before
    assert "Where is it?" in quote
    assert [attributes["href"] for tag, attributes in found.tags if tag == "a"] == ["https://shop.example/imprint"]
    assert 'content="light dark"' in dressed.html


def test_nothing_stands_there_for_what_is_not_given():
    dressed = dress(PAGES, "", mail())
    assert dressed.text == mail().text
    assert "blockquote" not in dressed.html
    assert "wrote:" not in dressed.html
    assert "-- " not in dressed.html


LINKS = {
    "See https://shop.example/a?b=1&c=2.": ["https://shop.example/a?b=1&c=2"],
    "(https://shop.example/x_(y))": ["https://shop.example/x_(y)"],
    "HTTPS://SHOP.EXAMPLE/A, and http://b.example!": ["HTTPS://SHOP.EXAMPLE/A", "http://b.example"],
    "<https://shop.example>": ["https://shop.example"],
    'https://shop.example/"onmouseover="alert(1)': ["https://shop.example/"],
    "https://shop.example/'><script>alert(1)</script>": ["https://shop.example/"],
    "javascript:alert(1) data:text/html,x ftp://x mailto:a@b.example": [],
    "https://": [],
    "https://...": [],
}


@pytest.mark.parametrize("text", LINKS)
def test_links_are_those_of_pages_and_lead_where_they_say(text):
    found = Tags(linked(text))
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert (links, found.text) == (LINKS[text], text)
    assert {tag for tag, _ in found.tags} <= {"a"}


@given(st.text(st.one_of(st.sampled_from(list("<>&\"'/:.()\n ht p s=;")), st.characters(exclude_categories=["Cs", "Cc"])), max_size=80))
@effort(max_examples=200, deadline=None)
def test_nobodys_words_become_markup(words):
    known = {tag for tag, _ in Tags(dress(PAGES, "x", mail(text="x", quoted="x")).html).tags} | {"a", "br"}
    dressed = dress(PAGES, words, mail(text=f"https://x.example/{words}", quoted=words))
    for tag, attributes in Tags(dressed.html).tags:
        assert tag in known
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "https:").lower().startswith(("https:", "http:"))


def test_an_image_stands_in_the_mail_and_a_file_beside_it():
    sent = mail(
        attachments=(file('lamp "new".png', "image/png", "img.1@hub"), file("bill.pdf", "application/pdf"), file("b.png", "image/png"))
    )
    found = message_from_bytes(build(dress(PAGES, FOOTER, sent), SETTINGS), policy=policy.default)
    assert not found.defects
    shape = [part.get_content_type() for part in found.walk()]
    assert shape == [
        *("multipart/mixed", "multipart/related", "multipart/alternative", "text/plain", "text/html"),
        *("image/png", "application/pdf", "image/png"),
    ]
    related = next(found.iter_parts())
    assert related.get_param("type") == "multipart/alternative"
    image = list(related.iter_parts())[1]
    assert (image["Content-ID"], image.get_content_disposition(), image.get_content()) == ("<img.1@hub>", "inline", PNG)
    assert 'src="cid:img.1@hub"' in found.get_body(("html",)).get_content()
    assert [part.get_filename() for part in found.iter_attachments()] == ["bill.pdf", "b.png"]
    headers, body = read_mail(build(dress(PAGES, FOOTER, sent), SETTINGS))
    assert [(one.name, one.inline, one.content_id) for one in body.attachments] == [
        ('lamp "new".png', True, "img.1@hub"),
        ("bill.pdf", False, ""),
        ("b.png", False, ""),
    ]
    assert headers.first("mime-version") == "1.0"


@pytest.mark.parametrize("content_id", ["a b", "a>\r\nX: y", "<a>", "ünï", 'a"b'])
def test_a_content_id_that_no_header_can_carry_makes_an_ordinary_file(content_id):
    found = message_from_bytes(
        build(dress(PAGES, "", mail(attachments=(file("a.png", "image/png", content_id),))), SETTINGS), policy=policy.default
    )
    assert found.get_content_type() == "multipart/mixed"
    assert found["X"] is None


def test_whoever_reads_our_mail_finds_what_we_wrote_apart_from_what_we_quoted():
    raw = build(dress(PAGES, "Shop GmbH", mail(quoted="Where is it?\nAna")), SETTINGS)
    headers, body = read_mail(raw)
    said = to_message(headers, body, Judgement(), mailbox=SETTINGS)
    assert said.reply_text is not None
    assert "it is on its way." in said.reply_text
    assert "Where is it?" not in said.reply_text
    plain = message_from_bytes(raw, policy=policy.default).get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert plain.endswith("\n-- \nShop GmbH\n\nana@shop.example wrote:\n\n> Where is it?\n> Ana\n")


# --- Machines among themselves -----------------------------------------------------------------------------------------


def test_two_hubs_facing_each_other_stop_after_the_first_automatic_mail():
    """A person writes, the one hub answers by itself, the other knows it for a machine's and says nothing: four mails at most, here two."""
    other = RawEmail.Settings(type="mime", address="help@other.example", smtp={"host": "127.0.0.1", "security": "none"})
    boxes = {"support@hub.example": SETTINGS, "help@other.example": other}
    went = 0
    sender, to, automatic = "support@hub.example", "help@other.example", False  # an agent of the one writes to the other
    while went < 10:
        message = mail(to=to, automatic=automatic, message_id=f"<{went}@x.example>", text="We have your mail.")
        raw = build(dress(PAGES, "Footer", message), boxes[sender])
        went += 1
        headers, body = read_mail(raw)
        said = to_message(headers, body, Judgement(), mailbox=boxes[to])
        assert said.automatic == ("auto-reply" if automatic else "")
        if said.automatic:
            break  # never answered: hub.conversations holds that
        sender, to, automatic = to, sender, True
    assert went == 2
