"""Memory that a build has done with."""

from __future__ import annotations

import ctypes
import gc


def release() -> None:
    """Give the system back what nothing uses any more: an engine's builder, often a process of its own, may want as much.

    An exported network is a knot of references, and glibc keeps what was freed between what is still used, which of a network's
    weights is nearly all. Other C libraries have nothing to ask.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
