"""The page in a browser: filters, order, keyboard, and the width of a phone."""

import shutil

import pytest

from patch_svdd_jax.reporting.html import rendering

pytest.importorskip('selenium', reason='selenium drives the browser')

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

BROWSER = shutil.which('chromium') or shutil.which('google-chrome')
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(
  not (BROWSER and DRIVER), reason='neither chromium nor google-chrome with chromedriver is there'
)

BY_SCORE = [1.5, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.35, 0.3, 0.2, 0.1]


@pytest.fixture(scope='module')
def chrome():
  options = webdriver.ChromeOptions()
  options.binary_location = BROWSER
  for argument in ('headless=new', 'no-sandbox', 'disable-gpu', 'disable-extensions'):
    options.add_argument(f'--{argument}')
  # A click would hit what a smooth scroll has not reached yet.
  options.add_argument('--force-prefers-reduced-motion')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  driver = webdriver.Chrome(options, Service(DRIVER))
  yield driver
  driver.quit()


@pytest.fixture(scope='module')
def places(html, untold, compared, tmp_path_factory):
  folder = tmp_path_factory.mktemp('pages')
  (folder / 'full.html').write_bytes(html.encode('utf-8', 'replace'))
  rendering.write(folder / 'untold.html', untold)
  rendering.write_html(folder / 'compared.html', compared)
  return {path.stem: path.as_uri() for path in folder.iterdir()}


def resize(chrome, width):
  settings = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width < 600}
  chrome.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', settings)


@pytest.fixture
def browser(chrome, places):
  """The full page, wide, as it opens."""
  resize(chrome, 1280)
  chrome.get(places['full'])
  yield chrome
  assert chrome.get_log('browser') == []  # Neither errors nor what the policy refused.


def shown(browser):
  """The scores of the images that are seen, in their order."""
  script = """return [...document.querySelectorAll('.card')]
    .filter((card) => card.checkVisibility()).map((card) => card.dataset.score)"""
  return [round(float(score), 3) for score in browser.execute_script(script)]


def choose(browser, name, value):
  """Clicks a choice; returns how many it promises."""
  found = browser.find_element(By.CSS_SELECTOR, f'input[name="{name}"][value="{value}"]')
  found.click()
  return int(found.find_element(By.XPATH, '../span').text)


def press(browser, *keys):
  ActionChains(browser).send_keys(*keys).perform()


def focused(browser):
  return browser.switch_to.active_element


def test_filters_show_as_many_images_as_they_promise(browser):
  assert shown(browser) == BY_SCORE
  expected = {
    ('type', 'hole'): [0.95, 0.9, 0.8, 0.7, 0.35],
    ('verdict', 'alarm'): [0.95, 0.9, 0.8, 0.7],
    ('verdict', 'missed'): [0.35],
    ('type', ''): [0.35],
    ('verdict', 'false alarm'): [0.6],
    ('verdict', 'pass'): [0.35, 0.3, 0.2, 0.1],
  }
  for (name, value), scores in expected.items():
    promised = choose(browser, name, value)
    assert shown(browser) == scores
    count = browser.find_element(By.ID, 'count')
    assert count.text == f'{len(scores)} of 11 shown'
    if name == 'verdict' and value != 'alarm':
      assert promised == len(scores)
  choose(browser, 'type', 'thread')
  assert shown(browser) == []
  assert browser.find_element(By.ID, 'none').is_displayed()


def test_order(browser):
  order = Select(browser.find_element(By.ID, 'order'))
  order.select_by_value('rising')
  assert shown(browser) == BY_SCORE[::-1]
  order.select_by_value('name')
  by_name = shown(browser)
  assert by_name.index(0.95) + 1 == by_name.index(0.35)  # 9.png and 10.png: numbers count as such
  order.select_by_value('falling')
  assert shown(browser) == BY_SCORE


def test_numbers_can_be_read_from_the_page(browser, evaluation):
  row = browser.find_element(By.CSS_SELECTOR, '[data-table=maps] [data-row=product]')
  values = evaluation.maps['product'].values()
  assert row.text == ' '.join(['product', *(f'{value:.4f}' for value in values)])


def test_the_keyboard_alone(browser):
  order = browser.find_element(By.ID, 'order')
  browser.execute_script('arguments[0].focus()', order)
  press(browser, Keys.TAB)  # to the first image
  place = BY_SCORE.index

  def score():
    return round(float(focused(browser).get_attribute('data-score')), 3)

  assert score() == 1.5
  assert browser.execute_script(
    'return getComputedStyle(document.activeElement).outlineStyle'
  ) == 'solid'  # fmt: skip
  press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
  assert score() == 0.9
  press(browser, Keys.ARROW_DOWN)
  columns = place(score()) - 2
  assert columns > 1
  press(browser, Keys.ARROW_UP, Keys.ARROW_LEFT)
  assert score() == 0.95
  press(browser, Keys.END)
  assert score() == 0.1
  press(browser, Keys.HOME, Keys.ENTER)
  dialog = browser.find_element(By.ID, 'enlarged')
  title = browser.find_element(By.ID, 'enlarged-title')
  assert dialog.is_displayed()
  assert title.text == "test/thread/'][{{ 7 * 7 }}.png"
  assert len(dialog.find_elements(By.CSS_SELECTOR, '.view img')) == 3
  press(browser, Keys.ARROW_RIGHT)
  assert title.text == 'test/hole/9.png'
  assert len(dialog.find_elements(By.CSS_SELECTOR, '.view img')) == 4
  press(browser, Keys.ESCAPE)
  assert not dialog.is_displayed()
  assert score() == 0.95  # where it was left
  press(browser, Keys.TAB)  # One image is a stop, not all of them.
  assert focused(browser).get_attribute('data-score') is None


def test_pictures_are_enlarged(browser):
  card = browser.find_element(By.CSS_SELECTOR, '.card')
  small = card.find_element(By.TAG_NAME, 'img').size['width']
  card.click()
  dialog = browser.find_element(By.ID, 'enlarged')
  picture = dialog.find_element(By.CSS_SELECTOR, '.view img')
  assert picture.size['width'] > 1.5 * small
  assert browser.execute_script('return arguments[0].naturalWidth', picture) == 256
  assert not dialog.find_element(By.CSS_SELECTOR, '[data-go="-1"]').is_enabled()
  dialog.find_element(By.CSS_SELECTOR, '[data-close]').click()
  assert not dialog.is_displayed()


@pytest.mark.parametrize('name', ['full', 'untold', 'compared'])
def test_nothing_is_wider_than_a_phone(browser, places, name):
  resize(browser, 360)
  browser.get(places[name])
  script = 'return [document.documentElement.scrollWidth, innerWidth]'
  assert browser.execute_script(script) == [360, 360]
  if name == 'full':
    browser.find_element(By.CSS_SELECTOR, '.card').click()
    dialog = browser.find_element(By.ID, 'enlarged')
    assert browser.execute_script('return arguments[0].scrollWidth', dialog) <= 360
    # Wide tables scroll by themselves.
    table = browser.find_element(By.CSS_SELECTOR, '.scroll')
    assert browser.execute_script('return arguments[0].scrollWidth', table) > 360


def test_a_dark_screen_gets_a_dark_page(browser):
  script = 'return getComputedStyle(document.body).backgroundColor'
  for scheme, colour in (('dark', 'rgb(19, 19, 22)'), ('light', 'rgb(255, 255, 255)')):
    feature = {'name': 'prefers-color-scheme', 'value': scheme}
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': [feature]})
    assert colour in browser.execute_script(script).replace('rgba', 'rgb')
