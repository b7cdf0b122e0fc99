// The passages that a prompt was given by a search, behind the numbers that its output
// cites them by.

import { loadChunk } from './api.js';
import { h, setText } from './dom.js';
import { plural } from './format.js';

/** A list of passages that can be opened. */
export class PassageList {
  #shown = null;
  #list = h('ol', { class: 'passages' });

  constructor() {
    this.node = h('details', { class: 'retrieval', hidden: true, data: { testid: 'passages' } }, h('summary'), this.#list);
  }

  /** Shows what was retrieved; null is nothing. */
  draw(retrieval) {
    const chunks = retrieval?.chunks ?? [];
    const cut = retrieval?.cut ?? [];
    const hidden = chunks.length + cut.length === 0;
    if (this.node.hidden !== hidden) this.node.hidden = hidden;
    if (this.#shown === chunks) return;
    this.#shown = chunks;
    setText(this.node.firstChild, plural(chunks.length, 'passage') + (cut.length > 0 ? `, ${cut.length} cut` : ''));
    this.#list.replaceChildren(...chunks.map((chunk) => passage(chunk, false)), ...cut.map((chunk) => passage(chunk, true)));
  }

  /** Opens the passage of a number, and tells whether there is one. */
  open(number) {
    const node = this.#list.querySelector(`[data-citation="${number}"]`);
    if (!node) return false;
    this.node.open = true;
    node.open = true;
    node.scrollIntoView({ block: 'nearest' });
    node.firstChild.focus();
    return true;
  }
}

function passage(chunk, cut) {
  const where = [chunk.headings, chunk.page ? `page ${chunk.page}` : ''].filter(Boolean).join(', ');
  const score = Math.round(100 * Math.min(1, Math.max(0, chunk.score)));
  const text = h('div', { class: 'literal passage-text' }, 'Loading');
  const node = h(
    'details',
    { class: 'passage', data: { citation: cut ? null : chunk.citation } },
    h(
      'summary',
      null,
      h('span', { class: 'passage-number' }, cut ? 'cut' : `[${chunk.citation}]`),
      h('span', { class: 'passage-name', title: where }, chunk.document ?? `document ${chunk.documentId}`),
      h('span', { class: 'passage-where' }, where),
      h('span', { class: 'passage-score', title: signals(chunk) }, h('span', { class: 'passage-bar' }, h('span', { data: { score } })), (score / 100).toFixed(2)),
    ),
    text,
  );
  // The page allows no style in markup; a property of the node is none.
  node.querySelector('[data-score]').style.setProperty('width', `${score}%`);
  node.addEventListener('toggle', async () => {
    if (!node.open || node.dataset.loaded) return;
    node.dataset.loaded = 'true';
    try {
      setText(text, (await loadChunk(chunk.chunkId)).text);
    } catch (error) {
      delete node.dataset.loaded;
      setText(text, error.status === 404 ? 'The document was deleted, or has a newer version.' : error.message);
    }
  });
  return node;
}

function signals(chunk) {
  const parts = [];
  if (chunk.vectorRank) parts.push(`vectors: place ${chunk.vectorRank}, ${chunk.vectorScore.toFixed(2)}`);
  if (chunk.keywordRank) parts.push(`words: place ${chunk.keywordRank}, ${chunk.keywordScore.toFixed(2)}`);
  if (chunk.rerankRank) parts.push(`rerank: place ${chunk.rerankRank}, ${chunk.rerankScore.toFixed(2)}`);
  return parts.join('; ');
}
