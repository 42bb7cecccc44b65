"""Several trainers on one teacher, or on one student: each computes what it computes alone, and none leaves a trace."""

import gc
import threading
from itertools import combinations

import pytest
import torch

from distil_nlp.data import MaskingCollator
from distil_nlp.data.augmentation.mixup import Mixup
from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import predict
from distil_nlp.losses.attention_maps import AttentionKL, AttentionMSE
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models.trial import trial_batch, undisturbed
from distil_nlp.signals.probe import own_states
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.frozen import FrozenTeacher
from tests.helpers import tiny
from tests.helpers.training import curve, task_rows, text_rows, trainer

pytestmark = pytest.mark.integration

OBJECTIVES = {
    "all tokens": lambda: [SoftTargetKL(5.0, 2.0, "all"), HiddenCosine(1.0)],
    "attention": lambda: [SoftTargetKL(5.0, 2.0), AttentionKL(3.0)],
    "hidden": lambda: [HiddenMSE(1.0), HardLabel(1.0)],
    "labels": lambda: [HardLabel(1.0)],
    "last maps": lambda: [AttentionMSE(1.0, "last"), SoftTargetKL(1.0)],
}
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
PLACES = ("_forward_hooks", "_forward_pre_hooks")


def student(**changes):
    return tiny.mlm_model(2, seed=1, **DROPOUT, **changes)


def build(folder, teacher, name, model=None, **arguments):
    return trainer(folder, model or student(), teacher, OBJECTIVES[name](), **{"max_steps": 2, **arguments})


def result(run):
    """Train; return the losses and the student's weights."""
    run.train()
    return curve(run), {name: value.clone() for name, value in run.model.state_dict().items()}


def same(one, other):
    return one[0] == other[0] and all(torch.equal(value, other[1][name]) for name, value in one[1].items())


def traces(model):
    """Return all that trainers may leave on a model."""
    hooks = [hook for module in model.modules() for place in PLACES for hook in getattr(module, place)]
    own = [name for module in model.modules() for name in vars(module) if "distil" in name or name == "forward"]
    return [*hooks, *own, *([model.config._attn_implementation] if model.config._attn_implementation != "sdpa" else [])]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return each objective's result with a teacher of its own."""
    return {name: result(build(tmp_path_factory.mktemp("alone"), tiny.mlm_model(4), name)) for name in OBJECTIVES}


@pytest.mark.parametrize(("first", "second"), list(combinations(OBJECTIVES, 2)))
def test_two_trainers_built_first_are_each_as_if_alone(tmp_path, alone, first, second):
    """Prevents hooks of one trainer that take, or take off, what belongs to the other's forward."""
    teacher = tiny.mlm_model(4)
    one, two = build(tmp_path, teacher, first), build(tmp_path, teacher, second)
    assert same(result(one), alone[first])
    one.detach()
    assert same(result(two), alone[second])
    two.detach()
    assert not traces(teacher)


def test_the_one_built_last_may_train_first(tmp_path, alone):
    """Prevents a trainer that only works while it is the newest, or once the other is gone."""
    teacher = tiny.mlm_model(4)
    runs = {name: build(tmp_path, teacher, name) for name in OBJECTIVES}
    for name in reversed(OBJECTIVES):
        assert same(result(runs[name]), alone[name])
        runs.pop(name).detach()
    assert not traces(teacher)


def test_a_teacher_with_eager_attention_stays_so_for_terms_that_read_no_attention(tmp_path):
    """Prevents a trainer that changes the attention function under another one's feet."""
    name, other = "all tokens", "attention"
    expected = {}
    for one in (name, other):
        teacher = tiny.mlm_model(4)
        teacher.set_attn_implementation("eager")
        expected[one] = result(build(tmp_path, teacher, one))
    runs = {one: build(tmp_path, teacher, one) for one in (name, other)}
    assert all(same(result(run), expected[one]) for one, run in runs.items())
    for run in runs.values():
        run.detach()
    gc.collect()
    assert teacher.config._attn_implementation == "eager"


def test_two_threads_share_a_teacher(tmp_path):
    """Prevents a forward that reads what a forward of another thread has left on the hooks.

    Without dropout, for which all threads draw from one generator.
    """
    teacher, found = tiny.mlm_model(4), {}

    def train(number, name, model):
        try:
            run = build(tmp_path / str(number), teacher, name, model, max_steps=8)
            run.train()
            found[number] = curve(run)
        except Exception as error:
            found[number] = repr(error)

    names = ("all tokens", "attention", "all tokens")
    work = [[(number, name, tiny.mlm_model(2, seed=1)) for number, name in enumerate(names)] for _ in range(2)]
    for item in work[0]:
        train(*item)
    single, found = found, {}
    threads = [threading.Thread(target=train, args=item) for item in work[1]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == single


def test_trials_of_several_threads_see_all_states():
    """Prevents a trial whose hooks another thread takes off, and one that leaves the model in the other's mode."""
    teacher, found = tiny.mlm_model(4).train(), []
    batch = trial_batch(teacher)

    def look():
        for _ in range(20):
            with undisturbed(teacher):
                found.append(len(own_states(teacher.base_model, batch)[0]))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 80
    assert teacher.training


def test_nothing_grows_on_a_teacher_of_many_trainers(tmp_path):
    """Prevents hooks of trainers that were never detached, and are gone."""
    teacher = tiny.mlm_model(4)
    for name in (*OBJECTIVES, *OBJECTIVES):
        build(tmp_path, teacher, name)
    gc.collect()
    assert not traces(teacher)
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_a_teacher_gets_its_mode_back_from_the_last_trainer(tmp_path):
    """Prevents a teacher that stays frozen, and one that is set free while another trainer needs it in eval mode."""
    teacher = tiny.mlm_model(4).train()
    teacher.bert.embeddings.requires_grad_(False)
    before = [parameter.requires_grad for parameter in teacher.parameters()]
    one, two = build(tmp_path, teacher, "hidden"), build(tmp_path, teacher, "attention")
    one.detach()
    one.detach()
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    two.detach()
    assert teacher.training
    assert teacher.bert.encoder.training
    assert [parameter.requires_grad for parameter in teacher.parameters()] == before


def test_one_student_in_two_trainers(tmp_path):
    """Prevents projections of one trainer that the other trains, and a detach that takes the other's off."""
    narrow = {"hidden_size": 16, "num_attention_heads": 4}
    results = []
    for both_first in (False, True):
        model, teacher = student(**narrow), tiny.mlm_model(4)
        one = build(tmp_path, teacher, "all tokens", model)
        two = build(tmp_path, teacher, "hidden", model) if both_first else None
        first = result(one)
        two = two or build(tmp_path, teacher, "hidden", model)
        second = result(two)
        results.append((first, second, result(one)[0]))
        assert one.detach() is model
        assert two.teacher_student.is_attached
        two.detach()
        assert not traces(model)
    for one, other in zip(*results, strict=True):
        assert one[0] == other[0]


def test_one_source_in_two_trainers(tmp_path, alone):
    """Prevents a source that serves the objective of the trainer which got it last."""
    source = FrozenTeacher(tiny.mlm_model(4))
    runs = {name: build(tmp_path, source, name) for name in ("attention", "hidden")}
    assert all(same(result(run), alone[name]) for name, run in runs.items())


def test_scoring_between_two_steps_of_training_leaves_the_trainer_alone(tmp_path, alone):
    """Prevents a recorder of evaluation that replaces the one of training."""
    teacher = tiny.mlm_model(4)
    run = build(tmp_path, teacher, "attention")
    for model in (teacher, run.model):
        predict(model, "mlm", {"rows": text_rows(4)}, MaskingCollator(tiny.tokenizer(), seed=1))
    assert same(result(run), alone["attention"])


def test_a_cache_beside_a_trainer_without(tmp_path):
    """Prevents a cache that is asked with the signals of another trainer."""
    arguments = {"rows": text_rows(12), "max_steps": 2}
    expected = result(build(tmp_path, tiny.mlm_model(4), "hidden", **arguments))
    teacher, caches = tiny.mlm_model(4), CacheConfig(tmp_path / "caches", dtype="float32")
    cached = build(tmp_path, teacher, "hidden", cache=caches, **arguments)
    other = build(tmp_path, teacher, "attention", **arguments)
    assert cached.train().training_loss == pytest.approx(sum(expected[0]) / 2, rel=1e-5)
    assert other.train().training_loss > 0


def test_an_ensemble_beside_its_first_member(tmp_path):
    """Prevents an ensemble and a teacher of its own that take each other's attention."""
    first, terms = tiny.classifier(4), lambda: [SoftTargetKL(1.0), AttentionKL(1.0)]
    arguments = {"kind": "classification", "rows": task_rows(16), "max_steps": 2}
    expected = result(trainer(tmp_path, tiny.classifier(2, seed=1), first, terms(), **arguments))
    gc.collect()
    both = trainer(tmp_path, tiny.classifier(2, seed=1), Ensemble([first, tiny.classifier(4, seed=3)]), terms(),
                   **arguments)  # fmt: skip
    single = trainer(tmp_path, tiny.classifier(2, seed=1), first, terms(), **arguments)
    both.train()
    both.detach()
    assert same(result(single), expected)
    single.detach()
    assert not traces(first)


def test_mixup_in_two_trainers(tmp_path):
    """Prevents embeddings that are mixed twice."""

    def run(teacher):
        return trainer(tmp_path, tiny.classifier(2, seed=1), teacher, [SoftTargetKL(1.0)], kind="classification",
                       rows=task_rows(16), max_steps=2, changes={"mixup": Mixup(0.7, 1.0)})  # fmt: skip

    expected, teacher = result(run(tiny.classifier(4))), tiny.classifier(4)
    runs = [run(teacher), run(teacher)]
    assert all(same(result(one), expected) for one in runs)


@pytest.mark.parametrize("method", ["train", "evaluate"])
def test_a_detached_trainer_says_so(tmp_path, method):
    """Prevents an IndexError from within a term."""
    run = build(tmp_path, tiny.mlm_model(4), "all tokens", eval_rows=text_rows(8))
    run.detach()
    with pytest.raises(UserError, match=r"got one that was detached .* call detach\(\) last"):
        getattr(run, method)()
