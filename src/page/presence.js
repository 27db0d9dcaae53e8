// Who is here, and who types: what the server tells while it is so, and never stores.

import { $, counted, make } from './dom.js';
import * as identity from './identity.js';
import { personOf } from './operations.js';
import { plainName } from './reactions.js';

const TYPES_MS = 5000;   // how long somebody counts as typing, who may say so every three seconds
const NAMED = 3;         // who types is told by name up to this many

const here = $('Here'), people = $('People');
// person → {name, timer}
const typing = new Map();
let known = null;

export function takePresence({ count, names }) {
  if (!Number.isSafeInteger(count) || !Array.isArray(names)) return;
  known = { count, names: names.filter(name => typeof name === 'string') };
  here.replaceChildren(String(count), make('span', 'word', ' here'));
  here.hidden = false;
  here.setAttribute('aria-label', `${counted(count, 'connection')} here. Show who`);
  here.title = known.names.slice(0, 12).map(plainName).join(', ');
  if (people.open) drawPeople();
}

function drawPeople() {
  const { count, names } = known;
  $('PeopleList').replaceChildren(...names.map(name => {
    const item = make('li'), [, letters] = name.split('~'), label = make('span', '', plainName(name));
    label.dir = 'auto';
    item.append(label, make('span', 'mark', letters ? `~${letters.slice(0, 4)}` : '✓'));
    if (identity.isMe(name)) item.append(make('span', 'note', 'you'));
    item.title = name;
    return item;
  }));
  $('PeopleCount').textContent = `${counted(count, 'connection')}; who has no name that is proved is not listed.`;
}

here.onclick = () => {
  drawPeople();
  people.showModal();
};

export function takeTyping({ from }) {
  if (typeof from !== 'string' || identity.isMe(from)) return;
  const person = personOf(from);
  clearTimeout(typing.get(person)?.timer);
  typing.set(person, { name: plainName(from), timer: setTimeout(() => stops(from), TYPES_MS) });
  drawTyping();
}

// Somebody has said something, or types no more.
export function stops(from) {
  const person = personOf(from);
  if (!typing.has(person)) return;
  clearTimeout(typing.get(person).timer);
  typing.delete(person);
  drawTyping();
}

function drawTyping() {
  const names = [...typing.values()].map(({ name }) => name.slice(0, 40));
  const shown = names.length > NAMED ? ['Several people'] : names;
  $('Typing').textContent = !shown.length ? ''
    : shown.length === 1 && names.length === 1 ? `${shown[0]} is typing…` : `${shown.join(', ')} are typing…`;
}

// Another channel, or no connection: nothing is known.
export function forget() {
  for (const { timer } of typing.values()) clearTimeout(timer);
  typing.clear();
  drawTyping();
  known = null;
  here.hidden = true;
  if (people.open) people.close();
}
