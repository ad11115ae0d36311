"""Where a webhook may go: to public addresses, however another one is written."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farebox.notices.address import URL_LENGTH_MAX, UrlFault, check_url, host_of, is_public

REFUSED = {
    "this network": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.0.3", "::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::"],
    "link-local, with the metadata of clouds": ["169.254.169.254", "fe80::1", "fe80::1%eth0"],
    "shared by carriers": ["100.64.0.1", "100.100.100.200"],
    "reserved": ["192.0.0.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "fec0::1", "4000::1"],
    "documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "IPv4 in IPv6": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1"],
    "IPv4 behind a gateway": [
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a00:1::",
    ],
}
PUBLIC = ["1.1.1.1", "93.184.216.34", "172.32.0.1", "2606:4700::1111", "2001:4860:4860::8888"]
# Through a gateway of the network, so that one with IPv6 only reaches receivers with IPv4 only.
PUBLIC += ["64:ff9b::101:101", "::ffff:1.1.1.1", "2002:101:101::1"]


@pytest.mark.parametrize("text", [one for texts in REFUSED.values() for one in texts])
def test_an_address_of_a_network_of_ones_own_is_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert is_public(ip_address(text))


PRIVATE_RANGES = [
    IPv4Network(text)
    for text in ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
]


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_in_every_dress(address: IPv4Address) -> None:
    mapped = IPv6Address(0xFFFF << 32 | int(address))
    gateway = IPv6Address(int(IPv6Address("64:ff9b::")) | int(address))
    tunnel = IPv6Address(0x2002 << 112 | int(address) << 80)
    assert [is_public(address)] * 3 == [is_public(one) for one in (mapped, gateway, tunnel)]
    if any(address in network for network in PRIVATE_RANGES):
        assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/farebox?a=b&c=%20",
        "HTTPS://Hooks.Example.COM:8443/",
        "https://xn--bcher-kva.example/",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]:443/",
        "https://under_score.example./x",
    ],
)
def test_urls_that_may_be_called(url: str) -> None:
    assert check_url(url, private_addresses=False) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "//hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user@hooks.example.com/",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com/#fragment",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:0/",
        "https://hooks.example.com:/",
        "https://hooks.example.com:port/",
        "https://hooks.example.com\\@10.0.0.1/",
        "https://hooks example.com/",
        "https://hooks.example.com/a\nb",
        "https://bücher.example/",
        "https://[::1/",
        "https://[not-an-address]/",
        "https://[fe80::1%25eth0]/",
        "https://exa%6Dple.com/",
        "https://-.example/",
        f"https://hooks.example.com/{'x' * URL_LENGTH_MAX}",
        f"https://{'a' * 254}/",
    ],
)
def test_urls_that_are_none(url: str) -> None:
    for private in (False, True):
        assert UrlFault.INVALID is check_url(url, private_addresses=private)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "db.localhost", "10.0.0.1", "[::1]"])
def test_a_private_host_is_refused_at_the_door(host: str) -> None:
    assert UrlFault.PRIVATE is check_url(f"https://{host}/", private_addresses=False)
    assert check_url(f"https://{host}/", private_addresses=True) is None


def test_plain_http_is_for_ones_own_network_only() -> None:
    assert UrlFault.NOT_HTTPS is check_url("http://hooks.example.com/", private_addresses=False)
    assert UrlFault.NOT_HTTPS is check_url("http://10.0.0.1/", private_addresses=False)
    assert check_url("http://hooks.example.com/", private_addresses=True) is None


@given(st.text(max_size=60) | st.from_regex(r"https?://[\x20-\x7e]{0,40}"))
def test_any_text_is_judged_and_a_sound_url_has_a_plain_host(text: str) -> None:
    fault = check_url(text, private_addresses=True)
    if fault is None:
        host = host_of(text)
        assert host
        assert not set(host) & set(" /\\@#?%\"'<>")
