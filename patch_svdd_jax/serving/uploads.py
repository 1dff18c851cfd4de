"""Uploads as images: bounded while they are read, judged by their header, decoded last."""

import asyncio
import functools
import logging
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from patch_svdd_jax.data import images, value_range
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.serving.schema import Bounds

logger = logging.getLogger(__name__)

# Within so many seconds an upload must be there.
SECONDS = 60
FIELD = 'image'
MULTIPART = 'multipart/form-data'
RAW = (
  *('image/png', 'image/jpeg', 'image/bmp', 'image/x-ms-bmp', 'image/tiff'),
  *('image/webp', 'image/gif', 'image/jp2'),
)
# How a request brings an image, for /openapi.json.
BODY = {
  'requestBody': {
    'required': True,
    'content': {
      MULTIPART: {
        'schema': {
          'type': 'object',
          'required': [FIELD],
          'properties': {FIELD: {'type': 'string', 'format': 'binary'}},
        }
      },
      **{kind: {'schema': {'type': 'string', 'format': 'binary'}} for kind in RAW},
    },
  }
}
# Of a form, beside the image: browsers and libraries may send a few fields of their own.
_FILES, _FIELDS, _FIELD_BYTES = 2, 8, 1024
_NAME_LENGTH = 200


class Upload(NamedTuple):
  """An image file that a request brought: what the client calls it, and its content."""

  name: str
  content: bytes


async def read(request: Request, bounds: Bounds) -> Upload:
  """Returns the one image of a request: the form field `image`, or the body itself.

  Raises:
    HTTPException: 400, 408, 413, 415 or 422, with a reason in one line.
    ClientDisconnect: the client is gone.
  """
  announced = request.headers.get('content-length', '0')
  if announced.isdigit() and int(announced) > bounds.request_bytes:
    raise too_large(bounds)
  kind = kind_of(request)
  bounded = Request(request.scope, _bounded(request.receive, bounds))
  try:
    async with asyncio.timeout(SECONDS):
      if kind == MULTIPART:
        upload = await _from_form(bounded)
      elif kind in RAW:
        upload = Upload(FIELD, await bounded.body())
      else:
        raise HTTPException(
          415, f'send {MULTIPART} with a file in the field {FIELD!r}, or a body of {", ".join(RAW)}'
        )
  except TimeoutError as error:
    raise HTTPException(
      408, f'the upload took more than {SECONDS} seconds', {'Connection': 'close'}
    ) from error
  if not upload.content:
    raise HTTPException(422, 'the file is empty')
  return upload


def kind_of(request: Request) -> str:
  """Returns the kind of a request's body, by its content type."""
  return request.headers.get('content-type', '').partition(';')[0].strip().lower()


def too_large(bounds: Bounds) -> HTTPException:
  """Returns the message for a body that is too large."""
  return HTTPException(413, f'the upload is larger than {bounds.request_bytes / 2**20:g} MB')


def _bounded(receive: Receive, bounds: Bounds) -> Receive:
  """Counts what is received: a client may announce less than it sends, or nothing."""
  received = 0

  async def bounded_receive() -> Message:
    nonlocal received
    message = await receive()
    received += len(message.get('body', b''))
    if received > bounds.request_bytes:
      raise too_large(bounds)
    return message

  return bounded_receive


async def _from_form(request: Request) -> Upload:
  try:
    form = request.form(max_files=_FILES, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    async with form as fields:
      files = [value for _, value in fields.multi_items() if isinstance(value, UploadFile)]
      named = fields.getlist(FIELD)
      if len(files) != 1 or len(named) != 1 or files[0] is not named[0]:
        raise HTTPException(422, f'give one file, in the field {FIELD!r}; there are {len(files)}')
      return Upload(_shown(files[0].filename), await files[0].read())
  except (HTTPException, ClientDisconnect, TimeoutError, OSError):
    raise
  except Exception as error:
    # Whatever the parser makes of nonsense, it is the client's.
    raise HTTPException(400, 'the form is malformed') from error


def _shown(name: str | None) -> str:
  """Returns a file name that can be shown: no path, no control characters, not endless."""
  last = re.split(r'[\\/]', name or '')[-1]
  printable = ''.join(letter for letter in last if letter.isprintable())
  return printable[:_NAME_LENGTH] or FIELD


def decode(upload: Upload, bounds: Bounds, within: value_range.Range) -> np.ndarray:
  """Returns the image u8[H, W, 3], in RGB order, upright.

  Args:
    upload: an image file.
    bounds: what is accepted.
    within: the range of deep values, see `value_range`.

  Raises:
    HTTPException: 413 for one of too many pixels, 422 for what is no image; with a reason.
  """
  return _decoded(upload, bounds, functools.partial(images.decode_image, within=within))


def decode_region(upload: Upload, bounds: Bounds) -> np.ndarray:
  """Returns the region of interest bool[H, W] that an image file shows; otherwise as `decode`."""
  return _decoded(upload, bounds, images.decode_region)


def _decoded(
  upload: Upload, bounds: Bounds, decoder: Callable[[bytes, str], np.ndarray]
) -> np.ndarray:
  try:
    width, height = images.stored_size(upload.content, upload.name)
    if width * height > bounds.pixels:
      raise HTTPException(
        413,
        f'{upload.name}: has {width} x {height} pixels; at most {bounds.pixels / 1e6:g} million '
        'are accepted',
      )
    return decoder(upload.content, upload.name)
  except HTTPException:
    raise
  except UserError as error:
    raise HTTPException(422, ' '.join(str(error).split())) from error
  except Exception as error:
    # Decoders raise anything for files that were made to confuse them.
    logger.warning('%s while decoding an upload', type(error).__name__)
    raise HTTPException(422, f'{upload.name}: is damaged; replace it') from error
