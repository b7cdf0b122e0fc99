// The page of one repository: what it is, its documents, and its search.

import * as api from './api.js';
import { confirmDialog, formDialog } from './dialogs.js';
import { DocumentList } from './documents.js';
import { copyButton, errorPanel, h, setAttribute, setText, skeleton } from './dom.js';
import { lastResortBadge, modelOptions } from './embeddings.js';
import { count, plural } from './format.js';
import { atField } from './knowledge.js';
import { Playground } from './playground.js';

/** Shows a repository; the address may carry a search. */
export function repositoryPage(view, id, query) {
  view.title('Repository');
  view.main.replaceChildren(h('div', { class: 'page' }, h('header', { class: 'page-header' }, h('h1', null, 'Repository')), skeleton(6)));
  api
    .loadRepository(id, view.signal)
    .then((repository) => show(view, repository, query))
    .catch(view.failed(view.main.firstChild));
}

function show(view, loaded, query) {
  let repository = loaded;
  const header = new Header({ edit, remove, stop });
  const documents = new DocumentList(view, repository.id, () => refresh().catch(() => {}));
  const playground = new Playground(view, repository.id, query);
  const panes = h('div', { class: 'panes repository-panes' }, documents.node, playground.node);
  const tabs = new Tabs(panes);
  view.main.replaceChildren(h('div', { class: 'run repository' }, header.node, tabs.node, panes));
  tabs.choose(query.get('q') ? 'playground' : 'documents');
  view.keys['/'] = () => {
    tabs.choose('playground');
    playground.focus();
  };
  draw();

  let first = true;
  view.poll(async () => {
    await refresh();
    try {
      await documents.reload();
    } catch (error) {
      if (first) view.failed(documents.node.querySelector('.pane-scroll'))(error);
      throw error;
    }
    first = false;
    return documents.waiting || building() ? [{ status: 'processing' }] : [];
  });

  function building() {
    return repository.building && !repository.building.error;
  }

  async function refresh() {
    repository = await api.loadRepository(repository.id, view.signal);
    draw();
  }

  function draw() {
    view.title(repository.name);
    header.draw(repository);
    tabs.count(repository.documents);
  }

  async function edit() {
    let models = [];
    try {
      ({ embeddings: models } = await api.listModels(view.signal));
    } catch {
      // The name can be changed without the list.
    }
    const { embeddingModel } = repository;
    const options = modelOptions(models);
    if (!options.some(({ value }) => value === embeddingModel)) options.unshift({ value: embeddingModel, label: embeddingModel });
    const changed = await formDialog(view, {
      title: 'Edit repository',
      testid: 'repository-form',
      inputs: [
        { name: 'name', type: 'short_text', label: 'Name', required: true },
        { name: 'description', type: 'short_text', label: 'Description' },
        { name: 'embeddingModel', type: 'select', label: 'Embedding model', required: true, options, description: 'Another one embeds every passage anew in the background; searches use the present one until that is done.' },
      ],
      values: { name: repository.name, description: repository.description, embeddingModel: repository.building?.embeddingModel ?? embeddingModel },
      submit: 'Save',
      send: ({ name, description = '', embeddingModel: model }) => save({ name, description, model }),
    });
    if (changed) took(changed);
  }

  // The model is named only when it is another one: naming the present one ends a change.
  function save({ name, description, model }) {
    const now = repository.building?.embeddingModel ?? repository.embeddingModel;
    const fields = model === now ? { name, description } : { name, description, embeddingModel: model };
    return api.updateRepository(repository.id, fields).catch((error) => Promise.reject(atField(error)));
  }

  async function stop() {
    const { name, description, embeddingModel } = repository;
    try {
      took(await api.updateRepository(repository.id, { name, description, embeddingModel }));
    } catch (error) {
      header.complain(error);
    }
  }

  function took(changed) {
    repository = changed;
    draw();
    view.hurry();
  }

  async function remove() {
    const yes = await confirmDialog(view, {
      title: 'Delete this repository?',
      text: `${repository.name} with ${plural(repository.documents, 'document')} and ${plural(repository.chunks, 'passage')}. This cannot be taken back.`,
      no: 'Keep it',
      yes: 'Delete repository',
    });
    if (!yes) return;
    try {
      await api.deleteRepository(repository.id);
      view.go('#/knowledge');
    } catch (error) {
      if (error.status === 404) view.go('#/knowledge');
      else header.complain(error);
    }
  }
}

class Header {
  #name = h('span', { class: 'run-name' });
  #id = h('span');
  #badge = h('span');
  #model = h('dd', { class: 'mono', data: { testid: 'embedding-model' } });
  #documents = h('dd', { data: { testid: 'document-count' } });
  #passages = h('dd');
  #bar = h('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Change of the embedding model', 'aria-valuemin': 0, 'aria-valuemax': 100, data: { testid: 'building-progress' } }, h('div', { class: 'progress-bar' }));
  #message = h('span', { class: 'run-message', data: { testid: 'repository-message' } });
  #stop;
  #problem = h('div', { class: 'run-notices' });
  #shown = null;

  constructor({ edit, remove, stop }) {
    this.#stop = h('button', { class: 'button small', type: 'button', hidden: true, data: { testid: 'stop-change' }, on: { click: stop } }, 'Keep the present model');
    this.node = h(
      'header',
      null,
      h(
        'div',
        { class: 'run-header' },
        h(
          'div',
          { class: 'run-top' },
          h('h1', null, h('a', { class: 'crumb', href: '#/knowledge' }, 'Knowledge'), h('span', { class: 'crumb-mark', 'aria-hidden': 'true' }, '/'), this.#name, h('span', { class: 'run-id' }, this.#id, copyButton('Copy the id of the repository', () => String(this.#shown.id)))),
          h('dl', { class: 'facts' }, fact('Model', this.#model, this.#badge), fact('Documents', this.#documents), fact('Passages', this.#passages)),
          h(
            'div',
            { class: 'actions' },
            h('button', { class: 'button', type: 'button', data: { testid: 'edit-repository' }, on: { click: edit } }, 'Edit'),
            h('button', { class: 'button', type: 'button', data: { testid: 'delete-repository' }, on: { click: remove } }, 'Delete'),
          ),
        ),
        this.#bar,
        h('div', { class: 'run-line' }, this.#message, this.#stop),
      ),
      this.#problem,
    );
  }

  draw(repository) {
    const { id, name, description, embeddingModel, building, documents, pendingDocuments, chunks, language, chunkTokens } = repository;
    if (this.#shown?.embeddingModel !== embeddingModel) this.#badge.replaceChildren(lastResortBadge(embeddingModel) ?? '');
    this.#shown = repository;
    setText(this.#name, name);
    setAttribute(this.#name, 'title', name);
    setText(this.#id, `#${id}`);
    setText(this.#model, embeddingModel);
    setText(this.#documents, count(documents));
    setText(this.#passages, count(chunks));
    this.#stop.hidden = !building;
    const failed = Boolean(building?.error);
    setAttribute(this.#bar, 'aria-valuenow', building ? building.progress : null);
    setAttribute(this.#bar, 'data-status', failed ? 'failed' : building ? 'running' : null);
    this.#bar.firstChild.style.setProperty('transform', `scaleX(${(building?.progress ?? 0) / 100})`);
    const about = [description, pendingDocuments > 0 && `${plural(pendingDocuments, 'document')} being processed`, `Passages of up to ${count(chunkTokens)} tokens, ${language}`].filter(Boolean).join(' · ');
    const text = !building
      ? about
      : failed
        ? `The change to ${building.embeddingModel} failed: ${building.error}`
        : `Changing to ${building.embeddingModel}, ${building.progress} %. Searches use ${embeddingModel} until then.`;
    setText(this.#message, text);
    setAttribute(this.#message, 'title', text);
    setAttribute(this.#message, 'data-status', failed ? 'failed' : null);
  }

  complain(error) {
    this.#problem.replaceChildren(errorPanel(error));
  }
}

function fact(word, value, more) {
  return h('div', null, h('dt', null, word), value, more);
}

// On a narrow screen one pane is shown at a time.
class Tabs {
  #panes;
  #buttons;

  constructor(panes) {
    this.#panes = panes;
    this.#buttons = [
      ['documents', 'Documents'],
      ['playground', 'Search'],
    ].map(([name, word]) => h('button', { class: 'tab', type: 'button', data: { tab: name }, on: { click: () => this.choose(name) } }, word));
    this.node = h('div', { class: 'tabs two', role: 'group', 'aria-label': 'Parts of the page' }, this.#buttons);
  }

  choose(name) {
    this.#panes.dataset.tab = name;
    for (const button of this.#buttons) setAttribute(button, 'aria-pressed', String(button.dataset.tab === name));
  }

  count(documents) {
    setText(this.#buttons[0], documents > 0 ? `Documents (${count(documents)})` : 'Documents');
  }
}
