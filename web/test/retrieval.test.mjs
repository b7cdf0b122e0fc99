import assert from 'node:assert/strict';
import { test } from 'node:test';

import { account, failures, place, readAddress, relevance, removed, share, signals, summary, writeAddress } from '../page/retrieval.js';

const address = (text) => new URLSearchParams(text);
const explanation = (more = {}) => ({
  vector: { asked: true, queries: [], scans: [] },
  keyword: { asked: true, terms: [] },
  matched: [],
  removed: [],
  candidates: 50,
  timingsMs: { embed: 0, search: 12.3, rerank: 0, neighbours: 0.01, explain: 4 },
  ...more,
});

test('a search goes into the address and comes back from it', () => {
  const values = { query: 'how & why? <b>', search: 'vector', limit: 3, threshold: 0.25, maxTokens: 900, perDocument: 2, neighbours: 1, filter: { year: 2026 } };
  const query = writeAddress('', values);
  const { limit, threshold, maxTokens, perDocument, neighbours, ...texts } = readAddress(address(query.toString()));
  assert.deepEqual(texts, { query: values.query, search: 'vector', filter: { year: 2026 } });
  assert.deepEqual([limit, threshold, maxTokens, perDocument, neighbours].map(Number), [3, 0.25, 900, 2, 1]);
});

test('the address leaves out what is the default, and keeps what is not of the search', () => {
  assert.equal(writeAddress('other=1&q=old&limit=3', { query: 'new', search: 'hybrid' }).toString(), 'other=1&q=new');
  assert.equal(writeAddress('q=old', { query: 'x'.repeat(2001) }).toString(), '');
});

test('an address that makes no sense is no search', () => {
  assert.deepEqual(readAddress(address('search=magic&filter=%7Bno&q=&limit=')), {});
  assert.deepEqual(readAddress(address('limit=many')), { limit: 'many' }); // the field says what is wrong
});

test('signals are those by which a passage was found', () => {
  assert.deepEqual(signals({ vector: 0.7, vectorRank: 1, keyword: null, keywordRank: null }), [{ name: 'vectors', rank: 1, score: 0.7 }]);
  assert.deepEqual(signals({ keyword: 0.6, keywordRank: 2, rerank: 0.9, rerankRank: 1 }).map(({ name }) => name), ['words', 'rerank']);
  assert.deepEqual(signals(), []);
});

test('scores have bounds, and a threshold goes by the better signal', () => {
  assert.deepEqual([share(0.5), share(-1), share(7), share(NaN), share(undefined)], [0.5, 0, 1, 0, 0]);
  assert.equal(relevance({ vector: 0.2, keyword: 0.6 }), 0.6);
  assert.equal(relevance({ vector: null, keyword: null }), 0);
});

test('a place is headings and page, where there are any', () => {
  assert.equal(place({ headings: 'A > B', page: 3 }), 'A > B · page 3');
  assert.equal(place({ headings: '', page: null }), '');
});

test('what was left out stands by reason, in the order of the work', () => {
  const passages = ['limit', 'threshold', 'limit', 'filter', 'maxTokens', 'perDocument', 'rerank', 'new-reason'].map((reason, chunkId) => ({ chunkId, reason }));
  const groups = removed({ explanation: explanation({ removed: passages }) }, { threshold: 0.5, maxTokens: 1200, perDocument: 2 });
  assert.deepEqual(groups.map(({ text }) => text), [
    '1 not what the filter asks for',
    '1 below the threshold of 0.5',
    '1 beyond 2 of one document',
    '2 beyond the limit of 10',
    '1 too far behind to be given to the rerank server',
    '1 without room in 1,200 tokens',
    '1 new-reason',
  ]);
  assert.deepEqual(groups[3].passages.map(({ chunkId }) => chunkId), [0, 2]);
  assert.deepEqual(removed({}, {}), []);
});

test('what failed is said once', () => {
  const queries = [{ model: 'openai/x', error: 'no key' }, { model: 'openai/x', error: 'no key' }, { model: 'offline/use-lite' }];
  const answer = { degraded: 'By words alone.', explanation: explanation({ vector: { asked: true, queries, scans: [] }, rerank: { error: 'too slow' } }) };
  assert.deepEqual(failures(answer), ['By words alone.', 'openai/x could not embed the query: no key', 'The rerank server failed: too slow']);
  assert.deepEqual(failures({ explanation: explanation({ rerank: {} }) }), []);
});

test('the account says how each side searched', () => {
  const x = explanation({
    vector: { asked: true, queries: [{ model: 'm', parts: ['a', 'b'], cached: true }], scans: [{ answered: 'index' }] },
    keyword: { asked: true, terms: [{ word: 'fish', weight: 1.26 }] },
  });
  const facts = Object.fromEntries(account({ explanation: x, tokens: 1200, tokenCount: 'estimated' }, 20.4));
  assert.deepEqual(facts, {
    Vectors: 'm, asked in 2 parts, its vector was known; the index answered',
    Words: 'fish 1.3',
    Candidates: 'up to 50 of each way',
    Tokens: '≈ 1,200 with citations',
    Time: 'searching 12 ms, explaining 4.0 ms, 20 ms in all',
  });
  const words = Object.fromEntries(account({ explanation: explanation({ vector: { asked: false, queries: [], scans: [] } }), tokens: 0, tokenCount: 'exact' }, 1));
  assert.deepEqual([words.Vectors, words.Words, words.Tokens], ['not asked', 'none that the language counts', '0 with citations']);
  assert.deepEqual(account({}, 1), []);
});

test('the line above the results', () => {
  assert.equal(summary({ results: [{}], tokens: 1, tokenCount: 'exact' }, 12.6), '1 passage · 1 token · 13 ms');
});
