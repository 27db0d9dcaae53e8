// Operations: lines of the log that change what an earlier message is: edit, delete, react, pin. They are
// recognised as the server does it, and folded into the present state of each message. The server has
// decided about every line of the log, so a line is believed. Lines may come in any order, and twice: an
// operation is kept until the message that it names is loaded. Nothing here knows of the document.

import { eachIn } from './json.js';

const KEY_BYTES = 64;      // of a reaction's key
const WANTED = {
  edit: ['id', 'data'], delete: ['id'], react: ['id', 'key'], unreact: ['id', 'key'], pin: ['id'], unpin: ['id'],
};

// A line that was erased holds no message.
export const isHole = raw => /^null +$/.test(raw);

// The person behind a sender: of a pseudonym, only its letters count, under whatever name.
export const personOf = sender => sender?.slice(Math.max(0, sender.lastIndexOf('~')));

// The operation that a text is: {op, target} and what it says; nothing when it is another message.
export function recognise(raw) {
  if (!/^\{\s*"(\$|\\u)/.test(raw)) return;
  const found = new Map();
  let isTwice = false;
  try {
    eachIn(raw, 0, (start, end, key) => {
      isTwice ||= found.has(key);
      found.set(key, raw.slice(start, end));
    });
    if (isTwice || found.keys().next().value !== '$op') return;
    const op = JSON.parse(found.get('$op')), wanted = Object.hasOwn(WANTED, op) ? WANTED[op] : [];
    const id = found.get('id') ?? '', target = Number(id);
    if (!wanted.length || found.size !== wanted.length + 1 || !wanted.every(key => found.has(key))) return;
    if (!/^[0-9]+$/.test(id) || target < 1 || !Number.isSafeInteger(target)) return;
    if (op === 'edit') return { op, target, data: found.get('data') };
    if (!found.has('key')) return { op, target };
    const key = JSON.parse(found.get('key'));
    if (typeof key === 'string' && isKey(key)) return { op, target, key };
  } catch { /* it is no JSON of that kind */ }
}

// Whether the server takes this as the key of a reaction.
export function isKey(key) {
  const bytes = new TextEncoder().encode(key).length;
  return bytes > 0 && bytes <= KEY_BYTES && !/[\p{Cc}\p{Cs}]/u.test(key);
}

export class Fold {
  #operations = new Map(); // id of a message → its operations, oldest first
  #states = new Map();     // id of a message → its state, as long as nothing changes it

  // Takes a line {id, raw, ts, from}: the operation that it is, or nothing when it is a message.
  add({ id, raw, ts, from }) {
    const operation = recognise(raw);
    if (!operation) return;
    const { target } = operation;
    if (target >= id) return operation;
    const list = this.#operations.get(target) ?? [];
    let at = list.length;
    while (at > 0 && list[at - 1].id > id) at--;
    if (at > 0 && list[at - 1].id === id) return operation;
    list.splice(at, 0, { ...operation, id, ts, from });
    this.#operations.set(target, list);
    this.#states.delete(target);
    return operation;
  }

  // What a message is: {isDeleted, edit: {data, ts}, reactions: key → senders, isPinned}; nothing when no
  // operation names it.
  stateOf(target) {
    const list = this.#operations.get(target);
    if (!list) return;
    let state = this.#states.get(target);
    if (!state) this.#states.set(target, state = fold(list));
    return state;
  }
}

function fold(list) {
  const state = { isDeleted: false, edit: undefined, reactions: new Map(), isPinned: false };
  // key and person → {id, key, from}: the first of several equal reactions counts.
  const reactions = new Map();
  for (const { op, id, data, key, ts, from } of list) {
    const who = JSON.stringify([key, personOf(from)]);
    if (op === 'delete') return { ...state, isDeleted: true, edit: undefined, isPinned: false };
    if (op === 'edit') state.edit = { data, ts };
    else if (op === 'pin') state.isPinned = true;
    else if (op === 'unpin') state.isPinned = false;
    else if (op === 'unreact') reactions.delete(who);
    else if (from !== undefined && !reactions.has(who)) reactions.set(who, { id, key, from });
  }
  for (const { key, from } of [...reactions.values()].sort((a, b) => a.id - b.id)) {
    if (!state.reactions.has(key)) state.reactions.set(key, []);
    state.reactions.get(key).push(from);
  }
  return state;
}
