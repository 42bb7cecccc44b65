"""Ranking: a score for each pair of query and document, by which the documents of a query are ordered (rerankers)."""

from distil_nlp.tasks.kind import TaskKind

RANKING = TaskKind(
    name="ranking",
    module="ranking",
    auto_model="AutoModelForSequenceClassification",
    head_name="ranking",
    title="ranking",
    has_labels=True,
    problem_type=None,
    num_labels=1,
    level="sequence",
    output="score",
    label_rows="labelled",
    columns=frozenset({"labels", "filler"}),
    data_keys=frozenset({"label_column", "group_column", "group_size", "pad_to_multiple_of", "test_share"}),
    can_augment=False,
    reads_other_tokens=False,
    headline="ndcg_at_10",
    majority_name="word overlap (TF-IDF)",
    guess="which words query and document share",
    predicted="score",
    row_name="pair",
    row_error="fraction of the query’s documents of other relevance that are wrongly ordered with it",
    drawn="query",
    metric_names=(("ndcg_at_10", "NDCG@10"), ("mrr_at_10", "MRR@10")),
    metric_note=(
        "Metrics are means over queries, fractions of 1; queries without a relevant document, or with one, are "
        "left out."
    ),
    pipeline_tag="text-classification",
    pipeline_options=', function_to_apply="none"',
    example_input='{"text": "A query.", "text_pair": "A document."}',
    example_pair='{"text": "A query.", "text_pair": "A document."}',
    hub_tags=("cross-encoder", "reranker", "text-ranking"),
    purpose="ordering the documents that a search found for a query, by their scores",
    truncation="cut at",
)
