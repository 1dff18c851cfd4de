"""Answers over HTTP whether images are anomalous: a page for people, JSON for programs.

Open the address in a browser and drop an image, or POST one to /score; GET /health says whether it
is ready and by what it judges, /openapi.json describes both. Requests that come together are scored
together. Only this machine is served, unless --host says otherwise: there is no login and no
encryption, which a reverse proxy adds. Ctrl-C and SIGTERM end it once what is under way is
answered.

  patch-svdd serve --model runs/parts
  curl --form image=@part.png http://127.0.0.1:8000/score
"""

import argparse
import re
import sys

from patch_svdd_jax.commands import console
from patch_svdd_jax.detection.additions import with_room
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError

# Pillow refuses larger ones.
MOST_MEGAPIXELS = 89
# As browsers send it: an IPv6 address in brackets, a name of other letters in Punycode.
_HOST_NAME = re.compile(r'[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:]+\]')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `serve`."""
  parser.add_argument('--model', required=True, type=console.path, help='folder of the run')
  parser.add_argument('--host', default='127.0.0.1', help='address to listen on (127.0.0.1)')
  parser.add_argument('--port', type=int, default=8000, help='port; 0: a free one (8000)')
  parser.add_argument(
    '--allow-host',
    type=host_name,
    action='append',
    default=[],
    metavar='NAME',
    help='by which a proxy or a browser reaches it: requests by other names than these and those '
    'of the loopback are refused; may be given several times',
  )
  console.add_rate_arguments(parser)
  parser.add_argument(
    '--allow-additions',
    action='store_true',
    help='whoever reaches the server may add good images to the detector (as the command add)',
  )
  parser.add_argument(
    '--allow-region',
    action='store_true',
    help='whoever reaches the server may draw another region of interest for the detector',
  )
  parser.add_argument(
    '--queue',
    type=positive,
    default=64,
    metavar='N',
    help='requests under way; those beyond are told to try again (64)',
  )
  parser.add_argument(
    '--max-upload-mb', type=positive, default=32, metavar='MB', help='of a request (32)'
  )
  parser.add_argument(
    '--max-megapixels',
    type=positive,
    default=64,
    metavar='MP',
    help=f'of an image, up to {MOST_MEGAPIXELS} (64)',
  )


def positive(text: str) -> int:
  """Returns a whole number above 0."""
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number above 0')
  return int(text)


def host_name(text: str) -> str:
  """Returns the name or address of a machine as a Host header has it, without its port."""
  if not _HOST_NAME.fullmatch(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no name or address without a port')
  return text


def run(options: argparse.Namespace) -> int:
  """Loads, compiles what one image needs, serves."""
  if options.max_megapixels > MOST_MEGAPIXELS:
    raise UserError(f'--max-megapixels {options.max_megapixels}: give at most {MOST_MEGAPIXELS}')
  try:
    from patch_svdd_jax.serving import app, server
  except ImportError as error:
    raise UserError(f"{error.name} is missing: pip install 'patch_svdd_jax[serve]'") from error
  from patch_svdd_jax.serving.additions import DetectorAdditions
  from patch_svdd_jax.serving.changes import Changes
  from patch_svdd_jax.serving.region import DetectorRegions
  from patch_svdd_jax.serving.schema import Bounds
  from patch_svdd_jax.serving.scoring import DetectorScorer

  # Before the minutes that loading and compiling may take.
  with server.bind(options.host, options.port) as bound:
    detector = Detector.load(options.model)
    scorer = DetectorScorer(
      with_room(detector) if options.allow_additions else detector,
      options.model.resolve().name,
      options.false_alarm_rate,
      options.pixel_false_alarm_rate,
    )
    for text in scorer.warnings:
      print(f'warning: {text}', file=sys.stderr)
    scorer.grow()
    changes, additions = Changes(options.model), None
    if options.allow_additions:
      additions = DetectorAdditions(scorer, options.model, changes, options.false_alarm_rate)
      additions.compile()
    bounds = Bounds(
      request_bytes=options.max_upload_mb * 2**20, pixels=options.max_megapixels * 10**6
    )
    application = app.make_app(
      scorer,
      bounds,
      places=options.queue,
      host=options.host,
      allowed_hosts=options.allow_host,
      regions=DetectorRegions(scorer, options.model, changes) if options.allow_region else None,
      additions=additions,
    )
    host, port = bound.getsockname()[:2]
    address = f'[{host}]' if ':' in host else host
    print(f'serving {options.model} on http://{address}:{port} (Ctrl-C ends it)', flush=True)
    server.serve(application, bound)
  print('ended')
  return 0
