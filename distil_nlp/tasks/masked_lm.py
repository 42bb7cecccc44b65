"""Masked language modelling: a distribution over the vocabulary for each chosen token."""

from distil_nlp.tasks.kind import TaskKind

MASKED_LM = TaskKind(
    name="mlm",
    module="masked_lm",
    auto_model="AutoModelForMaskedLM",
    head_name="masked-LM",
    title="masked language modelling",
    has_labels=False,
    problem_type=None,
    level="token",
    output="distribution",
    label_rows="masked",
    data_keys=frozenset({"masking", "held_out_share"}),
    max_text_columns=1,
    streams=True,
    can_augment=False,
    names_corpus=True,
    headline="accuracy",
    evaluation_splits=("validation",),
    majority_name="token frequencies",
    predicted="token",
    metric_names=(("accuracy", "top-1 accuracy"),),
    metric_note="Accuracy is top-1 on masked tokens; a lower perplexity is better.",
    pipeline_tag="fill-mask",
    example_input='f"Write a text with a {model.tokenizer.mask_token} here."',
    hub_tags=("masked-language-modeling",),
    purpose="filling in masked words, and as a start for fine-tuning",
    truncation="packed into blocks of",
    limits=("Perplexity is over masked tokens, and compares only with the same vocabulary and masking.",),
)
