"""`GET /region` and `PUT /region`: the region of interest as a PNG, white where it counts."""

import asyncio
import concurrent.futures
from typing import Any, Protocol

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.serving import schema, uploads
from patch_svdd_jax.serving.changes import BusyError
from patch_svdd_jax.serving.schema import Bounds

PNG = 'image/png'
# Within so many seconds what cannot be read is answered; later it is said by /health.
READING_SECONDS = 20

_BODY = {
  'requestBody': {
    'required': True,
    'content': {PNG: {'schema': {'type': 'string', 'format': 'binary'}}},
  }
}
_REASONS = {
  403: 'the server was started without --allow-region',
  409: 'the detector is being changed already, or its normal images cannot be read',
  413: 'more bytes or pixels than are accepted',
  415: 'no PNG by its content type',
  422: 'no PNG, of another aspect ratio than images, or so small that no patch counts',
}


class Regions(Protocol):
  """Lists what the endpoints ask for, in any thread."""

  def present(self) -> bytes | None:
    """Returns the PNG of the region by which images are scored; None for all of them."""

  def check(self, region: np.ndarray) -> None:
    """Refuses a region bool[h, w] that the detector cannot have.

    Raises:
      UserError: says why, and what to do.
    """

  def begin(self, region: np.ndarray) -> concurrent.futures.Future[None]:
    """Begins to make the detector anew with a region bool[h, w].

    Returns:
      What is done once the normal images are read; it has a UserError where they cannot be.

    Raises:
      BusyError: a change is under way.
    """

  def about(self) -> dict[str, Any]:
    """Describes how far it is, for JSON."""

  def close(self) -> None:
    """Ends what is under way."""


def add(app: FastAPI, regions: Regions | None, bounds: Bounds) -> None:
  """Adds the endpoints, which refuse everything where there are no regions to change."""

  def allowed() -> Regions:
    if regions is None:
      raise HTTPException(403, 'the region cannot be changed: start the server with --allow-region')
    return regions

  @app.get(
    '/region',
    response_class=Response,
    responses={
      200: {'content': {PNG: {}}, 'description': 'white where parts are judged'},
      204: {'description': 'all of an image is judged'},
      403: {'model': schema.Error, 'description': _REASONS[403]},
    },
  )
  def show() -> Response:
    """Returns the region by which images are scored."""
    png = allowed().present()
    return Response(status_code=204) if png is None else Response(png, media_type=PNG)

  @app.put(
    '/region',
    status_code=202,
    responses={
      202: {'model': schema.RegionChange},
      **{status: {'model': schema.Error, 'description': text} for status, text in _REASONS.items()},
    },
    openapi_extra=_BODY,
    response_class=JSONResponse,
  )
  async def change(request: Request) -> JSONResponse:
    """Makes the detector anew with another region, and scores by it then; /health says how far."""
    changed = allowed()
    if uploads.kind_of(request) != PNG:
      raise HTTPException(415, f'send the region as a body of {PNG}')
    upload = await uploads.read(request, bounds)
    loop = asyncio.get_running_loop()
    region = await loop.run_in_executor(app.state.decoders, uploads.decode_region, upload, bounds)
    try:
      changed.check(region)
    except UserError as error:
      raise HTTPException(422, one_line(str(error))) from error
    try:
      read = await asyncio.to_thread(changed.begin, region)  # what locks a run may wait for a store
      await asyncio.wait([asyncio.wrap_future(read)], timeout=READING_SECONDS)
      if read.done():
        read.result()
    except (BusyError, UserError) as error:
      raise HTTPException(409, one_line(str(error))) from error
    return JSONResponse(changed.about(), 202)
