import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EVENT_TYPES, fold, groups, initial, plan, reduce, restore, tokens } from '../page/reducer.js';

const START = Date.parse('2026-01-01T00:00:00Z');

// Events in order, ten milliseconds apart, from pairs of type and payload.
function log(...entries) {
  return entries.map(([type, data = {}], index) => ({
    seq: index + 1,
    type,
    data: { executionId: 41, seq: index + 1, timestamp: new Date(START + index * 10).toISOString(), ...data },
  }));
}

const begin = (totalPrompts = 1) => ['execution-start', { totalPrompts, toolName: 'brief', chainId: 1, chainVersion: 2 }];
const started = (promptId, position = 1, attempt = 1) => ['prompt-start', { promptId, promptName: `P${promptId}`, position, totalPrompts: 2, modelId: 'offline/echo', hasKnowledge: false, hasTools: false, attempt }];
const delta = (promptId, text, attempt = 1) => ['prompt-delta', { promptId, attempt, text, offset: 0 }];
const completed = (promptId, output, more = {}) => ['prompt-complete', { promptId, output, outputTokens: 5, inputTokens: 7, duration: 30, cached: false, modelId: 'offline/echo', finishReason: 'stop', attempt: 1, ...more }];
const ended = ['execution-complete', { totalTokens: 12, duration: 50, success: true, costUsd: '0.01' }];

test('a run from its first event to its last', () => {
  const state = fold(log(begin(), started(3), delta(3, 'Hel'), delta(3, 'lo'), completed(3, 'Hello'), ['progress', { currentStep: 1, totalSteps: 1, percentage: 100, message: 'done' }], ended));
  const prompt = state.prompts.get(3);
  assert.equal(state.status, 'completed');
  assert.equal(state.chain, 'brief');
  assert.equal(state.chainVersion, 2);
  assert.equal(state.lastSeq, 7);
  assert.equal(state.duration, 50);
  assert.equal(state.costUsd, '0.01');
  assert.deepEqual(tokens(state), { total: 12, estimated: false });
  assert.deepEqual([prompt.name, prompt.state, prompt.text, prompt.duration], ['P3', 'completed', 'Hello', 30]);
});

test('every prefix of a log folds, and any cut resumes to the same end', () => {
  const events = log(begin(), started(1), delta(1, 'a'), ['prompt-retry', { promptId: 1, attempt: 2, supersedesFromSeq: 3, reason: 'r', delay: 5 }], delta(1, 'b', 2), completed(1, 'b', { attempt: 2 }), ended);
  const whole = fold(events);
  for (let cut = 0; cut <= events.length; cut++) {
    const state = fold(events.slice(0, cut));
    assert.equal(state.lastSeq, cut);
    // A resumed stream may begin a little before the cut.
    for (const event of events.slice(Math.max(0, cut - 2))) reduce(state, event);
    assert.deepEqual(state, whole);
  }
});

test('an event that comes twice changes nothing', () => {
  const events = log(begin(), started(1), delta(1, 'once '));
  const state = fold(events);
  for (const event of events) reduce(state, event);
  assert.equal(state.prompts.get(1).text, 'once ');
  assert.equal(state.events.length, 3);
});

test('nothing follows a terminal event', () => {
  const events = log(begin(), started(1), ended, delta(1, 'late'));
  assert.equal(fold(events).prompts.get(1).text, '');
  assert.equal(fold(events).lastSeq, 3);
});

test('a retry voids the text of the older attempt, even when more of it arrives', () => {
  const state = fold(log(begin(), started(1), delta(1, 'old'), ['prompt-retry', { promptId: 1, attempt: 2, supersedesFromSeq: 3, reason: 'overloaded', delay: 100 }], delta(1, 'older', 1), delta(1, 'new', 2)));
  const prompt = state.prompts.get(1);
  assert.equal(prompt.text, 'new');
  assert.equal(prompt.attempt, 2);
  assert.equal(prompt.state, 'running');
  assert.deepEqual(prompt.retries, [{ attempt: 2, reason: 'overloaded', delay: 100 }]);
});

test('an execution waits while a long retry is all that is left, and says until when', () => {
  const later = ['prompt-retry', { promptId: 1, attempt: 2, supersedesFromSeq: 2, reason: 'busy', delay: 3_600_000, timestamp: '2026-11-25T12:00:00.000Z' }];
  const beside = fold(log(begin(), started(1), started(2), later));
  assert.equal(beside.status, 'running');
  const waiting = fold(log(begin(), started(1), started(2), later, completed(2, 'b')));
  assert.equal(waiting.status, 'waiting');
  assert.equal(waiting.wakeAt, '2026-11-25T13:00:00.000Z');
  const again = fold(log(begin(), started(1), started(2), later, completed(2, 'b'), started(1, 1, 2)));
  assert.equal(again.status, 'running');
  assert.equal(again.wakeAt, '');
  assert.equal(fold(log(begin(), started(1), later, ended)).wakeAt, '');
});

test('a start with a higher attempt voids as well, a repeated start does not', () => {
  const again = fold(log(begin(), started(1), delta(1, 'old'), started(1, 1, 2), delta(1, 'new', 2), started(1, 1, 2)));
  assert.equal(again.prompts.get(1).text, 'new');
});

test('the whole output wins over the deltas, a cut one only when it is longer', () => {
  const text = (...entries) => fold(log(begin(), started(1), ...entries)).prompts.get(1);
  assert.equal(text(delta(1, 'Hel'), completed(1, 'Hello')).text, 'Hello');
  assert.equal(text(delta(1, 'Hello and more'), completed(1, 'Hello', { truncated: true })).text, 'Hello and more');
  assert.equal(text(delta(1, 'Hello and more'), completed(1, 'Hello', { truncated: true })).truncated, false);
  assert.equal(text(completed(1, 'Hello', { truncated: true })).truncated, true);
});

test('parallel prompts keep their texts apart and stand in one group', () => {
  const state = fold(log(begin(3), started(1), completed(1, 'x'), started(2, 2), started(3, 2), delta(2, 'a'), delta(3, 'b'), delta(2, 'c')));
  assert.equal(state.prompts.get(2).text, 'ac');
  assert.equal(state.prompts.get(3).text, 'b');
  assert.deepEqual(groups(state).map((group) => [group.position, group.prompts.map((prompt) => prompt.id)]), [[1, [1]], [2, [2, 3]]]);
});

test('a failure marks the prompt, what was cut off and what never ran', () => {
  const planned = [{ id: 1, name: 'A', position: 1 }, { id: 2, name: 'B', position: 1 }, { id: 3, name: 'C', position: 2 }];
  const events = log(begin(3), started(1), started(2), delta(1, 'part'), ['prompt-error', { promptId: 1, error: 'no', code: 'unauthorized', attempt: 1 }], ['execution-error', { error: 'no', code: 'unauthorized', promptId: 1, recoverable: false }]);
  const state = fold(events, planned);
  assert.equal(state.status, 'failed');
  assert.deepEqual(state.error, { message: 'no', code: 'unauthorized', recoverable: false });
  assert.deepEqual([...state.prompts.values()].map((prompt) => prompt.state), ['failed', 'cancelled', 'skipped']);
  assert.equal(state.prompts.get(1).text, 'part');
});

test('a cancelled execution is not a failed one', () => {
  const state = fold(log(begin(), started(1), delta(1, 'part'), ['execution-error', { error: 'cancelled', code: 'cancelled', promptId: 1, recoverable: false }]));
  assert.equal(state.status, 'cancelled');
  assert.equal(state.prompts.get(1).state, 'cancelled');
  assert.equal(state.prompts.get(1).error, null);
  assert.equal(state.prompts.get(1).text, 'part');
});

test('with onError continue the execution completes beside a failed prompt', () => {
  const state = fold(log(begin(2), started(1), ['prompt-error', { promptId: 1, error: 'no', code: 'x', attempt: 1 }], started(2, 2), completed(2, 'y'), ended));
  assert.equal(state.status, 'completed');
  assert.deepEqual([...state.prompts.values()].map((prompt) => prompt.state), ['failed', 'completed']);
});

test('the plan shows what is to come and never overrides an event', () => {
  const state = fold(log(begin(2), started(1)));
  plan(state, [{ promptId: 1, name: 'other', position: 9 }, { promptId: 2, name: 'Next', position: 2, modelId: 'm' }]);
  assert.equal(state.prompts.get(1).name, 'P1');
  assert.deepEqual([state.prompts.get(2).name, state.prompts.get(2).state], ['Next', 'queued']);
  const late = plan(fold(log(begin(2), ended)), [{ promptId: 2, name: 'Next', position: 2 }]);
  assert.equal(late.prompts.get(2).state, 'skipped');
});

test('progress never falls', () => {
  const state = fold(log(begin(), ['progress', { currentStep: 2, totalSteps: 4, percentage: 50, message: 'a' }], ['progress', { currentStep: 1, totalSteps: 4, percentage: 25, message: 'b' }]));
  assert.equal(state.progress.percentage, 50);
});

test('tokens are summed over prompts and marked when a provider did not count', () => {
  const state = fold(log(begin(2), started(1), completed(1, 'x'), started(2, 2), ['llm-response', { promptId: 2, inputTokens: 10, outputTokens: 3, usageSource: 'estimated' }]));
  assert.deepEqual(tokens(state), { total: 25, estimated: true });
});

test('a prompt that was taken over has its text and paid nothing here', () => {
  const reusedFrom = { executionId: 41, inputTokens: 7, outputTokens: 5 };
  const events = log(
    ['execution-start', { totalPrompts: 2, toolName: 'brief', chainId: 1, chainVersion: 2, parentExecutionId: 44, origin: 'fork', fromPrompt: 'draft' }],
    ['prompt-start', { ...started(1)[1], reusedFrom }],
    completed(1, 'kept', { inputTokens: 0, outputTokens: 0, duration: 0, reusedFrom }),
    started(2, 2), delta(2, 'new'), completed(2, 'new'), ended,
  );
  const state = fold(events);
  assert.deepEqual(state.lineage, { parent: 44, origin: 'fork', from: 'draft' });
  assert.deepEqual([state.prompts.get(1).text, state.prompts.get(1).state, state.prompts.get(1).reusedFrom], ['kept', 'completed', 41]);
  assert.equal(state.prompts.get(2).reusedFrom, null);
  assert.equal(state.reusedTokens, 12);
  assert.deepEqual(tokens(state), { total: 12, estimated: false });
  assert.equal(tokens(fold(events.slice(0, 3))).total, 0);
  assert.equal(fold(log(begin())).lineage, null);
});

test('retrieval and tools', () => {
  const state = fold(log(
    begin(), started(1),
    ['knowledge-retrieval-start', { promptId: 1, repositories: [1], searchType: 'hybrid' }],
    ['knowledge-retrieved', { promptId: 1, documentsFound: 2, relevanceScore: 0.5, tokens: 80 }],
    ['tool-execution-start', { promptId: 1, toolName: 'calculator', toolCallId: 'c' }],
    ['tool-execution-complete', { promptId: 1, toolName: 'calculator', toolCallId: 'c', success: false, error: 'no', duration: 4 }],
  ));
  const prompt = state.prompts.get(1);
  assert.deepEqual(prompt.retrieval, { done: true, searchType: 'hybrid', documents: 2, score: 0.5, tokens: 80, error: '', chunks: [], cut: [] });
  assert.deepEqual(prompt.tools, [{ id: 'c', name: 'calculator', done: true, success: false, duration: 4, error: 'no' }]);
});

test('waiting for an approval', () => {
  const events = log(begin(), ['approval-requested', { promptId: 1, approvalId: 'a' }], ['approval-resolved', { promptId: 1, approvalId: 'a' }]);
  assert.equal(fold(events.slice(0, 2)).status, 'waiting');
  assert.equal(fold(events).status, 'running');
});

test('an event of a name that is not known counts and changes nothing else', () => {
  const state = fold(log(begin(), ['something-new', { promptId: 1 }]));
  assert.equal(state.lastSeq, 2);
  assert.equal(state.prompts.size, 0);
});

test('every event name folds into an empty state without a throw', () => {
  for (const type of EVENT_TYPES) {
    const data = { promptId: 1, attempt: 1, text: 'a', percentage: 1, timestamp: new Date(START).toISOString() };
    assert.equal(reduce(initial(), { seq: 1, type, data }).lastSeq, 1, type);
  }
});

test('ten thousand deltas fold in well under a second of processor time', () => {
  const events = log(begin(), started(1), ...Array.from({ length: 10_000 }, () => delta(1, 'word ')));
  const before = process.cpuUsage();
  const state = fold(events);
  assert.ok(process.cpuUsage(before).user < 1_000_000);
  assert.equal(state.prompts.get(1).text.length, 50_000);
});

test('a folded log gets the text of its prompts from the results', () => {
  const events = [
    { seq: 1, type: 'execution-start', data: { toolName: 'c', totalPrompts: 1 } },
    { seq: 2, type: 'prompt-start', data: { promptId: 5, promptName: 'P', position: 1, modelId: 'm', attempt: 1 } },
    { seq: 9, type: 'prompt-error', data: { promptId: 5, attempt: 1, error: 'x', code: 'x' } },
    { seq: 10, type: 'execution-error', data: { error: 'x', code: 'x' } },
  ];
  const state = restore(fold(events), { prompts: [{ promptId: 5, output: 'half', status: 'failed' }] }, false);
  assert.equal(state.prompts.get(5).text, 'half');
  assert.equal(state.lastSeq, 10);
});

test('a removed log is shown by its results', () => {
  const stored = { promptId: 5, name: 'P', position: 1, modelId: 'm', attempt: 1, status: 'completed', output: 'whole', durationMs: 7, inputTokens: 1, outputTokens: 2, error: null };
  const state = restore(initial(), { status: 'completed', chainName: 'c', usage: { totalTokens: 3 }, error: null, prompts: [stored] }, true);
  assert.equal(state.status, 'completed');
  assert.equal(state.ended, true);
  assert.equal(state.prompts.get(5).text, 'whole');
  assert.equal(state.prompts.get(5).state, 'completed');
});
