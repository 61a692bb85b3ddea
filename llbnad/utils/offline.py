"""A guard against silent downloads: inside `no_downloads`, a look-up of a host fails at once and names the remedy.

Without network, libraries retry for a minute, each in its own way. All of them look up a host name first, so the
look-up is where they are stopped. Other threads of the process are not affected. Two threads must not use the guard at
the same time, because it replaces `socket.getaddrinfo` for the whole process.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from llbnad.errors import OfflineError


def no_downloads(what: str, remedy: str, allowed: bool = False) -> AbstractContextManager[None]:
    """Return a context manager that refuses downloads inside its block, unless `allowed`.

    Args:
        what: name of the thing that may want a download, for the error message.
        remedy: advice, for the error message.
        allowed: do not refuse anything.

    Raises:
        OfflineError: the block tried to look up a host, even if the library caught that error.
    """
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
    except Exception:  # a library may wrap the refusal in any error, or go on without weights and fail later
        if wanted:
            raise refusal(wanted[0]) from None
        raise
    finally:
        socket.getaddrinfo = resolve
    if wanted:  # a library swallowed the refusal, so the model has no weights
        raise refusal(wanted[0])
