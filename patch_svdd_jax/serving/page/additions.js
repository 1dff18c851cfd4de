// A good part: the shown image enters the detector once it is confirmed, and can be taken out again.
let adding = false;

function showAdding(confirming) {
  $('add-good').hidden = !health?.additions || confirming;
  $('confirm-good').hidden = !health?.additions || !confirming;
  if (confirming) $('confirm-yes').focus();
}

async function askChange(path, options) {
  const answer = await fetch(path, options);
  const found = await answer.json().catch(() => ({error: `the server answered ${answer.status}`}));
  if (!answer.ok) throw new Error(found.error);
  return found;
}

async function changing(text, work) {
  if (adding) return;
  adding = true;
  showAdding(false);
  $('add-good').disabled = $('undo-good').disabled = true;
  fail('');
  notify(text);
  try {
    const told = await work();
    await loadHealth();
    if (shown) await score(shown.file);
    notify(told);
  } catch (error) {
    notify('');
    fail(error instanceof TypeError ? 'The server cannot be reached: is it running?' : error.message);
  }
  $('add-good').disabled = $('undo-good').disabled = false;
  adding = false;
}

function addGood() {
  return changing('Adding the image to the detector …', async () => {
    const form = new FormData();
    form.append('image', shown.file, shown.file.name || 'pasted.png');
    const found = await askChange('additions', {method: 'POST', body: form});
    $('undo-good').hidden = false;
    const [before, after] = found.threshold;
    return `Added as version ${found.version}: ${found.images[1]} normal images, threshold ` +
      `${digits(before)} → ${digits(after)}.` +
      (found.alarm ? ' It was an alarm before: was it really good?' : '');
  });
}

function undoGood() {
  return changing('Taking the last image out …', async () => {
    const found = await askChange('additions/latest', {method: 'DELETE'});
    $('undo-good').hidden = true;
    return `Back to version ${found.version}.`;
  });
}

$('add-good').addEventListener('click', () => showAdding(true));
$('confirm-yes').addEventListener('click', addGood);
$('confirm-no').addEventListener('click', () => {
  showAdding(false);
  $('add-good').focus();
});
$('undo-good').addEventListener('click', undoGood);
