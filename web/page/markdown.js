// A small Markdown reader for model output, which is hostile: it may be cut
// anywhere, be of any size and try to be markup. So there are two steps. parse
// turns text into a tree of plain objects; MarkdownView turns the tree into DOM
// nodes of a fixed set of elements. HTML stays visible text, images are never
// loaded, and a link needs an absolute http, https or mailto address.
//
// Every loop here moves forward or is bounded, so that no input takes more than
// time proportional to its length; nesting is cut at MAX_DEPTH.

const MAX_DEPTH = 6;
const MAX_LABEL = 1000;
const MAX_URL = 2000;
const MAX_COLUMNS = 50;

/** Above this many characters text is shown as it is, without Markdown. */
export const MAX_LENGTH = 200_000;

/**
 * Parses Markdown into blocks. Each is {kind, source, …} with the source text it
 * was made from; the kinds are paragraph, heading, code, quote, list, table and
 * rule.
 */
export function parse(text, depth = 0) {
  if (depth >= MAX_DEPTH) return [{ kind: 'paragraph', source: text, inline: [text] }];
  const lines = text.split(/\r\n|\r|\n/);
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at++;
      continue;
    }
    const start = at;
    const [block, next] = readBlock(lines, at, depth);
    at = next;
    blocks.push({ ...block, source: lines.slice(start, at).join('\n') });
  }
  return blocks;
}

function readBlock(lines, at, depth) {
  const line = lines[at];
  const fence = fenceOf(line);
  if (fence) return readCode(lines, at, fence);
  const heading = headingOf(line);
  if (heading) return [heading, at + 1];
  if (isRule(line)) return [{ kind: 'rule' }, at + 1];
  if (isQuote(line)) return readQuote(lines, at, depth);
  if (markerOf(line)) return readList(lines, at, depth);
  if (isTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at);
}

const isBlank = (line) => line.trim() === '';
const indentOf = (line) => line.length - line.trimStart().length;

function fenceOf(line) {
  const match = /^ {0,3}(`{3,}|~{3,})/.exec(line);
  if (!match) return null;
  const info = line.slice(match[0].length);
  if (match[1][0] === '`' && info.includes('`')) return null;
  return { mark: match[1][0], size: match[1].length, language: info.trim().split(/\s/, 1)[0] };
}

function readCode(lines, at, fence) {
  const body = [];
  let i = at + 1;
  for (; i < lines.length; i++) {
    const trimmed = lines[i].trim();
    if (trimmed.length >= fence.size && indentOf(lines[i]) < 4 && trimmed === fence.mark.repeat(trimmed.length)) {
      i++;
      break;
    }
    body.push(lines[i]);
  }
  return [{ kind: 'code', language: fence.language, text: body.join('\n') }, i];
}

function headingOf(line) {
  const match = /^ {0,3}(#{1,6})(?:[ \t](.*))?$/.exec(line);
  if (!match) return null;
  let text = (match[2] ?? '').trim();
  let end = text.length;
  while (end > 0 && text[end - 1] === '#') end--;
  if (end === 0 || /\s/.test(text[end - 1])) text = text.slice(0, end).trim();
  return { kind: 'heading', level: match[1].length, inline: inline(text) };
}

function isRule(line) {
  const mark = line.trimStart()[0];
  if (mark !== '-' && mark !== '*' && mark !== '_') return false;
  const marks = line.replaceAll(/[ \t]/g, '');
  return marks.length >= 3 && marks === mark.repeat(marks.length);
}

const isQuote = (line) => line.trimStart()[0] === '>';

function readQuote(lines, at, depth) {
  const body = [];
  let i = at;
  for (; i < lines.length && isQuote(lines[i]); i++) body.push(lines[i].trimStart().slice(1).replace(/^ /, ''));
  return [{ kind: 'quote', blocks: parse(body.join('\n'), depth + 1) }, i];
}

function markerOf(line) {
  const indent = indentOf(line);
  const match = /^(?:([-*+])|(\d{1,9})[.)])(?:([ \t]+)|$)/.exec(line.slice(indent));
  if (!match || isRule(line)) return null;
  const spaces = match[3]?.length ?? 1;
  return { indent, ordered: match[2] != null, number: Number(match[2] ?? 0), width: match[0].length - (match[3] && spaces > 4 ? spaces - 1 : 0) };
}

// A list is the items of one kind at one indentation; an item takes the lines
// that are indented further, and blank lines when such a line follows.
function readList(lines, at, depth) {
  const first = markerOf(lines[at]);
  const items = [];
  let item = null;
  let i = at;
  let edge = 0;
  for (; i < lines.length; i++) {
    const line = lines[i];
    if (isBlank(line)) {
      item.push('');
      continue;
    }
    const indent = indentOf(line);
    const marker = markerOf(line);
    const sibling = marker && indent < Math.max(first.indent + 2, edge) && marker.ordered === first.ordered;
    if (sibling) {
      item = [line.slice(indent + marker.width)];
      items.push(item);
      edge = indent + marker.width;
    } else if (indent > first.indent && (indent >= edge || !marker)) {
      item.push(line.slice(Math.min(indent, edge)));
    } else if (!marker && item.at(-1) !== '' && !startsBlock(line)) {
      item.push(line.trimStart());
    } else break;
  }
  while (item.length > 1 && item.at(-1) === '') {
    item.pop();
  }
  const kind = { kind: 'list', ordered: first.ordered, start: first.number };
  return [{ ...kind, items: items.map((body) => parse(body.join('\n'), depth + 1)) }, i];
}

const startsBlock = (line) => fenceOf(line) != null || headingOf(line) != null || isRule(line) || isQuote(line);

function isTable(lines, at) {
  if (!lines[at].includes('|') || at + 1 >= lines.length) return false;
  const line = lines[at + 1];
  if (!line.includes('-') || !/^[\s|:-]+$/.test(line)) return false;
  const columns = cellsOf(line);
  return columns.every((cell) => /^:?-+:?$/.test(cell)) && columns.length === cellsOf(lines[at]).length;
}

function cellsOf(line) {
  let text = line.trim();
  if (text.startsWith('|')) text = text.slice(1);
  if (text.endsWith('|') && !text.endsWith('\\|')) text = text.slice(0, -1);
  const cells = [];
  let cell = '';
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '\\' && text[i + 1] === '|') {
      cell += '|';
      i++;
    } else if (text[i] === '|' && cells.length < MAX_COLUMNS - 1) {
      cells.push(cell.trim());
      cell = '';
    } else cell += text[i];
  }
  cells.push(cell.trim());
  return cells;
}

function readTable(lines, at) {
  const head = cellsOf(lines[at]);
  const align = cellsOf(lines[at + 1]).map((cell) => {
    if (cell.endsWith(':')) return cell.startsWith(':') ? 'center' : 'end';
    return 'start';
  });
  const rows = [];
  let i = at + 2;
  for (; i < lines.length && lines[i].includes('|') && !startsBlock(lines[i]); i++) {
    rows.push(cellsOf(lines[i]).slice(0, head.length).map((cell) => inline(cell)));
  }
  return [{ kind: 'table', align, head: head.map((cell) => inline(cell)), rows }, i];
}

function readParagraph(lines, at) {
  let i = at + 1;
  while (i < lines.length && !isBlank(lines[i]) && !startsBlock(lines[i]) && !markerOf(lines[i]) && !isTable(lines, i)) i++;
  const text = lines.slice(at, i).map((line) => line.trim()).join('\n');
  return [{ kind: 'paragraph', inline: inline(text) }, i];
}

/**
 * Parses the text of one block into strings and {kind, …} objects; the kinds
 * are code, strong, emphasis, deleted, link and break.
 */
export function inline(text, depth = 0) {
  const out = [];
  let plain = '';
  const push = (node) => {
    if (plain) out.push(plain);
    plain = '';
    out.push(node);
  };
  if (depth >= MAX_DEPTH) return [text];
  const reader = { text, depth, unclosed: new Set(), ahead: new Map() };
  let i = 0;
  while (i < text.length) {
    const found = readInline(reader, i);
    if (found) {
      push(found.node);
      i = found.next;
    } else if (text[i] === '\\' && i + 1 < text.length && /[!-/:-@[-`{-~]/.test(text[i + 1])) {
      plain += text[i + 1];
      i += 2;
    } else {
      // A run of one mark is taken as a whole: "***" must not be tried again as "**".
      let end = i + 1;
      if ('*_~`'.includes(text[i])) while (text[end] === text[i]) end++;
      plain += text.slice(i, end);
      i = end;
    }
  }
  if (plain) out.push(plain);
  return out;
}

function readInline(reader, i) {
  const { text } = reader;
  switch (text[i]) {
    case '\n':
      return { node: { kind: 'break' }, next: i + 1 };
    case '`':
      return readSpan(reader, i);
    case '*':
    case '_':
    case '~':
      return readEmphasis(reader, i);
    case '!':
      return text[i + 1] === '[' ? readLink(reader, i + 1) : null;
    case '[':
      return readLink(reader, i);
    case 'h':
      return readAddress(text, i);
    default:
      return null;
  }
}

function runLength(text, i) {
  let end = i + 1;
  while (text[end] === text[i]) end++;
  return end - i;
}

// In the readers below a mark that found no partner goes into unclosed: from
// further on it cannot find one either, and is not searched for again.

function readSpan(reader, i) {
  const { text, unclosed } = reader;
  const size = runLength(text, i);
  const mark = '`'.repeat(size);
  if (unclosed.has(mark)) return null;
  let end = i + size;
  while ((end = text.indexOf('`', end)) !== -1) {
    const run = runLength(text, end);
    if (run === size) return { node: { kind: 'code', text: text.slice(i + size, end) }, next: end + size };
    end += run;
  }
  unclosed.add(mark);
  return null;
}

const EMPHASIS = { '*': 'emphasis', _: 'emphasis', '**': 'strong', __: 'strong', '~~': 'deleted' };
const isWord = (char) => char != null && /[\p{L}\p{N}]/u.test(char);
const isSpace = (char) => char == null || /\s/.test(char);

function readEmphasis(reader, i) {
  const { text, depth, unclosed } = reader;
  const size = Math.min(runLength(text, i), 2);
  const mark = text.slice(i, i + size);
  const kind = EMPHASIS[mark];
  if (!kind || unclosed.has(mark) || isSpace(text[i + size])) return null;
  if (mark[0] === '_' && isWord(text[i - 1])) return null;
  let end = i + size;
  while ((end = text.indexOf(mark[0], end)) !== -1) {
    const run = runLength(text, end);
    const fits = size === 2 ? run >= 2 : run !== 2;
    const opens = isSpace(text[end - 1]) || (mark[0] === '_' && isWord(text[end + run]));
    if (fits && !opens && end > i + size) {
      const close = end + run - size;
      return { node: { kind, inline: inline(text.slice(i + size, close), depth + 1) }, next: close + size };
    }
    end += run;
  }
  unclosed.add(mark);
  return null;
}

function readLink(reader, i) {
  const { text, depth } = reader;
  const labelEnd = indexFrom(reader, ']', i + 1);
  if (labelEnd - i > MAX_LABEL || text[labelEnd + 1] !== '(') return null;
  const end = indexFrom(reader, ')', labelEnd + 2);
  if (end - labelEnd > MAX_URL) return null;
  const url = safeAddress(text.slice(labelEnd + 2, end).trim().split(/\s/, 1)[0]);
  if (!url) return null;
  const label = text.slice(i + 1, labelEnd);
  return { node: { kind: 'link', url, inline: label ? inline(label, depth + 1) : [url] }, next: end + 1 };
}

// indexOf that remembers its last answer, Infinity for none: a text of nothing
// but "[" asks for the same "]" again and again.
function indexFrom(reader, char, from) {
  let index = reader.ahead.get(char) ?? -1;
  if (index < from) {
    index = reader.text.indexOf(char, from);
    if (index === -1) index = Infinity;
    reader.ahead.set(char, index);
  }
  return index;
}

function readAddress(text, i) {
  if ((!text.startsWith('http://', i) && !text.startsWith('https://', i)) || isWord(text[i - 1])) return null;
  let end = i;
  const limit = Math.min(text.length, i + MAX_URL);
  while (end < limit && !/[\s<>"`]/.test(text[end])) end++;
  while (/[.,;:!?'*_~)\]]/.test(text[end - 1]) && end > i + 1) end--;
  const shown = text.slice(i, end);
  const url = safeAddress(shown);
  // What is no address is taken as a whole too, lest its middle is tried again.
  return { node: url ? { kind: 'link', url, inline: [shown] } : shown, next: end };
}

/** The normal form of an address that may be linked, else ''. */
export function safeAddress(address) {
  if (address.length > MAX_URL || !/^(https?:\/\/|mailto:)/i.test(address)) return '';
  try {
    // Without a base: a relative address of the model would point into this page.
    const url = new URL(address);
    return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url.href : '';
  } catch {
    return '';
  }
}

/**
 * Shows Markdown in a container and keeps it current while the text grows: the
 * nodes of blocks that did not change stay, so that streaming costs the last
 * block only and neither selection nor scroll position is lost.
 */
export class MarkdownView {
  #container;
  #shown = [];
  #text = null;

  constructor(container) {
    this.#container = container;
  }

  /** Shows this text. plain leaves out Markdown. */
  show(text, plain = false) {
    const literal = plain || text.length > MAX_LENGTH;
    const key = `${literal}${text}`;
    if (key === this.#text) return;
    this.#text = key;
    const blocks = literal ? [{ kind: 'literal', source: text, text }] : parse(text);
    let same = 0;
    while (same < blocks.length && same < this.#shown.length && isSame(blocks[same], this.#shown[same])) same++;
    while (this.#container.childNodes.length > same) this.#container.lastChild.remove();
    this.#container.append(...blocks.slice(same).map(blockNode));
    this.#shown = blocks;
  }
}

const isSame = (a, b) => a.kind === b.kind && a.source === b.source;

function element(tag, children = []) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

function blockNode(block) {
  switch (block.kind) {
    case 'heading':
      // The page itself has the first two levels.
      return element(`h${Math.min(6, block.level + 2)}`, block.inline.map(inlineNode));
    case 'code': {
      const node = element('pre', [element('code', [block.text])]);
      if (block.language) node.setAttribute('data-language', block.language);
      return node;
    }
    case 'quote':
      return element('blockquote', block.blocks.map(blockNode));
    case 'list':
      return listNode(block);
    case 'table':
      return tableNode(block);
    case 'rule':
      return element('hr');
    case 'literal': {
      const node = element('div', [block.text]);
      node.className = 'literal';
      return node;
    }
    default:
      return element('p', block.inline.map(inlineNode));
  }
}

function listNode(block) {
  const node = element(
    block.ordered ? 'ol' : 'ul',
    block.items.map((blocks) => {
      // A tight item has no paragraph of its own.
      const [first, ...rest] = blocks;
      if (first?.kind !== 'paragraph') return element('li', blocks.map(blockNode));
      return element('li', [...first.inline.map(inlineNode), ...rest.map(blockNode)]);
    }),
  );
  if (block.ordered && block.start !== 1) node.setAttribute('start', String(block.start));
  return node;
}

function tableNode(block) {
  const row = (tag, cells) =>
    element(
      'tr',
      cells.map((cell, column) => {
        const node = element(tag, cell.map(inlineNode));
        if (block.align[column] !== 'start') node.className = `align-${block.align[column]}`;
        return node;
      }),
    );
  const table = element('table', [
    element('thead', [row('th', block.head)]),
    element('tbody', block.rows.map((cells) => row('td', cells))),
  ]);
  const frame = element('div', [table]);
  frame.className = 'table-frame';
  return frame;
}

const INLINE_TAGS = { strong: 'strong', emphasis: 'em', deleted: 'del' };

// A number in square brackets may cite a passage; who shows the text knows whether
// there is one. It is a button that reads as it is written.
const CITATION = /(\[[0-9]{1,3}\])/;

function textNode(text) {
  if (!CITATION.test(text)) return document.createTextNode(text);
  const node = document.createDocumentFragment();
  for (const part of text.split(CITATION)) {
    if (part === '') continue;
    if (!CITATION.test(part)) {
      node.append(part);
      continue;
    }
    const cite = element('button', [part]);
    cite.className = 'cite';
    cite.setAttribute('type', 'button');
    cite.setAttribute('data-cite', part.slice(1, -1));
    node.append(cite);
  }
  return node;
}

function inlineNode(item) {
  if (typeof item === 'string') return textNode(item);
  if (item.kind === 'break') return element('br');
  if (item.kind === 'code') return element('code', [item.text]);
  if (item.kind !== 'link') return element(INLINE_TAGS[item.kind], item.inline.map(inlineNode));
  const node = element('a', item.inline.map(inlineNode));
  node.setAttribute('href', item.url);
  node.setAttribute('title', item.url);
  node.setAttribute('rel', 'noopener noreferrer nofollow');
  node.setAttribute('target', '_blank');
  return node;
}
