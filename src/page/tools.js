// What one can do with a message: one row of buttons, which moves to the message that the mouse, a finger or
// the focus is at. There is one of it, however many messages there are.

import * as channels from './channels.js';
import { shown } from './conversation.js';
import { $, button, hasMouse, make } from './dom.js';
import * as identity from './identity.js';
import { viewOf } from './message.js';
import { isKey } from './operations.js';
import { plainName } from './reactions.js';
import { isOwn, operate } from './server.js';
import { beside, itemAt, lastDrawn } from './timeline.js';

const COMMON = ['👍', '❤️', '😂', '🎉', '😮', '😢', '🙏', '👀'];

// Set by chat.js: a message is to be edited; a sentence for the person.
export const on = { edit(_item) {}, tell(_words) {} };

const list = $('Log'), picker = $('Picker'), question = $('Delete');
let at = null; // the message that the tools are at

// ---- What one may do ------------------------------------------------------------------------

export const mayReact = () => isOwn && shown.isNumbered && identity.sender() !== '' && channels.mayPost(shown.name);
const isAdmin = () => channels.isAdmin(shown.name);
export const mayChange = item => mayReact() && (identity.isMe(item.from) || isAdmin());
export const mayPin = () => mayReact() && (isAdmin() || identity.isWithoutRules());

// Does an operation on a message of the conversation that is shown. True when it was done.
export async function act(item, op, more = {}) {
  const why = await operate(identity.signed('./' + shown.name), JSON.stringify({ $op: op, id: item.id, ...more }));
  if (why) on.tell(why);
  return !why;
}

// ---- The row of buttons ---------------------------------------------------------------------

const tools = make('div', 'tools');
tools.setAttribute('role', 'toolbar');
// Their signs are the style's: what is read out of a message has none of them.
const react = button('react', '', () => ask(picker)), pin = button('pin', '', togglePin);
const edit = button('edit', '', () => on.edit(at)), remove = button('delete', '', () => ask(question));
tools.append(react, edit, pin, remove);

const nameOf = item => (item.from ? plainName(item.from) : viewOf(item).name ?? 'a program').slice(0, 60);

function label(element, words) {
  element.title = words;
  element.setAttribute('aria-label', words);
}

// Puts the tools at a message, or away.
export function moveTo(item) {
  if (item === at && (!item || tools.parentNode === item.row?.querySelector('.message'))) return;
  at = item && item.row && mayReact() ? item : null;
  // Else the message that is drawn anew next would take the focus to where the tools are now.
  focused = null;
  if (!at) return tools.remove();
  tools.setAttribute('aria-label', `Message of ${nameOf(at)}`);
  label(react, 'React');
  label(edit, 'Edit');
  label(remove, 'Delete');
  label(pin, at.state?.isPinned ? 'Unpin' : 'Pin');
  pin.hidden = !mayPin();
  edit.hidden = remove.hidden = !mayChange(at);
  const state = at.row.querySelector('.state'), message = at.row.querySelector('.message');
  if (state) state.before(tools);
  else message.append(tools);
}

// A message was drawn anew: the tools stay at it.
export function stay(item) {
  if (item !== at) return;
  const had = tools.contains(document.activeElement) || document.activeElement === document.body ? focused : null;
  at = null;
  moveTo(item.state?.isDeleted ? null : item);
  if (had && at) had.focus({ preventScroll: true });
}

// The button that has, or had just now, the focus: drawing a message anew takes it away.
let focused = null;
tools.addEventListener('focusin', event => { focused = event.target; });
document.addEventListener('focusin', event => { if (!tools.contains(event.target)) focused = null; });

// What moved the focus: 'keyboard', 'mouse', 'touch' or 'pen'. A click leaves it in the tools, too, and so does
// a dialog that closes; but who goes on by mouse then means the message that the mouse is at.
let means = '';
document.addEventListener('pointerdown', event => { means = event.pointerType; }, true);
const isHeld = () => means === 'keyboard' && tools.contains(document.activeElement);

list.addEventListener('pointerover', event => { if (event.pointerType === 'mouse' && !isHeld()) moveTo(itemAt(event.target)); });
// A mouse that is elsewhere means no message; one in a dialog about a message means that one.
function putAway() {
  if (!isHeld() && !document.querySelector('dialog[open]')) moveTo(null);
}
list.addEventListener('pointerleave', event => { if (event.pointerType === 'mouse') putAway(); });
list.addEventListener('click', event => {
  if (event.target.closest('a, button') || String(getSelection())) return;
  moveTo(itemAt(event.target));
});
list.addEventListener('focusin', event => { if (!tools.contains(event.target)) moveTo(itemAt(event.target)); });
// A person who comes by keyboard finds them at the last message.
document.addEventListener('keydown', event => {
  if (event.key !== 'Tab') return;
  means = 'keyboard';
  if (!list.contains(document.activeElement)) moveTo(lastDrawn());
}, true);
tools.addEventListener('keydown', event => {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key], along = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === 'Escape') $('Text').focus({ preventScroll: true });
  if (along) {
    const buttons = [...tools.children].filter(one => !one.hidden);
    buttons[buttons.indexOf(document.activeElement) + along]?.focus({ preventScroll: true });
  }
  const next = step && beside(at, step);
  if (!step && !along) return;
  means = 'keyboard';
  event.preventDefault();
  if (!next) return;
  const had = document.activeElement;
  moveTo(next);
  (had.hidden ? react : had).focus({ preventScroll: true });
  next.row.scrollIntoView({ block: 'nearest' });
});

function togglePin() {
  act(at, at.state?.isPinned ? 'unpin' : 'pin');
}

// ---- Questions: which reaction, and whether to delete -----------------------------------------

let asked = null; // the message that a dialog is about

function ask(dialog) {
  asked = at;
  if (!asked) return;
  if (dialog === question) $('DeleteWhat').textContent = viewOf(asked).isChat ? viewOf(asked).text.slice(0, 200) : 'This is a message of a program.';
  $('OwnKey').value = '';
  $('KeyWhy').textContent = '';
  dialog.showModal();
  if (dialog === picker) picker.querySelector('button').focus();
}

for (const key of COMMON) {
  const choice = button('', key, () => choose(key));
  choice.setAttribute('aria-label', `React with ${key}`);
  $('Keys').append(choice);
}

async function choose(key) {
  picker.close();
  const senders = asked.state?.reactions.get(key);
  await act(asked, senders?.some(identity.isMe) ? 'unreact' : 'react', { key });
}

$('OwnReaction').addEventListener('submit', event => {
  event.preventDefault();
  const key = $('OwnKey').value.trim();
  if (isKey(key)) choose(key);
  else $('KeyWhy').textContent = 'A reaction is a sign or a short word, of 1 to 64 bytes.';
});

$('DeleteForm').addEventListener('submit', event => {
  event.preventDefault();
  question.close();
  act(asked, 'delete');
  (hasMouse() ? $('Text') : $('Scroll')).focus({ preventScroll: true });
});
for (const dialog of document.querySelectorAll('dialog')) {
  for (const close of dialog.querySelectorAll('.close')) close.onclick = () => dialog.close();
  // A click beside it closes it, too.
  dialog.addEventListener('click', event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener('close', () => { if (means === 'mouse' && !list.matches(':hover')) putAway(); });
}
