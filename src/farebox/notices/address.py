"""Where a webhook may be sent: its URL as written, and the address that its name leads to.

Organizations that share an installation name URLs, and its network trusts the machine that calls
them. So nothing but public addresses is called: no private, loopback or link-local one, whatever
form it is written in.
"""

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

URL_LENGTH_MAX = 2000
_ALLOWED = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")


class UrlFault(StrEnum):
    """What is wrong with a URL, in order of precedence."""

    INVALID = "url_invalid"
    NOT_HTTPS = "url_not_https"
    PRIVATE = "url_private"


def check_url(url: str, *, private_addresses: bool) -> UrlFault | None:
    """Return what is wrong with an endpoint's URL, or none.

    private_addresses: plain HTTP and addresses that are not public may be called, too. A name is
    looked up when it is called, not here.
    """
    host = host_of(url)
    if host is None:
        return UrlFault.INVALID
    if private_addresses:
        return None
    if not url.lower().startswith("https:"):
        return UrlFault.NOT_HTTPS
    return UrlFault.PRIVATE if _is_private_name(host) else None


def host_of(url: str) -> str | None:
    """Return the host of an absolute HTTP URL in ASCII, without user and fragment; else none."""
    if len(url) > URL_LENGTH_MAX or _ALLOWED.fullmatch(url) is None or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or port == 0 or parts.fragment:
        return None
    if "@" in parts.netloc or parts.netloc.endswith(":"):
        return None
    if parts.netloc.startswith("["):
        return host if _address(host) is not None and "%" not in host else None
    return host if _HOST.fullmatch(host) else None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public Internet; of IPv4 in IPv6, the one that is meant."""
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    return address in _UNICAST and address.is_global


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that a gateway or the system would call for this one."""
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]


def _is_private_name(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and not is_public(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
