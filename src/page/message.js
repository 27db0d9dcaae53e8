// What a message says. An item is {id, raw, ts, from}: its text as it was written, and when it was accepted
// and who its verified sender is, where that is known. `state` is what operations have made of it.
// `view`, what is read out of it, is kept in it; `isOpen` and `row` are for the module that draws it.

import { eachIn } from './json.js';

export const timeOf = ts => (typeof ts === 'number' && Math.abs(ts) <= 8.64e15 ? ts : undefined);
export const senderOf = from => (typeof from === 'string' && from ? from : undefined);

// The text that counts: that of the last edit.
export const rawOf = item => item.state?.edit?.data ?? item.raw;

export const viewOf = item => item.view ??= read(rawOf(item));

function read(raw) {
  try {
    const value = raw.startsWith('{') ? JSON.parse(raw) : null;
    const own = key => Object.hasOwn(value, key) && typeof value[key] === 'string' ? value[key] : undefined;
    const name = value && (own('user') ?? own('sender')), text = value && own('content');
    if (typeof name === 'string' && typeof text === 'string') return { name, text, isChat: true };
  } catch { /* not for this parser: shown as it is */ }
  return { name: null, isChat: false };
}

// What tells one's own message from others when it comes back, however the server spells it.
export const keyOf = item => {
  const { name, text, isChat } = read(item.raw);
  return isChat ? JSON.stringify([name, text]) : null;
};

// What a person edits of a message: its text, or all of it when it is not said as people say things.
export const editableOf = item => (viewOf(item).isChat ? viewOf(item).text : rawOf(item));

// The message with another text, and everything else as it was; throws when it is not JSON.
export function edited(item, text) {
  const raw = rawOf(item);
  if (!viewOf(item).isChat) {
    JSON.parse(text);
    return text;
  }
  let start, end;
  // Of several equal keys, the last one counts.
  eachIn(raw, 0, (from, to, key) => { if (key === 'content') { start = from; end = to; } });
  return raw.slice(0, start) + JSON.stringify(text) + raw.slice(end);
}
