// The list of messages: a window of rows over the log of the conversation that is shown.
// log[start..end) is in the document, one row each, at most ROWS. `isStuck`: the last message is in
// sight and stays there.

import { shown } from './conversation.js';
import { $, button, counted, hasMouse, make } from './dom.js';
import { dayName, drawMessage, midnight } from './draw.js';
import { drawPending } from './pending.js';
import { fields } from './identity.js';
import { givesHistory, messagesBefore } from './server.js';

const ROWS = 240;          // rows in the document at most: some screens, and cheap to lay out
const STEP = 60;           // rows added at a time when scrolling
const NEAR = 800;          // px from an edge of the rows at which the next STEP is added
const OLDER_LIMIT = 100;   // messages asked for when scrolling up
const KEPT = 20000;        // messages kept in memory when the server can give them again
const KEPT_ASIDE = 200;    // messages kept of a conversation that is left at its end
const ABOVE_NEW = 40;      // px in sight above the first new message

// Set by chat.js: what is unread may have changed; everything has to be asked for anew.
// Also: a message is drawn anew, or gone.
export const on = { change() {}, needAll() {}, redrawn(_item) {} };

const scroller = $('Scroll'), list = $('Log');
let start = 0, end = 0, isStuck = true, isArriving = false, lastTop = 0;
let frame = 0, isLoading = false, olderFailed = false, drawnDay = 0;

// ---- Rows ----------------------------------------------------------------------------------

// The day of the last message before index i whose time is known, looking back a little.
function dayBefore(i) {
  for (let j = i - 1; j >= 0 && j > i - ROWS; j--) {
    if (shown.log[j].ts !== undefined) return midnight(shown.log[j].ts);
  }
}

// Whether the first new message is the one at index i.
function isMarked(i) {
  const { log, newAfter } = shown;
  if (newAfter === null || log[i].id <= newAfter) return false;
  return i > 0 ? log[i - 1].id <= newAfter : shown.firstId <= newAfter + 1;
}

function drawRow(i) {
  const item = shown.log[i], row = make('div', 'row');
  const day = item.ts === undefined ? undefined : midnight(item.ts);
  const isNewDay = day !== undefined && day !== dayBefore(i), isNew = isMarked(i);
  if (isNewDay) row.append(make('div', 'rule', dayName(day)));
  if (isNew) row.append(make('div', 'rule new', 'New messages'));
  row.append(drawMessage(item, shown.log[i - 1], isNewDay || isNew, resize));
  item.row = row;
  markEdited(item);
  return row;
}

// Marks the message whose text is in the box, so that one sees which it is, and no other.
function markEdited({ id, row }) {
  row.classList.toggle('editing', shown.editing?.id === id);
}
export const showEdited = () => shown.log.slice(start, end).forEach(markEdited);

function rowsOf(from, to) {
  const rows = document.createDocumentFragment();
  for (let i = from; i < to; i++) rows.append(drawRow(i));
  return rows;
}

function undraw(from, to) {
  for (let i = from; i < to; i++) {
    shown.log[i].row?.remove();
    shown.log[i].row = null;
  }
}

function redraw(i) {
  if (i >= start && i < end) shown.log[i].row.replaceWith(drawRow(i));
}

// Draws what an operation has changed: a message, which may be gone, and the one below it.
function refresh(id) {
  const i = shown.indexOf(id);
  if (i < 0) return;
  const item = shown.log[i];
  item.state = shown.fold.stateOf(id);
  item.view = undefined;
  const focus = item.row?.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  quietly(() => keepPlace(() => {
    if (item.state?.isDeleted) {
      item.row?.remove();
      item.row = null;
      if (shown.unread && item.id > shown.newAfter) shown.unread--;
      shown.log.splice(i, 1);
      if (i < start) start--;
      if (i < end) end--;
      redraw(i);
    } else {
      redraw(i);
      redraw(i + 1);
    }
  }));
  if (focus !== undefined) [...(item.row?.querySelectorAll('[data-key]') ?? [])].find(e => e.dataset.key === focus)?.focus({ preventScroll: true });
  if (isStuck) toBottom();
  on.redrawn(item);
}

// The message that an element of the list belongs to, and the ones beside it in the document.
export function itemAt(element) {
  const row = element.closest('#Log .row');
  return row ? shown.log.slice(start, end).find(item => item.row === row) : undefined;
}
export function beside(item, step) {
  const i = shown.log.indexOf(item) + step;
  return i >= start && i < end ? shown.log[i] : undefined;
}
export const lastDrawn = () => (end > start ? shown.log[end - 1] : undefined);

// Readers of screens hear what is said now, not what is drawn because someone scrolls.
let quietTimer = 0;
function quietly(work) {
  list.setAttribute('aria-live', 'off');
  clearTimeout(quietTimer);
  quietTimer = setTimeout(() => list.setAttribute('aria-live', 'polite'), 300);
  work();
}

// The first message in sight, and how far below the edge it begins.
function topInSight() {
  const top = scroller.getBoundingClientRect().top;
  for (let i = start; i < end; i++) {
    const rect = shown.log[i].row.getBoundingClientRect();
    if (rect.bottom > top) return { item: shown.log[i], offset: rect.top - top };
  }
}

function putAt({ item, offset }) {
  if (!item.row) return;
  const moved = item.row.getBoundingClientRect().top - scroller.getBoundingClientRect().top - offset;
  if (moved) scroller.scrollTop += moved;
}

// Does the work without moving what is in sight. (Not every browser anchors scrolling itself.)
function keepPlace(work) {
  const place = topInSight();
  work();
  if (place) putAt(place);
}

function resize(work, then) {
  keepPlace(work);
  then();
  onScroll();
}

function toBottom() {
  isStuck = true;
  scroller.scrollTop = scroller.scrollHeight;
  lastTop = scroller.scrollTop;
}

// Draws the rows before index i and nothing else.
function drawBefore(i) {
  quietly(() => {
    for (const item of shown.log.slice(start, end)) item.row = null;
    list.textContent = '';
    end = Math.min(shown.log.length, i);
    start = Math.max(0, end - ROWS / 2);
    drawnDay = midnight(Date.now());
    list.append(rowsOf(start, end));
  });
}

function drawAll() {
  drawBefore(shown.log.length);
  toBottom();
  drawEdges();
}

// Who one is has changed: what is one's own is drawn as that.
export function redrawAll() {
  if (end > start) redrawWindow();
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
  const to = Math.min(shown.log.length, end + STEP);
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
  const { log } = shown, fresh = log.length - end;
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
  drawPending(resize);
  if (isStuck) toBottom();
  drawEdges();
}

export const drawSoon = () => { frame ||= requestAnimationFrame(drawLive); };

// Old messages can be loaded again, if the server has a way; then memory need not grow for ever.
function forgetOld() {
  if (!shown.canLoadOlder() || shown.log.length < 2 * KEPT) return;
  const gone = Math.min(start, shown.log.length - KEPT);
  shown.forget(gone);
  start -= gone, end -= gone;
}

// ---- What is not a message: the edges of the list, the count, the button -------------------

export function drawEdges() {
  const { log, hasHistory, isNumbered, firstId, unread, outbox: { entries } } = shown;
  // Which of the older lines are messages, and not edits or reactions, is known once they are loaded.
  const older = isNumbered ? firstId - 1 : 0, most = older + log.length;
  const hidden = log.length - end, hasMore = start > 0 || older > 0;
  $('Count').textContent = hasHistory && most ? (older ? 'about ' : '') + counted(most, 'message') : '';
  $('Empty').hidden = !hasHistory || most > 0 || entries.length > 0;
  $('Top').hidden = !$('Empty').hidden;
  $('Pending').hidden = !entries.length || hidden > 0;
  const top = $('Top');
  const wanted = olderFailed ? 'retry' : isLoading ? 'Loading older messages…'
    : hasMore || !log.length ? '' : 'This is where it all begins.';
  if (top.dataset.shows !== wanted) {
    top.dataset.shows = wanted;
    top.textContent = wanted === 'retry' ? 'Older messages could not be loaded. ' : wanted;
    if (wanted === 'retry') top.append(button('more', 'Try again', () => { olderFailed = false; loadOlder(); }));
  }
  const far = hidden > 0 || belowSight() > 300;
  const jump = $('Jump');
  const isIdle = isStuck || !(far || unread);
  if (isIdle && document.activeElement === jump) scroller.focus({ preventScroll: true });
  jump.hidden = isIdle;
  jump.classList.toggle('unread', unread > 0);
  jump.textContent = unread ? `↓  ${counted(unread, 'new message')}` : '↓  Latest messages';
  on.change();
}

// Whether somebody looks, and it is known where one stands.
const isLooking = () => !document.hidden && !isArriving;
// Whether somebody sees the last message, and with it all before.
const isAtEnd = () => isStuck && isLooking();
// Whether somebody has seen all messages: what came since were operations.
export const isAllSeen = () => isLooking() && (isStuck || !shown.unread);

// How far what is in sight is from the end, in px.
const belowSight = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;

function onScroll() {
  const { scrollTop } = scroller, below = belowSight();
  isStuck = below < (scrollTop < lastTop ? 2 : 48) && end === shown.log.length;
  lastTop = scrollTop;
  if (isAtEnd()) shown.unread = 0;
  if (scroller.scrollTop < NEAR) {
    if (start > 0) addAbove();
    if (start === 0 && scroller.scrollTop < NEAR) loadOlder();
  }
  if (below < NEAR && end < shown.log.length) addBelow();
  drawEdges();
}

export function jumpToLatest() {
  shown.unread = 0;
  if (end < shown.log.length) drawAll();
  toBottom();
  drawEdges();
}

let scrollFrame = 0;
scroller.addEventListener('scroll', () => {
  // Who goes up is not taken back by a message that comes in the same moment. A list that has got higher, as
  // when a draft is cleared, is further up and still at its end.
  if (scroller.scrollTop < lastTop && belowSight() >= 2) isStuck = false;
  scrollFrame ||= requestAnimationFrame(() => { scrollFrame = 0; onScroll(); });
}, { passive: true });
scroller.addEventListener('keydown', event => {
  if (event.key === 'End' && !event.altKey && !event.ctrlKey && !event.metaKey) { event.preventDefault(); jumpToLatest(); }
});
new ResizeObserver(() => { if (isStuck) toBottom(); }).observe(scroller);
$('Jump').onclick = () => { jumpToLatest(); (hasMouse() ? $('Text') : scroller).focus({ preventScroll: true }); };
document.addEventListener('visibilitychange', () => {
  if (document.hidden) return;
  if (isStuck) shown.unread = 0;
  drawEdges();
});

// ---- From one conversation to another -------------------------------------------------------

// Leaves the conversation, so that one finds it again as it was left.
export function leave() {
  const { log, unread } = shown;
  shown.place = isStuck ? null : topInSight();
  if (!unread) shown.newAfter = null;
  for (const item of log.slice(start, end)) item.row = null;
  if (shown.canLoadOlder()) shown.forget(isStuck ? log.length - KEPT_ASIDE : start);
  list.textContent = '';
  start = end = 0;
}

// Shows a conversation as it was left, until its connection says what came since.
export function enter() {
  start = end = 0;
  olderFailed = false;
  const { log, place } = shown;
  isStuck = !place;
  drawBefore(place ? log.indexOf(place.item) + ROWS / 4 : log.length);
  drawPending(resize);
  drawEdges();
  if (place) putAt(place);
  else toBottom();
  shown.place = null;
}

// Goes to the first message that was not seen, unless all of them are in sight at the end.
function goToNew(lastSeen) {
  const first = shown.log.findIndex(item => item.id > lastSeen);
  if (first < 0) return;
  mark(lastSeen);
  // Before it there are more than a page begins with: then one begins at the end.
  if (!isMarked(first)) return;
  shown.unread = shown.log.length - first;
  drawBefore(first + ROWS / 4);
  toBottom();
  const rule = shown.log[first].row.querySelector('.rule.new');
  const gap = rule.getBoundingClientRect().top - scroller.getBoundingClientRect().top;
  isStuck = gap >= 0 && end === shown.log.length;
  if (!isStuck) scroller.scrollTop += gap - ABOVE_NEW;
}

// Puts the rule "New messages" behind an id, or away.
export function mark(newAfter) {
  const before = shown.newAfter;
  shown.newAfter = newAfter;
  if (before === null) return;
  const old = shown.log.findIndex(item => item.id > before);
  if (old >= 0) redraw(old);
}

// ---- What the server says ------------------------------------------------------------------

// What there is on connect. `lastSeen`, when the conversation was just opened: the last id that was
// read; null or 0 when there is none.
export function takeHistory({ items, isRest, touched }, lastSeen) {
  // Until it is known where one stands, nothing counts as seen.
  isArriving = true;
  if (isRest) {
    if (items.length && (document.hidden || !isStuck)) {
      if (shown.unread === 0) mark(items[0].id - 1);
      shown.unread += items.length;
    }
    drawLive();
    for (const id of touched) refresh(id);
  } else {
    start = end = 0;
    olderFailed = false;
    drawAll();
  }
  drawPending(resize);
  if (isStuck) toBottom();
  if (isStuck && lastSeen) goToNew(lastSeen);
  isArriving = false;
  onScroll();
}

export function takeLive({ item, isMine, operation }) {
  if (operation) {
    // What was not drawn yet is drawn as it is now.
    if (frame) drawLive();
    refresh(operation.target);
    if (document.hidden) drawEdges();
    return drawSoon();
  }
  if (!isAtEnd() && !isMine) {
    if (shown.unread++ === 0) mark(item.id - 1);
    if (document.hidden) drawEdges();
  }
  drawSoon();
}

// ---- Older messages, by HTTP -----------------------------------------------------

async function loadOlder() {
  const room = shown;
  if (isLoading || olderFailed || !room.canLoadOlder() || !room.hasHistory || room.firstId <= 1) return;
  isLoading = true;
  drawEdges();
  const before = room.firstId;
  try {
    const items = await messagesBefore(room.name, before, OLDER_LIMIT, fields());
    if (shown !== room || room.firstId !== before) return; // rebuilt, shortened or left meanwhile
    const { length } = room.takeOlder(items, before);
    start += length, end += length;
    // It may belong to the person above it now.
    quietly(() => keepPlace(() => redraw(length)));
    // Where all before were operations, these are the first messages to be seen.
    if (length === room.log.length) drawAll();
  } catch (error) {
    console.warn(error);
    if (room === shown) failed();
  } finally {
    isLoading = false;
    onScroll();
  }
}

function failed() {
  if (givesHistory()) {
    olderFailed = true;
  } else if (shown.firstId > 1) {
    // Only the socket can give old messages: all of them, then.
    shown.needsAll = true;
    on.needAll();
  }
}
