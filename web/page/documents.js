// The documents of a repository: how they come in, what becomes of them, live.

import * as api from './api.js';
import { confirmDialog, formDialog } from './dialogs.js';
import { announce, h, icon, setAttribute, setStatus, setText, skeleton, status, time } from './dom.js';
import { bytes, count } from './format.js';
import { Watcher } from './watcher.js';

const STATES = ['processing', 'ready', 'failed'];

const LEAST_COLUMNS = 3;

// The narrower the pane, the fewer of them are shown; their widths never change.
const COLUMNS = [
  ['Name', 'name-column'],
  ['Status', 'status-column'],
  ['Version', 'number version-column'],
  ['Passages', 'number passages-column'],
  ['Size', 'number size-column'],
  ['Changed', 'number changed-column'],
  ['Delete', 'action-column', true],
];

/**
 * The list of the documents of one repository. changed() is called when there may
 * be other counts of the repository than before.
 */
export class DocumentList {
  #view;
  #repository;
  #changed;
  #rows = new Map(); // by id of the document
  #added = []; // rows of this visit, newest first: they stand above the others
  #pages = 1;
  #status = '';
  #sending = Promise.resolve();
  #scroll;
  #table;
  #empty;
  #more = h('div', { class: 'pages' });
  #filter;
  #picker;
  #watcher;
  #loaded = false;

  constructor(view, repository, changed) {
    this.#view = view;
    this.#repository = repository;
    this.#changed = changed;
    this.#watcher = new Watcher((id, lost) => this.#stream(id, lost));
    view.onLeave(() => this.#watcher.close());

    this.#picker = h('input', { type: 'file', multiple: true, hidden: true, 'aria-label': 'Files', data: { testid: 'file-picker' } });
    this.#picker.addEventListener('change', () => {
      this.addFiles([...this.#picker.files]);
      this.#picker.value = '';
    });
    this.#filter = h(
      'select',
      { class: 'small-select', 'aria-label': 'Status of documents', data: { testid: 'status-filter' } },
      h('option', { value: '' }, 'all'),
      STATES.map((state) => h('option', { value: state }, state)),
    );
    this.#filter.addEventListener('change', () => {
      this.#status = this.#filter.value;
      this.#pages = 1;
      this.reload().catch(view.failed(this.#more));
    });
    this.#table = h(
      'table',
      { class: 'rows documents-table', hidden: true },
      h('thead', null, h('tr', null, COLUMNS.map(([word, style, hidden]) => h('th', { scope: 'col', class: style }, hidden ? h('span', { class: 'visually-hidden' }, word) : word)))),
    );
    this.#empty = this.#noDocuments();
    this.#scroll = h('div', { class: 'pane-scroll', role: 'region', tabindex: '0', 'aria-label': 'List of documents' }, h('div', { class: 'pane-pad', data: { placeholder: '' } }, skeleton(6)), this.#table, this.#empty, this.#more);
    this.node = h(
      'section',
      { class: 'pane documents', 'aria-label': 'Documents', data: { testid: 'documents' } },
      h(
        'div',
        { class: 'pane-head' },
        h('div', { class: 'text-title' }, h('h2', null, 'Documents'), this.#filter),
        h('div', { class: 'actions' }, this.#addButton(), h('button', { class: 'button small', type: 'button', data: { testid: 'add-text' }, on: { click: () => this.#addText() } }, 'Text'), h('button', { class: 'button small', type: 'button', data: { testid: 'add-address' }, on: { click: () => this.#addAddress() } }, 'Address'), this.#picker),
      ),
      this.#scroll,
      h('p', { class: 'drop-hint', 'aria-hidden': 'true' }, 'Drop files to add them'),
    );
    this.#acceptDrops();
  }

  /** Reports whether a document is being processed that no stream watches. */
  get waiting() {
    return this.#watcher.waiting.length > 0;
  }

  /** Brings the list up to date with the server. */
  async reload() {
    const { signal } = this.#view;
    const wanted = this.#status;
    const before = [...this.#rows]; // what arrives meanwhile is not in the answer
    const { items, nextCursor } = await api.firstPages((cursor) => api.listDocuments(this.#repository, { status: wanted, cursor, signal }), this.#pages);
    if (signal.aborted || wanted !== this.#status) return;
    const listed = new Set(items.map(({ id }) => id));
    // What was added in this visit stays, although it may stand on a later page.
    const stays = (row) => this.#added.includes(row) && (wanted ? row.document.status === wanted : Boolean(nextCursor));
    for (const item of items) this.#put(item);
    for (const [id, row] of before) if (!listed.has(id) && !stays(row)) this.#remove(id);
    if (nextCursor && !wanted) await this.#reloadAdded(listed);
    this.#order(items);
    this.#more.replaceChildren(...(nextCursor ? [this.#moreButton()] : []));
    this.#loaded = true;
    this.#settle();
  }

  // What was added in this visit may stand behind the pages that are shown.
  async #reloadAdded(listed) {
    const beyond = this.#added.filter((row) => row.document && row.document.status === 'processing' && !listed.has(row.document.id));
    await Promise.all(
      beyond.slice(0, 10).map(async ({ document: { id } }) => {
        try {
          this.#put(await api.loadDocument(this.#repository, id, this.#view.signal));
        } catch (error) {
          if (error.status === 404) this.#remove(id);
        }
      }),
    );
  }

  #order(items) {
    const rows = [...this.#added, ...items.map(({ id }) => this.#rows.get(id)).filter((row) => !this.#added.includes(row))];
    let place = this.#table.tHead;
    for (const { node } of rows) {
      if (place.nextSibling !== node) place.after(node);
      place = node;
    }
  }

  #put(item) {
    let row = this.#rows.get(item.id);
    if (!row) {
      row = this.#newRow();
      this.#rows.set(item.id, row);
      this.#table.append(row.node);
    }
    row.show(item);
    return row;
  }

  #newRow() {
    return new Row((row) => (row.document ? this.#delete(row.document) : this.#dismiss(row)));
  }

  #remove(id) {
    const row = this.#rows.get(id);
    if (!row) return;
    this.#rows.delete(id);
    this.#dismiss(row);
  }

  #dismiss(row) {
    this.#added = this.#added.filter((other) => other !== row);
    const next = row.node.nextElementSibling ?? row.node.previousElementSibling;
    const focused = row.node.contains(document.activeElement);
    row.node.remove();
    // Whoever deletes by keyboard goes on where they were.
    if (focused) (next?.querySelector('button') ?? this.node.querySelector('button')).focus();
    this.#settle();
  }

  // What follows from the rows: the streams, and whether there is a table at all.
  #settle() {
    const processing = [...this.#rows.values()].filter(({ document }) => document.status === 'processing').map(({ document }) => document.id);
    const added = new Set(this.#added.map((row) => row.document?.id));
    this.#watcher.want([...processing.filter((id) => added.has(id)), ...processing.filter((id) => !added.has(id))]);
    if (!this.#loaded) return;
    this.#scroll.querySelector('[data-placeholder]')?.remove();
    const none = this.#table.tBodies.length === 0;
    this.#table.hidden = none;
    this.#empty.hidden = !none;
    setText(this.#empty.querySelector('.empty-title'), this.#status ? `No document is ${this.#status}` : 'No documents yet');
  }

  #stream(id, lost) {
    const source = new EventSource(api.documentEventsPath(this.#repository, id));
    source.addEventListener('document', ({ data }) => {
      const item = JSON.parse(data);
      this.#put(item);
      if (item.status === 'processing') return;
      announce(`${item.name} is ${item.status}`);
      this.#settle();
      this.#changed();
    });
    source.addEventListener('error', () => {
      if (source.readyState === EventSource.CLOSED) lost();
    });
    return () => source.close();
  }

  /** Sends files one after another, each in a row of its own. */
  addFiles(files) {
    const rows = files.map((file) => {
      const row = this.#newRow();
      row.showFile(file);
      return row;
    });
    this.#added.unshift(...rows);
    this.#table.tHead.after(...rows.map(({ node }) => node));
    this.#loaded = true;
    this.#settle();
    for (const [index, row] of rows.entries()) this.#sending = this.#sending.then(() => this.#send(files[index], row));
  }

  async #send(file, row) {
    const { signal } = this.#view;
    if (signal.aborted || !row.node.isConnected) return;
    try {
      const { document, unchanged } = await api.uploadFile(this.#repository, file, { signal, sent: (part) => row.sending(part) });
      this.#arrived(document, unchanged, row);
    } catch (error) {
      if (error.name === 'AbortError') return;
      row.refuse(sentence(error));
      announce(`${file.name}: ${sentence(error)}`);
    }
  }

  // The row of a file, or a new one, becomes that of its document.
  #arrived(document, unchanged, row = this.#newRow()) {
    const before = this.#rows.get(document.id);
    if (before && before !== row) {
      this.#added = this.#added.filter((other) => other !== before);
      before.node.remove();
    }
    this.#rows.set(document.id, row);
    if (!this.#added.includes(row)) this.#added.unshift(row);
    if (!row.node.isConnected) this.#table.tHead.after(row.node);
    row.show(document);
    row.note(unchanged ? 'The same file was here already.' : '');
    this.#loaded = true;
    this.#settle();
    this.#changed();
  }

  #refuseFolders(folders) {
    for (const { name } of folders) {
      const row = this.#newRow();
      row.showFile({ name, size: null });
      row.refuse('It is a folder. chainstream knowledge add takes folders.');
      this.#added.unshift(row);
      this.#table.tHead.after(row.node);
    }
    this.#settle();
  }

  async #addText() {
    const added = await formDialog(this.#view, {
      title: 'Add a text',
      testid: 'text-form',
      inputs: [
        { name: 'name', type: 'short_text', label: 'Name', required: true, placeholder: 'notes.md', description: 'A document of the same name gets a new version.' },
        { name: 'text', type: 'long_text', label: 'Text', required: true },
      ],
      submit: 'Add',
      send: (values) => api.addDocument(this.#repository, values),
    });
    if (added) this.#arrived(added, added.unchanged);
  }

  async #addAddress() {
    const added = await formDialog(this.#view, {
      title: 'Add from an address',
      lead: 'The server fetches it: a page, a PDF or a text.',
      testid: 'address-form',
      inputs: [
        { name: 'url', type: 'short_text', label: 'Address', required: true, placeholder: 'https://' },
        { name: 'name', type: 'short_text', label: 'Name', placeholder: 'the address' },
      ],
      submit: 'Add',
      send: (values) => api.addDocument(this.#repository, values),
    });
    if (added) this.#arrived(added);
  }

  async #delete(document) {
    const yes = await confirmDialog(this.#view, {
      title: 'Delete this document?',
      text: `${document.name}: its passages are found no more.`,
      no: 'Keep it',
      yes: 'Delete document',
    });
    if (!yes) return;
    try {
      await api.deleteDocument(this.#repository, document.id);
    } catch (error) {
      if (error.status !== 404) {
        this.#rows.get(document.id)?.note(sentence(error));
        return;
      }
    }
    this.#remove(document.id);
    announce(`${document.name} is deleted`);
    this.#changed();
  }

  #moreButton() {
    const button = h('button', { class: 'button', type: 'button', data: { testid: 'more-documents' } }, 'More documents');
    button.addEventListener('click', () => {
      button.disabled = true;
      this.#pages++;
      this.reload().catch(this.#view.failed(this.#more));
    });
    return button;
  }

  #addButton(style = 'button small primary', word = 'Files') {
    return h('button', { class: style, type: 'button', data: { testid: 'add-files' }, on: { click: () => this.#picker.click() } }, icon('plus'), word);
  }

  #noDocuments() {
    return h(
      'div',
      { class: 'pane-pad', hidden: true, data: { testid: 'no-documents' } },
      h(
        'div',
        { class: 'empty' },
        h('p', { class: 'empty-title' }, 'No documents yet'),
        h('p', null, 'Drop files here: text, Markdown, HTML, PDF, DOCX, CSV, JSON.'),
        h('div', { class: 'actions' }, this.#addButton('button primary', 'Add files')),
      ),
    );
  }

  // Files may be dropped anywhere on the page; elsewhere the browser would open them.
  #acceptDrops() {
    const { signal, main } = this.#view;
    let depth = 0;
    const files = (event) => [...(event.dataTransfer?.types ?? [])].includes('Files');
    const mark = (by) => {
      depth = by === 0 ? 0 : Math.max(0, depth + by);
      setAttribute(this.node, 'data-dropping', depth > 0 ? 'true' : null);
    };
    main.addEventListener('dragenter', (event) => files(event) && mark(1), { signal });
    main.addEventListener('dragleave', (event) => files(event) && mark(-1), { signal });
    main.addEventListener('dragover', (event) => files(event) && event.preventDefault(), { signal });
    main.addEventListener(
      'drop',
      (event) => {
        if (!files(event)) return;
        event.preventDefault();
        mark(0);
        const folders = [...event.dataTransfer.items].filter(({ kind }) => kind === 'file').map((item) => item.webkitGetAsEntry?.()?.isDirectory ?? false);
        const dropped = [...event.dataTransfer.files];
        this.addFiles(dropped.filter((file, index) => !folders[index]));
        this.#refuseFolders(dropped.filter((file, index) => folders[index]));
      },
      { signal },
    );
  }
}

/** A problem in a sentence: its detail, and what it says about the fields. */
function sentence(error) {
  const details = (error.errors ?? []).map(({ pointer, detail }) => `${pointer.slice(1)} ${detail}`);
  return [error.message, details.join('; ')].filter(Boolean).join(' ');
}

// The row of a document, or of a file that is to become one, and what there is to
// say about it in a second row.
class Row {
  document = null;
  #name = h('span', { class: 'document-name', data: { testid: 'document-name' } });
  #note = h('p', { class: 'row-note', data: { testid: 'document-note' } });
  #notices = h('p', { class: 'row-note', data: { testid: 'document-notices' } });
  #error = h('p', { class: 'document-error', data: { testid: 'document-error' } });
  #status = status('processing', { data: { testid: 'document-status' } });
  #bar = h('div', { class: 'row-bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100, hidden: true }, h('div', { class: 'row-bar-fill' }));
  #version = h('td', { class: 'number version-column' });
  #passages = h('td', { class: 'number passages-column' });
  #size = h('td', { class: 'number size-column' });
  #changed = h('td', { class: 'number changed-column' });
  #changedAt = '';
  #words = h('tr', { hidden: true }, h('td', { colspan: LEAST_COLUMNS }, this.#note, this.#notices, this.#error));
  #button;

  constructor(remove) {
    this.#button = h('button', { class: 'icon-button row-button', type: 'button', data: { testid: 'delete-document' }, on: { click: () => remove(this) } }, icon('trash'));
    this.node = h(
      'tbody',
      { class: 'document', data: { testid: 'document-row' } },
      h(
        'tr',
        null,
        h('td', { class: 'name-column' }, this.#name, this.#bar),
        h('td', null, this.#status),
        this.#version,
        this.#passages,
        this.#size,
        this.#changed,
        h('td', { class: 'action-column' }, this.#button),
      ),
      this.#words,
    );
  }

  show(item) {
    // The list may have been read before what a stream has told since.
    if (this.document?.id === item.id && Date.parse(item.updatedAt) < Date.parse(this.document.updatedAt)) return;
    this.document = item;
    const { name, status: state, version, uploadedVersion, progress, error } = item;
    this.#shared(name, state, item.bytes);
    this.node.dataset.document = item.id;
    const behind = uploadedVersion > version && version > 0;
    setText(this.#version, behind ? `${version} → ${uploadedVersion}` : String(uploadedVersion));
    setAttribute(this.#version, 'title', behind ? `Version ${version} is found until version ${uploadedVersion} is ready` : null);
    setText(this.#passages, item.chunks > 0 ? count(item.chunks) : '–');
    setAttribute(this.#passages, 'title', item.tokens > 0 ? `${count(item.tokens)} tokens` : null);
    setText(this.#notices, item.notices.join(' '));
    if (state === 'failed') this.#complain(behind ? `Version ${uploadedVersion}: ${error} Version ${version} is still found.` : error);
    else this.#complain(error ?? '');
    if (state !== 'processing' && this.#changedAt !== item.updatedAt) {
      this.#changed.replaceChildren(time(item.updatedAt));
      this.#changedAt = item.updatedAt;
    }
    this.#progress(state === 'processing' ? progress : null);
  }

  /** Shows a file that waits to be sent. */
  showFile(file) {
    this.#shared(file.name, 'queued', file.size);
    for (const cell of [this.#version, this.#passages, this.#changed]) setText(cell, '–');
    this.#progress(null);
  }

  sending(part) {
    if (this.document) return;
    this.#setState('sending');
    this.#progress(Math.round(100 * part));
  }

  /** Shows why the server does not take a file. */
  refuse(text) {
    this.#setState('refused');
    this.#progress(null);
    setText(this.#changed, '–');
    this.#complain(text);
    this.#button.setAttribute('aria-label', `Forget ${this.#name.textContent}`);
    this.#button.replaceChildren(icon('close'));
  }

  note(text) {
    setText(this.#note, text);
    this.#say();
  }

  #shared(name, state, size) {
    setText(this.#name, name);
    setAttribute(this.#name, 'title', name);
    setText(this.#size, bytes(size));
    setAttribute(this.#size, 'title', size == null ? null : `${count(size)} bytes`);
    setAttribute(this.#button, 'aria-label', `Delete ${name}`);
    setAttribute(this.#button, 'title', 'Delete');
    this.#setState(state);
  }

  #setState(state) {
    setStatus(this.#status, state);
    this.node.dataset.state = state;
  }

  #progress(percent) {
    this.#bar.hidden = percent == null;
    if (percent == null) return;
    // In the place of the moment at which it will be ready.
    setText(this.#changed, `${percent} %`);
    this.#changedAt = '';
    setAttribute(this.#bar, 'aria-valuenow', percent);
    setAttribute(this.#bar, 'aria-label', this.#name.textContent);
    // The page allows no style in markup; a property of the node is none.
    this.#bar.firstChild.style.setProperty('transform', `scaleX(${percent / 100})`);
  }

  #complain(text) {
    setText(this.#error, text);
    this.#say();
  }

  #say() {
    this.#words.hidden = [this.#note, this.#notices, this.#error].every(({ textContent }) => textContent === '');
  }
}
