// The WebSocket of the conversation that is shown: there is one at a time. It connects, notices when
// a connection is dead, comes back by itself, and gives it what waits in the outbox.

import { shown } from './conversation.js';
import { doubt, fields } from './identity.js';
import { members } from './json.js';
import { isOwn } from './server.js';
import { hush, showState, showWait, tell } from './status.js';

const WAIT_FIRST = 500, WAIT_MOST = 30e3;  // ms between attempts to connect
const STEADY_MS = 5000;    // a connection this old makes the next wait short again
const OPEN_MS = 15e3;      // how long a connection may take to open
const HISTORY_MS = 300e3;  // and then to bring the history, which may be long and the line slow
const ECHO_MS = 15e3;      // a sent message unanswered for this long means a dead connection
const LATE_MS = 1000;      // how long, after a resume, an echo may still be on its way
const HURRY_MS = 200;      // who goes through channels faster than this is not connected to each
const CALM_MS = 500;       // a channel that takes no longer to open is not said to be connecting
const TYPING_MS = 3000;    // between two words about typing: more than that go no further
const MAX_SENDS = 4;       // then a message waits for a person to say "Retry"

// Set by chat.js: what came, what has become of what was written, that the channel is not there, and
// that the server is there again.
// Also: one may not do here what one could; who is here, who types, and that neither is known any more.
export const on = { history() {}, live() {}, outbox() {}, missing() {}, back() {}, forbidden() {}, presence(_told) {}, typing(_told) {}, alone() {} };

let socket = null, heldUntilHistory = false, wasLost = false;
let each = [];             // messages of a history that comes one by one
let openedAt = 0, busyTimer = 0, typedAt = 0;
let failures = 0, waitTimer = 0, retryAt = 0, openTimer = 0, lateTimer = 0, readyAt = 0, lastSign = 0, lastBuffered = 0;

// Connects to the conversation that is shown from now on.
export function open() {
  close();
  failures = 0;
  const isHurried = Date.now() - openedAt < HURRY_MS;
  openedAt = Date.now();
  if (document.body.dataset.state === 'on') {
    busyTimer = setTimeout(showBusy, CALM_MS);
  }
  if (isHurried) waitTimer = setTimeout(connect, HURRY_MS);
  else connect();
}

// Ends the connection and does not come back.
export function close() {
  clearTimeout(waitTimer);
  clearTimeout(busyTimer);
  retryAt = busyTimer = 0;
  if (socket) abandon();
}

function showBusy() {
  busyTimer = 0;
  showState('busy', shown.hasHistory || failures ? 'Reconnecting…' : 'Connecting…');
}

export function connect() {
  clearTimeout(waitTimer);
  retryAt = 0;
  if (socket) abandon();
  if (!busyTimer) showBusy();
  each = [];
  let opened = false, ws;
  try {
    ws = socket = new WebSocket(shown.address());
  } catch (error) {
    // Such as a page by https that names a server without TLS: trying again cannot help.
    showState('refused', 'Cannot connect');
    tell(String(error.message));
    return;
  }
  openTimer = setTimeout(() => lost(ws, 1006, '', opened), OPEN_MS);
  ws.onopen = () => {
    opened = true;
    clearTimeout(openTimer);
    openTimer = setTimeout(() => lost(ws, 1006, '', true), HISTORY_MS);
  };
  ws.onmessage = event => { if (ws === socket) receive(event.data); };
  ws.onclose = event => lost(ws, event.code, event.reason, opened);
}

// A dead connection can take minutes to say so; the page does not wait for it.
function abandon() {
  const ws = socket;
  socket = null;
  shown.isReady = false;
  clearTimeout(openTimer);
  clearTimeout(lateTimer);
  lateTimer = 0;
  ws.onopen = ws.onmessage = ws.onclose = null;
  ws.close();
  on.alone();
}

// Tells the others that one types. The server must know who that is.
export function typing() {
  if (!shown.isReady || heldUntilHistory || Date.now() - typedAt < TYPING_MS) return;
  typedAt = Date.now();
  socket.send('{"$op":"typing"}');
}

function lost(ws, code, reason, opened) {
  if (ws !== socket) return;
  if (shown.isReady && Date.now() - readyAt > STEADY_MS) failures = 0;
  abandon();
  wasLost = true;
  // Half the wait is random: a thousand pages do not come back in the same instant.
  let wait = Math.min(WAIT_MOST, WAIT_FIRST * 2 ** failures++) * (.5 + Math.random() / 2);
  if (code === 1009) {
    const [longest] = shown.outbox.sent().sort((a, b) => b.raw.length - a.raw.length);
    if (longest) shown.outbox.fail(longest, 'Too long for this server.');
  } else if (code === 1008) {
    wait = WAIT_MOST;
    tell(`The server ended the connection: ${reason || 'it is against its rules'}.`);
    doubt();
  } else if (code === 1013) {
    wait = Math.max(wait, 2000 + Math.random() * 3000);
    tell(`The server is busy: ${reason || 'too many people'}. Trying again soon.`);
  }
  waitUntil(Date.now() + wait, code === 1008);
  if (!opened) explain();
  on.outbox();
}

function waitUntil(time, isRefused) {
  clearTimeout(waitTimer);
  clearTimeout(busyTimer);
  busyTimer = 0;
  retryAt = time;
  showState(isRefused ? 'refused' : 'waiting', isRefused ? 'Refused' : 'Disconnected');
  countDown();
}

function countDown() {
  const left = retryAt - Date.now();
  if (left <= 0) return connect();
  showWait(left);
  waitTimer = setTimeout(countDown, Math.min(left, 1000));
}

// A browser does not tell why a connection was never opened; an ordinary request may.
async function explain() {
  if (!isOwn) return;
  const room = shown;
  try {
    const answer = await fetch(room.url.pathname + '?limit=0', { headers: fields(), cache: 'no-store', signal: AbortSignal.timeout?.(5000) });
    const words = (await answer.text()).trim().slice(0, 300);
    if (room !== shown || room.isReady) return;
    if (answer.status === 403) {
      tell(`The server refused this page: ${words || 'its address is not listed as allowed'}`);
      waitUntil(Date.now() + WAIT_MOST, true);
    } else if (answer.status === 401) {
      tell('The server did not accept your token.');
      waitUntil(Date.now() + WAIT_MOST, true);
      doubt();
    } else if (answer.status === 503) {
      tell(words || 'The server is full or stopping.');
    } else if (answer.status === 404) {
      on.missing(room);
    } else if (failures > 1 && answer.status < 500) {
      tell(`The server is there but opens no chat connection to this page. It may be full, or need --allow-origin ${location.origin}`);
    }
  } catch { /* it is down: the state says so */ }
}

// ---- What comes ----------------------------------------------------------------------------

function receive(data) {
  lastSign = Date.now();
  if (typeof data !== 'string') return;
  try {
    const message = members(data);
    if (message.type === 'message_history') {
      takeHistory(message);
    } else if (message.type === 'history_end') {
      takeHistory(message, each);
    } else if (message.type === 'new_message' && message.data !== undefined && !shown.isReady) {
      each.push(message);
    } else if (message.type === 'new_message' && message.data !== undefined) {
      const taken = shown.takeLive(message);
      if (taken) on.live(taken);
    } else if (message.type === 'presence') {
      on.presence(message);
    } else if (message.type === 'typing') {
      on.typing(message);
    } else if (message.type === 'error') {
      takeError(message);
    }
  } catch (error) {
    console.warn(error);
    tell('The server sent something that this page cannot read.');
  }
}

function takeHistory(message, messages) {
  const taken = shown.takeHistory(message, messages);
  each = [];
  clearTimeout(openTimer);
  clearTimeout(busyTimer);
  busyTimer = 0;
  readyAt = Date.now();
  heldUntilHistory = false;
  showState('on', 'Connected');
  hush();
  flushAfterHistory();
  on.history(taken);
  if (wasLost) on.back();
  wasLost = false;
}

// The server answers in order: this is about the oldest message without an answer.
function takeError({ code, message, retry_after: wait }) {
  const [entry] = shown.outbox.sent();
  if (code === 'rate_limited' && entry && wait > 0) {
    entry.state = 'queued';
    shown.outbox.save();
    clearTimeout(lateTimer);
    lateTimer = setTimeout(() => { lateTimer = 0; flush(); }, wait * 1000);
    return on.outbox();
  }
  if (code === 'shutting_down') {
    tell('The server is stopping. What you wrote is kept and will be sent when it is back.');
    if (entry) entry.state = 'queued';
    shown.outbox.save();
    heldUntilHistory = true;
    const ws = socket;
    setTimeout(() => lost(ws, 1012, '', true), 10e3);
  } else {
    const words = String(message ?? code ?? 'it does not say why').slice(0, 300);
    if (code === 'storage_full') tell('The server has no room left for messages. What you wrote is kept here; try again later.');
    else tell(`The server did not take a message: ${words}`);
    if (code === 'forbidden') on.forbidden();
    if (entry) shown.outbox.fail(entry, code === 'storage_full' ? 'Not stored: the server is full.' : 'Not taken by the server.');
  }
  on.outbox();
}

// ---- What goes -----------------------------------------------------------------------------

// Gives the connection what waits for one.
export function flush() {
  if (!shown.isReady || lateTimer || heldUntilHistory) return;
  const { outbox, lastId, epoch } = shown;
  let isChanged = false;
  for (const entry of outbox.entries) {
    if (entry.state !== 'queued') continue;
    isChanged = true;
    if (entry.sends >= MAX_SENDS) { entry.state = 'failed'; entry.why = 'Could not be delivered.'; continue; }
    Object.assign(entry, { state: 'sent', sends: entry.sends + 1, after: lastId, epoch });
    lastSign = Date.now();
    socket.send(entry.raw);
  }
  if (isChanged) { outbox.save(); on.outbox(); }
}

// Those that did not come back with the history may still be on their way through the server, for
// a moment. After it they did not get through.
function flushAfterHistory() {
  clearTimeout(lateTimer);
  lateTimer = 0;
  if (shown.outbox.sent().length) {
    lateTimer = setTimeout(() => {
      lateTimer = 0;
      for (const entry of shown.outbox.sent()) entry.state = 'queued';
      flush();
    }, LATE_MS);
  }
  flush();
}

// ---- When to look ---------------------------------------------------------------------------

// A network may go away without a word; then a message that is not answered tells.
setInterval(() => {
  if (!socket || !shown.isReady || !shown.outbox.sent().length) return;
  if (socket.bufferedAmount !== lastBuffered) lastSign = Date.now();
  lastBuffered = socket.bufferedAmount;
  if (Date.now() - lastSign > ECHO_MS) lost(socket, 1006, '', true);
}, 2500);

const comeBack = () => { if (retryAt && retryAt - Date.now() > 300) connect(); };
window.addEventListener('online', comeBack);
// A connection that outlives it, as one within this computer does, is there again with the first attempt.
window.addEventListener('offline', () => { if (socket) lost(socket, 1006, '', true); });
window.addEventListener('pageshow', event => { if (event.persisted) comeBack(); });
document.addEventListener('visibilitychange', () => { if (!document.hidden) comeBack(); });
