// Drawing the region over the photo: pointers of any kind, and keys that move a cursor.
const LONGEST = 1024;  // pixels of the region's longer side
const [STEP, FINE] = [16, 2];  // pixels of the screen that a key moves the cursor
const NEAR = {mouse: 10, pen: 12, touch: 24};  // and within which a corner is met
const [SMALLEST, LARGEST] = [1, 50];  // % of the width, of the brush

const editor = {
  open: false, mask: null, tool: 'polygon', erase: false, corners: [], cursor: null,
  pointer: null, down: false,
  get size() { return $('brush-size').value / 100 * this.mask.width; },
};

const say = (text) => { $('region-state').textContent = text; };
const share = () => `${percent(editor.mask.share())} of the image counts.`;
const coordinates = ({x, y}) => `${Math.round(x)}, ${Math.round(y)}`;

function paint() {
  if (!editor.open) return;
  drawRegion(editor);
  for (const [id, steps] of [['undo', editor.mask.done], ['redo', editor.mask.undone]]) {
    const none = !steps.length && !(id === 'undo' && editor.corners.length);
    $(id).setAttribute('aria-disabled', none);
  }
}

async function openRegion() {
  try {
    const model = await readRegion();
    const [width, height] = shown.found.size;
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    const size = [width, height].map((side) => Math.max(1, Math.round(side * scale)));
    editor.mask = new RegionMask(...size, model);
  } catch (error) {
    return fail(`The region cannot be drawn: ${error.message}`);
  }
  Object.assign($('region-canvas'), {width: editor.mask.width, height: editor.mask.height});
  Object.assign(editor, {open: true, corners: [], cursor: null, pointer: null, down: false});
  showEditor(true);
  say(`${share()} ${editor.mask.model ? '' : 'Draw around what is to count.'}`);
  $('region-canvas').focus({preventScroll: true});
}

function closeRegion() {
  editor.open = false;
  showEditor(false);
}

function showEditor(open) {
  $('stage').classList.toggle('editing', open);
  $('region-panel').hidden = !open;
  $('region-canvas').hidden = !open;
  $('region-mode').setAttribute('aria-pressed', open);
  for (const id of ['scale', 'ticks', 'map-controls']) $(id).hidden = open;
  paint();
}

function change(step, text) {
  editor.mask.add(step);
  paint();
  say(`${text} ${share()}`);
}

const verb = () => (editor.erase ? 'left out' : 'added');

// Corners become a region once there are three; met again, the first or the last one closes it.
function setCorner(point, near = 0) {
  const corners = editor.corners;
  const met = (corner) => corner && Math.hypot(corner.x - point.x, corner.y - point.y) <= near;
  if (corners.length > 2 && (met(corners[0]) || met(corners.at(-1)))) return closePolygon();
  if (met(corners.at(-1))) return say('This is a corner already.');
  corners.push(point);
  paint();
  say(`Corner ${corners.length} at ${coordinates(point)}.` +
    (corners.length > 2 ? ' The first one, or Close, closes the polygon.' : ''));
}

function closePolygon() {
  if (editor.corners.length < 3) return say('A polygon has three corners or more.');
  const points = editor.corners;
  editor.corners = [];
  change({kind: 'polygon', points, erase: editor.erase},
    `Polygon of ${points.length} corners ${verb()}.`);
}

function beginStroke(point, erase = editor.erase) {
  editor.down = true;
  editor.mask.add({kind: 'stroke', points: [point], size: editor.size, erase});
  paint();
}

function endStroke() {
  editor.down = false;
  say(`Stroke ${verb()}. ${share()}`);
}

function cancel() {
  if (editor.down) editor.mask.drop();
  const something = editor.down || editor.corners.length;
  Object.assign(editor, {corners: [], down: false, pointer: null});
  paint();
  say(something ? `Cancelled. ${share()}` : 'There is nothing to cancel.');
}

function undo() {
  if (editor.down) return cancel();
  if (editor.corners.pop()) say(`Corner taken back; ${editor.corners.length} left.`);
  else say(editor.mask.undo() ? `Undone. ${share()}` : 'There is nothing to undo.');
  paint();
}

function redo() {
  say(editor.mask.redo() ? `Redone. ${share()}` : 'There is nothing to redo.');
  paint();
}

function clearRegion() {
  editor.corners = [];
  change({kind: 'nothing'}, 'Cleared.');
}

function choose(tool, erase) {
  if (editor.down) endStroke();
  if (tool !== editor.tool) editor.corners = [];
  Object.assign(editor, {tool, erase});
  $(`tool-${tool}`).checked = true;
  $(erase ? 'effect-erase' : 'effect-add').checked = true;
  paint();
}

function resizeBrush(factor) {
  const size = $('brush-size');
  size.value = Math.min(LARGEST, Math.max(SMALLEST, Math.round(size.value * factor)));
  paint();
  say(`Brush of ${size.value} % of the width.`);
}

function pointOf(event) {
  const canvas = $('region-canvas'), box = canvas.getBoundingClientRect();
  const within = (value, end) => Math.min(end, Math.max(0, value));
  return {
    x: within((event.clientX - box.left) / box.width, 1) * canvas.width,
    y: within((event.clientY - box.top) / box.height, 1) * canvas.height,
  };
}

function pointerDown(event) {
  if (event.button > 0 && event.button !== 5 || editor.pointer !== null) return;
  event.preventDefault();
  $('region-canvas').focus({preventScroll: true});
  $('region-canvas').setPointerCapture(event.pointerId);
  editor.pointer = event.pointerId;
  editor.cursor = pointOf(event);
  // The other end of a pen erases.
  if (editor.tool === 'brush') beginStroke(editor.cursor, editor.erase || event.button === 5);
  else paint();
}

function pointerMove(event) {
  const held = editor.pointer === event.pointerId;
  if (!held && editor.pointer !== null) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const each of events.length ? events : [event]) {
    editor.cursor = pointOf(each);
    if (held && editor.down) editor.mask.extend(editor.cursor);
  }
  paint();
}

function pointerUp(event) {
  if (editor.pointer !== event.pointerId) return;
  editor.pointer = null;
  if (editor.down) endStroke();
  // Where it is let go, so that a finger can be moved to where it should be.
  else if (editor.tool === 'polygon') setCorner(pointOf(event), NEAR[event.pointerType] * unit());
  if (event.pointerType === 'touch') editor.cursor = null;
  paint();
}

const middle = () => ({x: editor.mask.width / 2, y: editor.mask.height / 2});

const MOVES = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function moveCursor([right, down], fine) {
  const {width, height} = editor.mask, step = (fine ? FINE : STEP) * unit();
  const from = editor.cursor;
  const within = (value, end) => Math.min(end, Math.max(0, value));
  editor.cursor = {x: within(from.x + right * step, width), y: within(from.y + down * step, height)};
  if (editor.down) editor.mask.extend(editor.cursor);
  paint();
  say(`${coordinates(editor.cursor)}, ${editor.mask.has(editor.cursor) ? 'inside' : 'outside'}`);
}

function set(point) {
  if (editor.tool === 'polygon') return setCorner(point, FINE * unit() / 2);
  beginStroke(point);
  endStroke();
}

function lower(point) {
  if (editor.tool === 'polygon') return setCorner(point, FINE * unit() / 2);
  if (editor.down) return endStroke();
  beginStroke(point);
  say('The brush is down: arrow keys draw, Space lifts it.');
}

const KEYS = {
  Enter: () => set(editor.cursor), ' ': () => lower(editor.cursor),
  Escape: cancel, Backspace: undo, Delete: undo,
  '[': () => resizeBrush(1 / 1.25), ']': () => resizeBrush(1.25),
  p: () => choose('polygon', editor.erase), b: () => choose('brush', editor.erase),
  a: () => choose(editor.tool, false), e: () => choose(editor.tool, true),
  c: closePolygon, i: () => change({kind: 'invert'}, 'Inverted.'),
};

function keyDown(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!MOVES[key] && !KEYS[key]) return;
  event.preventDefault();
  editor.cursor ||= middle();
  if (MOVES[key]) moveCursor(MOVES[key], event.shiftKey);
  else KEYS[key]();
}

function historyKey(event) {
  if (!editor.open || !(event.ctrlKey || event.metaKey) || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key !== 'z' && key !== 'y') return;
  event.preventDefault();
  if (key === 'y' || event.shiftKey) redo();
  else undo();
}

const region = $('region-canvas');
region.addEventListener('pointerdown', pointerDown);
region.addEventListener('pointermove', pointerMove);
region.addEventListener('pointerup', pointerUp);
region.addEventListener('pointercancel', (event) => {
  if (event.pointerId === editor.pointer) cancel();
});
region.addEventListener('pointerleave', (event) => {
  if (editor.pointer !== null || event.pointerType === 'touch') return;
  editor.cursor = null;
  paint();
});
region.addEventListener('focus', () => {
  if (!region.matches(':focus-visible') || editor.cursor) return;
  editor.cursor = middle();
  paint();
});
region.addEventListener('keydown', keyDown);
document.addEventListener('keydown', historyKey);
new ResizeObserver(paint).observe(region);

$('region-mode').addEventListener('click', () => (editor.open ? closeRegion() : openRegion()));
for (const tool of ['polygon', 'brush']) {
  $(`tool-${tool}`).addEventListener('change', () => choose(tool, editor.erase));
}
for (const effect of ['add', 'erase']) {
  $(`effect-${effect}`).addEventListener('change', () => choose(editor.tool, effect === 'erase'));
}
$('brush-size').addEventListener('input', () => resizeBrush(1));
$('close-polygon').addEventListener('click', closePolygon);
$('undo').addEventListener('click', undo);
$('redo').addEventListener('click', redo);
$('clear').addEventListener('click', clearRegion);
$('invert').addEventListener('click', () => KEYS.i());
$('whole').addEventListener('click', () => change({kind: 'whole'}, 'All of it.'));
