"""Which upstream serves which model."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from freehold.problems import NotFound
from freehold.upstream.model import Model, Upstream


class ModelNotFound(NotFound):
    """There is no model {model} here.{near}"""

    code = "model_not_found"


@dataclass(frozen=True, slots=True)
class Route:
    """A model as one upstream serves it."""

    model: Model
    upstream: Upstream


class Catalogue:
    """The models of all upstreams, in the order given. Of several upstreams with one model, the first is used."""

    def __init__(self, upstreams: Iterable[Upstream]) -> None:
        self.upstreams: Sequence[Upstream] = tuple(upstreams)
        routes: dict[str, list[Route]] = {}
        for upstream in self.upstreams:
            for model in upstream.models.values():
                routes.setdefault(model.id, []).append(Route(model, upstream))
        self._routes: Mapping[str, Sequence[Route]] = routes

    def models(self) -> list[Model]:
        """One entry per model id."""
        return [routes[0].model for routes in self._routes.values()]

    def find(self, model_id: str) -> tuple[Model, Upstream]:
        """The model and the upstream to ask first. Raises ModelNotFound, which lists near names."""
        route = self.routes(model_id)[0]
        return route.model, route.upstream

    def routes(self, model_id: str) -> Sequence[Route]:
        """Every upstream that serves the model, in order, at least one. Raises ModelNotFound."""
        try:
            return self._routes[model_id]
        except KeyError:
            raise ModelNotFound(model=model_id[:200], near=self._near(model_id), param="model") from None

    async def close(self) -> None:
        for upstream in self.upstreams:
            await upstream.close()

    def _near(self, model_id: str) -> str:
        if not self._routes:
            return " No upstream is configured."
        names = {name.lower(): name for name in self._routes}
        close = difflib.get_close_matches(model_id[:200].lower(), names, n=3, cutoff=0.5)
        if close:
            return f" Near names: {', '.join(names[name] for name in close)}."
        return f" Models here: {', '.join(sorted(self._routes)[:10])}."
