'use strict';
(() => {
  const list = document.getElementById('cards');
  if (!list) return;
  const cards = [...list.querySelectorAll('.card')];
  const dialog = document.getElementById('enlarged');
  const order = document.getElementById('order');
  let current = cards[0];
  let enlarged = null;

  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value ?? '';
  const visible = () =>
    [...list.children].filter((entry) => !entry.hidden).map((entry) => entry.firstElementChild);

  /* One card at a time is a stop of the tab key: arrow keys lead to the others. */
  const select = (card) => {
    for (const each of cards) each.tabIndex = -1;
    if (card) card.tabIndex = 0;
    current = card;
  };

  const filter = () => {
    const [type, verdict] = [chosen('type'), chosen('verdict')];
    for (const card of cards) {
      const { type: own, verdict: judged, error } = card.dataset;
      card.parentElement.hidden =
        (type !== '' && type !== own) || (verdict !== '' && verdict !== judged && verdict !== error);
    }
    const left = visible();
    const count = document.getElementById('count');
    count.dataset.count = left.length;
    count.textContent = `${left.length} of ${cards.length} shown`;
    document.getElementById('none').hidden = left.length > 0;
    if (!left.includes(current)) select(left[0]);
  };

  const byName = (a, b) =>
    a.dataset.name.localeCompare(b.dataset.name, undefined, { numeric: true });
  const comparisons = {
    falling: (a, b) => b.dataset.score - a.dataset.score || byName(a, b),
    rising: (a, b) => a.dataset.score - b.dataset.score || byName(a, b),
    name: byName,
  };

  const sort = () => {
    const sorted = [...cards].sort(comparisons[order.value]);
    list.append(...sorted.map((card) => card.parentElement));
    select(visible()[0]);
  };

  /* How many cards lie side by side. */
  const columns = (shown) => {
    const top = shown[0].getBoundingClientRect().top;
    const next = shown.findIndex((card) => card.getBoundingClientRect().top > top + 1);
    return next < 0 ? shown.length : next;
  };

  const destination = (key, shown) => {
    const place = shown.indexOf(current);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(shown), ArrowDown: columns(shown) };
    if (key in steps) return shown[place + steps[key]];
    return { Home: shown[0], End: shown[shown.length - 1] }[key];
  };

  const show = (card) => {
    enlarged = card;
    document.getElementById('enlarged-title').textContent = card.dataset.name;
    const copies = ['.facts', '.views'].map((part) => card.querySelector(part).cloneNode(true));
    dialog.querySelector('.content').replaceChildren(...copies);
    const shown = visible();
    for (const button of dialog.querySelectorAll('[data-go]')) {
      button.disabled = !shown[shown.indexOf(card) + Number(button.dataset.go)];
    }
  };

  const go = (steps) => {
    const shown = visible();
    const card = shown[shown.indexOf(enlarged) + steps];
    if (card) show(card);
  };

  list.addEventListener('focusin', (event) => {
    const card = event.target.closest('.card');
    if (card) select(card);
  });
  list.addEventListener('click', (event) => {
    const card = event.target.closest('.card');
    if (!card) return;
    show(card);
    dialog.showModal();
  });
  list.addEventListener('keydown', (event) => {
    const card = destination(event.key, visible());
    if (!card || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    card.focus();
  });
  dialog.addEventListener('keydown', (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (steps) go(steps);
  });
  dialog.addEventListener('click', (event) => {
    const { go: steps, close } = event.target.dataset;
    if (steps) go(Number(steps));
    if (close !== undefined || event.target === dialog) dialog.close();
  });
  /* The browser goes back to the image that was enlarged first, not to the last one. */
  dialog.addEventListener('close', () => enlarged.focus());

  document.querySelector('.controls').hidden = false;
  document.querySelector('.controls').addEventListener('change', (event) => {
    if (event.target === order) sort();
    else filter();
  });
  /* A page that is loaded again keeps what was chosen: it must also show it. */
  sort();
  filter();
})();
