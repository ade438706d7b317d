"""Lets a running Triton follow the repository: serves what was published, and not what was removed or replaced.

Triton polls the served folder. A model's new steps are put there beside the old ones, under other names. Once Triton
has loaded them, the ensembles are exchanged, each by one rename: a request is served by the old steps or by the new
ones. The old steps leave last; Triton keeps them until the requests that they have begun are done.

Triton's API could load models as well, but then whoever reaches its port could let it load code of theirs. While it
polls, it refuses that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from export.errors import ExportError
from export.publish import is_publishing, recover
from launcher.errors import LauncherError
from launcher.loaded_models import LoadedModels, LoadError, TritonLostError
from launcher.published import PublishedModel, read_published
from launcher.served import ServedFolder, ServedModel, name_steps
from launcher.shared_memory import check_room

log = logging.getLogger(__name__)

INDEX_INTERVAL_S = 0.1

MAX_LOAD_S = 1800.0
MAX_SWAP_S = 60.0
"""Time for Triton to poll its folder, and to load ensembles, whose steps are loaded."""

MAX_UNLOAD_S = 300.0
"""Time for requests in flight to leave the steps of a model that is unloaded."""

MAX_ATTEMPTS = 2
"""How often Triton may exit while it loads a model, before that is not tried again."""


class ModelControl:
    """What Triton serves, and what it is to serve.

    Args:
        address: Triton's gRPC API.
        repository: Where models are published.
        folder: The folder that Triton reads; an existing one is replaced.
        changing: Returns the context in which steps are loaded and unloaded.

    Attributes:
        lock: Held while the folder changes.
    """

    def __init__(
        self,
        address: str,
        repository: Path,
        folder: Path,
        changing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.lock = threading.Lock()
        self._repository = repository
        self._folder = ServedFolder(folder, repository)
        self._changing = changing
        self._served: Mapping[str, ServedModel] = {}
        self._seen: Mapping[str, PublishedModel] | None = None
        self._refused: dict[str, PublishedModel] = {}
        self._attempts = 0
        self._used_names: set[str] = set()
        self._loaded = LoadedModels(address)

    def fill(self, published: Mapping[str, PublishedModel], damaged: Collection[str]) -> None:
        """Create the folder, for a Triton that is about to start.

        Args:
            published: The models of the repository.
            damaged: Names, or entries, of those whose steps must not be loaded; Triton lists them as unavailable.
        """
        self._folder.clear()
        self._served = {}
        for name, model in published.items():
            is_damaged = not {name, *model.entries}.isdisjoint(damaged)
            steps = {} if is_damaged else name_steps(model, self._folder.list_names())
            try:
                self._list(ServedModel(model, steps))
            except OSError as error:
                log.error("%s is not served: %s", name, error)
                self._folder.clear_staging()
                self._list(ServedModel(model))

    def close(self) -> None:
        """Delete the folder, of a Triton that has stopped."""
        self._folder.delete()

    def note_loaded(self, models: Collection[str]) -> None:
        """Note which of Triton's models it has loaded at its start."""
        self._served = {
            name: ServedModel(model.published, model.steps, set(models).issuperset(model.published.entries))
            for name, model in self._served.items()
        }

    def list_ensembles(self) -> Mapping[str, tuple[str, ...]]:
        """Return the steps of each ensemble that Triton has loaded, by its name."""
        loaded = [model.ensembles for model in self._served.values() if model.is_loaded]
        return {name: steps for ensembles in loaded for name, steps in ensembles.items()}

    def list_unavailable(self) -> set[str]:
        """Return the names of the models that Triton has not loaded."""
        return {name for name, model in self._served.items() if not model.is_loaded}

    def look(self) -> None:
        """Compare the repository with what Triton serves, and change that once the repository has come to rest."""
        if is_publishing(self._repository):
            self._recover()
        published = read_published(self._repository)
        is_at_rest = published is not None and published == self._seen
        self._seen = published
        if published is None or not is_at_rest or not self._is_readable(published):
            return
        for name in self._served.keys() - published.keys():
            self._change(partial(self._remove, name))
        for name, model in published.items():
            served = self._served.get(name)
            if model not in (served and served.published, self._refused.get(name)):
                damage = model.find_damage(self._repository)
                self._change(partial(self._replace, model, damage))

    def _recover(self) -> None:
        """Finish the publication of an export that was killed; one that is running finishes it itself."""
        try:
            recover(self._repository)
        except ExportError as error:
            log.error("%s", error)

    def _is_readable(self, published: Mapping[str, PublishedModel]) -> bool:
        """Return whether no configuration has become unreadable, as while it is edited: nothing changes until then."""
        known = {model.published for model in self._served.values()} | set(self._refused.values())
        damaged = [model for model in published.values() if not model.is_readable and model not in known]
        for model in damaged:
            self._refused[model.name] = model
            log.error("the configuration of %s cannot be read: correct it, or export the model again", model.name)
        return all(model.is_readable or model.name in self._served for model in published.values())

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change, unless Triton does not respond: then the next look tries again."""
        with self.lock:
            if not self._loaded.is_live():
                return
            try:
                with self._changing():
                    change()
            except TritonLostError:
                log.warning("Triton does not respond: its models are changed once it does")
            finally:
                self._folder.clear_staging()

    def _remove(self, name: str) -> None:
        """Unload a model: new requests do not find it, and those in flight are completed."""
        model = self._served[name]
        self._forget(name)
        self._drop([*model.published.entries, *model.steps.values()])
        log.info("%s was removed, and is not served any more", name)

    def _replace(self, published: PublishedModel, damage: str | None) -> None:
        """Load a model, beside the one of its name that is served, if any, and in its place if that succeeds."""
        name, started_s = published.name, time.monotonic()
        log.info("loading %s", name)
        steps = name_steps(published, self._folder.list_names() | self._used_names)
        new = ServedModel(published, steps, is_loaded=True)
        try:
            if damage:
                raise LoadError(damage)
            self._stage(new)
            self._load_steps(new)
            self._swap(new)
        except (LoadError, LauncherError, OSError) as error:
            self._refuse(published, str(error))
        except TritonLostError:
            self._folder.remove(steps.values())
            self._attempts += 1
            if self._attempts == MAX_ATTEMPTS:
                self._refuse(published, "Triton exited each time it loaded the model")
            raise
        else:
            self._refused.pop(name, None)
            log.info("%s is served (%.1f s)", name, time.monotonic() - started_s)
        self._attempts = 0

    def _stage(self, new: ServedModel) -> None:
        """Link the files of a model.

        Raises:
            LoadError: They are no longer those that were verified.
            LauncherError: There is too little shared memory for its steps.
        """
        self._folder.stage(new)
        if (read_published(self._repository) or {}).get(new.published.name) != new.published:
            raise LoadError("it is being replaced again")
        check_room(self._folder.staging)

    def _load_steps(self, new: ServedModel) -> None:
        """Let Triton load steps; if one fails, none stays."""
        names = list(new.steps.values())
        self._folder.add_steps(names)
        try:
            self._wait(lambda: self._loaded.have_loaded(names), MAX_LOAD_S)
        except LoadError:
            self._used_names.update(names)  # Triton would still know that they failed
            self._drop(names)
            raise

    def _swap(self, new: ServedModel) -> None:
        """Exchange the entries of a model whose steps are loaded, and unload what they no longer use."""
        name = new.published.name
        old = self._served.get(name)
        contents = {entry: self._folder.put_entry(entry) for entry in new.published.entries}
        try:
            self._wait(lambda: self._loaded.have_swapped(new.published.entries, new.ensembles), MAX_SWAP_S)
        except (LoadError, TritonLostError):
            for entry, content in contents.items():
                if content is None:
                    self._folder.remove([entry])
                else:
                    self._folder.point_entry(entry, content)
            self._drop(list(new.steps.values()))
            raise
        self._served = {**self._served, name: new}
        if old is not None:
            self._drop([*(old.published.entries.keys() - new.published.entries.keys()), *old.steps.values()])

    def _refuse(self, published: PublishedModel, reason: str) -> None:
        """Leave what is served as it is, or list a model as unavailable of which nothing is."""
        name = published.name
        self._refused[name] = published
        old = self._served.get(name)
        if old is not None and old.is_loaded:
            log.error("%s was replaced in the repository, but the old one is still served: %s", name, reason)
            return
        log.error("%s is not served: %s", name, reason)
        if old is not None:
            self._used_names.update(old.steps.values())
            self._folder.remove(old.steps.values())
        with suppress(OSError):  # it was removed meanwhile
            self._list(ServedModel(published))

    def _list(self, model: ServedModel) -> None:
        """Put a model into the folder, with those of its steps that have names."""
        self._folder.clear_staging()  # of an attempt to load it
        self._folder.stage(model)
        self._folder.add_steps(model.steps.values())
        for entry in model.published.entries:
            self._folder.put_entry(entry)
        self._folder.clear_staging()
        self._served = {**self._served, model.published.name: model}

    def _forget(self, name: str) -> None:
        self._served = {other: model for other, model in self._served.items() if other != name}
        self._refused.pop(name, None)

    def _drop(self, names: Collection[str]) -> None:
        """Let Triton unload models, and wait until it has: until then, it works on requests that they have begun."""
        self._folder.remove(names)
        with suppress(LoadError, TritonLostError):  # a request takes very long, and Triton goes on by itself
            self._wait(lambda: self._loaded.have_left(names), MAX_UNLOAD_S)

    def _wait(self, is_done: Callable[[], bool], timeout_s: float) -> None:
        """Wait until Triton has done something.

        Raises:
            LoadError: It fails, or has not done it in time.
            TritonLostError: Triton does not respond any more.
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > deadline_s:
                raise LoadError(f"Triton has not done so within {timeout_s:.0f} s")
            time.sleep(INDEX_INTERVAL_S)
