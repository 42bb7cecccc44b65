"""Training schemes two by two: each pair runs, or is refused in words before anything is trained."""

from itertools import combinations

import pytest

from distil_nlp.pipeline import publication
from distil_nlp.pipeline.schemes import SCHEMES
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

OVERRIDES = {
    "teacher.ensemble": ["teacher.ensemble=[FOLDER/teacher]", "teacher.mix=probabilities"],
    "teacher.assistants": ["teacher.assistants=[{num_layers: 3}]"],
    "teacher.guided": ["teacher.assistants=[{num_layers: 3}]", "teacher.guided=dense", "teacher.drop=0.5"],
    "teacher.self": ["teacher.self=ema"],
    "teacher.self=last_epoch": ["teacher.self=last_epoch"],
    "teacher.self=pretrained": ["teacher.self=pretrained"],
    "teacher.checkpoints": ["teacher.checkpoints=[0.5,1.0]", "teacher.finetune.max_steps=2"],
    "student.exits": ["student.exits=[1]"],
    "student.peers": ["student.peers=2"],
    "student.branches": ["student.branches=2"],
    "student.replacing": ["student.replacing={}"],
    "student.augment": ["student.augment.until=1", "student.augment.ffn=[2]"],
    "student.sparsity": ["student.sparsity={share: 0.5, by: movement, start: 0, end: 1}"],
    "student.quantization": ["student.quantization={start: 0}"],
    "student.ema": ["student.ema=0.9"],
    "student.generations": ["student.generations=2"],
    "objective.r_drop": ["objective.r_drop.weight=1"],
    "teacher.cache": ["teacher.cache={}"],
    "teacher.columns": ["teacher.columns={label: label}", "teacher.finetune=null"],
}
TERMS = ["objective.attention_kl.weight=0", "objective.hidden_cosine.weight=0"]


def test_every_scheme_is_tried():
    """Prevents a new scheme that nobody combines with the others."""
    several_tasks = {"multitask.tasks"}  # refuses all others: tests/pipeline/test_multitask.py
    assert {scheme.place for scheme in SCHEMES} <= OVERRIDES.keys() | several_tasks


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("pairs")).prepare()
    place.teacher(tiny.classifier(4, hidden_dropout_prob=0.1))
    return place


@pytest.mark.integration
@pytest.mark.parametrize(("one", "other"), list(combinations(OVERRIDES, 2)))
def test_a_pair_runs_or_is_refused(place, monkeypatch, capsys, one, other):
    """Prevents schemes that silently undo each other's work, and a traceback in place of a message."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    overrides = [text.replace("FOLDER", str(place.folder)) for text in (*OVERRIDES[one], *OVERRIDES[other])]
    code = place.run(*TERMS, *overrides, "training.max_steps=2", "run.overwrite=true")
    if code == 0:
        used = {scheme["key"] for scheme in place.results["schemes"]["used"]}
        assert {name.split("=")[0] for name in (one, other)} - {"teacher.guided", "teacher.cache"} <= used
        return
    assert code == 2
    message = one_line(capsys.readouterr().err)
    assert any(name.split("=")[0] in message or name.split(".")[1] in message for name in (one, other)), message
