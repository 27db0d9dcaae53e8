// The state of the connection, always in sight, and the notice above the box to write in.

import { $ } from './dom.js';

const notice = $('notice');

// Set by chat.js: a person does not want to wait, or has read the notice.
export const on = { retry() {}, dismiss() {} };

// `state` is 'busy', 'on', 'waiting' or 'refused'.
export function showState(state, label) {
  document.body.dataset.state = $('pill').dataset.state = state;
  if ($('state').textContent !== label) $('state').textContent = label;
  $('retry').hidden = state !== 'waiting' && state !== 'refused';
  if ($('retry').hidden) $('wait').textContent = '';
}

export function showWait(ms) {
  $('wait').textContent = ms > 1500 ? `${Math.ceil(ms / 1000)} s` : '';
}

export function tell(words) {
  notice.firstChild.textContent = words;
  notice.hidden = false;
}

export function hush() {
  notice.hidden = true;
}

$('retry').onclick = () => on.retry();
notice.lastChild.onclick = () => { hush(); on.dismiss(); };
