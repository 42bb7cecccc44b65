"""The upload to the Hub: a plan of what would go up, the checks, and one commit."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, ModelCard, set_client_factory
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import _http, validate_repo_id

from distil_nlp.errors import UserError
from distil_nlp.hub.card import CARD_FILE, PLACEHOLDER, render_card
from distil_nlp.hub.exported import exported_files
from distil_nlp.redaction import redact_paths, redact_paths_in_text
from distil_nlp.reporting.formatting import large
from distil_nlp.reporting.tables import own_code
from distil_nlp.reporting.verdicts import verdict_lines, verdicts
from distil_nlp.results import RunResults, read_run
from distil_nlp.utils.files import validate_links

_MODEL = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json", "tokenizer*.json",
    "vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model",
    "modules.json", "*sentence_*.json", "[0-9]_*/config.json", "[0-9]_*/model.safetensors",
)  # fmt: skip
"""The files of a model's folder that go up: weights, configuration, tokenizer, modules of sentence-transformers."""
_REPORT = ("report.md", "*.png")
"""The files of `report/` that go up. The Hub shows Markdown with its pictures, and only offers HTML to download."""

PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further try of the commit."""
PATIENCE = 120.0
"""Seconds without a byte after which a request fails; the client itself would wait for ever."""


@dataclass(frozen=True)
class UploadPlan:
    """A plan of an upload; as text, the files and their sizes.

    Attributes:
        run: the folder of the run.
        repo_id: the repository, with its namespace.
        private: whether the repository is or will be private; None where the account's own default decides.
        files: path in the repository → contents, or the file that has them.
        present: the files that the repository has already; None if it does not exist yet.
        url: the repository's address.
        own_code: files and modules of the user's own that the run imported, with their terms.
        left_out: what of the exported student stays here, and why.
        verdicts: on the run, as the terminal shows them; the last lines, after which a person decides.
        model_id: of a Space, the repository of the model that it runs; None for a model.
    """

    run: Path
    repo_id: str
    private: bool | None
    files: dict[str, Path | bytes]
    present: frozenset[str] | None
    url: str
    own_code: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    verdicts: str = ""
    model_id: str | None = None

    @property
    def repo_type(self) -> str:
        """`model` or `space`."""
        return "model" if self.model_id is None else "space"

    @property
    def command(self) -> str:
        """The command that carries out this plan."""
        if self.model_id is None:
            return push_command(self.run, self.repo_id, bool(self.private))
        return push_command(self.run, self.model_id, bool(self.private), self.repo_id)

    def __str__(self) -> str:
        sizes = {name: _size(content) for name, content in self.files.items()}
        visibility = {True: "private", False: "public", None: "public, unless your organisation's default is private"}
        state = "new" if self.present is None else "exists"
        lines = [f"{self.run} → {self.url} ({state}, {visibility[self.private]})", ""]
        lines += [f"{large(size, 'B'):>10}  {name}" for name, size in sizes.items()]
        lines.append(f"{large(sum(sizes.values()), 'B'):>10}  in {len(sizes)} files")
        if self.left_out:
            lines += ["", *self.left_out]
        if self.own_code:
            lines += ["", f"Trained with code of your own, which is not uploaded: {'; '.join(self.own_code)}."]
        if self.present is not None:
            replaced, others = sorted(self.present & self.files.keys()), sorted(self.present - self.files.keys())
            lines += ["", f"One commit. It replaces: {', '.join(replaced) or 'nothing'}."]
            lines.append(f"There already and left as they are: {', '.join(others) or 'none'}.")
        return "\n".join([*lines, *(["", self.verdicts] if self.verdicts else [])])


def push(run: str | Path, repo_id: str, *, private: bool = False, api: HfApi | None = None) -> str:
    """Upload a finished run's student, its card and its report; return the URL of the commit.

    Files of the same names are replaced by the new commit; others in the repository stay. The run's folder is only
    read, so a run is as finished after a failed upload as before it: whoever calls decides what a failure means.

    Args:
        run: a folder with `results.json` and `student/`.
        repo_id: `name` or `namespace/name`.
        private: make a new repository private; an existing public one is then an error.
        api: the client; by default that of `HF_ENDPOINT` and `HF_TOKEN`, or of `hf auth login`.

    Raises:
        UserError: for everything the user can fix, with the command that finishes the upload.
    """
    return upload(plan_upload(run, repo_id, private=private, api=api), api=api)


def plan_upload(run: str | Path, repo_id: str, *, private: bool = False, api: HfApi | None = None) -> UploadPlan:
    """Return what `upload` would do with run and repository as they are; write nothing.

    Raises:
        UserError: if the run is not finished, a link in it leads elsewhere, the token is missing or invalid, or the
            repository is public and `private` is set.
    """
    api, run = api or HfApi(), Path(run)
    results = _finished_results(run)
    of_run = RunResults(run.name, run, results)
    with _clear_errors(repo_id, _how_to_finish(run, push_command(run, repo_id, private))):
        full, is_private, present = _inspect(repo_id, private, api)
    exported, left_out = exported_files(of_run)
    files, url = {**_files(run, results, full), **exported}, f"{api.endpoint}/{full}"
    own, told = tuple(own_code(of_run)), verdict_lines(verdicts(of_run))
    return UploadPlan(run, full, is_private, files, present, url, own, left_out, told)


def plan_space_upload(
    run: Path, repo_id: str, folder: Path, model_id: str, *, private: bool = False, api: HfApi | None = None
) -> UploadPlan:
    """Return what `upload` would do with a folder that is a static page for a Space; write nothing.

    Args:
        run: the folder of the run whose student the page runs.
        repo_id: the Space, with or without its namespace.
        folder: the page's folder; all of it goes up.
        model_id: the student's repository.
        private: make a new Space private; an existing public one is then an error.
        api: as for `push`.

    Raises:
        UserError: as for `plan_upload`.
    """
    api = api or HfApi()
    with _clear_errors(repo_id, _how_to_finish(run, push_command(run, model_id, private, repo_id))):
        full, is_private, present = _inspect(repo_id, private, api, "space")
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    return UploadPlan(run, full, is_private, files, present, f"{api.endpoint}/spaces/{full}", model_id=model_id)


def push_command(run: Path, repo_id: str, private: bool, space_id: str | None = None) -> str:
    """Return the command that uploads a finished run, and the Space of its demo if that has a name."""
    demo = f" --demo {space_id}" if space_id else ""
    return f"distil-nlp push-to-hub {shlex.quote(str(run))} --repo-id {repo_id}{demo}{' --private' * private}"


def check_repository(repo_id: str, *, private: bool = False, api: HfApi | None = None) -> None:
    """Check before hours of training what would stop the upload after them.

    That is a wrong name, a missing or invalid token, or a public repository where `private` is set. Whether the token
    may write shows only in the upload.

    Raises:
        UserError: as for `plan_upload`.
    """
    with _clear_errors(repo_id, "the run would end without an upload / {}, or set hub.push=false"):
        _inspect(repo_id, private, api or HfApi())


def upload(planned: UploadPlan, *, api: HfApi | None = None) -> str:
    """Carry out a plan; return the URL of the commit.

    Raises:
        UserError: if the Hub or the network fails.
    """
    api = api or HfApi()
    operations = [
        CommitOperationAdd(path, str(content) if isinstance(content, Path) else content)
        for path, content in planned.files.items()
    ]
    kind, what = planned.repo_type, "student" if planned.repo_type == "model" else "demo of a student"
    with _clear_errors(planned.repo_id, _how_to_finish(planned.run, planned.command)):
        if planned.present is None:
            sdk = "static" if kind == "space" else None
            api.create_repo(planned.repo_id, private=planned.private, repo_type=kind, space_sdk=sdk)
        commit = _with_retries(
            api.create_commit,
            planned.repo_id,
            operations,
            commit_message=f"Upload a {what} distilled by distil_nlp",
            repo_type=kind,
        )
    return commit.commit_url


def _with_retries(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
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


def _inspect(
    repo_id: str, private: bool, api: HfApi, repo_type: str = "model"
) -> tuple[str, bool | None, frozenset[str] | None]:
    """Return (repo_id with its namespace, whether private, its files or None if it is new)."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(
            "hub.repo_id",
            "name or namespace/name",
            f"{repo_id!r}: {error}",
            why="there would be no place to upload to",
            fix="such as me/my-distilbert",
        ) from error
    account = api.whoami()
    full = repo_id if "/" in repo_id else f"{account['name']}/{repo_id}"
    try:
        repository: Any = api.repo_info(full, repo_type=repo_type)
    except RepositoryNotFoundError:
        return full, private or None, None
    if private and not repository.private:
        raise UserError(
            "hub.private",
            f"{full} to be private",
            "a public repository",
            why="it would be public",
            fix="make it private in its settings on the Hub, choose another name, or leave private out",
        )
    return full, bool(repository.private), frozenset(file.rfilename for file in repository.siblings or ())


def _finished_results(run: Path) -> dict[str, Any]:
    """Return the results of a run; raise UserError if it is not finished."""
    student = run / "student"
    is_there = {
        "results.json": (run / "results.json").is_file(),
        "student/config.json": (student / "config.json").is_file(),
        "student/model.safetensors": any(student.glob("model*.safetensors")),
    }
    missing = [name for name, there in is_there.items() if not there]
    if missing:
        got = f"no {', '.join(missing)}" if run.is_dir() else "no such folder"
        raise UserError(
            None,
            f"a finished run in {run}",
            got,
            why="there is nothing to publish",
            fix=(
                "give a training.output_dir that holds results.json and student/; the command that began "
                "the run finishes it"
            ),
        )
    validate_links(run)
    return read_run(run)


def _files(run: Path, results: dict[str, Any], repo_id: str) -> dict[str, Path | bytes]:
    """Return what goes up: path in the repository → contents."""
    models = _model_files(run / "student")
    for folder in (one["folder"] for one in results.get("exits") or []):
        models |= {f"{folder}/{name}": path for name, path in _model_files(run / folder).items()}
    report: dict[str, Path | bytes] = {}
    for path in sorted(path for pattern in _REPORT for path in (run / "report").glob(pattern)):
        text = path.suffix == ".md"
        report[f"report/{path.name}"] = (
            redact_paths_in_text(path.read_text(encoding="utf-8")).encode() if text else path
        )
    return {
        CARD_FILE: _card(run, results, repo_id).encode(),
        **models,
        "results.json": (json.dumps(redact_paths(results), indent=2) + "\n").encode(),
        **report,
    }


def _model_files(folder: Path) -> dict[str, Path]:
    """Return the files that go up of a folder that transformers loads, by their paths in it."""
    found = [path for pattern in _MODEL for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _card(run: Path, results: dict[str, Any], repo_id: str) -> str:
    """Return the run's card, with the author's changes to it if there are any, naming the repository."""
    path = run / "student" / CARD_FILE
    text = path.read_text(encoding="utf-8") if path.is_file() else render_card(results, path.parent)
    try:
        card = ModelCard(text)
    except Exception as error:  # whatever the YAML parser and the card's classes raise
        raise UserError(
            None,
            f"a model card with valid YAML in {path}",
            " ".join(str(error).split())[:300],
            why="the Hub would reject it",
            fix="fix it, or delete it to have it written anew",
        ) from error
    data: Any = card.data
    if data.eval_results:
        data.model_name = repo_id.rpartition("/")[2]
    named = str(card).replace(PLACEHOLDER, repo_id)
    has_report = (run / "report" / "report.md").is_file() and "(report/report.md)" not in named
    return named + "\nCurves and matrices of this run: [report](report/report.md).\n" * has_report


def _how_to_finish(run: Path, command: str) -> str:
    """Return what a failed upload means, and the command that finishes it; {} stands for what to fix before."""
    return f"the run in {run} is whole, nothing in it was changed / {{}}, then: {command}"


@contextmanager
def _clear_errors(repo_id: str, after: str) -> Iterator[None]:
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


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
