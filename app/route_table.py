from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import cast

from starlette.convertors import StringConvertor
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import Receive, Scope, Send

from app.endpoint import Endpoint


class Page(ABC):
    """Application of a route or mount for browsers that is no ``Endpoint``: it answers anyone."""

    @abstractmethod
    async def answer(self, scope: Scope) -> Response: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self.answer(scope)
        await response(scope, receive, send)


class RouteTable:
    """Routes of the application, found by method and path: first by the whole path, then among those of as many parts.

    Endpoints of the same method and number of parts are tried in their order, pages last.
    """

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._endpoints: list[Endpoint] = []
        self._pages: list[Route | Mount] = []
        self._by_path: dict[tuple[str, str], Endpoint] = {}
        self._by_length: dict[tuple[str, int], list[Endpoint]] = {}
        for route in routes:
            if isinstance(route, Endpoint):
                self._add(route)
            elif isinstance(route, Route | Mount) and isinstance(route.app, Page):
                self._pages.append(route)
            else:
                raise TypeError(f"{route} is neither an Endpoint nor a Page")

    def _add(self, route: Endpoint) -> None:
        if not all(isinstance(convertor, StringConvertor) for convertor in route.param_convertors.values()):
            raise TypeError(f"A parameter of {route.path} may have several parts")
        self._endpoints.append(route)
        for method in route.methods:
            if not route.param_convertors:
                self._by_path.setdefault((method, route.path), route)
            self._by_length.setdefault((method, route.path.count("/")), []).append(route)

    def find(self, scope: Scope) -> Endpoint | Page:
        """Return the route, and set ``route`` and ``path_params`` of the scope. Raises HTTPException (404, 405)."""
        method, path = scope["method"], scope["path"]
        route = self._by_path.get((method, path))
        if route is not None:
            scope["route"], scope["path_params"] = route, {}
            return route
        for route in self._by_length.get((method, path.count("/")), ()):
            found = route.path_regex.match(path)
            if found is not None:
                scope["route"], scope["path_params"] = route, found.groupdict()
                return route
        return self._find_page(scope)

    def _find_page(self, scope: Scope) -> Page:
        of_path = [route for route in self._endpoints if route.path_regex.match(scope["path"]) is not None]
        if of_path:
            scope["route"] = of_path[0]
            methods = {method for route in of_path for method in route.methods}
            raise HTTPException(405, headers={"Allow": ", ".join(sorted(methods))})
        for page in self._pages:
            match, inner = page.matches(scope)
            if match is Match.FULL:
                scope.update(inner)
                return cast("Page", page.app)
        raise HTTPException(404)
