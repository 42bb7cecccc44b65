from distil_nlp import HiddenTerm


class HiddenL1(HiddenTerm):
    name, unit, formula = "hidden_l1", "absolute difference", "mean absolute difference of the hidden states"

    def loss(self, student, teacher):
        return (student - teacher.detach()).abs().mean(-1).sum()
