// The line below an execution on which the whole page moves through its log.

import { h, icon, setAttribute, setText } from './dom.js';
import { count, duration } from './format.js';
import { fold, reduce } from './reducer.js';

// A replay keeps the pace of the run, but nobody waits for a slow model twice.
const LONGEST_PAUSE = 800;

/** Chooses the state that the page shows: the live one, or an earlier one. */
export class Scrubber {
  /** Prompts known from the chain, shown before their first event. */
  planned = [];
  #live;
  #past = null;
  #timer = 0;
  #onChange;
  #range = h('input', { type: 'range', min: 1, max: 1, step: 1, 'aria-label': 'Event', data: { testid: 'scrubber' } });
  #label = h('span', { class: 'scrubber-label' });
  #play = h('button', { class: 'button', type: 'button', data: { testid: 'replay' } }, icon('runs'), h('span', null, 'Replay'));
  #latest = h('button', { class: 'button', type: 'button', data: { testid: 'latest' } }, 'Live');

  constructor(live, { onChange }) {
    this.#live = live;
    this.#onChange = onChange;
    this.#range.addEventListener('input', () => {
      this.stop();
      this.#show(Number(this.#range.value));
    });
    this.#play.addEventListener('click', () => (this.#timer ? this.stop() : this.#replay()));
    this.#latest.addEventListener('click', () => this.#leave());
    this.node = h('footer', { class: 'scrubber', role: 'group', 'aria-label': 'Replay' }, this.#play, this.#range, this.#label, this.#latest);
  }

  /** The state to show. */
  state() {
    return this.#past ?? this.#live;
  }

  /** Stops a running replay where it is. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#onChange();
  }

  draw() {
    const { events, ended, startedAt } = this.#live;
    const at = this.#past ? this.#past.events.length : events.length;
    const moment = events[at - 1]?.data.timestamp;
    setAttribute(this.#range, 'max', Math.max(1, events.length));
    if (this.#range.value !== String(at)) this.#range.value = String(at);
    setAttribute(this.#range, 'aria-valuetext', `event ${at} of ${events.length}`);
    this.#range.disabled = events.length < 2;
    this.#play.disabled = events.length < 2;
    setText(this.#play.lastChild, this.#timer ? 'Pause' : 'Replay');
    const offset = moment && startedAt ? duration(Math.max(0, Date.parse(moment) - Date.parse(startedAt))) : '–';
    setText(this.#label, `${count(at)} / ${count(events.length)} · ${offset}`);
    setText(this.#latest, ended ? 'End' : 'Live');
    setAttribute(this.#latest, 'aria-pressed', this.#past === null);
    setAttribute(this.node, 'data-past', this.#past !== null);
  }

  #show(length) {
    const { events } = this.#live;
    if (length >= events.length && !this.#timer) {
      this.#past = null;
    } else if (this.#past && this.#past.events.length <= length) {
      for (const event of events.slice(this.#past.events.length, length)) reduce(this.#past, event);
    } else this.#past = fold(events.slice(0, length), this.planned);
    this.#onChange();
  }

  #leave() {
    this.#past = null;
    this.stop();
  }

  #replay() {
    const start = this.#past ? this.#past.events.length : 1;
    this.#timer = 1;
    this.#show(start);
    this.#next();
  }

  #next() {
    const { events } = this.#live;
    const at = this.#past.events.length;
    if (at >= events.length) {
      this.#leave();
      return;
    }
    const pause = Date.parse(events[at].data.timestamp) - Date.parse(events[at - 1].data.timestamp);
    this.#timer = setTimeout(() => {
      this.#show(at + 1);
      this.#next();
    }, Math.max(0, Math.min(LONGEST_PAUSE, pause || 0)));
  }
}
