// The pane of text: what the selected prompt has written so far.

import { copyButton, demoBadge, h, setAttribute, setStatus, setText, skeleton, status } from './dom.js';
import { count, duration, exact, plural } from './format.js';
import { MarkdownView } from './markdown.js';
import { PassageList } from './passages.js';
import { isDemoModel } from './reducer.js';

// Text that is dear to lay out is drawn less often, so that the page stays quick.
const SHARE_OF_TIME = 8;

/** Shows one prompt of a state. onChange asks for another draw. */
export class TextPane {
  #prompt = null;
  #plain = false;
  #nextDraw = 0;
  #following = false;
  #timer = 0;
  #onChange;
  #name = h('h2', { class: 'text-name' });
  #status = status('queued');
  #model = h('span', { class: 'step-model' });
  #badge = demoBadge();
  #notes = h('span', { class: 'text-notes' });
  #variables = h('details', { class: 'variables' }, h('summary'), h('dl', { class: 'values' }));
  #shownVariables = null;
  #passages = new PassageList();
  #reasoning = h('details', { class: 'reasoning' }, h('summary', null, 'Reasoning'), h('div', { class: 'literal' }));
  #problem = h('p', { class: 'notice notice-error', data: { testid: 'prompt-error' } });
  #body = h('div', { class: 'text-body', dir: 'auto', data: { testid: 'prompt-text' } }, skeleton(6));
  #hint = h('p', { class: 'hint text-hint' });
  #markdown;
  #fork = h('button', { class: 'button small', type: 'button', hidden: true, title: 'Keep what stands before this prompt, run it and the rest again', data: { testid: 'fork-button' } }, 'Fork from here');
  #toggle = h('button', { class: 'button small', type: 'button', 'aria-pressed': 'false', data: { testid: 'plain-text' } }, 'Plain');
  #scroller;

  constructor({ onChange, onFork }) {
    this.#onChange = onChange;
    this.#fork.addEventListener('click', () => onFork(this.#prompt.id));
    this.#toggle.addEventListener('click', () => {
      this.#plain = !this.#plain;
      this.#nextDraw = 0;
      setAttribute(this.#toggle, 'aria-pressed', this.#plain);
      onChange();
    });
    this.#variables.addEventListener('toggle', () => this.#drawVariables());
    this.#scroller = h('div', { class: 'pane-scroll text-scroll', tabindex: 0, role: 'region', 'aria-label': 'Output' }, this.#variables, this.#passages.node, this.#reasoning, this.#body, this.#problem, this.#hint);
    this.#body.addEventListener('click', (event) => {
      const cite = event.target.closest('[data-cite]');
      if (cite) this.#passages.open(cite.dataset.cite);
    });
    this.#scroller.addEventListener('scroll', () => {
      this.#following = this.#scroller.scrollHeight - this.#scroller.scrollTop - this.#scroller.clientHeight < 48;
    });
    this.node = h(
      'section',
      { class: 'pane text', 'aria-label': 'Text' },
      h(
        'div',
        { class: 'pane-head' },
        h('div', { class: 'text-title' }, this.#name, this.#status),
        h('div', { class: 'actions' }, this.#fork, this.#toggle, copyButton('Copy the output', () => this.#prompt?.text ?? '')),
      ),
      h('p', { class: 'text-facts' }, this.#model, this.#badge, this.#notes),
      this.#scroller,
    );
    for (const part of [this.#variables, this.#reasoning, this.#problem, this.#hint, this.#badge]) part.hidden = true;
  }

  draw(state, prompt, { forkable, starting }) {
    if (!prompt) return;
    show(this.#fork, forkable);
    this.#fork.disabled = starting;
    const changed = prompt.id !== this.#prompt?.id;
    this.#prompt = prompt;
    const running = prompt.state === 'running' || prompt.state === 'retrying';
    setText(this.#name, prompt.name);
    setStatus(this.#status, prompt.state);
    setText(this.#model, prompt.model);
    show(this.#badge, isDemoModel(prompt.model));
    const notes = notesOf(prompt).join(' · ');
    setText(this.#notes, notes);
    setAttribute(this.#notes, 'title', notes);
    const failed = prompt.state === 'failed' && prompt.error !== null;
    show(this.#problem, failed);
    setText(this.#problem, failed ? `${prompt.error.message}${prompt.error.code ? ` (${prompt.error.code})` : ''}` : '');
    const hint = hintOf(prompt);
    setText(this.#hint, hint);
    show(this.#hint, hint !== '');
    this.#drawVariables();
    this.#passages.draw(prompt.retrieval);
    setAttribute(this.#body, 'data-cites', prompt.retrieval?.chunks?.length > 0 ? 'true' : null);
    this.#drawText(prompt, changed, running);
  }

  #drawText(prompt, changed, running) {
    const now = performance.now();
    clearTimeout(this.#timer);
    if (!changed && running && now < this.#nextDraw) {
      this.#timer = setTimeout(this.#onChange, this.#nextDraw - now);
      return;
    }
    if (!this.#markdown) {
      this.#body.replaceChildren();
      this.#markdown = new MarkdownView(this.#body);
    }
    this.#markdown.show(prompt.text, this.#plain);
    setAttribute(this.#body, 'data-live', running ? 'true' : null);
    show(this.#reasoning, prompt.reasoning !== '');
    if (this.#reasoning.open || changed) setText(this.#reasoning.lastChild, prompt.reasoning);
    if (changed) {
      this.#following = running;
      this.#scroller.scrollTop = 0;
    }
    if (running) this.shown();
    this.#nextDraw = now + (performance.now() - now) * SHARE_OF_TIME;
  }

  /** Goes to the last word while one is awaited, unless the user has scrolled away from it. */
  shown() {
    if (this.#following) this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  #drawVariables() {
    const variables = this.#prompt?.variables;
    const names = Object.keys(variables ?? {});
    show(this.#variables, names.length > 0);
    setText(this.#variables.firstChild, plural(names.length, 'variable'));
    if (!this.#variables.open || this.#shownVariables === variables) return;
    this.#shownVariables = variables;
    this.#variables.lastChild.replaceChildren(...names.flatMap((name) => [h('dt', null, name), h('dd', null, h('span', { class: 'literal' }, String(variables[name])))]));
  }
}

function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

function notesOf(prompt) {
  const notes = [];
  if (prompt.reusedFrom) notes.push(`taken over from execution ${prompt.reusedFrom}, not paid again`);
  else if (prompt.cached) notes.push('answered from the cache, not paid again');
  const retry = prompt.retries.at(-1);
  if (retry) notes.push(`attempt ${retry.attempt} replaced the one before: ${retry.reason}`);
  const { retrieval } = prompt;
  if (retrieval && !retrieval.done) notes.push('searching knowledge');
  else if (retrieval?.error && !retrieval.documents) notes.push(`nothing from knowledge: ${retrieval.error}`);
  else if (retrieval?.error) notes.push(`knowledge in part: ${retrieval.error}`);
  else if (retrieval && !retrieval.documents) notes.push('no passage was found');
  else if (retrieval) notes.push(`${plural(retrieval.documents, 'document')}, mean score ${retrieval.score.toFixed(2)}`);
  for (const tool of prompt.tools) notes.push(toolNote(tool));
  return notes;
}

function toolNote(tool) {
  if (!tool.done) return `${tool.name} is running`;
  if (!tool.success) return `${tool.name} failed${tool.error ? `: ${tool.error}` : ''}`;
  return `${tool.name} in ${duration(tool.duration)}`;
}

function hintOf(prompt) {
  if (prompt.truncated) return `Only the first ${count(prompt.text.length)} characters are in the log.`;
  if (prompt.state === 'cancelled') return prompt.text === '' ? 'Cancelled before the first word.' : 'Cancelled here.';
  if (prompt.text !== '') return prompt.finishReason === 'length' ? 'The model stopped at its token limit.' : '';
  switch (prompt.state) {
    case 'queued':
      return prompt.position > 1 ? `Starts when position ${prompt.position - 1} has ended.` : 'Has not started yet.';
    case 'skipped':
      return 'Was not run.';
    case 'retrying':
      if (prompt.retries.at(-1)?.until) return `Waiting until ${exact(prompt.retries.at(-1).until)} for attempt ${prompt.attempt}.`;
      return `Attempt ${prompt.attempt} starts ${prompt.retries.at(-1)?.delay > 0 ? `in ${duration(prompt.retries.at(-1).delay)}` : 'now'}.`;
    case 'completed':
      return 'The model wrote nothing.';
    default:
      return '';
  }
}
