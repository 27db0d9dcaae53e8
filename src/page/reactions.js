// What operations have made of a message, drawn below it: that it was edited and when, that it is pinned,
// and its reactions. A click on a reaction takes part in it, or takes one's own back.

import { button, make } from './dom.js';
import * as identity from './identity.js';
import { visible } from './json.js';

const NAMES = 12; // names told of one reaction; the rest is counted

// Set by chat.js: somebody takes part in a reaction, or no more; whether one may.
export const on = { toggle(_item, _key, _isMine) {}, mayReact() { return false; } };

// A sender as a person reads it.
export const plainName = sender => visible(sender.split('~')[0]);

export function drawState(message, item, timeOf) {
  const { edit, reactions, isPinned } = item.state;
  if (!edit && !reactions.size && !isPinned) return;
  const line = make('div', 'state');
  if (edit) {
    const note = make('span', 'note', 'edited');
    if (edit.ts !== undefined) note.append(' ', timeOf(edit));
    line.append(note);
  }
  if (isPinned) line.append(make('span', 'note', 'pinned'));
  for (const [key, senders] of reactions) line.append(chip(item, key, senders));
  message.append(line);
}

function chip(item, key, senders) {
  const isMine = senders.some(identity.isMe), shown = make('span', 'key', visible(key));
  shown.dir = 'auto';
  const names = senders.slice(0, NAMES).map(sender => (identity.isMe(sender) ? 'you' : plainName(sender)));
  if (senders.length > NAMES) names.push(`${senders.length - NAMES} more`);
  const element = button('chip', '', () => on.toggle(item, key, isMine));
  element.append(shown, make('span', 'count', String(senders.length)));
  element.title = names.join(', ');
  element.dataset.key = key;
  element.setAttribute('aria-pressed', isMine);
  element.setAttribute('aria-label', `${visible(key)}, ${senders.length}: ${names.join(', ')}`);
  element.disabled = !on.mayReact();
  return element;
}
