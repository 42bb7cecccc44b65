"""A teacher that reads other tokens of the same text than its student: what it says, and what cannot be compared."""

import json
import pickle

import pytest
import torch

from distil_nlp.data.encodings import batch_of
from distil_nlp.errors import UserError
from distil_nlp.losses.activations import ActivationBoundary
from distil_nlp.losses.adversarial import Adversarial
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.attention_scores import AttentionScoresMSE
from distil_nlp.losses.cka import LinearCKA
from distil_nlp.losses.emd import HiddenEMD
from distil_nlp.losses.fsp import GramFlow
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.losses.r_drop import RDrop
from distil_nlp.losses.relations import KeyRelation
from distil_nlp.losses.soft_targets import SoftTargetKL, soft_target_kl
from distil_nlp.losses.variational import VariationalInformation
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cached import CachedTeacher
from distil_nlp.teachers.curriculum import TeacherCurriculum
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.ensemble_teacher import EnsembleTeacher
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.teachers.mixing import Mixing
from tests.helpers import byte_pairs, tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, trainer
from tests.workers.other_tokens import TEXTS, new, rows, terms, train

EXACT = {"dtype": "float32"}


def weights(made):
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def on_tokens(rows):
    """Return terms on states of tokens, on units, on sequences and on all tokens of a batch."""
    return [
        HiddenMSE(1.0, "all", rows),
        ActivationBoundary(1.0),
        GramFlow(1.0),
        HiddenEMD(1.0),
        LinearCKA(1.0),
        VariationalInformation(1.0),
        Adversarial(1.0),
    ]


def run(made):
    made.train()
    return made


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("is_cached", [False, True])
@pytest.mark.parametrize("max_length", [8, 32])
def test_one_vocabulary_on_both_sides_is_the_plain_path_bit_for_bit(tmp_path, is_cached, max_length):
    """Prevents another text, padding, mask or row of the teacher's than it has where both read the same columns."""

    def made(place, source, data, **encodings):
        return run(
            trainer(
                tmp_path / place,
                tiny.classifier(2, 3, seed=1),
                source,
                [*terms(), *on_tokens("all" if is_cached else 0.5)],
                kind="classification",
                rows=data,
                per_device_train_batch_size=4,
                max_steps=-1,
                num_train_epochs=2,
                **encodings,
            )
        )

    def source(folder, *encoding):
        teacher = tiny.classifier(4, 3)
        cache = CacheConfig(tmp_path / folder, **EXACT)
        return CachedTeacher(teacher, cache, *encoding) if is_cached else FrozenTeacher(teacher, *encoding)

    plain = made("plain", source("one"), rows(max_length=max_length))
    twice = {"teacher_": tiny.tokenizer()}
    own = made("own", source("two", "teacher_"), rows(tiny.tokenizer(), max_length=max_length), encodings=twice)
    assert curve(plain) == curve(own)
    assert equal(weights(plain), weights(own))
    assert plain.token_counter.totals == own.token_counter.totals
    if is_cached:
        names = [[path.name for path in (tmp_path / folder).iterdir()] for folder in ("one", "two")]
        assert names[0] == names[1]  # the same key: rows, tokens and teacher are the same


def test_the_teacher_answers_as_it_does_alone(tmp_path):
    """Prevents logits of another row, and states of another token than the first."""
    made = new(tmp_path, byte_pairs.classifier(4, 3))
    teacher = made.source.model
    for batch in made.get_train_dataloader():
        found, own = made.source.signals(batch), batch_of(batch, "teacher_")
        states = found.hidden[max(found.hidden)]
        mask = own.get("attention_mask", torch.ones_like(own["input_ids"]))
        for i, place in enumerate(batch["rows"]["sequences"].tolist()):
            ids = own["input_ids"][place][mask[place].bool()][None]
            alone = teacher(input_ids=ids, output_hidden_states=True)
            assert torch.allclose(found.logits[place], alone.logits[0], atol=1e-5)
            assert torch.allclose(states[i], alone.hidden_states[max(found.hidden)[0] + 1][0, 0], atol=1e-5)


@pytest.mark.parametrize("layers", ["last", "all"])
def test_states_are_means_over_the_tokens_of_the_same_characters(tmp_path, layers):
    """Prevents a state of a neighbour, of padding or of another row; computed in float64, text by text."""
    student, teacher = tiny.classifier(2, 3, seed=1).double(), byte_pairs.classifier(4, 3).double()
    data = rows(byte_pairs.tokenizer(), max_length=60)
    made = new(tmp_path, source=FrozenTeacher(teacher, "teacher_"), terms=[HiddenCosine(1.0, layers)], rows=data)
    made.teacher_student.student.double()
    pairs = {"last": [(4, 2)], "all": [(0, 0), (2, 1), (4, 2)]}[layers]
    total, count = 0.0, 0
    for text in TEXTS:
        own, other = tiny.tokenizer()([text]), byte_pairs.tokenizer()([text])
        states = [
            model(input_ids=torch.tensor(one["input_ids"]), output_hidden_states=True).hidden_states
            for model, one in ((student, own), (teacher, other))
        ]
        for place, covered in enumerate(letters(own, text)):
            same = [i for i, letter in enumerate(letters(other, text)) if letter & covered]
            assert same
            values = [
                1 - torch.cosine_similarity(states[0][k][0, place], states[1][j][0, same].mean(0), dim=0)
                for j, k in pairs
            ]
            total, count = total + sum(values) / len(pairs), count + 1
    batch = made.data_collator(list(data))
    sums = made.teacher_student.compute(made.model, batch, 0.0, torch.ones(1, dtype=torch.float64))[1]
    assert len(batch["rows"]["aligned/all"]) == count == sum(map(len, data["input_ids"]))
    assert float(sums) == pytest.approx(float(total), rel=1e-6)  # the sums are kept in float32


def letters(encoded, text):
    """Return the characters that each token covers, spaces aside; of special tokens, which end of the text they are."""
    sides, offsets = encoded.sequence_ids(0), encoded.encodings[0].offsets
    ends = iter(({-1}, {-2}))
    return [
        next(ends) if side is None else {i for i in range(*place) if text[i] != " "}
        for side, place in zip(sides, offsets, strict=True)
    ]


def test_tokens_without_a_partner_take_no_part(tmp_path):
    """Prevents zeros that a student learns as the teacher's states, and rows that count them."""
    made = new(tmp_path, byte_pairs.classifier(4, 3), terms=[HiddenCosine(1.0)])
    row = dict(made.train_dataset[0])
    whole = made.data_collator([row])["rows"]["aligned/all"]
    row["partner_starts"], row["partner_stops"] = (
        [0, *row[name][1:-2], 0, 0] for name in ("partner_starts", "partner_stops")
    )
    batch = made.data_collator([row])
    assert batch["rows"]["aligned/all"].tolist() == whole.tolist()[1:-2]
    assert len(made.source.signals(batch).hidden[3, "aligned/all"]) == len(whole) - 3
    assert made.objective.counts(batch["rows"]) == [len(whole) - 3]


def test_rows_that_tell_no_partners_are_refused(tmp_path):
    """Prevents rows of one's own, whose tokens would be compared by their places."""
    made = new(tmp_path, byte_pairs.classifier(4, 3), terms=[HiddenCosine(1.0)])
    row = {name: value for name, value in made.train_dataset[0].items() if not name.startswith("partner")}
    with pytest.raises(UserError, match=r"expected rows with partner_starts and partner_stops.*encodings="):
        made.data_collator([row])


def test_every_cut_of_a_step_has_the_same_gradient(tmp_path):
    """Prevents padding of one encoding, or rows of one micro-batch, that change what the other counts."""
    steps = {}
    for batch, accumulation in ((11, 1), (4, 3), (1, 11)):
        seen = Steps()
        made = new(
            tmp_path / str(batch),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            learning_rate=0.0,
            max_grad_norm=0,
            callbacks=[seen],
            terms=terms()[:-1],  # the last compares the rows of a micro-batch
        )
        run(made)
        steps[batch] = seen.gradients[0]
    assert distance(steps[4], steps[11]) < 1e-5
    assert distance(steps[1], steps[11]) < 1e-5


def test_cached_answers_are_those_of_the_teacher(tmp_path):
    """Prevents a cache that is looked up by the student's tokens, and one that a worker cannot be given."""
    live = run(new(tmp_path / "live"))
    source = CachedTeacher(byte_pairs.classifier(4, 3), CacheConfig(tmp_path / "cache", **EXACT), "teacher_")
    cached = run(new(tmp_path / "cached", source=source))
    assert curve(cached) == pytest.approx(curve(live), rel=1e-5)
    batch = next(iter(cached.get_train_dataloader()))
    assert batch["cached_outputs"]["logits"].shape == (4, 3)
    pickle.loads(pickle.dumps(cached.data_collator))


def test_a_cache_of_other_tokens_is_refused(tmp_path):
    """Prevents answers to one text that are learned for another."""
    source = CachedTeacher(byte_pairs.classifier(4, 3), CacheConfig(tmp_path / "cache", **EXACT), "teacher_")
    made = new(tmp_path, source=source)
    made.get_train_dataloader()
    row = {**made.train_dataset[0], "row_numbers": 0, "number": 0}
    swapped = {**row, "teacher_input_ids": row["teacher_input_ids"][::-1]}
    made.data_collator([row])
    with pytest.raises(UserError, match=r"row 0 with the tokens that the teacher read / got other tokens"):
        made.data_collator([swapped])


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    """Prevents an order of rows, or a projection, that a resume draws anew."""
    often = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 3}
    whole = run(new(tmp_path / "whole", **often))
    run(new(tmp_path / "stopped", callbacks=[StopAt(4)], **often))
    resumed = new(tmp_path / "stopped", **often)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    assert equal(weights(whole), weights(resumed))
    assert curve(whole) == curve(resumed)


@pytest.mark.integration
def test_two_processes_equal_one(tmp_path):
    """Prevents tokens, rows or counts of each process's own."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.other_tokens", str(out), json.dumps({"batch": 2}))
    found, one = json.loads(out.read_text()), train(tmp_path / "one", 4)
    assert found["world_size"] == 2
    assert found["curve"] == pytest.approx(one["curve"], rel=2e-4)


@pytest.mark.parametrize("is_cached", [False, True])
def test_each_teacher_of_an_ensemble_reads_its_own_tokens(tmp_path, is_cached):
    """Prevents teachers that answer on the tokens of the first of them."""
    members = [byte_pairs.classifier(3, 3), tiny.classifier(4, 3), byte_pairs.classifier(2, 3, seed=5)]
    encodings = ["teacher_", "", "teacher_"]
    ensemble = Ensemble(members, Mixing((1.0, 2.0, 1.0)), encodings)
    caches = [CacheConfig(tmp_path / "caches", **EXACT)] * 3 if is_cached else None
    made = new(tmp_path, source=EnsembleTeacher(ensemble, caches))
    batch = next(iter(made.get_train_dataloader()))
    alone = []
    for model, encoding in zip(members, encodings, strict=True):
        single = FrozenTeacher(model, encoding)
        one = new(tmp_path / "one", source=single, terms=[SoftTargetKL(1.0)])
        alone.append(one.source.signals(batch).logits)
    wanted = (alone[0] + 2 * alone[1] + alone[2]) / 4
    assert torch.allclose(made.source.signals(batch).logits, wanted, atol=1e-5)
    plain = {name: value for name, value in batch.items() if "input_ids" in name or "mask" in name}
    assert torch.allclose(ensemble(**plain).logits, wanted, atol=1e-5)


def test_each_model_counts_its_own_tokens(tmp_path):
    """Prevents a cost of the teacher by the student's tokens."""
    data, made = rows(byte_pairs.tokenizer()), run(new(tmp_path))
    own, other = (2 * sum(map(len, data[name])) for name in ("input_ids", "teacher_input_ids"))
    assert own != other
    assert made.token_counter.totals == {"tokens_forward": own + other, "tokens_backward": own}


def test_two_passes_and_evaluations_ask_the_teacher_by_its_tokens(tmp_path):
    """Prevents a doubled batch, or one of evaluation, that is given to the teacher as the student's tokens."""
    dropped = tiny.classifier(2, 3, seed=1, hidden_dropout_prob=0.1)
    data, teacher = rows(byte_pairs.tokenizer(), max_length=60), byte_pairs.classifier(4, 3)
    teacher.classifier.out_proj.weight.data.mul_(50)  # answers that differ from text to text
    made = trainer(
        tmp_path,
        dropped,
        FrozenTeacher(teacher, "teacher_"),
        [SoftTargetKL(1.0), RDrop(1.0)],
        kind="classification",
        rows=data,
        eval_rows=data,
        encodings={"teacher_": byte_pairs.tokenizer()},
        max_steps=1,
        per_device_train_batch_size=11,
        learning_rate=0.0,
    )
    run(made)
    found = made.evaluate()["eval_soft_target_kl"]
    student, wanted = made.detach().eval(), []
    for text in TEXTS:
        own, other = (one(text, return_tensors="pt") for one in (tiny.tokenizer(), byte_pairs.tokenizer()))
        wanted.append(soft_target_kl(student(**own).logits, teacher(**other).logits, 2.0))
    assert found == pytest.approx(float(sum(wanted)) / len(TEXTS), rel=1e-4)


@pytest.mark.parametrize("term", [AttentionKL(1.0), InputGradient(1.0), KeyRelation(1.0), AttentionScoresMSE(1.0)])
def test_terms_between_tokens_are_refused(tmp_path, term):
    """Prevents attention between tokens that are others in the other model."""
    with pytest.raises(UserError, match=rf"got {term.name} / .*these work: soft_target_kl, .*hidden_cosine, .*weights"):
        new(tmp_path, terms=[SoftTargetKL(1.0), term])


def test_terms_on_tokens_are_of_the_first_teacher_alone(tmp_path):
    """Prevents a refusal where only a teacher whose logits are mixed in has other tokens, and none where it must run
    as one model with the first."""
    members = [tiny.classifier(4, 3), byte_pairs.classifier(2, 3)]
    sources = [EnsembleTeacher(Ensemble(members, None, ["", "teacher_"])) for _ in range(2)]
    made = new(tmp_path, source=sources[0], terms=[SoftTargetKL(1.0), HiddenCosine(1.0)], max_steps=1)
    made.train()
    with pytest.raises(UserError, match="got input_gradient"):
        new(tmp_path, source=sources[1], terms=[SoftTargetKL(1.0), InputGradient(1.0)])


def test_the_route_of_a_teacher_reads_its_tokens(tmp_path):
    """Prevents earlier checkpoints of a teacher that are given the student's tokens."""
    teachers = [byte_pairs.classifier(2, 3, seed=seed) for seed in (1, 2)]
    made = new(tmp_path, source=TeacherCurriculum(teachers, "teacher_"), terms=[SoftTargetKL(1.0)])
    batch = next(iter(made.get_train_dataloader()))
    single = FrozenTeacher(teachers[0], "teacher_")
    alone = new(tmp_path, source=single, terms=[SoftTargetKL(1.0)]).source.signals(batch)
    assert torch.equal(made.source.signals(batch).logits, alone.logits)
