"""The page as a stranger reads it: its numbers, that names are text, and that nothing is loaded."""

import base64
import dataclasses
import hashlib
import os
import re

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import metrics
from patch_svdd_jax.reporting.html import charts, rendering

NOT_DATA = re.compile(r'\b(src|href|srcset|poster|action|data|xlink:href)$')


@pytest.fixture(scope='module')
def parsed(html, parse):
  return parse(html)


def test_tables_have_the_figures(page, parsed):
  rows = [row for table in page.tables for row in table.rows]
  for row in rows:
    assert parsed.all('tr', data_row=row.name)
  assert [
    (found['data-metric'], found['data-value'], text)
    for found, text in parsed.all('td', data_metric=True)
  ] == [
    (metric, repr(value), rendering.figure(value))
    for row in rows
    for metric, value in row.figures.items()
  ]


def test_metrics_that_are_not_defined_are_dashes(parsed):
  dashes = {found['data-metric'] for found, _ in parsed.all('td', data_value='nan')}
  assert dashes == {name for name in metrics.TITLES if not name.startswith('image')}
  assert rendering.figure(float('nan')) == '\N{EN DASH}'


def test_headlines(evaluation, other, parsed):
  for metric in ('image_auroc', 'pixel_auroc', 'aupro_30'):
    [(found, _)] = parsed.all('div', class_='headline', data_metric=metric)
    assert float(found['data-value']) == evaluation.maps['product'][metric]
  compared = [float(found['data-value']) for found, _ in parsed.all('p', class_='other')]
  assert compared[0] == other.maps['product']['image_auroc']


def test_aupimo_is_a_distribution_and_a_list_of_the_worst(evaluation, split, parsed):
  values = evaluation.aupimo['product']
  known = values[~np.isnan(values)]
  facts = {
    found['data-fact']: float(found['data-value']) for found, _ in parsed.all('td', data_fact=True)
  }
  assert facts == {
    'mean': evaluation.maps['product']['aupimo'],
    'std': pytest.approx(np.std(known)),
    **dict(
      zip(
        ['first-quartile', 'median', 'third-quartile'],
        np.quantile(known, [0.25, 0.5, 0.75]).tolist(),
        strict=True,
      )
    ),
  }
  listed = [
    (found['data-name'], float(found['data-value']))
    for found, _ in parsed.all('li', data_value=True, data_name=True)
  ]
  named = zip(split.names, values.tolist(), strict=True)
  assert listed == sorted(
    (each for each in named if each[1] >= 0), key=lambda each: (each[1], each[0])
  )


def test_cards_have_what_is_known_of_each_image(page, parsed):
  cards = {found['data-name']: found for found, _ in parsed.all('button', class_='card')}
  scores = [float(card['data-score']) for card in cards.values()]
  assert scores == sorted(scores, reverse=True)
  for item in page.items:
    card = cards[item.name]
    assert float(card['data-score']) == item.score
    assert float(card['data-p-value']) == item.p_value
    known = card['data-type'], card['data-verdict'], card['data-error']
    assert known == (item.defect, item.verdict, item.error)
  # Four pictures each, but for images without an outline; the colour scale, twice; and two each of
  # the five of which AUPIMO is known.
  alts = [found['alt'] for found, _ in parsed.all('img') if 'svg' not in found['src'][:20]]
  assert len(alts) == 5 * 4 + 6 * 3 + 2 + 5 * 2
  assert 'test/hole/9.png: ground truth' in alts


def test_verdicts_and_threshold(parsed):
  [(found, _)] = parsed.all('p', id='threshold')
  assert (found['data-value'], found['data-rate']) == ('0.4', '0.05')
  rows = [found['data-row'] for found, _ in parsed.all('tr', data_row=True)]
  assert {'normal', 'anomalous'} <= set(rows)
  counts = [found['data-value'] for found, _ in parsed.all('td') if [*found] == ['data-value']]
  assert counts[:6] == ['1', '3', '4', '6', '1', '7']  # alarms, passed, all; of both kinds


def test_charts_are_images_that_are_described(page, parsed):
  charts = [found['data-chart'] for found, _ in parsed.all('figure', class_='chart')]
  histogram = 'Image scores: images over score; normal (4); anomalous (7); threshold 0.4'
  shown = [*page.curves, page.aupimo.chart, *page.training]
  assert charts == [
    *(chart.name for chart in page.curves),
    'aupimo',
    'scores',
    *(chart.name for chart in page.training),
  ]
  described = [found['alt'] for found, _ in parsed.all('img') if 'svg' in found['src'][:20]]
  assert sorted(described) == sorted([histogram, *(chart.description for chart in shown)])


def test_settings_that_differ_are_marked(parsed):
  changed = [found['data-row'] for found, _ in parsed.all('tr', data_changed=True)]
  assert changed == ['config.data.root', 'config.train.steps']
  assert parsed.all('tr', data_row='config.seed')


def test_the_data_are_a_section(parsed):
  rows = [found['data-row'] for found, _ in parsed.all('tr', data_row=True)]
  assert [row for row in rows if row.startswith(('train/', 'test/<'))] == ['train/good', 'test/<b>']
  kinds = {found['data-kind']: text for found, text in parsed.all('li', data_kind=True)}
  assert set(kinds) == {'mask_inverted', 'hidden'}
  assert kinds['hidden'] == 'hidden files and folders: 4 (4 x test/<b>); passed over'


def test_names_are_text(page, html, parsed):
  assert [tag for tag, _ in parsed.elements].count('script') == 1
  assert not [name for _, found in parsed.elements for name in found if name.startswith('on')]
  assert '<b>' not in html
  assert '49.png' not in html
  shown = {text for _, text in parsed.all('bdi', class_='name')}
  assert shown == {item.name for item in page.items}


def styles_and_scripts(html):
  return [re.search(f'<{tag}>(.*?)</{tag}>', html, re.DOTALL)[1] for tag in ('style', 'script')]


def test_nothing_is_loaded_from_elsewhere(html, parsed):
  for _, found in parsed.elements:
    for name, value in found.items():
      if NOT_DATA.match(name):
        assert value.startswith(('data:', '#'))
      assert name != 'style'  # The policy would not let it be.
  bare = re.sub(r'"(data:image/[\w+]+;base64,[\w+/=]*|default-src [^"]*)"', '""', html)
  for sign in ('http:', 'https:', '//', '@import', 'url('):
    assert sign not in bare


def test_the_policy_allows_this_style_and_this_script_alone(html, parsed):
  [(found, _)] = parsed.all('meta', http_equiv='Content-Security-Policy')
  style, script = (
    base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    for text in styles_and_scripts(html)
  )
  assert found['content'] == (
    f"default-src 'none'; img-src data:; style-src 'sha256-{style}'; "
    f"script-src 'sha256-{script}'; base-uri 'none'; form-action 'none'"
  )


def test_elements_are_what_assistive_technology_needs(parsed):
  assert parsed.elements[0] == ('html', {'lang': 'en'})
  ids = [found['id'] for _, found in parsed.elements if 'id' in found]
  assert len(ids) == len(set(ids))
  assert all(found['alt'] for found, _ in parsed.all('img'))
  for found, _ in parsed.all('div', class_='scroll'):
    assert (found['tabindex'], found['role']) == ('0', 'region')


def test_a_page_of_images_alone_shows_nothing_else(untold, parse):
  html = rendering.render(untold)
  parsed = parse(html)
  sections = [found['id'] for found, _ in parsed.all('section')]
  assert sections == ['scores', 'images']
  links = [found['href'] for found, _ in parsed.all('a')]
  assert links == ['#scores', '#images']
  assert not parsed.all('fieldset')
  assert not parsed.all('span', class_='p-value')
  assert not [found for found, _ in parsed.all('span') if 'badge' in found.get('class', '')]
  assert 'ground truth' not in html
  assert not parsed.all('p', id='left-out')
  assert f'images ({len(untold.items)})"' in html


def test_a_page_without_images_can_be_made(untold, parse):
  parsed = parse(rendering.render(dataclasses.replace(untold, items=(), scores={})))
  assert parsed.all('section') == []


def test_regions_lie_over_the_overlay(page, parsed):
  alarms = sum(item.alarm for item in page.items)
  boxes = [found for found, _ in parsed.all('svg', class_='boxes')]
  assert len(boxes) == alarms
  assert boxes[0]['viewbox'] == '0 0 64 48'  # pixels of the file
  assert parsed.all('rect')[0][0] == {'x': '2', 'y': '3', 'width': '10', 'height': '4'}


def test_images_that_look_otherwise_say_so(parsed):
  [(_, text)] = parsed.all('span', class_='warning')
  assert text == 'brightness 9 is <below>'


def test_the_page_says_how_many_images_are_left_out(page, parse):
  parsed = parse(rendering.render(page, most_items=3))
  names = [found['data-name'] for found, _ in parsed.all('button', class_='card')]
  # Both errors, and of the others the highest score.
  assert names == ["test/thread/'][{{ 7 * 7 }}.png", 'test/good/002.png', 'test/hole/10.png']
  [(found, text)] = parsed.all('p', id='left-out')
  assert found['data-left-out'] == '8'
  assert text.endswith('8 are left out.')


def test_the_same_page_is_the_same_to_the_byte(page):
  first, second = (rendering.render(page, most_items=1) for _ in range(2))
  assert first == second


def test_a_page_appears_whole_or_not_at_all(untold, tmp_path, monkeypatch):
  path = tmp_path / 'report.html'
  few = [item for item in untold.items if not item.name.isascii()]
  page = dataclasses.replace(untold, items=few)
  rendering.write(path, page)
  before = path.read_bytes()
  assert b'not text ?.png' in before  # That name is text in no encoding.

  def full(*_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', full)
  with pytest.raises(UserError, match='no space'):
    rendering.write(path, dataclasses.replace(page, title='another'))
  assert path.read_bytes() == before
  assert list(tmp_path.iterdir()) == [path]


def luminance(colour):
  channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
  linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
  low, high = sorted((luminance(first), luminance(second)))
  return (high + 0.05) / (low + 0.05)


# What `invert(1) hue-rotate(180deg)` makes of a colour (CSS Filter Effects Module Level 1).
HUE_ROTATION = np.array(
  [[-0.574, 1.43, 0.144], [0.426, 0.43, 0.144], [0.426, 1.43, -0.856]],
)


def inverted(colour):
  channels = 255 - np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
  return '#{:02x}{:02x}{:02x}'.format(
    *np.clip(np.rint(HUE_ROTATION @ channels), 0, 255).astype(int)
  )


def test_contrast_is_that_of_wcag_aa_in_both_schemes():
  css = rendering.read(rendering.STYLE)
  light, dark = (
    dict(re.findall(r'--([\w-]+): (#\w{6});', block))
    for block in re.findall(r':root \{(.*?)\}', css, re.DOTALL)
  )
  for colours in (light, dark):
    for text in ('ink', 'faint', 'good', 'bad', 'accent'):
      for ground in ('paper', 'panel'):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours['ink'], colours['warning']) >= 4.5
  assert '.chart img { filter: invert(1) hue-rotate(180deg); }' in css
  for colour in (*charts.COLOURS, charts.GREY, charts.RED, charts.TEXT):
    least = 4.5 if colour == charts.TEXT else 3
    assert contrast(colour, light['paper']) >= least
    assert contrast(inverted(colour), dark['paper']) >= least, colour
