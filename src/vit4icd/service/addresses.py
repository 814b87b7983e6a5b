"""Which addresses belong to the public internet, and not to this machine; it connects to none."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

__all__ = ["Address", "is_elsewhere", "is_own", "is_public"]

Address = IPv4Address | IPv6Address

_KEPT_4 = tuple(map(ip_network, (
    "0.0.0.0/8",  # this network
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16",  # private
    "100.64.0.0/10",  # carrier-grade NAT, and metadata of one cloud
    "127.0.0.0/8",
    "168.63.129.16/32",  # what one cloud tells its machines
    "169.254.0.0/16",  # link-local, and metadata of most clouds
    "192.0.0.0/24", "192.88.99.0/24",  # protocols, relays
    "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",  # documentation
    "198.18.0.0/15",  # benchmarks
    "224.0.0.0/4", "240.0.0.0/4",  # multicast, reserved, broadcast
)))  # fmt: skip
_UNICAST_6 = ip_network("2000::/3")  # mapped addresses and NAT64 lie outside
_KEPT_6 = tuple(map(ip_network, (
    "2001::/23",  # protocols, Teredo
    "2001:db8::/32", "3fff::/20",  # documentation
    "2002::/16",  # 6to4
)))  # fmt: skip


def is_elsewhere(address: Address) -> bool:
    """Return whether an address is public, and another machine's."""
    return is_public(address) and not is_own(address)


def is_public(address: Address) -> bool:
    """Return whether everybody on the internet reaches the same machine by an address.

    Addresses that carry another one within (IPv4-mapped, 6to4, NAT64, Teredo) are not public,
    whatever they carry. The list is our own, for that of ``ipaddress`` differs from one release
    of Python to the next; an address has to pass both.

    Example:
        >>> is_public(IPv4Address("8.8.8.8")), is_public(IPv6Address("::ffff:8.8.8.8"))
        (True, False)
    """
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _KEPT_4)
    return address in _UNICAST_6 and not any(address in network for network in _KEPT_6)


def is_own(address: Address) -> bool:
    """Return whether an address is this machine's; nothing is sent to find out.

    Example:
        >>> is_own(IPv4Address("127.0.0.1")), is_own(IPv4Address("192.0.2.1"))
        (True, False)
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # looks up the way there, no more
            return bool(probe.getsockname()[0] == str(address))
    except OSError:  # there is no way there
        return False
