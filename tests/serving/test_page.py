"""The page in a browser, where there is one: an image goes in, what is found is read and seen."""

import shutil

import pytest

from tests.serving.fake import FakeScorer, file_of

webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
from selenium.webdriver.common.by import By  # noqa: E402
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
