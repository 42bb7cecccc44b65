"""What to do next: rules on the figures, the most pressing first."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from distil_nlp.redaction import abbreviate_home
from distil_nlp.reporting.formatting import decimal, percent, plural
from distil_nlp.reporting.scores import LABELS_ONLY, MAJORITY, headline_score, is_within_noise, majority_name
from distil_nlp.reporting.sentences import last_layer_cka
from distil_nlp.results import RunResults

ENOUGH, NEARLY_ALL = 0.95, 0.99
"""Retention below the first is called a loss; above the second there is room for a smaller student."""
ABOVE_FLOOR, LOW_CKA, WORSE_ECE = 0.02, 0.8, 0.02
_MOST, _LEAST = 3, 3
_ADDING = ("evaluation.seeds", "evaluation.baselines")
"""What a finished run can be asked for in addition: it trains the missing students alone."""
_EPOCHS = 3
"""What `TrainingArguments` take where a recipe names none."""


@dataclass(frozen=True)
class Advice:
    """A sentence, and what to type."""

    text: str
    code: str = ""
    language: str = "sh"


def advice(run: RunResults) -> list[Advice]:
    """At most three rules that apply, then how to use, share or compare the student."""
    rules = (_weak_teacher, _labels_alone, _more_seeds, _no_gain, _lost, _room, _last_layer, _calibration)
    told = [found for found in (rule(run) for rule in rules) if found][:_MOST]
    last = [_load(run), *([] if run.get("recipe.hub.push") else [_push(run)])]
    if len(told) + len(last) < _LEAST:
        last.append(_compare(run))
    return [Advice(text, _again(run, *overrides)) for text, *overrides in told] + last


def _again(run: RunResults, *overrides: str) -> str:
    """The command that adds students to the run, or runs the recipe with something changed beside it."""
    folder = _path(run)
    adds = all(override.startswith(_ADDING) for override in overrides)
    place = folder if adds else folder.with_name(f"{folder.name}-next")
    parts = [f"training.output_dir={place.as_posix()}", *filter(None, overrides)]
    recipe = shlex.quote((folder / "recipe.yaml").as_posix())
    return f"accelerate launch scripts/distill.py {recipe} \\\n  {' '.join(map(shlex.quote, parts))}"


_Told = tuple[str, ...] | None
"""A sentence and the overrides that act on it; None where there is nothing to say."""


def _weak_teacher(run: RunResults) -> _Told:
    teacher, guess = headline_score(run, "teacher"), headline_score(run, MAJORITY)
    if teacher is None or guess is None or teacher.median > guess.median + ABOVE_FLOOR:
        return None
    epochs = run.get("recipe.teacher.finetune.num_train_epochs") or _EPOCHS
    text = f"The teacher hardly beats {majority_name(run)}: fine-tune it first, or longer."
    return text, f"teacher.finetune.num_train_epochs={2 * epochs:g}"


def _labels_alone(run: RunResults) -> _Told:
    if run.get(LABELS_ONLY):
        return None
    text = "Find out whether distillation was worth it: train the same student on labels alone as well."
    return text, "evaluation.baselines=[no_distillation]"


def _more_seeds(run: RunResults) -> _Told:
    score = headline_score(run, "student")
    if score is None or len(score.values) > 1:
        return None
    return "Only one seed was run, so chance is unknown: train five students and read the median.", "evaluation.seeds=5"


def _no_gain(run: RunResults) -> _Told:
    gain = run.get(f"{LABELS_ONLY}.gain")
    if is_within_noise(gain) is None or gain["low"] > 0:
        return None
    if not is_within_noise(gain):
        text = "Distillation costs quality here: give the labels more weight against the teacher."
        return text, _doubled(run, "hard_label")
    text = "The gain of distillation is within the noise: train longer, or on more rows; rows without labels help too."
    return text, _longer(run)


def _lost(run: RunResults) -> _Told:
    kept, above = run.get("retention"), run.get("retention_above_majority")
    if kept is None or min(kept, kept if above is None else above) >= ENOUGH:
        return None
    lost = f"Of what the teacher has above {majority_name(run)} the student keeps {percent(above)}"
    if kept < ENOUGH:
        lost = "The student is clearly below its teacher"
    text = f"{lost}: train longer, keep more layers, or start from a student that was distilled on plain text."
    return text, _longer(run)


def _room(run: RunResults) -> _Told:
    above = run.get("retention_above_majority")
    kept = run.get("retention") if above is None else above
    depth = len(run.get("fidelity.cka.student_layers") or ()) - 1
    if kept is None or kept < NEARLY_ALL or depth < 2 or run.get("recipe.student.name"):
        return None
    text = f"With {plural(depth, 'layer')} the student keeps nearly all: fewer may do."
    return text, "student.layers=every_other", f"student.num_layers={depth - 1}"


def _last_layer(run: RunResults) -> _Told:
    value = last_layer_cka(run)
    if value is None or value >= LOW_CKA:
        return None
    term = "hidden_mse" if _weight(run, "hidden_mse") and not _weight(run, "hidden_cosine") else "hidden_cosine"
    text = f"The last hidden states differ from the teacher’s (CKA {decimal(value, 2)}): give them more weight."
    return text, _doubled(run, term)


def _calibration(run: RunResults) -> _Told:
    teacher, student = run.get("fidelity.ece.teacher"), run.get("fidelity.ece.student")
    if teacher is None or student is None or student <= teacher + WORSE_ECE:
        return None
    text = "The student’s confidence is further off than the teacher’s: give the soft targets more weight."
    return text, _doubled(run, "soft_target_kl")


def _weight(run: RunResults, term: str) -> float | None:
    return run.get(f"recipe.objective.{term}.weight")


def _doubled(run: RunResults, term: str) -> str:
    """Twice the weight of a term; 1 where it was not there."""
    return f"objective.{term}.weight={2 * (_weight(run, term) or 0.5):g}"


def _longer(run: RunResults) -> str:
    """Twice the steps or epochs."""
    steps = run.get("recipe.training.max_steps") or 0
    if steps > 0:
        return f"training.max_steps={2 * steps}"
    return f"training.num_train_epochs={2 * (run.get('recipe.training.num_train_epochs') or _EPOCHS):g}"


def _load(run: RunResults) -> Advice:
    model = "AutoModelForMaskedLM" if run.kind == "mlm" else "AutoModelForSequenceClassification"
    path, standard = repr((_path(run) / "student").as_posix()), ""
    if path.startswith("'~"):
        path, standard = f"Path({path}).expanduser()", "from pathlib import Path\n\n"
    return Advice(
        "Use the student: plain transformers loads it.",
        f"{standard}from transformers import {model}, AutoTokenizer\n\n"
        f"student = {model}.from_pretrained({path})\ntokenizer = AutoTokenizer.from_pretrained({path})",
        "python",
    )


def _push(run: RunResults) -> Advice:
    name = run.get("recipe.hub.repo_id") or "me/my-student"
    folder = shlex.quote(_path(run).as_posix())
    return Advice("Share it on the Hub.", f"python scripts/push_to_hub.py {folder} --repo-id {shlex.quote(name)}")


def _compare(run: RunResults) -> Advice:
    folder = _path(run)
    others = " ".join(shlex.quote(path.as_posix()) for path in (folder, folder.parent / "another-run"))
    return Advice(
        "Change one thing in the recipe, and see both runs side by side.", f"python scripts/make_report.py {others}"
    )


def _path(run: RunResults) -> Path:
    """The run's folder as it is typed from here: a report is shown to others, so no home folder in it."""
    folder, here = run.folder.resolve(), Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else Path(abbreviate_home(str(run.folder)))
