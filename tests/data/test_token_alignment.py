"""Alignment of tokens by the characters that they cover, of a byte-level BPE, WordPiece and SentencePiece."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from distil_nlp.data.token_alignment import Spans, overlaps
from tests.helpers import byte_pairs, sentence_pieces, tiny

WORDPIECE, BYTES, UNIGRAM = tiny.tokenizer(), byte_pairs.tokenizer(), sentence_pieces.tokenizer()


def partners(own, other, *texts):
    """Return (token, its partners) of a text or a pair of texts."""
    encoded = [tokenizer(*([text] for text in texts)) for tokenizer in (own, other)]
    starts, stops = overlaps(*(Spans.of(one, 0, [[text] for text in texts]) for one in encoded))
    names, others = (one.tokens(0) for one in encoded)
    return [(name, others[start:stop]) for name, start, stop in zip(names, starts, stops, strict=True)]


def test_tokens_find_those_of_the_same_characters():
    """Prevents marks of spaces and of pieces, characters of several bytes, and special tokens that shift partners."""
    assert partners(WORDPIECE, BYTES, "the cat 🙂 naïvely seesx") == [
        ("[CLS]", ["<s>"]),
        ("the", ["the"]),
        ("cat", ["Ġcat"]),
        ("[UNK]", ["ð", "Ł", "Ļ", "Ĥ"]),
        ("[UNK]", ["n", "a", "Ã", "¯", "v", "e", "ly"]),
        ("[UNK]", ["Ġsees", "x"]),
        ("[SEP]", ["</s>"]),
    ]
    assert partners(BYTES, WORDPIECE, "the cat 🙂") == [
        ("<s>", ["[CLS]"]),
        ("the", ["the"]),
        ("Ġcat", ["cat"]),
        ("Ġ", []),
        *((byte, ["[UNK]"]) for byte in "ðŁĻĤ"),
        ("</s>", ["[SEP]"]),
    ]


def test_a_text_of_a_pair_finds_its_own_tokens():
    """Prevents the first characters of the second text from being those of the first one."""
    assert partners(WORDPIECE, BYTES, "the cat", "a dog") == [
        ("[CLS]", ["<s>"]),
        ("the", ["the"]),
        ("cat", ["Ġcat"]),
        ("[SEP]", ["</s>", "</s>"]),
        ("a", ["a"]),
        ("dog", ["Ġdog"]),
        ("[SEP]", ["</s>"]),
    ]
    assert partners(BYTES, WORDPIECE, "the cat", "a dog")[3:5] == [("</s>", ["[SEP]"])] * 2


def test_pieces_of_sentences_find_the_words_of_others():
    """Prevents the ▁ of a token from shifting its characters, and normalised ones (½, ﬁ) from losing theirs."""
    assert partners(WORDPIECE, UNIGRAM, "the cat 🙂 seesx") == [
        ("[CLS]", ["<s>"]),
        ("the", ["▁the"]),
        ("cat", ["▁cat"]),
        ("[UNK]", ["🙂"]),
        ("[UNK]", ["see", "s", "x"]),
        ("[SEP]", ["</s>"]),
    ]
    assert partners(UNIGRAM, WORDPIECE, "½ the  ﬁsh .") == [
        ("<s>", ["[CLS]"]),
        ("▁", ["[UNK]"]),
        ("1⁄2", ["[UNK]"]),
        ("▁the", ["the"]),
        ("▁", []),
        ("▁fi", ["[UNK]"]),
        ("s", ["[UNK]"]),
        ("h", ["[UNK]"]),
        ("▁", []),
        (".", ["."]),
        ("</s>", ["[SEP]"]),
    ]
    assert partners(UNIGRAM, UNIGRAM, "🙂🙂") == [
        ("<s>", ["<s>"]),
        ("▁", ["▁"]),  # with the offsets of the first character of the next one
        ("🙂🙂", ["🙂🙂"]),
        ("</s>", ["</s>"]),
    ]
    assert partners(WORDPIECE, UNIGRAM, "🙂🙂", "1⁄2") == [
        ("[CLS]", ["<s>"]),
        ("[UNK]", ["🙂🙂"]),
        ("[SEP]", ["</s>", "</s>"]),
        ("[UNK]", ["1⁄2"]),
        ("[SEP]", ["</s>"]),
    ]
    assert partners(UNIGRAM, BYTES, "the cat", "a dog") == [
        ("<s>", ["<s>"]),
        ("▁the", ["the"]),
        ("▁cat", ["Ġcat"]),
        *[("</s>", ["</s>"])] * 2,
        ("▁a", ["a"]),
        ("▁dog", ["Ġdog"]),
        ("</s>", ["</s>"]),
    ]


PIECES = [*"abcdefghij ,.'", "🙂", "é", "ß", "the ", "unbelievable ", "İ", "\u0301", "  ", "\n"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


@settings(max_examples=80, deadline=None)
@given(TEXT, TEXT, st.sampled_from([WORDPIECE, BYTES, UNIGRAM]), st.booleans())
def test_a_tokenizer_finds_each_of_its_own_tokens(first, second, tokenizer, is_pair):
    """Prevents bytes of a character, spaces and special tokens that have each other's partners."""
    texts = (first, second) if is_pair else (first,)
    assume(tokenizer is not UNIGRAM or "İ" not in "".join(texts))  # whose offsets two tokens have
    assert partners(tokenizer, tokenizer, *texts) == [
        (token, [token]) for token in tokenizer(*([text] for text in texts)).tokens(0)
    ]


def test_a_row_without_tokens_has_no_places():
    """Prevents an empty text, read without special tokens, that stops a run."""
    empty = UNIGRAM([""], add_special_tokens=False)
    assert Spans.of(empty, 0, [[""]]).starts.tolist() == []


def letters_of(offsets, text):
    """Return the numbers of each token's characters without spaces; a lone ▁ has none of the next token's."""
    letters = [{c for c in range(*some) if not text[c].isspace()} for some in offsets]
    for i, ((start, stop), (next_start, next_stop)) in enumerate(itertools.pairwise(offsets)):
        if start == next_start and stop < next_stop:
            letters[i] = set()
    return letters


@settings(max_examples=80, deadline=None)
@given(TEXT, st.sampled_from([(WORDPIECE, BYTES), (WORDPIECE, UNIGRAM), (UNIGRAM, BYTES)]))
def test_partners_share_characters_and_nothing_else_does(text, pair):
    """Prevents a token without a partner beside one that it overlaps; counted character by character."""
    own, other = (tokenizer([text]) for tokenizer in pair)
    starts, stops = overlaps(Spans.of(own, 0, [[text]]), Spans.of(other, 0, [[text]]))
    letters = [letters_of(one.encodings[0].offsets, text) for one in (own, other)]
    for place in range(1, len(starts) - 1):
        shared = [i for i, one in enumerate(letters[1]) if one & letters[0][place]]
        found = list(range(starts[place], stops[place]))
        same = [i for i, one in enumerate(letters[0]) if one == letters[0][place]]
        if len(same) == 1:  # several tokens of the same characters share their partners
            assert [i for i in found if letters[1][i]] == shared
        assert set(found) <= {i for i in range(len(letters[1])) if not letters[1][i]} | set(shared)


def parts(count):
    """Return the places of tokens that share one character."""
    edges = 1 + np.arange(count + 1) / count
    return Spans(np.zeros(count, dtype=int), edges[:-1], edges[1:])


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (1, [(0, 1)] * 4),
        (2, [(0, 1), (0, 1), (1, 2), (1, 2)]),
        (3, [(0, 1), (0, 2), (1, 3), (2, 3)]),
        (4, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_tokens_of_the_same_characters_share_the_partners(count, wanted):
    """Prevents bytes of one character that all have the mean of all others, where each has an equal."""
    assert list(zip(*overlaps(parts(4), parts(count)), strict=True)) == wanted
