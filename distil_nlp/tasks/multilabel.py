"""Multi-label classification: a probability of each of the data's labels, by itself, for each text or pair of texts."""

from distil_nlp.tasks.kind import TaskKind

MULTILABEL = TaskKind(
    name="multilabel",
    module="multilabel",
    auto_model="AutoModelForSequenceClassification",
    head_name="multi-label classification",
    title="multi-label classification",
    has_labels=True,
    problem_type="multi_label_classification",
    level="sequence",
    output="labels",
    label_rows="labelled",
    data_keys=frozenset(
        {
            "label_column",
            "label_columns",
            "label_separator",
            "label_names",
            "pad_to_multiple_of",
            "test_share",
            "labelled_share",
        }
    ),
    headline="f1_micro",
    majority_name="most frequent labels",
    predicted="set of labels",
    metric_names=(("f1_micro", "micro F1"), ("mean_average_precision", "mAP")),
    metric_note=(
        "Metrics are fractions of 1; F1 is that of the labels whose probability reaches the threshold, mAP needs none."
    ),
    calibration_note="Both are over each label of each row by itself, by the label’s probability.",
    threshold_rule="A text has the labels whose probability is {} or more",
    threshold_metric="micro F1",
    pipeline_tag="text-classification",
    pipeline_options=", top_k=None",
    example_input='"Write a text here."',
    hub_tags=("multi-label-classification",),
    purpose="finding which of the labels it was trained on a text has, none or several",
    truncation="cut at",
)
