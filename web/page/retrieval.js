// A search of a repository: what is asked, how the address says it, and what the
// answer means in words. Pure functions.

import { count, plural } from './format.js';

/** The fields of a search, as inputForm takes them. */
export const SEARCH_INPUTS = [
  { name: 'query', type: 'long_text', label: 'Query', required: true },
  { name: 'search', type: 'select', label: 'Search by', required: true, default: 'hybrid', options: [
    { value: 'hybrid', label: 'hybrid: both' },
    { value: 'vector', label: 'vector' },
    { value: 'keyword', label: 'keyword' },
  ] },
  { name: 'limit', type: 'number', label: 'Passages', placeholder: '10', min: 1, max: 100 },
  { name: 'threshold', type: 'number', label: 'Threshold', placeholder: '0', min: 0, max: 1 },
  { name: 'maxTokens', type: 'number', label: 'Tokens together', placeholder: 'any', min: 1, more: true },
  { name: 'perDocument', type: 'number', label: 'Of one document', placeholder: 'any', min: 1, max: 100, more: true },
  { name: 'neighbours', type: 'number', label: 'Neighbours', placeholder: '0', min: 0, max: 5, more: true },
  { name: 'filter', type: 'json', label: 'Filter', placeholder: '{"year": 2026}', description: 'what the metadata of documents must contain', more: true },
];

// A longer query is not written into the address, which not every program takes.
const LONGEST = 2000;

/** The values of a search that an address names, as they stand in the form. */
export function readAddress(query) {
  const values = {};
  for (const { name, type, options } of SEARCH_INPUTS) {
    const text = query.get(name === 'query' ? 'q' : name);
    if (text == null || text === '') continue;
    if (options && !options.some(({ value }) => value === text)) continue;
    const value = type === 'json' ? parsed(text) : text;
    if (value !== undefined) values[name] = value;
  }
  return values;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The address of a search, whose values are those that are sent; other parts of it stay. */
export function writeAddress(before, values) {
  const query = new URLSearchParams(before);
  for (const { name, type, default: missing } of SEARCH_INPUTS) {
    const key = name === 'query' ? 'q' : name;
    const value = values[name];
    query.delete(key);
    if (value == null || value === missing) continue;
    const text = type === 'json' ? JSON.stringify(value) : String(value);
    if (text.length <= LONGEST) query.set(key, text);
  }
  return query;
}

/** How a passage was found: [{name, rank, score}], the score from 0 to 1. */
export function signals({ vector, vectorRank, keyword, keywordRank, rerank, rerankRank } = {}) {
  return [
    { name: 'vectors', rank: vectorRank, score: vector },
    { name: 'words', rank: keywordRank, score: keyword },
    { name: 'rerank', rank: rerankRank, score: rerank },
  ].filter(({ rank }) => rank != null);
}

/** What a threshold goes by: the better of the two signals of a passage. */
export const relevance = ({ vector, keyword } = {}) => Math.max(share(vector), share(keyword));

/** A score in its bounds. */
export const share = (score) => (Number.isFinite(score) ? Math.min(1, Math.max(0, score)) : 0);

/** Where in a document a passage stands. */
export const place = ({ headings, page }) => [headings, page ? `page ${page}` : ''].filter(Boolean).join(' · ');

const REASONS = {
  filter: () => 'not what the filter asks for',
  threshold: ({ threshold }) => `below the threshold of ${threshold}`,
  perDocument: ({ perDocument }) => `beyond ${perDocument} of one document`,
  limit: ({ limit = 10 }) => `beyond the limit of ${limit}`,
  rerank: () => 'too far behind to be given to the rerank server',
  maxTokens: ({ maxTokens }) => `without room in ${count(maxTokens ?? 0)} tokens`,
};

/** What was found and left out, by reason, in the order of the work: [{reason, text, passages}]. */
export function removed(answer, request) {
  const passages = answer.explanation?.removed ?? [];
  const reasons = new Set([...Object.keys(REASONS), ...passages.map(({ reason }) => reason)]);
  return [...reasons]
    .map((reason) => ({ reason, passages: passages.filter((passage) => passage.reason === reason) }))
    .filter(({ passages: some }) => some.length > 0)
    .map(({ reason, passages: some }) => ({ reason, passages: some, text: `${count(some.length)} ${REASONS[reason]?.(request) ?? reason}` }));
}

/** What did not work although there is an answer, a sentence each, none twice. */
export function failures({ degraded, explanation }) {
  const sentences = [
    degraded,
    ...(explanation?.vector.queries ?? []).filter(({ error }) => error).map(({ model, error }) => `${model} could not embed the query: ${error}`),
    explanation?.rerank?.error && `The rerank server failed: ${explanation.rerank.error}`,
  ].filter(Boolean);
  return sentences.filter((text, index) => !sentences.some((other, at) => at !== index && other.includes(text) && (other !== text || at < index)));
}

/** How the answer came about: [[name, text]]. */
export function account({ explanation: x, tokens, tokenCount }, elapsed) {
  if (!x) return [];
  const facts = [];
  for (const query of x.vector.queries) {
    const known = query.cached ? ', its vector was known' : '';
    facts.push(['Vectors', `${query.model}${query.parts.length > 1 ? `, asked in ${query.parts.length} parts` : ''}${known}${x.vector.scans.some(({ answered }) => answered === 'index') ? '; the index answered' : '; every vector was compared'}`]);
  }
  if (!x.vector.asked) facts.push(['Vectors', 'not asked']);
  const terms = x.keyword.terms.map(({ word, weight }) => `${word} ${weight.toFixed(1)}`).join(', ');
  facts.push(['Words', x.keyword.asked ? terms || 'none that the language counts' : 'not asked']);
  facts.push(['Candidates', `up to ${count(x.candidates)} of each way`]);
  facts.push(['Tokens', `${tokenCount === 'estimated' ? '≈ ' : ''}${count(tokens)} with citations`]);
  const times = Object.entries({ embedding: x.timingsMs.embed, searching: x.timingsMs.search, reranking: x.timingsMs.rerank, neighbours: x.timingsMs.neighbours, explaining: x.timingsMs.explain })
    .filter(([, ms]) => ms >= 0.05)
    .map(([name, ms]) => `${name} ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`);
  facts.push(['Time', [...times, `${Math.round(elapsed)} ms in all`].join(', ')]);
  return facts;
}

/** The line above the results. */
export function summary({ results, tokens, tokenCount }, elapsed) {
  return [plural(results.length, 'passage'), `${tokenCount === 'estimated' ? '≈ ' : ''}${plural(tokens, 'token')}`, `${Math.round(elapsed)} ms`].join(' · ');
}
