"""Time and memory that one file may take."""

import ctypes
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 20  # of the processor: on a busy machine no time of a clock tells a hang
MIB = 1536  # beyond what the process has when it begins


class Hang(BaseException):
    """Longer than SECONDS; no Exception, so that no reader takes it for one of its own."""


@contextmanager
def limited(seconds: float = SECONDS, mib: int = MIB) -> Iterator[None]:
    """Within it, more time raises Hang, and more memory fails to be had. For the main thread."""

    def stop(*_: object) -> None:
        raise Hang(f"longer than {seconds} s")

    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (_pages("size") + (mib << 20), hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
        signal.signal(signal.SIGPROF, handler)


def resident_mib() -> float:
    """Memory of this process that is in use: what was freed goes back first, where the allocator can be told so."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    return round(_pages("resident") / 2**20, 1)


def _pages(which: str) -> int:
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[("size", "resident").index(which)]) * resource.getpagesize()
