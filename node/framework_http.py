"""The routes of the framework: writing, administration, and the OpenAPI document."""

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from node import openapi
from node.door_write import WriteDoor
from node.http_exchange import Exchange, Reply
from node.operations import Operations
from node.version import VERSION
from resolver.handle_json import dump, error_answer
from resolver.prefix_directory import PrefixDirectory
from resolver.response_code import ResponseCode


class _Reply(Response):
    """A reply of a door as the framework sends it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body, reply.status)
        if reply.content_type is not None:
            self.raw_headers.append((b"content-type", reply.content_type))
        self.raw_headers.extend(reply.headers)


def framework(writing: WriteDoor, operations: Operations, directory: PrefixDirectory) -> FastAPI:
    """The FastAPI application behind the front."""
    app = FastAPI(
        title="idnode",
        version=VERSION,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=None,  # node.openapi knows the doors beside the framework, too
        redirect_slashes=False,
    )
    _writing(app, writing)
    _administration(app, operations)

    @app.get("/openapi.json")
    @app.head("/openapi.json")
    async def openapi_json() -> Response:
        return _Reply(Reply(200, dump(openapi.document(_hosted(directory)))))

    app.exception_handler(HTTPException)(_problem)
    return app


def _writing(app: FastAPI, door: WriteDoor) -> None:
    @app.put("/api/handles/{handle:path}")
    async def put(request: Request) -> Response:
        return _Reply(await door.put(_exchange(request)))

    @app.delete("/api/handles/{handle:path}")
    async def delete(request: Request) -> Response:
        return _Reply(await door.delete(_exchange(request)))

    @app.post("/api/handles")
    async def put_many(request: Request) -> Response:
        return _Reply(await door.put_many(_exchange(request)))


def _administration(app: FastAPI, operations: Operations) -> None:
    @app.get("/health")
    @app.head("/health")
    async def health() -> Response:
        return _Reply(operations.health())

    @app.get("/ready")
    @app.head("/ready")
    async def ready() -> Response:
        return _Reply(await operations.ready())

    @app.get("/metrics")
    @app.head("/metrics")
    async def metrics() -> Response:
        return _Reply(await operations.metrics())

    @app.get("/api/measures")
    @app.head("/api/measures")
    async def measures() -> Response:
        return _Reply(await operations.measures())


def _hosted(directory: PrefixDirectory) -> list[str]:
    states = directory.states()
    return sorted(state.key for state in states if state.hosted and not state.suspended)


def _exchange(request: Request) -> Exchange:
    return Exchange(request.scope, request.receive)


def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # Not request.url: it reads the Host header, which may be anything.
    message = f"{error.detail}: {request.method} {request.scope['path'][:300]}"
    reply = Reply(error.status_code, error_answer(ResponseCode.PROTOCOL_ERROR, message))
    reply.headers += [(k.encode(), v.encode()) for k, v in (error.headers or {}).items()]
    return _Reply(reply)
