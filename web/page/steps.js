// The pane of steps: a row for each prompt, grouped by position.

import { clockSkew } from './api.js';
import { demoBadge, h, setAttribute, setStatus, setText, skeleton, status } from './dom.js';
import { count, duration, plural } from './format.js';
import { groups, isDemoModel } from './reducer.js';

/** Shows the prompts of a state; a row is a button that selects its prompt. */
export class StepsPane {
  #list = h('ol', { class: 'positions' }, skeleton(4));
  #rows = new Map();
  #shape = '';
  #onSelect;

  constructor({ onSelect }) {
    this.#onSelect = onSelect;
    this.node = h('section', { class: 'pane steps', 'aria-label': 'Steps' }, this.#list);
  }

  draw(state, selected, past) {
    const all = groups(state);
    if (all.length === 0) return;
    const shape = JSON.stringify(all.map((group) => [group.position, group.prompts.map((prompt) => prompt.id)]));
    if (shape !== this.#shape) this.#build(all);
    this.#shape = shape;
    const last = state.events.at(-1)?.data.timestamp;
    const now = past ? Date.parse(last) : Date.now() + clockSkew();
    for (const prompt of state.prompts.values()) this.#rows.get(prompt.id).draw(prompt, prompt.id === selected, now);
  }

  /** Scrolls the row of a prompt into view. */
  reveal(id) {
    this.#rows.get(id)?.node.scrollIntoView({ block: 'nearest' });
  }

  #build(all) {
    const old = this.#rows;
    this.#rows = new Map();
    this.#list.replaceChildren(
      ...all.map(({ position, prompts }) => {
        const nodes = prompts.map((prompt) => {
          const row = old.get(prompt.id) ?? new Row(prompt.id, this.#onSelect);
          this.#rows.set(prompt.id, row);
          return row.node;
        });
        const parallel = prompts.length > 1;
        return h(
          'li',
          { class: 'position', data: { testid: 'position' } },
          h('span', { class: 'position-number', 'aria-label': `Position ${position}` }, position),
          h(
            'div',
            { class: parallel ? 'siblings parallel' : 'siblings', role: 'group', 'aria-label': parallel ? `${plural(prompts.length, 'prompt')} in parallel` : null },
            nodes,
          ),
        );
      }),
    );
  }
}

class Row {
  #status = status('queued');
  #name = h('span', { class: 'step-name' });
  #model = h('span', { class: 'step-model' });
  #badge = demoBadge('demo');
  #note = h('span', { class: 'step-note' });
  #duration = h('span', { class: 'step-duration' });
  #tokens = h('span', { class: 'step-tokens' });

  constructor(id, onSelect) {
    this.node = h(
      'button',
      { class: 'step', type: 'button', data: { testid: 'prompt-row', prompt: id }, on: { click: () => onSelect(id) } },
      h('span', { class: 'step-head' }, this.#name, this.#duration),
      h('span', { class: 'step-line' }, this.#status, this.#note),
      h('span', { class: 'step-line step-foot' }, this.#model, this.#badge, this.#tokens),
    );
  }

  draw(prompt, selected, now) {
    setAttribute(this.node, 'data-state', prompt.state);
    setAttribute(this.node, 'aria-current', selected ? 'true' : null);
    setStatus(this.#status, prompt.state);
    setText(this.#name, prompt.name);
    setAttribute(this.#name, 'title', prompt.name);
    setText(this.#model, prompt.model);
    setAttribute(this.#model, 'title', prompt.model);
    this.#badge.hidden = !isDemoModel(prompt.model);
    setText(this.#note, note(prompt));
    setAttribute(this.#note, 'title', noteTitle(prompt));
    setText(this.#duration, time(prompt, now));
    const total = prompt.inputTokens + prompt.outputTokens;
    setText(this.#tokens, total > 0 ? `${prompt.estimated ? '≈ ' : ''}${count(total)} tok` : '');
    setAttribute(this.#tokens, 'title', total > 0 ? `${count(prompt.inputTokens)} in, ${count(prompt.outputTokens)} out` : null);
  }
}

function note(prompt) {
  if (prompt.reusedFrom) return `from #${prompt.reusedFrom}`;
  if (prompt.attempt > 1) return `try ${prompt.attempt}`;
  return prompt.cached ? 'cached' : '';
}

function noteTitle(prompt) {
  if (prompt.reusedFrom) return `taken over from execution ${prompt.reusedFrom}, not paid again`;
  if (prompt.attempt > 1) return `attempt ${prompt.attempt}`;
  return prompt.cached ? 'answered from the cache, not paid again' : null;
}

function time(prompt, now) {
  if (prompt.duration != null) return duration(prompt.duration);
  if (!prompt.startedAt || prompt.state === 'skipped') return '';
  return duration(Math.max(0, now - Date.parse(prompt.startedAt)), true);
}
