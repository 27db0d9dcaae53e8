// Where the server is, and what it gives and does by HTTP: older messages, pinned ones, operations.

import { members } from './json.js';
import { senderOf, timeOf } from './message.js';

// The channel that is always there.
export const DEFAULT = 'messages';

// A page that something else serves on this computer may name its server:
// ?server=ws://127.0.0.1:8000/ws. Anywhere else a link could lure people with it.
const here = new URL(location.href);
const named = (() => {
  const isLocal = url => /^(localhost|127\.0\.0\.1|\[::1\])$/.test(url.hostname);
  try {
    const url = new URL(here.searchParams.get('server'));
    if (isLocal(here) && isLocal(url) && /^wss?:$/.test(url.protocol)) return url;
  } catch { /* none named */ }
})();
export const isOwn = !named || named.host === here.host;

// Where a channel's chat is. A proxy may have the page in a folder of its own, so this and all else that a
// page asks for stands beside it, wherever that is.
export function socketUrl(name) {
  const url = new URL(named ?? './ws', here);
  if (!named) url.protocol = here.protocol === 'https:' ? 'wss:' : 'ws:';
  if (name !== DEFAULT) url.pathname = url.pathname.replace(/[^/]*$/, `${name}/ws`);
  return url;
}

// Whether the server gives old messages by HTTP, as far as is known.
let hasHistory = isOwn;
export const givesHistory = () => hasHistory;

// The last messages of a channel before an id, oldest first.
export async function messagesBefore(name, id, limit, fields) {
  const answer = await fetch(`./${name}?before=${id}&limit=${limit}`, {
    headers: { Accept: 'application/x-ndjson', ...fields }, credentials: 'same-origin', signal: AbortSignal.timeout?.(30e3),
  });
  const isLines = /ndjson|jsonl/.test(answer.headers.get('content-type') || '');
  // Another server than ours; a channel of ours may just be gone.
  const isMissing = name === DEFAULT && (answer.status === 404 || answer.status === 405);
  if (isMissing || (answer.ok && !isLines)) hasHistory = false;
  if (!answer.ok || !isLines) throw new Error(`/${name} answered ${answer.status}`);
  const items = [];
  for (const line of (await answer.text()).split('\n')) {
    try {
      const { id: found, ts, from, data } = members(line);
      if (found < id && data !== undefined) items.push({ id: found, raw: data, ts: timeOf(ts), from: senderOf(from) });
    } catch { /* an empty or broken line costs only itself */ }
  }
  return items.sort((a, b) => a.id - b.id);
}

// What a refusal means to a person who has pressed a button.
const WORDS = {
  forbidden: 'You may not do this.',
  no_such_message: 'This message is not there any more.',
  too_many: 'This message has as many different reactions as it may have. Take one of these.',
  rate_limited: 'That was too fast. Wait a moment and try again.',
  storage_full: 'The server has no room left.',
  shutting_down: 'The server is stopping. Try again soon.',
  bad_operation: 'The server does not take this.',
};

// Has the server do an operation, given as text. Undefined when it is done, else a sentence about why it is
// not. `signed` is what identity.js makes of the path.
export async function operate([address, fields], operation) {
  try {
    const answer = await fetch(address, {
      method: 'POST', body: operation, headers: { 'Content-Type': 'application/json', ...fields }, signal: AbortSignal.timeout?.(30e3),
    });
    if (answer.ok) return;
    const text = (await answer.text()).trim();
    let error = {};
    try { error = JSON.parse(text); } catch { /* a sentence */ }
    if (answer.status === 429) error.code = 'rate_limited';
    if (answer.status === 413) return 'It is too long for this server.';
    return WORDS[error.code] ?? (String(error.message ?? text).slice(0, 300) || `The server answered ${answer.status}.`);
  } catch (error) {
    console.warn(error);
    return 'The server cannot be reached now. Try again when it is back.';
  }
}

// The messages of a channel that are pinned, as they are now.
export async function pinnedIn(name, fields) {
  const answer = await fetch(`./${name}?pinned=1`, { headers: fields, signal: AbortSignal.timeout?.(30e3) });
  if (!answer.ok) throw new Error(`/${name} answered ${answer.status}`);
  return (await answer.text()).split('\n').filter(line => line).map(line => {
    const { id, ts, from, data, edited } = members(line);
    const item = { id, raw: data, ts: timeOf(ts), from: senderOf(from) };
    if (edited !== undefined) item.state = { edit: { data, ts: timeOf(edited) }, reactions: new Map(), isPinned: false };
    return item;
  });
}
