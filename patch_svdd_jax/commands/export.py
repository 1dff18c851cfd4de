"""Writes a detector as one file that scores images without this package.

The file has the encoder, the memory bank and the calibration inside. It takes images
u8[batch, height, width, 3] in RGB order, resized to config.data.image_size, any number at a time,
and gives of each the score and the map, and where the detector is calibrated the p-value and what
is anomalous at the false-alarm rates.

FILE.onnx is an ONNX model; any other name is a program for jax on CPUs, CUDA GPUs and TPUs, which
needs jax and flatbuffers alone:

  patch-svdd export --model runs/parts --output parts.stablehlo

  exported = jax.export.deserialize(bytearray(open('parts.stablehlo', 'rb').read()))
  found = jax.jit(exported.call)(images)
"""

import argparse
import pathlib
import sys

from patch_svdd_jax.commands import console
from patch_svdd_jax.detection import export, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.system import files


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `export`."""
  parser.add_argument('--model', required=True, type=console.folder, help='folder of the run')
  parser.add_argument(
    '--output', required=True, type=pathlib.Path, metavar='FILE', help='.onnx, or any other name'
  )
  console.add_rate_arguments(parser)


def run(options: argparse.Namespace) -> int:
  """Loads, exports, writes."""
  files.check_writable(options.output)
  detector = Detector.load(options.model)
  limit = None
  if detector.calibration:
    rates = options.false_alarm_rate, options.pixel_false_alarm_rate
    limit = inspection.limits(detector, *rates)
    for text in limit.warnings:
      print(f'warning: {text}', file=sys.stderr)
  else:
    print('warning: the detector is not calibrated: scores and maps only', file=sys.stderr)
  onnx = options.output.suffix == '.onnx'
  contents = (export.to_onnx if onnx else export.to_stablehlo)(detector, limit)
  files.write(options.output, contents)
  print(f'written: {options.output}, {len(contents) / 1e6:,.1f} MB')
  return 0
