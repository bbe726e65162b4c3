"""Memory policies by number (include/uapi/linux/mempolicy.h)."""

from __future__ import annotations

MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED_MANY = range(6)
MODES = {
    "default": MPOL_DEFAULT, "preferred": MPOL_PREFERRED, "bind": MPOL_BIND, "interleave": MPOL_INTERLEAVE,
    "local": MPOL_LOCAL, "preferred_many": MPOL_PREFERRED_MANY,
}  # fmt: skip
