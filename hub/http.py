"""The one door out for HTTP: public addresses only, no redirects, no cookies, capped in time and size.

Connectors speak to addresses that strangers can influence (a webhook URL typed by a user, a media URL in a payload).
What counts is therefore the address a socket is about to be connected to, after DNS, and not the spelling of the URL:
`refuse_reason` is asked for each one, immediately before the connection (no second look-up could answer differently).
Hosts of one's own network are called only when the configuration lists them by name.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Network, ip_address, ip_network
from types import SimpleNamespace

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from hub.contract import HttpResponse, NoAnswer, NotSent

# IANA IPv6 address space: only 2000::/3 is handed out as global unicast. That leaves out loopback, unique local, link-local,
# multicast, IPv4-mapped (::ffff:0:0/96), IPv4-compatible (::/96) and NAT64 (64:ff9b::/96, which `is_global` calls global).
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Parts of the global ranges that carry another address inside, or lead to no ordinary host (IANA special-purpose registries).
_NOT_ORDINARY = tuple(
    ip_network(cidr)
    for cidr in (
        "2001::/23",  # IETF protocol assignments, with Teredo 2001::/32 (RFC 4380): carries an IPv4 address
        "2002::/16",  # 6to4 (RFC 3056): carries an IPv4 address
        "3fff::/20",  # documentation (RFC 9637), unknown to Python before 3.13
        "192.88.99.0/24",  # 6to4 relay anycast (RFC 7526)
        "192.0.0.0/24",  # IETF protocol assignments
    )
)

_CONNECT_SECONDS = 10.0
_CHUNK = 65_536


def refuse_reason(address: str) -> str:
    """Why this IP address (text, an IPv6 zone allowed) must not be called, or "" when it is globally routable."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return "is not an IP address"
    if ip.is_loopback:
        return "is this machine itself"
    # `is_global` alone is not enough: it is true of multicast, of NAT64 and of 6to4.
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_link_local:
        return "is not a public address"
    if any(ip in network for network in _NOT_ORDINARY if network.version == ip.version):
        return "is not an ordinary public address"
    if not isinstance(ip, IPv4Address) and ip not in _GLOBAL_UNICAST:
        return "is not a public address"
    return ""


@dataclass(slots=True)
class _Exchange:
    """How far one request has come."""

    connected: bool = False  # a connection stood, TLS included: from here on bytes may have been read over there
    refused: list[str] = field(default_factory=list)  # addresses the guard turned down


# The socket guard is called deep inside the connector, in tasks of its own; they inherit this variable.
_exchange: ContextVar[_Exchange] = ContextVar("exchange")


def _guarded_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for this address. Raises OSError for a refused one, so that the connector tries the name's next address."""
    family, kind, protocol, _, sockaddr = info
    address = str(sockaddr[0])
    if reason := refuse_reason(address):
        _exchange.get().refused.append(f"{address} {reason}")
        raise PermissionError(f"{address} {reason}")
    return socket.socket(family=family, type=kind, proto=protocol)


def _endpoint(entry: str) -> tuple[str, int | None]:
    """`host` or `host:port` of the allow-list, as (host, port or None). Raises ValueError naming the entry."""
    bare_v6 = entry.count(":") > 1 and not entry.startswith("[")
    try:
        url = URL(f"http://[{entry}]/" if bare_v6 else f"http://{entry}/")
        host, port = url.raw_host, url.explicit_port
    except ValueError:
        host, port, url = None, None, URL()
    if not host or url.user or url.raw_path != "/" or url.raw_query_string or url.raw_fragment:
        raise ValueError(f"allowed_hosts: {entry!r} is not a host or host:port; write for example crm.internal:8080")
    return host, port


async def _connected(_session: object, context: SimpleNamespace, _params: object) -> None:
    exchange = context.trace_request_ctx
    assert isinstance(exchange, _Exchange)
    exchange.connected = True


class GuardedHttp:
    """`contract.Http` over aiohttp.

    Two sessions, since the socket guard sees addresses and not names: a strict one, whose sockets go to public
    addresses only and whose URLs are https only; and one without that guard, used for nothing but URLs whose host (or
    host and port) stands in `allowed_hosts` letter by letter. A request never passes from one to the other, because
    redirects are not followed. Neither reads proxy settings, keeps cookies or answers a login challenge.

    Connections are not kept: a kept one may be closed by the other side at the moment of use, and then nobody
    can tell a request that was never read from one that was carried out.
    """

    def __init__(self, allowed_hosts: Iterable[str] = (), *, resolver: AbstractResolver | None = None) -> None:
        self._allowed = frozenset(_endpoint(entry) for entry in allowed_hosts)
        self._resolver = resolver
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._closed = False

    def _session(self, allowed: bool) -> aiohttp.ClientSession:
        if allowed not in self._sessions:
            tracing = aiohttp.TraceConfig()
            tracing.on_connection_create_end.append(_connected)
            tracing.on_connection_reuseconn.append(_connected)
            self._sessions[allowed] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    socket_factory=None if allowed else _guarded_socket,
                    resolver=self._resolver,
                    force_close=True,
                    limit=0,  # none in all: hosts that hang must not fill the pool for the others
                    limit_per_host=20,  # one slow receiver must not take every connection
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                trace_configs=[tracing],
                headers={"User-Agent": "support-hub", "Accept-Encoding": "identity"},
            )
        return self._sessions[allowed]

    def _judge(self, text: str) -> tuple[URL, bool]:
        """The parsed URL and whether its host is allow-listed. Raises NotSent for what is not called at all."""
        # yarl parses here and again in aiohttp, so there is one reading of the URL; what parsers are known to read
        # differently (blanks, control characters, backslashes) is refused beforehand.
        if "\\" in text or any(ord(character) <= 0x20 or ord(character) == 0x7F for character in text):
            raise NotSent("the URL holds a blank, a control character or a backslash; nothing was sent. Correct the URL.")
        try:
            url = URL(text)
            host, port = url.raw_host, url.port
        except ValueError:
            raise NotSent("the URL cannot be read; nothing was sent. Correct the URL.") from None
        if url.scheme not in {"http", "https"} or not host:
            raise NotSent("the URL is not a full https:// address; nothing was sent. Correct the URL.")
        if url.user is not None or url.password is not None:
            raise NotSent(f"the URL for {host} holds a user name or password; nothing was sent. Take it out of the URL.")
        allowed = bool({(host, None), (host, port)} & self._allowed)
        if url.scheme == "http" and not allowed:
            raise NotSent(
                f"the URL for {host} is http, which anyone on the way can read; nothing was sent. "
                f"Use https, or list {host}:{port} in allowed_hosts if it is yours."
            )
        return url, allowed

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: float = 15.0,
        max_bytes: int = 1_000_000,
    ) -> HttpResponse:
        """Send one request; a redirect comes back as the answer it is.

        `timeout` is seconds for the whole exchange, `max_bytes` the longest body taken (after decompression).
        Raises NotSent while no connection stood (DNS, refused or blocked address, TLS), NoAnswer from then on.
        """
        if self._closed:
            raise NotSent("the hub is shutting down; nothing was sent and it will be tried after the restart.")
        target, allowed = self._judge(url)
        where = f"{target.raw_host}:{target.port}"
        exchange = _Exchange()
        token = _exchange.set(exchange)
        try:
            async with self._session(allowed).request(
                method,
                target,
                headers=headers,
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, _CONNECT_SECONDS)),
                trace_request_ctx=exchange,
            ) as response:
                taken = await _read(response, max_bytes, where)
                names: dict[str, list[str]] = {}
                for name, value in response.headers.items():
                    names.setdefault(name.lower(), []).append(value)
                return HttpResponse(response.status, {name: ", ".join(values) for name, values in names.items()}, taken)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            # A ValueError is a header or URL that aiohttp refuses to write, or an answer it cannot decode.
            why = _why(error, exchange, where, timeout)
            if exchange.connected:
                raise NoAnswer(f"{why}. The request may have been carried out.") from error
            raise NotSent(f"{why}. Nothing was sent.") from error
        finally:
            _exchange.reset(token)

    async def close(self) -> None:
        """Close both sessions; later requests raise NotSent."""
        self._closed = True
        sessions, self._sessions = list(self._sessions.values()), {}
        await asyncio.gather(*(session.close() for session in sessions))


async def _read(response: aiohttp.ClientResponse, max_bytes: int, where: str) -> bytes:
    taken = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        taken += chunk
        if len(taken) > max_bytes:
            raise NoAnswer(f"{where} answered {response.status} with more than {max_bytes} bytes, which were not kept.")
    return bytes(taken)


def _why(error: Exception, exchange: _Exchange, where: str, timeout: float) -> str:
    """What went wrong, in plain words and without the URL's path or query, which may hold a secret."""
    if exchange.refused and not exchange.connected:
        return f"{where} was not called: {', '.join(exchange.refused)}. If it is yours, list {where} in allowed_hosts"
    if isinstance(error, TimeoutError):
        return f"{where} did not answer within {timeout:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {where} was not found"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"{where} did not show a certificate that can be trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{where} could not be reached ({error.os_error.strerror or type(error.os_error).__name__})"
    return f"the exchange with {where} broke off ({type(error).__name__})"
