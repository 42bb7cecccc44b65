"""A tiny SentencePiece tokenizer (Unigram, as XLM-R's), whose tokens begin with ▁ where a space was."""

import string

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.helpers.byte_pairs import SPECIALS, with_special_tokens

WORDS = ("▁the", "▁a", "▁cat", "▁dog", "▁walk", "▁play", "▁fi", "▁s", "ing", "ed", "see")
LETTERS = ("▁", *string.ascii_letters, *".,?'")


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a Unigram tokenizer of about 70 tokens, with the special tokens and inputs of XLM-R."""
    pieces = (
        [(token, 0.0) for token in SPECIALS] + [(token, -3.0) for token in WORDS] + [(one, -6.0) for one in LETTERS]
    )
    built = Tokenizer(models.Unigram(pieces, unk_id=3))
    built.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" {2,}", " ")])
    built.pre_tokenizer, built.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    built.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return with_special_tokens(built)
