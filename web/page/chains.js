// The pages of chains: all of them, and one with its run form.

import * as api from './api.js';
import { announce, copyButton, demoBadge, errorPanel, h, skeleton } from './dom.js';
import { chainAddress, executionRows, refresh } from './executions.js';
import { inputForm } from './form.js';
import { plural } from './format.js';
import { isDemoModel } from './reducer.js';

const RECENT = 8;

// What an empty installation offers: it runs without any API key.
const EXAMPLE = {
  name: 'research-brief',
  description: 'Outline, two drafts in parallel, then a merged brief',
  inputs: {
    topic: { type: 'short_text', label: 'Topic', required: true, maxLength: 200 },
    audience: { type: 'select', label: 'Audience', options: ['executive', 'engineer'], default: 'engineer' },
  },
  prompts: [
    { name: 'Outline', position: 1, model: 'offline/echo', content: 'Write an outline about ${topic} for ${audience}.' },
    { name: 'Draft A', position: 2, model: 'offline/echo', content: 'Expand ${outline}' },
    { name: 'Draft B', position: 2, model: 'offline/echo', content: 'Contrast ${outline}' },
    { name: 'Merge', position: 3, model: 'offline/echo', content: 'Merge ${draft-a} and ${draft-b}' },
  ],
};

/** Shows all chains and the newest executions. */
export function chainsPage(view) {
  view.title('Chains');
  const list = h('section', { 'aria-label': 'Chains' }, skeleton(4));
  const recent = h('section', { class: 'section', 'aria-labelledby': 'recent-title' });
  view.main.replaceChildren(h('div', { class: 'page' }, h('header', { class: 'page-header' }, h('h1', null, 'Chains')), list, recent));

  load().catch(view.failed(list));
  view.poll(async () => {
    const { items } = await api.listExecutions({ limit: RECENT, signal: view.signal });
    showRecent(recent, items);
    return items;
  });

  async function load() {
    const { items, nextCursor } = await api.listChains({ signal: view.signal });
    if (items.length === 0) {
      list.replaceChildren(noChains(view));
      return;
    }
    const cards = h('ul', { class: 'cards' }, items.map(chainCard));
    list.replaceChildren(cards);
    offerMore(cards, nextCursor);
  }

  function offerMore(cards, cursor) {
    if (!cursor) return;
    const button = h('button', { class: 'button', type: 'button', data: { testid: 'more-chains' } }, 'More chains');
    const problem = h('div');
    const footer = h('div', { class: 'pages' }, button, problem);
    button.addEventListener('click', async () => {
      button.disabled = true;
      try {
        const { items, nextCursor } = await api.listChains({ cursor, signal: view.signal });
        cards.append(...items.map(chainCard));
        footer.remove();
        offerMore(cards, nextCursor);
      } catch (error) {
        button.disabled = false;
        view.failed(problem)(error);
      }
    });
    list.append(footer);
  }
}

function showRecent(node, items) {
  refresh(node, items, () => (items.length > 0 ? [h('h2', { id: 'recent-title' }, 'Recent executions'), executionRows(items)] : []));
}

function chainCard(chain) {
  const models = (chain.prompts ?? []).map((prompt) => prompt.model);
  const demo = models.length > 0 && models.every(isDemoModel);
  return h(
    'li',
    null,
    h(
      'a',
      { class: 'card', href: chainAddress(chain.id, chain.name), data: { testid: 'chain-link', chain: chain.name } },
      h('span', { class: 'card-title' }, chain.name, demo && demoBadge()),
      h('span', { class: 'card-text' }, chain.description || 'No description'),
      h('span', { class: 'card-meta' }, plural(chain.promptCount ?? models.length, 'prompt'), ' · ', `version ${chain.version}`),
    ),
  );
}

function noChains(view) {
  const problem = h('div');
  const button = h('button', { class: 'button primary', type: 'button', data: { testid: 'create-example' } }, 'Add the example chain');
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      const chain = await api.createChain(EXAMPLE);
      view.go(chainAddress(chain.id, chain.name));
    } catch (error) {
      button.disabled = false;
      problem.replaceChildren(errorPanel(error));
    }
  });
  const command = 'chainstream run FILE.yaml --input topic="river deltas"';
  return h(
    'div',
    { class: 'empty', data: { testid: 'no-chains' } },
    h('p', { class: 'empty-title' }, 'No chains yet'),
    h('p', null, 'A chain is a list of prompts that run one after another or side by side. The example needs no API key.'),
    h('div', { class: 'actions' }, button),
    h('p', { class: 'muted' }, 'Or run your own from a terminal:'),
    h('p', { class: 'command' }, h('code', null, command), copyButton('Copy the command', () => command)),
    problem,
  );
}

/** Shows one chain: its form, its prompts and its newest executions. */
export function chainPage(view, id, query) {
  view.title(id);
  view.main.replaceChildren(h('div', { class: 'page' }, h('header', { class: 'page-header' }, h('h1', null, id)), skeleton(6)));
  load().catch(view.failed(view.main.firstChild));

  async function load() {
    const from = query.get('from');
    const [chain, earlier] = await Promise.all([
      api.loadChain(id, { signal: view.signal }),
      from ? api.loadExecution(from, view.signal).catch(() => null) : null,
    ]);
    show(chain, earlier?.inputs ?? {});
  }

  function show(chain, values) {
    view.title(chain.name);
    const recent = h('section', { class: 'section', 'aria-labelledby': 'recent-title' });
    view.main.replaceChildren(
      h(
        'div',
        { class: 'page' },
        h(
          'header',
          { class: 'page-header' },
          h('p', { class: 'crumbs' }, h('a', { href: '#/chains' }, 'Chains')),
          h('h1', null, chain.name, h('span', { class: 'version' }, `v${chain.version}`), copyButton('Copy the name', () => chain.name)),
          chain.description && h('p', { class: 'lead' }, chain.description),
        ),
        h('div', { class: 'split' }, runForm(view, chain, values), promptList(chain.prompts ?? [])),
        recent,
      ),
    );
    view.poll(async () => {
      const { items } = await api.listExecutions({ chain: chain.id, limit: 5, signal: view.signal });
      showRecent(recent, items);
      return items;
    });
  }
}

function runForm(view, chain, values) {
  const inputs = inputForm(chain.inputs, values);
  const problems = h('div', { class: 'form-problems' });
  const button = h('button', { class: 'button primary', type: 'submit', data: { testid: 'run-button' } }, 'Run');
  const form = h(
    'form',
    { novalidate: true, class: 'form', data: { testid: 'run-form' } },
    h('h2', null, 'Run'),
    inputs.fields.length > 0 ? inputs.fields : h('p', { class: 'muted' }, 'This chain takes no inputs.'),
    problems,
    h('div', { class: 'actions' }, button),
  );

  // One key per distinct request: pressing Run again after a lost answer
  // finds the execution that was started, changed inputs start a new one.
  let lastBody = '';
  let key = '';
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    problems.replaceChildren();
    const given = inputs.read();
    if (!given || button.disabled) return;
    const body = JSON.stringify(given);
    if (body !== lastBody) key = api.requestKey();
    lastBody = body;
    button.disabled = true;
    try {
      const { executionId } = await api.startExecution(chain, given, key);
      view.go(`#/executions/${executionId}`);
    } catch (error) {
      button.disabled = false;
      if (error.status !== 0) lastBody = '';
      showProblems(error);
    }
  });

  function showProblems(error) {
    const others = inputs.showProblems(error.errors ?? []);
    const atFields = (error.errors?.length ?? 0) > others.length;
    announce(error.message);
    if (atFields && others.length === 0) return;
    problems.replaceChildren(errorPanel(error), h('ul', { class: 'problems' }, others.map((o) => h('li', null, h('code', null, o.pointer), ` ${o.detail}`))));
  }

  return form;
}

function promptList(prompts) {
  const byPosition = new Map();
  for (const prompt of prompts) byPosition.set(prompt.position, [...(byPosition.get(prompt.position) ?? []), prompt]);
  return h(
    'section',
    { class: 'plan', 'aria-labelledby': 'plan-title' },
    h('h2', { id: 'plan-title' }, plural(prompts.length, 'prompt')),
    h(
      'ol',
      { class: 'positions' },
      [...byPosition]
        .sort(([a], [b]) => a - b)
        .map(([position, group]) =>
          h(
            'li',
            { class: 'position' },
            h('span', { class: 'position-number', 'aria-label': `Position ${position}` }, position),
            h('div', { class: group.length > 1 ? 'siblings parallel' : 'siblings' }, group.map(promptCard)),
          ),
        ),
    ),
  );
}

function promptCard(prompt) {
  return h(
    'article',
    { class: 'prompt-card' },
    h('h3', null, prompt.name, isDemoModel(prompt.model) && demoBadge()),
    h('p', { class: 'mono muted' }, prompt.model),
    prompt.content && h('p', { class: 'template' }, template(prompt.content.replaceAll(/\n{2,}/g, '\n'))),
  );
}

// The names in ${…} and {{…}} stand out, so that one sees what feeds what.
function template(text) {
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(/(?<!\\)\$\{[^{}\n]{1,200}\}|\{\{[^{}\n]{1,200}\}\}/g)) {
    parts.push(text.slice(last, match.index), h('span', { class: 'variable' }, match[0]));
    last = match.index + match[0].length;
  }
  return [...parts, text.slice(last)];
}
