"""Gives Rasa the project's training texts in their own formats; rules and domain stay in Rasa's YAML."""
from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from rasa.shared.importers.rasa import RasaFileImporter
from rasa.shared.nlu.training_data.message import Message
from rasa.shared.nlu.training_data.training_data import TrainingData

from bot.gazetteer import load_gazetteer
from bot.nlu.corpus import PLACE_NAMES, TELLING_WORDS, Example, read_annotations, read_corpus, read_lexicon


class PetitionImporter(RasaFileImporter):
    """Rasa's file importer, with `data_dir` and the city's `annotations` (relative to config.yml) read by bot.nlu.corpus."""

    def __init__(
        self,
        config_file: str | None = None,
        domain_path: str | None = None,
        training_data_paths: list[str] | str | None = None,
        data_dir: str = "nlu_data",
        annotations: str = "annotations.jsonl",
        **_: Any,
    ) -> None:
        super().__init__(config_file, domain_path, training_data_paths)
        root = Path(config_file).resolve().parent if config_file else Path.cwd()
        self._data_dir, self._annotations = root / data_dir, root / annotations

    def get_nlu_data(self, language: str | None = "en") -> TrainingData:
        # The gazetteer and the lexicon travel as one message each, without text; Rasa would warn of lookup tables that no stock
        # component uses.
        names = Message(data={PLACE_NAMES: list(self._place_names)})
        words = Message(data={TELLING_WORDS: self._telling_words})
        return TrainingData([*(example.to_message() for example in self._examples), names, words])

    # Rasa asks for the texts several times in one training; the files are read once.
    @cached_property
    def _examples(self) -> list[Example]:
        return [*read_corpus(self._data_dir), *read_annotations(self._annotations)]

    @cached_property
    def _telling_words(self) -> dict[str, list[str]]:
        return read_lexicon(self._data_dir)

    @cached_property
    def _place_names(self) -> list[str]:
        """Divisions, and the own places of every city that has a data folder: one model serves any of them."""
        names: list[str] = []
        for home in sorted((self._data_dir / "cities").iterdir()):
            city = yaml.safe_load((home / "city.yml").read_text(encoding="utf-8"))
            names += load_gazetteer(self._data_dir, home.name, city).lookup_elements()
        return names
