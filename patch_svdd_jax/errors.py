"""The one error that is meant for people."""


class UserError(Exception):
  """Bad input or a bad setting: one line that says what, where, and what to do.

  Commands print the line and exit with the status; anything else that is raised is a bug of ours
  and keeps its traceback.
  """

  status = 2


def one_line(text: str) -> str:
  """Returns a text that may quote any file's name, with what would break its line escaped."""
  return ''.join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
