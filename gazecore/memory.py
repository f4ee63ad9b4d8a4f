"""Memory that runs out, and what glibc's allocator keeps after large images, given back (other C
libraries are left alone)."""

import contextlib
import ctypes

_M_ARENA_MAX = -8
"""The parameter of `mallopt` for how many arenas threads share."""

_RAN_OUT = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def ran_out(error: Exception) -> bool:
    """Whether an error says that memory, or a GPU's, did not suffice.

    torch says it by a RuntimeError; of CPUs, pinned memory and cuBLAS in its text alone.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _RAN_OUT)
    )


def share_arenas() -> None:
    """Keep each thread from holding on to what it has freed, which can be hundreds of megabytes."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def give_back() -> None:
    """Return freed memory to the system; a few milliseconds."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
