"""Vocabularies cut down: tokenizers of WordPiece, BPE and Unigram, and models whose embeddings follow."""

from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from distil_nlp.data.token_counts import by_need, count_tokens
from distil_nlp.errors import UserError
from distil_nlp.models.vocabulary import cut_embeddings, kept_ids, trim_tokenizer
from tests.helpers import byte_pairs, tiny

UNSEEN = "the ferocious zebra — 猫 — drank naïve coffee 😀 quickly\tor 3.14 ＡＢ"


def unigram():
    """A tokenizer in the form of XLM-R's, trained on the tiny sentences."""
    built = Tokenizer(models.Unigram())
    built.normalizer = normalizers.NFKC()
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    settings = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=specials, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    built.train_from_iterator(tiny.SENTENCES * 4, settings)
    pair = "<s> $A </s> </s> $B </s>"
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=pair, special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), specials, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=built, cls_token="<s>", sep_token="</s>", **names)


def word_pieces(tmp_path):
    """BERT's tokenizer with words, their parts and letters."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    words += [*dict.fromkeys(" ".join(tiny.SENTENCES).split()), "##ing", "##ed"]
    words = [*dict.fromkeys(words)]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    return BertTokenizer.from_pretrained(tmp_path)


def marked_endings():
    """A tokenizer in the form of HerBERT's, whose tokens at the end of a word are marked."""
    built = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    built.pre_tokenizer, built.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder()
    names = {
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    settings = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[*names.values()], end_of_word_suffix="</w>", show_progress=False
    )
    built.train_from_iterator(tiny.SENTENCES * 4, settings)
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=built, **names)


TOKENIZERS = {
    "WordPiece": word_pieces,
    "BPE": lambda _: byte_pairs.tokenizer(),
    "BPE with marked endings": lambda _: marked_endings(),
    "Unigram": lambda _: unigram(),
}


@pytest.fixture(params=TOKENIZERS)
def large(request, tmp_path):
    return TOKENIZERS[request.param](tmp_path)


def wanted_of(tokenizer, texts):
    return [*dict.fromkeys(number for ids in tokenizer(list(texts)).input_ids for number in ids)]


def test_texts_of_kept_tokens_are_read_as_before(large):
    """Prevents ids of other tokens, other merges, and special tokens at other places."""
    texts = tiny.SENTENCES[:3]
    smaller = trim_tokenizer(large, wanted_of(large, texts))
    kept = kept_ids(large, smaller)
    assert len(smaller) < len(large)
    assert kept == sorted(kept)
    for one in [*zip(texts, strict=True), *pairwise(texts)]:
        before, after = large(*one), smaller(*one)
        assert [kept[number] for number in after.input_ids] == before.input_ids
        assert after.keys() == before.keys()
    for name, token in large.special_tokens_map.items():
        assert smaller.special_tokens_map[name] == token
        assert kept[smaller.convert_tokens_to_ids(token)] == large.convert_tokens_to_ids(token)


def test_any_text_is_read_with_no_more_unknown_tokens(large):
    """Prevents text that can no longer be read: letters, bytes and parts of merges stay."""
    smaller = trim_tokenizer(large, ())
    unknown = [one(UNSEEN).input_ids.count(one.unk_token_id) for one in (large, smaller)]
    assert unknown[0] == unknown[1]
    assert len(smaller(UNSEEN).input_ids) >= len(large(UNSEEN).input_ids)
    for text in tiny.SENTENCES:
        assert smaller.decode(smaller(text).input_ids, skip_special_tokens=True).replace(" ", "") == (
            large.decode(large(text).input_ids, skip_special_tokens=True).replace(" ", "")
        )


def test_a_smaller_tokenizer_is_saved_and_read_again(large, tmp_path):
    """Prevents a folder in which the whole vocabulary lies beside the cut one."""
    smaller = trim_tokenizer(large, wanted_of(large, tiny.SENTENCES[:2]))
    smaller.save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert type(again) is type(smaller)
    assert again.get_vocab() == smaller.get_vocab()
    assert [again(text).input_ids for text in tiny.SENTENCES] == [smaller(text).input_ids for text in tiny.SENTENCES]


def test_other_tokenizers_are_refused():
    """Prevents a traceback, or a tokenizer whose words are all there still."""
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1}, unk_token="[UNK]"))
    with pytest.raises(UserError, match="a fast tokenizer of WordPiece, BPE, Unigram / got WordLevel"):
        trim_tokenizer(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]"), [1])


@pytest.mark.parametrize("build", [tiny.mlm_model, tiny.classifier])
def test_a_smaller_model_gives_the_same_on_texts_of_kept_words(build):
    """Prevents embeddings, biases or tied outputs of other words."""
    tokenizer, texts = tiny.tokenizer(), tiny.SENTENCES[:3]
    smaller = trim_tokenizer(tokenizer, wanted_of(tokenizer, texts))
    large = build(2).eval()
    for weight in large.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    kept = kept_ids(tokenizer, smaller)
    cut = cut_embeddings(large, kept)
    inputs = [one(texts, padding=True, return_tensors="pt") for one in (tokenizer, smaller)]
    with torch.no_grad():
        before, after = large(**inputs[0]).logits, cut(**inputs[1]).logits
    expected = before[..., kept] if build is tiny.mlm_model else before
    assert torch.equal(after, expected)
    assert cut.config.vocab_size == len(kept)
    assert cut.config.pad_token_id == smaller.pad_token_id
    assert large.config.vocab_size == len(tokenizer)
    tables = cut.get_input_embeddings().weight, (cut.get_output_embeddings() or cut.get_input_embeddings()).weight
    assert tables[0].data_ptr() == tables[1].data_ptr()


def test_roberta_keeps_its_positions():
    """Prevents positions that are counted from the place of another padding token."""
    tokenizer = byte_pairs.tokenizer()
    smaller = trim_tokenizer(tokenizer, wanted_of(tokenizer, tiny.SENTENCES[:2]))
    large = byte_pairs.classifier(2)
    cut = cut_embeddings(large, kept_ids(tokenizer, smaller))
    inputs = [one(tiny.SENTENCES[:2], padding=True, return_tensors="pt") for one in (tokenizer, smaller)]
    with torch.no_grad():
        assert torch.equal(large(**inputs[0]).logits, cut(**inputs[1]).logits)


def test_a_model_of_fewer_words_than_its_tokenizer_is_refused():
    """Prevents an index error deep within torch."""
    with pytest.raises(UserError, match="the number of the model's embeddings"):
        cut_embeddings(tiny.classifier(1), [0, 10**6])


def test_as_many_wanted_tokens_are_kept_as_fit(large):
    """Prevents a vocabulary above its size, and needed tokens that give way to those that are not."""
    texts = [text for text in tiny.SENTENCES for _ in range(3)] + ["the the the cat"]
    wanted = by_need(count_tokens(large, texts))
    least = len(trim_tokenizer(large, ()))
    for size in (least, least + 3, least + 7, len(large) + 100):
        smaller = trim_tokenizer(large, wanted, size)
        kept = {*kept_ids(large, smaller)}
        assert len(smaller) <= size
        added = [number for number in wanted if number not in kept_ids(large, trim_tokenizer(large, ()))]
        missing = [number for number in added if number not in kept]
        assert len(smaller) > size - 4 or not missing  # parts of the next token may be several
        order = added if missing else []
        later = kept & {*order[order.index(missing[0]) if missing else 0 :]}
        assert not later or large.backend_tokenizer.model.__class__.__name__ == "BPE"  # which are parts of others
    with pytest.raises(UserError, match=r"student\.vocabulary\.keep"):
        trim_tokenizer(large, wanted, least - 1)
