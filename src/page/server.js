// Where the server is, and what it gives by HTTP: older messages.

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

// Where a channel's chat is.
export function socketUrl(name) {
  const url = new URL(named ?? '/ws', here);
  if (!named) url.protocol = here.protocol === 'https:' ? 'wss:' : 'ws:';
  if (name !== DEFAULT) url.pathname = `/${name}/ws`;
  return url;
}

// Whether the server gives old messages by HTTP, as far as is known.
let hasHistory = isOwn;
export const givesHistory = () => hasHistory;

// The last messages of a channel before an id, oldest first.
export async function messagesBefore(name, id, limit, fields) {
  const answer = await fetch(`/${name}?before=${id}&limit=${limit}`, {
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
