"""The page's server: a few addresses, none of which opens what it is asked for.

It answers only to this machine's names, so that no page of another site can reach it by a name of its own, and every
answer forbids the browser to load or run anything from elsewhere.
"""

import io
import json
import socket
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from werkzeug.exceptions import HTTPException, LengthRequired, NotFound, RequestEntityTooLarge
from werkzeug.routing import Map, Rule
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from lorbms_fast.app.pictures import png, png_address, square_of
from lorbms_fast.app.view import RunView
from lorbms_fast.errors import UserError
from lorbms_fast.rendering.curves import curves

HOST = "127.0.0.1"
MAX_UPLOAD = 50 * 2**20
"""Max. size of an upload in bytes."""

_STATIC = {"style.css": "text/css", "app.js": "text/javascript", "transfer.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def serve(view: RunView, port: int) -> BaseWSGIServer:
    """Make a server of the page that listens on 127.0.0.1; `serve_forever()` answers until it is interrupted.

    Port 0 takes a free one, which the server's `port` names. Raises UserError if the port is taken or forbidden.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"port {port}: choose one from 1024 to 65535 with --port, or 0 for a free one")
    try:
        listening = socket.create_server((HOST, port))
    except OSError as error:
        raise UserError(
            f"port {port} of {HOST} cannot be had ({error.strerror}): choose another with --port"
        ) from error
    with listening:  # the server has its own copy
        return make_server(HOST, port, application(view), True, request_handler=_Quiet, fd=listening.fileno())


def application(view: RunView) -> Callable[..., Any]:
    """Make the page's WSGI application."""
    rules = Map(
        [
            Rule("/", endpoint=lambda _: _page(), methods=["GET"]),
            Rule("/static/<name>", endpoint=lambda _, name: _static(name), methods=["GET"]),
            Rule("/run", endpoint=lambda _: _json(view.facts()), methods=["GET"]),
            Rule("/curves.png", endpoint=lambda _: _picture(_curves(view)), methods=["GET"]),
            Rule("/pictures/<path:name>", endpoint=lambda _, name: _rendered(view, name), methods=["GET"]),
            Rule("/images/<int:row>", endpoint=lambda _, row: _picture(png(view.image(row))), methods=["GET"]),
            Rule("/neighbours/<int:row>", endpoint=lambda _, row: _json(view.neighbours(row)), methods=["GET"]),
            Rule(
                "/neighbours", endpoint=lambda request: _json(view.neighbours_of(request.get_data())), methods=["POST"]
            ),
            Rule("/square", endpoint=lambda request: _square(view, request), methods=["POST"]),
            Rule("/transfer", endpoint=lambda request: _json(view.transfer(_asked(request))), methods=["POST"]),
        ],
        merge_slashes=False,
    )

    @Request.application
    def answer(request: Request) -> Response:
        request.trusted_hosts = [HOST, "localhost"]
        request.max_content_length = MAX_UPLOAD
        try:
            request.host  # noqa: B018 - raises for other names
            if "Transfer-Encoding" in request.headers:
                raise LengthRequired
            endpoint, arguments = rules.bind_to_environ(request.environ).match()
            response: Response = endpoint(request, **arguments)
        except UserError as error:
            response = _json({"error": str(error)}, 400)
        except RequestEntityTooLarge:
            response = _json({"error": f"this file has more than {MAX_UPLOAD // 2**20} MB: choose a smaller one"}, 413)
        except LengthRequired:
            response = _json({"error": "this upload does not say how long it is: send Content-Length"}, 411)
        except RecursionError:
            response = _json({"error": "this request is nested too deeply"}, 400)
        except HTTPException as error:
            response = _json({"error": f"{error.code} {error.name}"}, error.code or 500)
        response.headers.update(_HEADERS)
        return response

    return answer


class _Quiet(WSGIRequestHandler):
    """Handler that logs errors only and drops clients that stop sending or reading."""

    timeout = 5
    """Seconds."""

    def log(self, type: str, message: str, *args: Any) -> None:
        if type == "error":
            super().log(type, message, *args)


def _page() -> Response:
    page = page_part("index.html").replace("<!-- transfer -->", page_part("transfer.html"))
    return Response(page, mimetype="text/html")


def page_part(name: str) -> str:
    """Read a file of the page."""
    return (files("lorbms_fast.app") / "static" / name).read_text()


def _static(name: str) -> Response:
    if name not in _STATIC:
        raise NotFound
    return Response(page_part(name), mimetype=_STATIC[name])


def _curves(view: RunView) -> bytes:
    file = io.BytesIO()
    figure = curves(view.run.folder / "metrics.jsonl")
    if figure is None:
        raise NotFound
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _rendered(view: RunView, name: str) -> Response:
    """Answer with a picture that `/run` lists; the name is compared, never opened."""
    for path in view.pictures():
        if view.name(path) == name:
            return _picture(path.read_bytes())
    raise NotFound


def _square(view: RunView, request: Request) -> Response:
    return _json({"square": png_address(square_of(request.get_data(), view.side))})


def _asked(request: Request) -> dict[str, Any]:
    asked = request.get_json()
    if not isinstance(asked, dict):
        raise UserError("this request is no JSON object")
    return asked


def _json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, mimetype="application/json")


def _picture(content: bytes) -> Response:
    return Response(content, mimetype="image/png")
