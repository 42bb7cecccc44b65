"""The client of the Hub: tries again where the Hub is overloaded, never waits for ever, and says what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import set_client_factory
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import _http

from distil_nlp.errors import UserError

PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further try of the commit."""
PATIENCE = 120.0
"""Seconds without a byte after which a request fails; the client itself would wait for ever."""


@contextmanager
def clear_errors(repo_id: str, after: str) -> Iterator[None]:
    """Turn what the client raises into a UserError that says what to do, and limit how long it waits."""
    try:
        with _timeout():
            yield
    except UserError:
        raise
    except Exception as error:  # each transport has exceptions of its own
        got, remedy = _reason(error, repo_id)
        message = f"hub.repo_id: expected to upload to {repo_id} / got {got} / {after.replace('{}', remedy)}"
        raise UserError(message) from error


def with_retries(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what the call returns, tried again where the Hub is overloaded or drops the connection.

    The client itself does so for all but the commit. Files that went up already are not sent twice.
    """
    for seconds in PAUSES:
        try:
            return call(*args, **kwargs)
        except Exception as error:  # each transport has exceptions of its own
            if not _is_temporary(error):
                raise
        time.sleep(seconds)
    return call(*args, **kwargs)


def _is_temporary(error: Exception) -> bool:
    """Return whether the same call may well succeed in a moment."""
    response_error = _response_error(error)
    if response_error is None:
        return type(error).__module__.startswith("httpx")  # no response: a timeout, a dropped connection
    return response_error.response.status_code in (429, 500, 502, 503, 504)


@contextmanager
def _timeout() -> Iterator[None]:
    """Let the client, whoever configured it, wait `PATIENCE` seconds and no longer."""
    configured = _http._GLOBAL_CLIENT_FACTORY

    def client() -> Any:
        http_client = configured()
        http_client.timeout = PATIENCE
        return http_client

    set_client_factory(client)
    try:
        yield
    finally:
        set_client_factory(configured)


def _reason(error: Exception, repo_id: str) -> tuple[str, str]:
    """Return (what went wrong, what to do about it)."""
    known = {
        LocalTokenNotFoundError: ("no token", "run `hf auth login` or set HF_TOKEN"),
        OfflineModeIsEnabled: ("offline mode", "unset HF_HUB_OFFLINE"),
    }
    response_error = _response_error(error)
    if response_error is None:
        unknown = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "check the network"
        return next((reason for kind, reason in known.items() if isinstance(error, kind)), unknown)
    message = " ".join((response_error.server_message or str(response_error)).split())[:300]
    namespace = repo_id.rpartition("/")[0] or "your account"
    remedies = {
        401: "the token was rejected: make a new one at https://huggingface.co/settings/tokens and `hf auth login`",
        403: f"take a token that may write, and a namespace that is yours: {namespace} is not, or not for this token",
        404: f"take a token that may write to {repo_id}",
        429: "wait: the Hub had too many requests",
    }
    status = response_error.response.status_code
    fallback = "try again later" if status >= 500 else "fix what the Hub names"
    return f"HTTP {status}: {message}", remedies.get(status, fallback)


def _response_error(error: BaseException | None) -> HfHubHTTPError | None:
    """Return the error that has the Hub's response; uploads in threads wrap it."""
    while error is not None and not isinstance(error, HfHubHTTPError):
        error = error.__cause__
    return error
