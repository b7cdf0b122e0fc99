import assert from 'node:assert/strict';
import { test } from 'node:test';

import { MOST_STREAMS, Watcher } from '../page/watcher.js';

// A watcher whose streams are only noted.
function watcher() {
  const open = new Map();
  const opened = [];
  const watched = new Watcher((id, lost) => {
    assert.ok(!open.has(id), `${id} is open twice`);
    open.set(id, lost);
    opened.push(id);
    assert.ok(open.size <= MOST_STREAMS, `${open.size} streams`);
    return () => open.delete(id);
  });
  return { watched, opened, ids: () => [...open.keys()], lose: (id) => { const lost = open.get(id); open.delete(id); lost(); } };
}

test('the first ones are watched, and the next one follows who is done', () => {
  const { watched, ids } = watcher();
  watched.want([1, 2, 3, 4, 5, 6]);
  assert.deepEqual(ids(), [1, 2, 3, 4]);
  assert.deepEqual(watched.waiting, [5, 6]);
  watched.want([1, 3, 4, 5, 6]);
  assert.deepEqual(ids(), [1, 3, 4, 5]);
  assert.deepEqual(watched.waiting, [6]);
});

test('a stream that is open stays open, whoever else comes first', () => {
  const { watched, ids, opened } = watcher();
  watched.want([1, 2, 3, 4]);
  watched.want([9, 1, 2, 3, 4]);
  assert.deepEqual(ids(), [1, 2, 3, 4]);
  assert.deepEqual(watched.waiting, [9]);
  assert.deepEqual(opened, [1, 2, 3, 4]);
});

test('a stream that is refused is not opened again, until the document is new', () => {
  const { watched, ids, lose, opened } = watcher();
  watched.want([1, 2, 3, 4, 5]);
  lose(2);
  assert.deepEqual(ids(), [1, 3, 4, 5]);
  assert.deepEqual(watched.waiting, [2]);
  watched.want([1, 2, 3]);
  assert.deepEqual(ids(), [1, 3]);
  watched.want([1, 3]);
  watched.want([1, 2, 3]);
  assert.deepEqual(opened, [1, 2, 3, 4, 5, 2]);
});

test('closing ends all streams', () => {
  const { watched, ids } = watcher();
  watched.want([1, 2]);
  watched.close();
  assert.deepEqual(ids(), []);
  assert.deepEqual(watched.waiting, []);
});
