// What was written here and has not come back, drawn below the messages: each with its state and what
// one can do about it.

import { shown } from './conversation.js';
import { $, button, make } from './dom.js';
import { drawMessage } from './draw.js';
import { sender } from './identity.js';
import { viewOf } from './message.js';

// Set by chat.js: something was taken out, is to be sent again, or to be written anew.
export const on = { drop() {}, retry() {}, edit() {} };

const group = $('Pending');
let drawn = '';

export function drawPending(resize) {
  const { log, outbox: { entries }, isReady } = shown;
  let before = log[log.length - 1];
  const last = before && [viewOf(before).name, before.from];
  const wanted = JSON.stringify([shown.name, isReady, last, sender(), entries.map(entry => [entry.ts, entry.state])]);
  if (wanted === drawn) return; // a button that has the focus keeps it
  drawn = wanted;
  const scrap = document.createDocumentFragment();
  for (const entry of entries) {
    // It looks as it will when it is there.
    const item = { ts: entry.ts, raw: '', from: sender() || undefined, view: { name: entry.name, text: entry.text, isChat: true } };
    const isFailed = entry.state === 'failed';
    const row = make('div', 'row pending ' + (isFailed ? 'failed held' : isReady ? '' : 'held'));
    const message = drawMessage(item, before, false, resize), acts = make('div', 'acts');
    acts.append(make('span', '', isFailed ? entry.why
      : isReady ? 'Sending…' : entry.state === 'sent' ? 'Sent; will see whether it arrived' : 'Waiting for the connection'));
    if (isFailed) acts.append(button('', 'Retry', () => on.retry(entry)));
    if (entry.state !== 'sent') acts.append(button('', 'Edit', () => { drop(entry); on.edit(entry); }), button('', 'Delete', () => drop(entry)));
    message.append(acts);
    row.append(message);
    scrap.append(row);
    before = item;
  }
  group.replaceChildren(scrap);
}

function drop(entry) {
  shown.outbox.drop(entry);
  on.drop();
}
