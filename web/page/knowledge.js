// The page of all repositories, and what makes a new one.

import * as api from './api.js';
import { formDialog } from './dialogs.js';
import { announce, copyButton, errorPanel, h, icon, skeleton, status } from './dom.js';
import { lastResortBadge, modelOptions } from './embeddings.js';
import { refresh } from './executions.js';
import { plural } from './format.js';

// The languages that PostgreSQL brings along.
const LANGUAGES =
  'arabic armenian basque catalan danish dutch english finnish french german greek hindi hungarian indonesian irish italian lithuanian nepali norwegian portuguese romanian russian serbian simple spanish swedish tamil turkish yiddish'.split(' ');

/** The address of a repository's page. */
export const repositoryAddress = (id) => `#/knowledge/${encodeURIComponent(id)}`;

/** Shows all repositories. */
export function knowledgePage(view) {
  view.title('Knowledge');
  const list = h('section', { 'aria-label': 'Repositories', data: { testid: 'repositories' } }, skeleton(3));
  const pages = h('div', { class: 'pages' });
  const create = h('button', { class: 'button', type: 'button', data: { testid: 'new-repository' }, on: { click: () => newRepository(view) } }, icon('plus'), 'New repository');
  view.main.replaceChildren(
    h('div', { class: 'page' }, h('header', { class: 'page-header page-top' }, h('h1', null, 'Knowledge'), create), list, pages),
  );

  let shownPages = 1;
  let loaded = false;
  view.poll(load);

  async function load() {
    let answer;
    try {
      answer = await api.firstPages((cursor) => api.listRepositories({ cursor, signal: view.signal }), shownPages);
    } catch (error) {
      if (!loaded) view.failed(list)(error);
      throw error;
    }
    loaded = true;
    const { items, nextCursor } = answer;
    refresh(list, items, () => [items.length > 0 ? h('ul', { class: 'cards' }, items.map(card)) : noRepositories(view)]);
    if (Boolean(nextCursor) !== pages.hasChildNodes()) pages.replaceChildren(...(nextCursor ? [moreButton()] : []));
    return items.some((item) => item.building || item.pendingDocuments > 0) ? [{ status: 'processing' }] : [];
  }

  function moreButton() {
    const button = h('button', { class: 'button', type: 'button', data: { testid: 'more-repositories' } }, 'More repositories');
    button.addEventListener('click', async () => {
      button.disabled = true;
      shownPages++;
      await load().catch(view.failed(pages));
      button.disabled = false;
    });
    return button;
  }
}

function card(repository) {
  const { id, name, description, embeddingModel, building, documents, pendingDocuments, chunks } = repository;
  return h(
    'li',
    null,
    h(
      'a',
      { class: 'card', href: repositoryAddress(id), data: { testid: 'repository-link', repository: id } },
      h('span', { class: 'card-title' }, name, h('span', { class: 'version' }, `#${id}`), lastResortBadge(embeddingModel)),
      h('span', { class: 'card-text' }, description ? `${description} · ` : '', h('span', { class: 'mono' }, embeddingModel), building && h('span', { data: { testid: 'building' } }, buildingText(building))),
      h(
        'span',
        { class: 'card-meta card-counts' },
        pendingDocuments > 0 && status('processing'),
        h('span', null, plural(documents, 'document'), ' · ', plural(chunks, 'passage')),
      ),
    ),
  );
}

/** How far a change of the model is, as the end of a line. */
function buildingText({ embeddingModel, progress, error }) {
  return error ? ` · the change to ${embeddingModel} failed: ${error}` : ` · changing to ${embeddingModel}, ${progress} %`;
}

function noRepositories(view) {
  const problem = h('div');
  const button = h('button', { class: 'button primary', type: 'button', data: { testid: 'create-first' } }, 'Create a repository');
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      const { id } = await api.createRepository({ name: 'documents' });
      view.go(repositoryAddress(id));
    } catch (error) {
      button.disabled = false;
      announce(error.message);
      problem.replaceChildren(errorPanel(atField(error)));
    }
  });
  const command = 'chainstream knowledge create documents';
  return h(
    'div',
    { class: 'empty', data: { testid: 'no-repositories' } },
    h('p', { class: 'empty-title' }, 'No repositories yet'),
    h('p', null, 'A repository is a number of documents that prompts can be given passages of. Without a key it is searched by a small model on this server.'),
    h('div', { class: 'actions' }, button),
    h('p', { class: 'muted' }, 'Or from a terminal:'),
    h('p', { class: 'command' }, h('code', null, command), copyButton('Copy the command', () => command)),
    problem,
  );
}

async function newRepository(view) {
  let models = [];
  try {
    ({ embeddings: models } = await api.listModels(view.signal));
  } catch {
    // The server's default can be had without the list.
  }
  const inputs = [
    { name: 'name', type: 'short_text', label: 'Name', required: true },
    { name: 'embeddingModel', type: 'select', label: 'Embedding model', none: 'The default of the server', options: modelOptions(models), description: 'It turns passages and queries into vectors. It can be changed later.' },
    { name: 'description', type: 'short_text', label: 'Description', more: true },
    { name: 'language', type: 'select', label: 'Language', required: true, default: 'english', options: LANGUAGES, description: 'simple: without stems', more: true },
    { name: 'dimensions', type: 'number', label: 'Length of vectors', placeholder: 'of the model', description: 'if it can shorten them', more: true },
    { name: 'chunkTokens', type: 'number', label: 'Tokens of a passage', placeholder: '400', min: 16, max: 2048, more: true },
    { name: 'chunkOverlap', type: 'number', label: 'Tokens repeated', placeholder: '50', description: 'at most half of a passage', more: true },
  ];
  const made = await formDialog(view, {
    title: 'New repository',
    testid: 'repository-form',
    inputs,
    submit: 'Create',
    send: (values) => api.createRepository(values).catch((error) => Promise.reject(atField(error))),
  });
  if (made) view.go(repositoryAddress(made.id));
}

/** A problem of a repository at the field that it is about. */
export function atField(error) {
  if (error.code === 'repository_exists') error.errors = [{ pointer: '/name', detail: `${error.title}. ${error.message}` }];
  return error;
}
