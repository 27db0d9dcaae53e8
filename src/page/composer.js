// The box to write in, and the name of who writes. What is not sent is kept, over a reload, too.

import { shown } from './conversation.js';
import { $, recall, remember } from './dom.js';

const DRAFT_MS = 250; // how long a draft may wait until it is kept

const textBox = $('Text'), nameBox = $('Name');

// Set by chat.js: somebody says something.
export const on = { say(_name, _text) {}, name(_name) {} };

let draftTimer = 0;
const draftKey = () => 'draft ' + shown.url.href;

export function saveDraft() {
  clearTimeout(draftTimer);
  draftTimer = 0;
  remember('localStorage', draftKey(), textBox.value);
}

function fit() {
  textBox.style.height = 'auto';
  textBox.style.height = textBox.scrollHeight + 'px';
}

function onInput() {
  fit();
  $('Send').setAttribute('aria-disabled', !/\S/.test(textBox.value));
  draftTimer ||= setTimeout(saveDraft, DRAFT_MS);
}

// Takes the draft of the conversation that is shown from now on.
export function takeDraft() {
  textBox.value = recall('localStorage', draftKey());
  onInput();
  clearTimeout(draftTimer);
  draftTimer = 0;
  textBox.placeholder = `Message #${shown.name}`;
  textBox.setAttribute('aria-label', `Message to ${shown.name}`);
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
  textBox.value = text + (textBox.value && '\n' + textBox.value);
  onInput();
}

textBox.addEventListener('input', onInput);
textBox.addEventListener('keydown', event => {
  // Enter that ends the composing of a character is not meant for us; 229 is Safari's word for it.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $('Form').requestSubmit();
});
$('Form').addEventListener('submit', event => {
  event.preventDefault();
  const text = textBox.value.replace(/^(?:[^\S\n]*\n)+/, '').trimEnd();
  if (document.activeElement === nameBox || !text) return textBox.focus();
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
