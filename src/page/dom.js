// What all parts of the page need of the document, of words for numbers, and of the browser's memory.

export const $ = id => document.getElementById(id);

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

export function button(className, text, onclick) {
  const element = make('button', className, text);
  element.type = 'button';
  element.onclick = onclick;
  return element;
}

// With a mouse, one types next; on a phone a focus would bring up the keyboard.
export const hasMouse = () => matchMedia('(pointer: fine)').matches;

const number = new Intl.NumberFormat();
export const roughly = new Intl.NumberFormat('en', { notation: 'compact' });
export const counted = (n, noun) => `${number.format(n)} ${noun}${n === 1 ? '' : 's'}`;

// Storage may be forbidden or full: then the page remembers less and works the same.
export function remember(area, key, value) {
  try { window[area].setItem('txtcord ' + key, value); } catch { /* see above */ }
}
export function recall(area, key) {
  try { return window[area].getItem('txtcord ' + key) || ''; } catch { return ''; }
}
