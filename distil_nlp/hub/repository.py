"""The upload to the Hub: a plan of what would go up, and one commit."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from distil_nlp.errors import UserError
from distil_nlp.hub.client import clear_errors, with_retries
from distil_nlp.hub.exported import exported_files
from distil_nlp.hub.run_files import files_of_run, finished_results
from distil_nlp.reporting.formatting import large
from distil_nlp.reporting.tables import own_code
from distil_nlp.reporting.verdicts import verdict_lines, verdicts
from distil_nlp.results import RunResults


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
    results = finished_results(run)
    of_run = RunResults(run.name, run, results)
    with clear_errors(repo_id, _how_to_finish(run, push_command(run, repo_id, private))):
        full, is_private, present = _inspect(repo_id, private, api)
    exported, left_out = exported_files(of_run)
    files, url = {**files_of_run(run, results, full), **exported}, f"{api.endpoint}/{full}"
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
    with clear_errors(repo_id, _how_to_finish(run, push_command(run, model_id, private, repo_id))):
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
    with clear_errors(repo_id, "the run would end without an upload / {}, or set hub.push=false"):
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
    with clear_errors(planned.repo_id, _how_to_finish(planned.run, planned.command)):
        if planned.present is None:
            sdk = "static" if kind == "space" else None
            api.create_repo(planned.repo_id, private=planned.private, repo_type=kind, space_sdk=sdk)
        commit = with_retries(
            api.create_commit,
            planned.repo_id,
            operations,
            commit_message=f"Upload a {what} distilled by distil_nlp",
            repo_type=kind,
        )
    return commit.commit_url


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


def _how_to_finish(run: Path, command: str) -> str:
    """Return what a failed upload means, and the command that finishes it; {} stands for what to fix before."""
    return f"the run in {run} is whole, nothing in it was changed / {{}}, then: {command}"


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
