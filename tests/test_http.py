"""The guarded client reaches public addresses only, and says truly whether anything was sent."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.test_utils import TestServer, unused_port
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hub.contract import Http, NoAnswer, NotSent
from hub.http import GuardedHttp, refuse_reason

PUBLIC = "93.184.215.14"

# Every way we know to write "this machine" or "our own network". {p} is the port a canary listens on.
HOSTILE_URLS = [
    "https://127.0.0.1:{p}/",
    "https://127.1:{p}/",
    "https://127.0.1:{p}/",
    "https://127.255.255.254:{p}/",
    "https://127.000.000.001:{p}/",
    "https://0177.0.0.1:{p}/",  # octal
    "https://0177.0.0.01:{p}/",
    "https://017700000001:{p}/",
    "https://0x7f.0.0.1:{p}/",  # hex
    "https://0x7f000001:{p}/",
    "https://0x7F.1:{p}/",
    "https://2130706433:{p}/",  # decimal
    "https://0:{p}/",
    "https://0.0.0.0:{p}/",
    "https://00000000:{p}/",
    "https://localhost:{p}/",
    "https://LOCALHOST:{p}/",
    "https://localhost.:{p}/",
    "https://127.0.0.1.:{p}/",
    "https://[::1]:{p}/",
    "https://[0:0:0:0:0:0:0:1]:{p}/",
    "https://[0000:0000:0000:0000:0000:0000:0000:0001]:{p}/",
    "https://[::]:{p}/",
    "https://[::ffff:127.0.0.1]:{p}/",  # IPv4-mapped
    "https://[::ffff:7f00:1]:{p}/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]:{p}/",
    "https://[::127.0.0.1]:{p}/",  # IPv4-compatible
    "https://[::ffff:0:127.0.0.1]:{p}/",  # SIIT
    "https://[64:ff9b::127.0.0.1]:{p}/",  # NAT64
    "https://[64:ff9b::7f00:1]:{p}/",
    "https://[64:ff9b:1::7f00:1]:{p}/",
    "https://[2002:7f00:1::]:{p}/",  # 6to4
    "https://[2001:0:7f00:1::]:{p}/",  # Teredo
    "https://[fe80::1]:{p}/",
    "https://[fe80::1%25lo]:{p}/",
    "https://[fc00::1]:{p}/",
    "https://[fd00:ec2::254]:{p}/",  # a cloud's metadata
    "https://[ff02::1]:{p}/",
    "https://10.0.0.1:{p}/",
    "https://172.16.0.1:{p}/",
    "https://192.168.0.1:{p}/",
    "https://169.254.169.254:{p}/latest/meta-data/",
    "https://100.64.0.1:{p}/",
    "https://224.0.0.1:{p}/",
    "https://255.255.255.255:{p}/",
    "https://①②⑦.⓪.⓪.①:{p}/",  # IDNA maps these to digits
    "https://127。0。0。1:{p}/",  # ideographic full stops
    "https://127.0.0.1:{p}",
    "https://user:secret@127.0.0.1:{p}/",
    "https://public.example@127.0.0.1:{p}/",
    "https://127.0.0.1:{p}#@public.example/",
    "https://127.0.0.1:{p}\\@public.example/",
    "https://127.0.0.1\t:{p}/",
    "https://127.0.0.1:{p}/\r\nX-Injected: 1",
    " https://127.0.0.1:{p}/",
    "https:\\\\127.0.0.1:{p}/",
    "https:127.0.0.1:{p}",
    "https:///127.0.0.1:{p}/",
    "//127.0.0.1:{p}/",
    "127.0.0.1:{p}",
    "http://127.0.0.1:{p}/",
    "http://localhost:{p}/",
    "http://[::1]:{p}/",
    "HTTP://127.0.0.1:{p}/",
    "ws://127.0.0.1:{p}/",
    "wss://127.0.0.1:{p}/",
    "ftp://127.0.0.1:{p}/",
    "gopher://127.0.0.1:{p}/",
    "file:///etc/passwd",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    "https://",
    "https://:{p}/",
    "https://127.0.0.1:99999/",
    "https://[::1/",
    "",
    # The names below resolve as FixedNames says.
    "https://loopback.example:{p}/",
    "https://mapped.example:{p}/",
    "https://both.example:{p}/",
    "https://nat64.example:{p}/",
    "https://private.example:{p}/",
]

NAMES = {
    "loopback.example": ["127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "both.example": ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.2"],
    "nat64.example": ["64:ff9b::7f00:1", "64:ff9b::7f00:2"],
    "private.example": ["10.1.2.3"],
    "public.example": [PUBLIC],
}


def resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return {"hostname": host, "host": address, "port": port, "family": family, "proto": socket.IPPROTO_TCP, "flags": 0}


class FixedNames(AbstractResolver):
    """Answers the test's names from a table, and every other spelling as the operating system reads it, without DNS."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        if host in NAMES:
            return [resolved(host, port, address) for address in NAMES[host]]
        if host.rstrip(".").lower() == "localhost":
            return [resolved(host, port, "127.0.0.1"), resolved(host, port, "::1")]
        # Numeric spellings (127.1, 0x7f.1, 2130706433) are for inet_aton, as getaddrinfo does without asking anyone.
        try:
            return [resolved(host, port, socket.inet_ntoa(socket.inet_aton(host)))]
        except OSError:
            raise OSError(None, f"no such name: {host}") from None

    async def close(self) -> None: ...


class Rebinding(AbstractResolver):
    """The first answer is public, every later one is this machine."""

    def __init__(self) -> None:
        self.answers = [PUBLIC]

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        self.answers.append("127.0.0.1")
        return [resolved(host, port, self.answers[-2])]

    async def close(self) -> None: ...


class Canary:
    """Listens on every address of this machine and counts who connects."""

    def __init__(self, server: asyncio.Server) -> None:
        self.port: int = server.sockets[0].getsockname()[1]
        self.families = {listening.family for listening in server.sockets}
        self.connections = 0


@pytest.fixture
async def canary() -> AsyncIterator[Canary]:
    async def on_connect(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        writer.close()

    port = unused_port()
    hosts = ["0.0.0.0"]
    if socket.has_ipv6:
        try:
            with socket.create_server(("::1", 0), family=socket.AF_INET6):
                hosts.append("::")
        except OSError:
            pass  # a container without IPv6: the IPv4 spellings remain
    server = await asyncio.start_server(on_connect, hosts, port)
    seen = Canary(server)
    async with server:
        yield seen


@pytest.fixture
async def guarded() -> AsyncIterator[GuardedHttp]:
    http = GuardedHttp(resolver=FixedNames())
    yield http
    await http.close()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def always(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return handler


def self_signed(folder: Path) -> ssl.SSLContext:
    """A server's TLS context whose certificate nobody has vouched for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[tuple[GuardedHttp, str]]:
    """A loopback server, and a client that is allowed to call it."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    async with TestServer(app) as server:
        http = GuardedHttp([f"127.0.0.1:{server.port}", f"localhost:{server.port}"])
        try:
            yield http, f"http://127.0.0.1:{server.port}"
        finally:
            await http.close()


def test_the_table_is_as_long_as_promised() -> None:
    assert len(set(HOSTILE_URLS)) == len(HOSTILE_URLS) >= 80


@pytest.mark.parametrize("url", HOSTILE_URLS)
async def test_no_spelling_of_this_machine_is_connected_to(url: str, canary: Canary, guarded: GuardedHttp) -> None:
    with pytest.raises(NotSent):
        await guarded.request("POST", url.format(p=canary.port), body=b"{}", timeout=5)
    assert canary.connections == 0


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0x7f.0.0.1",  # aiohttp by itself refuses other numeric spellings, but not hex
        "0.0.0.0",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "①②⑦.⓪.⓪.①",
        "loopback.example",
        "both.example",
    ],
)
async def test_without_the_guard_the_canary_does_see_these_spellings(host: str, canary: Canary) -> None:
    """Negative twin: the table above is not quiet because the canary is deaf."""
    if host.startswith("[::1") and socket.AF_INET6 not in canary.families:
        pytest.skip("no IPv6 on this machine")
    connector = aiohttp.TCPConnector(resolver=FixedNames())
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"https://{host}:{canary.port}/")
    assert canary.connections >= 1


async def test_a_name_that_rebinds_after_a_look_up_is_judged_by_the_address_connected_to(canary: Canary) -> None:
    rebinding = Rebinding()
    first = await rebinding.resolve("rebind.example", canary.port)
    assert refuse_reason(first[0]["host"]) == ""  # what a check before the request would have seen
    http = GuardedHttp(resolver=rebinding)
    with pytest.raises(NotSent, match=r"127\.0\.0\.1 is this machine itself"):
        await http.request("GET", f"https://rebind.example:{canary.port}/")
    await http.close()
    assert canary.connections == 0


async def test_a_refused_address_names_the_setting_to_mend_and_keeps_the_path_to_itself(guarded: GuardedHttp) -> None:
    with pytest.raises(NotSent) as caught:
        await guarded.request("POST", "https://private.example:8443/hook/s3cret?token=s3cret")
    assert "list private.example:8443 in allowed_hosts" in str(caught.value)
    assert "10.1.2.3 is not a public address" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("8.8.8.8", True),
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("2a00:1450:4001:80e::200e", True),
        ("172.15.255.255", True),  # just below 172.16.0.0/12
        ("172.32.0.0", True),  # just above
        ("100.63.255.255", True),
        ("100.128.0.0", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("0.1.2.3", False),
        ("10.255.255.255", False),
        ("172.31.255.255", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("100.127.255.255", False),
        ("192.0.0.1", False),
        ("192.0.0.9", False),
        ("192.0.2.1", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("239.255.255.250", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("::ffff:8.8.8.8", False),  # mapped: never what a resolver gives for a public host
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::808:808", False),
        ("64:ff9b:1::1", False),
        ("100::1", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:808:808::1", False),
        ("3fff::1", False),
        ("4000::1", False),
        ("fc00::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_addresses(address: str, public: bool) -> None:
    assert (refuse_reason(address) == "") is public


@pytest.mark.parametrize(
    ("entries", "url", "connected"),
    [
        (["127.0.0.1:{p}"], "http://127.0.0.1:{p}/", True),
        (["127.0.0.1"], "http://127.0.0.1:{p}/", True),
        (["localhost:{p}"], "http://localhost:{p}/", True),
        (["LocalHost:{p}"], "http://LOCALHOST:{p}/", True),  # names have no case
        (["127.0.0.1:{p}"], "https://127.0.0.1:{p}/", True),  # connected to; TLS then fails
        (["loopback.example"], "http://loopback.example:{p}/", True),
        # The same server by any other spelling stays refused.
        (["localhost:{p}"], "http://127.0.0.1:{p}/", False),
        (["127.0.0.1:{p}"], "http://localhost:{p}/", False),
        (["127.0.0.1:{p}"], "https://127.1:{p}/", False),
        (["localhost"], "https://localhost.:{p}/", False),
        (["localhost"], "https://x.localhost:{p}/", False),
        (["127.0.0.1:1"], "http://127.0.0.1:{p}/", False),  # another port
        (["public.example"], "https://loopback.example:{p}/", False),
        (["[::1]:{p}", "::1"], "https://127.0.0.1:{p}/", False),
        ([], "http://127.0.0.1:{p}/", False),
    ],
)
async def test_a_private_host_is_called_only_as_it_is_listed(entries: list[str], url: str, connected: bool, canary: Canary) -> None:
    http = GuardedHttp([entry.format(p=canary.port) for entry in entries], resolver=FixedNames())
    with pytest.raises((NotSent, NoAnswer)):
        await http.request("GET", url.format(p=canary.port), timeout=5)
    await http.close()
    assert (canary.connections > 0) is connected


async def test_plain_http_is_refused_before_any_look_up(guarded: GuardedHttp) -> None:
    with pytest.raises(NotSent, match=r"public\.example is http"):
        await guarded.request("POST", "http://public.example/hook", body=b"x")


async def test_credentials_in_a_url_are_refused_even_for_a_listed_host() -> None:
    async with serving(always(200)) as (http, base):
        with pytest.raises(NotSent, match="user name or password") as caught:
            await http.request("GET", base.replace("//", "//me:s3cret@"))
    assert "s3cret" not in str(caught.value)


async def test_a_listed_host_does_not_open_the_door_to_others(canary: Canary) -> None:
    """The session without the guard is used for the listed host alone, also after it has been used once."""
    async with serving(always(200, b"ok")) as (http, base):
        assert (await http.request("GET", base)).body == b"ok"
        with pytest.raises(NotSent):
            await http.request("GET", f"https://127.0.0.1:{canary.port}/")
    assert canary.connections == 0


@pytest.mark.parametrize("entry", ["", "http://crm.internal", "crm.internal/path", "user@crm.internal", "crm.internal:port", "a:99999"])
def test_an_unreadable_entry_of_the_allow_list_stops_the_start(entry: str) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        GuardedHttp([entry])


async def test_it_is_the_contracts_http_and_carries_the_request_whole() -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        return web.Response(status=201, body=b"made", headers=[("X-Twice", "1"), ("X-Twice", "2")])

    async with serving(handler) as (guarded, base):
        http: Http = guarded
        response = await http.request("POST", f"{base}/a%2Fb?x=%2B1&x=2", headers={"X-Key": "k"}, body=b"\x00\xff")
    assert (response.status, response.body, response.headers["x-twice"]) == (201, b"made", "1, 2")
    [(method, path, headers, body)] = seen
    assert (method, path, body) == ("POST", "/a%2Fb?x=%2B1&x=2", b"\x00\xff")
    assert headers["X-Key"] == "k"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_the_answer_and_is_not_followed(status: int, canary: Canary) -> None:
    async with serving(always(status, headers={"Location": f"http://127.0.0.1:{canary.port}/"})) as (http, base):
        response = await http.request("POST", base, headers={"Authorization": "Bearer t"}, body=b"x")
    assert response.status == status
    assert response.headers["location"].endswith(f":{canary.port}/")
    assert canary.connections == 0


async def test_cookies_are_not_kept_and_a_login_is_not_sent_again() -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(headers={"Set-Cookie": "session=1; Path=/"})

    async with serving(handler) as (http, base):
        named = base.replace("127.0.0.1", "localhost")  # aiohttp's own jar keeps no cookie of a bare address anyway
        await http.request("GET", named, headers={"Authorization": "Bearer t"})
        await http.request("GET", named)
    assert [("Cookie" in request.headers, "Authorization" in request.headers) for request in seen] == [(False, True), (False, False)]


async def test_proxy_settings_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch, canary: Canary) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with serving(always(204)) as (http, base):
        assert (await http.request("GET", base)).status == 204
    assert canary.connections == 0


@pytest.mark.parametrize(("size", "taken"), [(999, True), (1000, True), (1001, False), (500_000, False)])
async def test_a_body_over_the_cap_is_no_answer(size: int, taken: bool) -> None:
    async with serving(always(200, b"x" * size)) as (http, base):
        if taken:
            assert len((await http.request("GET", base, max_bytes=1000)).body) == size
        else:
            with pytest.raises(NoAnswer, match="more than 1000 bytes"):
                await http.request("GET", base, max_bytes=1000)


async def test_a_compressed_bomb_is_cut_off_at_the_cap() -> None:
    bomb = gzip.compress(b"\x00" * 20_000_000)
    assert len(bomb) < 30_000
    async with serving(always(200, bomb, {"Content-Encoding": "gzip"})) as (http, base):
        with pytest.raises(NoAnswer, match="more than 1000 bytes"):
            await http.request("GET", base, max_bytes=1000)


async def test_nothing_listening_is_not_sent() -> None:
    port = unused_port()
    http = GuardedHttp([f"127.0.0.1:{port}"])
    with pytest.raises(NotSent, match="could not be reached"):
        await http.request("POST", f"http://127.0.0.1:{port}/", body=b"x")
    await http.close()


async def test_an_unknown_name_is_not_sent(guarded: GuardedHttp) -> None:
    with pytest.raises(NotSent, match="was not found"):
        await guarded.request("POST", "https://nobody.example/", body=b"x")


async def test_a_failed_tls_handshake_is_not_sent() -> None:
    async with serving(always(200)) as (http, base):
        with pytest.raises(NotSent):
            await http.request("POST", base.replace("http:", "https:"), body=b"x")


async def test_an_untrusted_certificate_is_not_sent(tmp_path: Path) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", handler)
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=self_signed(tmp_path))
    http = GuardedHttp([f"127.0.0.1:{server.port}"])
    with pytest.raises(NotSent, match="certificate"):
        await http.request("POST", f"https://127.0.0.1:{server.port}/", body=b"x")
    await http.close()
    await server.close()
    assert seen == []


async def test_a_connection_lost_after_the_request_is_no_answer() -> None:
    seen: list[bytes] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(await request.read())
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(handler) as (http, base):
        with pytest.raises(NoAnswer, match="may have been carried out"):
            await http.request("POST", base, body=b"once")
    assert seen == [b"once"]  # and not sent again by itself


async def test_a_body_that_breaks_off_is_no_answer() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(handler) as (http, base):
        with pytest.raises(NoAnswer):
            await http.request("GET", base)


async def test_a_slow_answer_is_no_answer() -> None:
    over = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with serving(handler) as (http, base):
        with pytest.raises(NoAnswer, match=r"did not answer within 0\.2 s"):
            await http.request("POST", base, body=b"x", timeout=0.2)
        over.set()


@pytest.mark.parametrize("value", ["a\r\nX-Injected: 1", "a\nb", "a\x00b"])
async def test_a_header_cannot_be_smuggled_in(value: str) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response()

    async with serving(handler) as (http, base):
        with pytest.raises((NotSent, NoAnswer)):
            await http.request("GET", base, headers={"X-Name": value})
    assert seen == []


async def test_each_request_has_a_connection_of_its_own() -> None:
    """A kept connection closed by the other side would make a request that never arrived look like a lost answer."""
    peers: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.append(request.transport.get_extra_info("peername"))
        return web.Response()

    async with serving(handler) as (http, base):
        for _ in range(3):
            await http.request("POST", base, body=b"x")
    assert len(set(peers)) == 3


async def test_after_close_nothing_is_sent() -> None:
    async with serving(always(200)) as (http, base):
        assert (await http.request("GET", base)).status == 200
        await http.close()
        with pytest.raises(NotSent, match="shutting down"):
            await http.request("GET", base)


async def test_closing_an_unused_client_is_fine() -> None:
    await GuardedHttp().close()
