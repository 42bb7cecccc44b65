"""Narrower embeddings by SVD: the teacher's states where the tables allow it, nearer than chance where they do not."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from distil_nlp.errors import UserError
from distil_nlp.models import build_student
from distil_nlp.models.vocabulary.factorisation import EMBEDDING_PROJECTIONS
from tests.helpers import tiny
from tests.helpers.families import classifier_of

FAMILIES = {
    "ConvBert": {"embedding_size": 32},
    "Deberta": {},
    "DebertaV2": {"position_biased_input": False},
    "Electra": {"embedding_size": 32},
    "RemBert": {"input_embedding_size": 16},
    "RoFormer": {"embedding_size": 32},
}
RANK = 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def teacher_of(family, rank=None):
    """A tiny teacher with embeddings of distinct norms; with tables that lie within `rank` dimensions."""
    model = classifier_of(family, **FAMILIES[family]).eval().to(DEVICE)
    torch.manual_seed(0)
    embeddings = model.base_model.embeddings
    tables = [module for module in embeddings.modules() if isinstance(module, torch.nn.Embedding)]
    width = tables[0].embedding_dim
    basis = torch.randn(rank or width, width, device=DEVICE)
    with torch.no_grad():
        for table in tables:
            table.weight.copy_(torch.randn(table.num_embeddings, len(basis), device=DEVICE) @ basis)
        for name, parameter in model.named_parameters():
            if "LayerNorm" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def states(model):
    torch.manual_seed(1)
    ids = torch.randint(5, model.config.vocab_size, (3, 7))
    with torch.no_grad():
        output = model.eval().base_model(input_ids=ids.to(model.device), output_hidden_states=True)
    return output.hidden_states[0].cpu(), output.last_hidden_state.cpu()


def test_every_family_with_a_projection_is_tried():
    """Prevents a family of the table that nobody has factorised."""
    types = {classifier_of(family, **changes).config.model_type for family, changes in FAMILIES.items()}
    assert types == EMBEDDING_PROJECTIONS.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_of_few_dimensions_give_the_teachers_states(family):
    """Prevents a projection that forgets the norm's mean, gain or shift, and tables that are cut on different axes."""
    teacher = teacher_of(family, RANK)
    depth = teacher.config.num_hidden_layers
    student, report = build_student(teacher, list(range(depth)), embedding_size=RANK + 1)
    assert report.embeddings["variance"] == pytest.approx(1)
    assert not report.new
    for ours, theirs in zip(states(student), states(teacher), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_more_features_are_nearer(family):
    """Prevents directions of least variance in place of those of most."""
    teacher = teacher_of(family)
    wanted = states(teacher)[0]
    depth, width = teacher.config.num_hidden_layers, teacher.base_model.embeddings.word_embeddings.embedding_dim
    found = []
    for size in (3, width // 2, width - 1):
        student, report = build_student(teacher, list(range(depth)), embedding_size=size)
        found.append((report.embeddings["variance"], float((states(student)[0] - wanted).norm())))
    assert [variance for variance, _ in found] == sorted(variance for variance, _ in found)
    assert [distance for _, distance in found] == sorted((distance for _, distance in found), reverse=True)


def test_the_student_is_plain_and_has_fewer_weights(tmp_path):
    """Prevents a size that is lost when the student is saved: DeBERTa's configuration has no such field of its own."""
    teacher = teacher_of("DebertaV2")
    student, _ = build_student(teacher, embedding_size=8)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.base_model.embeddings.word_embeddings.weight.shape == (teacher.config.vocab_size, 8)
    for ours, theirs in zip(states(loaded), states(student), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("family", "size", "words"),
    [("Bert", 8, "families convbert, deberta"), ("Electra", 32, "fewer than the teacher's 32 features")],
)
def test_what_cannot_be_narrower_is_refused(family, size, words):
    """Prevents a setting without effect."""
    teacher = tiny.classifier(2) if family == "Bert" else teacher_of(family)
    with pytest.raises(UserError) as raised:
        build_student(teacher, embedding_size=size)
    assert words in str(raised.value)
