"""The webhook: signed, kept while the receiver is down, told apart by id."""

import hashlib
import hmac
import json
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llbnad.errors import ConfigError
from orchestration.inspection.ledger import Ledger, LedgerRow
from orchestration.inspection.webhook import SECRET, Webhook, deliver, deliver_all, webhook_of
from orchestration.line.inbox import FileMark

KEY = "a secret of some length"


@pytest.fixture
def receiver():
    """A server that answers with what `answers` holds, then 200, and keeps what it was told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            server.told.append((dict(self.headers), body))
            code = server.answers.pop(0) if server.answers else 200
            self.send_response(code)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.told, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ledger(tmp_path):
    with closing(Ledger(tmp_path)) as opened:
        for number in range(3):
            row = LedgerRow(
                f"id{number}", "2026-01-01T00:00:00+00:00", f"{number}.png", "00", "m", 1.5, 1.0, "defect", "", ""
            )
            opened.add(row, row.path, FileMark(number, 1, 1), message=True)
        yield opened


def make_due(ledger):
    ledger.connection.execute("UPDATE outbox SET due = 0")


def test_messages_are_signed_and_go_once(ledger, receiver):
    webhook = Webhook(f"http://127.0.0.1:{receiver.server_port}/x", KEY)
    assert deliver(ledger, webhook) and deliver(ledger, webhook) and ledger.undelivered() == 0
    assert [json.loads(body)["path"] for _, body in receiver.told] == ["0.png", "1.png", "2.png"]
    for headers, body in receiver.told:
        signed = f"{headers['X-LLBNAD-Timestamp']}.{body}".encode()
        expected = hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
        assert headers["X-LLBNAD-Signature"] == f"sha256={expected}"
        assert headers["X-LLBNAD-Id"] == json.loads(body)["id"]


def test_a_refused_message_waits_and_keeps_no_other_back(ledger, receiver):
    webhook = Webhook(f"http://127.0.0.1:{receiver.server_port}/x", KEY)
    receiver.answers = [500, 302]
    assert not deliver(ledger, webhook)
    assert ledger.undelivered() == 2 and len(receiver.told) == 3  # the redirect was not followed
    assert deliver(ledger, webhook) and len(receiver.told) == 3  # none is due
    make_due(ledger)
    receiver.answers = [500]
    assert not deliver_all(ledger, webhook) and deliver_all(ledger, webhook)  # the second time none is due
    make_due(ledger)
    (left,) = ledger.messages(1e12)
    assert (left.id, left.attempts) == ("id0", 2)
    assert deliver(ledger, webhook) and ledger.undelivered() == 0


def test_messages_wait_on_disk_while_the_receiver_is_down(ledger, receiver, tmp_path, capsys):
    port = receiver.server_port
    receiver.shutdown()
    receiver.server_close()
    assert not deliver(ledger, Webhook(f"http://user:hidden@127.0.0.1:{port}/x", KEY))
    assert "hidden" not in capsys.readouterr().err
    with closing(Ledger(tmp_path)) as again:
        assert again.undelivered() == 3
        assert [message.attempts for message in again.messages(1e12)] == [1, 0, 0]


@pytest.mark.parametrize(
    ("url", "secret", "said"),
    [("ftp://there", KEY, "expected an address"), ("http://", KEY, "expected an address"),
     ("http://there", "short", "has 5 characters"), ("http://there", None, "has 0 characters")],
)  # fmt: skip
def test_a_webhook_without_address_or_secret_is_refused(monkeypatch, url, secret, said):
    monkeypatch.delenv(SECRET, raising=False)
    if secret is not None:
        monkeypatch.setenv(SECRET, secret)
    with pytest.raises(ConfigError, match=said):
        webhook_of(url)
