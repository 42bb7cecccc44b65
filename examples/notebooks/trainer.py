# %% [markdown]
# # The trainer in a notebook
#
# `DistillationTrainer` is a `transformers.Trainer` with a teacher and an objective. Here a classifier teaches a
# student of half its layers, step by step.

# %%
TEACHER = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"  # any classifier: a name on the Hub, or a folder
MAX_STEPS = 60

# %% [markdown]
# Rows without labels: whatever text is at hand. The teacher's answers are what is learned.

# %%
import itertools

from transformers import AutoModelForSequenceClassification, AutoTokenizer

teacher = AutoModelForSequenceClassification.from_pretrained(TEACHER).eval()
tokenizer = AutoTokenizer.from_pretrained(TEACHER)

SUBJECTS = ["the film", "this book", "her new record", "the meal", "our hotel", "the game", "his talk", "the concert"]
OPINIONS = [
    "is a delight",
    "was a waste of time",
    "left me cold",
    "is worth every cent",
    "is well made",
    "bored us all",
]
ENDINGS = ["", "from start to end", "for once", "like the last one"]
texts = [" ".join(parts).strip() for parts in itertools.product(SUBJECTS, OPINIONS, ENDINGS)]
rows = [dict(tokenizer(text)) for text in texts]
held_out, training = rows[::8], [row for number, row in enumerate(rows) if number % 8]
print(f"{len(training)} rows to learn from, {len(held_out)} held out")

# %% [markdown]
# ## The student
#
# Every other layer of the teacher, with its weights; `layers="first"` or `[1, 3]` for others.

# %%
from distil_nlp import build_student

student, report = build_student(teacher)
print(report)

# %% [markdown]
# ## The objective
#
# Terms are summed, each with its weight. That this is classification is taken from the student's class.

# %%
from distil_nlp import HiddenCosine, Objective, SoftTargetKL

objective = Objective([SoftTargetKL(1.0, temperature=2.0), HiddenCosine(1.0, layers="uniform")])

# %% [markdown]
# ## Training
#
# All arguments are those of `Trainer`.

# %%
from transformers import DataCollatorWithPadding, TrainingArguments

from distil_nlp import DistillationTrainer

trainer = DistillationTrainer(
    model=student,
    teacher=teacher,
    objective=objective,
    args=TrainingArguments(
        "runs/notebook-trainer",
        max_steps=MAX_STEPS,
        learning_rate=5e-5,
        per_device_train_batch_size=16,
        logging_steps=max(MAX_STEPS // 10, 1),
        save_strategy="no",
        disable_tqdm=True,
    ),
    train_dataset=training,
    data_collator=DataCollatorWithPadding(tokenizer),
)
trainer.train()

# %% [markdown]
# What each term did: the log has a column for each, named as in a recipe.

# %%
logged = [entry for entry in trainer.state.log_history if "soft_target_kl" in entry]
print(f"{'step':>6}{'soft_target_kl':>16}{'hidden_cosine':>16}")
for entry in logged:
    print(f"{entry['step']:>6}{entry['soft_target_kl']:>16.4f}{entry['hidden_cosine']:>16.4f}")

# %% [markdown]
# ## Agreement
#
# On how many held-out rows student and teacher say the same.

# %%
import torch


@torch.no_grad()
def predict(model):
    model.eval().cpu()
    return [int(model(**tokenizer.pad([row], return_tensors="pt")).logits.argmax()) for row in held_out]


pairs = list(zip(predict(teacher), predict(student), strict=True))
print(f"agreement: {sum(one == other for one, other in pairs)} of {len(pairs)}")

# %% [markdown]
# ## The student alone
#
# `detach` takes away what training added; plain transformers loads what is saved.

# %%
trainer.detach().save_pretrained("runs/notebook-trainer/student")
tokenizer.save_pretrained("runs/notebook-trainer/student")
