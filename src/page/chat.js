// The chat page: what happens in one part of it, and what the others do then. It alone knows all parts;
// each of them says with its `on` what it cannot do itself.

import * as composer from './composer.js';
import * as connection from './connection.js';
import { Conversation, show, shown } from './conversation.js';
import { hasMouse } from './dom.js';
import * as pending from './pending.js';
import { DEFAULT } from './server.js';
import * as status from './status.js';
import * as timeline from './timeline.js';

connection.on.history = timeline.takeHistory;
connection.on.live = timeline.takeLive;
connection.on.outbox = timeline.drawSoon;

timeline.on.needAll = connection.connect;
timeline.on.change = () => {
  const { unread } = shown;
  document.title = unread ? `(${unread > 99 ? '99+' : unread}) txtcord` : 'txtcord';
};

composer.on.say = (name, text) => {
  shown.outbox.add(name, text);
  timeline.mark(null);
  connection.flush();
  timeline.jumpToLatest();
  timeline.drawSoon();
};

pending.on.retry = entry => {
  Object.assign(entry, { state: 'queued', sends: 0 });
  shown.outbox.save();
  connection.flush();
  timeline.drawSoon();
};
pending.on.edit = entry => composer.write(entry.text);
pending.on.drop = () => { timeline.drawSoon(); composer.focusOnText(); };

status.on.retry = () => { connection.connect(); composer.focusOnText(); };
status.on.dismiss = composer.focusOnText;

window.addEventListener('beforeunload', event => { if (shown.outbox.entries.length) event.preventDefault(); });

show(new Conversation(DEFAULT));
composer.takeDraft();
if (hasMouse()) composer.focusOnText();
timeline.drawSoon();
connection.connect();
