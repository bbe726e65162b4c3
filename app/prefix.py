"""A service behind a proxy that gives it a part of an address space: `/pl/workspace/7/container/v1/…`.

Proxies differ: some take the prefix away before they ask, some do not. Both are understood: a path that begins with the prefix loses it, any
other is taken as it is. What answers say about addresses (`Location`) has it again.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Prefix:
    """An ASGI layer around the whole app.

    Parameters
    ----------
    app : ASGIApp
        What is inside.
    root : str
        The prefix: begins with a slash, ends with none.
    """

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app, self.root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if path == self.root or path.startswith(self.root + "/"):
            rest = path[len(self.root) :] or "/"
            scope = {**scope, "path": rest, "raw_path": rest.encode()}

        async def send_prefixed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [self._prefixed(name, value) for name, value in message["headers"]]
            await send(message)

        await self.app(scope, receive, send_prefixed)

    def _prefixed(self, name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name.lower() == b"location" and value.startswith(b"/"):
            return name, self.root.encode() + value
        return name, value
