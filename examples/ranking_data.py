"""Ranking data of QNLI: questions, each with a sentence that answers it and sentences that a search would find.

Run with the folder of a local copy of GLUE's QNLI, and a folder for the rows:

    python examples/ranking_data.py GLUE/qnli qnli-ranking

A question's documents are the sentences that QNLI has for it, and the others of its split with the most words in
common (TF-IDF), ten in all. Answers have relevance 1. Sentences that were found have 0, though one of them may answer
the question too: nobody has judged them.
"""

import sys
from collections import defaultdict
from pathlib import Path

from datasets import Dataset, load_dataset
from sklearn.feature_extraction.text import TfidfVectorizer

DOCUMENTS = 10


def judged_sentences(rows):
    """Return question → {sentence: relevance}, of questions with an answer."""
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        judged[row["question"]][row["sentence"]] = int(row["label"] == 0)  # 0 is entailment: an answer
    return {question: sentences for question, sentences in judged.items() if any(sentences.values())}


def ranked_rows(rows):
    """Yield rows of query, document and relevance, those of a question next to each other."""
    judged, sentences = judged_sentences(rows), sorted(set(rows["sentence"]))
    vectorizer = TfidfVectorizer(sublinear_tf=True)
    documents = vectorizer.fit_transform(sentences)
    for question, relevance in judged.items():
        likeness = (vectorizer.transform([question]) @ documents.T).toarray()[0]
        found = [sentences[i] for i in (-likeness).argsort(kind="stable")[: 2 * DOCUMENTS]]
        others = [sentence for sentence in found if sentence not in relevance]
        for document in [*relevance, *others][:DOCUMENTS]:
            yield {"query": question, "document": document, "label": relevance.get(document, 0)}


def write_rows(source, target):
    """Write a file of JSON lines for each split of the dataset."""
    Path(target).mkdir(parents=True, exist_ok=True)
    for split, rows in load_dataset(source).items():
        Dataset.from_list([*ranked_rows(rows)]).to_json(Path(target) / f"{split}.jsonl")


if __name__ == "__main__":
    write_rows(*sys.argv[1:])
