// Small builders of DOM nodes. Text only ever becomes a text node: nothing in
// this page parses a string as markup, because model output is hostile.

import { exact, relative } from './format.js';

/**
 * Builds an element. Properties: `class`, `on` (listeners by name), `data`
 * (data-* by camelCase name); everything else is an attribute, true being an
 * empty one and null, undefined or false none. Children are nodes, strings,
 * numbers, arrays of these, or null.
 */
export function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value == null || value === false) continue;
    if (name === 'class') node.className = value;
    else if (name === 'on') for (const [type, listener] of Object.entries(value)) node.addEventListener(type, listener);
    else if (name === 'data') {
      for (const [key, item] of Object.entries(value)) if (item != null) node.dataset[key] = item;
    } else node.setAttribute(name, value === true ? '' : value);
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children) {
    if (child == null || child === false) continue;
    if (Array.isArray(child)) append(node, child);
    else node.append(typeof child === 'number' ? String(child) : child);
  }
}

/** Sets the text of a node only when it differs, so that idle frames touch nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or, with null or false, removes an attribute, only when it differs. */
export function setAttribute(node, name, value) {
  if (value == null || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const PATHS = {
  copy: 'M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z',
  check: 'M3 8.5l3.5 3.5L13 4.5',
  chains: 'M2.5 3h4v4h-4zM9.5 9h4v4h-4zM6.5 5h5v4',
  runs: 'M4 2.5l9 5.5-9 5.5z',
  chevron: 'M4 6l4 4 4-4',
  plus: 'M8 3v10M3 8h10',
  trash: 'M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.5 9h6l.5-9',
  close: 'M4 4l8 8M12 4l-8 8',
};

/** A 16 px line icon, hidden from assistive technology. */
export function icon(name) {
  const ns = 'http://www.w3.org/2000/svg';
  const svg = document.createElementNS(ns, 'svg');
  svg.setAttribute('viewBox', '0 0 16 16');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(ns, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}

/** The words for every state of an execution, a prompt or a document. */
const STATE_WORDS = {
  queued: 'queued',
  running: 'running',
  retrying: 'retrying',
  waiting: 'waiting',
  completed: 'completed',
  failed: 'failed',
  cancelled: 'cancelled',
  skipped: 'not run',
  processing: 'processing',
  ready: 'ready',
  sending: 'sending',
  refused: 'refused',
};

/** A state as dot and word; update it with setStatus. */
export function status(state, props = {}) {
  const node = h('span', { class: 'status', ...props }, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { class: 'status-word' }));
  setStatus(node, state);
  return node;
}

/** Shows another state in a node that status made. */
export function setStatus(node, state) {
  if (node.dataset.status === state) return;
  node.dataset.status = state;
  node.lastChild.textContent = STATE_WORDS[state] ?? state;
}

/** A moment as relative time with the exact one as its title. It keeps itself current. */
export function time(iso) {
  if (!iso) return h('span', { class: 'muted' }, '–');
  return h('time', { datetime: iso, title: exact(iso), data: { relative: '' } }, relative(Date.parse(iso), Date.now()));
}

/** Brings every relative time on the page up to date. */
export function refreshTimes(now = Date.now()) {
  for (const node of document.querySelectorAll('time[data-relative]')) {
    setText(node, relative(Date.parse(node.dateTime), now));
  }
}

/** A button that copies what text() returns and says so in its label. */
export function copyButton(label, text) {
  const button = h('button', { class: 'icon-button', type: 'button', 'aria-label': label, title: label }, icon('copy'));
  button.addEventListener('click', async () => {
    const done = await copy(text());
    const message = done ? 'Copied' : 'Copying is not allowed here';
    button.replaceChildren(icon(done ? 'check' : 'copy'));
    button.title = message;
    announce(message);
    setTimeout(() => {
      button.replaceChildren(icon('copy'));
      button.title = label;
    }, 1500);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without a secure context (plain HTTP on another host) there is no
    // clipboard API; the selection of a text field still copies.
    const field = h('textarea', { class: 'visually-hidden', readonly: true });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    return done;
  }
}

/** Speaks a short message through the page's polite live region. */
export function announce(message) {
  const region = document.getElementById('announcer');
  if (region) region.textContent = message;
}

/** The mark of text made by the built-in demo model. */
export function demoBadge(word = 'demo model') {
  return h('span', { class: 'badge', title: 'The built-in demo model: it needs no key and makes no claims' }, word);
}

/** Grey bars in the place of lines that are still being loaded. */
export function skeleton(lines = 4) {
  return h('div', { class: 'skeleton', 'aria-hidden': 'true' }, Array.from({ length: lines }, () => h('div', { class: 'skeleton-line' })));
}

/** One plain sentence about what went wrong, its code, and what can be done about it. */
export function errorPanel(error, ...actions) {
  return h(
    'div',
    { class: 'notice notice-error', role: 'alert', data: { testid: 'error' } },
    h('p', null, error.message, ' ', error.code && h('code', { class: 'code' }, error.code)),
    actions.length > 0 && h('div', { class: 'actions' }, actions),
  );
}
