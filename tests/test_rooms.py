"""The rooms of the house and the doors between them: forbidden directions, held by a literal table and a walk over every import.

An import inside a function or under TYPE_CHECKING counts like any other: knowing a name is knowing the room.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 600  # lines a person can hold in the head, and some more

# Longer files, and why they may be.
LONG: dict[str, str] = {}

# A room (the longest prefix that fits) -> what of ours its modules may import. `x.*` is the package x and all in it.
DOORS: dict[str, tuple[str, ...]] = {
    "hub": (),
    "hub.__main__": ("hub.cli",),
    # What everybody may know knows nobody.
    "hub.contract": (),
    "hub.marketing": ("hub.contract",),  # the same, for marketing tools
    "hub.abilities": (),
    "hub.team_rooms": ("hub.contract",),  # and for the agents' rooms
    "hub.policy": ("hub.survey_policy",),
    "hub.survey_policy": (),
    "hub.capped": ("hub.capped_child",),
    "hub.capped_child": (),
    **dict.fromkeys(("hub.thumbnails", "hub.scanning"), ()),
    "hub.rules": ("hub.config", "hub.contract", "hub.policy", "hub.survey_policy"),
    "hub.keys": (),
    "hub.config": ("hub.survey_policy",),
    "hub.storage.records": ("hub.storage.marketing_records",),
    "hub.storage.marketing_records": (),
    # The domain: storage below, decisions above it, and nothing of the web.
    "hub.storage": ("hub.policy", "hub.storage.*"),
    "hub.customers": ("hub.config", "hub.contract", "hub.policy", "hub.storage.*", "hub.customers.*"),
    **dict.fromkeys(
        ("hub.customers.why", "hub.customers.telling"),  # they speak to people, in the words those read elsewhere
        ("hub.contract", "hub.storage.*", "hub.customers.*", "hub.conversations.wording"),
    ),
    "hub.customers.late_proof": (  # what a message would have come to, had it been proved when it came
        *("hub.contract", "hub.policy", "hub.storage.*", "hub.customers.*"),
        "hub.conversations.tickets",
    ),
    "hub.conversations": ("hub.contract", "hub.policy", "hub.storage.*", "hub.customers.*", "hub.conversations.*"),
    "hub.conversations.reports": (  # a report of delivery comes in by the same door as a message
        *("hub.contract", "hub.policy", "hub.storage.*", "hub.customers.*", "hub.conversations.*"),
        "hub.delivery.states",
    ),
    "hub.delivery": (
        *("hub.contract", "hub.marketing", "hub.team_rooms", "hub.policy", "hub.keys", "hub.storage.*", "hub.delivery.*"),
        *("hub.conversations", "hub.conversations.wording"),  # Refusal, and what a person without a name is called
        *("hub.holds.ledger", "hub.holds.marks"),  # the shape of times that destinations are told; what tools were told
    ),
    **dict.fromkeys(  # what is wanted of a marketing tool is what the gate answers
        ("hub.delivery.marking", "hub.delivery.watching"),
        ("hub.contract", "hub.marketing", "hub.policy", "hub.storage.*", "hub.delivery.*", "hub.holds.*", "hub.conversations.wording"),
    ),
    "hub.delivery.unseen": (  # an address a visitor gave, and the one-time link that goes to it
        *("hub.contract", "hub.customers.codes", "hub.keys", "hub.policy", "hub.storage.*", "hub.delivery.*"),
    ),
    "hub.holds": (
        "hub.contract",
        "hub.marketing",
        "hub.policy",
        "hub.storage.*",
        "hub.customers.*",
        "hub.conversations.tickets",
        "hub.holds.*",
    ),
    "hub.reactions": (
        "hub.storage.*",
        *("hub.delivery.owed", "hub.delivery.unseen"),
        "hub.holds.ledger",
        "hub.holds.reasons",
        "hub.satisfaction.surveys",
    ),
    "hub.satisfaction": (
        *("hub.keys", "hub.policy", "hub.survey_policy", "hub.storage.*", "hub.customers.*", "hub.conversations.*"),
        "hub.satisfaction.*",
    ),
    # Who may come in: accounts, their passwords and their sessions.
    **dict.fromkeys(
        ("hub.agents", "hub.passwords", "hub.sessions"),
        ("hub.conversations", "hub.keys", "hub.policy", "hub.storage.*", "hub.agents", "hub.passwords", "hub.sessions"),
    ),
    "hub.http": ("hub.contract",),
    "hub.dns": ("hub.contract",),
    # The rooms that face the outside.
    "hub.web": (
        *(
            *("hub.capped", "hub.thumbnails", "hub.scanning"),
            "hub.config",
            "hub.contract",
            "hub.marketing",
            "hub.team_rooms",
            "hub.policy",
            "hub.keys",
            "hub.storage.*",
            "hub.customers.*",
            "hub.conversations.*",
        ),
        *("hub.delivery.*", "hub.holds.*", "hub.satisfaction.*", "hub.agents", "hub.passwords", "hub.sessions", "hub.web.*", "hub"),
    ),
    "hub.app": ("hub.*", "connectors.*"),  # the composition root: the only file that knows everybody
    "hub.serving": ("hub.*",),
    "hub.cli": ("hub", "hub.*"),
    # Connectors translate: the contract, what several of them share, and their own package.
    "connectors": (),
    "connectors.shared": ("hub.contract", "hub.marketing", "connectors.shared.*"),
    **{
        f"connectors.{name}": ("hub.contract", "connectors.shared.*", f"connectors.{name}.*")
        for name in ("twilio_sms", "twilio_whatsapp", "whatsapp_cloud", "telnyx_sms", "webchat", "email", "sandbox")
    },
    "connectors.slack": ("hub.contract", "hub.team_rooms", "connectors.shared.*"),
    "connectors.shared.slack_blocks": ("hub.contract", "hub.team_rooms"),
    "connectors.webhook": ("hub.contract", "hub.marketing", "connectors.shared.*"),
    **{
        f"connectors.{name}": ("hub.contract", "hub.marketing", "connectors.shared.*", f"connectors.{name}.*")
        for name in ("klaviyo", "braze", "hubspot", "customerio", "iterable", "mailchimp", "segment")
    },
}

# A library -> the only rooms that may import it.
LIBRARIES: dict[str, tuple[str, ...]] = {
    "twilio": ("connectors.shared", "connectors.twilio_sms", "connectors.twilio_whatsapp"),
    "slack_bolt": ("connectors.slack",),
    "slack_sdk": ("connectors.slack",),
    "aiosmtplib": ("connectors.shared.smtp",),
    "aiosmtpd": ("connectors.sandbox", "connectors.email.listener"),
    "imapclient": ("connectors.email.imap",),
    # A connector reaches the network through the client it is handed, or its vendor's SDK laid over that.
    "aiohttp": ("hub.web", "hub.app", "hub.http", "connectors.sandbox", "connectors.slack"),  # Slack's SDK is laid over a session of it
    "dns": ("hub.dns",),
    "PIL": ("hub.thumbnails",),
    "dkim": ("connectors.shared.mail_signature",),
    "flufl": ("connectors.shared.bounces",),
    "jinja2": ("hub.web",),
    "nh3": ("hub.web",),
    "click": ("hub.cli",),
    "argon2": ("hub.passwords",),
    # Nobody but storage opens a database ...
    "sqlite3": ("hub.storage",),
    "pysqlite3": ("hub.storage.sqlite_library",),
    "aiosqlite": ("hub.storage",),
    "asyncpg": ("hub.storage",),
    "alembic": ("hub.storage",),
    "sqlmodel": ("hub.storage.tables", "hub.storage.marketing_tables", "hub.storage.column_types"),
    "sqlalchemy.orm": (),
    "sqlalchemy.ext": ("hub.storage",),
    "sqlalchemy.engine": ("hub.storage",),
    "sqlalchemy.pool": ("hub.storage",),
    "sqlalchemy.create_engine": ("hub.storage",),
    # ... and the domain reads it in statements that are the same on every engine.
    "sqlalchemy": (
        *("hub.storage", "hub.customers", "hub.conversations", "hub.delivery", "hub.holds", "hub.satisfaction"),
        *("hub.agents", "hub.sessions", "hub.web", "hub.cli"),
    ),
}

# ... nor a transaction: no other module says one of these to a database.
TRANSACTION = re.compile(r"\s*(BEGIN(?!:)|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|INSERT INTO|UPDATE \w+ SET|DELETE FROM|PRAGMA)\b")
SPEAKS_SQL = ("hub.storage",)

# Code without a noun collects in such drawers.
DRAWERS = re.compile(r"(.*_)?(utils?|helpers?|common|core|managers?|services?|misc|base)(_.*)?")


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    def imports(self) -> Iterator[str]:
        """Every module or name imported, as `package.module.name`."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}: relative imports hide which room they enter"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(root: Path = ROOT) -> list[Module]:
    found = []
    for top in ("hub", "connectors"):
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, ast.parse(path.read_text())))
    return found


MODULES = modules()
OURS = {module.name for module in MODULES}


def within(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


def target(imported: str, known: set[str] = OURS) -> str:
    """The module of ours that an imported name lives in."""
    while imported not in known and "." in imported:
        imported = imported.rpartition(".")[0]
    return imported


def door(name: str) -> tuple[str, ...]:
    """What a module may import, by the closest row of the table. A package's own row does not cover what is in it (`hub`)."""
    rows = [room for room in DOORS if name == room or (room not in ("hub", "connectors") and within(name, room))]
    assert rows, f"{name} stands in no room of the table: give it one, with what it may import"
    return DOORS[max(rows, key=len)]


def wrong_doors(module: Module, known: set[str] = OURS) -> list[str]:
    allowed = door(module.name)
    wrong = []
    for imported in module.imports():
        if imported.partition(".")[0] not in ("hub", "connectors"):
            continue
        entered = target(imported, known)
        if not any(within(entered, one[:-2]) if one.endswith(".*") else entered == one for one in allowed):
            wrong.append(f"{module.name} -> {imported}")
    return wrong


def wrong_libraries(module: Module) -> list[str]:
    wrong = []
    for imported in module.imports():
        rows = [library for library in LIBRARIES if within(imported, library)]
        if rows and not any(within(module.name, room) for room in LIBRARIES[max(rows, key=len)]):
            wrong.append(f"{module.name} -> {imported}")
    return wrong


def sql_spoken(module: Module) -> list[str]:
    return [
        f"{module.name}:{node.lineno}: {node.value.strip()[:40]}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and TRANSACTION.match(node.value)
    ]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_room_enters_only_the_rooms_it_may(module: Module) -> None:
    assert not wrong_doors(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_library_is_known_only_where_it_belongs(module: Module) -> None:
    assert not wrong_libraries(module)


def test_nobody_but_storage_opens_a_transaction() -> None:
    spoken = [line for module in MODULES if not any(within(module.name, room) for room in SPEAKS_SQL) for line in sql_spoken(module)]
    assert not spoken
    assert [line for module in MODULES if module.name == "hub.storage.sqlite_writer" for line in sql_spoken(module)], "and storage does"


def test_only_storage_numbers_events() -> None:
    """Whoever else inserted one would break the order that followers rely on."""
    for module in MODULES:
        if not within(module.name, "hub.storage"):
            made = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Event"]
            assert not made, module.name


def test_no_room_of_the_table_is_empty_and_no_reason_is_left_over() -> None:
    assert not {room for room in DOORS if not any(within(name, room) for name in OURS)}
    assert not {path for path in LONG if not (ROOT / path).exists()}


def test_connectors_know_no_other_connector_and_no_clock() -> None:
    for module in MODULES:
        if not within(module.name, "connectors") or within(module.name, "connectors.sandbox"):
            continue
        told = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
        calls = {ast.unparse(node.func) for node in ast.walk(module.tree) if isinstance(node, ast.Call)}
        assert not calls & told, f"{module.name}: now is an argument"


def test_the_domain_names_no_channel() -> None:
    """A core that asks which channel it is must be edited for every new one."""
    names = {"sms", "whatsapp", "sendgrid", "webchat", "twilio", "twilio_sms", "twilio_whatsapp", "slack"}
    rooms = ("hub.storage", "hub.customers", "hub.conversations", "hub.delivery", "hub.holds")
    for module in MODULES:
        if any(within(module.name, room) for room in rooms):
            compared = [
                ast.unparse(node)
                for node in ast.walk(module.tree)
                if isinstance(node, ast.Compare)
                for part in ast.walk(node)
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.lower() in names
            ]
            assert not compared, f"{module.name}: {compared}"


def test_no_drawer_without_a_noun() -> None:
    for module in MODULES:
        for part in module.name.split("."):
            assert not DRAWERS.fullmatch(part), module.name


@pytest.mark.parametrize(
    "name", ["utils", "mail_utils", "helpers", "common", "core", "manager", "ticket_service", "base_connector", "base"]
)
def test_a_drawer_is_recognised(name: str) -> None:
    assert DRAWERS.fullmatch(name)


@pytest.mark.parametrize("name", ["database", "records", "commands", "corea", "serving", "recommended", "based_on"])
def test_a_noun_is_no_drawer(name: str) -> None:
    assert not DRAWERS.fullmatch(name)


def test_every_file_can_be_held_in_the_head() -> None:
    lengths = {str(module.path.relative_to(ROOT)): len(module.path.read_text().splitlines()) for module in MODULES}
    assert not {path: lines for path, lines in lengths.items() if lines > LONGEST and path not in LONG}
    assert not {path for path in LONG if lengths[path] <= LONGEST}, "short enough now: take it from the table"


# --- the negative twins: what the walk must see ---

FORBIDDEN = [
    ("hub.conversations.made_up", "from hub.web import feed", "doors"),
    ("hub.storage.made_up", "import hub.conversations", "doors"),
    ("hub.conversations.made_up", "def f():\n    from hub.app import Running", "doors"),
    ("hub.contract", "from hub.policy import Policy", "doors"),
    ("hub.web.made_up", "import connectors", "doors"),
    ("hub.delivery.made_up", "from connectors.shared import mime", "doors"),
    ("hub.delivery.made_up", "from hub.conversations.ingest import Ingest", "doors"),
    ("connectors.webchat", "from hub.customers.canonical import canonical", "doors"),
    ("connectors.webchat", "from connectors.slack import Slack", "doors"),
    ("connectors.shared.made_up", "from connectors.email import raw", "doors"),
    ("hub.holds.made_up", "if TYPE_CHECKING:\n    from aiohttp import web", "libraries"),
    ("hub.customers.made_up", "import jinja2", "libraries"),
    ("hub.web.made_up", "import twilio.rest", "libraries"),
    ("hub.app", "from slack_bolt.async_app import AsyncApp", "libraries"),
    ("hub.conversations.made_up", "import sqlite3", "libraries"),
    ("hub.web.made_up", "from sqlalchemy.orm import Session", "libraries"),
    ("hub.web.made_up", "from sqlalchemy import create_engine", "libraries"),
    ("hub.web.made_up", "from sqlalchemy.ext.asyncio import create_async_engine", "libraries"),
    ("connectors.webhook", "from sqlalchemy import select", "libraries"),
    ("hub.web.made_up", "x.execute('BEGIN IMMEDIATE')", "sql"),
    ("hub.web.made_up", "text('insert')\ntext('DELETE FROM message')", "sql"),
]


@pytest.mark.parametrize(("name", "source", "rule"), FORBIDDEN, ids=[f"{name}: {source[-40:]!r}" for name, source, _ in FORBIDDEN])
def test_a_forbidden_direction_is_seen(name: str, source: str, rule: str) -> None:
    module = Module(name, Path(name), ast.parse(source))
    seen = {"doors": wrong_doors, "libraries": wrong_libraries, "sql": sql_spoken}[rule](module)
    assert len(seen) == 1


def test_the_walk_found_the_house() -> None:
    assert len(MODULES) > 80
    assert {"hub.app", "hub.storage.writer", "connectors.shared.twilio", "hub.storage.migrations.env"} <= OURS
