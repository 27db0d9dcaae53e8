// What stands in place of the messages when the address names no channel that is there.

import { make, NAME_RULE } from './channels.js';
import { $, button } from './dom.js';
import { open as openIdentity } from './identity.js';
import { visible } from './json.js';
import { DEFAULT } from './server.js';

const LONGEST = 80; // characters of an address that are shown

export function hideAbsent() {
  $('Absent').hidden = true;
}

// `why` is 'malformed' (no channel can be called so), 'unknown' (none is, or one may not know of it),
// 'gone' (it was put away, or one may not read it any more) or 'closed' (one may not read the default one,
// which is always there).
export function showAbsent(why, name) {
  const [title, text] = {
    malformed: ['That is no channel', `“${visible(name.slice(0, LONGEST))}” cannot be its name. ${NAME_RULE}`],
    unknown: [`There is no channel #${name}`, 'It may have another name, or nobody has made it yet.'],
    gone: [`#${name} is not there any more`, 'Somebody has put this channel away, or taken back the right to read it.'],
    closed: ['This chat is not open to everybody', 'Its operator gives out tokens to those who may read it.'],
  }[why];
  $('Absent').firstElementChild.textContent = title;
  const words = $('Absent').querySelector('p');
  words.textContent = text;
  const home = button('', `Go to #${DEFAULT}`, () => { location.hash = DEFAULT; });
  const create = button('making', `Create #${name}`, async () => {
    create.disabled = true;
    words.textContent = await make(name) ?? text;
    create.disabled = false;
  });
  const secret = button('', 'Use a token', () => openIdentity(true));
  const ways = { malformed: [home], unknown: [home, create], gone: [home], closed: [secret] };
  $('Absent').lastElementChild.replaceChildren(...ways[why]);
  $('Absent').hidden = false;
}
