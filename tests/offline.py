"""Runs `ldm` with every door to the network shut: python tests/offline.py generate "a red apple" -o apple.png"""

import socket


def shut(*args, **kwargs):
    raise AssertionError(f"a socket was opened: {args}")


def block() -> None:
    """From here on, any connection and any name look-up fails loudly."""
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, shut)
    socket.getaddrinfo = socket.gethostbyname = socket.create_connection = shut  # type: ignore[assignment]


if __name__ == "__main__":
    block()
    from ldm.cli import main

    main()
