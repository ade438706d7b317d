"""Whether the ports are free, asked before anything starts."""

from __future__ import annotations

import socket

from launcher.errors import LauncherError, PortTakenError


def check_port_free(host: str, port: int, variable: str) -> None:
    """Bind the port once.

    Args:
        host: Address to bind.
        port: TCP port.
        variable: The setting to name when the port is taken.

    Raises:
        PortTakenError: Another process listens there.
        LauncherError: The address is not one of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise LauncherError(f"{host} is no address: set HOST to one of this machine's") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            raise PortTakenError(host, port, variable) from error
