"""The examples of docs/widget.md, run as they stand there: what they sign, the hub takes for the visitor they name."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from hub.config import SiteSettings, load
from hub.customers.site_keys import read_key_set
from hub.customers.visitors import Identity, NotIdentified, identify
from tests.conftest import ROOT

KEY = "a-site-key-of-at-least-thirty-two-characters-é/+"  # also what is not ASCII is used as it is written
SECTION = re.search(r"## Say who the visitor is\n.*?(?=\n## )", (ROOT / "docs" / "widget.md").read_text(encoding="utf-8"), re.DOTALL)
assert SECTION is not None
EXAMPLES = re.findall(r"```(python|js|php|ruby)\n(.*?)```", SECTION[0], re.DOTALL)

# What a site's page would do: name its signed-in visitor and print the token (and the key set, where the site serves one).
CALLS = {
    "python": """
from types import SimpleNamespace
print(chat_token(SimpleNamespace(id=77, name="Jos\\u00e9 \\"Pepe\\" Ruiz", email="jose@customer.example", email_confirmed=True)))
""",
    "js": """
console.log(chatToken({ id: 77, name: 'Jos\\u00e9 "Pepe" Ruiz', email: 'jose@customer.example', emailConfirmed: true }));
if (typeof keySet === 'function') console.log(keySet());
""",
    "php": """
$mail = 'jose@customer.example';
echo chat_token((object) ['id' => 77, 'name' => "Jos\\u{e9} \\"Pepe\\" Ruiz", 'email' => $mail, 'email_confirmed' => true]);
""",
    "ruby": """
User = Struct.new(:id, :name, :email, :email_confirmed)
puts chat_token(User.new(77, "Jos\\u00e9 \\"Pepe\\" Ruiz", "jose@customer.example", true))
""",
}
INTERPRETERS = {"python": [sys.executable], "js": ["node"], "php": ["php"], "ruby": ["ruby"]}
ENDINGS = {"python": "py", "js": "cjs", "php": "php", "ruby": "rb"}
IDS = [f"{language} {'ES256' if 'ES256' in code else 'HS256'}" for language, code in EXAMPLES]


def test_every_language_has_its_example() -> None:
    assert sorted(IDS) == ["js ES256", "js HS256", "php HS256", "python HS256", "ruby HS256"]


def run(language: str, code: str, directory: Path) -> list[str]:
    """The lines a program of this example prints. Skips where there is no interpreter."""
    program = INTERPRETERS[language]
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    path = directory / f"example.{ENDINGS[language]}"
    path.write_text(f"{'<?php ' if language == 'php' else ''}{code}\n{CALLS[language]}", encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "SHOP_CHAT_KEY": KEY, "LC_ALL": "C.UTF-8"}
    done = subprocess.run([*program, str(path)], capture_output=True, text=True, cwd=directory, env=environment, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.process
@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=IDS)
def test_what_the_documented_example_signs_is_the_visitor(language: str, code: str, tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "chat-key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    token, *served = run(language, code, tmp_path)
    assert bool(served) == ("ES256" in code)
    if served:
        site = SiteSettings(jwks_url="https://shop.example/jwks.json", trust_email=True)
        keys = read_key_set(served[0].encode())
        assert [key.kid for key in keys] == ["2026-11"]
        assert [key["kid"] for key in json.loads(served[0])["keys"] if "d" not in key] == ["2026-11"]  # the public half alone
    else:
        site, keys = SiteSettings(key=KEY, trust_email=True), None  # type: ignore[arg-type]
    now = time.time()
    found = identify(token, site, now, keys)
    assert found == Identity("77", "jose@customer.example", 'José "Pepe" Ruiz', token_id=found.token_id)
    assert len(found.token_id) >= 32, "another id in every token"
    claims = jwt.decode(token, options={"verify_signature": False})
    assert now - 60 <= claims["exp"] - 600 <= now + 60
    # The negative twin: the same token with one letter changed is nobody's.
    head, body, signature = token.split(".")
    spoilt = f"{head}.{body[:-2]}{'A' if body[-2] != 'A' else 'B'}{body[-1]}.{signature}"
    with pytest.raises(NotIdentified):
        identify(spoilt, site, now, keys)


@pytest.mark.process
@pytest.mark.parametrize(("language", "code"), EXAMPLES, ids=IDS)
def test_every_token_has_an_id_of_its_own(language: str, code: str, tmp_path: Path) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "chat-key.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    ids = {jwt.decode(run(language, code, tmp_path)[0], options={"verify_signature": False})["jti"] for _ in range(2)}
    assert len(ids) == 2


def test_the_documented_change_of_a_secret_is_a_configuration_that_loads(tmp_path: Path) -> None:
    assert SECTION is not None
    (written,) = re.findall(r"`(keys: \[.*?\])`", SECTION[0])
    path = tmp_path / "config.yaml"
    path.write_text(f"sites:\n  shop:\n    {written}\n")
    site = load(path, {"SHOP_CHAT_KEY": KEY, "SHOP_CHAT_KEY_2": KEY[::-1]}).sites["shop"]
    for key, kid in [(KEY, None), (KEY[::-1], None), (KEY[::-1], "second")]:
        token = jwt.encode({"sub": "77", "aud": "support-hub", "exp": int(time.time()) + 60}, key, "HS256", {"kid": kid} if kid else None)
        assert identify(token, site, time.time()) == Identity("77")
