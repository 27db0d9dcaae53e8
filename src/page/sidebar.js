// The channels at the side, a drawer on a phone: which is shown, what is unread where, going from one
// to the next by keyboard, and making one. A channel is chosen by its address, /#NAME.

import { make as makeChannel } from './channels.js';
import { $, hasMouse, make } from './dom.js';

const MOST = 99; // a count above it is shown as "99+"

// Set by chat.js: a channel was chosen, and the address names it; it may be the one that is shown.
export const on = { choose() {} };

export const short = count => (count > MOST ? `${MOST}+` : String(count));

const list = $('List'), nav = $('Channels'), drawerButton = $('Open');

// name → {item, link, count, unsent, state}: a row, and what it shows.
const rows = new Map();
let drawnNames = null, drawnCurrent, counts = new Map();

function makeRow(name) {
  const item = make('li'), link = make('a'), hash = make('span', 'hash', '#');
  const count = make('span', 'badge'), spoken = make('span', 'unseen'), unsent = make('span', 'unsent', 'not sent');
  hash.setAttribute('aria-hidden', 'true');
  count.setAttribute('aria-hidden', 'true');
  link.href = '#' + name;
  link.title = name;
  link.append(hash, make('span', 'label', name), unsent, count, spoken);
  link.onclick = event => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // into a page of its own
    event.preventDefault();
    choose(name);
  };
  item.append(link);
  return { item, link, count, spoken, unsent, state: '' };
}

function choose(name) {
  location.hash = name;
  on.choose();
}

// Draws what has changed. `facts(name)` is {unread, isUnsent}; `current` may be null.
export function draw(names, current, facts) {
  if (names !== drawnNames) {
    drawnNames = names;
    const wanted = new Set(names);
    for (const [name, { item }] of rows) {
      if (wanted.has(name)) continue;
      if (item.contains(document.activeElement)) $('Scroll').focus({ preventScroll: true });
      item.remove();
      rows.delete(name);
    }
    let next = list.firstChild;
    for (const name of names) {
      if (!rows.has(name)) rows.set(name, makeRow(name));
      const { item } = rows.get(name);
      if (item === next) next = next.nextSibling;
      else list.insertBefore(item, next);
    }
  }
  counts = new Map();
  let elsewhere = 0;
  for (const [name, row] of rows) {
    const { unread, isUnsent } = facts(name), isCurrent = name === current;
    counts.set(name, unread);
    if (!isCurrent) elsewhere += unread;
    const state = `${unread} ${isUnsent} ${isCurrent}`;
    if (row.state === state) continue;
    row.state = state;
    row.link.classList.toggle('unread', unread > 0);
    if (isCurrent) row.link.setAttribute('aria-current', 'page');
    else row.link.removeAttribute('aria-current');
    row.link.title = unread && !isCurrent ? `${name}: ${short(unread)} unread; edits and reactions count, too` : name;
    row.count.textContent = unread ? short(unread) : '';
    row.spoken.textContent = unread ? `, ${short(unread)} unread` : '';
    row.unsent.hidden = !isUnsent;
  }
  if (current !== drawnCurrent) rows.get(current)?.link.scrollIntoView({ block: 'nearest' });
  drawnCurrent = current;
  drawerButton.classList.toggle('unread', elsewhere > 0);
  drawerButton.setAttribute('aria-label', elsewhere ? `Channels, ${short(elsewhere)} unread` : 'Channels');
}

// ---- The drawer ------------------------------------------------------------------------------

const isNarrow = matchMedia('(max-width: 760px)');
let isOpen = false;

function drawer(open) {
  isOpen = open && isNarrow.matches;
  document.body.classList.toggle('drawer', isOpen);
  // What one cannot see takes no focus.
  nav.inert = isNarrow.matches && !isOpen;
  $('Room').inert = isOpen;
  $('Scrim').hidden = !isOpen;
  drawerButton.setAttribute('aria-expanded', isOpen);
}

export const closeDrawer = () => drawer(false);

function putDrawerAway() {
  drawer(false);
  drawerButton.focus({ preventScroll: true });
}

drawerButton.onclick = () => {
  drawer(true);
  (rows.get(drawnCurrent)?.link ?? list.querySelector('a') ?? $('New')).focus({ preventScroll: true });
};
$('Scrim').onclick = putDrawerAway;
isNarrow.addEventListener('change', () => drawer(false));
drawer(false);

// ---- From one to the next ----------------------------------------------------------------------

// Goes to the channel above (-1) or below (1), after the last to the first again.
function step(by, isWanted) {
  const names = (drawnNames ?? []).filter(name => name === drawnCurrent || isWanted(name));
  const at = names.indexOf(drawnCurrent), from = at < 0 && by < 0 ? 0 : at;
  const next = names[(from + by + names.length) % names.length];
  if (next === undefined || next === drawnCurrent) return;
  choose(next);
}

document.addEventListener('keydown', event => {
  const { key, altKey, ctrlKey, metaKey, shiftKey } = event;
  const by = { ArrowUp: -1, ArrowDown: 1 }[key];
  if (by && altKey && !ctrlKey && !metaKey) {
    event.preventDefault();
    step(by, name => !shiftKey || counts.get(name) > 0);
  } else if (key === 'Escape' && isOpen && !event.defaultPrevented) {
    putDrawerAway();
  }
});

// ---- Making one --------------------------------------------------------------------------------

const form = $('Create'), newName = $('NewName'), why = $('Why');
let isMaking = false;

function showForm(isShown) {
  form.hidden = !isShown;
  $('New').setAttribute('aria-expanded', isShown);
  newName.value = why.textContent = '';
  (isShown ? newName : $('New')).focus({ preventScroll: !isShown });
}

$('New').onclick = () => showForm(form.hidden);
$('Cancel').onclick = () => showForm(false);
form.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || event.isComposing) return;
  event.preventDefault();
  showForm(false);
});
// As people are used to it: a name is written small, and with a dash for a space.
newName.addEventListener('input', () => {
  const { value, selectionStart } = newName, tidy = value.toLowerCase().replace(/\s/g, '-');
  why.textContent = '';
  if (tidy === value) return;
  newName.value = tidy;
  newName.setSelectionRange(selectionStart, selectionStart);
});
form.addEventListener('submit', async event => {
  event.preventDefault();
  const name = newName.value;
  if (!name || isMaking) return newName.focus();
  isMaking = true;
  const refusal = await makeChannel(name);
  isMaking = false;
  why.textContent = refusal ?? '';
  if (refusal) {
    why.scrollIntoView({ block: 'nearest' });
    return newName.focus();
  }
  showForm(false);
  choose(name);
});

// Where one goes on after choosing: on a phone the keyboard stays away.
export const focusAfterChoosing = () => (hasMouse() && !$('Form').hidden ? $('Text') : $('Scroll')).focus({ preventScroll: true });
