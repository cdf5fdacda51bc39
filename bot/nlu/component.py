"""What our Rasa components share: a state that is kept in the model archive."""
from __future__ import annotations

import gzip
import pickle
from typing import Any

from rasa.engine.graph import ExecutionContext, GraphComponent
from rasa.engine.storage.resource import Resource
from rasa.engine.storage.storage import ModelStorage

# Rasa packs the archive at gzip's slowest level, which takes most of a minute over weights that are mostly nothing; what comes
# to it packed already costs it a second.
STATE, QUICKLY = "state.pkl.gz", 3


class ModelPart(GraphComponent):
    """Rasa's component contract with one piece of state: get_state() after training, set_state() after loading."""

    def __init__(self, config: dict[str, Any], model_storage: ModelStorage, resource: Resource) -> None:
        self.config, self._model_storage, self._resource = config, model_storage, resource

    @classmethod
    def create(
        cls, config: dict[str, Any], model_storage: ModelStorage, resource: Resource, execution_context: ExecutionContext
    ) -> ModelPart:
        return cls(config, model_storage, resource)

    @classmethod
    def load(
        cls,
        config: dict[str, Any],
        model_storage: ModelStorage,
        resource: Resource,
        execution_context: ExecutionContext,
        **_: Any,
    ) -> ModelPart:
        part = cls(config, model_storage, resource)
        with model_storage.read_from(resource) as directory, gzip.open(directory / STATE, "rb") as file:
            part.set_state(pickle.load(file))  # our own archive: whoever can replace it can replace the code too
        return part

    def persist(self) -> Resource:
        with self._model_storage.write_to(self._resource) as directory, gzip.open(directory / STATE, "wb", QUICKLY) as file:
            pickle.dump(self.get_state(), file, protocol=pickle.HIGHEST_PROTOCOL)
        return self._resource

    def get_state(self) -> Any:
        raise NotImplementedError

    def set_state(self, state: Any) -> None:
        raise NotImplementedError
