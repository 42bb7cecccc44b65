"""Masked language modelling with two vocabularies: common words, blocks that both read, and masks of the same words."""

import itertools
import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers import models as tokenizer_models
from transformers import PreTrainedTokenizerFast

from distil_nlp.data.common_corpus import pack_alike
from distil_nlp.data.common_masking import CommonMaskingCollator
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.corpus import pack
from distil_nlp.errors import UserError
from distil_nlp.evaluation.fidelity import compare_models
from distil_nlp.evaluation.fidelity.other_tokens import OtherTokens
from distil_nlp.losses.divergences import ReverseKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.replaced_tokens import ReplacedTokens
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import ModelShape
from distil_nlp.signals.top_logits import TopLogits
from distil_nlp.signals.types import LazyLogits
from distil_nlp.tasks import KINDS
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.cached import CachedTeacher
from distil_nlp.teachers.common_words import CommonWords
from distil_nlp.teachers.frozen import FrozenTeacher
from tests.helpers import byte_pairs, sentence_pieces, tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.training import curve
from tests.workers.two_vocabularies import new, permuted, permuted_model, train

WORDPIECE, BYTES, UNIGRAM = tiny.tokenizer(), byte_pairs.tokenizer(), sentence_pieces.tokenizer()
TEXTS = [*tiny.SENTENCES, "the naïve 🙂 zebra walked , and the Dog"] * 3


def words_of(student, teacher):
    """Return student token → the teacher's tokens of the same word."""
    names, others = (np.array(one.convert_ids_to_tokens(range(len(one)))) for one in (student, teacher))
    vocabulary = CommonVocabulary.of(student, teacher)
    return {name: sorted(others[vocabulary.student_of == number]) for number, name in enumerate(names)}


def test_words_are_the_same_at_the_same_place():
    """Prevents beginnings of words that are taken for pieces, and punctuation for what has a space before it."""
    words = words_of(WORDPIECE, BYTES)
    assert words["the"] == ["Ġthe"]
    assert words["##s"] == ["S", "s"]
    assert words["."] == ["."]
    assert words["a"] == sorted({"Ġa", "ĠA"} & set(BYTES.get_vocab()))
    assert [words[name] for name in tiny.SPECIALS] == [["<pad>"], ["<unk>"], ["<s>"], ["</s>"], ["<mask>"]]
    assert words["river"] == []  # pieces of it are known to the teacher alone


def test_words_of_sentence_pieces_are_those_behind_a_space():
    """Prevents a piece (`s`, `##s`) from being a word (`▁s`), and a full stop from being lost for want of a space."""
    words = words_of(WORDPIECE, UNIGRAM)
    assert {name: words[name] for name in ("the", "cat", "a", "walk")} == {
        "the": ["▁the"], "cat": ["▁cat"], "a": ["▁a"], "walk": ["▁walk"],
    }  # fmt: skip
    assert words["##ing"] == ["ing"]
    assert words["##s"] == ["S", "s"]
    assert words["."] == ["."]
    assert words["river"] == []
    assert [words[name] for name in tiny.SPECIALS] == [["<pad>"], ["<unk>"], ["<s>"], ["</s>"], ["<mask>"]]
    others = words_of(UNIGRAM, BYTES)
    assert (others["▁cat"], others["▁the"], others["s"]) == (["Ġcat"], ["Ġthe"], ["s"])
    assert others["▁a"] == (["Ġa"] if "Ġa" in BYTES.get_vocab() else [])


def test_words_of_other_case_are_one_where_the_student_reads_lower_case():
    """Prevents probability of `The` that is lost for a student that knows `the` alone."""
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "Ġthe": 5, "ĠThe": 6, "The": 7, "ĠTH": 8}
    built = Tokenizer(tokenizer_models.BPE(vocabulary, [], unk_token="<unk>"))
    built.pre_tokenizer = byte_pairs.tokenizer().backend_tokenizer.pre_tokenizer
    names = {
        "cls_token": "<s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    cased = PreTrainedTokenizerFast(tokenizer_object=built, **names)
    assert words_of(WORDPIECE, cased)["the"] == ["ĠThe", "Ġthe"]
    of = CommonVocabulary.of(WORDPIECE, cased)
    assert of.teacher_of[WORDPIECE.get_vocab()["the"]] == 5


@pytest.mark.parametrize("tokenizer", [WORDPIECE, BYTES])
def test_a_vocabulary_shares_every_word_with_a_copy_of_other_ids(tokenizer):
    """Prevents bytes, spaces and pieces that are lost, or that are each other's."""
    copy, order = permuted(tokenizer)
    vocabulary = CommonVocabulary.of(tokenizer, copy)
    assert vocabulary.student_of[order].tolist() == list(range(len(order)))
    assert vocabulary.teacher_of.tolist() == list(order)


def test_a_tokenizer_that_marks_no_words_is_refused():
    """Prevents pieces of words that are learned as words."""
    plain = Tokenizer(tokenizer_models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with pytest.raises(UserError, match="got WordLevel of "):
        CommonVocabulary.of(WORDPIECE, PreTrainedTokenizerFast(tokenizer_object=plain))


PIECES = [*"abcdefghij ,.'", "🙂", "é", "ß", "the ", "playing ", "İ", "\u0301", "  ", "\n"]
DOCUMENTS = st.lists(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(DOCUMENTS, st.integers(4, 24), st.sampled_from([WORDPIECE, BYTES, UNIGRAM]))
def test_blocks_of_one_tokenizer_twice_are_the_plain_ones(documents, max_length, tokenizer):
    """Prevents blocks that end elsewhere, and words of other tokens, than where there is one tokenizer."""
    assume(not shares_characters(tokenizer, documents))
    vocabulary = CommonVocabulary.of(tokenizer, tokenizer)
    both = pack_alike({"text": documents}, [tokenizer] * 2, vocabulary, "text", max_length)
    plain = pack({"text": documents}, tokenizer, "text", max_length)
    assert [one.tolist() for one in both["input_ids"]] == [one.tolist() for one in plain["input_ids"]]
    for own, other, words, wanted in zip(
        both["input_ids"], both["teacher_input_ids"], both["word_ids"], plain["word_ids"], strict=True
    ):
        assert own.tolist() == other.tolist()
        assert (np.diff(words) != 0).tolist() == (np.diff(wanted) != 0).tolist()
    for own, starts, partners in zip(both["input_ids"], both["partner_starts"], both["partners"], strict=True):
        assert starts.tolist() == list(range(len(own)))
        assert partners.tolist() == list(range(len(own)))


def shares_characters(tokenizer, documents):
    """Whether two SentencePiece tokens are of one character, such as i and dot of İ: no block ends in between."""
    offsets = tokenizer(documents, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    pairs = [pair for one in offsets for pair in itertools.pairwise(one)]
    return tokenizer is UNIGRAM and any(after[0] < before[1] for before, after in pairs)


@settings(max_examples=50, deadline=None)
@given(DOCUMENTS, st.integers(8, 24), st.sampled_from([BYTES, UNIGRAM]))
def test_both_read_the_same_text_of_a_block(documents, max_length, other_tokenizer):
    """Prevents blocks of which one model reads more, or a word that is masked for one of them alone."""
    both = [WORDPIECE, other_tokenizer]
    found = pack_alike({"text": documents}, both, CommonVocabulary.of(*both), "text", max_length)
    for own, other in zip(found["input_ids"], found["teacher_input_ids"], strict=True):
        assert len(own) <= max_length
        assert len(other) <= max_length
        assert (own == WORDPIECE.sep_token_id).sum() == (other == other_tokenizer.sep_token_id).sum()
    for names, others, partners in zip(found["input_ids"], found["teacher_input_ids"], found["partners"], strict=True):
        for name, place in zip(names, partners, strict=True):
            if place >= 0 and name not in WORDPIECE.all_special_ids:
                pair = [
                    one.convert_ids_to_tokens(int(number))
                    for one, number in zip(both, (name, others[place]), strict=True)
                ]
                assert pair[0].removeprefix("##") == pair[1].removeprefix("Ġ").removeprefix("▁").lower()


def test_the_same_words_are_masked():
    """Prevents a word that one model is asked for and the other one reads."""
    vocabulary = CommonVocabulary.of(WORDPIECE, BYTES)
    blocks = pack_alike({"text": TEXTS}, [WORDPIECE, BYTES], vocabulary, "text", 24)
    features = [dict(zip(blocks, row, strict=True)) for row in zip(*blocks.values(), strict=True)]
    collate = CommonMaskingCollator(WORDPIECE, 0.4, True, other=BYTES, vocabulary=vocabulary)
    batch = collate(features)
    kinds = {"masked": 0, "random": 0, "kept": 0}
    for i, row in enumerate(features):
        ids, labels, other = (batch[name][i].tolist() for name in ("input_ids", "labels", "teacher_input_ids"))
        touched = set()
        for place, (now, label) in enumerate(zip(ids, labels, strict=True)):
            if label == -100:
                continue
            partners = range(row["partner_starts"][place], row["partner_stops"][place])
            fate = "masked" if now == WORDPIECE.mask_token_id else "kept" if now == label else "random"
            kinds[fate] += 1
            touched |= set(partners)
            if row["partners"][place] >= 0:
                seen = other[row["partners"][place]]
                wanted = {"masked": BYTES.mask_token_id, "kept": row["teacher_input_ids"][row["partners"][place]]}
                assert seen == wanted.get(fate, vocabulary.teacher_of[now])
            assert fate != "masked" or all(other[j] == BYTES.mask_token_id for j in partners)
        for j, token in enumerate(row["teacher_input_ids"]):
            assert j in touched or other[j] == token
    assert min(kinds.values()) > 0


def kl_by_words(student, teacher, vocabulary, temperature):
    """Return T² · KL over the common words and all others as one, in float64, word by word."""
    total = 0.0
    for own, other in zip(student.double() / temperature, teacher.double() / temperature, strict=True):
        p, q = other.softmax(0), own.softmax(0)
        common = sorted(set(vocabulary.student_of.tolist()) - {-1})
        pairs = [
            (sum(p[t] for t in range(len(p)) if t < len(vocabulary.student_of) and vocabulary.student_of[t] == w), q[w])
            for w in common
        ]
        pairs.append((1 - sum(a for a, _ in pairs), 1 - sum(b for _, b in pairs)))
        total += sum(a * (a / b).log() for a, b in pairs)
    return float(total) * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_loss_is_the_kl_of_common_words_and_all_others(temperature):
    """Prevents words that are compared with others, and a rest that is left out, or read at another temperature."""
    generator, vocabulary = torch.Generator().manual_seed(0), CommonVocabulary.of(WORDPIECE, BYTES)
    student, teacher = (torch.randn(4, len(one), generator=generator) * 3 for one in (WORDPIECE, BYTES))
    merged = CommonWords(LazyLogits(teacher), *map(torch.from_numpy, vocabulary.merged)).logits(0, 4)
    found = merged.logits_for(student, temperature)
    assert isinstance(found, TopLogits)
    term = SoftTargetKL(1.0, temperature)
    term.bind("mlm", None, ModelShape(2, 4, 2))
    wanted = kl_by_words(student, teacher, vocabulary, temperature)
    assert float(term.loss(student, found, 0.0)) == pytest.approx(wanted, rel=1e-5)


def run(made):
    made.train()
    return made


@pytest.mark.parametrize("chosen", [None, "all"])
def test_a_copy_of_other_ids_teaches_as_the_plain_teacher_does(tmp_path, chosen):
    """Prevents logits of another word, states of another token, and other masks, than on the plain path."""
    terms = [SoftTargetKL(2.0, rows=chosen), HardLabel(1.0), HiddenCosine(1.0, "last")]
    teacher = tiny.mlm_model(4)
    plain = run(new(tmp_path / "plain", teacher, terms=terms, other=None))
    copy, order = permuted(WORDPIECE)
    source = FrozenTeacher(permuted_model(teacher, order), "teacher_", CommonVocabulary.of(WORDPIECE, copy))
    both = run(new(tmp_path / "both", source, terms=terms, other=copy))
    assert curve(both) == pytest.approx(curve(plain), rel=1e-5)
    weights = zip(plain.model.parameters(), both.model.parameters(), strict=True)
    assert max(float((one - other).abs().max()) for one, other in weights) < 1e-5


def test_every_cut_of_a_step_has_the_same_gradient(tmp_path):
    """Prevents padding, or words that are skipped, that change what the others count."""
    steps = {}
    for batch, accumulation in ((12, 1), (4, 3), (1, 12)):
        seen = Steps()
        run(
            new(
                tmp_path / str(batch),
                byte_pairs.mlm_model(4),
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                max_steps=1,
                learning_rate=0.0,
                max_grad_norm=0,
                callbacks=[seen],
            )
        )
        steps[batch] = seen.gradients[0]
    assert distance(steps[4], steps[12]) < 1e-5
    assert distance(steps[1], steps[12]) < 1e-5


@pytest.mark.integration
def test_two_processes_equal_one(tmp_path):
    """Prevents masks, words or counts of each process's own."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.two_vocabularies", str(out), json.dumps({"batch": 2}))
    found, one = json.loads(out.read_text()), train(tmp_path / "one", 4)
    assert found["world_size"] == 2
    assert found["curve"] == pytest.approx(one["curve"], rel=2e-4)


def test_what_needs_one_vocabulary_is_refused(tmp_path):
    """Prevents divergences over words that one vocabulary lacks, and a cache of words that the student has not."""
    teacher, known = byte_pairs.mlm_model(2), CommonVocabulary.of(WORDPIECE, BYTES)
    with pytest.raises(UserError, match=r"got reverse_kl / .*these work: soft_target_kl, hidden_cosine"):
        new(tmp_path, FrozenTeacher(teacher, "teacher_", known), terms=[ReverseKL(1.0)])
    with pytest.raises(UserError, match=r"got replaced_tokens / "):
        new(tmp_path, FrozenTeacher(teacher, "teacher_", known), terms=[ReplacedTokens(1.0)])
    with pytest.raises(UserError, match="the words that teacher and student have in common"):
        new(tmp_path, FrozenTeacher(teacher, "teacher_"))
    with pytest.raises(UserError, match=r"teacher.cache: expected none where words of two vocabularies"):
        new(tmp_path, CachedTeacher(teacher, CacheConfig(tmp_path / "cache"), "teacher_"))


def test_fidelity_is_that_of_common_words():
    """Prevents an agreement of masked words that one of the vocabularies lacks, and a KL of unlike words."""
    vocabulary = CommonVocabulary.of(WORDPIECE, BYTES)
    blocks = pack_alike({"text": TEXTS}, [WORDPIECE, BYTES], vocabulary, "text", 24)
    rows = Dataset.from_list([dict(zip(blocks, row, strict=True)) for row in zip(*blocks.values(), strict=True)])
    collate = CommonMaskingCollator(WORDPIECE, 0.4, True, other=BYTES, vocabulary=vocabulary)
    student, teacher = tiny.mlm_model(2, initializer_range=0.3).eval(), byte_pairs.mlm_model(2).eval()
    found = compare_models(
        teacher, student, "mlm", rows, collate, batch_size=2, no_cka="not asked",
        other_tokens=OtherTokens(KINDS["mlm"], "teacher_", vocabulary),
    )  # fmt: skip
    ours, theirs = [], []
    for row in rows:
        batch = collate([row])
        own = student(input_ids=batch["input_ids"]).logits[0]
        other = teacher(input_ids=batch["teacher_input_ids"]).logits[0]
        for place, partner in enumerate(row["partners"]):
            if batch["labels"][0, place] != -100 and partner >= 0:
                ours.append(own[place])
                theirs.append(other[partner])
    assert found["tokens"] == len(ours)
    kl = kl_by_words(torch.stack(ours), torch.stack(theirs), vocabulary, 1.0)
    assert found["kl"] == pytest.approx(kl / len(ours), rel=1e-4)
    assert 0 <= found["agreement"] <= 1
