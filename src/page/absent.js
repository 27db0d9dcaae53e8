// What stands in place of the messages when the address names no channel that is there.

import { make, NAME_RULE } from './channels.js';
import { $, button } from './dom.js';
import { visible } from './json.js';
import { DEFAULT } from './server.js';

const LONGEST = 80; // characters of an address that are shown

export function hideAbsent() {
  $('Absent').hidden = true;
}

// `why` is 'malformed' (no channel can be called so), 'unknown' (none is) or 'gone' (it was put away).
export function showAbsent(why, name) {
  const [title, text] = {
    malformed: ['That is no channel', `“${visible(name.slice(0, LONGEST))}” cannot be its name. ${NAME_RULE}`],
    unknown: [`There is no channel #${name}`, 'It may have another name, or nobody has made it yet.'],
    gone: [`#${name} is not there any more`, 'Somebody has put this channel away.'],
  }[why];
  $('Absent').firstElementChild.textContent = title;
  const words = $('Absent').querySelector('p');
  words.textContent = text;
  const home = button('', `Go to #${DEFAULT}`, () => { location.hash = DEFAULT; });
  const create = button('', `Create #${name}`, async () => {
    create.disabled = true;
    words.textContent = await make(name) ?? text;
    create.disabled = false;
  });
  $('Absent').lastElementChild.replaceChildren(home, ...(why === 'unknown' ? [create] : []));
  $('Absent').hidden = false;
}
