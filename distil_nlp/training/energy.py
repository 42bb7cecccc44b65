"""Energy and carbon of a training, as codecarbon measured or estimated them (`report_to: codecarbon`).

codecarbon asks a service on the network where it is, for the carbon of the country's electricity. Where the country is
set (`CODECARBON_COUNTRY_ISO_CODE=DEU`, or `country_iso_code` in `.codecarbon.config`) nobody is asked. Without either
codecarbon takes Quebec, whose electricity has next to no carbon; such a figure is dropped here.
"""

from __future__ import annotations

from typing import Any

from transformers import Trainer
from transformers.integrations import CodeCarbonCallback

from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

COUNTRY_VARIABLE = "CODECARBON_COUNTRY_ISO_CODE"
_NOWHERE = ("CAN", 46.8, -71.2)
"""Country, latitude and longitude that codecarbon takes where it could not find out."""


def track_country(trainer: Trainer) -> None:
    """Let the tracker of a trainer, if it has one, ask nobody for its country where that is set."""
    callback = _callback(trainer)
    if callback is None or callback.tracker is None:
        return
    if has_country():
        from codecarbon import OfflineEmissionsTracker

        callback.tracker = OfflineEmissionsTracker(output_dir=trainer.args.output_dir)


def has_country() -> bool:
    """Return whether codecarbon's own settings name a country."""
    from codecarbon.core.config import get_hierarchical_config

    return bool(get_hierarchical_config().get("country_iso_code"))


def energy_used(trainer: Trainer) -> dict[str, Any] | None:
    """Return the key `energy` of a training's record; None where codecarbon did not follow the training."""
    callback = _callback(trainer)
    found = getattr(callback and callback.tracker, "final_emissions_data", None)
    if found is None:
        return None
    is_located = (found.country_iso_code, found.latitude, found.longitude) != _NOWHERE
    if not is_located:
        logger.info(
            f"energy: codecarbon found no network to ask for its country, so the carbon is unknown; "
            f"{COUNTRY_VARIABLE}=DEU, or another country, tells it"
        )
    return {
        "kwh": found.energy_consumed,
        "cpu_kwh": found.cpu_energy,
        "gpu_kwh": found.gpu_energy,
        "ram_kwh": found.ram_energy,
        "co2_kg": found.emissions if is_located else None,
        "country": found.country_iso_code if is_located else None,
        "codecarbon": found.codecarbon_version,
    }


def _callback(trainer: Trainer) -> CodeCarbonCallback | None:
    callbacks = trainer.callback_handler.callbacks
    return next((one for one in callbacks if isinstance(one, CodeCarbonCallback)), None)
