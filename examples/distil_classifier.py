"""Distil a fine-tuned classifier on rows of your own: a Trainer as you know it, with a teacher.

python examples/distil_classifier.py my-classifier rows.csv runs/classifier
"""

import argparse
import csv

from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, TrainingArguments

from distil_nlp import DistillationTrainer, HardLabel, HiddenMSE, Objective, SoftTargetKL, build_student

parser = argparse.ArgumentParser(description="Distil a classifier into half its layers.")
parser.add_argument("teacher", help="a folder, or a name on the Hub: a classifier that is fine-tuned already")
parser.add_argument(
    "rows", help="a CSV file with the columns text and label; labels are names of the teacher's classes"
)
parser.add_argument("output_dir")
parser.add_argument("--max-steps", type=int, default=-1)
options = parser.parse_args()

# 1. Rows: every tenth is held out. Training on them, and scoring on them, would tell nothing.
teacher = AutoModelForSequenceClassification.from_pretrained(options.teacher)
tokenizer = AutoTokenizer.from_pretrained(options.teacher)
with open(options.rows, encoding="utf-8", newline="") as file:
    rows = [
        {**tokenizer(row["text"], truncation=True, max_length=64), "labels": teacher.config.label2id[row["label"]]}
        for row in csv.DictReader(file)
    ]
held_out, training = rows[::10], [row for number, row in enumerate(rows) if number % 10]

# 2. Every other layer of the teacher, with its weights.
student, report = build_student(teacher)
print(report)

# 3. The loss: the teacher's softened probabilities, the labels, and the hidden states layer by layer. That this is
#    classification is taken from the student's class.
objective = Objective([SoftTargetKL(1.0, temperature=2.0), HardLabel(0.5), HiddenMSE(1.0, layers="uniform")])


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


# 4. Training and evaluation, as with transformers' Trainer.
trainer = DistillationTrainer(
    model=student,
    teacher=teacher,
    objective=objective,
    args=TrainingArguments(
        options.output_dir, num_train_epochs=3, max_steps=options.max_steps, learning_rate=5e-5, save_strategy="no"
    ),
    train_dataset=training,
    eval_dataset=held_out,
    data_collator=DataCollatorWithPadding(tokenizer),
    compute_metrics=accuracy,
)
before = trainer.evaluate()["eval_accuracy"]
trainer.train()
print(f"accuracy of the copied layers {before:.3f}, after distillation {trainer.evaluate()['eval_accuracy']:.3f}")

# 5. The student alone: any transformers program loads it.
trainer.detach().save_pretrained(f"{options.output_dir}/student")
tokenizer.save_pretrained(f"{options.output_dir}/student")
