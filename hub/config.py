"""config.yaml and environment -> typed settings. A typo or a missing secret stops the start and names the key and the fix.

`${NAME}` anywhere in a value is replaced by that environment variable; `HUB_SERVER__PORT=9000` overrides `server.port`.
What agents and administrators change while the hub runs lives in the database, not here.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hub.survey_policy import minutes


class ConfigError(Exception):
    """The configuration cannot be used; each line names a key and how to mend it."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    public_url: str = "http://localhost:8080"  # what providers call and sign; never taken from a request
    secure_cookies: bool | None = None  # None: whenever public_url is https

    @field_validator("public_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]+", value):
            raise ValueError("must begin with http:// or https:// and a host")
        return value.rstrip("/")


class StorageSettings(_Section):
    database: Path = Path("data/hub.db")
    files: Path = Path("data/files")
    secret_file: Path = Path("data/secret")
    scanner: str = Field(default="", pattern=r"^(tcp://[^/\s:]+(:[0-9]{1,5})?|unix:/[^\s]+)?$")  # ClamAV: tcp://HOST:3310 or unix:/path

    def paths(self) -> tuple[tuple[str, Path], ...]:
        """What is kept where."""
        return ("database", self.database), ("files", self.files), ("secret_file", self.secret_file)


class ConversationSettings(_Section):
    reopen_within_days: float = Field(default=7, gt=0)


class CampaignSettings(_Section):
    """What a campaign is to do where the gate cannot answer: `closed` sends nothing, `open` sends."""

    on_failure: Literal["closed", "open"] = "closed"


class HoldSettings(_Section):
    lease_days: float = Field(default=7, gt=0)
    renew_under_days: float = Field(default=3, gt=0)
    longest_days: float = Field(default=21, gt=0)  # a ticket holds for so long, and no more until it is reopened
    statuses: tuple[Literal["open", "pending", "snoozed"], ...] = Field(default=("open", "pending", "snoozed"), min_length=1)
    tags: tuple[str, ...] = ()  # only tickets with one of these hold; none: all
    tags_not: tuple[str, ...] = ()  # tickets with one of these hold nobody
    priorities: tuple[Literal["low", "normal", "high", "urgent"], ...] = ()  # only these; none: all
    resume: Literal["at_once", "cool_down", "good_score"] = "at_once"  # when marketing goes on after a ticket was resolved
    cool_down_days: float = Field(default=0, ge=0, le=365)
    low_score_days: float = Field(default=7, ge=0, le=365)  # a bad answer to a survey holds for so long; 0: not at all
    complaint_tags: tuple[str, ...] = ("complaint",)
    complaint_days: float = Field(default=14, gt=0, le=365)  # a complaint holds for so long, resolved or not
    alarm_share: float = Field(default=0.05, gt=0, le=1)  # more than this share of all customers held raises an alarm
    alarm_confirm_minutes: float = Field(default=15, gt=0)  # a hold not confirmed by a tool after so long raises an alarm
    receipts: Literal["none", "counts", "rows"] = "counts"  # what is kept of the gate's answers
    campaigns: dict[str, CampaignSettings] = {}  # by the name they ask the gate with

    @model_validator(mode="after")
    def _renews_before_it_ends(self) -> HoldSettings:
        if self.renew_under_days >= self.lease_days:
            raise ValueError("renew_under_days must be less than lease_days")
        if self.resume != "at_once" and not self.cool_down_days:
            raise ValueError(f"resume: {self.resume} needs cool_down_days, the longest that marketing waits after a ticket was resolved")
        return self


class SatisfactionSettings(_Section):
    """The one question a customer is asked after a ticket was resolved."""

    kind: Literal["off", "csat", "nps", "effort"] = "off"
    delay_minutes: float = Field(default=30, ge=0)
    every_days: float = Field(default=14, ge=0)  # a customer is asked once in so long
    life_days: float = Field(default=14, gt=0)  # the link takes an answer for so long
    quiet_from: str = "21:00"  # nobody is asked from then on ...
    quiet_until: str = "09:00"  # ... until then, in their own time zone, or in time_zone where theirs is not known
    time_zone: str = "UTC"
    language: str = "en"
    questions: dict[str, str] = {}  # language -> your own words for the question

    @field_validator("quiet_from", "quiet_until")
    @classmethod
    def _time_of_day(cls, value: str) -> str:
        minutes(value)
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone {value!r}; write it as Europe/Berlin") from None
        return value


class SiteKeySettings(_Section):
    """One of several secrets a site's server may sign with. A token that names a `kid` is tried with that key alone."""

    key: SecretStr
    kid: str = Field(default="", max_length=200)

    @field_validator("key")
    @classmethod
    def _usable(cls, value: SecretStr) -> SecretStr:
        return _secret(value)


class IdentitySettings(_Section):
    default_region: str = Field(default="", pattern=r"^([A-Z]{2})?$")  # ISO 3166 country of numbers that people type without one
    nameservers: tuple[str, ...] = ()  # asked for the keys of mails' own signatures, as address or address:port; none: the system's
    own_domains: tuple[str, ...] = ()  # whoever mails from there is one of us: kept in quarantine, never a customer
    claimed_addresses_held: int = Field(default=3, ge=0, le=20)  # addresses a customer merely claims that their hold covers; 0: none


class SiteSettings(_Section):
    """A web site that embeds the chat widget and may tell us who its visitors are.

    Its server signs them with one secret (`key`), one of several (`keys`), or a private key whose public half its `jwks_url` serves.
    Exactly one of the three: a key is for one kind of signature, so a token can never choose what it is checked with.
    """

    key: SecretStr | None = None  # HS256
    keys: tuple[SiteKeySettings, ...] = Field(default=(), max_length=10)  # HS256, while one follows another
    jwks_url: str = ""  # RS256 and ES256: a JSON Web Key Set (RFC 7517)
    audience: str = Field(default="support-hub", min_length=1)
    trust_email: bool = False  # an `email` with `email_verified: true` in the token proves that address
    trust_phone: bool = False  # a `phone_number` with `phone_number_verified: true` proves that number
    origins: tuple[str, ...] = ()  # pages that may embed the widget

    @field_validator("key")
    @classmethod
    def _usable(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else _secret(value)

    @field_validator("jwks_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^\s/@?#\\]+([/?][^\s\\#]*)?", value):
            raise ValueError("must be the https:// address of a JSON Web Key Set, without a user name or password")
        return value

    @model_validator(mode="after")
    def _one_kind_of_key(self) -> SiteSettings:
        named = [name for name in ("key", "keys", "jwks_url") if getattr(self, name)]
        if len(named) != 1:
            raise ValueError(
                f"{' and '.join(named) or 'no key'} given; name exactly one of key (one HS256 secret), keys (several, to change them) "
                "and jwks_url (RS256 or ES256)"
            )
        kids = [one.kid for one in self.keys if one.kid]
        if len(set(kids)) < len(kids):
            raise ValueError("keys: two have the same kid; give each its own")
        return self

    @property
    def secrets(self) -> tuple[tuple[str, SecretStr], ...]:
        """The HS256 secrets as (kid, secret); none for a site with a key set."""
        return (("", self.key),) if self.key is not None else tuple((one.kid, one.key) for one in self.keys)


# What the encoding of an RSA or an elliptic-curve key says it is: its object identifiers (RFC 8017, appendix C; RFC 5480, section 2.1.1).
_KEY_KINDS = (bytes.fromhex("2a864886f70d0101"), bytes.fromhex("2a8648ce3d0201"))


def _secret(value: SecretStr) -> SecretStr:
    """A secret to sign with: long enough, and no key that others may know. Raises ValueError."""
    text = value.get_secret_value().strip()
    if len(text) < 32:
        raise ValueError("must have at least 32 characters (make one with: openssl rand -hex 32)")
    try:
        der = base64.b64decode(re.sub(r"[\s=]", "", text) + "==", altchars=b"-_" if re.search(r"[-_]", text) else None)
    except ValueError:
        der = b""
    # The classical confusion: with a public key as the secret, whoever can read that key signs as anybody.
    if re.search(r"-{4}[- ]BEGIN |^(ssh|ecdsa|sk-ssh|sk-ecdsa)-|\"kty\"", text) or any(kind in der for kind in _KEY_KINDS):
        raise ValueError(
            "is a public or private key, not a secret. For RS256 or ES256 serve the public key as a JSON Web Key Set and name its "
            "address in jwks_url; for HS256 make a secret with: openssl rand -hex 32"
        )
    return value


class SandboxSettings(_Section):
    enabled: bool = False
    port: int = Field(default=8090, ge=0, le=65535)  # the stand-in providers, on loopback
    smtp_port: int = Field(default=8025, ge=0, le=65535)  # the stand-in mail relay
    beside_real: bool = False  # allow the sandbox next to a channel that reaches real people


class Settings(BaseSettings):
    """The whole configuration of a process."""

    model_config = SettingsConfigDict(env_prefix="HUB_", env_nested_delimiter="__", extra="forbid", frozen=True)

    server: ServerSettings = ServerSettings()
    database_url: SecretStr | None = None  # postgresql://user:password@host/database; without one, SQLite in storage.database
    storage: StorageSettings = StorageSettings()
    conversations: ConversationSettings = ConversationSettings()
    holds: HoldSettings = HoldSettings()
    satisfaction: SatisfactionSettings = SatisfactionSettings()
    identity: IdentitySettings = IdentitySettings()
    sites: dict[str, SiteSettings] = {}
    # Each entry's `type` names a connector, which checks the rest of it.
    channels: dict[str, dict[str, Any]] = {}
    rooms: dict[str, dict[str, Any]] = {}
    destinations: dict[str, dict[str, Any]] = {}
    allowed_hosts: tuple[str, ...] = ()  # private hosts the hub may call all the same, as host or host:port
    sandbox: SandboxSettings = SandboxSettings()

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        url = value.get_secret_value() if value is not None else ""
        if not url:
            return None
        if not re.match(r"postgres(ql)?://[^/\s]*/[^/\s]+", url):
            raise ValueError("must be postgresql://user:password@host:port/database; leave it out for SQLite")
        return value

    @field_validator("channels", "rooms", "destinations")
    @classmethod
    def _plain_names(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, entry in value.items():
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", name):
                raise ValueError(f"{name!r}: a name is lower-case letters, digits, - and _ (it becomes part of a URL)")
            if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
                raise ValueError(f"{name!r} needs a `type`")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings

    @property
    def secure_cookies(self) -> bool:
        chosen = self.server.secure_cookies
        return self.server.public_url.startswith("https://") if chosen is None else chosen


def expand(value: Any, environment: Mapping[str, str], where: str, missing: list[str]) -> Any:
    """Replace `${NAME}` in every string below `value`; what is not set is noted in `missing`, with its key."""
    if isinstance(value, str):

        def one(match: re.Match[str]) -> str:
            name = match.group(1)
            if name not in environment:
                missing.append(f"{where}: the environment variable {name} is not set. Set it, or write the value in its place.")
                return ""
            return environment[name]

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", one, value)
    if isinstance(value, dict):
        return {key: expand(inner, environment, f"{where}.{key}" if where else str(key), missing) for key, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner, environment, f"{where}[{index}]", missing) for index, inner in enumerate(value)]
    return value


def explain(error: ValidationError, where: str = "") -> list[str]:
    """A validation error as lines that name the key, what is wrong, and the fix. Never the value: it may be a secret."""
    lines = []
    for fault in error.errors(include_input=False, include_url=False):
        key = ".".join(str(part) for part in ([where] if where else []) + list(fault["loc"]))
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: there is no such setting. Check the spelling, or remove it.")
        elif fault["type"] == "missing":
            lines.append(f"{key}: is missing. Add it.")
        else:
            lines.append(f"{key}: {fault['msg'].removeprefix('Value error, ')}.")
    return lines


def load(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read config.yaml. Relative paths in it count from the working directory. Raises ConfigError."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Copy the shipped config.yaml there, or name another with --config."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)}).") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of settings.")
    missing: list[str] = []
    values = expand(raw, environment, "", missing)
    if missing:
        raise ConfigError("\n".join(missing))
    try:
        return Settings(**values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error))) from error
