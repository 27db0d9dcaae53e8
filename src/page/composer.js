// The box to write in, and the name of who writes. What is not sent is kept, over a reload, too. While one
// edits a message the box has its text, and the draft waits until that is done or given up.

import { shown } from './conversation.js';
import { $, recall, remember } from './dom.js';

const DRAFT_MS = 250; // how long a draft may wait until it is kept

const textBox = $('Text'), nameBox = $('Name');

// Set by chat.js: somebody says something, types, wants to edit the last message, or has edited one (which
// comes to whether that was taken). Also: another message is edited than before, or none.
export const on = { say(_name, _text) {}, name(_name) {}, types() {}, editLast() {}, async edited(_id, _text) {}, editing() {} };

let draftTimer = 0;
const draftKey = () => 'draft ' + shown.url.href;

export function saveDraft() {
  clearTimeout(draftTimer);
  draftTimer = 0;
  if (shown.editing) shown.editing.text = textBox.value;
  else remember('localStorage', draftKey(), textBox.value);
}

// Makes the box as high as its text. While it is measured its line keeps its height: else the list above would
// grow for that moment, and be somewhere else after it.
function fit() {
  const line = textBox.parentElement;
  line.style.minHeight = line.offsetHeight + 'px';
  textBox.style.height = 'auto';
  textBox.style.height = textBox.scrollHeight + 'px';
  line.style.minHeight = '';
}

function onInput() {
  fit();
  $('Send').setAttribute('aria-disabled', !/\S/.test(textBox.value));
  draftTimer ||= setTimeout(saveDraft, DRAFT_MS);
}

// Takes the draft of the conversation that is shown from now on.
export function takeDraft() {
  textBox.value = shown.editing?.text ?? recall('localStorage', draftKey());
  $('Editing').hidden = !shown.editing;
  onInput();
  clearTimeout(draftTimer);
  draftTimer = 0;
  textBox.placeholder = `Message #${shown.name}`;
  textBox.setAttribute('aria-label', shown.editing ? 'Edit the message' : `Message to ${shown.name}`);
}

// Puts a message's text into the box, to be changed.
export function edit(id, text) {
  saveDraft();
  shown.editing = { id, text };
  takeDraft();
  on.editing();
  focusOnText();
  textBox.setSelectionRange(text.length, text.length);
}

// Gives the box back to the draft.
export function endEdit() {
  if (!shown.editing) return;
  shown.editing = null;
  takeDraft();
  on.editing();
}

$('StopEditing').onclick = () => { endEdit(); focusOnText(); };

async function submitEdit() {
  const room = shown, { editing } = room, text = textBox.value;
  // What one would type now would belong to nothing.
  textBox.readOnly = true;
  const isTaken = await on.edited(editing.id, text.trimEnd());
  textBox.readOnly = false;
  // It may have gone on, or to another channel, meanwhile.
  if (!isTaken || room.editing !== editing) return;
  if (room === shown) endEdit();
  else room.editing = null;
}

// Offers the box, or nothing, or says that one may only read: 'write', 'none', 'read'.
export function offer(what) {
  $('Form').hidden = what !== 'write';
  $('ReadOnly').hidden = what !== 'read';
  fit();
}

export const focusOnText = () => textBox.focus({ preventScroll: true });

// Puts a text in front of what is being written.
export function write(text) {
  endEdit();
  textBox.value = text + (textBox.value && '\n' + textBox.value);
  onInput();
}

textBox.addEventListener('input', () => {
  onInput();
  if (!shown.editing && /\S/.test(textBox.value)) on.types();
});
textBox.addEventListener('keydown', event => {
  if (event.key === 'Escape' && shown.editing && !event.isComposing) { event.preventDefault(); return endEdit(); }
  if (event.key === 'ArrowUp' && !textBox.value && !shown.editing && !event.altKey && !event.shiftKey && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    return on.editLast();
  }
  // Enter that ends the composing of a character is not meant for us; 229 is Safari's word for it.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $('Form').requestSubmit();
});
$('Form').addEventListener('submit', event => {
  event.preventDefault();
  const text = textBox.value.replace(/^(?:[^\S\n]*\n)+/, '').trimEnd();
  if (document.activeElement === nameBox || !text) return textBox.focus();
  if (shown.editing) return submitEdit();
  textBox.value = '';
  onInput();
  saveDraft();
  if (!nameBox.readOnly) remember('localStorage', 'name', nameBox.value.trim());
  on.say(nameBox.value.trim() || 'anonymous', text);
  focusOnText();
});

nameBox.value = recall('localStorage', 'name') || 'guest-' + (100 + Math.floor(Math.random() * 900));
nameBox.addEventListener('input', () => remember('localStorage', 'name', nameBox.value.trim()));
nameBox.addEventListener('change', () => on.name(nameBox.value));
export const nameOf = () => nameBox.value;

window.addEventListener('pagehide', saveDraft);
// A phone's keyboard covers the page instead of shrinking it, on some phones.
window.visualViewport?.addEventListener('resize', () => {
  const { height, scale } = window.visualViewport, covered = scale === 1 && innerHeight - height > 80;
  if (covered) document.documentElement.style.setProperty('--room', height + 'px');
  else document.documentElement.style.removeProperty('--room');
  if (covered) window.scrollTo(0, 0);
});
