"""The command line: `patch-svdd COMMAND`, one file a command."""

import argparse
import contextlib
import functools
import importlib
import io
import logging
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from patch_svdd_jax import __version__
from patch_svdd_jax.errors import UserError, one_line
from patch_svdd_jax.system import signals

COMMANDS = {
  'train': 'train an encoder on normal images and fit the detector',
  'eval': 'measure a detector on labelled test images',
  'compare': 'put measured runs side by side, with tests on pairs of images',
  'export': 'write a detector as one file that runs without this package',
  'predict': 'say of images whether they are anomalous, and where',
  'submit': "write and pack what MVTec AD 2's server asks for: maps of the private test images",
  'watch': 'score images as they arrive in a folder or from a camera, and send results on',
  'serve': 'answer over HTTP whether images are anomalous: a page, and JSON',
  'build-bank': 'fit and calibrate the detector of a run anew, or with other settings',
  'add': 'add good images to a detector without training, or take them out again',
  'data': 'say what images, masks and folders are read, what is left out, and what is wrong',
  'sweep': 'train many seeds and settings at once, and compare them',
  'reproduce': 'measure what the paper reports on MVTec AD, and show both side by side',
  'baselines': 'compare with one-class SVM, SVDD, Deep SVDD and others',
  'light': 'say how a detector takes other light',
  'benchmark': 'measure how fast a detector is on this machine, and its training',
  'curves': 'draw what runs learned and scored over time and FLOPs',
  'plan': 'compile programs for TPUs that are not here, and say what they take',
  'cache': 'list or remove what was prepared of data sets, and compiled',
  'import-authors': "turn the authors' trained weights into a model that eval accepts",
}


# Folders of a workdir that a detector is read without, and those that a trace is written without.
BESIDE_MODEL = ('checkpoints', 'eval', 'tensorboard')
EARLIER_TRACES = ('plugins',)


class OneLine(logging.Formatter):
  """Formats a log record as one line; errors that another package survived have no traceback."""

  def format(self, record: logging.LogRecord) -> str:
    """Returns the line."""
    text = record.getMessage()
    if record.exc_info and record.exc_info[1]:
      text += f' ({record.exc_info[1]})'
    return 'warning: ' + one_line(' '.join(text.split()))


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command; returns the exit status: 0, or another after one line about what is wrong."""
  arguments = list(sys.argv[1:] if argv is None else argv)
  # Before anything else is imported: what finds a handler there adds none of its own.
  handler = logging.StreamHandler()
  handler.setFormatter(OneLine())
  logging.basicConfig(level=logging.WARNING, handlers=[handler])
  # Found before argparse: a command's modules are imported only when it is called.
  chosen = arguments[0] if arguments and arguments[0] in COMMANDS else None
  parser = argparse.ArgumentParser(
    'patch-svdd',
    description='Patch SVDD: find defects in images, having learned from good ones only.',
    allow_abbrev=False,
  )
  parser.add_argument('--version', action='version', version=__version__)
  subparsers = parser.add_subparsers(metavar='COMMAND', required=True)
  for name, purpose in COMMANDS.items():
    subparser = subparsers.add_parser(
      name, help=purpose, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    if name == chosen:
      try:
        import jax  # noqa: F401
      except ValueError as error:
        parser.exit(2, f'error: {error}: jax reads the environment: mend what it says there\n')
      module = importlib.import_module(f'{__name__}.{name.replace("-", "_")}')
      subparser.description = module.__doc__
      module.add_arguments(subparser)
      if getattr(module, 'NEEDS_DEVICES', True):
        add_compilation_cache_argument(subparser)
      subparser.set_defaults(module=module)
  options, rest = parser.parse_known_args(arguments)
  if isinstance(sys.stdout, io.TextIOWrapper):
    # As standard error: a name on disk need not be UTF-8, and is printed all the same.
    sys.stdout.reconfigure(errors='backslashreplace')
  run = functools.partial(alone, options.module, options, rest)
  if getattr(options, 'distributed', False):
    from patch_svdd_jax.system import distributed  # imports jax

    return distributed.leave(answer(functools.partial(distributed.together, run)))
  return answer(run)


def add_compilation_cache_argument(parser: argparse.ArgumentParser) -> None:
  """Adds --no-compilation-cache."""
  parser.add_argument(
    '--no-compilation-cache',
    dest='compilation_cache',
    action='store_false',
    help='compile everything anew, and keep nothing of it in ~/.cache/patch_svdd_jax, as with '
    'PATCH_SVDD_COMPILATION_CACHE=off in the environment',
  )


def alone(module: Any, options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Returns the status of a command.

  Args:
    module: the command's; where it has an `output_folder`, no other run may write there. It is
      refused where jax has no devices, and what it compiles is kept, unless its `NEEDS_DEVICES` is
      False. Folders in buckets are fetched without those that it names `UNREAD`.
    options: of the command, with `takes_config` where it has overrides of config keys.
    rest: these overrides.

  Raises:
    UserError: there are arguments that the command does not take.
  """
  takes_config = getattr(options, 'takes_config', False)
  if rest and not takes_config:
    raise UserError(f'unexpected argument {rest[0]!r}: see --help')
  if getattr(module, 'NEEDS_DEVICES', True):
    from patch_svdd_jax.system import compilation_cache, devices

    devices.check()
    # Of several processes, jax lets the first alone keep what all would have to find.
    if options.compilation_cache and not getattr(options, 'distributed', False):
      compilation_cache.enable()
  with contextlib.ExitStack() as kept:
    open_folders(module, options, kept)
    return int(module.run(options, rest) if takes_config else module.run(options))


def open_folders(module: Any, options: argparse.Namespace, kept: contextlib.ExitStack) -> None:
  """Fetches the folders in buckets that options name, and keeps others from the output folder."""
  from patch_svdd_jax.system import working_copy  # imports numpy

  copies = working_copy.named_by(vars(options).values())
  for copy in copies:
    copy.without = getattr(module, 'UNREAD', ())
  if model := working_copy.of(getattr(options, 'model', None) or pathlib.Path()):
    model.without = BESIDE_MODEL
  traces = working_copy.of(getattr(options, 'profile', None) or pathlib.Path())
  if traces:
    traces.without = EARLIER_TRACES
  first = is_first(options)
  for copy in copies:
    copy.uploads = first or copy is traces  # each process has a trace of its own
    kept.enter_context(copy)
  if not hasattr(module, 'output_folder'):
    return
  if first:
    kept.enter_context(working_copy.locked(module.output_folder(options)))
  if copies:
    meet(options)
    for copy in copies:
      copy.fetch()  # what another run wrote before it let go
    meet(options)
    for copy in copies:
      copy.start()


def meet(options: argparse.Namespace) -> None:
  """Waits for the other processes, if there are any."""
  if getattr(options, 'distributed', False):
    from patch_svdd_jax.system import distributed

    distributed.meet()


def is_first(options: argparse.Namespace) -> bool:
  """Returns whether this is the first process, without jax where there is but one."""
  if not getattr(options, 'distributed', False):
    return True
  from patch_svdd_jax.system import distributed

  return distributed.is_first()


def answer(run: Callable[[], int]) -> int:
  """Returns the status that `run` returns, or that of its error or interrupt, in one line."""
  try:
    with signals.patient():
      status = run()
    if not signals.raised():
      return status
  except KeyboardInterrupt as interrupt:
    return interrupted(signals.status(interrupt))
  except Exception as error:
    # That of an interrupt may come out as an error of whatever it hit.
    if not signals.raised():
      if isinstance(error, MemoryError):
        error = UserError(f'there is not enough memory: {error}')
      if not isinstance(error, UserError):
        raise
      print(f'error: {one_line(str(error))}', file=sys.stderr)
      return error.status
  return interrupted(128 + signals.raised())


def interrupted(status: int) -> int:
  """Says it in one line, and returns the status."""
  if signals.is_first_word():
    print('interrupted', file=sys.stderr)
  return status
