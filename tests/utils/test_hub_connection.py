"""A run without a network uses what is cached, and says so after one request."""

import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import datasets
import pytest
from huggingface_hub import constants

from distil_nlp.errors import UserError
from distil_nlp.models import load_config
from distil_nlp.utils.hub_connection import use_cache_without_network


@pytest.fixture
def online(monkeypatch):
    """The libraries of the Hub without offline mode, and a cheap way to a Hub of one's own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    return lambda port: monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


@pytest.fixture
def refused():
    """A port of this machine that nobody listens on."""
    with socket.socket() as taken:  # bound, and so given to nobody else, but not listening
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def hub():
    """A server that answers every request with 404."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, asked
    server.shutdown()
    server.server_close()


def test_without_a_network_the_cache_is_used(online, refused, capsys, tmp_path):
    """Prevents a minute of retries, with a line each, before a model that is not cached is said to be missing."""
    online(refused)
    use_cache_without_network([str(tmp_path), "somebody/model"])
    assert constants.is_offline_mode()
    assert datasets.config.HF_HUB_OFFLINE
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    printed = capsys.readouterr().out
    assert printed.startswith(f"http://127.0.0.1:{refused} cannot be reached (")
    assert printed.endswith("): using what is cached\n")
    with pytest.raises(UserError, match=r"expected a config\.json at 'somebody/model'"):
        load_config("somebody/model")
    assert "Retrying" not in capsys.readouterr().err


def test_any_answer_is_a_network(online, hub, capsys):
    """Prevents a Hub that is taken for unreachable because it has another front page."""
    port, asked = hub
    online(port)
    use_cache_without_network(["somebody/model"])
    assert len(asked) == 1
    assert not constants.is_offline_mode()
    assert capsys.readouterr().out == ""


def test_what_is_here_needs_no_network(online, hub, tmp_path, monkeypatch):
    """Prevents a request for a run whose model and data are local, or that is offline by request."""
    port, asked = hub
    online(port)
    use_cache_without_network([str(tmp_path)])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    use_cache_without_network(["somebody/model"])
    assert asked == []
