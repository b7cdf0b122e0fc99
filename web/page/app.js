// The shell: the route in the address picks a page, and each page gets a view.

import { errorPanel, h, refreshTimes } from './dom.js';
import { chainPage, chainsPage } from './chains.js';
import { executionPage } from './execution.js';
import { executionsPage, isActive } from './executions.js';
import { knowledgePage } from './knowledge.js';
import { repositoryPage } from './repository.js';

const POLL_BUSY = 2000;
const POLL_IDLE = 10_000;
const main = document.getElementById('main');
const help = document.getElementById('help');

/**
 * What a page may use: the main element, a signal that aborts when the user
 * leaves, and the helpers below. One view serves one visit of one page.
 */
class View {
  #aborter = new AbortController();
  #leave = [];
  #wake = () => {};
  main = main;
  signal = this.#aborter.signal;
  /** Keys of this page: key name → function. */
  keys = {};

  /** Sets the title of the window. */
  title(text) {
    document.title = `${text} · Chainstream`;
  }

  /** Goes to another page. */
  go(hash) {
    location.hash = hash;
  }

  /** Runs fn when the user leaves this page. */
  onLeave(fn) {
    this.#leave.push(fn);
  }

  /** A rejection handler that shows the error in node with a button to try again. */
  failed(node) {
    return (error) => {
      if (this.signal.aborted) return;
      const retry = h('button', { class: 'button', type: 'button', on: { click: route } }, 'Try again');
      const [home, word] = main.dataset.page === 'knowledge' ? ['#/knowledge', 'All repositories'] : ['#/chains', 'All chains'];
      const back = h('a', { class: 'button', href: home }, word);
      node.replaceChildren(errorPanel(error, error.status === 404 ? back : retry));
    };
  }

  /**
   * Calls load, which returns what has a status, now and then again: often while one
   * of them is active, seldom otherwise, never while the page is hidden.
   */
  async poll(load) {
    while (!this.signal.aborted) {
      let items = [];
      if (!document.hidden) {
        try {
          items = await load();
        } catch {
          // A list beside the page's own content: it stays as it was.
        }
      }
      await this.#pause(items.some((item) => isActive(item.status)) ? POLL_BUSY : POLL_IDLE);
    }
  }

  /** Makes poll load at once. */
  hurry() {
    this.#wake();
  }

  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
      this.signal.addEventListener('abort', this.#wake, { once: true });
    });
  }

  leave() {
    this.#aborter.abort();
    for (const fn of this.#leave) fn();
  }
}

let view = null;
let shown = '';

function route() {
  const hash = location.hash === '' ? '#/chains' : location.hash;
  // "#main" is the skip link, not a route.
  if (!hash.startsWith('#/')) {
    main.focus();
    return;
  }
  const [path, search = ''] = hash.slice(2).split('?', 2);
  const parts = path.split('/').map(decode);
  const query = new URLSearchParams(search);
  view?.leave();
  view = new View();
  mark(parts[0]);
  main.dataset.page = parts.length > 1 ? parts[0].replace(/s$/, '') : parts[0];
  if (parts[0] === 'chains' && parts.length === 1) chainsPage(view);
  else if (parts[0] === 'chains' && parts.length === 2) chainPage(view, parts[1], query);
  else if (parts[0] === 'executions' && parts.length === 1) executionsPage(view, query);
  else if (parts[0] === 'executions' && parts.length === 2) executionPage(view, parts[1], query);
  else if (parts[0] === 'knowledge' && parts.length === 1) knowledgePage(view);
  else if (parts[0] === 'knowledge' && parts.length === 2) repositoryPage(view, parts[1], query);
  else notFound();
  if (shown && shown !== hash) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  shown = hash;
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function mark(section) {
  for (const link of document.querySelectorAll('[data-section]')) {
    if (link.dataset.section === section) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function notFound() {
  view.title('Not found');
  main.replaceChildren(
    h('div', { class: 'page' }, errorPanel({ message: 'There is no such page.' }, h('a', { class: 'button', href: '#/chains' }, 'All chains'))),
  );
}

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (event.target.closest('input, textarea, select, dialog, [contenteditable]')) return;
  if (event.key === '?') help.showModal();
  else if (view?.keys[event.key]) view.keys[event.key]();
  else return;
  event.preventDefault();
});
document.getElementById('help-button').addEventListener('click', () => help.showModal());
addEventListener('hashchange', route);
setInterval(refreshTimes, 10_000);
route();
