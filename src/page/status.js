// The state of the connection, always in sight, and the notice above the box to write in.

import { $ } from './dom.js';

const notice = $('Notice');

// Set by chat.js: a person does not want to wait, or has read the notice.
export const on = { retry() {}, dismiss() {} };

// `state` is 'busy', 'on', 'waiting', 'refused' or 'none'.
export function showState(state, label) {
  document.body.dataset.state = $('Pill').dataset.state = state;
  if ($('State').textContent !== label) $('State').textContent = label;
  $('Retry').hidden = state !== 'waiting' && state !== 'refused';
  if ($('Retry').hidden) $('Wait').textContent = '';
}

export function showWait(ms) {
  $('Wait').textContent = ms > 1500 ? `${Math.ceil(ms / 1000)} s` : '';
}

export function tell(words) {
  notice.firstChild.textContent = words;
  notice.hidden = false;
}

export function hush() {
  notice.hidden = true;
}

$('Retry').onclick = () => on.retry();
notice.lastChild.onclick = () => { hush(); on.dismiss(); };
