"""Which upstreams serve which model, how each fares, and which to ask next."""

import asyncio
import difflib
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from freehold.clock import Clock, SystemClock
from freehold.problems import NotFound
from freehold.upstream.health import HEALTHY, State
from freehold.upstream.model import Model, Upstream
from freehold.upstream.selection import Candidate, choose


class ModelNotFound(NotFound):
    """There is no model {model} here.{near}"""

    code = "model_not_found"


class Standing:
    """One upstream, how it has fared, and how many calls of this worker run there."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.terms = upstream.terms
        self.health = HEALTHY
        self.running = 0
        self._idle: asyncio.Event | None = None

    def able(self, now_s: float) -> bool:
        """Whether it takes one more call."""
        return not self.full() and self.health.able(now_s)

    def full(self) -> bool:
        return self.terms.max_concurrency is not None and self.running >= self.terms.max_concurrency

    def begin(self, now_s: float) -> None:
        """A call goes there; `end` follows."""
        self.running += 1
        self.health = self.health.asked(now_s)

    def accepted(self) -> None:
        """Its answer began: an open circuit closes."""
        if self.health.open_until_s is not None:
            self.answered()

    def answered(self) -> None:
        """It did what was asked."""
        self.health = self.health.answered()

    def failed(self, now_s: float, account_id: int | None) -> None:
        """It didn't, by a call of this account; None: there was no connection."""
        self.health = self.health.failed(now_s, self.terms, account_id)

    def end(self) -> None:
        """The call is over."""
        self.running -= 1
        self.health = self.health.unknown()
        if self.running == 0 and self._idle is not None:
            self._idle.set()

    def wait_s(self, now_s: float) -> float:
        """How long until it may take a call."""
        return 1.0 if self.full() else self.health.wait_s(now_s)

    async def retire(self) -> None:
        """Close it as soon as its calls have ended."""
        if self.running:
            self._idle = asyncio.Event()
            await self._idle.wait()
        await self.upstream.close()


@dataclass(frozen=True, slots=True)
class Route:
    """A model as one upstream serves it."""

    model: Model
    standing: Standing

    @property
    def upstream(self) -> Upstream:
        return self.standing.upstream


@dataclass(frozen=True, slots=True)
class Serving:
    """A model and all who serve it, at least one."""

    model: Model
    """With the limits that every one of them keeps."""
    routes: Sequence[Route]

    def next(self, tried: Collection[Route], now_s: float, draw: Callable[[], float] = random.random) -> Route | None:
        """Whom to ask now; None when nobody who wasn't `tried` takes a call."""
        if len(self.routes) == 1:
            (route,) = self.routes
            return route if not tried and route.standing.able(now_s) else None
        asked = {id(route) for route in tried}
        candidates = [
            Candidate(
                route.standing.terms.priority,
                route.standing.terms.weight,
                able=id(route) not in asked and route.standing.able(now_s),
            )
            for route in self.routes
        ]
        chosen = choose(candidates, draw())
        return None if chosen is None else self.routes[chosen]

    def wait_s(self, now_s: float) -> float:
        """How long until one of them may take a call."""
        return min(route.standing.wait_s(now_s) for route in self.routes)


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """How one upstream fares, as this worker sees it."""

    name: str
    state: State
    failures: int
    """In a row."""
    running: int
    """Calls under way."""


class Catalogue:
    """The models of all upstreams, in the order given."""

    def __init__(
        self,
        upstreams: Iterable[Upstream],
        *,
        clock: Clock | None = None,
        around: Callable[[Upstream], Upstream] | None = None,
    ) -> None:
        """`around` wraps each upstream, now and when they are replaced."""
        self.clock = clock or SystemClock()
        self._around = around
        self._standings: Sequence[Standing] = ()
        self._servings: Mapping[str, Serving] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._take(upstreams)

    @property
    def upstreams(self) -> Sequence[Upstream]:
        return [standing.upstream for standing in self._standings]

    def models(self) -> list[Model]:
        """One entry per model id."""
        return [serving.model for serving in self._servings.values()]

    def find(self, model_id: str) -> tuple[Model, Upstream]:
        """The model, and an upstream that serves it. Raises ModelNotFound, which lists near names."""
        serving = self.serving(model_id)
        return serving.model, serving.routes[0].upstream

    def serving(self, model_id: str) -> Serving:
        """The model and everyone who serves it. Raises ModelNotFound, which lists near names."""
        try:
            return self._servings[model_id]
        except KeyError:
            raise ModelNotFound(model=model_id[:200], near=self._near(model_id), param="model") from None

    def health(self) -> list[UpstreamHealth]:
        now_s = self.clock.monotonic()
        return [
            UpstreamHealth(
                standing.upstream.name, standing.health.state(now_s), standing.health.failures, standing.running
            )
            for standing in self._standings
        ]

    def replace(self, upstreams: Iterable[Upstream]) -> None:
        """From now on these. Calls under way go on where they are; what they use is closed after them."""
        before = self._standings
        self._take(upstreams)
        for standing in before:
            task = asyncio.get_running_loop().create_task(standing.retire())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        for task in self._retiring:
            task.cancel()
        for standing in self._standings:
            await standing.upstream.close()

    def _take(self, upstreams: Iterable[Upstream]) -> None:
        standings = tuple(Standing(self._around(upstream) if self._around else upstream) for upstream in upstreams)
        routes: dict[str, list[Route]] = {}
        for standing in standings:
            for model in standing.upstream.models.values():
                routes.setdefault(model.id, []).append(Route(model, standing))
        self._standings = standings
        self._servings = {name: Serving(_common(found), tuple(found)) for name, found in routes.items()}

    def _near(self, model_id: str) -> str:
        if not self._servings:
            return " No upstream is configured."
        names = {name.lower(): name for name in self._servings}
        close = difflib.get_close_matches(model_id[:200].lower(), names, n=3, cutoff=0.5)
        if close:
            return f" Near names: {', '.join(names[name] for name in close)}."
        return f" Models here: {', '.join(sorted(self._servings)[:10])}."


def _common(routes: Sequence[Route]) -> Model:
    """The model by limits that hold at every upstream, so that what is held covers whoever is asked."""
    first = routes[0].model
    if len(routes) == 1:
        return first
    models = [route.model for route in routes]
    images = [model.image_tokens for model in models]
    return replace(
        first,
        context_tokens=min(model.context_tokens for model in models),
        max_output_tokens=min(model.max_output_tokens for model in models),
        hidden_output=any(model.hidden_output for model in models),
        image_tokens=max(images) if all(images) else 0,
        shapes=frozenset.intersection(*(model.shapes for model in models)),
    )
