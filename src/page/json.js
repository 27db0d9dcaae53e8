// JSON as it was written: messages are cut out of frames as text, without parsing, so that 1.10 stays
// 1.10, a 30-digit number keeps its digits, and depth costs no stack. Broken input throws; callers
// catch.

const DEEP = 60; // what is nested deeper than this is shown as it came

const QUOTE = 34, COMMA = 44, COLON = 58, BACKSLASH = 92;
const isOpening = code => code === 91 || code === 123;
const isClosing = code => code === 93 || code === 125;

export function skipSpace(s, i) {
  for (;; i++) {
    const code = s.charCodeAt(i);
    if (code !== 32 && code !== 10 && code !== 13 && code !== 9) return i;
  }
}

function skipString(s, i) {
  for (let end = i;;) {
    end = s.indexOf('"', end + 1);
    if (end < 0) throw new SyntaxError('string without an end');
    let slash = end;
    while (s.charCodeAt(slash - 1) === BACKSLASH) slash--;
    if ((end - slash) % 2 === 0) return end + 1;
  }
}

// The index after the value that starts at i; throws when it is longer than `most`.
function skipValue(s, i, most = Infinity) {
  const limit = Math.min(s.length, i + most);
  let depth = 0;
  for (let at = i; at < limit;) {
    const code = s.charCodeAt(at);
    if (code === QUOTE) {
      at = skipString(s, at);
    } else if (isOpening(code)) {
      depth++, at++;
    } else if (isClosing(code)) {
      depth--, at++;
    } else {
      at++;
      if (depth > 0) continue;
      for (let next; at < limit && (next = s.charCodeAt(at)) !== COMMA && !isClosing(next) && next > 32;) at++;
    }
    if (depth <= 0 && at <= limit) return at;
  }
  throw new SyntaxError('value without an end');
}

// Calls visit(start, end) for each element of the array at i, or visit(start, end, key) for each
// member of the object at i.
export function eachIn(s, i, visit) {
  const isObject = s[i] === '{', last = isObject ? '}' : ']';
  if (!isObject && s[i] !== '[') throw new SyntaxError('neither an array nor an object');
  let at = skipSpace(s, i + 1), key;
  if (s[at] === last) return;
  for (;;) {
    if (isObject) {
      const end = skipString(s, at);
      key = JSON.parse(s.slice(at, end));
      at = skipSpace(s, end);
      if (s.charCodeAt(at) !== COLON) throw new SyntaxError('no colon');
      at = skipSpace(s, at + 1);
    }
    const end = skipValue(s, at);
    visit(at, end, key);
    at = skipSpace(s, end);
    if (s[at] === last) return;
    if (s.charCodeAt(at) !== COMMA) throw new SyntaxError('no comma');
    at = skipSpace(s, at + 1);
  }
}

// A frame or a line of /messages: its members parsed, but for `data`, which stays text.
export function members(s) {
  const found = Object.create(null);
  eachIn(s, skipSpace(s, 0), (start, end, key) => {
    const raw = s.slice(start, end);
    found[key] = key === 'data' ? raw : JSON.parse(raw);
  });
  return found;
}

// Characters that draw nothing or turn others around are shown as the escapes that JSON has.
export const visible = text => text.replace(/[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
  c => '\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'));

// Lays out JSON text without changing a token; stops after about `most` characters.
export function pretty(raw, most) {
  let out = '', depth = 0, inlineUntil = 0;
  const line = () => '\n' + '  '.repeat(depth);
  for (let at = skipSpace(raw, 0); at < raw.length && out.length <= most; at = skipSpace(raw, at)) {
    const code = raw.charCodeAt(at), inline = at < inlineUntil;
    if (isOpening(code)) {
      if (++depth > DEEP) return raw.slice(0, most + 1);
      if (!inline) {
        try { inlineUntil = skipValue(raw, at, 64); } catch { /* too long for one line */ }
      }
      out += raw[at++];
      const next = skipSpace(raw, at);
      if (isClosing(raw.charCodeAt(next))) {
        depth--, out += raw[next], at = next + 1;
      } else if (at > inlineUntil) {
        out += line();
      }
    } else if (isClosing(code)) {
      depth--;
      out += (inline ? '' : line()) + raw[at++];
    } else if (code === COMMA || code === COLON) {
      out += raw[at++] + (code === COMMA && !inline ? line() : ' ');
    } else {
      const end = skipValue(raw, at);
      out += raw.slice(at, Math.min(end, at + most + 1));
      at = end;
    }
  }
  return out;
}
