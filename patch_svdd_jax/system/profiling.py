"""Traces of some steps of a run, which XProf and Perfetto open.

What a step is the command says that counts them: a step of training, or a batch of images.
"""

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import compilation_cache, distributed, files
from patch_svdd_jax.system.batching import Progress

Item = TypeVar('Item')

# Where XProf looks for the traces in a folder.
PLACE = pathlib.PurePath('plugins', 'profile')
# What is kept of each process, by the end of its file's name.
TRACE, PERFETTO, MEMORY = '.xplane.pb', '.trace.json.gz', '.memory.pprof'


class Profile:
  """Records what the process and its devices do during some steps of a run, once.

  To be entered before anything is compiled: programs that were kept may be of an earlier version,
  which named no phases, and a CPU's trace does not tell which of its programs they are. What is
  recorded is written when the last of the steps is done, or on the way out.
  """

  def __init__(
    self, folder: pathlib.Path | None = None, wanted: tuple[int, int] | None = None
  ) -> None:
    """Records nothing yet; all processes of several must come here.

    Args:
      folder: that gets the trace; without one nothing is recorded.
      wanted: how many steps precede those to record, and the number of the last of them. None
        leaves the choice to `begin`.

    Raises:
      UserError: the folder cannot be written.
    """
    self._folder, self._wanted = folder, wanted
    self._first = self._last = self._reached = self._all = 0
    self._scratch: tempfile.TemporaryDirectory[str] | None = None
    self._summary: str | None = None
    self._compiled = contextlib.ExitStack()
    if folder:
      files.check_writable(folder / f'trace-{jax.process_index()}')
      # XProf shows the files of all processes together that have one folder.
      moment = time.gmtime(distributed.maximum(int(time.time())))
      self._session = folder / PLACE / time.strftime('%Y_%m_%d_%H_%M_%S', moment)

  def __enter__(self) -> 'Profile':
    if self._folder:
      self._compiled.enter_context(compilation_cache.compiled_anew())
    return self

  def __exit__(self, *_: object) -> None:
    with self._compiled:
      self._end()

  def begin(self, done: int, all_steps: int, together: int = 1) -> None:
    """Settles which of the steps that are about to be taken are recorded.

    By default these are the second to the fifth time that steps are taken: the first time may
    compile, and fills caches.

    Args:
      done: steps that have been taken.
      all_steps: the number of the last one.
      together: how many are taken at a time.

    Raises:
      UserError: no step is left, or not all that were asked for are to be taken.
    """
    if not self._folder:
      return
    self._all = all_steps
    if done >= all_steps:
      raise UserError('--profile: all steps have been taken, none is left to record')
    if self._wanted is None:
      self._first = min(done + together, all_steps - 1)
      self._last = min(done + 5 * together, all_steps)
      return
    self._first, self._last = self._wanted
    if self._first < done or self._last > all_steps:
      raise UserError(
        f'--profile-steps {self._first}:{self._last}: this run takes steps {done}:{all_steps}, '
        'give some of these'
      )

  @contextlib.contextmanager
  def step(self, name: str, done: int, together: int = 1) -> Iterator[None]:
    """Records what runs inside, if it is to be, as some steps of this name.

    Args:
      name: 'train', for one.
      done: steps that have been taken before.
      together: how many are taken inside.
    """
    if not self._scratch and done < self._last and done + together > self._first:
      self._start()
      self._first = self._reached = done
    with jax.profiler.StepTraceAnnotation(name, step_num=done):
      yield
    self._reached = min(done + together, self._all)
    if self._reached >= self._last:
      self._end()

  def over(self, name: str, items: Iterable[Item], count: int) -> Iterator[Item]:
    """Yields the items, each of which is a step."""
    self.begin(0, count)
    for number, item in enumerate(items):
      with self.step(name, number):
        yield item

  def around(self, name: str, progress: Progress) -> Progress:
    """Returns what shows how far a task is as `progress` does; each of its batches is a step."""

    def wrap(batches: Iterable[int]) -> Iterable[int]:
      numbers = list(batches)
      return self.over(name, progress(numbers), len(numbers))

    return wrap

  def summary(self) -> str | None:
    """Returns where the trace is, and of which steps; None where none was recorded."""
    return self._summary

  def _start(self) -> None:
    self._scratch = tempfile.TemporaryDirectory()
    options = jax.profiler.ProfileOptions()
    # It would slow down what runs in Python; its stages are named without it.
    options.python_tracer_level = 0
    jax.profiler.start_trace(
      self._scratch.name, create_perfetto_trace=True, profiler_options=options
    )

  def _end(self) -> None:
    """Writes what was recorded, if anything was; nothing is recorded any more."""
    if scratch := self._scratch:
      self._scratch, self._last = None, 0
      with scratch:
        self._write(pathlib.Path(scratch.name))
      self._summary = f'{self._session}: a trace of steps {self._first}:{self._reached}'

  def _write(self, scratch: pathlib.Path) -> None:
    memory = jax.profiler.device_memory_profile()
    try:
      with files.explained(scratch):
        jax.profiler.stop_trace()
    except jax.errors.JaxRuntimeError as error:  # as of a full disk
      raise UserError(f'cannot write a trace in {scratch}: {error}') from error
    (trace,) = scratch.glob(f'{PLACE}/*/*{TRACE}')
    perfetto = trace.parent / 'perfetto_trace.json.gz'
    host = trace.name.removesuffix(TRACE)
    if jax.process_count() > 1:
      host += f'-{jax.process_index()}'
    for ending, content in (
      (TRACE, trace.read_bytes()),
      (PERFETTO, perfetto.read_bytes()),
      (MEMORY, memory),
    ):
      files.write(self._session / f'{host}{ending}', content)


OFF = Profile()
