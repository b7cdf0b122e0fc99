// The npm package eventsource as a foreign client: it knows nothing of this
// project, and resumes by itself through a connection that breaks.

import assert from 'node:assert/strict';
import { createServer, connect } from 'node:net';
import { once } from 'node:events';
import { after, before, test } from 'node:test';

import { EventSource } from 'eventsource';

import { EVENT_TYPES } from '../../web/page/reducer.js';
import { Server, asLine } from './server.mjs';

const CHAIN = 'research-brief';
const INPUTS = { topic: 'river deltas' };
let server;

before(async () => {
  server = await Server.start(['--offline-pace', '5ms']);
});
after(async () => {
  if (server) assert.equal(await server.stop(), 0, 'exit code of the server');
});

test('reads a whole run by the names of its events', { timeout: 60_000 }, async () => {
  const id = await server.trigger(CHAIN, INPUTS);
  const { journal, opened } = await read(`${server.url}/events/${id}`);
  assert.deepEqual(journal.map(asLine), await server.log(id));
  assert.equal(journal.at(-1).type, 'execution-complete');
  // The second connection was answered with 204, which does not count as open.
  assert.equal(opened, 1);
});

test('follows a document to its end and stops there', { timeout: 60_000 }, async () => {
  const post = async (path, body) =>
    (await fetch(server.url + path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) })).json();
  const { id } = await post('/api/v1/repositories', { name: 'followed', embeddingModel: 'offline/hash', chunkTokens: 16 });
  const text = Array.from({ length: 4000 }, (_, i) => `Sentence number ${i} of a long text.`).join(' ');
  const { id: document } = await post(`/api/v1/repositories/${id}/documents`, { name: 'long.txt', text });
  const source = new EventSource(`${server.url}/api/v1/repositories/${id}/documents/${document}/events`);
  const states = [];
  let opened = 0;
  source.addEventListener('open', () => opened++);
  source.addEventListener('document', (event) => states.push(JSON.parse(event.data)));
  // It closes itself at the 204.
  await new Promise((resolve) => {
    source.addEventListener('error', () => {
      if (source.readyState === EventSource.CLOSED) resolve();
    });
  });
  const last = states.at(-1);
  assert.equal(last.status, 'ready');
  assert.ok(last.chunks > 1000, `${last.chunks} chunks`);
  assert.ok(states.every(({ progress }, i) => i === 0 || progress >= states[i - 1].progress), 'progress never falls');
  assert.equal(opened, 1);
});

test('follows a repository, and misses nothing while it is away', { timeout: 60_000 }, async () => {
  const send = (method, path, body) =>
    fetch(server.url + path, { method, headers: { 'Content-Type': 'application/json' }, body: body && JSON.stringify(body) });
  const { id } = await (await send('POST', '/api/v1/repositories', { name: 'watched', embeddingModel: 'offline/hash' })).json();
  const add = async (name) => (await (await send('POST', `/api/v1/repositories/${id}/documents`, { name, text: `About ${name}.` })).json()).id;
  const proxy = await Proxy.start(server.url, [4000]); // the first connection is cut off, after the first document
  const source = new EventSource(`${proxy.url}/api/v1/repositories/${id}/events`);
  const states = new Map();
  let wake = () => {};
  const note = (of) => ({ data }) => {
    states.set(JSON.parse(data).id, of ?? JSON.parse(data).status);
    wake();
  };
  source.addEventListener('document', note());
  source.addEventListener('document-deleted', note('deleted'));
  const until = async (is) => {
    while (!is()) await new Promise((resolve) => { wake = resolve; });
  };
  try {
    const first = await add('first.txt');
    await until(() => states.get(first) === 'ready');
    const kept = [first];
    for (let i = 0; i < 20; i++) kept.push(await add(`kept${i}.txt`));
    const gone = await add('gone.txt');
    await until(() => states.get(gone) === 'ready');
    assert.equal((await send('DELETE', `/api/v1/repositories/${id}/documents/${gone}`)).status, 204);
    await until(() => states.get(gone) === 'deleted' && kept.every((document) => states.get(document) === 'ready'));
    assert.equal(proxy.requests.length, 2);
    assert.match(proxy.requests[1], /^last-event-id: [\d:,]+-\w+/im);
  } finally {
    source.close();
    await proxy.stop();
  }
});

test('goes on from an empty repository', { timeout: 60_000 }, async () => {
  const send = (method, path, body) =>
    fetch(server.url + path, { method, headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
  const { id } = await (await send('POST', '/api/v1/repositories', { name: 'empty', embeddingModel: 'offline/hash' })).json();
  const documents = `/api/v1/repositories/${id}/documents`;
  const proxy = await Proxy.start(server.url, [1200]); // cut off by the states of the document
  const source = new EventSource(`${proxy.url}/api/v1/repositories/${id}/events`);
  const first = (name) => new Promise((resolve) => { source.addEventListener(name, resolve, { once: true }); });
  try {
    const { lastEventId, data } = await first('documents-unchanged');
    assert.match(lastEventId, /^[\d:,]+-\w+$/);
    assert.deepEqual(JSON.parse(data), { repositoryId: id });
    const ready = new Promise((resolve) => {
      source.addEventListener('document', (event) => { if (JSON.parse(event.data).status === 'ready') resolve(); });
    });
    await send('POST', documents, { name: 'a.txt', text: 'The tide rises.' });
    await ready;
    while (proxy.requests.length < 2) await send('POST', documents, { name: 'a.txt', text: `The tide rises ${proxy.requests.length}, ${Date.now()}.` });
    assert.match(proxy.requests[1], /^last-event-id: [\d:,]+-\w+/im);
  } finally {
    source.close();
    await proxy.stop();
  }
});

test('resumes through a connection that breaks', { timeout: 60_000 }, async () => {
  // Each of the first connections is cut after so many bytes of the answer,
  // most likely in the middle of an event.
  const proxy = await Proxy.start(server.url, [2000, 3500, 6000]);
  try {
    const id = await server.trigger(CHAIN, INPUTS);
    const { journal, opened } = await read(`${proxy.url}/events/${id}`);
    assert.deepEqual(journal.map(asLine), await server.log(id));
    assert.equal(opened, 4);
    // What it said when it came back, the last time for the 204.
    const cursors = proxy.requests.map((head) => Number(/^last-event-id: (\d+)$/im.exec(head)?.[1] ?? 0));
    assert.equal(cursors.length, 5);
    assert.equal(cursors[0], 0);
    assert.ok(cursors.every((cursor, i) => i === 0 || cursor > cursors[i - 1]), `cursors grow: ${cursors}`);
    assert.equal(cursors.at(-1), journal.length);
  } finally {
    await proxy.stop();
  }
});

/**
 * Reads a stream until the client itself gives up, which 204 makes it do.
 * Answers the events in the order of their arrival and how often it was open.
 */
function read(url) {
  return new Promise((resolve, reject) => {
    const journal = [];
    let opened = 0;
    const source = new EventSource(url);
    source.addEventListener('open', () => {
      opened += 1;
    });
    for (const type of EVENT_TYPES) {
      source.addEventListener(type, (event) => journal.push({ id: event.lastEventId, type: event.type, data: event.data }));
    }
    source.addEventListener('message', (event) => reject(new Error(`an event without a name: ${event.data}`)));
    source.addEventListener('error', (error) => {
      if (source.readyState !== EventSource.CLOSED) return;
      if (error.code === 204) resolve({ journal, opened });
      else reject(new Error(`the client gave up: ${error.code} ${error.message}`));
    });
  });
}

/** A TCP proxy that cuts its first connections. */
class Proxy {
  url = '';
  requests = []; // the head of each
  #listener;
  #sockets = new Set();

  static async start(target, cuts) {
    const proxy = new Proxy();
    const { hostname, port } = new URL(target);
    proxy.#listener = createServer((client) => proxy.#serve(client, connect(Number(port), hostname), cuts));
    proxy.#listener.listen(0, '127.0.0.1');
    await once(proxy.#listener, 'listening');
    proxy.url = `http://127.0.0.1:${proxy.#listener.address().port}`;
    return proxy;
  }

  // The client keeps a connection for one request, because the server closes it.
  #serve(client, upstream, cuts) {
    const index = this.requests.push('') - 1;
    let left = cuts[index] ?? Infinity;
    const hangUp = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket);
      socket.on('error', hangUp);
      socket.on('close', () => this.#sockets.delete(socket));
    }
    client.on('data', (bytes) => {
      this.requests[index] += bytes.toString('latin1');
      upstream.write(bytes);
    });
    client.on('end', () => upstream.end());
    upstream.on('end', () => client.end());
    upstream.on('data', (bytes) => {
      if (bytes.length < left) {
        left -= bytes.length;
        client.write(bytes);
      } else {
        upstream.pause();
        client.write(bytes.subarray(0, left), hangUp);
      }
    });
  }

  async stop() {
    for (const socket of this.#sockets) socket.destroy();
    this.#listener.close();
    await once(this.#listener, 'close');
  }
}
