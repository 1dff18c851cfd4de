"""The page in a browser, where there is one: an image goes in, what is found is read and seen."""

import re
import shutil

import numpy as np
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.serving import page
from tests.serving.fake import FakeRegions, FakeScorer, file_of

webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

BROWSER, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason='no chromium with its driver')


@pytest.fixture
def browser():
  options = webdriver.ChromeOptions()
  options.binary_location = BROWSER
  for flag in ('headless=new', 'no-sandbox', 'disable-gpu', 'disable-dev-shm-usage'):
    options.add_argument(f'--{flag}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
  yield driver
  driver.quit()


def test_an_image_goes_in_and_what_is_found_is_shown(start_server, browser, tmp_path):
  def text(name):
    return browser.find_element(By.ID, name).text

  def upload(name, content):
    (tmp_path / name).write_bytes(content)
    browser.find_element(By.ID, 'file').send_keys(str(tmp_path / name))

  def wait(condition):
    WebDriverWait(browser, 20, 0.05).until(lambda _: condition())

  def loaded(name):
    return browser.execute_script(f'return document.getElementById("{name}").naturalWidth')

  browser.get(start_server(FakeScorer()))
  wait(lambda: 'parts, step 7' in text('model'))

  upload('bolt.png', file_of(220, (120, 60)))
  wait(lambda: text('verdict') == '✕ Alarm')
  assert (text('score'), text('threshold'), text('p')) == ('220', '100', '0.25')
  assert (text('name'), text('size')) == ('bolt.png', '120 x 60')
  assert '<b>strange</b>' in text('warnings')  # as text
  announced = browser.find_element(By.CSS_SELECTOR, '[aria-live]').get_property('textContent')
  assert announced.startswith('bolt.png: alarm, score 220, p-value 0.25. brightness 220')
  assert (text('low'), text('middle'), text('high')) == (
    '0',
    '100, the pixel threshold',
    '200 or more',
  )
  assert text('regions').splitlines()[-1] == '0, 0 60 x 60 3600 220'
  assert (loaded('photo'), loaded('map')) == (120, 10)
  box, photo = (
    browser.find_element(By.CSS_SELECTOR, each).rect for each in ('#boxes rect', '#photo')
  )
  assert box['width'] == pytest.approx(photo['width'] / 2, abs=3)
  assert box['height'] == pytest.approx(photo['height'], abs=3)

  upload('nut.tif', file_of(40, kind='TIFF'))
  wait(lambda: text('verdict') == '✓ Pass')
  assert (text('name'), text('warnings'), text('regions')) == ('nut.tif', '', '')
  assert loaded('photo') == 12  # which no browser shows by itself

  upload('noise.png', b'noise')
  wait(lambda: 'is not a PNG' in text('error'))
  assert text('verdict') == ''

  upload('large.png', bytes(300_000))
  wait(lambda: 'larger than' in text('error'))

  upload('nut.png', file_of(40))
  wait(lambda: text('verdict') == '✓ Pass')
  assert text('error') == ''
  # Nothing was blocked, nothing failed, but what was refused above.
  assert all('422' in each['message'] for each in browser.get_log('browser'))


def test_the_page_fits_a_phone_and_the_keyboard(start_server, browser, tmp_path):
  browser.get(start_server(FakeScorer()))
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True},
  )
  path = tmp_path / ('a_rather_long_name_of_a_file_' * 4 + '.png')
  path.write_bytes(file_of(220, (500, 100)))
  browser.find_element(By.ID, 'file').send_keys(str(path))
  shown = browser.find_element(By.ID, 'result')
  WebDriverWait(browser, 20, 0.05).until(lambda _: shown.is_displayed())
  assert browser.execute_script('return document.documentElement.scrollWidth') <= 360
  focused = []
  for _ in range(3):
    browser.switch_to.active_element.send_keys('\ue004')
    focused.append(browser.switch_to.active_element.get_attribute('id'))
  assert focused[0] == 'choose'
  assert {'opacity', 'boxed'} & {*focused}


def test_the_scripts_share_no_name():
  """They are one script: a second function of a name would take the place of the first."""
  script = page.assemble().html
  names = re.findall(r'^(?:async )?(?:function|class|const|let) (\w+)', script, re.MULTILINE)
  assert sorted(names) == sorted(set(names))


class FakeAdditions:
  """Good images that are counted; the second one is refused."""

  def __init__(self):
    self.images = []

  def add(self, split, name, content):
    del split, content
    if self.images:
      raise UserError('this image was added before')
    self.images.append(name)
    return {
      'version': 2,
      'images': (30, 31),
      'threshold': (100.0, 90.0),
      'median': (10.0, 9.0),
      'score': 120.0,
      'p_value': 0.1,
      'alarm': True,
    }

  def undo(self):
    self.images.pop()
    return {'version': 1, 'images': 1}


def test_a_region_is_drawn_and_a_good_part_is_added(start_server, browser, tmp_path):
  def find(name):
    return browser.find_element(By.ID, name)

  def wait(name, words):
    WebDriverWait(browser, 20, 0.05).until(lambda _: words in find(name).text)

  def click_at(*places):
    canvas = find('region-canvas')
    for x, y in places:
      width, height = canvas.size['width'], canvas.size['height']
      ActionChains(browser).move_to_element_with_offset(
        canvas, round(x * width), round(y * height)
      ).click().perform()

  regions, additions = FakeRegions(), FakeAdditions()
  browser.set_window_size(1280, 1400)
  browser.get(start_server(FakeScorer(), regions=regions, additions=additions))
  (tmp_path / 'nut.png').write_bytes(file_of(40, (120, 80)))
  find('file').send_keys(str(tmp_path / 'nut.png'))
  wait('verdict', 'Pass')

  find('region-mode').click()
  wait('region-state', '%')  # until then the region that there is, is fetched
  click_at((-0.3, -0.3), (0.3, -0.3), (0.3, 0.3), (-0.3, 0.3), (-0.3, -0.3))
  wait('region-state', 'Polygon of 4 corners added. 36 % of the image counts.')
  find('undo').click()
  wait('region-state', '100 %')
  # By keyboard, from the middle of the image: three corners and back to the first one.
  keys = [Keys.ENTER, *[Keys.ARROW_RIGHT] * 4, Keys.ENTER, *[Keys.ARROW_DOWN] * 4, Keys.ENTER, 'c']
  for key in keys:
    find('region-canvas').send_keys(key)
  wait('region-state', 'Polygon of 3 corners added.')
  find('save-region').click()
  wait('building-text', 'made anew')
  (drawn,) = regions.asked
  assert drawn.shape == (80, 120)
  assert 0 < drawn.mean() < 0.2
  assert not drawn[:30].any()
  regions.finish()
  wait('notice', 'The region is saved')
  np.testing.assert_array_equal(regions.region, drawn)

  find('add-good').click()
  find('confirm-no').click()
  assert additions.images == []
  find('add-good').click()
  find('confirm-yes').click()
  wait('notice', 'Added as version 2: 31 normal images, threshold 100 → 90. It was an alarm before')
  assert additions.images == ['nut.png']
  find('add-good').click()
  find('confirm-yes').click()
  wait('error', 'this image was added before')
  find('undo-good').click()
  wait('notice', 'Back to version 1')
  assert additions.images == []


@pytest.mark.slow
def test_a_region_is_drawn_by_brush_and_by_touch(start_server, browser, tmp_path):
  def find(name):
    return browser.find_element(By.ID, name)

  def wait(words):
    WebDriverWait(browser, 20, 0.05).until(lambda _: words in find('region-state').text)

  def press(*keys):
    for key in keys:
      find('region-canvas').send_keys(key)

  def touch(kind, *places):
    box = browser.execute_script(
      'return arguments[0].getBoundingClientRect()', find('region-canvas')
    )
    points = [
      {'x': box['x'] + x * box['width'], 'y': box['y'] + y * box['height']} for x, y in places
    ]
    browser.execute_cdp_cmd('Input.dispatchTouchEvent', {'type': kind, 'touchPoints': points})

  regions = FakeRegions()
  regions.region = np.ones((80, 120), bool)
  regions.region[:, 60:] = False
  browser.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride',
    {'width': 390, 'height': 900, 'deviceScaleFactor': 2, 'mobile': True},
  )
  browser.execute_cdp_cmd('Emulation.setTouchEmulationEnabled', {'enabled': True})
  browser.get(start_server(FakeScorer(), regions=regions))
  (tmp_path / 'nut.png').write_bytes(file_of(40, (120, 80)))
  find('file').send_keys(str(tmp_path / 'nut.png'))
  WebDriverWait(browser, 20, 0.05).until(lambda _: find('region-mode').is_displayed())
  find('region-mode').click()
  wait('50 % of the image counts.')
  assert browser.execute_script('return document.documentElement.scrollWidth') <= 390
  browser.execute_script('arguments[0].scrollIntoView()', find('stage'))

  # Three corners are tapped, and the first one again.
  for place in ((0.6, 0.1), (0.95, 0.1), (0.95, 0.9), (0.6, 0.1)):
    touch('touchStart', place)
    touch('touchEnd')
  wait('Polygon of 3 corners added.')
  press(Keys.CONTROL + 'z')
  wait('Undone. 50 %')
  press(Keys.CONTROL + 'y')
  wait('Redone.')
  press(Keys.CONTROL + 'z')
  wait('Undone. 50 %')

  # A stroke with the finger leaves out; one that the browser takes over leaves nothing.
  press('b', 'e')
  for end in ('touchCancel', 'touchEnd'):
    touch('touchStart', (0.1, 0.5))
    touch('touchMove', (0.4, 0.5))
    touch(end)
    wait('Cancelled. 50 %' if end == 'touchCancel' else 'Stroke left out. 4')

  # The brush by keyboard: down, two steps, up; Esc takes a stroke back.
  press('a', ' ', Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, ' ')
  wait('Stroke added.')
  press(' ', Keys.ARROW_UP, Keys.ESCAPE)
  wait('Cancelled.')
  press('i')
  wait('Inverted. 5')
  find('clear').click()
  wait('Cleared. 0 %')
  find('save-region').click()
  wait('The region is empty')
  find('whole').click()
  find('save-region').click()
  WebDriverWait(browser, 20, 0.05).until(lambda _: regions.asked)
  assert regions.asked[0].all()
  assert not browser.get_log('browser')
