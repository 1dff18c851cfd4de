'use strict';
const $ = (id) => document.getElementById(id);
const TRIES = 10;
let health = null, running = null, shown = null, shownUrl = null;

const digits = (value) => Number(value.toPrecision(4)).toString();
const percent = (rate) => `${Number((100 * rate).toPrecision(2))} %`;
const seconds = (count) => new Promise((done) => setTimeout(done, 1000 * count));

async function loadHealth() {
  const answer = await fetch('health');
  health = await answer.json();
  const {model, threshold, calibration_images: images, bounds} = health;
  $('model').textContent = `${model.name}, step ${model.step}; ${percent(threshold.rate)} false alarms` +
    ` by ${images} normal images${threshold.ensured ? '' : ' (not ensured)'}`;
  $('region-mode').hidden = !health.region;
  $('bounds').textContent =
    `, up to ${digits(bounds.request_bytes / 2 ** 20)} MB and ${digits(bounds.pixels / 1e6)} megapixels`;
}

function notify(text) {
  $('notice').textContent = text;
  $('notice').hidden = !text;
}

function fail(text) {
  $('error').textContent = text;
  $('error').hidden = !text;
}

async function ask(file, abort) {
  // TIFF files are not shown by most browsers.
  const query = /\.tiff?$/i.test(file.name) || file.type === 'image/tiff' ? '&photo=true' : '';
  for (let attempt = 1; ; attempt++) {
    const form = new FormData();
    form.append('image', file, file.name || 'pasted.png');
    const answer = await fetch(`score?map=true${query}`, {method: 'POST', body: form, signal: abort});
    if (answer.status === 503 && attempt < TRIES) {
      $('busy').textContent = 'The server is busy, waiting …';
      await seconds(Number(answer.headers.get('Retry-After') || 1));
      continue;
    }
    const found = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
    if (!answer.ok) throw new Error(found.error);
    return found;
  }
}

async function score(file) {
  if (running) running.abort();
  const mine = running = new AbortController();
  fail('');
  notify('');
  $('busy').textContent = `Scoring ${file.name || 'the pasted image'} …`;
  $('result').hidden = true;
  $('announcement').textContent = '';
  try {
    if (!health) await loadHealth();
    if (file.size > health.bounds.request_bytes) {
      throw new Error(`the file is larger than ${digits(health.bounds.request_bytes / 2 ** 20)} MB`);
    }
    const found = await ask(file, mine.signal);
    if (mine !== running) return;
    await show(file, found);
  } catch (error) {
    if (mine !== running) return;
    fail(error instanceof TypeError ? 'The server cannot be reached: is it running?'
      : `Not scored: ${error.message}`);
  }
  if (mine === running) $('busy').textContent = '';
}

async function show(file, found) {
  if (editor.open && String(found.size) !== String(shown.found.size)) closeRegion();
  shown = {file, found};
  const alarm = found.verdict === 'alarm';
  $('verdict').textContent = alarm ? '✕ Alarm' : '✓ Pass';
  $('verdict').className = found.verdict;
  $('name').textContent = found.image;
  $('score').textContent = digits(found.score);
  $('threshold').textContent = digits(health.threshold.value);
  $('p').textContent = digits(found.p_value);
  $('size').textContent = `${found.size[0]} x ${found.size[1]}`;
  $('warnings').replaceChildren(...found.warnings.map((text) => make('li', `⚠ ${text}`)));
  $('regions').tBodies[0].replaceChildren(...found.regions.map(row));
  $('regions').hidden = !found.regions.length;
  drawScale(found.map.scale);
  drawBoxes(found);
  $('map').src = `data:image/png;base64,${found.map.png}`;
  $('photo').alt = `${found.image}, with its anomaly map: ${found.regions.length} anomalous regions`;
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = found.photo ? null : URL.createObjectURL(file);
  $('photo').src = shownUrl || `data:image/jpeg;base64,${found.photo}`;
  await $('photo').decode().catch(() => {});
  $('result').hidden = false;
  showAdding(false);
  // What was hidden is not read out when it appears.
  $('announcement').textContent = `${found.image}: ${found.verdict}, score ${digits(found.score)},` +
    ` p-value ${digits(found.p_value)}. ${found.warnings.join('. ')}`;
}

function make(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function row({box: [left, top, width, height], area, score}) {
  const line = document.createElement('tr');
  const texts = [`${left}, ${top}`, `${width} x ${height}`, area, digits(score)];
  line.append(...texts.map((text) => make('td', text)));
  return line;
}

function drawScale([low, high]) {
  $('low').textContent = digits(low);
  $('middle').textContent = `${digits((low + high) / 2)}, the pixel threshold`;
  $('high').textContent = `${digits(high)} or more`;
  $('scale').setAttribute('aria-label', `Colours from ${digits(low)} to ${digits(high)}`);
}

function drawBoxes(found) {
  const svg = $('boxes');
  svg.setAttribute('viewBox', `0 0 ${found.size[0]} ${found.size[1]}`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.replaceChildren(...found.regions.map(({box: [x, y, width, height]}) => {
    const rectangle = document.createElementNS('http://www.w3.org/2000/svg', 'rect');
    for (const [name, value] of Object.entries({x, y, width, height})) {
      rectangle.setAttribute(name, value);
    }
    return rectangle;
  }));
}

function take(files) {
  const file = [...files].find((each) => each.type.startsWith('image/') || /\.(tiff?|bmp)$/i.test(each.name));
  if (file) score(file);
  else if (files.length) fail('That is no image: give a PNG, JPEG, BMP, TIFF, WebP, GIF or JPEG 2000 file.');
}

$('choose').addEventListener('click', () => $('file').click());
$('photograph').addEventListener('click', () => $('camera').click());
for (const id of ['file', 'camera']) {
  $(id).addEventListener('change', (event) => {
    take(event.target.files);
    event.target.value = '';  // the same file again is a change, too
  });
}
document.addEventListener('paste', (event) => take(event.clipboardData.files));
for (const kind of ['dragenter', 'dragover']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $('drop').classList.add('over');
  });
}
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) $('drop').classList.remove('over');
});
document.addEventListener('drop', (event) => {
  event.preventDefault();
  $('drop').classList.remove('over');
  take(event.dataTransfer.files);
});
$('opacity').addEventListener('input', (event) => {
  $('map').style.opacity = event.target.value / 100;
  $('photo').classList.toggle('plain', event.target.value === '0');
});
$('boxed').addEventListener('change', (event) => {
  $('boxes').style.display = event.target.checked ? '' : 'none';
});
loadHealth().then(() => health.region?.state === 'building' && followRegion())
  .catch(() => fail('The server cannot be reached: is it running?'));
