// Three servers on one PostgreSQL behind nginx. A browser and a client from npm
// follow an execution while the servers under them are killed and stopped.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import { EventSource } from 'eventsource';

import { EVENT_TYPES } from '../../web/page/reducer.js';
import { launch, openPage } from './browser.mjs';
import { Model } from './model.mjs';
import { Nginx, documented } from './nginx.mjs';
import { Server, asLine } from './server.mjs';

const PATIENCE = 60_000;
const MOVES = 3; // before all servers are killed at once
let model;
let store; // runs the database and nothing else
let servers = [];
let nginx;
let browser;

before(async () => {
  browser = await launch();
  model = await Model.start();
  store = await Server.start(['--workers', '0']);
  for (let i = 0; i < 3; i++) servers.push(await replica());
  nginx = await Nginx.start(servers.map(({ addr }) => addr));
});
after(async () => {
  await browser?.close();
  await nginx?.stop();
  const codes = await Promise.all(servers.map((server) => server.stop()));
  await model?.stop();
  codes.push(await store?.stop());
  assert.deepEqual(codes.filter((code) => code !== 0), [], 'exit codes of the servers');
});

async function replica(addr) {
  const env = { DATABASE_URL: await store.databaseURL(), OPENAI_BASE_URL: model.url, OPENAI_API_KEY: 'sk-none' };
  return Server.start(['--shutdown-timeout', '1s'], env, addr);
}

/** Ends a server and answers what starts another one in its place. */
async function end(server, signal) {
  const { addr } = server;
  await server.stop(signal);
  servers = servers.filter((other) => other !== server);
  return async () => servers.push(await replica(addr));
}

async function until(what, holds) {
  for (const deadline = Date.now() + PATIENCE; !(await holds()); await pause(20)) {
    if (Date.now() > deadline) throw new Error(`waited in vain until ${what}`);
  }
}

/** Follows an execution with the client of docs/events.md on the EventSource of npm. */
async function followInNode(id) {
  const { username, password } = nginx.credentials;
  const authorization = `Basic ${btoa(`${username}:${password}`)}`;
  globalThis.EventSource = class extends EventSource {
    constructor(url) {
      super(url, { fetch: (target, init) => fetch(target, { ...init, headers: { ...init.headers, authorization } }) });
    }
  };
  const { follow } = await import(`data:text/javascript,${encodeURIComponent(await documented('events.md', 'js'))}`);
  const journal = [];
  const states = [];
  const ended = new Promise((resolve) => {
    follow(`${nginx.url}/events/${id}`, EVENT_TYPES, (type, seq, data) => journal.push({ id: seq, type, data }), (state) => {
      states.push(state);
      if (state === 'ended') resolve();
    });
  });
  return { journal, states, ended };
}

test('a browser and a client are moved between three servers in the middle of a run', { timeout: 2 * PATIENCE }, async () => {
  await servers[0].call('POST', '/api/v1/chains', {
    name: 'moved',
    prompts: [
      { name: 'First', position: 1, model: 'openai/driven', content: 'first' },
      { name: 'Second', position: 2, model: 'openai/driven', content: 'after ${first}' },
    ],
  });
  const visit = await openPage(browser, nginx, { httpCredentials: nginx.credentials });
  const { page } = visit;
  page.setDefaultTimeout(PATIENCE);
  const connection = page.locator('[data-testid="connection"]');

  // Who answered the page's stream, and with what.
  const answers = [];
  page.on('response', (response) => {
    if (!new URL(response.url()).pathname.startsWith('/events/')) return;
    const upstream = response.headers()['x-upstream']?.split(', ').at(-1);
    answers.push({ status: response.status(), upstream });
  });
  const streams = () => answers.filter(({ status }) => status === 200);

  await page.goto(`${nginx.url}/#/chains/moved`);
  await page.locator('[data-testid="run-button"]').click();
  await page.waitForURL(/#\/executions\/\d+/);
  const id = Number(/executions\/(\d+)/.exec(page.url())[1]);
  const client = await followInNode(id);
  await page.locator('[data-testid="plain-text"]').click();
  await page.evaluate(() => {
    globalThis.seen = { states: [], texts: [] };
    new MutationObserver(() => {
      const line = document.querySelector('[data-testid="connection"]');
      const state = `${line.dataset.state}: ${line.textContent}`;
      if (globalThis.seen.states.at(-1) !== state) globalThis.seen.states.push(state);
      if (document.querySelector('h2.text-name')?.textContent === 'Second') globalThis.seen.texts.push(document.querySelector('[data-testid="prompt-text"]').textContent);
    }).observe(document.body, { attributes: true, childList: true, characterData: true, subtree: true });
  });

  const first = await model.next();
  first.write('one');
  first.end();
  const attempts = [];
  let call;
  const write = async (word) => {
    call.write(word);
    attempts[attempts.length - 1] += word;
    await page.waitForFunction(
      (want) => document.querySelector('h2.text-name')?.textContent === 'Second' && document.querySelector('[data-testid="prompt-text"]').textContent === want,
      attempts.at(-1),
    );
  };
  // A new attempt begins with words that no other has.
  const attempt = async () => {
    call = await model.next();
    assert.equal(call.prompt, 'after one');
    attempts.push('');
    await write(`attempt ${attempts.length} begins, `);
  };
  await attempt();

  for (let move = 1; move <= MOVES; move++) {
    const { upstream } = streams().at(-1);
    const serving = servers.find(({ addr }) => addr === upstream);
    assert.ok(serving, `${upstream} serves the page`);
    const owner = Number((await store.value(`SELECT lease_owner FROM executions WHERE id = ${id}`)).split('/')[1]);
    const before = streams().length;
    // The owner hands its executions over when it is stopped the polite way.
    const restart = await end(serving, serving.pid === owner ? 'SIGTERM' : 'SIGKILL');
    if (serving.pid === owner) await attempt();
    else await write(`while move ${move} goes on, `);
    await until('the page is moved', () => streams().length > before);
    await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
    assert.notEqual(streams().at(-1).upstream, upstream);
    await write(`after move ${move}, `);
    await restart();
  }

  // Nobody is left to answer: nginx says 502, which ends an EventSource for good.
  const restarts = await Promise.all([...servers].map((server) => end(server, 'SIGKILL')));
  await until('the page has seen a 502', () => answers.at(-1).status === 502);
  assert.match(await connection.textContent(), /^reconnecting, last event \d+$/);
  for (const restart of restarts) await restart();
  await attempt();
  await write('the end');
  call.end();
  await page.locator('[data-testid="execution-status"][data-status="completed"]').waitFor();
  await client.ended;

  // What was seen is what is stored.
  const log = await store.log(id);
  assert.deepEqual(client.journal.map(asLine), log);
  assert.equal(client.states.at(-1), 'ended');
  assert.ok(client.states.includes('reconnecting'));
  const rows = await page.locator('[data-testid="event-row"]').evaluateAll((nodes) => nodes.map(({ dataset }) => `${dataset.seq} ${dataset.type}`));
  assert.deepEqual(rows, log.map((line) => JSON.parse(line)).map(({ id: seq, event }) => `${seq} ${event}`));

  // The page showed the text of one attempt at a time and nothing else, and said what it was doing.
  const { prompts } = await store.execution(id);
  assert.deepEqual(prompts.map(({ output }) => output), ['one', attempts.at(-1)]);
  const seen = await page.evaluate(() => globalThis.seen);
  for (const text of seen.texts) assert.ok(attempts.some((whole) => whole.startsWith(text)), `the page showed what no attempt wrote: ${text}`);
  assert.equal(await page.locator('[data-testid="prompt-text"]').textContent(), attempts.at(-1));
  const breaks = seen.states.filter((state) => state.startsWith('reconnecting: reconnecting, last event '));
  assert.ok(breaks.length > MOVES, `the status line said: ${seen.states.join('; ')}`);
  assert.equal(await connection.getAttribute('data-state'), 'ended');
  const faults = await visit.faults();
  const expected = /^console: Failed to load resource: .*(502|net::ERR_INCOMPLETE_CHUNKED_ENCODING)/;
  assert.deepEqual(faults.filter((fault) => !expected.test(fault)), []);
  await visit.close();
});
