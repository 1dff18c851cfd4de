"""Scores images as they arrive in a folder, or the frames of a camera, and sends on what is found.

Each image gets a line in results.jsonl of the output folder; those with an alarm get masks/ and
overlays/. Half-written files are waited for. Ctrl-C and SIGTERM end it once what is under way is
done, and write results.csv and report.html; the same command goes on: what has a line is left
alone, unless its content has changed. With --move, files go to good/ and bad/ once their line is on
disk. The exit status is 1 if a file could not be read.

Lines are also sent to receivers, in order and at least once: --json prints them, --webhook posts
them, signed, --mqtt publishes them. What a receiver has not got while it was away it gets when it
is back, after a restart, too; by its id it knows what it gets twice.

  patch-svdd watch --model runs/parts --output found --move incoming/
  patch-svdd watch --model runs/parts --output found --webhook https://plant.example/in incoming/
  patch-svdd watch --model runs/parts --output found --camera 0 --json
"""

import argparse
import contextlib
import math
import operator
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tqdm.contrib.logging import logging_redirect_tqdm

from patch_svdd_jax.commands import console
from patch_svdd_jax.detection import inspection
from patch_svdd_jax.detection.detector import load_identified
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.line import display, moving, page
from patch_svdd_jax.line.album import Album
from patch_svdd_jax.line.display import Display
from patch_svdd_jax.line.folder import Folder, Options
from patch_svdd_jax.line.journal import Journal
from patch_svdd_jax.line.json_lines import JsonLines
from patch_svdd_jax.line.latency import text
from patch_svdd_jax.line.outbox import Outbox, Sink
from patch_svdd_jax.line.running import Feed, Running
from patch_svdd_jax.line.webhook import Webhook, key_of
from patch_svdd_jax.reporting import prediction_overlays
from patch_svdd_jax.serving.scoring import DetectorScorer
from patch_svdd_jax.system import files, signals

# Where secrets are looked for: arguments are seen by all users of a machine.
SECRET = 'PATCH_SVDD_WEBHOOK_SECRET'
USER, PASSWORD = 'PATCH_SVDD_MQTT_USER', 'PATCH_SVDD_MQTT_PASSWORD'
# Seconds that receivers have at the end for what waits.
END_SECONDS = 5.0

# What one run at a time may write to.
output_folder = operator.attrgetter('output')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `watch`."""
  parser.add_argument('folder', nargs='?', type=local, help='folder that image files arrive in')
  parser.add_argument('--model', required=True, type=console.path, help='folder of the run')
  parser.add_argument('--output', required=True, type=local, help='folder of the results')
  console.add_rate_arguments(parser)
  parser.add_argument(
    '--pictures',
    choices=('alarms', 'all', 'none'),
    default='alarms',
    help='of which images masks and overlays are written (default alarms)',
  )
  arriving = parser.add_argument_group('files')
  arriving.add_argument(
    '--poll',
    action='store_true',
    help='look for files each second, on network folders that send no events',
  )
  arriving.add_argument(
    '--settle',
    type=seconds,
    default=Options.settle,
    metavar='SECONDS',
    help=f'for which a file must not have changed before it is read (default {Options.settle:g})',
  )
  arriving.add_argument(
    '--patience',
    type=seconds,
    default=Options.patience,
    metavar='SECONDS',
    help='for which a file that cannot be decoded is waited for, after its last change, before its '
    f'line says so (default {Options.patience:g})',
  )
  arriving.add_argument(
    '--move', action='store_true', help='move files to good/ and bad/ in the folder'
  )
  arriving.add_argument(
    '--move-to', type=local, metavar='PLACE', help='move them to good/ and bad/ there'
  )
  camera = parser.add_argument_group('camera')
  camera.add_argument(
    '--camera',
    metavar='CAMERA',
    help='number of a camera, as 0, path of a video, or URL, as rtsp://, in place of the folder',
  )
  camera.add_argument(
    '--every',
    type=seconds,
    default=0.0,
    metavar='SECONDS',
    help='from one frame to the next, at least (default: as fast as they are scored)',
  )
  camera.add_argument(
    '--keep',
    choices=('alarms', 'all', 'none'),
    default='alarms',
    help='which frames are written to frames/ (default alarms)',
  )
  sinks = parser.add_argument_group('receivers')
  sinks.add_argument('--json', action='store_true', help='print each line on standard output')
  sinks.add_argument(
    '--webhook',
    metavar='URL',
    help=f'post each line there, signed with the secret in the environment variable {SECRET}',
  )
  sinks.add_argument(
    '--webhook-secret-file', type=local, metavar='FILE', help='or in the first line of this file'
  )
  sinks.add_argument(
    '--mqtt',
    metavar='HOST[:PORT]/TOPIC',
    help='publish each line there; mqtts://HOST/TOPIC by TLS; user and password are in the '
    f'environment variables {USER} and {PASSWORD}',
  )


def local(given: str) -> pathlib.Path:
  """Returns a path of this machine."""
  try:
    return files.place(given)
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def seconds(given: str) -> float:
  """Returns a number of seconds, from 0 on."""
  value = float(given)
  if not 0 <= value < math.inf:
    raise argparse.ArgumentTypeError(f'{given}: give seconds, from 0 on')
  return value


def run(options: argparse.Namespace) -> int:
  """Loads, compiles what one image needs, and scores until it is stopped."""
  check(options)
  with contextlib.ExitStack() as kept:
    sinks = [kept.enter_context(contextlib.closing(each)) for each in make_sinks(options)]
    journal = kept.enter_context(contextlib.closing(Journal(options.output)))
    return watch(options, journal, sinks)


def check(options: argparse.Namespace) -> None:
  """Refuses what does not fit together.

  Raises:
    UserError: says what.
  """
  folder, output = options.folder, options.output
  if (folder is None) == (options.camera is None):
    raise UserError('give a folder, or --camera')
  if folder is None and (options.move or options.move_to):
    raise UserError('--move moves files: a camera has none')
  if folder is not None:
    if not folder.is_dir():
      raise UserError(f'{folder}: no such folder')
    if output.resolve() in (folder.resolve(), *folder.resolve().parents):
      raise UserError(f'{folder} lies in {output}: give another --output')
    if not options.poll:
      require('watchfiles', 'watch')
  else:
    require('cv2', 'camera')
  if options.mqtt:
    require('paho.mqtt', 'mqtt')


def require(package: str, extra: str) -> None:
  """Refuses to begin without a package.

  Raises:
    UserError: it is missing.
  """
  try:
    __import__(package)
  except ImportError as error:
    raise UserError(f"{package} is missing: pip install 'patch_svdd_jax[{extra}]'") from error


def make_sinks(options: argparse.Namespace) -> list[Sink]:
  """Returns the receivers that options name.

  Raises:
    UserError: an address or a secret is wrong.
  """
  sinks: list[Sink] = []
  if options.json:
    sinks.append(JsonLines())
  if options.webhook:
    sinks.append(Webhook(options.webhook, key_of(secret(options.webhook_secret_file))))
  if options.mqtt:
    from patch_svdd_jax.line import mqtt

    address = mqtt.parse(options.mqtt)
    sinks.append(mqtt.Mqtt(address, os.environ.get(USER), os.environ.get(PASSWORD)))
  return sinks


def secret(place: pathlib.Path | None) -> str:
  """Returns the secret of the webhook.

  Raises:
    UserError: there is none.
  """
  if place:
    try:
      return (place.read_text().splitlines() or [''])[0].strip()
    except (OSError, ValueError) as error:
      raise UserError(f'{place}: cannot be read: give a file with the secret') from error
  if SECRET not in os.environ:
    raise UserError(f'--webhook signs what it posts: set {SECRET}, or give --webhook-secret-file')
  return os.environ[SECRET]


def watch(options: argparse.Namespace, journal: Journal, sinks: list[Sink]) -> int:
  """Does as `run`, with what that has opened."""
  detector, model = load_identified(options.model)
  rates = options.false_alarm_rate, options.pixel_false_alarm_rate
  scorer = DetectorScorer(detector, options.model.resolve().name, *rates)
  console.print_warnings(scorer.warnings)
  scorer.grow()
  limit = inspection.limits(detector, *rates)
  colours = prediction_overlays.colour_limits(inspection.calibrated(detector), limit.pixel.value)
  album = Album(options.output, limit, colours, options.pictures, options.keep)
  begun = journal.end
  feed = make_feed(options, scorer, journal)
  outboxes = [Outbox(journal, sink) for sink in sinks]
  shown = Display(outboxes)
  line = Running(feed, scorer, journal, album, {'model': model}, shown)
  print(f'watching {options.camera or options.folder} (Ctrl-C ends it)', file=sys.stderr)
  with logging_redirect_tqdm():
    with stopped_by_signals(line):
      line.run()
      deadline = time.monotonic() + END_SECONDS
      for outbox in outboxes:
        outbox.stop(deadline)
      for outbox in outboxes:
        outbox.join()
    shown.close()
  title = str(options.camera or options.folder)
  written = page.write(
    journal, begun, album, detector, limit, title=title, warnings=scorer.warnings
  )
  say_end(line, outboxes, written, sys.stderr if options.json else sys.stdout)
  return 1 if line.failures else 0


def make_feed(options: argparse.Namespace, scorer: DetectorScorer, journal: Journal) -> Feed:
  """Returns where images come from.

  Raises:
    UserError: there is no such folder or camera.
  """
  if options.camera is not None:
    from patch_svdd_jax.line.camera import Camera

    return Camera(options.camera, scorer.prepare, options.every)
  place = options.move_to or (options.folder if options.move else None)
  feed = Folder(
    options.folder,
    scorer.detector.config.data,
    Options(
      options.settle,
      options.patience,
      options.poll,
      place and place / moving.GOOD,
      place and place / moving.BAD,
      (options.output,),
    ),
    region=scorer.detector.region,
  )
  feed.resume(page.records(journal))
  return feed


@contextlib.contextmanager
def stopped_by_signals(line: Running) -> Iterator[None]:
  """Lets Ctrl-C and SIGTERM end a line in order; a second one ends the process at once."""

  def stop(*_: int | FrameType | None) -> None:
    line.stop()

  before: dict[int, Any] = {number: signal.signal(number, stop) for number in signals.SIGNALS}
  try:
    with signals.patient(None):
      yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def say_end(line: Running, outboxes: list[Outbox], written: list[pathlib.Path], where: Any) -> None:
  """Sums up."""
  print(display.counts(line.images, line.alarms, line.failures), file=where)
  latency = line.latency
  dropped = f'; {line.feed.dropped:,} frames dropped' if line.feed.dropped else ''
  if line.images:
    p50, p95 = text(latency.of_all(0.5)), text(latency.of_all(0.95))
    print(f'from arrival to verdict: p50 {p50}, p95 {p95}{dropped}', file=where)
  for outbox in outboxes:
    if outbox.waiting:
      name = outbox.sink.name
      print(f'{name}: {outbox.waiting:,} results wait for the next start', file=where)
  names = ', '.join(['results.jsonl', *(path.name for path in written)])
  print(f'written: {written[0].parent}: {names}', file=where)
