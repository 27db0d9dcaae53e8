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
const why = $('SecretWhy'), use = panel.querySelector('[type=submit]');
// Opens the panel, too, where there is no box to write in.
const instead = $('Instead');
let token = isOwn ? recall('localStorage', 'token') : '', key = isOwn ? ownKey() : '';
// `isUnproved`: the token is from a link, and is kept once the server has accepted it.
let name = '', from = '', asked = 0, isOpen = false, isUnproved = false, isRefused = false, opener = who;

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
  let text = given;
  try { text = decodeURIComponent(given); } catch { /* as it is, then */ }
  // No token has control characters, and no header field could hold them.
  text = text.replace(/\p{Cc}/gu, '').trim();
  if (!text) return false;
  token = text;
  isUnproved = true;
  return true;
}

function keepToken(given) {
  token = given;
  isUnproved = false;
  remember('localStorage', 'token', token);
}

// What a pseudonym may be called: without marks that would deceive, and no longer than the server takes.
function nameFor(text) {
  const plain = text.replace(/[~\p{Cc}\p{Cs}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, '').trim();
  let short = '';
  for (const letter of plain) {
    if (new TextEncoder().encode(short + letter).length > NAME_BYTES) break;
    short += letter;
  }
  return short.trim() || 'anonymous';
}

// A header field holds bytes: with those of UTF-8 a secret is the same there as in an address.
const bytesOf = text => String.fromCharCode(...new TextEncoder().encode(text));
const keyField = key => ({ 'Txtcord-Key': bytesOf(key) });
const tokenField = token => ({ Authorization: `Bearer ${bytesOf(token)}` });

// The header fields that say who asks.
export const fields = () => (token ? tokenField(token) : {});

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

// The address, beside the page, at which one asks for something to be done, and the header fields.
export function signed(path) {
  if (token) return [path, fields()];
  return [from ? `${path}?as=${encodeURIComponent(name)}` : path, from ? keyField(key) : {}];
}

// Asks the server who has this token or, without one, this key: {status, from, words}. Throws when it
// does not say, as when it is down or full.
async function whoHas(token, key) {
  const [url, headers] = token ? ['./me', tokenField(token)] : ['./me?as=' + encodeURIComponent(name), keyField(key)];
  const answer = await fetch(url, { headers, cache: 'no-store', signal: AbortSignal.timeout?.(PATIENCE_MS) });
  if (answer.status === 429 || answer.status >= 500) throw new Error(`/me answered ${answer.status}`);
  if (answer.ok) return { status: 200, from: (await answer.json()).from ?? '' };
  return { status: answer.status, from: '', words: (await answer.text()).trim().slice(0, 300) };
}

// Asks who one is, and shows it.
async function ask() {
  if (!isOwn) return;
  const mine = ++asked;
  try {
    const { status, from: sender, words } = await whoHas(token, key);
    if (mine !== asked) return;
    if (isUnproved && status === 401) {
      token = recall('localStorage', 'token');
      isUnproved = false;
      on.change();
      return tellOfLink(words);
    }
    if (isUnproved && status === 200) keepToken(token);
    from = sender;
    // Until that is known, it is as it was: what is offered does not come and go.
    isOpen = from !== '' && !token && await hasNoRules();
    draw(status === 401 ? 'refused' : status === 200 ? 'known' : 'unknown');
  } catch {
    // It is down, as the state of the connection says. Without an answer nobody could edit or react.
    setTimeout(() => { if (mine === asked) ask(); }, AGAIN_MS * (.5 + Math.random()));
  }
}

// Without an access file everybody may make channels, so also this one, which is there: nothing happens.
async function hasNoRules() {
  const answer = await fetch('./' + DEFAULT, { method: 'PUT', cache: 'no-store', signal: AbortSignal.timeout?.(PATIENCE_MS) });
  return answer.ok;
}

function draw(state) {
  on.known();
  // Nothing else works without it, so a person need not look for what can be done; what they write goes on.
  const wasRefused = isRefused;
  isRefused = state === 'refused';
  if (isRefused !== wasRefused || state === 'unknown') show(isRefused);
  who.hidden = instead.hidden = state === 'unknown';
  const [plain, letters] = from.split('~'), nameBox = $('Name');
  who.textContent = isRefused ? 'Token refused' : letters ? '~' + letters.slice(0, 4) : 'Verified';
  instead.textContent = isRefused ? 'Token refused' : token ? 'Who you are' : 'Use a token';
  who.classList.toggle('refused', isRefused);
  nameBox.readOnly = !!token && state === 'known';
  if (nameBox.readOnly) nameBox.value = plain;
  $('WhoText').textContent = isRefused
    ? 'The server does not know this token. Ask its operator for another one, or forget it.'
    : letters ? `You are ${from}, and nobody else can be this ${plain}.` : `You are ${plain}, by a token of the operator.`;
  who.title = $('WhoText').textContent;
  $('Copy').hidden = !!token;
  $('Forget').hidden = !token;
}

// ---- The panel: what can be done about who one is ----------------------------------------------

function show(isShown) {
  panel.hidden = !isShown;
  who.setAttribute('aria-expanded', isShown);
  instead.setAttribute('aria-expanded', isShown);
  $('WhoText').hidden = false;
  $('Without').hidden = true;
  secret.value = '';
  secret.type = 'password';
  say('');
}

// Opens the panel, or closes it, for a person who has asked for that.
export function open(isShown) {
  opener = document.activeElement?.closest('button') ?? who;
  show(isShown);
  if (isShown && hasMouse()) secret.focus();
}

// Says in the panel why what was given is not taken.
function say(words) {
  why.textContent = words;
  if (words) secret.focus();
}

const notAccepted = (what, words) => `The server did not accept this ${what}.` + (words && ` It says: “${words}”.`);

// Whoever came by a link to be somebody wants to know what to do now, and not who they are without it.
function tellOfLink(words) {
  open(true);
  $('WhoText').hidden = true;
  $('Without').hidden = false;
  say(notAccepted('token', words));
}

who.onclick = instead.onclick = () => open(panel.hidden);
panel.addEventListener('keydown', event => {
  if (event.key !== 'Escape' || event.isComposing) return;
  show(false);
  opener.focus();
});

$('Without').onclick = () => {
  show(false);
  (hasMouse() ? $('Text') : opener).focus({ preventScroll: true });
};

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
  keepToken('');
  $('Name').readOnly = false;
  $('Name').value = recall('localStorage', 'name') || 'anonymous';
  change();
};

// One stays who one is until the server has accepted what was given.
panel.addEventListener('submit', async event => {
  event.preventDefault();
  const given = secret.value.trim(), isToken = given.startsWith('tc_');
  if (!isToken && given.length < KEY_LEAST) return say(`A key has ${KEY_LEAST} characters or more; a token begins with tc_.`);
  say('');
  use.textContent = 'Asking…';
  let answer;
  try { answer = await whoHas(isToken ? given : '', given); } catch { /* it does not say */ }
  use.textContent = 'Use it';
  // Somebody has given it up, or given another one.
  if (panel.hidden || secret.value.trim() !== given) return;
  if (!answer) return say('The server cannot be reached now. Try again when it is back.');
  if (answer.status !== 200) return say(notAccepted(isToken ? 'token' : 'key', answer.words));
  keepToken(isToken ? given : '');
  if (!isToken) {
    key = given;
    remember('localStorage', 'key', key);
  }
  change();
});
secret.addEventListener('input', () => say(''));

function change() {
  show(false);
  on.change();
}

// One is called so, and asks who that is.
export function begin(text) {
  name = nameFor(text);
  ask();
}

// The server has refused something, or takes it again: it may know the token no more, or by now.
export const doubt = () => { if (token) ask(); };
export const trust = () => { if (isRefused) ask(); };
