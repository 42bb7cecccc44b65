# %% [markdown]
# # From results.json to a plot of your own
#
# Every finished run leaves `results.json`. Nothing here needs a model: the figures are read, and drawn.

# %%
RUNS = "runs"  # the folder that your runs are in
PLOT = "retention.png"

# %%
import json
from pathlib import Path

results = {path.parent.name: json.loads(path.read_text()) for path in sorted(Path(RUNS).rglob("results.json"))}
results = {name: found for name, found in results.items() if found.get("student", {}).get("metrics")}
print(*results, sep="\n")

# %% [markdown]
# ## What is in it
#
# `docs/results_schema.md` names every key. Any may be missing, so ask with `get`.

# %%
for name, found in results.items():
    metric = found["headline"]
    teacher, student = found["teacher"]["metrics"].get(metric), found["student"]["metrics"].get(metric)
    print(name, metric, "teacher", teacher, "student", student, "retention", found.get("retention"))

# %% [markdown]
# ## Scores of all seeds and baselines
#
# A point for each seed, a line for teacher and majority class.

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(1, len(results), figsize=(4 * len(results), 3), squeeze=False)
for axis, (name, found) in zip(axes[0], results.items(), strict=True):
    metric = found["headline"]
    rows = {"student": found.get("seeds", {}).get(metric, {}).get("values") or [found["student"]["metrics"][metric]]}
    for baseline, entry in (found.get("baselines") or {}).items():
        if entry and baseline != "majority":
            seeds = (entry.get("seeds") or {}).get(metric) or {}
            rows[baseline] = seeds.get("values") or [entry["metrics"][metric]]
    for height, (label, values) in enumerate(rows.items()):
        axis.plot(values, [height] * len(values), "o", alpha=0.7, label=label)
    for label, value in (
        ("teacher", found["teacher"]["metrics"].get(metric)),
        ("majority", (found.get("baselines") or {}).get("majority", {}).get("metrics", {}).get(metric)),
    ):
        if value is not None:
            axis.axvline(value, color="grey", linestyle="-" if label == "teacher" else ":")
    axis.set(title=name, xlabel=metric, yticks=range(len(rows)), yticklabels=list(rows))
figure.tight_layout()
figure.savefig(PLOT, dpi=150)

# %% [markdown]
# ## The course of the training
#
# `training.history` has every logged value, a key for each term.

# %%
figure, axis = plt.subplots(figsize=(5, 3))
name, found = next(iter(results.items()))
history = found["training"]["history"]
for term in found["training"]["final_terms"]:
    logged = [(entry["step"], entry[term]) for entry in history if term in entry]
    axis.plot(*zip(*logged, strict=True), label=term)
axis.set(title=name, xlabel="step", yscale="log")
axis.legend()
