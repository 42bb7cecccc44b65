"""Distil with a loss of your own: a formula, a class of six lines, and the trainer as usual.

python examples/own_loss.py google-bert/bert-base-uncased runs/own_loss

The same loss in a recipe, with seeds, baselines and a report: own_terms.yaml beside this file.
"""

import sys

from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling, TrainingArguments

from distil_nlp import DistillationTrainer, HiddenTerm, Objective, SoftTargetKL, build_student

TEXTS = ["The cat sees the dog.", "A big red bird walked slowly under the old tree."] * 8


def hidden_l1(student, teacher):
    """Return Σ_rows mean_width |student − teacher| of hidden states, (rows, width) each.

    A sum over rows, not a mean: the trainer divides once, by the rows of the whole optimiser step. Padding is gone
    already. `detach` keeps gradients from the teacher.
    """
    return (student.float() - teacher.detach().float()).abs().mean(-1).sum()


class HiddenL1(HiddenTerm):
    """`hidden_l1`: mean absolute difference of hidden states, per token and pair of layers.

    `HiddenTerm` pairs the layers, captures their states and projects a student of another width. Its neighbours:
    `SoftTerm` compares logits, `LabelTerm` logits and labels, `BatchTerm` the rows of a batch with each other.
    """

    name = "hidden_l1"  # in the log: hidden_l1 beside loss
    unit = "absolute difference"
    formula = "mean absolute difference of the hidden states"
    loss = staticmethod(hidden_l1)


def main(teacher_name, output_dir):
    """Distil `teacher_name` into half its layers and save the student."""
    teacher = AutoModelForMaskedLM.from_pretrained(teacher_name)
    tokenizer = AutoTokenizer.from_pretrained(teacher_name)
    student, _ = build_student(teacher)
    trainer = DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective([SoftTargetKL(1.0, temperature=2.0), HiddenL1(1.0, layers="uniform")]),
        args=TrainingArguments(output_dir, max_steps=4, logging_steps=1, save_strategy="no"),
        train_dataset=[tokenizer(text) for text in TEXTS],
        data_collator=DataCollatorForLanguageModeling(tokenizer),
    )
    trainer.train()
    print(trainer.state.log_history[0])  # the loss of the first step, and each term under its name
    trainer.detach().save_pretrained(f"{output_dir}/student")
    tokenizer.save_pretrained(f"{output_dir}/student")


if __name__ == "__main__":
    main(*sys.argv[1:])
