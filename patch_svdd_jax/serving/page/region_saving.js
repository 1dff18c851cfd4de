// Saving the region: the server makes the detector anew, and says in /health how far it is.
const ASK_SECONDS = 1;
let following = false;

async function saveRegion() {
  if (editor.corners.length) return say('Close the polygon first, or cancel it with Esc.');
  if (!editor.mask.share()) return say('The region is empty: draw what is to count.');
  say('Sending …');
  try {
    const answer = await fetch('region', {
      method: 'PUT', headers: {'Content-Type': 'image/png'}, body: await editor.mask.png(),
    });
    const found = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
    if (!answer.ok) throw new Error(found.error);
  } catch (error) {
    return say(error instanceof TypeError ? 'The server cannot be reached: is it running?'
      : `Not saved: ${error.message}`);
  }
  closeRegion();
  followRegion();
}

const left = (count) => (count === null ? '' : count < 90 ? `, some ${Math.ceil(count)} s left`
  : `, some ${Math.ceil(count / 60)} min left`);

// Shows how far it is, until it has ended.
async function followRegion() {
  if (following) return;
  following = true;
  $('building').hidden = false;
  $('building-text').textContent = 'The detector is made anew with this region …';
  let building = {state: 'building'};
  while (building.state === 'building') {
    await seconds(ASK_SECONDS);
    await loadHealth().catch(() => {});
    building = health.region;
    $('building-bar').value = building.share;
    $('building-share').textContent = `${Math.round(100 * building.share)} %${left(building.seconds_left)}`;
  }
  following = false;
  $('building').hidden = building.state !== 'failed';
  $('building-share').textContent = '';
  if (building.state === 'failed') {
    $('building-text').textContent = `The region was not saved: ${building.error}`;
    return;
  }
  if (building.state !== 'saved') return;
  $('undo-good').hidden = true;  // the newest version is no longer that of an image
  if (shown) await score(shown.file);
  notify('The region is saved, and scores are by it from now on.');
}

$('save-region').addEventListener('click', saveRegion);
$('leave-region').addEventListener('click', closeRegion);
