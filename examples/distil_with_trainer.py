"""Distil a masked language model into one of half the depth, with `DistillationTrainer` and no recipe.

python examples/distil_with_trainer.py google-bert/bert-base-uncased runs/mine --texts texts.txt --max-steps 1000
"""

import argparse
from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling, TrainingArguments

from distil_nlp import (
    DistillationTrainer,
    HardLabel,
    HiddenCosine,
    Objective,
    SoftTargetKL,
    build_student,
    choose_layers,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("teacher", help="a name on the Hub, or a folder")
parser.add_argument("output_dir", help="the student is saved in its folder student/")
parser.add_argument("--texts", type=Path, required=True, help="a file with one text per line")
parser.add_argument("--max-steps", type=int, default=100)
options = parser.parse_args()

# 1. The teacher. It is never trained: the trainer freezes it and leaves dropout out.
teacher = AutoModelForMaskedLM.from_pretrained(options.teacher)
tokenizer = AutoTokenizer.from_pretrained(options.teacher)

# 2. The student: the same architecture with every other layer, its weights copied from the teacher's.
layers = choose_layers("every_other", teacher.config.num_hidden_layers, None)
student, _ = build_student(teacher, layers)

# 3. The data: tokens of any length up to 128. The collator masks 15 % of them anew in each batch.
texts = [line for line in options.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
rows = [tokenizer(text, truncation=True, max_length=128) for text in texts]

# 4. The objective: DistilBERT's three terms with its weights. Each term is logged under its name.
objective = Objective(
    [
        SoftTargetKL(5.0, temperature=2.0),  # match the teacher's distribution over words, softened
        HardLabel(2.0),  # predict the masked words themselves
        HiddenCosine(1.0, layers="last"),  # point the last hidden states in the teacher's direction
    ]
)

# 5. Training, with any of the fields of transformers' TrainingArguments.
args = TrainingArguments(
    options.output_dir,
    max_steps=options.max_steps,
    per_device_train_batch_size=8,
    learning_rate=5e-4,
    warmup_steps=min(100, options.max_steps // 10),
    logging_steps=10,
    save_strategy="no",
)
trainer = DistillationTrainer(
    model=student,
    teacher=teacher,
    objective=objective,
    args=args,
    train_dataset=rows,
    data_collator=DataCollatorForLanguageModeling(tokenizer),
)
trainer.train()

# 6. The student alone, without the modules that only training needed: any transformers program loads it.
folder = Path(options.output_dir) / "student"
trainer.detach().save_pretrained(folder)
tokenizer.save_pretrained(folder)
print(f"{teacher.num_parameters():,} parameters -> {student.num_parameters():,}, saved in {folder}")
