"""Visitors of a site that embeds the chat: what the site's own token proves, and which session follows from it. Pure.

A site's server signs a JWT (RFC 7519) over who its visitor is. An HMAC over the id alone would never expire and would leave the
e-mail beside it unsigned; here everything that counts is inside the token and the token lives for an hour at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from hub.config import SiteSettings
from hub.contract import PROVING, Claim, Identified, Ignored, Proof
from hub.customers.canonical import canonical
from hub.customers.disclosure import ProvedKey
from hub.customers.site_keys import SiteKey, accepted, fitting, secrets_of

MAX_TOKEN = 8_192  # characters
LONGEST_LIFE = 3_600  # seconds ahead that `exp` may lie
CLOCK_SLACK = 60  # seconds the site's clock may differ from ours
PROVES_A_VIEW = frozenset({"device", "user_id"})


class VisitorSession(Protocol):
    """What a visitor token says. Times are unix seconds; an anonymous visitor has no `user_id`."""

    @property
    def device(self) -> str: ...
    @property
    def site(self) -> str: ...
    @property
    def expires_at(self) -> int: ...
    @property
    def user_id(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def phone(self) -> str: ...


@runtime_checkable
class VisitorChannel(Protocol):
    """A channel whose customers are visitors of a web page, known by tokens it signs itself."""

    @property
    def site(self) -> str: ...
    @property
    def welcome(self) -> str: ...
    @property
    def new_visitors_per_minute(self) -> int: ...

    def issue(self, device: str, now: float, *, user_id: str = "", email: str = "", phone: str = "", name: str = "") -> str:
        """A token for this browser session."""
        ...

    def session(self, token: str) -> VisitorSession | None:
        """What a token of this channel says, expired or not; None for any other."""
        ...

    def claims(self, session: Any) -> tuple[Claim, ...]:
        """What a session of this channel proves, the address an answer goes to first."""
        ...


class NotIdentified(Exception):
    """The site's token proves nothing. The text says what is wrong with it, for the site's developer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a valid site token says the visitor is. `email` and `phone` only where the site's word for them counts; `token_id` is the
    token's `jti`, or empty."""

    user_id: str
    email: str = ""
    name: str = ""
    phone: str = ""
    token_id: str = ""


def heading(token: str) -> Mapping[str, Any]:
    """A token's header, of which nothing is believed: it only helps to find the key. Raises NotIdentified."""
    import jwt  # with its cryptography a tenth of a second, spared a hub without chat

    if not token or len(token) > MAX_TOKEN:
        raise NotIdentified("the token is empty" if not token else f"the token is longer than {MAX_TOKEN} characters")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.DecodeError:
        raise NotIdentified("this is not a JWT") from None
    except jwt.InvalidTokenError:
        raise NotIdentified("the token's header cannot be read: `kid` must be text, and no extension (`crit`) is understood") from None
    if "crit" in header or header.get("b64", True) is not True:  # RFC 7515, section 4.1.11: what is not understood is refused
        raise NotIdentified("the token's header asks for an extension (`crit`, `b64`); none is understood")
    return header


def identify(token: str, site: SiteSettings, now: float, keys: Sequence[SiteKey] | None = None) -> Identity:
    """Read a site's token; `now` is unix seconds, `keys` are the site's (None: the secrets it is configured with). Raises NotIdentified.

    Nothing outside the token is ever looked at.
    """
    header = heading(token)
    claims = _verified(token, header, site, secrets_of(site) if keys is None else keys)
    _check_times(claims, now)
    user_id = claims["sub"]
    if user_id != user_id.strip() or not user_id.isprintable() or len(user_id) > 256 or canonical("user_id", user_id) is None:
        raise NotIdentified("`sub` is no usable id: it must be the visitor's own account id at your site, at most 256 characters")
    token_id = claims.get("jti", "")
    if "jti" in claims and not (isinstance(token_id, str) and 0 < len(token_id) <= 256):
        raise NotIdentified("`jti` must be text of at most 256 characters, another for each token")
    name = claims.get("name")
    shown = "".join(c for c in name if c.isprintable()).strip()[:100] if isinstance(name, str) else ""
    email = _vouched(claims, "email", "email", site.trust_email)
    phone = _vouched(claims, "phone", "phone_number", site.trust_phone)
    # A number of a country without its code would be read as somebody else's, in another country.
    return Identity(user_id, email, shown, phone if phone.startswith("+") else "", token_id)


def _vouched(claims: Mapping[str, Any], kind: str, name: str, trusted: bool) -> str:
    """An address the site says it has verified itself (OpenID Connect Core 1.0, section 5.1), where its word is trusted; else ""."""
    value = claims.get(name)
    if not trusted or claims.get(f"{name}_verified") is not True or not isinstance(value, str):
        return ""
    address = value.strip()
    # Printable: JSON can spell half a surrogate pair, which no database takes.
    return address if address.isprintable() and canonical(kind, address) is not None else ""


def _verified(token: str, header: Mapping[str, Any], site: SiteSettings, keys: Sequence[SiteKey]) -> dict[str, Any]:
    """The claims of a token one of these keys signed, for this audience. Its times are not judged."""
    import jwt

    algorithms = accepted(site)
    if header.get("alg") not in algorithms:  # never the token's own choice: `none` and key confusion end here
        raise NotIdentified(f"the token is not signed with {' or '.join(algorithms)}")
    chosen = fitting(keys, header)
    if not chosen:
        raise NotIdentified(
            "the address sites.<site>.jwks_url serves no key of this `kid` and algorithm (a new one is looked for once a minute)"
            if site.jwks_url
            else "the token's `kid` names none of sites.<site>.keys"
        )
    for key in chosen:
        try:
            return jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=site.audience,
                # Times are judged later, against the clock handed in.
                options={"require": ["exp", "aud", "sub"], "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.PyJWTError as error:
            raise NotIdentified(_explain(error, site)) from None
    raise NotIdentified(
        "the signature does not fit: the site signs with another key than "
        + ("sites.<site>.jwks_url serves" if site.jwks_url else f"sites.<site>.{'keys' if site.keys else 'key'} here")
    )


def _check_times(claims: dict[str, Any], now: float) -> None:
    times = {}
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e11:
            raise NotIdentified(f"`{name}` must be a number: seconds since 1970")
        times[name] = value
    if times["exp"] <= now - CLOCK_SLACK:
        raise NotIdentified(
            f"the token expired {int(now - times['exp'])} s ago; sign a new one for each page, and check the server's clock"
        )
    if times["exp"] > now + LONGEST_LIFE + CLOCK_SLACK:
        raise NotIdentified(f"`exp` lies {int(times['exp'] - now)} s ahead; at most one hour ({LONGEST_LIFE} s) is accepted")
    if max(times.get("nbf", 0), times.get("iat", 0)) > now + CLOCK_SLACK:
        raise NotIdentified("the token is not valid yet (`nbf` or `iat` lies ahead); check the server's clock")


def _explain(error: Exception, site: SiteSettings) -> str:
    # PyJWT's own texts may quote the token; these do not. https://pyjwt.readthedocs.io/en/stable/api.html#exceptions
    words = {
        "InvalidAudienceError": f"`aud` must be {site.audience!r}",
        "InvalidSubjectError": "`sub` must be a string (write the id as text)",
        "InvalidJTIError": "`jti` must be text of at most 256 characters, another for each token",
        "MissingRequiredClaimError": f"a claim is missing: the token needs `sub`, `exp` and `aud` ({site.audience!r})",
    }
    return words.get(type(error).__name__, "this is not a JWT")


@dataclass(frozen=True, slots=True)
class NextSession:
    """The session that follows: `fresh` wants a new device, `renew` a new token."""

    fresh: bool
    renew: bool
    identity: Identity | None = None


def next_session(old: VisitorSession | None, asked: bool, identity: Identity | None, site: str, now: float) -> NextSession:
    """Which session follows a (signed, possibly expired) old one, where identification was `asked` for and gave `identity` or failed.

    A browser that belonged to somebody is never handed on: another account, a failed identification or the end of the signed time
    begins a new device, as a logout does.
    """
    if old is None:
        return NextSession(True, True, identity)
    if not old.user_id:
        return NextSession(False, True, identity)
    if identity is not None:
        return NextSession((identity.user_id, site) != (old.user_id, old.site), True, identity)
    if asked or now >= old.expires_at or old.site != site:
        return NextSession(True, True)
    return NextSession(False, False)


def is_again(identity: Identity, old: VisitorSession | None, site: str, now: float) -> bool:
    """Whether this browser is that person already: then a token it used before says nothing new, and takes nothing away."""
    return old is not None and now < old.expires_at and (old.user_id, old.site) == (identity.user_id, site)


def first_use(site: str, token_id: str) -> Ignored:
    """What the hub is told of a token with an id, before anything follows from it: told a second time, it is a duplicate."""
    digest = hashlib.sha256(f"{site}\0{token_id}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return Ignored(provider_key=f"jti:{digest}", reason="a site's token was used")


def identified(session: VisitorSession, claims: Sequence[Claim], token: str) -> Identified:
    """What the hub is told, once for each token: these claims hold together."""
    digest = hashlib.sha256(token.encode()).hexdigest()[:32]
    return Identified(provider_key=f"identify:{session.device}:{digest}", claims=tuple(claims), sender_name=session.name)


def proved_keys(claims: Sequence[Claim]) -> tuple[ProvedKey, ...]:
    """The identifiers whose messages a session may see: its browser, its account, and the addresses it answered a code of. What the
    site says of an address opens nothing."""
    return tuple(ProvedKey(claim.kind, claim.site, claim.value) for claim in claims if _opens(claim))


def _opens(claim: Claim) -> bool:
    if claim.kind in ("email", "phone"):
        return claim.proof is Proof.OTP
    return claim.kind in PROVES_A_VIEW and claim.proof in PROVING
