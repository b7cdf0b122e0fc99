// The pane of events: the log as it is, newest last.

import { copyButton, h, setText } from './dom.js';
import { clock, exact, offset, plural } from './format.js';

// Rows beyond this are drawn on request only: thousands would make every
// layout of the page slow.
const SHOWN = 200;
const DELTAS = new Set(['prompt-delta', 'reasoning-delta']);

/** Shows a list of events, which may grow or be replaced. onChange asks for a draw. */
export class LogPane {
  #events = null;
  #drawn = 0;
  #all = false;
  #deltas = true;
  #hidden = 0;
  #following = true;
  #onChange;
  #count = h('h2', { class: 'log-count' }, 'Events');
  #box = h('input', { type: 'checkbox', checked: true, data: { testid: 'show-deltas' } });
  #more = h('button', { class: 'button small show-all', type: 'button', hidden: true, data: { testid: 'show-all' } });
  #empty = h('p', { class: 'hint log-hint' }, 'Every event appears here as it is stored.');
  #rows = h('div', { class: 'log-rows' });
  #scroller = h('div', { class: 'pane-scroll log-scroll', tabindex: 0, role: 'region', 'aria-label': 'Event log' }, this.#more, this.#empty, this.#rows);

  constructor({ onChange }) {
    this.#onChange = onChange;
    this.#box.addEventListener('change', () => {
      this.#deltas = this.#box.checked;
      this.#reset();
    });
    this.#more.addEventListener('click', () => {
      this.#all = true;
      this.#following = false;
      this.#reset();
      this.#scroller.scrollTop = 0;
    });
    this.#scroller.addEventListener('scroll', () => {
      this.#following = this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#scroller.clientHeight < 48;
    });
    this.node = h(
      'section',
      { class: 'pane log', 'aria-label': 'Events' },
      h('div', { class: 'pane-head' }, this.#count, h('label', { class: 'check' }, this.#box, h('span', null, 'text deltas'))),
      this.#scroller,
    );
  }

  draw(events) {
    const restarted = events !== this.#events || events.length < this.#drawn;
    if (!restarted && events.length === this.#drawn) return;
    if (restarted) this.#clear(events);
    const fresh = [];
    for (; this.#drawn < events.length; this.#drawn++) {
      const event = events[this.#drawn];
      if (this.#deltas || !DELTAS.has(event.type)) fresh.push(event);
    }
    this.#append(fresh);
    setText(this.#count, plural(events.length, 'event'));
    this.#empty.hidden = events.length > 0;
    this.shown();
  }

  /** Goes to the newest row, unless the user has scrolled away from it. */
  shown() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #append(fresh) {
    const room = this.#all ? Infinity : SHOWN;
    const skipped = Math.max(0, fresh.length - room);
    this.#hidden += skipped;
    const start = this.#events[0]?.data.timestamp;
    this.#rows.append(...fresh.slice(skipped).map((event) => eventRow(event, start)));
    for (; this.#rows.childElementCount > room; this.#hidden++) this.#rows.firstChild.remove();
    this.#more.hidden = this.#hidden === 0;
    setText(this.#more, `Show ${plural(this.#hidden, 'earlier event')}`);
  }

  #clear(events) {
    this.#events = events;
    this.#drawn = 0;
    this.#hidden = 0;
    this.#rows.replaceChildren();
  }

  #reset() {
    this.#events = null;
    this.#onChange();
  }
}

function eventRow({ seq, type, data }, start) {
  const row = h(
    'details',
    { class: 'event', data: { testid: 'event-row', seq, type, code: data.code } },
    h(
      'summary',
      null,
      h('span', { class: 'event-seq' }, seq),
      h('span', { class: 'event-type' }, type),
      h('span', { class: 'event-brief' }, brief(type, data)),
      h('span', { class: 'event-time', title: `${clock(data.timestamp)}, ${exact(data.timestamp)}` }, offset(start, data.timestamp)),
    ),
  );
  row.addEventListener('toggle', () => {
    if (row.childElementCount > 1) return;
    const json = JSON.stringify(data, null, 2);
    row.append(h('div', { class: 'event-json' }, copyButton(`Copy event ${seq}`, () => json), h('pre', null, json)));
  });
  return row;
}

// A few words that tell one event from the next of its kind.
function brief(type, data) {
  switch (type) {
    case 'execution-start':
      return data.toolName;
    case 'execution-error':
    case 'prompt-error':
    case 'llm-error':
      return data.code;
    case 'prompt-start':
      return data.promptName;
    case 'prompt-delta':
    case 'reasoning-delta':
      return data.text.slice(0, 60);
    case 'prompt-retry':
      return data.reason;
    case 'prompt-complete':
      return `${data.outputTokens} tok`;
    case 'progress':
      return `${Math.round(data.percentage)} %`;
    case 'variable-substitution':
      return Object.keys(data.variables ?? {}).join(', ');
    case 'knowledge-retrieved':
      return data.error ?? plural(data.documentsFound, 'document');
    case 'tool-execution-start':
    case 'tool-execution-complete':
      return data.toolName;
    case 'llm-request':
    case 'llm-response':
      return data.model;
    default:
      return '';
  }
}
