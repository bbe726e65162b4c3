"""A client's connection, as uvicorn has it, but for what it leaves behind."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpConnection(HttpToolsProtocol):
    """It lets go of its parser when it becomes a websocket, as it does when it is closed.

    A connection and its parser know each other: left together they, the socket and what else hangs on them would stay until Python next looks
    for circles, and it looks long where a thousand websockets have been closed.
    """

    def handle_websocket_upgrade(self) -> None:
        """The websocket takes over."""
        super().handle_websocket_upgrade()
        self.parser = None  # type: ignore[assignment]
