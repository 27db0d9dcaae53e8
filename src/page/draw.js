// How one message is drawn: its face, name, time and text, with links; a long one in part. What people
// wrote becomes text nodes, never markup.

import { button, make, roughly } from './dom.js';
import { pretty, visible } from './json.js';
import { rawOf, viewOf } from './message.js';
import { drawState } from './reactions.js';

const CLIP_CHARS = 800, CLIP_LINES = 18;  // what a long message shows before "Show all"
const MAX_LINKS = 200;     // links made in one message; the rest stays text
const PIECE = 16384;       // characters in one text node
const GROUP_MS = 5 * 60e3; // a pause after which a name is shown again

const clock = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' });
const dayNear = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' });
const dayFar = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' });

export const midnight = ts => new Date(ts).setHours(0, 0, 0, 0);
export function dayName(day) {
  const daysAgo = Math.round((midnight(Date.now()) - day) / 864e5);
  if (daysAgo === 0) return 'Today';
  if (daysAgo === 1) return 'Yesterday';
  return (daysAgo > 0 && daysAgo < 300 ? dayNear : dayFar).format(day);
}

export function timeOf({ ts }, className) {
  const time = make('time', className, clock.format(ts));
  time.dateTime = new Date(ts).toISOString();
  time.title = moment.format(ts);
  return time;
}

// The element of a message that stands below `before`. `resize(work, then)` is how it changes its size
// later, when somebody opens or closes it.
export function drawMessage(item, before, isAfterRule, resize) {
  const view = viewOf(item), message = make('div', 'message');
  const isFirst = isAfterRule || !before || viewOf(before).name !== view.name
    || before.from !== item.from || (before.ts === undefined) !== (item.ts === undefined) || item.ts - before.ts > GROUP_MS;
  if (!view.isChat) message.classList.add('json');
  else message.style.setProperty('--hue', hueOf(item.from ?? view.name));
  const [verified, letters] = item.from?.split('~') ?? [];
  // Who has proved a name is shown by it, whatever stands in the message.
  const name = verified ?? (view.isChat ? view.name.slice(0, 200).trim() || 'no name' : 'JSON');
  if (isFirst) {
    message.classList.add('first');
    const face = make('div', 'face', view.isChat ? initialOf(name) : '{ }');
    face.setAttribute('aria-hidden', 'true');
    const who = make('div', 'who'), label = make('span', 'name', name);
    label.dir = 'auto';
    who.append(label);
    if (item.from !== undefined) who.append(markOf(item.from, letters));
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
  drawBody(message, item, view, resize);
  if (item.state) drawState(message, item, timeOf);
  return message;
}

// What marks a verified sender: the letters of a pseudonym, or that it is a name by a token.
function markOf(from, letters) {
  const mark = make('span', letters ? 'mark' : 'mark token', letters ? '~' + letters.slice(0, 4) : '✓');
  mark.title = letters ? `${from}: nobody else can have this name` : `${from}: a name that the operator gave out`;
  mark.append(make('span', 'unseen', letters ? letters.slice(4) + ', verified' : ' verified'));
  return mark;
}

function drawBody(message, item, view, resize) {
  // Twice what is shown: enough to know that there is more.
  const most = item.isOpen ? Infinity : CLIP_CHARS * 2;
  const whole = view.isChat ? view.text : visible(pretty(rawOf(item), most));
  let shown = item.isOpen ? whole : clip(whole);
  const body = make(view.isChat ? 'div' : 'pre', view.isChat ? 'text' : '');
  if (view.isChat) {
    body.dir = 'auto';
    if (/^(\p{Emoji_Presentation}|\p{Extended_Pictographic}\ufe0f|[\u200d\s\u{1f3fb}-\u{1f3ff}]){1,8}$/u.test(shown)) body.classList.add('big');
    addText(body, shown);
  } else {
    body.dir = 'ltr';
    addPieces(body, shown, 0);
  }
  message.append(body);
  if (!item.isOpen && shown === whole) return;
  const size = view.isChat ? view.text.length : rawOf(item).length;
  const more = button('more', item.isOpen ? 'Show less' : `Show all (${roughly.format(size)} characters)`, () => {
    item.isOpen = !item.isOpen;
    resize(() => {
      const state = message.querySelector(':scope > .state');
      for (const part of [body, more]) part.remove();
      drawBody(message, item, view, resize);
      if (state) message.append(state);
    }, () => {
      message.querySelector(':scope > .more')?.focus({ preventScroll: true });
      if (!item.isOpen) message.scrollIntoView({ block: 'nearest' });
    });
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
  addPieces(parent, text, done);
}

// One text node of a million characters is slow to break into lines; pieces are not.
function addPieces(parent, text, from) {
  for (let at = from, end; at < text.length; at = end) {
    end = at + PIECE;
    if (/[\ud800-\udbff]/.test(text[end - 1])) end++; // both halves of a letter go together
    parent.append(text.slice(at, end));
  }
}

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
