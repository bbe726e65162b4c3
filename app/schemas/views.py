"""The kernel's views as JSON: plain values, with every address in hexadecimal."""

from typing import Any, Final

_ADDRESS_KEYS: Final = frozenset({"address", "start", "end"})
_ADDRESS_TAILS: Final = ("_address", "_start", "_end")


def is_address(key: str) -> bool:
    """True for a key whose integer is an address."""
    return key in _ADDRESS_KEYS or key.endswith(_ADDRESS_TAILS)


def render_view(value: Any) -> Any:
    """A copy of a view with its addresses as hexadecimal strings."""
    if isinstance(value, dict):
        return {str(key): _render_member(str(key), item) for key, item in value.items()}
    return [render_view(item) for item in value] if isinstance(value, list | tuple) else value


def _render_member(key: str, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and is_address(key):
        return f"{value:#x}"
    return render_view(value)
