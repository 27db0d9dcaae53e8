// The list of the messages that are pinned in the channel that is shown.

import { shown } from './conversation.js';
import { $, button, make } from './dom.js';
import { drawMessage } from './draw.js';
import { fields } from './identity.js';
import { isOwn, pinnedIn } from './server.js';
import { act, mayPin } from './tools.js';

const dialog = $('Pinned'), list = $('PinnedList');

export function offer() {
  $('Pins').hidden = !isOwn || !shown.isNumbered;
}

$('Pins').onclick = () => {
  list.textContent = '';
  draw('Loading…');
  dialog.showModal();
  load();
};

function draw(words) {
  $('PinnedState').textContent = words;
}

// An operation has changed something.
export function refresh() {
  if (dialog.open) load();
}

async function load() {
  const room = shown;
  try {
    const items = await pinnedIn(room.name, fields());
    if (room !== shown) return;
    list.replaceChildren(...items.map(item => {
      const row = make('div', 'row'), message = drawMessage(item, undefined, true, (work, then) => { work(); then(); });
      if (mayPin()) {
        const acts = make('div', 'acts');
        acts.append(button('', 'Unpin', async () => { if (await act(item, 'unpin')) load(); }));
        message.append(acts);
      }
      row.append(message);
      return row;
    }));
    draw(items.length ? '' : 'Nothing is pinned here.');
  } catch (error) {
    console.warn(error);
    draw('The list could not be loaded.');
  }
}
