// Calls of the HTTP API. Every failure is a Problem.

/** An answer that was not a success, or no answer at all (status 0). */
export class Problem extends Error {
  /** @param {{status: number, code?: string, title?: string, detail: string, errors?: {pointer: string, detail: string}[]}} fields */
  constructor({ status, code = '', title = '', detail, errors = [] }) {
    super(detail);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
    this.title = title;
    this.errors = errors;
  }
}

/** Chains: {items, nextCursor}. */
export function listChains({ cursor, signal } = {}) {
  const query = new URLSearchParams({ limit: 50 });
  if (cursor) query.set('cursor', cursor);
  return call(`/api/v1/chains?${query}`, { signal });
}

/** A chain by id or name, at its newest version or at the given one. */
export function loadChain(id, { version, signal } = {}) {
  const query = version ? `?version=${encodeURIComponent(version)}` : '';
  return call(`/api/v1/chains/${encodeURIComponent(id)}${query}`, { signal });
}

/** Saves a new chain document. */
export const createChain = (chain) => call('/api/v1/chains', { method: 'POST', body: chain });

/** Executions, newest first: {items, nextCursor}. Empty filters are left out. */
export function listExecutions({ status, chain, limit = 25, cursor, signal } = {}) {
  const query = new URLSearchParams({ limit });
  if (status) query.set('status', status);
  if (chain) query.set('chain', chain);
  if (cursor) query.set('cursor', cursor);
  return call(`/api/v1/executions?${query}`, { signal });
}

/** One execution as it is now. */
export const loadExecution = (id, signal) => call(`/api/v1/executions/${encodeURIComponent(id)}`, { signal });

/**
 * Starts an execution of the version that is shown. With the same key the server answers with the same
 * execution, so a repeated click or a lost answer cannot start two.
 */
export const startExecution = ({ id, version }, inputs, key) =>
  call('/api/v1/executions', { method: 'POST', body: { chain: id, version, inputs }, headers: { 'Idempotency-Key': key } });

/** A passage of a document. */
export const loadChunk = (id) => call(`/api/v1/chunks/${encodeURIComponent(id)}`);

/** Asks the server to stop an execution. The log says when it has. */
export const cancelExecution = (id) => call(`/api/v1/executions/${encodeURIComponent(id)}/cancel`, { method: 'POST' });

/** A new execution that takes over what had completed and runs the rest. */
export const retryExecution = (id, key) =>
  call(`/api/v1/executions/${encodeURIComponent(id)}/retry`, { method: 'POST', headers: { 'Idempotency-Key': key } });

/** A new execution that takes over what stands before a prompt and runs the rest. */
export const forkExecution = (id, fromPrompt, key) =>
  call(`/api/v1/executions/${encodeURIComponent(id)}/fork`, { method: 'POST', body: { fromPrompt }, headers: { 'Idempotency-Key': key } });

/** The address of an execution's whole log as JSON pages. */
export const eventsPath = (id) => `/api/v1/executions/${encodeURIComponent(id)}/events`;

/** Fails with the server's Problem when the events after seq can never be had. */
export const probeEvents = (id, seq, signal) => call(`${eventsPath(id)}?after=${seq}&limit=1`, { signal });

/** The whole log of an execution in the given media type. */
export const downloadEvents = async (id, accept) => (await send(eventsPath(id), { headers: { Accept: accept } })).blob();

/** The models that can be named: {items, embeddings, providers}. */
export const listModels = (signal) => call('/api/v1/models', { signal });

/** Repositories, oldest first: {items, nextCursor}. */
export function listRepositories({ cursor, signal } = {}) {
  const query = new URLSearchParams({ limit: 50 });
  if (cursor) query.set('cursor', cursor);
  return call(`/api/v1/repositories?${query}`, { signal });
}

const repositoryPath = (id) => `/api/v1/repositories/${encodeURIComponent(id)}`;
const documentPath = (repository, id) => `${repositoryPath(repository)}/documents/${encodeURIComponent(id)}`;

/** A repository as it is now. */
export const loadRepository = (id, signal) => call(repositoryPath(id), { signal });

/** Makes a repository. The server calls its embedding model once. */
export const createRepository = (repository) => call('/api/v1/repositories', { method: 'POST', body: repository });

/** Changes name, description and, in the background, the embedding model. */
export const updateRepository = (id, fields) => call(repositoryPath(id), { method: 'PUT', body: fields });

/** Deletes a repository with all its documents. */
export const deleteRepository = (id) => call(repositoryPath(id), { method: 'DELETE' });

/** Documents of a repository, oldest first: {items, nextCursor}. */
export function listDocuments(repository, { status, cursor, signal } = {}) {
  const query = new URLSearchParams({ limit: 100 });
  if (status) query.set('status', status);
  if (cursor) query.set('cursor', cursor);
  return call(`${repositoryPath(repository)}/documents?${query}`, { signal });
}

/** A document as it is now. */
export const loadDocument = (repository, id, signal) => call(documentPath(repository, id), { signal });

/** Adds a text ({name, text}) or what is at an address ({url, name}). */
export const addDocument = (repository, body) => call(`${repositoryPath(repository)}/documents`, { method: 'POST', body });

/** Deletes a document with its passages. */
export const deleteDocument = (repository, id) => call(documentPath(repository, id), { method: 'DELETE' });

/** The stream of the states of a document. */
export const documentEventsPath = (repository, id) => `${documentPath(repository, id)}/events`;

/**
 * Sends a file under its own name. sent is called with the share that is on its
 * way, from 0 to 1. Answers the document and whether the server had it already.
 */
export function uploadFile(repository, file, { sent, signal }) {
  const form = new FormData();
  form.set('name', file.name);
  form.set('file', file);
  return new Promise((resolve, reject) => {
    // fetch does not tell how far an upload is.
    const request = new XMLHttpRequest();
    const unreachable = () => reject(new Problem({ status: 0, code: 'unreachable', detail: 'The server ended the connection while the file was sent.' }));
    request.open('POST', `${repositoryPath(repository)}/documents`);
    request.setRequestHeader('Accept', 'application/json');
    request.upload.addEventListener('progress', ({ loaded, total }) => sent(total > 0 ? loaded / total : 0));
    request.addEventListener('error', unreachable);
    request.addEventListener('abort', () => reject(new DOMException('The page was left.', 'AbortError')));
    request.addEventListener('load', () => {
      if (request.status >= 400) reject(new Problem(readProblem(request.status, request.responseText)));
      else resolve({ document: JSON.parse(request.responseText), unchanged: request.status === 200 });
    });
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(form);
  });
}

/** Searches repositories: {results, left, explanation, …}. */
export const searchRepositories = (body, signal) => call('/api/v1/repositories/search', { method: 'POST', body, signal });

/** The first pages of a list as one, at most as many as most: {items, nextCursor}. */
export async function firstPages(load, most) {
  const items = [];
  let cursor = null;
  for (let n = 0; n < most && (n === 0 || cursor); n++) {
    const page = await load(cursor);
    items.push(...page.items);
    cursor = page.nextCursor;
  }
  return { items, nextCursor: cursor };
}

/** Milliseconds by which the server's clock is ahead of this one, as far as answers have shown. */
export function clockSkew() {
  return skew;
}

let skew = 0;

/** A key for one request that must not run twice. */
export function requestKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
}

async function call(path, options) {
  const response = await send(path, options);
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch (cause) {
    if (cause.name === 'AbortError') throw cause;
    throw new Problem({ status: response.status, detail: 'The server sent an answer that is not JSON.' });
  }
}

async function send(path, { method = 'GET', body, headers = {}, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: { Accept: 'application/json', ...(body && { 'Content-Type': 'application/json' }), ...headers },
      body: body && JSON.stringify(body),
    });
  } catch (cause) {
    if (cause.name === 'AbortError') throw cause;
    throw new Problem({ status: 0, code: 'unreachable', detail: 'The server does not answer. Is it running?' });
  }
  noteClock(response.headers.get('Date'));
  if (response.ok) return response;
  throw new Problem(await problemOf(response));
}

async function problemOf(response) {
  return readProblem(response.status, await response.text().catch(() => ''));
}

function readProblem(status, text) {
  let body = {};
  try {
    body = JSON.parse(text) ?? {};
  } catch {
    // Not every intermediary speaks problem+json; the status has to do.
  }
  return {
    status,
    code: body.code,
    title: body.title,
    detail: body.detail || body.title || `The server answered ${status}.`,
    errors: Array.isArray(body.errors) ? body.errors : [],
  };
}

// The Date header has whole seconds, so a small difference says nothing.
function noteClock(date) {
  const server = Date.parse(date ?? '');
  if (!Number.isFinite(server)) return;
  const difference = server - Date.now();
  skew = Math.abs(difference) > 2000 ? difference : 0;
}
