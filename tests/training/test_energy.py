"""Energy and carbon of a training, from a tracker of codecarbon that does not measure."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from transformers import integrations

from distil_nlp.pipeline import publication
from distil_nlp.training import energy
from tests.helpers.runs import Place

SHORT = ("training.max_steps=2", "training.report_to=codecarbon")


@dataclasses.dataclass
class Found:
    """The fields of codecarbon's `EmissionsData` that are read."""

    energy_consumed: float = 0.25
    cpu_energy: float = 0.2
    gpu_energy: float = 0.0
    ram_energy: float = 0.05
    emissions: float = 0.125
    country_iso_code: str = "DEU"
    latitude: float | None = None
    longitude: float | None = None
    codecarbon_version: str = "3.3.2"


class Tracker:
    """A tracker of codecarbon that knows what it will find."""

    found = Found()

    def __init__(self, output_dir):
        self.final_emissions_data = None

    def start(self):
        pass

    def stop(self):
        self.final_emissions_data = self.found


class Callback(integrations.CodeCarbonCallback):
    """The callback of transformers without codecarbon."""

    def __init__(self):
        self._codecarbon, self.tracker = SimpleNamespace(EmissionsTracker=Tracker), None


@pytest.fixture(autouse=True)
def fake_tracker(monkeypatch):
    monkeypatch.setitem(integrations.integration_utils.INTEGRATION_TO_CALLBACK, "codecarbon", Callback)
    monkeypatch.setattr(energy, "has_country", lambda: False)
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def test_a_run_keeps_its_energy_and_its_card_the_carbon(place):
    """Prevents a measurement that ends in a file that nobody reads."""
    assert place.run(*SHORT) == 0
    assert place.results["training"]["energy"] == {
        "kwh": 0.25, "cpu_kwh": 0.2, "gpu_kwh": 0.0, "ram_kwh": 0.05, "co2_kg": 0.125, "country": "DEU",
        "codecarbon": "3.3.2",
    }  # fmt: skip
    card = ModelCard.load(place.out / "student" / "README.md")
    emissions = card.data.to_dict()["co2_eq_emissions"]
    assert emissions["emissions"] == 125.0
    assert emissions["source"] == "codecarbon"
    assert emissions["geographical_location"] == "DEU"
    assert "0.250 kWh by codecarbon" in card.text.replace("\u00a0", " ")


def test_a_country_that_was_guessed_has_no_carbon(place, monkeypatch, capsys):
    """Prevents the carbon of Quebec's hydropower for a machine that could not ask where it is."""
    monkeypatch.setattr(Tracker, "found", Found(country_iso_code="CAN", latitude=46.8, longitude=-71.2))
    assert place.run(*SHORT) == 0
    found = place.results["training"]["energy"]
    assert (found["kwh"], found["co2_kg"], found["country"]) == (0.25, None, None)
    assert "CODECARBON_COUNTRY_ISO_CODE" in capsys.readouterr().out
    assert "co2_eq_emissions" not in ModelCard.load(place.out / "student" / "README.md").data.to_dict()


def test_a_run_without_a_tracker_has_none(place):
    """Prevents 0 kWh where nobody measured."""
    assert place.run("training.max_steps=2") == 0
    assert place.results["training"]["energy"] is None
    assert "kWh" not in (place.out / "student" / "README.md").read_text()
    assert json.loads((place.out / "training.json").read_text())["energy"] is None


def test_a_country_that_is_told_needs_no_network(tmp_path, monkeypatch):
    """Prevents a tracker that asks the network for what the user has said."""
    codecarbon = pytest.importorskip("codecarbon")
    monkeypatch.setattr(energy, "has_country", HAS_COUNTRY)
    monkeypatch.setenv("CODECARBON_COUNTRY_ISO_CODE", "DEU")
    callback = Callback()
    callback.tracker = Tracker(str(tmp_path))
    trainer = SimpleNamespace(
        callback_handler=SimpleNamespace(callbacks=[callback]), args=SimpleNamespace(output_dir=str(tmp_path))
    )
    energy.track_country(trainer)
    assert isinstance(callback.tracker, codecarbon.OfflineEmissionsTracker)
    monkeypatch.delenv("CODECARBON_COUNTRY_ISO_CODE")
    callback.tracker = own = Tracker(str(tmp_path))
    energy.track_country(trainer)
    assert callback.tracker is own


HAS_COUNTRY = energy.has_country
