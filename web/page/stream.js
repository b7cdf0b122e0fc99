// The event stream of one execution, on the browser's own EventSource.

import { Problem, probeEvents } from './api.js';
import { EVENT_TYPES, isTerminal } from './reducer.js';

const FIRST_WAIT = 1000;
const LONGEST_WAIT = 15_000;

/**
 * Follows an execution from its first event to its last.
 *
 * onEvent gets {seq, type, data} once for each event, in order. onConnection
 * gets 'connecting', 'live', 'reconnecting', 'ended', or 'lost' with the
 * Problem that makes a further attempt useless. Returns a function that stops.
 *
 * EventSource resumes a broken connection itself with Last-Event-ID. It gives
 * up for good on an error status (a proxy's 502 while the server restarts);
 * then this opens a new one after the last event that arrived.
 */
export function follow(executionId, { onEvent, onConnection }) {
  let source = null;
  let timer = 0;
  let wait = FIRST_WAIT;
  let lastSeq = 0;
  let stopped = false;
  const aborter = new AbortController();

  function stop() {
    stopped = true;
    clearTimeout(timer);
    aborter.abort();
    source?.close();
  }

  function open() {
    const after = lastSeq > 0 ? `?after=${lastSeq}` : '';
    source = new EventSource(`/events/${encodeURIComponent(executionId)}${after}`);
    source.addEventListener('open', () => {
      wait = FIRST_WAIT;
      onConnection('live');
    });
    source.addEventListener('error', onError);
    for (const type of EVENT_TYPES) source.addEventListener(type, receive);
  }

  function receive(message) {
    const seq = Number(message.lastEventId);
    if (stopped || !(seq > lastSeq)) return;
    lastSeq = seq;
    onEvent({ seq, type: message.type, data: JSON.parse(message.data) });
    if (isTerminal(message.type)) {
      stop();
      onConnection('ended');
    }
  }

  function onError() {
    if (stopped) return;
    onConnection(lastSeq > 0 ? 'reconnecting' : 'connecting');
    if (source.readyState === EventSource.CLOSED) retry();
  }

  // Not together with all other pages that were sent away at the same moment.
  function retry() {
    timer = setTimeout(reopen, wait * (0.5 + Math.random()));
  }

  async function reopen() {
    wait = Math.min(wait * 2, LONGEST_WAIT);
    try {
      await probeEvents(executionId, lastSeq, aborter.signal);
      open();
    } catch (error) {
      if (stopped) return;
      const final = error instanceof Problem && [400, 401, 403, 404, 410].includes(error.status);
      if (final) {
        stop();
        onConnection('lost', error);
      } else retry();
    }
  }

  onConnection('connecting');
  open();
  return stop;
}
