"""What docs/snippets tells people to paste, called as it stands there: held, free, and with nobody answering.

Of Liquid only what the snippets use is understood here (capture, connected_content, if and unless on one comparison, abort_message), as
https://www.braze.com/docs/user_guide/personalization_and_dynamic_content/connected_content describes it; anything else fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yaml

from hub.config import CampaignSettings, load
from hub.storage.writer import StorageBusy
from tests.conftest import ROOT, free_port
from tests.test_api import ADA, Api, api

__all__ = ["api"]  # a fixture

SNIPPETS = ROOT / "docs" / "snippets"
HELD, FREE = "u-7", "u-unknown"
_TAG = re.compile(r"\{%\s*(\w+)(.*?)%\}", re.DOTALL)


def block(page: str, name: str) -> str:
    """The fenced block with this info string."""
    found = re.search(rf"^```{re.escape(name)}\n(.*?)^```", (SNIPPETS / page).read_text(), re.DOTALL | re.MULTILINE)
    assert found, f"{page} has no block {name}"
    return found[1]


def token(api: Api) -> str:
    return api.http.headers["Authorization"].removeprefix("Bearer ")


class Braze:
    """Renders one snippet for one person."""

    def __init__(self, base: str, token: str, user_id: str) -> None:
        self._base, self._token, self._user_id = base, token, user_id
        self._variables: dict[str, Any] = {}

    async def sends(self, liquid: str) -> bool:
        """Whether the message goes out."""
        text = liquid.replace("https://hub.example.com", self._base).replace("HUB_TOKEN", self._token)
        at, open_, capturing, live = 0, [], "", True
        for tag in _TAG.finditer(text):
            if capturing and tag[1] == "endcapture":
                self._variables[capturing], capturing = self._filled(text[at : tag.start()]), ""
            elif tag[1] == "capture":
                capturing = tag[2].strip()
            elif tag[1] == "connected_content":
                await self._call(self._filled(tag[2]))
            elif tag[1] in ("if", "unless"):
                open_.append(live)
                live = live and self._holds(tag[2]) is (tag[1] == "if")
            elif tag[1] in ("endif", "endunless"):
                live = open_.pop()
            elif tag[1] == "abort_message":
                if live:
                    return False
            else:
                raise AssertionError(f"a tag this test does not know: {tag[0]}")
            at = tag.end()
        assert not open_
        assert not capturing
        return True

    def _filled(self, text: str) -> str:
        def fill(found: re.Match[str]) -> str:
            name, _, how = (part.strip() for part in found[1].partition("|"))
            if name == "${user_id}":
                return {"json_escape": json.dumps(self._user_id)[1:-1], "url_param_escape": quote(self._user_id, safe="")}[how]
            return str(self._variables[name])

        return re.sub(r"\{\{(.*?)\}\}", fill, text)

    def _holds(self, condition: str) -> bool:
        name, field, value = re.fullmatch(r"\s*(\w+)\.(\w+) == (true|false)\s*", condition).groups()  # type: ignore[union-attr]
        return (self._variables.get(name) or {}).get(field) is (value == "true")  # null.held is nil, and equals neither

    async def _call(self, words: str) -> None:
        url, *rest = re.split(r"\s:(?=method|headers|content_type|body|save|no_cache|retry)", words.strip())
        options = dict(([*one.split(maxsplit=1), ""])[:2] for one in rest)
        method = options.get("method", "get").strip()
        assert method == "post" or "no_cache" in options, "Braze keeps the answer of a GET for minutes"
        headers = json.loads(options["headers"]) | ({"Content-Type": options["content_type"].strip()} if "content_type" in options else {})
        body = options.get("body", "").strip()
        try:
            async with aiohttp.ClientSession() as http, http.request(method, url.strip(), headers=headers, data=body or None) as answer:
                self._variables[options["save"].strip()] = await answer.json() if answer.status == 200 else None
        except aiohttp.ClientError:
            self._variables[options["save"].strip()] = None


# block -> whether it sends where nobody answers
BRAZE = {"fails-closed": False, "fails-open": True, "fails-closed-get": False}


@pytest.mark.parametrize("name", BRAZE)
async def test_the_braze_snippet_aborts_for_whoever_is_held(api: Api, name: str) -> None:
    base, liquid = api.url.partition("/api/")[0], block("braze.md", f"liquid {name}")
    assert await Braze(base, token(api), HELD).sends(liquid) is False
    assert await Braze(base, token(api), FREE).sends(liquid) is True
    assert await Braze(base, token(api), 'o"brien & co').sends(liquid) is True
    assert await Braze(f"http://127.0.0.1:{free_port()}", token(api), FREE).sends(liquid) is BRAZE[name], "no answer"
    assert await Braze(base, "hub_" + "x" * 43, FREE).sends(liquid) is BRAZE[name], "a token that was revoked"


@pytest.mark.parametrize("name", BRAZE)
async def test_a_hub_without_its_database_answers_as_the_snippet_needs_it(api: Api, name: str) -> None:
    declared = {key: CampaignSettings(**value) for key, value in _declared("braze.md").items()}
    api.running.hub.settings.holds.campaigns.update(declared)

    def busy(*_: Any) -> Any:
        raise StorageBusy("The database could not be read.")

    hot: Any = api.running.hub.hot
    hot._rows, rows = busy, hot._rows
    try:
        sends = await Braze(api.url.partition("/api/")[0], token(api), HELD).sends(block("braze.md", f"liquid {name}"))
    finally:
        hot._rows = rows
    assert sends is BRAZE[name]


def _declared(page: str) -> dict[str, Any]:
    return dict(yaml.safe_load(block(page, "yaml"))["holds"]["campaigns"])


@pytest.mark.parametrize("page", ["braze.md", "iterable.md"])
def test_what_config_yaml_is_told_is_what_it_takes(tmp_path: Path, page: str) -> None:
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["holds"] |= yaml.safe_load(block(page, "yaml"))["holds"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    campaigns = load(tmp_path / "config.yaml", {}).holds.campaigns
    assert {name: one.on_failure for name, one in campaigns.items()} == {"shipping-delay-notice": "open"}


@pytest.mark.parametrize(("email", "status"), [("ada@example.com", 409), ("nobody+news@example.com", 200), ("nobody", 409)])
async def test_the_iterable_feed_answers_200_to_nobody_who_is_held(api: Api, email: str, status: int) -> None:
    url = block("iterable.md", "text url").strip().replace("https://hub.example.com", api.url.partition("/api/")[0])
    name, _, value = block("iterable.md", "text header").strip().replace("HUB_TOKEN", token(api)).partition(": ")
    async with aiohttp.ClientSession(headers={name: value}) as http:
        for spelled in (email, quote(email)):  # a plus sign may come raw
            async with http.get(url.replace("{{email}}", spelled)) as answer:
                assert answer.status == status
                assert (await answer.json())["held"] is (status != 200)
        async with http.get(url.replace("{{email}}", email), headers={name: value[:-1] + "!"}) as answer:
            assert answer.status == 401, "not mistaken for a hold"


async def run(api: Api, name: str, directory: Path, **variables: str) -> int:
    if not (shutil.which("curl") and shutil.which("bash")):
        pytest.skip("curl or bash is missing")
    environment = {"PATH": os.environ["PATH"], "HUB_TOKEN": token(api), "HUB_URL": api.url.partition("/api/")[0]} | variables
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", block("http.md", f"sh {name}")), cwd=directory, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await shell.wait()


@pytest.mark.parametrize(
    ("variables", "sends"),
    [
        ({"EMAIL": "nobody@example.com"}, True),
        ({"EMAIL": "ada@example.com"}, False),
        ({"EMAIL": "nobody"}, False),
        ({"EMAIL": "nobody@example.com", "HUB_TOKEN": "hub_wrong"}, False),
        ({"EMAIL": "nobody@example.com", "HUB_URL": "http://127.0.0.1:1"}, False),
    ],
)
async def test_the_shell_line_sends_only_after_a_clear_no(api: Api, tmp_path: Path, variables: dict[str, str], sends: bool) -> None:
    assert (await run(api, "one-person", tmp_path, **variables) == 0) is sends


async def test_a_whole_list_is_asked_about_in_one_line(api: Api, tmp_path: Path) -> None:
    people = ["ada@example.com" if number == 4_000 else f"person{number}@example.com" for number in range(5_000)]
    (tmp_path / "people.txt").write_text("\n".join(people))
    assert await run(api, "whole-list", tmp_path) == 0
    held, last = [json.loads(line) for line in (tmp_path / "held.ndjson").read_text().splitlines()]
    assert (held["line"], held["value"]) == (4_001, "ada@example.com")
    assert (last["lines"], last["held"]) == (5_000, 1)
    assert await run(api, "whole-list", tmp_path, HUB_TOKEN="hub_wrong") != 0
    assert ADA not in (tmp_path / "held.ndjson").read_text()
