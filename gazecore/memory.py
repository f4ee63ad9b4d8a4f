"""What glibc's allocator keeps after large images, given back; other C libraries are left alone."""

import contextlib
import ctypes

_M_ARENA_MAX = -8
"""The parameter of `mallopt` for how many arenas threads share."""


def share_arenas() -> None:
    """Keep each thread from holding on to what it has freed, which can be hundreds of megabytes."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return freed memory to the system; a few milliseconds."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
