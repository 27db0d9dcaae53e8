// What a tab of the browser shows of the page: its title, and an icon that has a dot when something is
// unread.

import { short } from './sidebar.js';

const icon = document.querySelector('link[rel=icon]'), plain = icon.href;
const dotted = plain.replace('%3C/svg%3E', "%3Ccircle cx='24' cy='8' r='8' fill='%23e5484d' stroke='%23fff' stroke-width='2'/%3E%3C/svg%3E");

export function drawTitle(name, unread) {
  const title = (unread ? `(${short(unread)}) ` : '') + (name ? `#${name} – ` : '') + 'txtcord';
  if (document.title !== title) document.title = title;
  const wanted = unread ? dotted : plain;
  if (icon.href !== wanted) icon.href = wanted;
}
