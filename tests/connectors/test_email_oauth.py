"""Access tokens: fetched when needed, kept until a minute before their end, and what a refusal means in words."""

import asyncio
import base64
import json
import re
import textwrap
from pathlib import Path
from urllib.parse import parse_qs

import pytest
import yaml
from aiohttp import web
from aiosmtpd.smtp import AuthResult
from pydantic import SecretStr, ValidationError

from connectors import CHANNELS, load
from connectors.email.raw import RawEmail
from connectors.shared.oauth import SCOPES, AccessTokens, OAuthSettings, xoauth2
from hub.contract import Channel, NoAnswer, NotSent, Refused, Request, TryLater, Verdict
from hub.http import GuardedHttp
from tests.connectors.test_email_smtp import PLACE, Sink, email_settings, outbound, sink

CLIENT = {"client_id": "app-1", "client_secret": "cl13nt", "refresh_token": "r3fresh"}


class Provider:
    """A token address on loopback: answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, object]] = []
        self.asked: list[dict[str, str]] = []
        self.given = 0

    async def token(self, request: web.Request) -> web.Response:
        self.asked.append({name: values[0] for name, values in parse_qs(await request.text()).items()})
        if self.answers:
            status, told = self.answers.pop(0)
        else:
            self.given += 1
            status, told = 200, {"access_token": f"access-{self.given}", "expires_in": 3600, "token_type": "Bearer"}
        return web.Response(status=status, text=told if isinstance(told, str) else json.dumps(told), content_type="application/json")


@pytest.fixture
async def provider():
    made = Provider()
    app = web.Application()
    app.router.add_post("/token", made.token)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    made.http = GuardedHttp([made.url.split("/")[2]])
    yield made
    await made.http.close()
    await runner.cleanup()


def tokens(provider: Provider, **extra: object) -> AccessTokens:
    return AccessTokens(OAuthSettings(**(CLIENT | {"token_url": provider.url} | extra)))


async def test_a_token_is_asked_for_once_by_everybody_who_needs_it(provider):
    own = tokens(provider, scope="mail")
    assert await asyncio.gather(*[own.token(provider.http) for _ in range(5)]) == ["access-1"] * 5
    assert provider.asked == [{"grant_type": "refresh_token", "scope": "mail"} | CLIENT]


@pytest.mark.parametrize(("expires_in", "asked"), [(3600, 1), ("3600", 1), (None, 1), ("soon", 1), (-5, 1), (60, 2), (30, 2)])
async def test_a_token_is_used_until_a_minute_before_its_end(provider, expires_in, asked):
    own = tokens(provider)
    provider.answers = [(200, {"access_token": "a", "expires_in": expires_in})] * 2
    await own.token(provider.http)
    await own.token(provider.http)
    assert len(provider.asked) == asked


async def test_a_token_a_server_turned_down_is_not_used_again(provider):
    own = tokens(provider)
    assert await own.token(provider.http) == "access-1"
    own.forget("another")
    assert await own.token(provider.http) == "access-1"
    own.forget("access-1")
    assert await own.token(provider.http) == "access-2"


async def test_a_new_refresh_token_takes_the_place_of_the_old_one(provider):
    own = tokens(provider)
    provider.answers = [(200, {"access_token": "a", "expires_in": 1, "refresh_token": "r2"})]
    await own.token(provider.http)
    await own.token(provider.http)
    assert [asked["refresh_token"] for asked in provider.asked] == ["r3fresh", "r2"]


REFUSALS = [
    (
        400,
        {"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
        Refused,
        r"[Ss]ign in again.*oauth\.refresh_token",
    ),
    (401, {"error": "invalid_client"}, Refused, r"oauth\.client_secret"),
    (400, {"error": "invalid_scope"}, Refused, r"oauth\.scope"),
    (403, "<html>no</html>", Refused, "oauth in config.yaml"),
    (429, {}, TryLater, "429"),
    (503, "busy", TryLater, "503"),
    (400, {"error": "temporarily_unavailable"}, TryLater, "asked again"),
    (200, {"token": "x"}, TryLater, "200"),
    (200, {"access_token": "a\r\nb"}, TryLater, "200"),
    (200, [], TryLater, "200"),
]


@pytest.mark.parametrize(("status", "told", "outcome", "words"), REFUSALS)
async def test_what_a_refusal_means(provider, status, told, outcome, words):
    provider.answers = [(status, told)]
    with pytest.raises(outcome, match=words) as raised:
        await tokens(provider).token(provider.http)
    assert not [secret for secret in ("cl13nt", "r3fresh") if secret in str(raised.value)]


@pytest.mark.parametrize("error", [NotSent("refused"), NoAnswer("lost")])
async def test_a_provider_that_cannot_be_reached_is_asked_again_later(error):
    class Nobody:
        async def request(self, *args, **kwargs):
            raise error

    with pytest.raises(TryLater, match=r"oauth2\.googleapis\.com"):
        await AccessTokens(OAuthSettings(provider="google", **CLIENT)).token(Nobody())


def test_google_and_microsoft_are_known_by_name():
    google = OAuthSettings(provider="google", **CLIENT)
    assert (google.endpoint(), google.form("r")["scope"]) == ("https://oauth2.googleapis.com/token", "https://mail.google.com/")
    microsoft = OAuthSettings(provider="microsoft", tenant="shop.example", **CLIENT)
    assert microsoft.endpoint() == "https://login.microsoftonline.com/shop.example/oauth2/v2.0/token"
    assert microsoft.form("r")["scope"] == SCOPES["microsoft"]
    itself = OAuthSettings(provider="microsoft", tenant="shop.example", client_id="a", client_secret="b")
    assert itself.form("") == {
        "grant_type": "client_credentials",
        "client_id": "a",
        "client_secret": "b",
        "scope": "https://outlook.office365.com/.default",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"refresh_token": "r"},  # nobody to ask
        {"token_url": "http://tokens.example/", "refresh_token": "r"},  # secrets in clear
        {"provider": "google"},  # nobody signed in
        {"provider": "microsoft", "tenant": "a/b", "refresh_token": "r"},
        {"provider": "yahoo", "refresh_token": "r"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(ValidationError):
        OAuthSettings(**({"client_id": "a"} | wrong))


def test_no_secret_is_shown():
    shown = repr(OAuthSettings(provider="google", **CLIENT))
    assert "cl13nt" not in shown
    assert "r3fresh" not in shown


# --- At a real mail server -------------------------------------------------------------------------------------------


class TokenSink(Sink):
    """Takes mails of whoever brings the token it knows, as Google and Microsoft do: a reason first, then 535."""

    def __init__(self, good: str) -> None:
        super().__init__()
        self.good = good
        self.tried: list[bytes] = []

    async def auth_XOAUTH2(self, server, args):
        self.tried.append(base64.b64decode(args[1]))
        if self.tried[-1].decode() == xoauth2("support@hub.example", self.good):
            return AuthResult(success=True)
        await server.challenge_auth('{"status":"401"}', encode_to_b64=True)
        return AuthResult(success=False, handled=False)


def channel(made, provider: Provider) -> RawEmail:
    own = made()
    return RawEmail(email_settings(smtp=own.settings.smtp, oauth=CLIENT | {"token_url": provider.url}), PLACE)


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
@pytest.mark.parametrize(("good", "asked"), [("access-1", 1), ("access-2", 2)])
async def test_a_mail_goes_by_access_token_fetched_anew_once_where_it_was_ended(provider, good, asked):
    handler = TokenSink(good)
    async with sink(handler, auth_required=True, auth_require_tls=False) as made:
        own = channel(made, provider)
        await own.send(outbound(), provider.http)
        await own.send(outbound(), provider.http)
        await own.close()
    assert (len(handler.mails), len(handler.tried), len(provider.asked)) == (2, asked, asked)
    assert handler.tried[0] == b"user=support@hub.example\x01auth=Bearer access-1\x01\x01"


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS:UserWarning")
async def test_a_server_that_takes_no_token_says_what_to_mend(provider):
    handler = TokenSink("another")
    async with sink(handler, auth_required=True, auth_require_tls=False) as made:
        with pytest.raises(Refused, match=r"oauth\.refresh_token") as raised:
            await channel(made, provider).send(outbound(), provider.http)
    assert (handler.mails, len(provider.asked)) == ([], 2)
    assert "access-" not in str(raised.value)


async def test_a_sign_in_that_ended_refuses_the_mail(provider):
    provider.answers = [(400, {"error": "invalid_grant"})]
    handler = Sink()
    async with sink(handler) as made:
        with pytest.raises(Refused, match="Sign in again"):
            await channel(made, provider).send(outbound(), provider.http)
    assert handler.mails == []


def test_a_token_is_not_sent_in_clear_over_a_network():
    with pytest.raises(ValidationError, match="access token"):
        email_settings(smtp={"host": "smtp.shop.example", "security": "none"}, oauth=CLIENT | {"provider": "google"})
    assert email_settings(oauth=CLIENT | {"provider": "google"}).oauth.client_secret == SecretStr("cl13nt")


# --- What the document says ------------------------------------------------------------------------------------------

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "email.md"
BLOCKS = [block for block in re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL) if "type:" in block]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_configuration_in_the_document_is_one_the_hub_takes(block):
    filled = re.sub(r"\$\{\w+\}|<[a-z ]+>", "made-up", block)
    told = yaml.safe_load(textwrap.dedent(filled))
    told = told["channels"]["mail"] if "channels" in told else told
    if told["type"] == "smtp_listener":
        told["smtp"] = {"host": "smtp.shop.example"}  # the document shows the way in alone
    cls = load(CHANNELS[told["type"]])
    made = cls(cls.Settings(**told), PLACE)
    assert isinstance(made, Channel)
    assert made.verify(Request("POST", "", {}, b""), 0.0) is Verdict.UNSIGNED


def test_the_document_shows_every_way():
    assert len(BLOCKS) == 4
