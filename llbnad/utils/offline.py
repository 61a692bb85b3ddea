"""No silent downloads: inside `no_downloads`, whatever looks a host up fails at once and names the remedy.

Libraries retry for a minute, each in its own way, before they say that there is no network. All of them look a name up
first, so that is where they are stopped; other threads of the process are left alone.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from llbnad.errors import OfflineError


def no_downloads(what: str, remedy: str, allowed: bool = False) -> AbstractContextManager[None]:
    """Refuse downloads by the block, unless `allowed`; the `OfflineError` says that `what` wanted one."""
    return nullcontext() if allowed else _refused(what, remedy)


@contextmanager
def _refused(what: str, remedy: str) -> Iterator[None]:
    def refusal(host: Any) -> OfflineError:
        return OfflineError(f"{what} wants to download its weights from {host}: {remedy}")

    wanted = []
    resolve, thread = socket.getaddrinfo, threading.get_ident()

    def refuse(host: Any, *arguments: Any, **keywords: Any) -> Any:
        if threading.get_ident() != thread:
            return resolve(host, *arguments, **keywords)
        wanted.append(host)
        raise refusal(host)

    socket.getaddrinfo = refuse
    try:
        yield
    except Exception:  # any: libraries wrap the refusal in errors of their own
        if wanted:  # a library may have wrapped it, or gone on without its weights and failed later
            raise refusal(wanted[0]) from None
        raise
    finally:
        socket.getaddrinfo = resolve
    if wanted:  # swallowed: the model would be without its weights
        raise refusal(wanted[0])
