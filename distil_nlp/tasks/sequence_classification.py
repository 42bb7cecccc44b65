"""Sequence classification: a distribution over the data's classes for each text or pair of texts."""

from distil_nlp.tasks.kind import TaskKind

CLASSIFICATION = TaskKind(
    name="classification",
    module="sequence_classification",
    auto_model="AutoModelForSequenceClassification",
    head_name="classification",
    title="classification",
    has_labels=True,
    problem_type="single_label_classification",
    level="sequence",
    output="distribution",
    label_rows="labelled",
    data_keys=frozenset({"label_column", "label_names", "pad_to_multiple_of", "test_share", "labelled_share"}),
    headline="accuracy",
    majority_name="majority class",
    predicted="class",
    metric_note="Metrics are fractions of 1.",
    pipeline_tag="text-classification",
    example_input='"Write a text here."',
    purpose="sorting texts into the classes it was trained on",
    truncation="cut at",
)
