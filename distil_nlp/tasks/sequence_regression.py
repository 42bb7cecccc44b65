"""Sequence regression: a number for each text or pair of texts."""

from distil_nlp.tasks.kind import TaskKind

REGRESSION = TaskKind(
    name="regression",
    module="sequence_regression",
    auto_model="AutoModelForSequenceClassification",
    head_name="regression",
    title="regression",
    has_labels=True,
    problem_type="regression",
    num_labels=1,
    level="sequence",
    output="number",
    label_rows="labelled",
    data_keys=frozenset({"label_column", "pad_to_multiple_of", "test_share", "labelled_share"}),
    headline="pearson",
    majority_name="mean of the training labels",
    predicted="number",
    metric_note="Correlations are fractions of 1; a lower mean squared error is better.",
    pipeline_tag="text-classification",
    pipeline_options=', function_to_apply="none"',
    example_input='"Write a text here."',
    hub_tags=("regression",),
    purpose="giving a text the number it was trained to give",
    truncation="cut at",
)
