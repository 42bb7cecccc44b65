# %% [markdown]
# # Comparing methods
#
# Several objectives on the same teacher, rows and seeds. The question is not which score is highest, but whether the
# difference is more than the seeds'.

# %%
TEACHER = "google-bert/bert-base-uncased"  # a name on the Hub, or a folder; one that classifies already stays as it is
MAX_STEPS, SEEDS = 20, 3
DEPTH = 1  # layers of the student: few, so that the methods have something to differ in

# %% [markdown]
# Rows, made up so that the notebook runs anywhere; with your own file the differences tell more.

# %%
import csv
import itertools

PROBLEMS = {
    "billing": ["i was charged twice", "the invoice is wrong", "my refund is missing", "the price went up"],
    "delivery": ["the parcel is late", "the courier left it outside", "tracking shows nothing", "the box was open"],
    "account": ["i cannot log in", "my password is refused", "the email needs a change", "please close my profile"],
}
OPENINGS = ["hello,", "hi there,", "good morning,", "once again,", "since monday", "for the second time"]
ENDINGS = ["please help", "what now?", "i am waiting", "thank you", "this is urgent"]

with open("tickets.csv", "w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["text", "team"])
    for team, problems in PROBLEMS.items():
        writer.writerows([" ".join(parts), team] for parts in itertools.product(OPENINGS, problems, ENDINGS))

# %% [markdown]
# ## One run for each method
#
# All but the objective is the same. The teacher is fine-tuned once: later runs find it in `runs/teachers`.

# %%
import distil_nlp

METHODS = {
    "outputs": {"soft_target_kl": {"temperature": 2.0}, "hard_label": {}},
    "outputs and states": {"soft_target_kl": {"temperature": 2.0}, "hard_label": {}, "hidden_mse": {}},
    "relations": {"soft_target_kl": {"temperature": 2.0}, "hard_label": {}, "query_relation": {}, "value_relation": {}},
}

runs = {}
for number, (name, objective) in enumerate(METHODS.items()):
    runs[name] = distil_nlp.distill(
        {
            "teacher": {"name": TEACHER, "finetune": {"max_steps": 30}, "finetune_when": "untrained"},
            "student": {"num_layers": DEPTH},
            "data": {
                "path": "tickets.csv",
                "task": "classification",
                "text_columns": "text",
                "label_column": "team",
                "max_length": 32,
            },
            "objective": objective,
            "training": {
                "output_dir": f"runs/methods/{number}",
                "max_steps": MAX_STEPS,
                "learning_rate": 1e-4,
                "per_device_train_batch_size": 16,
                "save_strategy": "no",
                "disable_tqdm": True,
            },
            "evaluation": {"seeds": SEEDS, "efficiency": "off"},
            "run": {"accept_weak_teacher": True},
        }
    )

# %% [markdown]
# ## Side by side
#
# The median of the seeds, their range, and how often the student says what its teacher says.

# %%
for name, run in runs.items():
    seeds = run.run.get("seeds.accuracy")
    agreement = run.run.get("fidelity.agreement")
    print(
        f"{name:<20} accuracy {seeds['median']:.3f} ({seeds['minimum']:.3f} to {seeds['maximum']:.3f}), "
        f"agreement {agreement:.3f}"
    )

# %% [markdown]
# Where the ranges overlap, nothing is shown yet: more seeds, more rows, or a longer training. For methods by the dozen,
# with paired intervals and a page of their own, there is `distil-nlp study`.
