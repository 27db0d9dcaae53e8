// What was written here in one channel and has not come back. An entry leaves the outbox when it is
// seen among the server's messages, or when a person drops it, and only then.
//
// An entry is {raw, key, name, text, ts, state, sends, after, epoch, why}. state: 'queued' (not given to
// a connection), 'sent' (given to one; may or may not have arrived), 'failed' (waits for a person).

import { recall, remember } from './dom.js';
import { keyOf } from './message.js';

const keyAt = address => 'outbox ' + address;

// Whether a page that is gone has left something in one.
export const isLeftAt = address => !['', '[]'].includes(recall('sessionStorage', keyAt(address)));

export class Outbox {
  constructor(address) {
    this.key = keyAt(address);
    this.entries = [];
    try { this.entries = JSON.parse(recall('sessionStorage', this.key) || '[]'); } catch { /* not ours */ }
  }

  save() {
    remember('sessionStorage', this.key, JSON.stringify(this.entries));
  }

  add(name, text) {
    const raw = JSON.stringify({ user: name, content: text }), key = JSON.stringify([name, text]);
    this.entries.push({ raw, key, name, text, ts: Date.now(), state: 'queued', sends: 0 });
    this.save();
  }

  drop(entry) {
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.save();
  }

  sent() {
    return this.entries.filter(entry => entry.state === 'sent');
  }

  fail(entry, why) {
    Object.assign(entry, { state: 'failed', why });
    this.save();
  }

  // Takes out the entry that this message answers; false if it is someone else's.
  settle(item) {
    if (!this.sent().length) return false;
    const key = keyOf(item);
    const found = this.entries.find(entry => entry.state === 'sent' && entry.key === key);
    if (found) this.drop(found);
    return !!found;
  }

  // After a reconnect: settles those of `now` that are more than there were in `before`.
  settleNew(before, now) {
    if (!this.sent().length) return;
    const known = new Map();
    for (const item of before) known.set(keyOf(item), (known.get(keyOf(item)) || 0) + 1);
    for (const item of now) {
      const times = known.get(keyOf(item)) || 0;
      if (times > 0) known.set(keyOf(item), times - 1);
      else this.settle(item);
    }
  }
}
