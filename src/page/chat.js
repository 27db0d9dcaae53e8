// The chat page: connects, resumes, shows messages, sends what is typed.

'use strict';
(() => {

// ---- Numbers, each with its reason ---------------------------------------------------------

const ROWS = 240;          // rows in the document at most: some screens, and cheap to lay out
const STEP = 60;           // rows added at a time when scrolling
const NEAR = 800;          // px from an edge of the rows at which the next STEP is added
const FIRST_LIMIT = 200;   // messages asked for on connect: less than ROWS, more than a screen
const RESUME_LIMIT = 10000; // messages missed at most; after more than that the list starts anew
const OLDER_LIMIT = 100;   // messages asked for when scrolling up
const KEPT = 20000;        // messages kept in memory when the server can give them again
const CLIP_CHARS = 800, CLIP_LINES = 18;  // what a long message shows before "Show all"
const MAX_LINKS = 200;     // links made in one message; the rest stays text
const DEEP = 60;           // JSON nested deeper than this is shown as it came
const GROUP_MS = 5 * 60e3; // a pause after which a name is shown again
const WAIT_FIRST = 500, WAIT_MOST = 30e3;  // ms between attempts to connect
const STEADY_MS = 5000;    // a connection this old makes the next wait short again
const OPEN_MS = 15e3;      // how long a connection may take to open
const HISTORY_MS = 300e3;  // and then to bring the history, which may be long and the line slow
const ECHO_MS = 15e3;      // a sent message unanswered for this long means a dead connection
const LATE_MS = 1000;      // how long, after a resume, an echo may still be on its way
const MAX_SENDS = 4;       // then a message waits for a person to say "Retry"

const $ = id => document.getElementById(id);
const scroller = $('scroll'), list = $('log'), textBox = $('text'), nameBox = $('name'), notice = $('notice');

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(className, text, onclick) {
  const element = make('button', className, text);
  element.type = 'button';
  element.onclick = onclick;
  return element;
}

// ---- Where the server is -------------------------------------------------------------------

// A copy of this page opened from a disk, or served on this computer by something else, may name
// its server: ?server=ws://127.0.0.1:8000/ws. Anywhere else a link could lure people with it.
const here = new URL(location.href);
const [socketUrl, sameOrigin] = (() => {
  const own = new URL('/ws', here.protocol === 'file:' ? 'ws://127.0.0.1:8000' : here);
  own.protocol = here.protocol === 'https:' ? 'wss:' : 'ws:';
  const isLocal = url => /^(localhost|127\.0\.0\.1|\[::1\])$/.test(url.hostname);
  try {
    const named = new URL(here.searchParams.get('server'));
    const allowed = here.protocol === 'file:' || (isLocal(here) && isLocal(named));
    if (allowed && /^wss?:$/.test(named.protocol)) return [named, named.host === here.host];
  } catch { /* none named */ }
  return [own, here.protocol !== 'file:'];
})();

// Storage may be forbidden or full: then the page remembers less and works the same.
function remember(area, key, value) {
  try { window[area].setItem('txtcord ' + key, value); } catch { /* see above */ }
}
function recall(area, key) {
  try { return window[area].getItem('txtcord ' + key) || ''; } catch { return ''; }
}

// ---- JSON as it was written ----------------------------------------------------------------
// Messages are cut out of frames as text, without parsing: 1.10 stays 1.10, a 30-digit number
// keeps its digits, and depth costs no stack. Broken input throws; callers catch.

const QUOTE = 34, COMMA = 44, COLON = 58, BACKSLASH = 92;
const isOpening = code => code === 91 || code === 123;
const isClosing = code => code === 93 || code === 125;

function skipSpace(s, i) {
  for (;; i++) {
    const code = s.charCodeAt(i);
    if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return i;
  }
}

function skipString(s, i) {
  for (let end = i;;) {
    end = s.indexOf('"', end + 1);
    if (end < 0) throw new SyntaxError('string without an end');
    let slash = end;
    while (s.charCodeAt(slash - 1) === BACKSLASH) slash--;
    if ((end - slash) % 2 === 0) return end + 1;
  }
}

// The index after the value that starts at i; throws when it is longer than `most`.
function skipValue(s, i, most = Infinity) {
  const limit = Math.min(s.length, i + most);
  let depth = 0;
  for (let at = i; at < limit;) {
    const code = s.charCodeAt(at);
    if (code === QUOTE) {
      at = skipString(s, at);
    } else if (isOpening(code)) {
      depth++, at++;
    } else if (isClosing(code)) {
      depth--, at++;
    } else {
      at++;
      if (depth > 0) continue;
      for (let next; at < limit && (next = s.charCodeAt(at)) !== COMMA && !isClosing(next) && next > 32;) at++;
    }
    if (depth <= 0 && at <= limit) return at;
  }
  throw new SyntaxError('value without an end');
}

// Calls visit(start, end) for each element of the array at i, or visit(start, end, key) for each
// member of the object at i.
function eachIn(s, i, visit) {
  const isObject = s[i] === '{', last = isObject ? '}' : ']';
  if (!isObject && s[i] !== '[') throw new SyntaxError('neither an array nor an object');
  let at = skipSpace(s, i + 1), key;
  if (s[at] === last) return;
  for (;;) {
    if (isObject) {
      const end = skipString(s, at);
      key = JSON.parse(s.slice(at, end));
      at = skipSpace(s, end);
      if (s.charCodeAt(at) !== COLON) throw new SyntaxError('no colon');
      at = skipSpace(s, at + 1);
    }
    const end = skipValue(s, at);
    visit(at, end, key);
    at = skipSpace(s, end);
    if (s[at] === last) return;
    if (s.charCodeAt(at) !== COMMA) throw new SyntaxError('no comma');
    at = skipSpace(s, at + 1);
  }
}

// A frame or a line of /messages: its members parsed, but for `data`, which stays text.
function members(s) {
  const found = Object.create(null);
  eachIn(s, skipSpace(s, 0), (start, end, key) => {
    const raw = s.slice(start, end);
    found[key] = key === 'data' ? raw : JSON.parse(raw);
  });
  return found;
}

// Characters that draw nothing or turn others around are shown as the escapes that JSON has.
const visible = text => text.replace(/[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
  c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));

// Lays out JSON text without changing a token; stops after about `most` characters.
function pretty(raw, most) {
  let out = '', depth = 0, inlineUntil = 0;
  const line = () => '\n' + '  '.repeat(depth);
  for (let at = skipSpace(raw, 0); at < raw.length && out.length <= most; at = skipSpace(raw, at)) {
    const code = raw.charCodeAt(at), inline = at < inlineUntil;
    if (isOpening(code)) {
      if (++depth > DEEP) return raw.slice(0, most + 1);
      if (!inline) {
        try { inlineUntil = skipValue(raw, at, 64); } catch { /* too long for one line */ }
      }
      out += raw[at++];
      const next = skipSpace(raw, at);
      if (isClosing(raw.charCodeAt(next))) {
        depth--, out += raw[next], at = next + 1;
      } else if (at > inlineUntil) {
        out += line();
      }
    } else if (isClosing(code)) {
      depth--;
      out += (inline ? '' : line()) + raw[at++];
    } else if (code === COMMA || code === COLON) {
      out += raw[at++] + (code === COMMA && !inline ? line() : ' ');
    } else {
      const end = skipValue(raw, at);
      out += raw.slice(at, Math.min(end, at + most + 1));
      at = end;
    }
  }
  return out;
}

// ---- Messages ------------------------------------------------------------------------------
// An item is {id, raw, ts}; `ts` only where known. `view`, `isOpen` and `row` come when drawn.

const isTime = ts => typeof ts === 'number' && Math.abs(ts) <= 8.64e15;

function viewOf(item) {
  if (item.view) return item.view;
  try {
    const value = item.raw.startsWith('{') ? JSON.parse(item.raw) : null;
    const own = key => Object.hasOwn(value, key) && typeof value[key] === 'string' ? value[key] : undefined;
    const name = value && (own('user') ?? own('sender')), text = value && own('content');
    if (typeof name === 'string' && typeof text === 'string') return item.view = { name, text, isChat: true };
  } catch { /* not for this parser: shown as it is */ }
  return item.view = { name: null, isChat: false };
}

// What tells one's own message from others when it comes back, however the server spells it.
const keyOf = item => {
  const { name, text, isChat } = viewOf(item);
  return isChat ? JSON.stringify([name, text]) : null;
};

function hueOf(name) {
  let hash = 2166136261;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  hash = Math.imul(hash ^ hash >>> 16, 2246822507); // else names of one length look alike
  return ((hash ^ hash >>> 13) >>> 0) % 360;
}

function initialOf(name) {
  const letter = name.match(/[\p{L}\p{N}\p{Emoji_Presentation}]\p{M}?/u);
  return letter ? letter[0].toLocaleUpperCase() : '?';
}

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const dayNear = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const dayFar = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' });
const number = new Intl.NumberFormat();
const roughly = new Intl.NumberFormat('en', { notation: 'compact' });
const counted = (n, noun) => `${number.format(n)} ${noun}${n === 1 ? '' : 's'}`;

const midnight = ts => new Date(ts).setHours(0, 0, 0, 0);
function dayName(day) {
  const daysAgo = Math.round((midnight(Date.now()) - day) / 864e5);
  if (daysAgo === 0) return 'Today';
  if (daysAgo === 1) return 'Yesterday';
  return (daysAgo > 0 && daysAgo < 300 ? dayNear : dayFar).format(day);
}

// The day of the last message before index i whose time is known, looking back a little.
function dayBefore(i) {
  for (let j = i - 1; j >= 0 && j > i - ROWS; j--) {
    if (log[j].ts !== undefined) return midnight(log[j].ts);
  }
}

function timeOf(item, className) {
  const time = make('time', className, clock.format(item.ts));
  time.dateTime = new Date(item.ts).toISOString();
  time.title = moment.format(item.ts);
  return time;
}

function drawItem(item, before, isAfterRule) {
  const view = viewOf(item), message = make('div', 'message');
  const isFirst = isAfterRule || !before || viewOf(before).name !== view.name
    || (before.ts === undefined) !== (item.ts === undefined) || item.ts - before.ts > GROUP_MS;
  if (!view.isChat) message.classList.add('json');
  else message.style.setProperty('--hue', hueOf(view.name));
  const name = view.isChat ? view.name.slice(0, 200).trim() || 'no name' : 'JSON';
  if (isFirst) {
    message.classList.add('first');
    const face = make('div', 'face', view.isChat ? initialOf(name) : '{ }');
    face.setAttribute('aria-hidden', 'true');
    const who = make('div', 'who'), label = make('span', 'name', name);
    label.dir = 'auto';
    who.append(label);
    if (item.ts !== undefined) who.append(timeOf(item));
    message.append(face, who);
  } else {
    const label = make('span', 'unseen', name + ': ');
    label.dir = 'auto';
    message.append(label);
    if (item.ts !== undefined) {
      const time = timeOf(item, 'gutter');
      time.setAttribute('aria-hidden', 'true');
      message.append(time);
    }
  }
  drawBody(message, item, view);
  return message;
}

function drawBody(message, item, view) {
  // Twice what is shown: enough to know that there is more.
  const most = item.isOpen ? Infinity : CLIP_CHARS * 2;
  const whole = view.isChat ? view.text : visible(pretty(item.raw, most));
  let shown = item.isOpen ? whole : clip(whole);
  const body = make(view.isChat ? 'div' : 'pre', view.isChat ? 'text' : '');
  if (view.isChat) {
    body.dir = 'auto';
    if (/^(\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f|[\u200d\s\u{1f3fb}-\u{1f3ff}]){1,8}$/u.test(shown)) body.classList.add('big');
    addText(body, shown);
  } else {
    body.dir = 'ltr';
    body.textContent = shown;
  }
  message.append(body);
  if (!item.isOpen && shown === whole) return;
  const size = view.isChat ? view.text.length : item.raw.length;
  const more = button('more', item.isOpen ? 'Show less' : `Show all (${roughly.format(size)} characters)`, () => {
    item.isOpen = !item.isOpen;
    keepPlace(() => {
      for (const part of [body, more]) part.remove();
      drawBody(message, item, view);
    });
    message.lastChild.focus({ preventScroll: true });
    if (!item.isOpen) message.scrollIntoView({ block: 'nearest' });
    onScroll();
  });
  more.setAttribute('aria-expanded', !!item.isOpen);
  message.append(more);
}

function clip(text) {
  let end = 0;
  for (let lines = 0; lines < CLIP_LINES; lines++) {
    const next = text.indexOf('\n', end);
    if (next < 0 || next > CLIP_CHARS) { end = text.length; break; }
    end = next + 1;
  }
  // A few characters more than the limit are better shown than hidden behind a button.
  if (end > CLIP_CHARS * 1.25) end = CLIP_CHARS;
  if (end >= text.length) return text;
  if (/[\ud800-\udbff]/.test(text[end - 1])) end--;
  return text.slice(0, end).trimEnd() + ' …';
}

const isUnbalanced = link => link.endsWith(')') && link.split(')').length > link.split('(').length;
const LINK = /\bhttps?:\/\/[^\s<>"`\u200b-\u200f\u2028-\u202e\u2060-\u206f]+/gi;

function addText(parent, text) {
  let done = 0, links = 0;
  for (const match of text.matchAll(LINK)) {
    if (++links > MAX_LINKS) break;
    // Punctuation at the end belongs to the sentence, and so does a bracket opened before the link.
    let shown = match[0].slice(0, 2048), trimmed;
    while ((trimmed = shown.replace(/[.,;:!?'*_\]}]+$/, '')) !== shown || isUnbalanced(trimmed)) {
      shown = isUnbalanced(trimmed) ? trimmed.slice(0, -1) : trimmed;
    }
    let url;
    try { url = new URL(shown); } catch { continue; }
    const link = make('a', '', shown);
    link.href = url.href;
    link.target = '_blank';
    link.rel = 'noopener noreferrer nofollow';
    parent.append(text.slice(done, match.index), link);
    done = match.index + shown.length;
  }
  // One text node of a million characters is slow to break into lines; pieces are not.
  for (; done < text.length; done += 16384) parent.append(text.slice(done, done + 16384));
}

// ---- The list: a window of rows over the log -----------------------------------------------
// log[start..end) is in the document, one row each, at most ROWS. `isStuck`: the last message is
// in sight and stays there.

let log = [], start = 0, end = 0, isStuck = true;
let unread = 0, marker = null, frame = 0, isLoading = false, olderFailed = false, drawnDay = 0;

function drawRow(i) {
  const item = log[i], row = make('div', 'row');
  const day = item.ts === undefined ? undefined : midnight(item.ts);
  const isNewDay = day !== undefined && day !== dayBefore(i);
  if (isNewDay) row.append(make('div', 'rule', dayName(day)));
  if (item === marker) row.append(make('div', 'rule new', 'New messages'));
  row.append(drawItem(item, log[i - 1], isNewDay || item === marker));
  return item.row = row;
}

function rowsOf(from, to) {
  const rows = document.createDocumentFragment();
  for (let i = from; i < to; i++) rows.append(drawRow(i));
  return rows;
}

function undraw(from, to) {
  for (let i = from; i < to; i++) {
    log[i].row?.remove();
    log[i].row = null;
  }
}

function redraw(i) {
  if (i >= start && i < end) log[i].row.replaceWith(drawRow(i));
}

// Readers of screens hear what is said now, not what is drawn because someone scrolls.
let quietTimer = 0;
function quietly(work) {
  list.setAttribute('aria-live', 'off');
  clearTimeout(quietTimer);
  quietTimer = setTimeout(() => list.setAttribute('aria-live', 'polite'), 300);
  work();
}

// Does the work without moving what is in sight. (Not every browser anchors scrolling itself.)
function keepPlace(work) {
  const top = scroller.getBoundingClientRect().top;
  let anchor = null, was = 0;
  for (let i = start; i < end; i++) {
    const rect = log[i].row.getBoundingClientRect();
    if (rect.bottom > top) { anchor = log[i]; was = rect.top; break; }
  }
  work();
  if (anchor?.row) {
    const moved = anchor.row.getBoundingClientRect().top - was;
    if (moved) scroller.scrollTop += moved;
  }
}

function toBottom() {
  isStuck = true;
  scroller.scrollTop = scroller.scrollHeight;
}

function drawAll() {
  quietly(() => {
    for (const item of log.slice(start, end)) item.row = null;
    list.textContent = '';
    end = log.length;
    start = Math.max(0, end - ROWS / 2);
    drawnDay = midnight(Date.now());
    list.append(rowsOf(start, end));
  });
  toBottom();
  drawEdges();
}

function redrawWindow() {
  drawnDay = midnight(Date.now());
  quietly(() => keepPlace(() => { for (let i = start; i < end; i++) redraw(i); }));
  if (isStuck) toBottom();
}

function addAbove() {
  const from = Math.max(0, start - STEP);
  quietly(() => keepPlace(() => {
    list.prepend(rowsOf(from, start));
    start = from;
    const keep = Math.min(end, start + ROWS);
    undraw(keep, end);
    end = keep;
  }));
  drawEdges();
}

function addBelow() {
  const to = Math.min(log.length, end + STEP);
  quietly(() => keepPlace(() => {
    list.append(rowsOf(end, to));
    end = to;
    const from = Math.max(start, end - ROWS);
    undraw(start, from);
    start = from;
  }));
  drawEdges();
}

// What came since the last frame, drawn at once: a flood costs one layout a frame, not one each.
function drawLive() {
  frame = 0;
  const fresh = log.length - end;
  if (drawnDay !== midnight(Date.now())) redrawWindow();
  if (isStuck && fresh > ROWS / 2) {
    drawAll();
  } else if (fresh > 0 && (isStuck || end - start + fresh <= ROWS)) {
    const add = () => list.append(rowsOf(end, log.length));
    if (fresh > 20) quietly(add);
    else add();
    end = log.length;
    if (isStuck) {
      const from = Math.max(start, end - ROWS);
      undraw(start, from);
      start = from;
      forgetOld();
    }
  }
  drawPending();
  if (isStuck) toBottom();
  drawEdges();
}

const drawSoon = () => { frame ||= requestAnimationFrame(drawLive); };

// Old messages can be loaded again, if the server has a way; then memory need not grow for ever.
function forgetOld() {
  if (!canLoadOlder() || log.length < 2 * KEPT) return;
  const gone = Math.min(start, log.length - KEPT);
  log = log.slice(gone);
  start -= gone, end -= gone;
}

// What is not a message: the edges of the list, the count, the button, the title.
function drawEdges() {
  const total = numbered ? lastId : log.length, hidden = log.length - end;
  $('count').textContent = hasHistory && total ? counted(total, 'message') : '';
  $('empty').hidden = !hasHistory || log.length > 0 || outbox.length > 0;
  $('top').hidden = !$('empty').hidden;
  $('pending').hidden = !outbox.length || hidden > 0;
  const top = $('top'), hasMore = start > 0 || (numbered && log.length && log[0].id > 1);
  const wanted = olderFailed ? 'retry' : isLoading ? 'Loading older messages…'
    : hasMore || !log.length ? '' : 'This is where it all begins.';
  if (top.dataset.shows !== wanted) {
    top.dataset.shows = wanted;
    top.textContent = wanted === 'retry' ? 'Older messages could not be loaded. ' : wanted;
    if (wanted === 'retry') top.append(button('more', 'Try again', () => { olderFailed = false; loadOlder(); }));
  }
  const far = hidden > 0 || scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight > 300;
  const jump = $('jump');
  const isIdle = isStuck || !(far || unread);
  if (isIdle && document.activeElement === jump) scroller.focus({ preventScroll: true });
  jump.hidden = isIdle;
  jump.classList.toggle('unread', unread > 0);
  jump.textContent = unread ? `↓  ${counted(unread, 'new message')}` : '↓  Latest messages';
  document.title = unread ? `(${unread > 99 ? '99+' : unread}) txtcord` : 'txtcord';
}

function onScroll() {
  const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
  isStuck = below < 48 && end === log.length;
  if (isStuck && !document.hidden) unread = 0;
  if (scroller.scrollTop < NEAR) {
    if (start > 0) addAbove();
    else loadOlder();
  }
  if (below < NEAR && end < log.length) addBelow();
  drawEdges();
}

function jumpToLatest() {
  unread = 0;
  if (end < log.length) drawAll();
  toBottom();
  drawEdges();
}

let scrollFrame = 0;
scroller.addEventListener('scroll', () => {
  scrollFrame ||= requestAnimationFrame(() => { scrollFrame = 0; onScroll(); });
}, { passive: true });
scroller.addEventListener('keydown', event => {
  if (event.key === 'End' && !event.altKey && !event.ctrlKey && !event.metaKey) { event.preventDefault(); jumpToLatest(); }
});
new ResizeObserver(() => { if (isStuck) toBottom(); }).observe(scroller);
$('jump').onclick = () => { jumpToLatest(); (matchMedia('(pointer: fine)').matches ? textBox : scroller).focus({ preventScroll: true }); };

function setMarker(item) {
  const old = marker;
  marker = item;
  if (old?.row) redraw(log.indexOf(old, start));
}

function addLive(item) {
  log.push(item);
  if (!numbered || item.id > lastId) lastId = item.id;
  const isMine = settle(item);
  if ((document.hidden || !isStuck) && !isMine) {
    if (unread++ === 0) setMarker(item);
    if (document.hidden) drawEdges();
  }
  drawSoon();
}

// ---- Older messages and times, by HTTP -----------------------------------------------------

let hasHttp = sameOrigin;
const canLoadOlder = () => numbered && hasHttp;

async function fetchBefore(id, limit) {
  const answer = await fetch(`/messages?before=${id}&limit=${limit}`, {
    headers: { Accept: 'application/x-ndjson' }, credentials: 'same-origin', signal: AbortSignal.timeout?.(30e3),
  });
  const isLines = /ndjson|jsonl/.test(answer.headers.get('content-type') || '');
  if (answer.status === 404 || answer.status === 405 || (answer.ok && !isLines)) hasHttp = false;
  if (!answer.ok || !isLines) throw new Error(`/messages answered ${answer.status}`);
  const items = [];
  for (const line of (await answer.text()).split('\n')) {
    try {
      const { id: found, ts, data } = members(line);
      if (found < id && data !== undefined) items.push({ id: found, raw: data, ts: isTime(ts) ? ts : undefined });
    } catch { /* an empty or broken line costs only itself */ }
  }
  return items.sort((a, b) => a.id - b.id);
}

async function loadOlder() {
  if (isLoading || olderFailed || !canLoadOlder() || !log.length || log[0].id <= 1) return;
  isLoading = true;
  drawEdges();
  const first = log[0];
  try {
    const items = await fetchBefore(first.id, OLDER_LIMIT);
    if (log[0] !== first) return; // rebuilt or shortened meanwhile
    if (!items.length) first.id = 1; // nothing but lines that hold no message
    log = items.concat(log);
    start += items.length, end += items.length;
    // It may belong to the person above it now.
    quietly(() => keepPlace(() => redraw(items.length)));
  } catch (error) {
    console.warn(error);
    if (hasHttp) olderFailed = true;
    else withoutHttp();
  } finally {
    isLoading = false;
    onScroll();
  }
}

// The history frame holds no times; the server may know them.
async function loadTimes() {
  if (!canLoadOlder() || !log.some(item => item.ts === undefined)) return;
  try {
    const times = new Map((await fetchBefore(lastId + 1, FIRST_LIMIT)).map(item => [item.id, item.ts]));
    let isChanged = false;
    for (const item of log.slice(-FIRST_LIMIT * 2)) {
      if (item.ts === undefined && times.get(item.id) !== undefined) item.ts = times.get(item.id), isChanged = true;
    }
    if (isChanged) redrawWindow();
  } catch (error) {
    console.warn(error);
    if (!hasHttp) withoutHttp();
  }
}

// Only the socket can give old messages: all of them, then.
function withoutHttp() {
  if (log.length && log[0].id > 1) { forgetPlace = true; connect(); }
}

// ---- What was written here and has not come back -------------------------------------------
// An entry is {raw, key, name, text, state, sends, after, epoch, why}. state: 'queued' (not given to a
// connection), 'sent' (given to one; may or may not have arrived), 'failed' (waits for a person).
// It leaves the outbox when it is seen among the server's messages, and only then.

const outboxKey = 'outbox ' + socketUrl.href, draftKey = 'draft ' + socketUrl.href;
let outbox = [], lateTimer = 0, heldUntilHistory = false, shownPending = '';
try { outbox = JSON.parse(recall('sessionStorage', outboxKey) || '[]'); } catch { /* not ours */ }

function saveOutbox() {
  remember('sessionStorage', outboxKey, JSON.stringify(outbox));
}

// Takes the entry that this message answers out of the outbox; false if it is someone else's.
function settle(item) {
  if (!outbox.some(entry => entry.state === 'sent')) return false;
  const key = keyOf(item);
  const found = outbox.findIndex(entry => entry.state === 'sent' && entry.key === key);
  if (found < 0) return false;
  outbox.splice(found, 1);
  saveOutbox();
  return true;
}

// After a reconnect: settles those of `now` that are more than there were in `before`.
function settleNew(before, now) {
  if (!outbox.some(entry => entry.state === 'sent')) return;
  const known = new Map();
  for (const item of before) known.set(keyOf(item), (known.get(keyOf(item)) || 0) + 1);
  for (const item of now) {
    const times = known.get(keyOf(item)) || 0;
    if (times > 0) known.set(keyOf(item), times - 1);
    else settle(item);
  }
}

function flush() {
  if (!isReady || lateTimer || heldUntilHistory) return;
  let isChanged = false;
  for (const entry of outbox) {
    if (entry.state !== 'queued') continue;
    isChanged = true;
    if (entry.sends >= MAX_SENDS) { entry.state = 'failed'; entry.why = 'Could not be delivered.'; continue; }
    Object.assign(entry, { state: 'sent', sends: entry.sends + 1, after: lastId, epoch });
    lastSign = Date.now();
    socket.send(entry.raw);
  }
  if (isChanged) { saveOutbox(); drawSoon(); }
}

// Those that did not come back with the history may still be on their way through the server, for
// a moment. After it they did not get through.
function flushAfterHistory() {
  clearTimeout(lateTimer);
  lateTimer = 0;
  if (outbox.some(entry => entry.state === 'sent')) {
    lateTimer = setTimeout(() => {
      lateTimer = 0;
      for (const entry of outbox) if (entry.state === 'sent') entry.state = 'queued';
      flush();
    }, LATE_MS);
  }
  flush();
}

function drawPending() {
  const group = $('pending');
  const last = log.length ? viewOf(log[log.length - 1]).name : '';
  const wanted = JSON.stringify([isReady, last, outbox.map(entry => [entry.ts, entry.state])]);
  if (wanted === shownPending) return; // a button that has the focus keeps it
  shownPending = wanted;
  const scrap = document.createDocumentFragment();
  let before = log[log.length - 1];
  for (const entry of outbox) {
    const item = { ts: entry.ts, raw: '', view: { name: entry.name, text: entry.text, isChat: true } };
    const row = make('div', 'row pending ' + (entry.state === 'failed' ? 'failed held' : isReady ? '' : 'held'));
    const message = drawItem(item, before, false), acts = make('div', 'acts');
    acts.append(make('span', '', entry.state === 'failed' ? entry.why
      : isReady ? 'Sending…' : entry.state === 'sent' ? 'Sent; will see whether it arrived' : 'Waiting for the connection'));
    if (entry.state === 'failed') acts.append(button('', 'Retry', () => { Object.assign(entry, { state: 'queued', sends: 0 }); saveOutbox(); flush(); drawSoon(); }));
    if (entry.state !== 'sent') acts.append(button('', 'Edit', () => takeBack(entry)), button('', 'Delete', () => drop(entry)));
    message.append(acts);
    row.append(message);
    scrap.append(row);
    before = item;
  }
  group.replaceChildren(scrap);
}

function drop(entry) {
  outbox.splice(outbox.indexOf(entry), 1);
  saveOutbox();
  drawSoon();
  textBox.focus({ preventScroll: true });
}

function takeBack(entry) {
  drop(entry);
  textBox.value = entry.text + (textBox.value && '\n' + textBox.value);
  onInput();
}

function say(text) {
  const name = nameBox.value.trim() || 'anonymous', raw = JSON.stringify({ user: name, content: text });
  outbox.push({ raw, key: JSON.stringify([name, text]), name, text, ts: Date.now(), state: 'queued', sends: 0 });
  saveOutbox();
  setMarker(null);
  remember('localStorage', 'name', nameBox.value.trim());
  flush();
  jumpToLatest();
  drawSoon();
}

// ---- The connection ------------------------------------------------------------------------

let socket = null, isReady = false, epoch, lastId = 0;
let numbered = false;     // the server gives ids, so a connection can be resumed
let hasHistory = false;   // something was ever received
let forgetPlace = false;  // ask for everything, once
let failures = 0, waitTimer = 0, retryAt = 0, openTimer = 0, readyAt = 0, lastSign = 0, lastBuffered = 0;

function showState(state, label) {
  document.body.dataset.state = $('pill').dataset.state = state;
  if ($('state').textContent !== label) $('state').textContent = label;
  $('retry').hidden = state !== 'waiting' && state !== 'refused';
  if ($('retry').hidden) $('wait').textContent = '';
}

function addressNow() {
  const url = new URL(socketUrl);
  const unsure = outbox.filter(entry => entry.state === 'sent' && entry.epoch);
  if (forgetPlace) {
    forgetPlace = false;
  } else if (numbered && epoch) {
    url.searchParams.set('after', lastId);
    url.searchParams.set('epoch', epoch);
    if (hasHttp) url.searchParams.set('limit', RESUME_LIMIT);
  } else if (unsure.length && !hasHistory) {
    // Reloaded while a message was on its way: all since then tells whether it arrived.
    url.searchParams.set('after', Math.max(0, Math.min(...unsure.map(entry => entry.after)) - OLDER_LIMIT));
    url.searchParams.set('epoch', unsure[0].epoch);
  } else if (hasHttp) {
    url.searchParams.set('limit', FIRST_LIMIT);
  }
  return url.href;
}

function connect() {
  clearTimeout(waitTimer);
  retryAt = 0;
  if (socket) abandon();
  showState('busy', hasHistory || failures ? 'Reconnecting…' : 'Connecting…');
  let opened = false, ws;
  try {
    ws = socket = new WebSocket(addressNow());
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
  isReady = false;
  clearTimeout(openTimer);
  clearTimeout(lateTimer);
  lateTimer = 0;
  ws.onopen = ws.onmessage = ws.onclose = null;
  ws.close();
}

function lost(ws, code, reason, opened) {
  if (ws !== socket) return;
  if (isReady && Date.now() - readyAt > STEADY_MS) failures = 0;
  abandon();
  // Half the wait is random: a thousand pages do not come back in the same instant.
  let wait = Math.min(WAIT_MOST, WAIT_FIRST * 2 ** failures++) * (.5 + Math.random() / 2);
  if (code === 1009) {
    const sent = outbox.filter(entry => entry.state === 'sent').sort((a, b) => b.raw.length - a.raw.length);
    if (sent.length) Object.assign(sent[0], { state: 'failed', why: 'Too long for this server.' });
    saveOutbox();
  } else if (code === 1008) {
    wait = WAIT_MOST;
    tell(`The server ended the connection: ${reason || 'it is against its rules'}.`);
  } else if (code === 1013) {
    wait = Math.max(wait, 2000 + Math.random() * 3000);
    tell(`The server is busy: ${reason || 'too many people'}. Trying again soon.`);
  }
  waitUntil(Date.now() + wait, code === 1008);
  if (!opened) explain();
  drawSoon();
}

function waitUntil(time, isRefused) {
  clearTimeout(waitTimer);
  retryAt = time;
  showState(isRefused ? 'refused' : 'waiting', isRefused ? 'Refused' : 'Disconnected');
  countDown();
}

function countDown() {
  const left = retryAt - Date.now();
  if (left <= 0) return connect();
  $('wait').textContent = left > 1500 ? `${Math.ceil(left / 1000)} s` : '';
  waitTimer = setTimeout(countDown, Math.min(left, 1000));
}

// A browser does not tell why a connection was never opened; an ordinary request may.
async function explain() {
  if (!sameOrigin) return;
  try {
    const answer = await fetch(socketUrl.pathname, { cache: 'no-store', signal: AbortSignal.timeout?.(5000) });
    if (isReady) return;
    const words = (await answer.text()).trim().slice(0, 300);
    if (answer.status === 403) {
      tell(`The server refused this page: ${words || 'its address is not listed as allowed'}`);
      waitUntil(Date.now() + WAIT_MOST, true);
    } else if (answer.status === 503) {
      tell(words || 'The server is full or stopping.');
    } else if (failures > 1 && answer.status < 500) {
      tell(`The server is there but opens no chat connection to this page. It may be full, or need --allow-origin ${location.origin}`);
    }
  } catch { /* it is down: the pill says so */ }
}

function tell(words) {
  notice.firstChild.textContent = words;
  notice.hidden = false;
}

function receive(data) {
  lastSign = Date.now();
  if (typeof data !== 'string') return;
  try {
    const message = members(data);
    if (message.type === 'message_history') takeHistory(message);
    else if (message.type === 'new_message' && message.data !== undefined) takeLive(message);
    else if (message.type === 'error') takeError(message);
  } catch (error) {
    console.warn(error);
    tell('The server sent something that this page cannot read.');
  }
}

function takeHistory({ data, first_id: firstId, last_id: newLast, epoch: newEpoch, resumed, skipped }) {
  const wasNumbered = numbered, oldEpoch = epoch, old = log, oldLast = lastId, isFirst = !hasHistory;
  numbered = Number.isSafeInteger(firstId);
  epoch = numbered ? newEpoch : undefined;
  const noMessage = new Set(Array.isArray(skipped) ? skipped : []);
  let items = [], id = numbered ? firstId : 1;
  eachIn(data, skipSpace(data, 0), (from, to) => {
    while (noMessage.has(id)) id++;
    items.push({ id: id++, raw: data.slice(from, to) });
  });
  hasHistory = true;
  lastId = numbered ? Math.max(Number(newLast) || 0, id - 1) : items.length;

  let isRest = false; // `items` continues what is on the screen
  if (numbered) {
    isRest = resumed === true && wasNumbered && !isFirst && firstId <= oldLast + 1;
    if (isRest) {
      items = items.filter(item => item.id > oldLast);
      lastId = Math.max(lastId, oldLast);
      settleNew([], items);
    } else if (isFirst) {
      for (const entry of outbox) {
        if (entry.state === 'sent' && entry.epoch === epoch) settleNew([], items.filter(item => item.id > entry.after));
      }
    } else if (oldEpoch === epoch && old.length && items.length) {
      const both = item => item.id >= Math.max(old[0].id, items[0].id);
      settleNew(old.filter(both), items.filter(both));
    }
  } else {
    // A server without ids sends everything each time; mostly what is shown already, and more.
    isRest = !isFirst && !wasNumbered && items.length >= old.length && old.every((item, i) => item.raw === items[i].raw);
    if (isFirst) {
      const after = Math.min(Infinity, ...outbox.filter(entry => entry.state === 'sent').map(entry => entry.after));
      settleNew([], items.filter(item => item.id > after));
    } else {
      settleNew(isRest ? [] : old, isRest ? items.slice(old.length) : items);
    }
    if (isRest) items = items.slice(old.length);
  }

  if (isRest) {
    if (items.length && (document.hidden || !isStuck)) {
      if (unread === 0) setMarker(items[0]);
      unread += items.length;
    }
    log = log.concat(items);
    drawLive();
  } else {
    marker = null;
    unread = 0;
    const shown = log.slice(start, end);
    for (const item of shown) item.row = null;
    log = items;
    start = end = 0;
    olderFailed = false;
    drawAll();
  }
  clearTimeout(openTimer);
  isReady = true;
  readyAt = Date.now();
  heldUntilHistory = false;
  showState('on', 'Connected');
  notice.hidden = true;
  flushAfterHistory();
  drawPending();
  if (isStuck) toBottom();
  onScroll();
  if (items.length) setTimeout(loadTimes, isFirst ? 0 : Math.random() * 2000);
}

function takeLive({ data, id, ts }) {
  if (numbered && Number.isSafeInteger(id)) {
    if (id <= lastId) return;
  } else {
    id = lastId + 1;
  }
  addLive({ id, raw: data, ts: isTime(ts) ? ts : Date.now() });
}

// The server answers in order: this is about the oldest message without an answer.
function takeError({ code, message }) {
  const entry = outbox.find(entry => entry.state === 'sent');
  if (code === 'shutting_down') {
    tell('The server is stopping. What you wrote is kept and will be sent when it is back.');
    if (entry) entry.state = 'queued';
    heldUntilHistory = true;
    const ws = socket;
    setTimeout(() => lost(ws, 1012, '', true), 10e3);
  } else {
    const words = String(message ?? code ?? 'it does not say why').slice(0, 300);
    if (code === 'storage_full') tell('The server has no room left for messages. What you wrote is kept here; try again later.');
    else tell(`The server did not take a message: ${words}`);
    if (entry) Object.assign(entry, { state: 'failed', why: code === 'storage_full' ? 'Not stored: the server is full.' : 'Not taken by the server.' });
  }
  saveOutbox();
  drawSoon();
}

// Nothing tells a page that its network is gone, but a message that is not answered does.
setInterval(() => {
  if (!isReady || !outbox.some(entry => entry.state === 'sent')) return;
  if (socket.bufferedAmount !== lastBuffered) lastSign = Date.now();
  lastBuffered = socket.bufferedAmount;
  if (Date.now() - lastSign > ECHO_MS) lost(socket, 1006, '', true);
}, 2500);

const comeBack = () => { if (retryAt && retryAt - Date.now() > 300) connect(); };
window.addEventListener('online', comeBack);
window.addEventListener('pageshow', event => { if (event.persisted) comeBack(); });
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  comeBack();
  if (isStuck) unread = 0;
  drawEdges();
});
$('retry').onclick = () => { connect(); textBox.focus({ preventScroll: true }); };
notice.lastChild.onclick = () => { notice.hidden = true; textBox.focus({ preventScroll: true }); };

// ---- The box to write in -------------------------------------------------------------------

let draftTimer = 0;
const saveDraft = () => { clearTimeout(draftTimer); draftTimer = 0; remember('localStorage', draftKey, textBox.value); };

function onInput() {
  textBox.style.height = 'auto';
  textBox.style.height = textBox.scrollHeight + 'px';
  $('send').setAttribute('aria-disabled', !/\S/.test(textBox.value));
  draftTimer ||= setTimeout(saveDraft, 250);
}

textBox.addEventListener('input', onInput);
textBox.addEventListener('keydown', event => {
  // Enter that ends the composing of a character is not meant for us; 229 is Safari's word for it.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $('form').requestSubmit();
});
$('form').addEventListener('submit', event => {
  event.preventDefault();
  const text = textBox.value.replace(/^(?:[^\S\n]*\n)+/, '').trimEnd();
  if (document.activeElement === nameBox || !text) return textBox.focus();
  textBox.value = '';
  onInput();
  saveDraft();
  say(text);
  textBox.focus({ preventScroll: true });
});

nameBox.value = recall('localStorage', 'name') || 'guest-' + (100 + Math.floor(Math.random() * 900));
nameBox.addEventListener('input', () => remember('localStorage', 'name', nameBox.value.trim()));
textBox.value = recall('localStorage', draftKey);
onInput();

window.addEventListener('pagehide', saveDraft);
window.addEventListener('beforeunload', event => { if (outbox.length) event.preventDefault(); });
// A phone's keyboard covers the page instead of shrinking it, on some phones.
window.visualViewport?.addEventListener('resize', () => {
  const { height, scale } = window.visualViewport, covered = scale === 1 && innerHeight - height > 80;
  if (covered) document.documentElement.style.setProperty('--room', height + 'px');
  else document.documentElement.style.removeProperty('--room');
  if (covered) window.scrollTo(0, 0);
});
if (matchMedia('(pointer: fine)').matches) textBox.focus({ preventScroll: true });

drawPending();
drawEdges();
connect();

})();
