"""Extractive question answering: where in a text the answer to a question starts and ends, as in SQuAD."""

from distil_nlp.tasks.kind import TaskKind

QA = TaskKind(
    name="qa",
    module="qa",
    auto_model="AutoModelForQuestionAnswering",
    head_name="question answering",
    title="question answering",
    has_labels=True,
    problem_type=None,
    num_labels=2,
    level="sequence",
    output="spans",
    label_rows="labelled",
    columns=frozenset(
        {"labels", "is_allowed", "question_id", "question", "context", "answers", "token_starts", "token_ends"}
    ),
    data_keys=frozenset({"label_column", "pad_to_multiple_of", "test_share", "stride"}),
    can_augment=False,
    reads_other_tokens=False,
    headline="f1",
    majority_name="answer without a model",
    predicted="answer",
    compared="question",
    metric_names=(
        ("f1", "F1"),
        ("exact_match", "exact match"),
        ("HasAns_f1", "F1 of questions with an answer"),
        ("HasAns_exact", "exact match of questions with an answer"),
        ("NoAns_f1", "right where there is none"),
    ),
    metric_note=(
        "Metrics are fractions of 1, over questions, with the best answer of all windows of the context. Exact match "
        "and F1 of words are those of SQuAD’s script."
    ),
    threshold_rule=(
        "A question has no answer where the score of [CLS] as start and end, minus that of the best answer, is above {}"
    ),
    threshold_metric="F1",
    pipeline_tag="question-answering",
    usage="""import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("STUDENT")
model = AutoModelForQuestionAnswering.from_pretrained("STUDENT").eval()
question, context = "Who wrote it?", "It was written by Ada in 1843."
inputs = tokenizer(question, context, truncation="only_second", return_offsets_mapping=True, return_tensors="pt")
offsets, in_context = inputs.pop("offset_mapping")[0], [part == 1 for part in inputs.sequence_ids(0)]
with torch.no_grad():
    output = model(**inputs)
outside = ~torch.tensor(in_context)
start, end = (logits[0].masked_fill(outside, -1e30) for logits in (output.start_logits, output.end_logits))
scores = (start[:, None] + end[None]).masked_fill(~torch.ones(len(start), len(start)).triu().tril(29).bool(), -2e30)
first, last = divmod(int(scores.argmax()), len(start))
cls = inputs["input_ids"][0].tolist().index(tokenizer.cls_token_id)
none = output.start_logits[0, cls] + output.end_logits[0, cls]
threshold = getattr(model.config, "threshold", float("inf"))  # where questions may have no answer
print("" if none - scores.max() > threshold else context[offsets[first][0] : offsets[last][1]])""",
    truncates=False,
    example_input='{"question": "Who wrote it?", "context": "It was written by Ada in 1843."}',
    hub_tags=("question-answering", "extractive-qa"),
    purpose="finding the answer to a question in a text that has it",
    truncation="cut into overlapping windows of",
    limit="An answer is a piece of the given text, of 30 tokens at most; the model knows nothing but the text.",
)
