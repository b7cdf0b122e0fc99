// The page of one execution: the header, the three panes and the scrubber.
//
// Everything shown is a state that reducer.js folded. At the end of the log it
// is the live state; when the scrubber is moved, it is the fold of the events
// up to there. Events are folded as they arrive and drawn once per frame.

import * as api from './api.js';
import { copyButton, errorPanel, h, icon, setAttribute, setStatus, setText, status } from './dom.js';
import { chainAddress, chainName } from './executions.js';
import { inputValues } from './form.js';
import { cost, count, duration, exact, lineageText } from './format.js';
import { LogPane } from './log.js';
import { Scrubber } from './scrubber.js';
import { groups, initial, plan, reduce, restore, tokens } from './reducer.js';
import { StepsPane } from './steps.js';
import { follow } from './stream.js';
import { TextPane } from './text.js';

const TABS = [['steps', 'Steps'], ['text', 'Text'], ['events', 'Events']];

/** Shows one execution, live or replayed. ?prompt= in the address selects a prompt. */
export function executionPage(view, id, query) {
  const live = initial();
  let execution = null;
  let connection = 'connecting';
  let selected = Number(query.get('prompt')) || null;
  let cancelling = false;
  let starting = false;
  let frame = 0;
  let gone = false;

  const header = new Header(id, { onCancel: cancel, onRetry: () => startFrom(api.retryExecution, id) });
  const notices = h('div', { class: 'run-notices' });
  const inputs = h('details', { class: 'inputs' }, h('summary', null, 'Inputs'));
  const steps = new StepsPane({ onSelect: (promptId) => select(promptId, true) });
  const text = new TextPane({ onChange: invalidate, onFork: (promptId) => startFrom(api.forkExecution, id, promptId) });
  const log = new LogPane({ onChange: invalidate });
  const scrubber = new Scrubber(live, { onChange: invalidate });
  const tabs = tabBar();
  steps.node.append(inputs);
  inputs.hidden = true;
  const panes = h('div', { class: 'panes', data: { tab: 'text' } }, steps.node, text.node, log.node);
  view.main.replaceChildren(h('div', { class: 'run' }, header.node, notices, tabs.node, panes, scrubber.node));

  const stop = follow(id, {
    onEvent(event) {
      reduce(live, event);
      if (live.ended && execution?.foldedAt) restore(live, execution, false);
      invalidate();
      // A hidden page draws no frames, but its title is seen.
      if (live.ended) showTitle();
    },
    onConnection(next, problem) {
      connection = next;
      if (problem) fail(problem);
      invalidate();
    },
  });
  const ticker = setInterval(() => !live.ended && invalidate(), 1000);
  view.onLeave(() => {
    gone = true;
    stop();
    scrubber.stop();
    clearInterval(ticker);
    cancelAnimationFrame(frame);
  });
  Object.assign(view.keys, { j: () => step(1), k: () => step(-1), c: cancel });
  load();
  invalidate();

  // What the log cannot say: the inputs, and the prompts still to come.
  async function load() {
    try {
      execution = await api.loadExecution(id, view.signal);
      inputs.append(inputValues(execution.inputs));
      inputs.hidden = false;
      header.showRunAgain(`${chainAddress(execution.chainId, chainName(execution))}?from=${encodeURIComponent(id)}`);
      let prompts = execution.prompts ?? [];
      if (!prompts.some((prompt) => prompt.name)) {
        const chain = await api.loadChain(execution.chainId, { version: execution.chainVersion, signal: view.signal });
        prompts = chain.prompts ?? [];
      }
      plan(live, prompts);
      scrubber.planned = prompts;
      if (live.ended && execution.foldedAt) restore(live, execution, false);
    } catch (error) {
      // Without the plan the page still shows all that has happened.
      if (error.status === 404 && live.lastSeq === 0) fail(error);
    }
    invalidate();
  }

  function fail(error) {
    if (view.signal.aborted) return;
    stop();
    if (error.code === 'events_gone') {
      showRemoved();
      return;
    }
    view.title('Execution');
    if (live.lastSeq > 0) {
      notices.replaceChildren(errorPanel(error));
      return;
    }
    gone = true;
    clearInterval(ticker);
    cancelAnimationFrame(frame);
    view.main.replaceChildren(h('div', { class: 'page' }, h('header', { class: 'page-header' }, h('h1', null, `Execution ${id}`))));
    view.main.firstChild.append(errorPanel(error, h('a', { class: 'button', href: '#/executions' }, 'All executions')));
  }

  // The log is gone; what the execution resulted in is not.
  async function showRemoved() {
    notices.replaceChildren(
      h('p', { class: 'hint', role: 'status', data: { testid: 'events-removed' } }, 'The events of this execution were removed by the retention policy. Its results are kept and shown here.'),
    );
    try {
      execution = await api.loadExecution(id, view.signal);
      restore(live, execution, true);
    } catch (error) {
      if (!view.signal.aborted) notices.append(errorPanel(error));
    }
    invalidate();
  }

  function invalidate() {
    if (!gone) frame ||= requestAnimationFrame(draw);
  }

  function draw() {
    frame = 0;
    const state = scrubber.state();
    const prompt = state.prompts.get(selected) ?? focusOf(state);
    const past = state !== live;
    header.draw(state, { execution, connection, past, cancelling: cancelling && !live.ended, starting });
    steps.draw(state, prompt?.id, past);
    text.draw(state, prompt, { forkable: live.ended, starting });
    log.draw(state.events);
    scrubber.draw();
    if (!past) showTitle();
  }

  function showTitle() {
    const name = live.chain || (execution ? chainName(execution) : 'Execution');
    view.title(`${live.status} · ${name} #${id}`);
  }

  function select(promptId, show) {
    selected = promptId;
    const address = new URLSearchParams({ prompt: promptId });
    history.replaceState(null, '', `#/executions/${encodeURIComponent(id)}?${address}`);
    if (show) tabs.choose('text');
    invalidate();
  }

  function step(by) {
    const state = scrubber.state();
    const order = groups(state).flatMap((group) => group.prompts);
    if (order.length === 0) return;
    const now = order.indexOf(state.prompts.get(selected) ?? focusOf(state));
    const next = order[Math.max(0, Math.min(order.length - 1, now + by))];
    select(next.id, false);
    steps.reveal(next.id);
  }

  async function cancel() {
    if (live.ended || cancelling || !(await confirmed()) || live.ended) return;
    cancelling = true;
    invalidate();
    try {
      await api.cancelExecution(id);
      notices.replaceChildren();
    } catch (error) {
      cancelling = false;
      notices.replaceChildren(errorPanel(error));
      invalidate();
    }
  }

  // Starts an execution that comes from this one and goes to its page.
  async function startFrom(call, ...args) {
    if (starting || !live.ended) return;
    starting = true;
    invalidate();
    try {
      const { executionId } = await call(...args, api.requestKey());
      if (!gone) location.hash = `#/executions/${executionId}`;
    } catch (error) {
      notices.replaceChildren(errorPanel(error));
    }
    starting = false;
    invalidate();
  }

  function tabBar() {
    const buttons = TABS.map(([name, label]) => h('button', { type: 'button', class: 'tab', 'aria-pressed': String(name === 'text'), data: { testid: `tab-${name}` }, on: { click: () => choose(name) } }, label));
    function choose(name) {
      panes.dataset.tab = name;
      buttons.forEach((button, index) => button.setAttribute('aria-pressed', String(TABS[index][0] === name)));
      text.shown();
      log.shown();
    }
    return { node: h('div', { class: 'tabs', role: 'group', 'aria-label': 'Show' }, buttons), choose };
  }
}

// Without a choice of the user: what runs now, else what failed, else what came last.
function focusOf(state) {
  const order = groups(state).flatMap((group) => group.prompts);
  return (
    order.find((prompt) => prompt.state === 'running' || prompt.state === 'retrying') ??
    order.find((prompt) => prompt.state === 'failed') ??
    order.findLast((prompt) => prompt.attempt > 0) ??
    order[0]
  );
}

function confirmed() {
  const dialog = document.getElementById('confirm');
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}

class Header {
  #id;
  #title = h('span', { class: 'run-name' });
  #version = h('span', { class: 'version' });
  #status = status('queued', { data: { testid: 'execution-status' }, 'aria-live': 'polite' });
  #elapsed = fact('Elapsed', 'elapsed');
  #tokens = fact('Tokens', 'tokens');
  #cost = fact('Cost', 'cost');
  #lineage = h('a', { class: 'run-lineage', hidden: true, data: { testid: 'lineage' } });
  #retry = h('button', { class: 'button', type: 'button', hidden: true, title: 'Keep what has completed, run the rest', data: { testid: 'retry-button' } }, 'Retry');
  #runAgain = h('a', { class: 'button', hidden: true, data: { testid: 'run-again' } }, 'Run again');
  #cancel;
  #bar = h('div', { class: 'progress-bar' });
  #progress = h('div', { class: 'progress', role: 'progressbar', 'aria-label': 'Progress', 'aria-valuemin': 0, 'aria-valuemax': 100, data: { testid: 'progress' } }, this.#bar);
  #message = h('span', { class: 'run-message' });
  #connection = h('span', { class: 'connection', 'aria-live': 'polite', data: { testid: 'connection' } });

  constructor(id, { onCancel, onRetry }) {
    this.#id = id;
    this.#retry.addEventListener('click', onRetry);
    this.#cancel = h('button', { class: 'button', type: 'button', data: { testid: 'cancel-button' }, on: { click: onCancel } }, 'Cancel');
    this.node = h(
      'header',
      { class: 'run-header' },
      h(
        'div',
        { class: 'run-top' },
        h('h1', null, this.#title, this.#version, h('span', { class: 'run-id' }, `#${id}`, copyButton('Copy the execution id', () => String(id))), this.#lineage),
        this.#status,
        h('dl', { class: 'facts' }, this.#elapsed.node, this.#tokens.node, this.#cost.node),
        h('div', { class: 'actions' }, this.#retry, this.#runAgain, exportMenu(id), this.#cancel),
      ),
      this.#progress,
      h('div', { class: 'run-line' }, this.#message, this.#connection),
    );
  }

  showRunAgain(href) {
    this.#runAgain.href = href;
    this.#runAgain.hidden = false;
  }

  draw(state, { execution, connection, past, cancelling, starting }) {
    this.#drawLineage(state.lineage);
    this.#retry.hidden = past || !state.ended || state.status === 'completed';
    this.#retry.disabled = starting;
    const version = state.chainVersion || execution?.chainVersion;
    setText(this.#title, state.chain || (execution ? chainName(execution) : `Execution`));
    setText(this.#version, version ? `v${version}` : '');
    setStatus(this.#status, state.status);
    setText(this.#elapsed.value, elapsed(state, past));
    const { total, estimated } = tokens(state);
    setText(this.#tokens.value, `${estimated ? '≈ ' : ''}${count(total)}`);
    const dollars = cost(state.costUsd);
    this.#cost.node.hidden = dollars === '';
    setText(this.#cost.value, dollars);
    this.#cancel.hidden = state.ended || past;
    this.#cancel.disabled = cancelling;
    setText(this.#cancel, cancelling ? 'Cancelling' : 'Cancel');
    this.#drawProgress(state);
    setText(this.#connection, past ? `as of event ${state.lastSeq}` : connectionText(connection, state));
    setAttribute(this.#connection, 'data-state', past ? 'past' : connection);
  }

  #drawLineage(lineage) {
    this.#lineage.hidden = !lineage;
    if (!lineage) return;
    setText(this.#lineage, lineageText(lineage));
    setAttribute(this.#lineage, 'href', `#/executions/${lineage.parent}`);
  }

  #drawProgress({ progress, status: word, error, wakeAt }) {
    const percentage = Math.round(progress.percentage);
    setAttribute(this.#progress, 'aria-valuenow', percentage);
    setAttribute(this.#progress, 'data-status', word);
    const scale = `scaleX(${progress.percentage / 100})`;
    if (this.#bar.style.transform !== scale) this.#bar.style.transform = scale;
    const waiting = word === 'waiting' && wakeAt ? `Waiting until ${exact(wakeAt)}` : progress.message;
    const message = word === 'queued' ? 'Waiting for a worker' : waiting;
    setText(this.#message, error ? sentence(error) : message);
    setAttribute(this.#message, 'data-status', word);
    setAttribute(this.#message, 'title', error?.message);
  }
}

// What went wrong, with its code; that a cancelled execution was cancelled is said already.
const sentence = ({ message, code }) => (code && code !== 'cancelled' ? `${message} (${code})` : message);

function fact(label, testid) {
  const value = h('dd', { data: { testid } }, '–');
  return { node: h('div', null, h('dt', null, label), value), value };
}

function elapsed(state, past) {
  if (!state.startedAt) return '–';
  if (state.ended) return duration(state.duration);
  const now = past ? Date.parse(state.events.at(-1)?.data.timestamp) : Date.now() + api.clockSkew();
  return duration(Math.max(0, now - Date.parse(state.startedAt)), true);
}

function connectionText(connection, state) {
  switch (connection) {
    case 'reconnecting':
      return `reconnecting, last event ${state.lastSeq}`;
    case 'ended':
      return 'end of the log';
    case 'lost':
      return 'disconnected';
    default:
      return connection;
  }
}

function exportMenu(id) {
  const problem = h('p', { class: 'problem', role: 'alert' });
  const download = (label, accept, extension) =>
    h('button', { type: 'button', class: 'menu-item', data: { testid: `export-${extension}` }, on: { click: () => save(accept, extension) } }, label);

  async function save(accept, extension) {
    problem.textContent = '';
    try {
      const url = URL.createObjectURL(await api.downloadEvents(id, accept));
      h('a', { href: url, download: `execution-${id}.${extension}` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
      menu.open = false;
    } catch (error) {
      problem.textContent = error.message;
    }
  }

  const menu = h(
    'details',
    { class: 'menu', data: { testid: 'export-menu' } },
    h('summary', { class: 'button' }, 'Log', icon('chevron')),
    h(
      'div',
      { class: 'menu-body' },
      download('Download NDJSON', 'application/x-ndjson', 'ndjson'),
      download('Download CSV', 'text/csv', 'csv'),
      h('a', { class: 'menu-item', href: api.eventsPath(id), target: '_blank' }, 'Open as JSON'),
      h('a', { class: 'menu-item', href: `/events/${encodeURIComponent(id)}`, target: '_blank' }, 'Open the raw stream'),
      problem,
    ),
  );
  menu.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    menu.open = false;
    menu.firstChild.focus();
  });
  menu.addEventListener('focusout', (event) => {
    if (event.relatedTarget && !menu.contains(event.relatedTarget)) menu.open = false;
  });
  return menu;
}
