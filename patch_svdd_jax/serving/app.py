"""The endpoints: the page, `POST /score`, `GET /health`, `/openapi.json`."""

import asyncio
import base64
import concurrent.futures
import contextlib
import io
import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

import fastapi
import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from patch_svdd_jax import __version__
from patch_svdd_jax.data import Split, images
from patch_svdd_jax.reporting import overlays
from patch_svdd_jax.serving import (
  addition_endpoints,
  page,
  region_endpoints,
  schema,
  security,
  uploads,
)
from patch_svdd_jax.serving.addition_endpoints import Additions
from patch_svdd_jax.serving.batching import Batcher, FullError
from patch_svdd_jax.serving.region_endpoints import Regions
from patch_svdd_jax.serving.schema import Bounds
from patch_svdd_jax.serving.scoring import Scored, Scorer
from patch_svdd_jax.serving.uploads import Upload

# Images that are decoded at a time: each takes several times its pixels.
DECODERS = min(4, os.cpu_count() or 1)
RETRY_SECONDS = 1
# A photograph for browsers that cannot show the file itself: pixels along its longer side.
_PHOTO = 1024

_REASONS = {
  400: 'the request is malformed',
  408: 'the upload took too long',
  413: 'more bytes or pixels than are accepted',
  415: 'not of a kind that is accepted',
  422: 'no image, a damaged one, or not exactly one',
  503: 'too many requests; try again after the seconds of Retry-After',
}


def make_app(
  scorer: Scorer,
  bounds: Bounds,
  *,
  places: int,
  host: str = '127.0.0.1',
  allowed_hosts: Sequence[str] = (),
  regions: Regions | None = None,
  additions: Additions | None = None,
) -> FastAPI:
  """Returns the application; its lifespan owns the threads.

  Args:
    scorer: is asked by one thread.
    bounds: of uploads.
    places: requests under way, at most.
    host: that it listens on, which decides which Host headers are answered.
    allowed_hosts: names of Host headers that are answered as well.
    regions: change the region of interest; None where nobody may.
    additions: add good images to the detector; None where nobody may.
  """

  @contextlib.asynccontextmanager
  async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.batcher = Batcher(
      scorer.score, batch_size=lambda: scorer.batch_size, grow=scorer.grow, places=places
    )
    with concurrent.futures.ThreadPoolExecutor(DECODERS, 'decode') as decoders:
      app.state.decoders = decoders
      try:
        yield
      finally:
        if regions:
          await asyncio.to_thread(regions.close)
        await asyncio.to_thread(app.state.batcher.close)

  app = FastAPI(
    title='Patch SVDD',
    version=__version__,
    lifespan=lifespan,
    # Their pages load scripts from elsewhere.
    docs_url=None,
    redoc_url=None,
  )
  whole_page = page.assemble()
  app.add_middleware(
    TrustedHostMiddleware, security.trusted_hosts(host, allowed_hosts), www_redirect=False
  )
  app.add_middleware(
    security.Guard, security.headers(whole_page.script_hash, whole_page.style_hash)
  )
  _explain_errors(app)

  @app.get('/', response_class=HTMLResponse, include_in_schema=False)
  async def show_page() -> str:
    return whole_page.html

  @app.get('/health', response_model=schema.Health)
  async def health() -> dict[str, Any]:
    """Says that it is ready, and by what it judges."""
    queue = {'length': app.state.batcher.taken, 'bound': places}
    region = regions.about() if regions else None
    own = {'ready': True, 'queue': queue, 'bounds': bounds, 'region': region}
    return own | {'additions': additions is not None} | scorer.about()

  @app.post(
    '/score',
    responses={
      200: {'model': schema.Answer},
      **{status: {'model': schema.Error, 'description': text} for status, text in _REASONS.items()},
    },
    openapi_extra=uploads.BODY,
    response_class=JSONResponse,
  )
  async def score(request: Request, map: bool = False, photo: bool = False) -> JSONResponse:
    """Scores one image: the file of the form field `image`, or the body itself."""
    try:
      with app.state.batcher.place():
        upload = await uploads.read(request, bounds)
        return JSONResponse(await _answer(app, scorer, upload, bounds, map, photo))
    except FullError as error:
      raise HTTPException(
        503, 'too many requests; try again soon', {'Retry-After': str(RETRY_SECONDS)}
      ) from error

  region_endpoints.add(app, regions, bounds)
  addition_endpoints.add(app, additions, scorer, bounds)
  return app


async def _answer(
  app: FastAPI, scorer: Scorer, upload: Upload, bounds: Bounds, with_map: bool, with_photo: bool
) -> dict[str, Any]:
  """Decodes, waits for the batch, draws."""
  loop, decoders = asyncio.get_running_loop(), app.state.decoders

  def prepare() -> tuple[Split, str | None]:
    image = uploads.decode(upload, bounds, scorer.value_range)
    return scorer.prepare(image, upload.name), _jpeg(image) if with_photo else None

  split, photo = await loop.run_in_executor(decoders, prepare)
  scored: Scored = await asyncio.wrap_future(app.state.batcher.submit(split))
  answer = scored.prediction.to_json()
  if with_map:
    png = await loop.run_in_executor(decoders, _png, scored.map, scorer.scale)
    answer['map'] = {'png': png, 'scale': scorer.scale}
  if with_photo:
    answer['photo'] = photo
  return answer


def _png(values: np.ndarray, scale: tuple[float, float]) -> str:
  return base64.b64encode(images.encode_png(overlays.colour_layer(values, scale))).decode()


def _jpeg(image: np.ndarray) -> str:
  photo = Image.fromarray(image)
  photo.thumbnail((_PHOTO, _PHOTO))
  encoded = io.BytesIO()
  photo.save(encoded, 'JPEG', quality=85)
  return base64.b64encode(encoded.getvalue()).decode()


def _explain_errors(app: FastAPI) -> None:
  """Makes every error a line of JSON that says nothing of the inside."""

  @app.exception_handler(HTTPException)
  async def refused(_: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({'error': str(error.detail)}, error.status_code, error.headers)

  @app.exception_handler(RequestValidationError)
  async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    return JSONResponse({'error': f'{first["loc"][-1]}: {first["msg"]}'}, 422)

  @app.exception_handler(ClientDisconnect)
  async def gone(_: Request, __: ClientDisconnect) -> fastapi.Response:
    return fastapi.Response(status_code=400)  # nobody reads it

  @app.exception_handler(Exception)
  async def failed(_: Request, __: Exception) -> JSONResponse:
    return JSONResponse({'error': 'internal error; the server has logged it'}, 500)
