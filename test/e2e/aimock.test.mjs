// Our providers against a server of models that we have not written, aimock: what
// they send is understood there, and what it sends is understood here.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { LLMock } from '@copilotkit/aimock';

const exec = promisify(execFile);
const WEATHER = { Name: 'get_weather', Description: 'Tells the weather.', Parameters: { type: 'object', properties: { city: { type: 'string' } } } };

/** The base URL of each provider at an address. */
const PROVIDERS = {
  openai: (url) => `${url}/v1`,
  gemini: (url) => `${url}/v1beta`,
};

let mock;
let dir;
let program;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'chainstream-e2e-'));
  program = join(dir, 'modelcall');
  await exec('go', ['build', '-o', program, './modelcall'], { cwd: import.meta.dirname });
  mock = new LLMock({ port: 0, chunkSize: 5, logLevel: 'silent' });
  mock.onMessage('hello', {
    content: 'Hi there, how are you?',
    reasoning: 'Let me think.',
    usage: { prompt_tokens: 12, completion_tokens: 7, input_tokens: 12, output_tokens: 7, promptTokenCount: 12, candidatesTokenCount: 7, totalTokenCount: 19 },
  });
  mock.onToolResult('call_of_ours', { content: 'Rainy in Oslo.' });
  mock.onMessage('weather', {
    toolCalls: [
      { name: 'get_weather', arguments: '{"city":"Oslo"}' },
      { name: 'get_weather', arguments: '{"city":"Rome"}' },
    ],
  });
  mock.onMessage('breaks off', { content: 'This is a long answer that never ends as it should.' }, { truncateAfterChunks: 4 });
  mock.onMessage('overloaded', { error: { message: 'The server is overloaded.', type: 'server_error' }, status: 503 });
  await mock.start();
});
after(async () => {
  await mock?.stop();
  await rm(dir, { recursive: true, force: true });
});

for (const [name, base] of Object.entries(PROVIDERS)) {
  const call = async (request) => {
    const running = exec(program, [name, base(mock.url)]);
    running.child.stdin.end(JSON.stringify({ Model: 'gpt-4o', ...request }));
    return JSON.parse((await running).stdout);
  };
  const ask = (Text, more = {}) => call({ Messages: [{ Role: 'user', Text }], ...more });

  test(`${name}: a streamed answer with reasoning and usage`, async () => {
    const got = await ask('hello');
    assert.equal(got.Code, undefined);
    assert.equal(got.Text, 'Hi there, how are you?');
    assert.equal(got.Reasoning, 'Let me think.');
    assert.equal(got.FinishReason, 'stop');
    assert.ok(got.Chunks > 5, `streamed in ${got.Chunks} chunks`);
    if (name !== 'gemini') assert.ok(got.ResponseID, 'the answer has an id'); // aimock sends none there
    const { InputTokens, OutputTokens, Estimated } = got.Usage;
    assert.deepEqual({ InputTokens, OutputTokens, Estimated }, { InputTokens: 12, OutputTokens: 7, Estimated: false });
  });

  test(`${name}: tool calls, and their results`, async () => {
    const got = await ask('weather', { Tools: [WEATHER] });
    assert.equal(got.FinishReason, 'tool_calls');
    assert.deepEqual(
      got.ToolCalls.map(({ Name, Arguments }) => [Name, JSON.parse(Arguments)]),
      [['get_weather', { city: 'Oslo' }], ['get_weather', { city: 'Rome' }]],
    );
    assert.equal(new Set(got.ToolCalls.map(({ ID }) => ID)).size, 2);

    const answer = await call({
      Tools: [WEATHER],
      Messages: [
        { Role: 'user', Text: 'How is Oslo?' },
        { Role: 'assistant', ToolCalls: [{ ID: 'call_of_ours', Name: 'get_weather', Arguments: '{"city":"Oslo"}' }] },
        { Role: 'tool', ToolCallID: 'call_of_ours', Text: 'rain' },
      ],
    });
    assert.equal(answer.Text, 'Rainy in Oslo.');
  });

  test(`${name}: a truncated answer is none`, async () => {
    const got = await ask('breaks off');
    assert.equal(got.Retryable, true);
    assert.ok(['truncated_stream', 'connection_failed'].includes(got.Code), got.Code);
  });

  test(`${name}: a refusal, and an unknown prompt`, async () => {
    assert.deepEqual((({ Code, Retryable }) => ({ Code, Retryable }))(await ask('overloaded')), { Code: 'overloaded', Retryable: true });
    assert.equal((await ask('nothing matches this')).Code, 'not_found');
  });

  test(`${name}: chaos`, async (t) => {
    t.after(() => mock.clearChaos());
    mock.setChaos({ rateLimitRate: 1 });
    const { Code, Retryable, RetryAfterMS } = await ask('hello');
    assert.deepEqual({ Code, Retryable, RetryAfterMS }, { Code: 'rate_limited', Retryable: true, RetryAfterMS: 1000 });
    mock.setChaos({ dropRate: 1 });
    assert.equal((await ask('hello')).Code, 'unavailable');
    mock.setChaos({ disconnectRate: 1 });
    assert.equal((await ask('hello')).Code, 'connection_failed');
    mock.setChaos({ malformedRate: 1 });
    const malformed = await ask('hello');
    assert.deepEqual([malformed.Code, malformed.Retryable], ['malformed_response', false]);
  });
}
