"""Sentence embeddings: a vector for each text, whose cosines tell how alike texts are."""

from distil_nlp.tasks.kind import TaskKind

TEXTS = "embedding_texts"
"""Name of the task of single texts, which have no scores: its headline is the cosine to the teacher's vectors."""

SENTENCE_EMBEDDING = TaskKind(
    name="embedding",
    module="embedding",
    auto_model="AutoModel",
    head_name="sentence-embedding",
    title="sentence embeddings",
    has_labels=False,
    problem_type=None,
    level="sequence",
    output="embedding",
    label_rows="sequences",
    data_keys=frozenset({"label_column", "pad_to_multiple_of", "test_share", "pooling", "normalize"}),
    joins_pairs=False,
    task_of_texts=TEXTS,
    learns_labels=False,
    can_augment=False,
    names_corpus=True,
    reads_other_tokens=False,
    headline="spearman_cosine",
    majority_name="word overlap (TF-IDF)",
    guess="which words two texts share",
    predicted="vector",
    row_error="error (of pairs the distance of the rank by cosine from that by score, of single texts 1 − cosine)",
    metric_names=(
        ("spearman_cosine", "Spearman correlation of cosines"),
        ("pearson_cosine", "Pearson correlation of cosines"),
        ("spearman_asymmetric", "Spearman, second texts by the teacher"),
        ("teacher_cosine", "cosine to the teacher"),
    ),
    metric_note="Correlations are those of the cosines of pairs with the data’s scores. All are fractions of 1.",
    pipeline_tag="sentence-similarity",
    library="sentence-transformers",
    example_input='["Write a text here.", "And another one."]',
    example_pair='["Write a text here.", "And another one."]',
    hub_tags=("sentence-transformers", "sentence-similarity", "feature-extraction"),
    purpose="giving texts vectors, which are compared by their cosines",
    truncation="cut at",
)
