"""The routes of the framework: writing, administration, and the OpenAPI document."""

from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from node import openapi
from node.door_write import WriteDoor
from node.http_exchange import Exchange, Reply
from node.operations import Operations
from node.version import VERSION
from resolver.handle_json import error_answer
from resolver.response_code import ResponseCode


class _Reply(Response):
    """A reply of a door as the framework sends it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body, reply.status)
        if reply.content_type is not None:
            self.raw_headers.append((b"content-type", reply.content_type))
        self.raw_headers.extend(reply.headers)


def framework(writing: WriteDoor, operations: Operations) -> FastAPI:
    """The FastAPI application behind the front."""
    app = FastAPI(
        title="idnode",
        version=VERSION,
        summary=openapi.SUMMARY,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
    )
    _writing(app, writing)
    _administration(app, operations)
    app.exception_handler(HTTPException)(_problem)
    document = openapi.document(app)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> Any:
        return document

    return app


def _writing(app: FastAPI, door: WriteDoor) -> None:
    @app.put("/api/handles/{handle:path}", **openapi.PUT)
    async def put(request: Request) -> Response:
        return _Reply(await door.put(_exchange(request)))

    @app.delete("/api/handles/{handle:path}", **openapi.DELETE)
    async def delete(request: Request) -> Response:
        return _Reply(await door.delete(_exchange(request)))

    @app.post("/api/handles", **openapi.PUT_MANY)
    async def put_many(request: Request) -> Response:
        return _Reply(await door.put_many(_exchange(request)))


def _administration(app: FastAPI, operations: Operations) -> None:
    @app.get("/health", **openapi.HEALTH)
    @app.head("/health", include_in_schema=False)
    async def health() -> Response:
        return _Reply(operations.health())

    @app.get("/ready", **openapi.READY)
    @app.head("/ready", include_in_schema=False)
    async def ready() -> Response:
        return _Reply(await operations.ready())

    @app.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        return _Reply(await operations.metrics())

    @app.get("/api/measures", **openapi.MEASURES)
    async def measures() -> Response:
        return _Reply(await operations.measures())


def _exchange(request: Request) -> Exchange:
    return Exchange(request.scope, request.receive)


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path[:300]}"
    reply = Reply(error.status_code, error_answer(ResponseCode.PROTOCOL_ERROR, message))
    reply.headers += [(k.encode(), v.encode()) for k, v in (error.headers or {}).items()]
    return _Reply(reply)
