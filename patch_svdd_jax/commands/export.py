"""Writes a detector as one file that scores images without this package.

The file has the encoder, the memory bank and the calibration inside. It takes images
u8[batch, height, width, 3] in RGB order, resized to config.data.image_size, any number at a time,
and gives of each the score and the map, and where the detector is calibrated the p-value and what
is anomalous at the false-alarm rates.

FILE.onnx is an ONNX model; FILE.stablehlo is a program for jax on CPUs, CUDA GPUs and TPUs, which
needs jax and flatbuffers alone:

  patch-svdd export --model runs/parts --output parts.stablehlo

  exported = jax.export.deserialize(bytearray(open('parts.stablehlo', 'rb').read()))
  found = jax.jit(exported.call)(images)
"""

import argparse
import sys

from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.detection import export, inspection
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.system import files

# What writes a file of which suffix.
FORMATS = {'.stablehlo': export.to_stablehlo, '.onnx': export.to_onnx}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `export`."""
  parser.add_argument('--model', required=True, type=console.path, help='folder of the run')
  parser.add_argument(
    '--output', required=True, type=console.path, metavar='FILE', help='.onnx or .stablehlo'
  )
  console.add_rate_arguments(parser)


def run(options: argparse.Namespace) -> int:
  """Loads, exports, writes."""
  encode = FORMATS[outputs.check_suffix('--output', options.output, FORMATS)]
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
  contents = encode(detector, limit)
  files.write(options.output, contents)
  print(f'written: {options.output}, {len(contents) / 1e6:,.1f} MB')
  return 0
