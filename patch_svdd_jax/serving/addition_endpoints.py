"""`POST /additions` and `DELETE /additions/latest`: good images that enter the detector."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from patch_svdd_jax.data import Split
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.serving import schema, uploads
from patch_svdd_jax.serving.changes import BusyError
from patch_svdd_jax.serving.schema import Bounds
from patch_svdd_jax.serving.scoring import Scorer

_REASONS = {
  400: 'the request is malformed',
  403: 'the server was started without --allow-additions',
  409: 'the detector is being changed already, or the image cannot be added to it',
  413: 'more bytes or pixels than are accepted',
  415: 'not of a kind that is accepted',
  422: 'no image, a damaged one, or not exactly one',
}
_ERRORS: dict[int | str, dict[str, Any]] = {
  status: {'model': schema.Error, 'description': text} for status, text in _REASONS.items()
}


class Additions(Protocol):
  """Lists what the endpoints ask for, in any thread."""

  def add(self, split: Split, name: str, content: bytes) -> dict[str, Any]:
    """Adds an image, of a file of this content."""

  def undo(self) -> dict[str, Any]:
    """Goes back to the version before the last addition."""


def add(app: FastAPI, additions: Additions | None, scorer: Scorer, bounds: Bounds) -> None:
  """Adds the endpoints, which refuse everything where no images may be added."""

  def allowed() -> Additions:
    if additions is None:
      raise HTTPException(403, 'no images can be added: start the server with --allow-additions')
    return additions

  async def changed(change: Callable[[], dict[str, Any]]) -> JSONResponse:
    try:
      return JSONResponse(await asyncio.to_thread(change))
    except (BusyError, UserError) as error:
      raise HTTPException(409, one_line(str(error))) from error

  @app.post(
    '/additions',
    responses={200: {'model': schema.Added}, **_ERRORS},
    openapi_extra=uploads.BODY,
    response_class=JSONResponse,
  )
  async def add_image(request: Request) -> JSONResponse:
    """Adds one good image, sent as to `/score`; scores are by the new version afterwards."""
    target = allowed()
    upload = await uploads.read(request, bounds)

    def prepare() -> Split:
      image = uploads.decode(upload, bounds, scorer.value_range)
      return scorer.prepare(image, upload.name)

    loop = asyncio.get_running_loop()
    split = await loop.run_in_executor(app.state.decoders, prepare)
    return await changed(lambda: target.add(split, upload.name, upload.content))

  @app.delete(
    '/additions/latest',
    responses={200: {'model': schema.Undone}, **_ERRORS},
    response_class=JSONResponse,
  )
  async def undo() -> JSONResponse:
    """Goes back to the version before the last addition."""
    return await changed(allowed().undo)
