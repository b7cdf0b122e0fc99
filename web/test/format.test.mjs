import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bytes, cost, count, duration, lineageText, plural, relative } from '../page/format.js';
import { inputList, inputOf } from '../page/form.js';

test('durations', () => {
  const cases = [[0, '0 ms'], [840, '840 ms'], [3210, '3.2 s'], [59_940, '59.9 s'], [59_960, '1 min 00 s'], [245_000, '4 min 05 s'], [7_800_000, '2 h 10 min'], [null, '–'], [NaN, '–']];
  for (const [ms, want] of cases) assert.equal(duration(ms), want);
  assert.equal(duration(840, true), '0 s');
  assert.equal(duration(59_999, true), '59 s');
  assert.equal(duration(119_999, true), '1 min 59 s');
});

test('sizes', () => {
  const cases = [[0, '0 B'], [1023, '1023 B'], [1024, '1 KB'], [25_711, '25 KB'], [1_048_000, '1023 KB'], [1_048_500, '1.0 MB'], [3_565_158, '3.4 MB'], [33_554_432, '32 MB'], [5 * 2 ** 40, '5.0 TB'], [null, '–'], [NaN, '–']];
  for (const [n, want] of cases) assert.equal(bytes(n), want);
});

test('relative times', () => {
  const now = Date.parse('2026-03-01T00:00:00Z');
  const cases = [[0, 'just now'], [-30, 'just now'], [12, '12 s ago'], [240, '4 min ago'], [7200, '2 h ago'], [200_000, '2 d ago'], [40 * 86_400, '2026-01-20']];
  for (const [seconds, want] of cases) assert.equal(relative(now - seconds * 1000, now), want);
});

test('counts and costs', () => {
  assert.equal(count(1204), '1,204');
  assert.equal(plural(1, 'event'), '1 event');
  assert.equal(plural(0, 'event'), '0 events');
  const cases = [['0.0016', '$0.0016'], [1.5, '$1.50'], ['0', '$0'], [null, ''], ['', ''], ['x', '']];
  for (const [value, want] of cases) assert.equal(cost(value), want);
});

test('inputs of a chain come as a list, by name or not', () => {
  assert.deepEqual(inputList({ b: { type: 'number' }, a: { type: 'json' } }), [{ type: 'number', name: 'b' }, { type: 'json', name: 'a' }]);
  assert.deepEqual(inputList([{ name: 'a' }]), [{ name: 'a' }]);
  assert.deepEqual(inputList(undefined), []);
});

test('a JSON pointer names its input', () => {
  const cases = [['/inputs/topic', 'topic'], ['/inputs/tags/0', 'tags'], ['/inputs/a~1b~0c', 'a/b~c'], ['/chain', ''], ['', ''], [undefined, ''], ['/inputs', '']];
  for (const [pointer, want] of cases) assert.equal(inputOf(pointer), want);
});

test('where an execution comes from', () => {
  assert.equal(lineageText({ parent: 41, origin: 'retry', from: '' }), 'retry of 41');
  assert.equal(lineageText({ parent: 41, origin: 'fork', from: 'draft' }), 'fork of 41 from draft');
});
