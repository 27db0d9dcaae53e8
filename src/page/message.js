// What a message says. An item is {id, raw, ts, from}: its text as it was written, and when it was accepted
// and who its verified sender is, where that is known.
// `view`, what is read out of it, is kept in it; `isOpen` and `row` are for whoever draws it.

export const timeOf = ts => (typeof ts === 'number' && Math.abs(ts) <= 8.64e15 ? ts : undefined);
export const senderOf = from => (typeof from === 'string' && from ? from : undefined);

export function viewOf(item) {
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
export const keyOf = item => {
  const { name, text, isChat } = viewOf(item);
  return isChat ? JSON.stringify([name, text]) : null;
};
