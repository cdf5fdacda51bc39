"""Where the service is called, opened before anything that takes seconds: who calls meanwhile waits in line and is not refused.

WeChat asks three times at most. A service that is started again would else be away for all three.
"""
from __future__ import annotations

import socket

BACKLOG = 1024  # what waitress asks for; the system may allow fewer


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Bound and listening, one for each address of the host. Raises OSError, as when another process has the port."""
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = dict.fromkeys((family, address[:2]) for family, _, _, _, address in found)
    return [socket.create_server(address, family=family, backlog=BACKLOG) for family, address in addresses]
