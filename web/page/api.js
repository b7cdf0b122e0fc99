// Calls of the HTTP API. Every failure is a Problem.

/** An answer that was not a success, or no answer at all (status 0). */
export class Problem extends Error {
  /** @param {{status: number, code?: string, detail: string, errors?: {pointer: string, detail: string}[]}} fields */
  constructor({ status, code = '', detail, errors = [] }) {
    super(detail);
    this.name = 'Problem';
    this.status = status;
    this.code = code;
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
  let body = {};
  try {
    body = await response.json();
  } catch {
    // Not every intermediary speaks problem+json; the status has to do.
  }
  return {
    status: response.status,
    code: body.code,
    detail: body.detail || body.title || `The server answered ${response.status}.`,
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
