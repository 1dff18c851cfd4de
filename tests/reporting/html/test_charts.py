"""Charts as SVG images: their text, their size, and that they depend on what is plotted alone."""

import base64
import xml.etree.ElementTree

import numpy as np

from patch_svdd_jax.reporting.html.charts import Chart

SVG = '{http://www.w3.org/2000/svg}'


def decode(uri):
  head, _, body = uri.partition(',')
  assert head == 'data:image/svg+xml;base64'
  return base64.b64decode(body, validate=True)


def parse(chart):
  return xml.etree.ElementTree.fromstring(decode(chart.uri))


def make_chart():
  chart = Chart('name', 'Title', 'x of <this>', 'y')
  chart.axes.plot([0, 25_000], [0, 1], label='a & b')
  chart.axes.axhline(0.125, label='chance')
  return chart


def test_an_image_has_titles_ticks_and_legend_as_text():
  found = [each.text for each in parse(make_chart()).iter(f'{SVG}text')]
  for text in ('x of <this>', 'y', 'a & b', 'chance', '25,000', '0.2', '1'):
    assert found.count(text) == 1, text
  assert 'Title' not in found  # The page has it.


def test_the_description_names_what_the_image_shows():
  assert make_chart().description == 'Title: y over x of <this>; a & b; chance'


def test_equal_charts_are_the_same_to_the_byte():
  assert make_chart().uri == make_chart().uri


def test_the_legend_takes_no_room_from_the_plot():
  longer = make_chart()
  longer.axes.plot([0, 1], [0, 1], label='another')
  heights = [float(parse(each).get('height')[:-2]) for each in (make_chart(), longer)]
  assert heights[0] < heights[1]


def test_long_lines_are_thinned():
  chart = Chart('', '', '', '')
  chart.axes.plot(*np.sort(np.random.default_rng(0).random((2, 100_000))))
  assert len(decode(chart.uri)) < 20_000


def test_a_line_is_interrupted_where_it_is_not_finite():
  chart = Chart('', '', '', '')
  chart.axes.plot(np.arange(6), [0, 0.5, np.nan, np.inf, 0.5, 0], color='#123456')
  parsed = parse(chart)
  [line] = [each for each in parsed.iter(f'{SVG}path') if '#123456' in each.get('style', '')]
  assert line.get('d').count('M') == 2
