// The page of all executions, newest first.

import * as api from './api.js';
import { h, skeleton, status, time } from './dom.js';
import { cost, count, duration } from './format.js';

const STATES = ['queued', 'running', 'waiting', 'completed', 'failed', 'cancelled'];

/** Shows a page of executions; the filter and the cursor are in the address. */
export function executionsPage(view, query) {
  view.title('Executions');
  const filter = query.get('status') ?? '';
  const cursor = query.get('cursor') ?? '';
  const list = h('section', { 'aria-label': 'Executions', data: { testid: 'executions' } }, skeleton(8));
  const pages = h('nav', { class: 'pages', 'aria-label': 'Pages' });
  view.main.replaceChildren(
    h(
      'div',
      { class: 'page' },
      h('header', { class: 'page-header' }, h('h1', null, 'Executions')),
      h('nav', { class: 'filters', 'aria-label': 'Status' }, filterLink('', 'All', filter), STATES.map((state) => filterLink(state, state, filter))),
      list,
      pages,
    ),
  );

  view.poll(async () => {
    let answer;
    try {
      answer = await api.listExecutions({ status: filter, cursor, signal: view.signal });
    } catch (error) {
      view.failed(list)(error);
      return [];
    }
    const { items, nextCursor } = answer;
    refresh(list, items, () => [items.length > 0 ? executionRows(items) : noExecutions(filter, cursor)]);
    pages.replaceChildren(
      ...(cursor ? [h('a', { class: 'button', href: address(filter) }, 'Newest')] : []),
      ...(nextCursor ? [h('a', { class: 'button', href: address(filter, nextCursor), data: { testid: 'older' } }, 'Older')] : []),
    );
    return items;
  });
}

function address(filter, cursor) {
  const query = new URLSearchParams();
  if (filter) query.set('status', filter);
  if (cursor) query.set('cursor', cursor);
  const text = query.toString();
  return text ? `#/executions?${text}` : '#/executions';
}

function filterLink(state, word, current) {
  return h('a', { href: address(state), 'aria-current': state === current ? 'page' : null, data: { testid: `filter-${state || 'all'}` } }, word);
}

function noExecutions(filter, cursor) {
  if (filter || cursor) return h('div', { class: 'empty' }, h('p', { class: 'empty-title' }, filter ? `No execution is ${filter}` : 'No older executions'));
  return h(
    'div',
    { class: 'empty' },
    h('p', { class: 'empty-title' }, 'Nothing has run yet'),
    h('p', null, 'Choose a chain and press Run; every step is kept here.'),
    h('div', { class: 'actions' }, h('a', { class: 'button primary', href: '#/chains' }, 'Choose a chain')),
  );
}

const shown = new WeakMap();

/**
 * Fills a node with what build makes of a list, unless the list is the one
 * already shown. A link that had the focus has it again afterwards.
 */
export function refresh(node, items, build) {
  const key = JSON.stringify(items);
  if (shown.get(node) === key) return;
  shown.set(node, key);
  const focused = node.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null;
  node.replaceChildren(...build());
  if (focused) [...node.querySelectorAll('a')].find((link) => link.getAttribute('href') === focused)?.focus();
}

/** Executions as a table, one link per row. */
export function executionRows(items) {
  return h(
    'table',
    { class: 'rows' },
    h(
      'thead',
      null,
      h(
        'tr',
        null,
        h('th', { scope: 'col' }, 'Status'),
        h('th', { scope: 'col' }, 'Chain'),
        h('th', { scope: 'col', class: 'number optional' }, 'Duration'),
        h('th', { scope: 'col', class: 'number optional' }, 'Tokens'),
        h('th', { scope: 'col', class: 'number optional' }, 'Cost'),
        h('th', { scope: 'col', class: 'number' }, 'Started'),
      ),
    ),
    h('tbody', null, items.map(executionRow)),
  );
}

function executionRow(item) {
  const id = item.executionId;
  const { inputTokens = 0, outputTokens = 0, totalTokens = inputTokens + outputTokens } = item.usage ?? {};
  const ended = item.finishedAt && item.startedAt ? Date.parse(item.finishedAt) - Date.parse(item.startedAt) : null;
  return h(
    'tr',
    { data: { testid: 'execution-row', execution: id, state: item.status } },
    h('td', null, status(item.status)),
    h(
      'td',
      { class: 'wide' },
      h('a', { class: 'row-link', href: `#/executions/${id}`, data: { testid: 'execution-link' } }, chainName(item), h('span', { class: 'muted' }, ` #${id}`)),
      item.error && h('span', { class: 'row-error', title: errorText(item.error) }, errorText(item.error)),
    ),
    h('td', { class: 'number optional' }, duration(ended)),
    h('td', { class: 'number optional' }, totalTokens > 0 ? count(totalTokens) : '–'),
    h('td', { class: 'number optional' }, cost(item.costUsd) || '–'),
    h('td', { class: 'number' }, time(item.startedAt ?? item.createdAt)),
  );
}

const errorText = (error) => (typeof error === 'string' ? error : (error.message ?? error.error ?? error.detail ?? ''));

/** The name of the chain that an execution runs. */
export function chainName(execution) {
  const { chain } = execution;
  if (typeof chain === 'string') return chain;
  return execution.chainName ?? chain?.name ?? `chain ${execution.chainId}`;
}

/** The address of a chain's page: by its name, unless that would be read as an id. */
export const chainAddress = (id, name) => `#/chains/${encodeURIComponent(/^\d+$/.test(name) ? id : name)}`;

/** Reports whether an execution or a document in this state will change by itself. */
export const isActive = (state) => state === 'queued' || state === 'running' || state === 'waiting' || state === 'processing';
