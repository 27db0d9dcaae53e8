// What the page knows of one channel: its messages, how far they go, and what of it was seen. It takes
// what the server says and holds what was written here; it knows nothing of the document.

import { eachIn, skipSpace } from './json.js';
import { sign } from './identity.js';
import { senderOf, timeOf } from './message.js';
import { Fold, isHole } from './operations.js';
import { Outbox } from './outbox.js';
import { givesHistory, isOwn, socketUrl } from './server.js';

const FIRST_LIMIT = 200;    // messages asked for on connect: more than a screen
const RESUME_LIMIT = 10000; // messages missed at most; after more than that the list starts anew
const OLDER_LIMIT = 100;    // messages asked for in addition, to know where one's own are

const toItem = ({ id, data, ts, from }) => ({ id, raw: data, ts: timeOf(ts), from: senderOf(from) });

export class Conversation {
  log = [];               // messages, oldest first, without those that were deleted
  fold = new Fold();      // what operations have made of them
  firstId = 1;            // all lines from this one on were looked at
  editing = null;         // {id, text}: the message that is being edited here
  epoch = undefined;
  lastId = 0;
  isNumbered = false;     // the server gives ids, so a connection can be resumed
  hasHistory = false;     // something was ever received
  needsAll = false;       // everything is to be asked for, once
  isReady = false;        // it is connected, and what there was is here
  unread = 0;             // messages of others that came while one looked elsewhere
  newAfter = null;        // the rule "New messages" stands behind this id; null: nowhere

  place = null;           // the message at the top when it was left, unless it was left at its end

  constructor(name) {
    this.name = name;
    this.url = socketUrl(name);
    this.outbox = new Outbox(this.url.href);
  }

  canLoadOlder() {
    return this.isNumbered && givesHistory();
  }

  // Where to connect: with what has to be asked for.
  address() {
    const url = new URL(this.url), ask = url.searchParams;
    const unsure = this.outbox.sent().filter(entry => entry.epoch);
    if (this.needsAll) {
      this.needsAll = false;
    } else if (this.isNumbered && this.epoch) {
      ask.set('after', this.lastId);
      ask.set('epoch', this.epoch);
      if (givesHistory()) ask.set('limit', RESUME_LIMIT);
    } else if (unsure.length && !this.hasHistory) {
      // Reloaded while a message was on its way: all since then tells whether it arrived.
      ask.set('after', Math.max(0, Math.min(...unsure.map(entry => entry.after)) - OLDER_LIMIT));
      ask.set('epoch', unsure[0].epoch);
    } else if (givesHistory()) {
      ask.set('limit', FIRST_LIMIT);
    }
    // Each message of the history by itself, with its time and its sender.
    ask.set('history', 'each');
    if (isOwn) ask.set('events', 1);
    return sign(url).href;
  }

  // Takes the history on connect, of which `each` are the messages when they came one by one: {items, isRest, isFirst}. With `isRest`, `items` continue what was
  // there, and are in the log; else they are all there is.
  takeHistory({ data, first_id: firstId, last_id: newLast, epoch: newEpoch, resumed, skipped }, each) {
    const { isNumbered: wasNumbered, epoch: oldEpoch, log: old, lastId: oldLast, outbox } = this;
    const isFirst = !this.hasHistory;
    this.isNumbered = Number.isSafeInteger(firstId);
    this.epoch = this.isNumbered ? newEpoch : undefined;
    const noMessage = new Set(Array.isArray(skipped) ? skipped : []);
    let items = [], id = this.isNumbered ? firstId : 1;
    if (each) {
      items = each.map(toItem);
      id = items.length ? items[items.length - 1].id + 1 : id;
    } else {
      eachIn(data, skipSpace(data, 0), (from, to) => {
        while (noMessage.has(id)) id++;
        items.push({ id: id++, raw: data.slice(from, to) });
      });
    }
    this.hasHistory = true;
    this.lastId = this.isNumbered ? Math.max(Number(newLast) || 0, id - 1) : items.length;

    let isRest = false;
    if (this.isNumbered) {
      isRest = resumed === true && wasNumbered && !isFirst && firstId <= oldLast + 1;
      if (isRest) {
        items = items.filter(item => item.id > oldLast);
        this.lastId = Math.max(this.lastId, oldLast);
        outbox.settleNew([], items);
      } else if (isFirst) {
        for (const entry of outbox.sent()) {
          if (entry.epoch === this.epoch) outbox.settleNew([], items.filter(item => item.id > entry.after));
        }
      } else if (oldEpoch === this.epoch && old.length && items.length) {
        const both = item => item.id >= Math.max(old[0].id, items[0].id);
        outbox.settleNew(old.filter(both), items.filter(both));
      }
    } else {
      // A server without ids sends everything each time; mostly what is shown already, and more.
      isRest = !isFirst && !wasNumbered && items.length >= old.length && old.every((item, i) => item.raw === items[i].raw);
      if (isFirst) {
        const after = Math.min(Infinity, ...outbox.sent().map(entry => entry.after));
        outbox.settleNew([], items.filter(item => item.id > after));
      } else {
        outbox.settleNew(isRest ? [] : old, isRest ? items.slice(old.length) : items);
      }
      if (isRest) items = items.slice(old.length);
    }
    if (!isRest) {
      this.newAfter = null;
      this.unread = 0;
    }
    if (!isRest) {
      this.fold = new Fold();
      this.log = [];
      this.firstId = this.isNumbered ? firstId : 1;
    }
    const { messages, touched } = this.sort(items);
    this.log = this.log.concat(messages);
    this.isReady = true;
    return { items: messages, isRest, isFirst, touched };
  }

  // Parts lines into messages and operations: {messages, touched}. `touched` are the ids of the messages
  // that the operations name.
  sort(items) {
    const touched = new Set();
    const rest = this.isNumbered ? items.filter(item => {
      const operation = this.fold.add(item);
      if (operation) touched.add(operation.target);
      return !operation && !isHole(item.raw);
    }) : items;
    const messages = rest.filter(item => !(item.state = this.fold.stateOf(item.id))?.isDeleted);
    return { messages, touched };
  }

  // Puts older lines in front, given with the id before which they stand.
  takeOlder(items, before) {
    const { messages } = this.sort(items);
    this.log = messages.concat(this.log);
    this.firstId = items.length ? Math.min(items[0].id, before) : 1;
    return messages;
  }

  // Forgets the messages before an index of the log; they can be loaded again.
  forget(count) {
    if (count <= 0) return;
    this.log = this.log.slice(count);
    this.firstId = this.log[0]?.id ?? this.lastId + 1;
  }

  // Where a message stands in the log; -1 when it is not there.
  indexOf(id) {
    let low = 0, high = this.log.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.log[middle].id < id) low = middle + 1;
      else high = middle;
    }
    return this.log[low]?.id === id ? low : -1;
  }

  // Takes a live line: {item, isMine} for a message, {item, operation} for an operation, or nothing when
  // it is there already.
  takeLive({ data, id, ts, from }) {
    if (this.isNumbered && Number.isSafeInteger(id)) {
      if (id <= this.lastId) return;
    } else {
      id = this.lastId + 1;
    }
    const item = { id, raw: data, ts: timeOf(ts) ?? Date.now(), from: senderOf(from) };
    if (!this.isNumbered || id > this.lastId) this.lastId = id;
    const operation = this.isNumbered ? this.fold.add(item) : undefined;
    if (operation) return { item, operation };
    this.log.push(item);
    return { item, isMine: this.outbox.settle(item) };
  }
}

// The one that is on the screen.
export let shown = null;
export function show(conversation) { shown = conversation; }
