"""TensorBoard's event files: records of protocol buffers, each with checksums (TFRecord).

Written out, since every package that writes them imports PyTorch or TensorFlow where one of those
is installed, which takes seconds. The field numbers are those of TensorBoard's event.proto and
summary.proto.
"""

import pathlib
import socket
import struct
import time
from collections.abc import Mapping

VERSION, SESSION_STARTS = b'brain.Event:2', b'\x08\x01'


def _checksum_of_byte(byte: int) -> int:
  for _ in range(8):
    byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
  return byte


_CHECKSUMS = [_checksum_of_byte(byte) for byte in range(256)]


def _checksum(data: bytes) -> bytes:
  """Returns Castagnoli's CRC-32 (RFC 3720), turned right by 15 bits plus a constant."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CHECKSUMS[(crc ^ byte) & 0xFF]
  crc ^= 0xFFFFFFFF
  return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(value: int) -> bytes:
  """Returns a number from 0 on in bytes of seven bits each, the lowest first."""
  if value < 128:
    return bytes([value])
  return bytes([value & 127 | 128]) + _varint(value >> 7)


def _sized(number: int, contents: bytes) -> bytes:
  """Returns a field of bytes, text or a message."""
  return bytes([number << 3 | 2]) + _varint(len(contents)) + contents


class EventFile:
  """A new file in a folder, which tells TensorBoard to drop what older files have after a step."""

  def __init__(self, folder: pathlib.Path, first_step: int):
    name = f'events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{first_step}'
    self._file = (folder / name).open('wb')
    self._add(0, _sized(3, VERSION))
    self._add(first_step + 1, _sized(7, SESSION_STARTS))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Writes named values, as float32, at a step."""
    named = (
      _sized(1, _sized(1, name.encode()) + struct.pack('<Bf', 2 << 3 | 5, value))
      for name, value in values.items()
    )
    self._add(step, _sized(5, b''.join(named)))
    self._file.flush()

  def _add(self, step: int, what: bytes) -> None:
    """Writes an event: its time, its step and what it tells."""
    event = struct.pack('<Bd', 1 << 3 | 1, time.time()) + bytes([2 << 3]) + _varint(step) + what
    size = struct.pack('<Q', len(event))
    self._file.write(size + _checksum(size) + event + _checksum(event))

  def close(self) -> None:
    """Closes the file."""
    self._file.close()
