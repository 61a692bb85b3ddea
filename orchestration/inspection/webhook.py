"""The webhook: each row is told to a receiver, at least once, in messages that it can check and tell apart.

A message waits in the ledger until the receiver answers with 2xx, however often either side is restarted. Body: the row
as JSON. Headers: `X-LLBNAD-Id` is the row's id, by which a receiver drops repeats; `X-LLBNAD-Timestamp` is the time of
this attempt in seconds since the epoch; `X-LLBNAD-Signature` is `sha256=` and the hex HMAC-SHA256, with the secret as
key, of the timestamp, a full stop and the body.
"""

import hashlib
import hmac
import os
import sqlite3
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llbnad.errors import ConfigError
from orchestration.inspection.ledger import Ledger

SECRET = "LLBNAD_WEBHOOK_SECRET"  # environment variable
SHORTEST_SECRET = 16  # characters
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 0.5
MOST_SECONDS = 300.0  # longest pause between two attempts


@dataclass(frozen=True)
class Webhook:
    """Where messages go, and what signs them."""

    url: str
    secret: str

    def signature(self, timestamp: str, body: str) -> str:
        """Return the signature of a body sent at `timestamp`."""
        signed = hmac.new(self.secret.encode(), f"{timestamp}.{body}".encode(), hashlib.sha256)
        return f"sha256={signed.hexdigest()}"

    def post(self, image: str, body: str) -> str | None:
        """Send a message. Return None if the receiver took it, or else why not."""
        import requests

        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-LLBNAD-Id": image,
            "X-LLBNAD-Timestamp": timestamp,
            "X-LLBNAD-Signature": self.signature(timestamp, body),
        }
        try:
            # a redirect is no receipt, and may lead elsewhere
            sent = requests.post(
                self.url, data=body.encode(), headers=headers, timeout=ANSWER_SECONDS, allow_redirects=False
            )
        except requests.RequestException as error:
            return type(error).__name__  # its text may hold the address, and so a password
        return None if 200 <= sent.status_code < 300 else f"HTTP {sent.status_code}"


def webhook_of(url: str) -> Webhook:
    """Return the webhook at an address, with the secret of the environment.

    Raises:
        ConfigError: the address is not http(s), or the secret is missing or short.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"the webhook is {url!r}; expected an address such as https://receiver.example/inspected")
    secret = os.environ.get(SECRET, "")
    if len(secret) < SHORTEST_SECRET:
        raise ConfigError(
            f"{SECRET} has {len(secret)} characters; expected at least {SHORTEST_SECRET}: set it to a secret that the "
            "receiver knows too"
        )
    return Webhook(url, secret)


def deliver(ledger: Ledger, webhook: Webhook) -> bool:
    """Send the messages that are due, oldest first. Return whether all of them were taken.

    A message that is refused is tried again later: after 1, 2, 4 … seconds, at most 300. The first failure ends the
    round if the receiver does not answer at all; a message that it refuses keeps no other back.
    """
    taken = True
    for message in ledger.messages(time.time()):
        reason = webhook.post(message.id, message.body)
        if reason is None:
            ledger.delivered(message.id)
            continue
        if message.attempts == 0 and taken:
            print(f"webhook: {message.id} was not taken ({reason}); it waits", file=sys.stderr, flush=True)
        taken = False
        ledger.postpone(message.id, time.time() + min(MOST_SECONDS, 2.0 ** min(message.attempts, 30)))
        if not reason.startswith("HTTP"):
            break
    return taken


def deliver_all(ledger: Ledger, webhook: Webhook) -> bool:
    """Send what is due until nothing is, or a message was not taken. Return whether all were."""
    while ledger.messages(time.time()):
        if not deliver(ledger, webhook):
            return False
    return True


def deliver_until(folder: Path, webhook: Webhook, stop: threading.Event) -> threading.Thread:
    """Deliver the messages of a ledger, in a thread that is returned, until `stop` is set."""

    def work() -> None:
        with closing(Ledger(folder)) as ledger:
            while not stop.wait(LOOK_SECONDS):
                try:
                    deliver_all(ledger, webhook)
                except (OSError, sqlite3.OperationalError) as error:  # a full disk; what was sent comes once more
                    print(f"webhook: trying again: {error}", file=sys.stderr, flush=True)
                    stop.wait(MOST_SECONDS / 60)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
