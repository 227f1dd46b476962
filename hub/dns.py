"""The DNS, as far as the hub asks it: the TXT records of a name.

Answers are taken as the resolver gives them. Nobody here validates DNSSEC; a resolver that does answers SERVFAIL to what was forged.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.resolver

from hub.contract import TryLater

SECONDS = 10.0  # for one name, all servers and tries together
ONE_TRY = 3.0
CACHED = 1_000  # answers kept for as long as they say they are good


class Resolver:
    """TXT records by the system's name servers (`/etc/resolv.conf`), or by those named as `address` or `address:port`."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._nameservers = tuple(nameservers)
        self._resolver: dns.asyncresolver.Resolver | None = None

    def _configured(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._nameservers)
            if self._nameservers:
                resolver.nameservers = [dns.nameserver.Do53Nameserver(*host_and_port(one)) for one in self._nameservers]
            resolver.timeout, resolver.lifetime = ONE_TRY, SECONDS
            resolver.cache = dns.resolver.LRUCache(CACHED)
            self._resolver = resolver
        return self._resolver

    async def txt(self, name: str) -> Sequence[bytes]:
        """The TXT records of a name, the strings of each joined without anything between them (RFC 6376 section 3.6.2.2); none where
        there are none. Raises TryLater where no server could say."""
        try:
            answer = await self._configured().resolve(f"{name.rstrip('.')}.", "TXT", search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.YXDOMAIN):
            return []
        except (dns.resolver.NoResolverConfiguration, dns.exception.DNSException, OSError) as error:
            if isinstance(error, dns.name.LabelTooLong | dns.name.EmptyLabel | dns.name.NameTooLong | dns.name.BadEscape):
                return []  # no such name can be in the DNS
            raise TryLater(f"The DNS could not be asked for {name} ({type(error).__name__}).") from error
        return [b"".join(record.strings) for record in answer]


def host_and_port(server: str) -> tuple[str, int]:
    """`127.0.0.1`, `127.0.0.1:5353`, `::1` or `[::1]:5353`. Raises ValueError."""
    host, port = server, "53"
    if server.startswith("["):
        host, _, rest = server[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif server.count(":") == 1:
        host, _, port = server.partition(":")
    try:
        if port.isdecimal() and 0 < int(port) < 65_536:
            return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        pass
    raise ValueError(f"{server!r} is not the address of a name server; write 192.0.2.1 or 192.0.2.1:53")
