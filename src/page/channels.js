// Which channels there are, how far each has come, and how far one has read in each. The list follows the
// server by one stream of events; what was read is kept in the browser, with the numbering (the epoch)
// that it belongs to, so that in another one all is unread.

import { recall, remember } from './dom.js';
import { fields, isWithoutRules, sign } from './identity.js';
import { DEFAULT, isOwn } from './server.js';

const AGAIN_MS = 5000;     // between attempts to follow or to get the list
const HIDDEN_MS = 10e3;    // between looks at the list while nobody looks at the page
const PATIENCE_MS = 15e3;  // how long one look may take
const KEEP_MS = 300;       // how long what was read may wait until it is kept

export const isName = name => /^[a-z0-9][a-z0-9_-]{0,62}$/.test(name);
export const NAME_RULE = 'A name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit.';

// Set by chat.js: something is other than it was.
export const on = { change() {} };

// name → {name, lastId, epoch, may}
const known = new Map();
// The names of all that there were since the page was opened.
const past = new Set();
let sorted = null;
let isOffered = isOwn, isWhole = false;

// Whether this server has channels, as far as is known.
export const areOffered = () => isOffered;
// Whether a channel that is not known is not there.
export const isComplete = () => isWhole;
export const has = name => known.has(name);
export const wasThere = name => past.has(name);
export const mayPost = name => known.get(name)?.may.includes('post') ?? true;
export const isAdmin = name => known.get(name)?.may.includes('admin') ?? false;
// Whether it is worth to offer the making of a channel. What a token gives is known only where there is a
// channel, so whoever has one may try any name.
export const mayMake = () => isWithoutRules() || !!fields().Authorization || [...known.keys()].some(isAdmin);

// Their names in order, the default channel first. The same array as long as they are the same.
export function names() {
  const rank = name => (name === DEFAULT ? '' : name);
  return sorted ??= [...known.keys()].sort((a, b) => (rank(a) < rank(b) ? -1 : 1));
}

function take({ channel: name, last_id: lastId, epoch, may, removed }) {
  if (!isName(name)) return;
  const old = known.get(name);
  if (removed || !may?.includes('read')) {
    known.delete(name);
  } else {
    known.set(name, { name, lastId, epoch, may });
    past.add(name);
  }
  if (!old || !known.has(name)) sorted = null;
}

// ---- Following the list ---------------------------------------------------------------------

// What the stream has told since the list was asked for: it is newer than that list.
let stream = null, timer = 0, lookTimer = 0, told = new Set();

export function follow() {
  if (!isOffered) return on.change();
  clearTimeout(timer);
  stream?.close();
  stream = null;
  // A browser has few connections to one server: pages that nobody looks at hold none for this.
  if (document.hidden) {
    timer = setTimeout(follow, HIDDEN_MS);
    look();
    return;
  }
  told = new Set();
  const url = new URL('./channels?follow=1', location.href);
  if (fields().Authorization) sign(url);
  stream = new EventSource(url);
  // It says all there is, but not where that ends, nor what went away before it began.
  stream.onopen = look;
  stream.onmessage = event => {
    const line = JSON.parse(event.data);
    told.add(line.channel);
    take(line);
    on.change();
  };
  stream.onerror = () => {
    // It comes back by itself, unless the server has refused it.
    if (stream?.readyState !== EventSource.CLOSED) return;
    clearTimeout(timer);
    timer = setTimeout(follow, AGAIN_MS * (.5 + Math.random()));
    look();
  };
}

async function look() {
  const since = told = new Set();
  try {
    const answer = await fetch('./channels', {
      headers: { Accept: 'application/json', ...fields() }, cache: 'no-store', signal: AbortSignal.timeout?.(PATIENCE_MS),
    });
    if (answer.status === 404 || answer.status === 405) return none();
    if (!answer.ok) throw new Error(`/channels answered ${answer.status}`);
    const list = (await answer.json()).channels;
    if (since !== told) return;
    for (const line of list) if (!since.has(line.channel)) take(line);
    const listed = new Set(list.map(line => line.channel));
    for (const name of known.keys()) {
      if (!listed.has(name) && !since.has(name)) take({ channel: name, removed: true });
    }
    isWhole = true;
    beginReading();
    on.change();
  } catch (error) {
    console.warn(error);
    // The stream alone does not tell which channels went away.
    clearTimeout(lookTimer);
    lookTimer = setTimeout(() => { if (since === told) look(); }, AGAIN_MS * (.5 + Math.random()));
  }
}

// Another server than ours.
function none() {
  isOffered = false;
  clearTimeout(timer);
  stream?.close();
  stream = null;
  on.change();
}

document.addEventListener('visibilitychange', follow);

// Makes a channel. Undefined when it is there afterwards, else a sentence about why it is not.
export async function make(name) {
  if (!isName(name)) return NAME_RULE;
  try {
    const answer = await fetch('./' + name, { method: 'PUT', headers: fields(), signal: AbortSignal.timeout?.(PATIENCE_MS) });
    const words = await answer.text();
    if (answer.status === 403) return 'You may not make a channel of this name. The operator of this chat can give you the right to.';
    // What the server says is for programs: it answers something else at this address.
    if (answer.status === 404 || answer.status === 405) return 'The server keeps this name for itself. Choose another one.';
    if (!answer.ok) return words.trim().slice(0, 400) || `The server answered ${answer.status}.`;
    told.add(name);
    take(JSON.parse(words));
    on.change();
  } catch (error) {
    console.warn(error);
    return 'The server cannot be reached now.';
  }
}

// ---- What was read ---------------------------------------------------------------------------

// name → {epoch, id}, as it is kept.
const marks = new Map(), unkept = new Set();
let keepTimer = 0;

function markOf(name) {
  if (!marks.has(name)) {
    let mark = null;
    try { mark = JSON.parse(recall('localStorage', 'read ' + name) || 'null'); } catch { /* not ours */ }
    marks.set(name, Number.isSafeInteger(mark?.id) ? mark : null);
  }
  return marks.get(name);
}

// The last id that was read in this numbering of a channel; 0 when none was.
export function lastRead(name, epoch) {
  const mark = markOf(name);
  return mark && mark.epoch === epoch ? mark.id : 0;
}

// How much was not read. The list tells lines alone, of which some may be edits or reactions; up to the last
// line that a conversation has seen, its unread messages count.
export function unreadOf(name, conversation) {
  const channel = known.get(name);
  if (!channel) return 0;
  const after = id => Math.max(0, channel.lastId - id), lines = after(lastRead(name, channel.epoch));
  if (!conversation || conversation.epoch !== channel.epoch) return lines;
  return Math.min(lines, conversation.unread + after(conversation.lastId));
}

export function markRead(name, epoch, id) {
  if (!epoch || (markOf(name)?.epoch === epoch && markOf(name).id >= id)) return;
  marks.set(name, { epoch, id });
  unkept.add(name);
  keepTimer ||= setTimeout(keep, KEEP_MS);
}

// Writes down what was read.
export function keep() {
  clearTimeout(keepTimer);
  keepTimer = 0;
  for (const name of unkept) remember('localStorage', 'read ' + name, JSON.stringify(marks.get(name)));
  unkept.clear();
}

// Nothing is new to a person who comes for the first time; later, a channel is that they never looked at.
function beginReading() {
  if (recall('localStorage', 'visited')) return;
  remember('localStorage', 'visited', 'yes');
  for (const { name, epoch, lastId } of known.values()) if (!markOf(name)) markRead(name, epoch, lastId);
}

window.addEventListener('pagehide', keep);
// Another page of this browser has read something.
window.addEventListener('storage', event => {
  const name = /^txtcord read (.*)$/.exec(event.key)?.[1];
  if (name === undefined || unkept.has(name)) return;
  marks.delete(name);
  on.change();
});
