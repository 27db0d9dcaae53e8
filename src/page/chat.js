// The chat page: what happens in one part of it, and what the others do then. It alone knows all parts;
// each of them says with its `on` what it cannot do itself. It also decides which conversation is shown:
// the one that the address names.

import { hideAbsent, showAbsent } from './absent.js';
import * as channels from './channels.js';
import * as composer from './composer.js';
import * as connection from './connection.js';
import { Conversation, show, shown } from './conversation.js';
import { $, hasMouse } from './dom.js';
import { isLeftAt } from './outbox.js';
import * as identity from './identity.js';
import { editableOf, edited } from './message.js';
import * as pending from './pending.js';
import * as pinned from './pinned.js';
import * as presence from './presence.js';
import * as reactions from './reactions.js';
import { DEFAULT, operate, socketUrl } from './server.js';
import * as sidebar from './sidebar.js';
import * as status from './status.js';
import * as timeline from './timeline.js';
import { drawTitle } from './title.js';
import * as tools from './tools.js';

const KEPT = 8;         // conversations that are kept as they were left
const TOLD_MS = 3000;   // readers of screens hear of an operation at most this often
const SOON_MS = 50;     // how long what the server says of other channels may wait until it is drawn

// name → Conversation, the one that was shown last at the end.
const conversations = new Map();
let isAbsent = false, absentName = '', isOpening = false, listTimer = 0, listed = null;

// ---- Which conversation is shown --------------------------------------------------------------

// The channel that the address names, which may be anything that somebody has made up.
function nameInAddress() {
  const text = location.hash.slice(1);
  try { return decodeURIComponent(text) || DEFAULT; } catch { return text; }
}

function go() {
  const name = nameInAddress(), isThere = channels.has(name) || !channels.areOffered();
  if (isAbsent && name === absentName && !(channels.isName(name) && isThere)) return;
  if (!channels.isName(name)) leaveFor('malformed', name);
  else if (channels.isComplete() && !isThere) leaveFor('unknown', name);
  else if (isAbsent || shown?.name !== name) open(name);
}

function leave() {
  if (!shown || isAbsent) return;
  tools.moveTo(null);
  composer.saveDraft();
  timeline.leave();
  connection.close();
  channels.keep();
}

function open(name) {
  leave();
  const conversation = conversations.get(name) ?? new Conversation(name);
  conversations.delete(name);
  conversations.set(name, conversation);
  for (const [old, { outbox }] of conversations) {
    // What was not delivered is held until it is.
    if (conversations.size > KEPT && old !== name && !outbox.entries.length) conversations.delete(old);
  }
  isAbsent = false;
  isOpening = true;
  show(conversation);
  hideAbsent();
  status.hush();
  $('Scroll').hidden = false;
  $('Where').textContent = name;
  $('Scroll').setAttribute('aria-label', `Messages in ${name}`);
  pinned.offer();
  composer.takeDraft();
  composer.offer(channels.mayPost(name) ? 'write' : 'read');
  timeline.enter();
  connection.open();
  draw();
}

// There is nothing to show; says why.
function leaveFor(why, name) {
  leave();
  isAbsent = true;
  absentName = name;
  const hadFocus = $('Form').contains(document.activeElement) || $('Scroll').contains(document.activeElement);
  show(new Conversation(DEFAULT));
  timeline.enter();
  composer.takeDraft();
  status.showState('none', '');
  status.hush();
  composer.offer('none');
  $('Scroll').hidden = true;
  $('Where').textContent = '';
  $('Pins').hidden = true;
  showAbsent(why, name);
  if (hadFocus) $('Absent').focus({ preventScroll: true });
  draw();
}

window.addEventListener('hashchange', () => {
  if (identity.takeFromAddress()) becomeAnother();
  go();
});

// The server is told anew who one is, in all that goes on.
function becomeAnother() {
  identity.begin(composer.nameOf());
  channels.follow();
  if (!isAbsent) connection.open();
  if (hasMouse()) composer.focusOnText();
}

// ---- What is drawn of all channels ------------------------------------------------------------

const unreadOf = name => (!isAbsent && name === shown.name ? shown.unread : channels.unreadOf(name, conversations.get(name)));

function facts(name) {
  const kept = conversations.get(name);
  return { unread: unreadOf(name), isUnsent: !!kept?.outbox.entries.length && name !== shown.name };
}

function draw() {
  if (!isAbsent && shown.hasHistory && timeline.isAllSeen()) channels.markRead(shown.name, shown.epoch, shown.lastId);
  const current = isAbsent ? null : shown.name, names = channels.names();
  sidebar.draw(names, current, facts);
  document.body.classList.toggle('reader', !channels.mayMake());
  const others = names.filter(name => name !== current).reduce((sum, name) => sum + unreadOf(name), 0);
  drawTitle(current, others + (isAbsent ? 0 : shown.unread));
}

channels.on.change = () => { listTimer ||= setTimeout(takeList, SOON_MS); };

function takeList() {
  listTimer = 0;
  document.body.classList.toggle('alone', !channels.areOffered());
  const names = channels.names();
  for (const name of names === listed ? [] : names) {
    if (!conversations.has(name) && isLeftAt(socketUrl(name).href)) conversations.set(name, new Conversation(name));
  }
  listed = names;
  if (isAbsent) go();
  else if (channels.isComplete() && channels.areOffered() && !channels.has(shown.name)) missing(shown);
  else composer.offer(channels.mayPost(shown.name) ? 'write' : 'read');
  draw();
}

function missing({ name, hasHistory }) {
  conversations.delete(name);
  identity.doubt();
  leaveFor(name === DEFAULT ? 'closed' : hasHistory || channels.wasThere(name) ? 'gone' : 'unknown', name);
}

// ---- What happens in one part, and what the others do then --------------------------------------

connection.on.history = taken => {
  const lastSeen = isOpening ? channels.lastRead(shown.name, shown.epoch) : null;
  isOpening = false;
  timeline.takeHistory(taken, lastSeen);
  for (const id of taken.touched) stopEditing(id);
  pinned.offer();
  identity.trust();
};
connection.on.live = taken => {
  timeline.takeLive(taken);
  if (taken.item.from) presence.stops(taken.item.from);
  if (taken.operation) tell(taken);
};
connection.on.presence = presence.takePresence;
connection.on.typing = presence.takeTyping;
connection.on.alone = presence.forget;
connection.on.outbox = timeline.drawSoon;
connection.on.missing = conversation => { if (!isAbsent && (conversation.name !== DEFAULT || channels.areOffered())) missing(conversation); };
// After a dead line the list may be as dead, and cannot know it.
connection.on.back = channels.follow;
// What one may do comes with the list.
connection.on.forbidden = channels.follow;

timeline.on.needAll = connection.connect;
timeline.on.change = draw;

sidebar.on.choose = () => {
  sidebar.closeDrawer();
  // The address has changed by now, and what is shown changes with it.
  go();
  sidebar.focusAfterChoosing();
};

composer.on.say = (name, text) => {
  shown.outbox.add(name, text);
  timeline.mark(null);
  connection.flush();
  timeline.jumpToLatest();
  timeline.drawSoon();
};

// ---- Operations -----------------------------------------------------------------------------------

const DONE = { edit: 'edited a message', delete: 'deleted a message', react: 'reacted to a message', pin: 'pinned a message', unpin: 'unpinned a message' };
let toldAt = 0;

// An operation has come: what depends on it follows, and readers of screens hear of it, sparingly.
function tell({ item: { from }, operation: { op, target } }) {
  stopEditing(target);
  if (op === 'delete' || op === 'pin' || op === 'unpin') pinned.refresh();
  if (!DONE[op] || identity.isMe(from) || document.hidden || Date.now() - toldAt < TOLD_MS) return;
  toldAt = Date.now();
  $('Told').textContent = `${from ? reactions.plainName(from) : 'The operator'} ${DONE[op]}`;
}

// What one edits was deleted: the text is not lost, it becomes the draft.
function stopEditing(id) {
  if (shown.editing?.id !== id || !shown.fold.stateOf(id)?.isDeleted) return;
  composer.saveDraft();
  const { text } = shown.editing;
  composer.endEdit();
  composer.write(text);
  status.tell('The message that you were editing was deleted. Your text is kept as a draft.');
}

timeline.on.redrawn = tools.stay;
tools.on.tell = status.tell;
tools.on.edit = item => composer.edit(item.id, editableOf(item));
reactions.on.mayReact = tools.mayReact;
reactions.on.toggle = (item, key, isMine) => tools.act(item, isMine ? 'unreact' : 'react', { key });

composer.on.editing = timeline.showEdited;
composer.on.types = () => { if (tools.mayReact()) connection.typing(); };
composer.on.editLast = () => {
  const item = shown.log.findLast(item => identity.isMe(item.from) && tools.mayChange(item));
  if (item) composer.edit(item.id, editableOf(item));
};
composer.on.edited = async (id, text) => {
  const room = shown, item = room.log[room.indexOf(id)];
  if (!item) return status.tell('This message is not loaded any more. Copy your text, and scroll up to it.');
  if (text === editableOf(item)) return true;
  let data;
  try { data = edited(item, text); } catch { return status.tell('This is no valid JSON yet, and the message is JSON.'); }
  const why = await operate(identity.signed('./' + room.name), `{"$op":"edit","id":${id},"data":${data}}`);
  if (why) return status.tell(why);
  status.hush();
  return true;
};
identity.on.known = () => {
  if (!shown) return;
  if (!isAbsent) timeline.redrawAll();
  draw();
};

composer.on.name = name => { if (identity.call(name) && !isAbsent) connection.open(); };
identity.on.change = becomeAnother;
identity.on.tell = status.tell;

pending.on.retry = entry => {
  Object.assign(entry, { state: 'queued', sends: 0 });
  shown.outbox.save();
  connection.flush();
  timeline.drawSoon();
};
pending.on.edit = entry => composer.write(entry.text);
pending.on.drop = () => { timeline.drawSoon(); composer.focusOnText(); };

status.on.retry = () => { connection.connect(); composer.focusOnText(); };
status.on.dismiss = composer.focusOnText;

window.addEventListener('beforeunload', event => {
  if ([...conversations.values()].some(({ outbox }) => outbox.entries.length)) event.preventDefault();
});

identity.takeFromAddress();
identity.begin(composer.nameOf());
go();
channels.follow();
if (hasMouse()) composer.focusOnText();
