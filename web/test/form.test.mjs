import './stub.mjs';

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { modelOptions } from '../page/embeddings.js';
import { inputOf } from '../page/form.js';

test('a problem belongs to the input below the root of its form', () => {
  const cases = [['/name', '', 'name'], ['/a~1b/0', '', 'a/b'], ['', '', ''], [undefined, '', ''], ['/outer/name', '/outer', 'name'], ['/outer', '/outer', '']];
  for (const [pointer, root, want] of cases) assert.equal(inputOf(pointer, root), want);
});

test('models that can be called come first, the last resort last of them, and the others say why not', () => {
  const model = (id, more = {}) => ({ id, label: `label of ${id}`, configured: true, available: true, ...more });
  const options = modelOptions([model('gemini/e', { configured: false, available: false }), model('offline/hash'), model('ollama/e', { available: false }), model('offline/use-lite')]);
  assert.deepEqual(
    options.map(({ value, label, group }) => [value, label.slice(value.length), group]),
    [
      ['offline/use-lite', ' · label of offline/use-lite', 'Can be called'],
      ['offline/hash', ' · last resort: knows no meaning', 'Can be called'],
      ['gemini/e', ' · not set up', 'Cannot be called from here'],
      ['ollama/e', ' · does not answer', 'Cannot be called from here'],
    ],
  );
});
