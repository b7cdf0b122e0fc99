// OpenAI's own npm client and the AI SDK against /v1, as their users call it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';

import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import OpenAI from 'openai';
import { z } from 'zod';

import { Model, vector } from './model.mjs';
import { Server } from './server.mjs';

const timeout = 60_000;
const MODEL = 'openai/some-model';
const ask = (content) => [{ role: 'user', content }];
const WEATHER = { type: 'function', function: { name: 'weather', description: 'The weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } };

let model;
let server;
let client;
let sdk;

before(async () => {
  model = await Model.start();
  server = await Server.start(['--offline-pace', '2ms'], { OPENAI_BASE_URL: model.url, OPENAI_API_KEY: 'sk-none' });
  await server.call('POST', '/api/v1/chains', {
    name: 'needs',
    inputs: { topic: { type: 'short_text', required: true } },
    prompts: [{ name: 'Only', model: 'offline/echo', content: '${topic}' }],
  });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' });
  sdk = createOpenAICompatible({ name: 'chainstream', baseURL: `${server.url}/v1`, includeUsage: true });
});
after(async () => {
  const code = await server?.stop();
  await model?.stop();
  if (server) assert.equal(code, 0, 'exit code of the server');
});

/** The text of a stream, and its chunks. */
async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return { chunks, text: chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join('') };
}

/** The events of the execution that an answer names. */
async function eventsOf({ id }) {
  return (await server.log(/^chatcmpl-(\d+)$/.exec(id)[1])).map((line) => JSON.parse(line));
}

/** Waits for the end of an execution and answers it. */
async function ended(id) {
  await (await fetch(`${server.url}/events/${id}`)).text();
  return server.execution(id);
}

test('openai: a chain and a model, whole and as a stream, are what the log has', { timeout }, async () => {
  for (const request of [
    { model: 'chain/hello', messages: ask('Ada') },
    { model: 'offline/echo', messages: ask('Echo: one two three') },
  ]) {
    const whole = await client.chat.completions.create(request);
    const { chunks, text } = await read(await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } }));
    for (const { id, said } of [{ id: whole.id, said: whole.choices[0].message.content }, { id: chunks[0].id, said: text }]) {
      const log = await eventsOf({ id });
      assert.equal(said, log.findLast(({ event }) => event === 'prompt-complete').data.output);
      assert.equal(log.at(-1).event, 'execution-complete');
    }
    assert.equal(whole.choices[0].finish_reason, 'stop');
    assert.deepEqual(chunks[0].choices[0].delta, { role: 'assistant', content: '' });
    assert.equal(chunks.at(-2).choices[0].finish_reason, 'stop');
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.ok(chunks.at(-1).usage.total_tokens > 0);
    assert.equal(chunks.at(-1).usage.total_tokens, chunks.at(-1).usage.prompt_tokens + chunks.at(-1).usage.completion_tokens);
    assert.equal(chunks[0].usage, null);
  }
  assert.equal((await read(await client.chat.completions.create({ model: 'offline/echo', messages: ask('Echo: x'), stream: true }))).chunks.at(-1).usage, undefined);
});

test('openai: tools go to the model and its calls come back', { timeout }, async () => {
  const messages = ask('How is it in Rome?');
  for (const call of [
    () => client.chat.completions.create({ model: MODEL, messages, tools: [WEATHER], tool_choice: 'required' }),
    () => client.chat.completions.stream({ model: MODEL, messages, tools: [WEATHER], tool_choice: 'required' }).finalChatCompletion(),
  ]) {
    const answering = call();
    const asked = await model.next();
    assert.deepEqual(asked.request.tools.map(({ function: { name } }) => name), ['weather']);
    assert.equal(asked.request.tool_choice, 'required');
    asked.ask('call_1', 'weather', { city: 'Rome' });
    const { choices: [{ message, finish_reason: reason }] } = await answering;
    assert.equal(reason, 'tool_calls');
    assert.equal(message.content ?? null, null);
    const [{ id, type, function: { name, arguments: args } }] = message.tool_calls;
    assert.deepEqual({ id, type, name, args: JSON.parse(args) }, { id: 'call_1', type: 'function', name: 'weather', args: { city: 'Rome' } });

    const results = client.chat.completions.create({
      model: MODEL, tools: [WEATHER], messages: [...messages, message, { role: 'tool', tool_call_id: id, content: 'Sunny.' }],
    });
    const second = await model.next();
    assert.deepEqual(second.request.messages.map(({ role }) => role), ['user', 'assistant', 'tool']);
    assert.equal(second.request.messages[1].tool_calls[0].id, 'call_1');
    assert.equal(second.request.messages[2].tool_call_id, 'call_1');
    second.write('It is sunny.');
    second.end();
    assert.equal((await results).choices[0].message.content, 'It is sunny.');
  }
});

test('openai: errors are of their classes', { timeout }, async () => {
  const create = (request) => client.chat.completions.create({ messages: ask('x'), ...request });
  await assert.rejects(create({ model: 'chain/nothing' }), (e) => e instanceof OpenAI.NotFoundError && e.code === 'model_not_found' && e.param === 'model');
  await assert.rejects(create({ model: 'nobody/x' }), OpenAI.NotFoundError);
  await assert.rejects(create({ model: MODEL, n: 2 }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'n' && e.type === 'invalid_request_error');
  await assert.rejects(create({ model: 'chain/needs', messages: [{ role: 'system', content: 'x' }] }), (e) => e instanceof OpenAI.BadRequestError && e.param === 'inputs.topic');
  await assert.rejects(client.models.retrieve('chain/nothing'), OpenAI.NotFoundError);

  // The provider's failures; the executor tries three times, the client does not try again.
  for (const [status, error, type, code, tries] of [
    [429, { message: 'slow down', type: 'requests' }, OpenAI.RateLimitError, 'rate_limit_exceeded', 3],
    [400, { message: 'no', code: 'context_length_exceeded' }, OpenAI.BadRequestError, 'context_length_exceeded', 1],
    [401, { message: 'wrong key sk-secret', code: 'invalid_api_key' }, OpenAI.InternalServerError, 'provider_unauthorized', 1],
  ]) {
    const failing = assert.rejects(create({ model: MODEL }), (e) => e instanceof type && e.code === code && !e.message.includes('sk-secret'));
    for (let i = 0; i < tries; i += 1) (await model.next()).refuse(status, error);
    await failing;
  }

  const stream = await (async () => {
    const opening = create({ model: MODEL, stream: true });
    const call = await model.next();
    call.write('Once ');
    const opened = await opening;
    call.break({ message: 'no', code: 'content_filter' });
    return opened;
  })();
  await assert.rejects(read(stream), (e) => e instanceof OpenAI.APIError && e.code === 'content_filter');
});

test('openai: an abort closes the connection to the model', { timeout }, async () => {
  const controller = new AbortController();
  const opening = client.chat.completions.create({ model: MODEL, messages: ask('x'), stream: true }, { signal: controller.signal }).withResponse();
  const call = await model.next();
  call.write('Once ');
  const { data, response } = await opening;
  for await (const chunk of data) if (chunk.choices[0].delta.content) break; // leaving the loop aborts
  await call.gone;
  const execution = await ended(response.headers.get('x-execution-id'));
  assert.equal(execution.status, 'cancelled');
  assert.equal(execution.prompts[0].output, 'Once ');

  const whole = client.chat.completions.create({ model: MODEL, messages: ask('x') }, { signal: controller.signal });
  const second = await model.next();
  controller.abort();
  await assert.rejects(whole, OpenAI.APIUserAbortError);
  await second.gone;
});

test('openai: models and embeddings', { timeout }, async () => {
  const ids = [];
  for await (const { id } of client.models.list()) ids.push(id);
  for (const id of ['chain/hello', 'chain/research-brief', 'offline/echo']) assert.ok(ids.includes(id), `${id} is not among ${ids}`);
  assert.equal((await client.models.retrieve('chain/hello')).owned_by, 'chainstream');

  const input = ['high tide', 'rivers'];
  for (const format of [undefined, 'float', 'base64']) {
    const { data, usage } = await client.embeddings.create({ model: 'openai/embedder', input, dimensions: 3, encoding_format: format });
    const got = data.map(({ embedding }) => (typeof embedding === 'string' ? [...new Float32Array(new Uint8Array(Buffer.from(embedding, 'base64')).buffer)] : embedding));
    assert.deepEqual(got, input.map((text) => vector(text, 3)));
    assert.equal(usage.prompt_tokens, 5);
  }
  await assert.rejects(client.embeddings.create({ model: 'offline/echo', input: 'x' }), OpenAI.NotFoundError);
});

test('ai: text of a chain as it comes, with its usage', { timeout }, async () => {
  const result = streamText({ model: sdk('chain/hello'), prompt: 'Ada' });
  let text = '';
  for await (const piece of result.textStream) text += piece;
  assert.match(text, /Ada/);
  assert.equal(await result.finishReason, 'stop');
  assert.ok((await result.usage).totalTokens > 0);
  const log = await eventsOf({ id: (await result.response).id });
  assert.equal(text, log.findLast(({ event }) => event === 'prompt-complete').data.output);
});

test('ai: a tool is called and its result goes to the model', { timeout }, async () => {
  const cities = [];
  const generating = generateText({
    model: sdk(MODEL),
    prompt: 'How is it in Rome?',
    stopWhen: stepCountIs(3),
    tools: {
      weather: tool({
        description: 'The weather',
        inputSchema: z.object({ city: z.string() }),
        execute: async ({ city }) => {
          cities.push(city);
          return 'Sunny.';
        },
      }),
    },
  });
  (await model.next()).ask('call_1', 'weather', { city: 'Rome' });
  const second = await model.next();
  assert.equal(second.request.messages.at(-1).role, 'tool');
  assert.match(second.prompt, /Sunny/);
  second.write('It is sunny.');
  second.end();
  const { text, steps } = await generating;
  assert.equal(text, 'It is sunny.');
  assert.deepEqual(cities, ['Rome']);
  assert.equal(steps.length, 2);
});

test('ai: an abort closes the connection to the model', { timeout }, async () => {
  const controller = new AbortController();
  const { fullStream } = streamText({ model: sdk(MODEL), prompt: 'x', abortSignal: controller.signal });
  const reading = (async () => {
    const types = [];
    for await (const part of fullStream) {
      types.push(part.type);
      if (part.type === 'text-delta') controller.abort();
    }
    return types;
  })();
  const call = await model.next();
  call.write('Once ');
  assert.ok((await reading).includes('abort'));
  await call.gone;
});

test('the examples of docs/openai-api.md run', { timeout }, async () => {
  const text = await readFile(new URL('../../docs/openai-api.md', import.meta.url), 'utf8');
  const examples = [...text.matchAll(/```(js|sh)\n([\s\S]*?)```/g)].map(([, language, code]) => ({ language, code: code.replaceAll('http://127.0.0.1:8080', server.url) }));
  assert.deepEqual(examples.map(({ language }) => language), ['sh', 'sh', 'js', 'js']);
  const outputs = [];
  for (const { language, code } of examples) {
    if (language === 'sh') {
      outputs.push((await promisify(execFile)('sh', ['-c', code])).stdout);
      continue;
    }
    const file = new URL(`example-${process.pid}.mjs`, import.meta.url);
    await writeFile(file, code);
    try {
      outputs.push((await promisify(execFile)(process.execPath, [file.pathname])).stdout);
    } finally {
      await rm(file);
    }
  }
  const whole = JSON.parse(outputs[0]).choices[0].message.content;
  assert.match(whole, /Ada/);
  assert.match(outputs[1], /"content":"High /);
  assert.match(outputs[1], /"usage":{"prompt_tokens":\d+.*\n\ndata: \[DONE\]\n/);
  assert.equal(outputs[2], whole);
  assert.equal(outputs[3], whole);
});
