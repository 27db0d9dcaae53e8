// Who one is here. A key that this browser made at the first visit makes the name a pseudonym, which
// nobody without the key can have. A token that the operator gave out, by a link (/#token=…) or typed, is
// a name; then the key counts for nothing. Both stay in this browser.

import { $, hasMouse, recall, remember } from './dom.js';
import { personOf } from './operations.js';
import { DEFAULT, isOwn } from './server.js';

const KEY_BYTES = 24;      // of randomness
const KEY_LEAST = 8;       // characters of a key that the server takes
const NAME_BYTES = 64;     // of a pseudonym's name
const PATIENCE_MS = 15e3;  // how long the server may take to say who one is
const AGAIN_MS = 5000;     // between two attempts to ask it

// Set by chat.js: one is somebody else from now on; a sentence for the person.
// Also: the server has said who one is.
export const on = { change() {}, tell(_words) {}, known() {} };

const panel = $('Identity'), who = $('Who'), secret = $('Secret');
let token = isOwn ? recall('localStorage', 'token') : '', key = isOwn ? ownKey() : '';
let name = '', from = '', asked = 0, isOpen = false;

function ownKey() {
  const kept = recall('localStorage', 'key');
  if (kept) return kept;
  const bytes = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const made = btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_');
  remember('localStorage', 'key', made);
  return made;
}

// Takes a token out of the address, which others may see or copy.
export function takeFromAddress() {
  const given = /^#token=(.+)$/.exec(location.hash)?.[1];
  if (given === undefined) return false;
  history.replaceState(null, '', location.pathname + location.search);
  if (!isOwn) return false;
  try { useToken(decodeURIComponent(given)); } catch { useToken(given); }
  return true;
}

function useToken(given) {
  token = given;
  remember('localStorage', 'token', token);
}

// What a pseudonym may be called: without marks that would deceive, and no longer than the server takes.
function nameFor(text) {
  const plain = text.replace(/[~\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, '').trim();
  let short = '';
  for (const letter of plain) {
    if (new TextEncoder().encode(short + letter).length > NAME_BYTES) break;
    short += letter;
  }
  return short.trim() || 'anonymous';
}

// The header fields that say who asks.
export const fields = () => (token ? { Authorization: `Bearer ${token}` } : {});

// Says in an address who connects: a browser can give a socket or a stream no header fields.
export function sign(url) {
  if (token) {
    url.searchParams.set('token', token);
  } else if (key) {
    url.searchParams.set('as', name);
    url.searchParams.set('key', key);
  }
  return url;
}

// One is called so from now on. True when the connection has to say so anew.
export function call(text) {
  const old = name;
  name = nameFor(text);
  if (old === name) return false;
  ask();
  return !token && old !== '';
}

// Whether messages of this verified sender are one's own.
export const isMe = sender => sender !== undefined && from !== '' && personOf(sender) === personOf(from);

// The verified sender that one is; '' while the server has given none.
export const sender = () => from;

// Whether nobody has more rights than others here, because there is no access file.
export const isWithoutRules = () => isOpen;

// The address at which one asks for something to be done, and the header fields.
export function signed(path) {
  if (token) return [path, fields()];
  return [from ? `${path}?as=${encodeURIComponent(name)}` : path, from ? { 'Txtcord-Key': key } : {}];
}

// The server knows the token no more.
export const isRefused = () => !!token;

async function ask() {
  if (!isOwn) return;
  const mine = ++asked;
  const head = token ? fields() : { 'Txtcord-Key': key };
  try {
    const url = token ? '/me' : '/me?as=' + encodeURIComponent(name);
    const answer = await fetch(url, { headers: head, cache: 'no-store', signal: AbortSignal.timeout?.(PATIENCE_MS) });
    if (mine !== asked) return;
    isOpen = false;
    from = answer.ok ? (await answer.json()).from ?? '' : '';
    if (from && !token) await askForRules();
    draw(answer.status === 401 ? 'refused' : answer.ok ? 'known' : 'unknown');
  } catch {
    // It is down, as the state of the connection says. Without an answer nobody could edit or react.
    setTimeout(() => { if (mine === asked) ask(); }, AGAIN_MS * (.5 + Math.random()));
  }
}

// Without an access file everybody may make channels, so also this one, which is there: nothing happens.
async function askForRules() {
  const answer = await fetch('/' + DEFAULT, { method: 'PUT', cache: 'no-store', signal: AbortSignal.timeout?.(PATIENCE_MS) });
  isOpen = answer.ok;
}

function draw(state) {
  on.known();
  who.hidden = state === 'unknown';
  if (state === 'unknown') open(false);
  const [plain, letters] = from.split('~'), nameBox = $('Name');
  who.textContent = state === 'refused' ? 'Token refused' : letters ? '~' + letters.slice(0, 4) : 'Verified';
  who.classList.toggle('refused', state === 'refused');
  nameBox.readOnly = !!token && state === 'known';
  if (nameBox.readOnly) nameBox.value = plain;
  $('WhoText').textContent = state === 'refused'
    ? 'The server does not know this token. Ask its operator for another one, or forget it.'
    : letters ? `You are ${from}, and nobody else can be this ${plain}.` : `You are ${plain}, by a token of the operator.`;
  who.title = $('WhoText').textContent;
  $('Copy').hidden = !!token;
  $('Forget').hidden = !token;
}

// Shows or hides what can be done about who one is.
export function open(isOpen) {
  panel.hidden = !isOpen;
  who.setAttribute('aria-expanded', isOpen);
  secret.value = '';
  secret.type = 'password';
  if (isOpen && hasMouse()) secret.focus();
}

who.onclick = () => open(panel.hidden);
panel.addEventListener('keydown', event => {
  if (event.key !== 'Escape') return;
  open(false);
  who.focus();
});

$('Copy').onclick = async () => {
  try {
    await navigator.clipboard.writeText(key);
    on.tell('The key is copied. Whoever has it can be you: give it to your other devices alone.');
  } catch {
    // A page without TLS may not copy; a person may.
    secret.type = 'text';
    secret.value = key;
    secret.select();
  }
};

$('Forget').onclick = () => {
  useToken('');
  $('Name').readOnly = false;
  $('Name').value = recall('localStorage', 'name') || 'anonymous';
  change();
};

panel.addEventListener('submit', event => {
  event.preventDefault();
  const given = secret.value.trim();
  if (given.startsWith('tc_')) {
    useToken(given);
  } else if (given.length < KEY_LEAST) {
    return on.tell(`A key has ${KEY_LEAST} characters or more; a token begins with tc_.`);
  } else {
    useToken('');
    key = given;
    remember('localStorage', 'key', key);
  }
  change();
});

function change() {
  open(false);
  name = nameFor($('Name').value);
  ask();
  on.change();
}

// Asks who one is, and shows it.
export function begin(text) {
  name = nameFor(text);
  ask();
}
