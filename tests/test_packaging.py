"""What is shipped: the wheel holds what the hub needs, the locks pin it, and the Makefile and the Dockerfile keep their word."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# What a checkout may hold at its top; dotfiles besides.
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "config.yaml", "Dockerfile", "Makefile", "LICENSE", "CHANGELOG.md", "requirements.lock"),
    *("hub", "connectors", "templates", "tests", "bench", "docs"),
}


# --- The wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project's wheel, as `pip install .` builds it."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


def _sources(folder: str) -> set[str]:
    """Every file below a folder of the checkout, by its path from the top, without what running it leaves behind."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    wanted = _sources("hub") | _sources("connectors")
    assert wanted - set(wheel.namelist()) == set()
    # Named, so that an emptied folder cannot pass.
    for kind in ("hub/web/static/", "hub/storage/migrations/versions/", "connectors/"):
        assert any(name.startswith(kind) for name in wheel.namelist()), kind
    assert "hub/storage/migrations/script.py.mako" in wheel.namelist()


def test_the_wheel_carries_the_templates_inside_the_package(wheel: zipfile.ZipFile) -> None:
    templates = _sources("templates")
    assert templates
    assert {f"hub/{name}" for name in templates} == {name for name in wheel.namelist() if name.startswith("hub/templates/")}


def test_the_wheel_carries_the_shipped_settings(wheel: zipfile.ZipFile) -> None:
    assert wheel.read("hub/config.default.yaml") == (ROOT / "config.yaml").read_bytes()


def test_the_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    strangers = [name for name in wheel.namelist() if not re.match(r"(hub|connectors)/|support_hub-[^/]+\.dist-info/", name)]
    assert strangers == []
    assert not [name for name in wheel.namelist() if name.endswith(".pyc")]
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_the_installed_command_finds_its_own_files(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Run away from the checkout, from the unpacked wheel: nothing may be looked up beside the package."""
    wheel.extractall(tmp_path / "site")
    # -P: not the working directory. The unpacked wheel goes before a development install of the same packages.
    program = """
import json, sys
sys.path.insert(0, sys.argv[1])
import hub.storage.migrate, hub.web.pages
print(json.dumps([hub.__path__[0], hub.web.pages.environment().list_templates()]))
"""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "site")], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    home, templates = json.loads(ran.stdout)
    assert Path(home) == tmp_path / "site" / "hub"
    assert {f"templates/{name}" for name in templates} == _sources("templates")


# --- The command -----------------------------------------------------------------------------------------------------


def test_help_loads_no_database_library() -> None:
    """`hub --help` answers at once: SQLAlchemy alone takes longer to import than the rest of the command."""
    program = """
import sys
from hub.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert not end.code, end.code
print("heavy:", sorted({"sqlmodel", "sqlalchemy", "alembic", "aiohttp", "twilio", "slack_bolt"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "serve" in ran.stdout
    assert ran.stdout.endswith("heavy: []\n"), ran.stdout[-200:]


# --- Versions in use -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "floor"),
    [
        ("aiohttp", "3.14.5"),  # older ones carry GHSA-2g87-pp6c-29x5
        ("slack-bolt", "1.30.0"),
        ("nh3", "0.3.8"),  # 0.3.7 was built before ammonia's fix of CVE-2026-63430
        ("jinja2", "3.1.6"),  # CVE-2025-27516
    ],
)
def test_installed_versions_carry_the_known_fixes(distribution: str, floor: str) -> None:
    assert Version(metadata.version(distribution)) >= Version(floor)


def test_the_sqlite_library_in_use_cannot_corrupt_its_log() -> None:
    from hub.storage import sqlite_library

    if not sqlite_library.SOUND and not sys.platform.startswith("linux"):
        pytest.skip(f"SQLite {sqlite_library.VERSION} has the WAL-reset bug, and pysqlite3 has no wheel for {sys.platform}")
    assert sqlite_library.SOUND, sqlite_library.VERSION


# CPython versions in which header injection by mail (CVE-2026-1299) is mended in the standard library itself. Our own guard
# holds below them too, so an older interpreter is reported, not refused.
MENDED_PYTHON = {(3, 11): (3, 11, 15), (3, 12): (3, 12, 13), (3, 13): (3, 13, 12), (3, 14): (3, 14, 3)}


def test_the_interpreter_is_a_mended_one() -> None:
    mended = MENDED_PYTHON.get(sys.version_info[:2], sys.version_info[:3])
    if sys.version_info[:3] < mended:
        pytest.skip(f"Python {sys.version.split()[0]} is older than {'.'.join(map(str, mended))}: upgrade it where the hub serves people")


# --- The locks -------------------------------------------------------------------------------------------------------


def _locked(path: str) -> dict[str, tuple[Version, int]]:
    """A lock file as name -> (version, how many hashes)."""
    pins: dict[str, tuple[Version, int]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / path).read_text().strip()):
        name, version = re.match(r"([a-z0-9-]+)==([^ ;\\]+)", block).groups()  # type: ignore[union-attr]
        pins[name] = (Version(version), block.count("--hash=sha256:"))
    return pins


def _name(requirement: Requirement) -> str:
    return re.sub(r"[-_.]+", "-", requirement.name).lower()


LOCKS = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "tests/build.lock": PROJECT["dependency-groups"]["build"] + PROJECT["build-system"]["requires"],
    "tests/requirements.lock": [
        *PROJECT["project"]["dependencies"],
        *(need for group in PROJECT["dependency-groups"].values() for need in group),
    ],
}


@pytest.mark.parametrize("path", LOCKS)
def test_every_pin_has_its_hashes_and_no_index_is_named(path: str) -> None:
    pins = _locked(path)
    assert len(pins) >= 5
    assert [name for name, (_, hashes) in pins.items() if not hashes] == []
    text = (ROOT / path).read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links| @ ", text)


@pytest.mark.parametrize("path", LOCKS)
def test_the_lock_answers_to_the_project_file(path: str) -> None:
    """A dependency added or raised in pyproject.toml without `make lock` fails here, not at somebody's install."""
    pins = _locked(path)
    drifted = [str(need) for need in map(Requirement, LOCKS[path]) if _name(need) not in pins or pins[_name(need)][0] not in need.specifier]
    assert drifted == []


def test_the_locks_agree() -> None:
    """One version of a package, whichever lock it was installed from: what is tested is what is served."""
    every = _locked("tests/requirements.lock")
    for path in ("requirements.lock", "tests/build.lock"):
        assert {name: pin for name, pin in _locked(path).items() if every.get(name) != pin} == {}, path


# --- The checkout, the Makefile, the Dockerfile ----------------------------------------------------------------------


def test_the_top_level_holds_nothing_but_its_names() -> None:
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: what belongs to the project cannot be told from what was left there")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    top = {path.split("/")[0] for path in listed if path}
    assert {name for name in top if not name.startswith(".")} - TOP_LEVEL == set()
    assert {"pyproject.toml", "hub", "connectors", "tests", "Makefile", "Dockerfile"} <= top


MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("target", ["setup", "run", "test", "lint", "bench", "lock", "clean", "help"])
def test_make_has_the_target_and_says_what_it_does(target: str) -> None:
    assert re.search(rf"^{target}:.* ## \S", MAKEFILE, re.MULTILINE)
    declared = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert declared
    assert target in declared[1].split()


def test_make_refuses_the_pythons_the_project_refuses() -> None:
    floor = Version(PROJECT["project"]["requires-python"].removeprefix(">="))
    assert re.findall(r"sys\.version_info < \((\d+), (\d+)\)", MAKEFILE) == [(str(floor.major), str(floor.minor))]
    assert f"Python {floor} or newer is needed" in MAKEFILE
    assert f"--python-version {floor} " in MAKEFILE


def test_continuous_integration_runs_what_a_developer_types() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in script
    commands = [line for line in script.splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make lint", "make test"]


def _instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest) pairs: comments dropped, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


KNOWN = {"FROM", "ARG", "ENV", "WORKDIR", "COPY", "RUN", "VOLUME", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def test_dockerfile_stages_are_named_and_of_a_supported_python() -> None:
    instructions = _instructions()
    assert {word for word, _ in instructions} <= KNOWN
    stages: list[str] = []
    for source, name in (rest.split(" AS ") for word, rest in instructions if word == "FROM"):
        if source not in stages:
            version = re.fullmatch(r"python:(3\.\d+)-slim-[a-z]+", source)
            assert version, source
            assert f"Programming Language :: Python :: {version[1]}" in PROJECT["project"]["classifiers"]
        stages.append(name)
    assert len(stages) >= 2
    assert stages[-1] == "runtime"


def test_dockerfile_copies_only_what_exists_and_is_sent_to_the_builder() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in allowed
    sent = {line.removeprefix("!") for line in allowed if line.startswith("!")}
    stages = {rest.split(" AS ")[1] for word, rest in _instructions() if word == "FROM"}
    copied: set[str] = set()
    for rest in (rest for word, rest in _instructions() if word == "COPY"):
        *sources, _ = rest.split()
        if sources[0].startswith("--from="):
            assert sources[0].removeprefix("--from=") in stages
            continue
        copied.update(sources)
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert copied == sent


def test_dockerfile_installs_only_what_the_locks_pin() -> None:
    installs = [
        step
        for word, rest in _instructions()
        if word == "RUN"
        for step in rest.split("&&")
        if re.search(r"\bpip\b.* (install|wheel) ", step)
    ]
    assert len(installs) == 4
    for step in installs:
        assert "--require-hashes" in step or "--no-deps" in step, step
        assert "wheel " not in step or "--no-build-isolation" in step, step


def test_dockerfile_image_is_not_root_and_says_how_it_is() -> None:
    runtime = _instructions()[max(index for index, (word, _) in enumerate(_instructions()) if word == "FROM") :]
    last = dict(runtime)
    uid, gid = last["USER"].split(":")
    assert int(uid) >= 10000
    assert int(gid) >= 10000
    users = [index for index, (word, _) in enumerate(runtime) if word == "USER"]
    assert not [rest for word, rest in runtime[users[-1] :] if word in ("RUN", "COPY")]  # nothing is written by that user
    assert last["VOLUME"] == "/data"
    assert last["EXPOSE"] == "8080"
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(last["ENTRYPOINT"]) == ["hub"]
    assert json.loads(last["CMD"]) == ["serve"]
    # Bytecode makes the start fast: nothing may switch it off, here or in the builder.
    assert "PYTHONDONTWRITEBYTECODE" not in (ROOT / "Dockerfile").read_text()


async def test_dockerfile_health_check_tells_a_well_hub_from_a_sick_one() -> None:
    """The very command of the image, run against a server that is well, sick, and gone."""
    import asyncio

    from aiohttp import web
    from aiohttp.test_utils import TestServer

    (rest,) = [rest for word, rest in _instructions() if word == "HEALTHCHECK"]
    command = json.loads(rest[rest.index("CMD ") + 4 :])
    assert command[0] == "python"
    answers = iter([200, 503])

    async def healthz(request: web.Request) -> web.Response:
        return web.Response(status=next(answers))

    app = web.Application()
    app.router.add_get("/healthz", healthz)

    async def check(port: int) -> int:
        # A proxy of the surroundings must not come between the container and itself.
        environment = {"HUB_SERVER__PORT": str(port), "http_proxy": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"}
        process = await asyncio.create_subprocess_exec(sys.executable, *command[1:], env=environment, stderr=asyncio.subprocess.DEVNULL)
        return await process.wait()

    async with TestServer(app) as server:
        assert server.port
        assert [await check(server.port), await check(server.port)] == [0, 1]
    assert await check(server.port) == 1
