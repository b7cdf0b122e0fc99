// The search of a repository, as prompts do it, and why it answers what it does.

import * as api from './api.js';
import { copyButton, errorPanel, h, setAttribute, setText, skeleton } from './dom.js';
import { inputForm } from './form.js';
import { SEARCH_INPUTS, account, failures, place, readAddress, relevance, removed, share, signals, summary, writeAddress } from './retrieval.js';

// A longer passage is shown by its beginning first: characters, and lines.
const LONG_RESULT = [420, 5];
const LONG_LEFT_OUT = [160, 2];

/** The search of one repository, with what the address asks for. */
export class Playground {
  #view;
  #repository;
  #form;
  #query;
  #answer = h('div', { class: 'answer', data: { testid: 'answer' } });
  #line = h('p', { class: 'answer-line', role: 'status', data: { testid: 'answer-line' } });
  #button = h('button', { class: 'button primary', type: 'submit', data: { testid: 'search-button' } }, 'Search');
  #asked = null;

  constructor(view, repository, address) {
    this.#view = view;
    this.#repository = repository;
    const values = readAddress(address);
    this.#form = inputForm(SEARCH_INPUTS, values, { root: '', prefix: 'search' });
    const [query, ...options] = this.#form.fields;
    const isMore = (index) => SEARCH_INPUTS[index + 1].more;
    this.#query = query.querySelector('textarea');
    this.#query.rows = 2;
    this.#query.placeholder = 'A question, or a whole prompt';
    this.#query.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#submit();
    });
    const more = h(
      'details',
      { class: 'more', open: SEARCH_INPUTS.some(({ name, more: hidden }) => hidden && values[name] != null) },
      h('summary', null, 'More'),
      h('div', { class: 'search-options' }, options.filter((node, index) => isMore(index))),
    );
    const form = h(
      'form',
      { novalidate: true, class: 'search-form', role: 'search', 'aria-label': 'Search this repository', data: { testid: 'search-form' } },
      query,
      h('div', { class: 'search-options' }, options.filter((node, index) => !isMore(index)), h('div', { class: 'search-submit' }, this.#button)),
      more,
    );
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.node = h(
      'section',
      { class: 'pane playground', 'aria-label': 'Search', data: { testid: 'playground' } },
      h('div', { class: 'pane-head' }, h('h2', null, 'Search'), copyButton('Copy the address of this search', () => location.href)),
      h('div', { class: 'pane-scroll', role: 'region', tabindex: '0', 'aria-label': 'Query and results' }, form, this.#line, this.#answer),
    );
    if (values.query) this.#submit();
    else this.#hint();
  }

  /** Puts the caret into the query. */
  focus() {
    this.#query.focus();
    this.#query.select();
  }

  #hint() {
    this.#answer.replaceChildren(
      h('p', { class: 'muted answer-hint' }, 'The passages that a prompt with this query would be given, with the reasons: places, scores, and what was left out. ', h('kbd', null, '/'), ' goes to the query.'),
    );
  }

  async #submit() {
    const values = this.#form.read();
    if (!values) return;
    this.#remember(values);
    const asked = new AbortController();
    this.#asked?.abort();
    this.#asked = asked;
    this.#view.onLeave(() => asked.abort());
    this.#answer.setAttribute('aria-busy', 'true');
    if (!this.#answer.querySelector('.hits')) this.#answer.replaceChildren(skeleton(4));
    setText(this.#line, 'Searching');
    const begin = performance.now();
    try {
      const answer = await api.searchRepositories({ ...values, repositories: [Number(this.#repository)], explain: true }, asked.signal);
      this.#show(answer, values, performance.now() - begin);
    } catch (error) {
      if (asked.signal.aborted) return;
      const others = this.#form.showProblems(error.errors ?? []);
      setText(this.#line, '');
      const elsewhere = others.map(({ pointer, detail }) => h('li', null, h('code', null, pointer), ` ${detail}`));
      this.#answer.replaceChildren(errorPanel(error), ...(elsewhere.length > 0 ? [h('ul', { class: 'problems' }, elsewhere)] : []));
    }
    this.#answer.removeAttribute('aria-busy');
  }

  // The address says what was searched for, so that a link shows the same.
  #remember(values) {
    const [path, before = ''] = location.hash.split('?', 2);
    const query = writeAddress(before, values).toString();
    const next = query ? `${path}?${query}` : path;
    if (next !== location.hash) history.pushState(null, '', next);
  }

  #show(answer, values, elapsed) {
    setText(this.#line, summary(answer, elapsed));
    const matched = new Map((answer.explanation?.matched ?? []).map(({ chunkId, words }) => [chunkId, words]));
    const broken = failures(answer);
    const groups = removed(answer, values);
    const facts = account(answer, elapsed);
    this.#answer.replaceChildren(
      ...broken.map((sentence) => h('p', { class: 'notice notice-warn', data: { testid: 'degraded' } }, sentence)),
      answer.results.length > 0
        ? h('ol', { class: 'hits', data: { testid: 'hits' } }, answer.results.map((passage, index) => hit(passage, index + 1, matched.get(passage.chunkId))))
        : this.#nothing(values, groups),
      ...(groups.length > 0 ? [h('section', { class: 'left-out', 'aria-labelledby': 'left-out-title', data: { testid: 'left-out' } }, h('h3', { id: 'left-out-title' }, 'Found and left out'), groups.map((group) => leftOut(group, matched)))] : []),
      h(
        'details',
        { class: 'account', data: { testid: 'account' } },
        h('summary', null, 'How this came about'),
        h('dl', { class: 'account-facts' }, facts.map(([name, fact]) => [h('dt', null, name), h('dd', null, fact)])),
      ),
    );
  }

  // The next step, in one click where there is one.
  #nothing(values, groups) {
    const actions = groups.some(({ reason }) => reason === 'threshold' || reason === 'filter') && h('button', { class: 'button', type: 'button', data: { testid: 'search-without' }, on: { click: () => this.#widen(values) } }, 'Search without threshold and filter');
    return h(
      'div',
      { class: 'empty hits', data: { testid: 'no-hits' } },
      h('p', { class: 'empty-title' }, 'No passage'),
      h('p', null, groups.length > 0 ? 'Everything that was found was left out; below is what and why.' : 'Nothing was found. Other words may help, or more documents.'),
      actions && h('div', { class: 'actions' }, actions),
    );
  }

  #widen() {
    for (const name of ['threshold', 'filter']) this.node.querySelector(`#search-${name}`).value = '';
    this.#submit();
  }
}

/** A passage that was found: text stays text, whatever it says. */
function hit(passage, number, words = []) {
  // What the threshold left out is shown by what the threshold goes by.
  const byRelevance = passage.reason === 'threshold';
  const score = share(byRelevance ? relevance(passage.signals) : passage.score);
  const where = place(passage);
  const [characters, lines] = number > 0 ? LONG_RESULT : LONG_LEFT_OUT;
  const long = passage.text.length > characters || passage.text.split('\n').length > lines;
  const text = h('p', { class: 'literal hit-text', data: { testid: 'hit-text', long: long ? 'true' : null } }, passage.text);
  const bar = h('span', { class: 'passage-bar' }, h('span'));
  // The page allows no style in markup; a property of the node is none.
  bar.firstChild.style.setProperty('width', `${score * 100}%`);
  return h(
    'li',
    { class: 'hit', data: { testid: 'hit', chunk: passage.chunkId } },
    h(
      'div',
      { class: 'hit-head' },
      number > 0 && h('span', { class: 'passage-number' }, number),
      h('span', { class: 'passage-name', title: passage.documentName, data: { testid: 'hit-document' } }, passage.documentName),
      h('span', { class: 'passage-where', title: where }, where),
      h(
        'span',
        { class: 'passage-score', role: 'meter', title: byRelevance ? 'the better of its two signals' : `its place in the list; a threshold goes by the better signal, ${relevance(passage.signals).toFixed(2)}`, 'aria-label': byRelevance ? 'Relevance' : 'Score', 'aria-valuemin': 0, 'aria-valuemax': 1, 'aria-valuenow': score.toFixed(2), data: { testid: 'hit-score' } },
        bar,
        h('span', { class: 'hit-number' }, score.toFixed(2)),
      ),
    ),
    text,
    h(
      'p',
      { class: 'hit-foot' },
      signals(passage.signals).map(({ name, rank, score: of }) => h('span', { class: 'signal', data: { testid: 'signal', signal: name } }, h('b', null, name), ` #${rank} · ${of.toFixed(2)}`)),
      words.length > 0 && h('span', { class: 'hit-words', title: 'words of the query that it has' }, words.map(({ word }) => word).join(' ')),
      long && moreText(text),
    ),
  );
}

function moreText(text) {
  const button = h('button', { class: 'text-button', type: 'button', 'aria-expanded': 'false' }, 'Whole passage');
  button.addEventListener('click', () => {
    const open = button.getAttribute('aria-expanded') !== 'true';
    setAttribute(button, 'aria-expanded', String(open));
    setAttribute(text, 'data-open', open ? 'true' : null);
    setText(button, open ? 'Less' : 'Whole passage');
  });
  return button;
}

function leftOut({ reason, text, passages }, matched) {
  const list = h('ol', { class: 'hits' });
  const node = h('details', { class: 'left-out-group', data: { testid: 'left-out-group', reason } }, h('summary', null, text), list);
  node.addEventListener('toggle', () => {
    if (node.open && !list.hasChildNodes()) list.append(...passages.map((passage) => hit(passage, 0, matched.get(passage.chunkId))));
  });
  return node;
}
