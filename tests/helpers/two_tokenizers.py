"""A run whose teacher and student read other tokens."""

import shutil

from tests.helpers import byte_pairs, tiny
from tests.helpers.runs import Place

NAMES = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
OUTPUTS = ("objective.hidden_cosine=null", "objective.attention_kl=null", "objective.pkd={weight: 1.0}")


class TwoTokenizers(Place):
    """A RoBERTa teacher, a BERT student, and rows of which some are longer than either reads."""

    def prepare(self):
        super().prepare()
        shutil.rmtree(self.folder / "teacher")
        byte_pairs.classifier(4, **NAMES).save_pretrained(self.folder / "teacher")
        byte_pairs.tokenizer().save_pretrained(self.folder / "teacher")
        tiny.classifier(2, seed=1, **NAMES).save_pretrained(self.folder / "start")
        tiny.tokenizer().save_pretrained(self.folder / "start")
        return self

    def command(self, *overrides):
        return super().command(f"student.name={self.folder / 'start'}", *OUTPUTS, *overrides)
