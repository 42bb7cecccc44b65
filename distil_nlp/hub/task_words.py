"""The words of a model card that depend on the kind of task: one table for each, by `tasks.base.Kind`."""

from __future__ import annotations

PIPELINE_TAGS = {"mlm": "fill-mask", "classification": "text-classification", "regression": "text-classification"}
"""The pipeline of transformers that runs the student, as the Hub spells it."""
TAGS = {"mlm": ["masked-language-modeling"], "classification": [], "regression": ["regression"]}
"""Tags of a dataset of one's own; a GLUE task is tagged by its name."""
PURPOSES = {
    "mlm": "filling in masked words, and as a start for fine-tuning",
    "classification": "sorting texts into the classes it was trained on",
    "regression": "giving a text the number it was trained to give",
}
UNITS = {
    "mlm": "Accuracy is top-1 on masked tokens; a lower perplexity is better.",
    "classification": "Metrics are fractions of 1.",
    "regression": "Correlations are fractions of 1; a lower mean squared error is better.",
}
LIMITS = {
    "mlm": "Perplexity is over masked tokens, and compares only with the same vocabulary and masking.",
    "classification": "",
    "regression": "",
}
PACKING = {"mlm": "packed into blocks of", "classification": "cut at", "regression": "cut at"}
"""How texts got their length, in front of the number of tokens."""

_TEXT, _PAIR = '"Write a text here."', '{"text": "The first text.", "text_pair": "The second text."}'
_MASKED = 'f"Write a text with a {model.tokenizer.mask_token} here."'
EXAMPLES = {"mlm": (_MASKED, _MASKED), "classification": (_TEXT, _PAIR), "regression": (_TEXT, _PAIR)}
"""Python of an input: (a single text, a pair)."""
CALL_OPTIONS = {"mlm": None, "classification": "", "regression": ', function_to_apply="none"'}
"""Python of further arguments; None for a pipeline that cannot truncate."""

HAS_ROW_ACCURACY = {"mlm": False, "classification": True, "regression": False}
"""Whether accuracy is a proportion of the rows, with a binomial interval."""
HAS_SOFT_OUTPUTS = {"mlm": True, "classification": True, "regression": False}
"""Whether outputs are distributions, which temperatures soften."""
HAS_TOKEN_OUTPUTS = {"mlm": True, "classification": False, "regression": False}
"""Whether there is an output for each token, so that terms on outputs choose among tokens."""
HAS_MASKING = {"mlm": True, "classification": False, "regression": False}
