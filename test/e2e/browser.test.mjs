// The page in a real browser: it runs a chain, resumes after a reload, replays
// what is over, cancels, and stays calm in front of hostile text.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';

import { hostile } from '../../web/test/hostile.mjs';
import { launch, openPage } from './browser.mjs';
import { Model } from './model.mjs';
import { Server } from './server.mjs';

const PATIENCE = 60_000;
let model;
let server;
let browser;
let visit;
let page;

before(async () => {
  browser = await launch();
  model = await Model.start();
  server = await Server.start(['--offline-pace', '5ms'], { OPENAI_BASE_URL: model.url, OPENAI_API_KEY: 'sk-none' });
});
after(async () => {
  await browser?.close();
  const code = await server?.stop();
  await model?.stop();
  if (server) assert.equal(code, 0, 'exit code of the server');
});
beforeEach(async () => {
  visit = await openPage(browser, server);
  page = visit.page;
  page.setDefaultTimeout(PATIENCE);
});
afterEach(async () => {
  await visit?.close();
});

const byId = (name) => page.locator(`[data-testid="${name}"]`);
const status = (word) => page.locator(`[data-testid="execution-status"][data-status="${word}"]`).waitFor();

/** The id in the address of an execution's page. */
async function executionId() {
  await page.waitForURL(/#\/executions\/\d+/);
  return Number(/executions\/(\d+)/.exec(page.url())[1]);
}

/** Shows texts as they are, not as Markdown. */
async function showPlain() {
  const plain = byId('plain-text');
  if ((await plain.getAttribute('aria-pressed')) === 'false') await plain.click();
}

/** Selects a prompt and waits until the page shows exactly this text for it. */
async function showsText(name, text) {
  await showPlain();
  await byId('prompt-row').filter({ hasText: name }).click();
  await page.waitForFunction(
    (want) => {
      const shown = document.querySelector('[data-testid="prompt-text"]').textContent;
      return document.querySelector('h2.text-name').textContent === want.name && shown === want.text;
    },
    { name, text },
  );
}

/** Compares the page of a finished execution with the API: texts and events. */
async function compare(id) {
  const execution = await server.execution(id);
  await showPlain();
  assert.equal(await byId('prompt-row').count(), execution.prompts.length);
  for (const { promptId, name, output, status: state } of execution.prompts) {
    const row = page.locator(`[data-testid="prompt-row"][data-prompt="${promptId}"]`);
    assert.equal(await row.getAttribute('data-state'), state);
    await row.click();
    await page.locator('h2.text-name', { hasText: name }).waitFor();
    assert.equal(await byId('prompt-text').textContent(), output ?? '', `text of ${name}`);
  }
  if (await byId('show-all').isVisible()) await byId('show-all').click();
  const rows = await byId('event-row').evaluateAll((nodes) => nodes.map(({ dataset }) => ({ id: Number(dataset.seq), type: dataset.type })));
  const log = (await server.log(id)).map((line) => JSON.parse(line));
  assert.deepEqual(rows, log.map(({ id: seq, event }) => ({ id: seq, type: event })));
  rows.forEach(({ id: seq }, i) => assert.equal(seq, i + 1));
  return execution;
}

/**
 * Lets the page note every text that it shows, by prompt. Each of them has to
 * be the beginning of what the prompt has written in the end.
 */
async function watchTexts() {
  await showPlain();
  await page.evaluate(() => {
    globalThis.texts = [];
    const body = document.querySelector('[data-testid="prompt-text"]');
    new MutationObserver(() => {
      const row = document.querySelector('[data-testid="prompt-row"][aria-current="true"]');
      const heading = document.querySelector('h2.text-name')?.textContent;
      globalThis.texts.push({ prompt: Number(row?.dataset.prompt ?? 0), heading, text: body.textContent });
    }).observe(body, { childList: true, characterData: true, subtree: true });
  });
}

test('the instruments of these tests notice what should not happen', { timeout: PATIENCE }, async () => {
  await page.evaluate(async () => {
    alert('here');
    console.error('in the console');
    setTimeout(() => {
      throw new Error('nobody caught it');
    });
    await fetch('https://elsewhere.invalid/').catch(() => {});
    const script = document.createElement('script');
    script.textContent = 'alert("inline")';
    document.body.append(script);
  });
  const kinds = ['dialog: here', 'console: in the console', 'exception: ', 'policy violated: connect-src https://elsewhere.invalid', 'policy violated: script-src'];
  const faults = await visit.faults();
  for (const kind of kinds) assert.ok(faults.some((fault) => fault.startsWith(kind)), `${kind} is not among ${faults.join('; ')}`);
  assert.ok(!faults.includes('dialog: inline'), 'the policy lets inline scripts run');
});

test('Run shows the example chain live and ends with the texts of the API', { timeout: PATIENCE }, async () => {
  await page.locator('[data-testid="chain-link"][data-chain="research-brief"]').click();
  await page.fill('#input-topic', 'river deltas');
  await byId('run-button').click();
  const id = await executionId();
  await watchTexts();
  await page.locator('[data-testid="prompt-text"][data-live="true"]').waitFor();
  await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
  await status('completed');
  assert.equal(await byId('progress').getAttribute('aria-valuenow'), '100');
  assert.equal(await byId('connection').getAttribute('data-state'), 'ended');
  assert.match(await page.title(), /^completed · research-brief #\d+/);

  const texts = await page.evaluate(() => globalThis.texts);
  const execution = await compare(id);
  const lengths = new Set();
  for (const { heading, text } of texts) {
    const prompt = execution.prompts.find(({ name }) => name === heading);
    if (!prompt || text === '') continue;
    assert.ok(prompt.output.startsWith(text), `${heading} showed what it never wrote: ${text}`);
    lengths.add(`${heading} ${text.length}`);
  }
  assert.ok(lengths.size > 3, `text grew in ${lengths.size} steps only`);
  assert.deepEqual(await visit.faults(), []);
});

test('a reload in the middle resumes', { timeout: PATIENCE }, async () => {
  await server.call('POST', '/api/v1/chains', {
    name: 'driven',
    prompts: [
      { name: 'First', position: 1, model: 'openai/driven', content: 'first' },
      { name: 'Left', position: 2, model: 'openai/driven', content: 'left of ${first}' },
      { name: 'Right', position: 2, model: 'openai/driven', content: 'right of ${first}' },
    ],
  });
  await page.goto(`${server.url}/#/chains/driven`);
  await byId('run-button').click();
  const id = await executionId();

  const first = await model.next();
  first.write('one ');
  await showsText('First', 'one ');
  await page.reload();
  await showsText('First', 'one ');
  await page.locator('[data-testid="connection"][data-state="live"]').waitFor();
  first.write('two ');
  await showsText('First', 'one two ');
  await page.reload();
  first.write('three');
  await showsText('First', 'one two three');
  first.end();

  const calls = [await model.next(), await model.next()];
  for (const call of calls) call.write(`${call.prompt}, `);
  await showsText('Left', 'left of one two three, ');
  await page.reload();
  await showsText('Right', 'right of one two three, ');
  await page.goto(`${server.url}/#/executions`); // away, and back
  await page.locator(`a[href="#/executions/${id}"]`).first().click();
  await showsText('Left', 'left of one two three, ');
  assert.equal((await server.execution(id)).status, 'running');
  for (const call of calls) {
    call.write('and the end');
    call.end();
  }
  await status('completed');
  const { prompts } = await compare(id);
  assert.deepEqual(
    prompts.map(({ output }) => output),
    ['one two three', 'left of one two three, and the end', 'right of one two three, and the end'],
  );
  assert.deepEqual(await visit.faults(), []);
});

test('a finished execution replays', { timeout: PATIENCE }, async () => {
  const id = await server.trigger('hello', { name: 'Ada' });
  await page.goto(`${server.url}/#/executions/${id}`);
  await status('completed');
  await page.goto(`${server.url}/#/executions`);
  await page.locator(`a[href="#/executions/${id}"]`).first().click();
  await status('completed');
  assert.equal(await byId('connection').getAttribute('data-state'), 'ended');
  const { prompts } = await compare(id);
  assert.match(prompts[0].output, /^Hello, Ada\./);
  assert.deepEqual(await visit.faults(), []);
});

test('Cancel stops an execution and keeps its text', { timeout: PATIENCE }, async () => {
  await server.call('POST', '/api/v1/chains', {
    name: 'long',
    prompts: [{ name: 'Long', model: 'offline/echo', content: `Echo: ${'word '.repeat(10_000)}` }],
  });
  await page.goto(`${server.url}/#/chains/long`);
  await byId('run-button').click();
  const id = await executionId();
  await page.locator('[data-testid="prompt-text"][data-live="true"]', { hasText: 'word word' }).waitFor();
  await byId('cancel-button').click();
  await byId('confirm-cancel').click();
  await status('cancelled');
  const { prompts } = await compare(id);
  assert.ok(prompts[0].output.startsWith('word word'));
  assert.deepEqual(await visit.faults(), []);
});

test('Retry and Fork from here keep what is finished', { timeout: PATIENCE }, async () => {
  await server.call('POST', '/api/v1/chains', {
    name: 'halves',
    prompts: [
      { name: 'First', position: 1, model: 'offline/echo', content: 'Echo: done' },
      { name: 'Second', position: 2, model: 'offline/echo', content: `Echo: ${'word '.repeat(300)}` },
    ],
  });
  const parent = await server.trigger('halves', {});
  await page.goto(`${server.url}/#/executions/${parent}`);
  await page.locator('[data-testid="prompt-text"][data-live="true"]', { hasText: 'word word' }).waitFor();
  await byId('cancel-button').click();
  await byId('confirm-cancel').click();
  await status('cancelled');
  await byId('retry-button').click();
  await byId('lineage').filter({ hasText: `retry of ${parent}` }).waitFor();
  await status('completed');
  const child = await executionId();
  const { prompts } = await compare(child);
  assert.deepEqual(prompts.map(({ reusedFrom }) => reusedFrom?.executionId ?? null), [parent, null]);
  await byId('prompt-row').filter({ hasText: `from #${parent}` }).waitFor();
  assert.equal(await byId('retry-button').isVisible(), false);

  await byId('prompt-row').filter({ hasText: 'Second' }).click();
  await byId('fork-button').click();
  await byId('lineage').filter({ hasText: `fork of ${child} from second` }).waitFor();
  await status('completed');
  const fork = await compare(await executionId());
  assert.deepEqual(fork.prompts.map(({ reusedFrom }) => reusedFrom?.executionId ?? null), [parent, null]);
  assert.deepEqual(await visit.faults(), []);
});

test('an image is sent from the form, and the second answer comes from the cache', { timeout: PATIENCE }, async () => {
  await server.call('POST', '/api/v1/chains', {
    name: 'look',
    inputs: { photo: { type: 'file', label: 'Photo', required: true } },
    prompts: [{ name: 'Look', model: 'offline/echo', content: 'Echo: ${photo.name} is ${photo.mimeType}', images: ['photo'], cache: '1h' }],
  });
  const picture = { name: 'cat.png', mimeType: 'image/png', buffer: Buffer.from('\x89PNG\r\n\x1a\n and so on', 'latin1') };
  const run = async (file) => {
    await page.goto(`${server.url}/#/chains/look`);
    await byId('run-form').waitFor();
    await page.locator('input[type="file"]').setInputFiles(file);
    await page.waitForFunction((name) => document.querySelector('#input-photo').value.startsWith(name), file.name);
    await byId('run-button').click();
  };
  await run(picture);
  const id = await executionId();
  await showsText('Look', 'cat.png is image/png');
  await status('completed');
  const { inputs } = await compare(id);
  assert.deepEqual(inputs.photo, { name: 'cat.png', mimeType: 'image/png', base64: picture.buffer.toString('base64') });
  assert.deepEqual(await visit.faults(), []);

  await run(picture);
  await page.waitForURL((url) => /executions\/\d+/.test(url.hash) && !url.hash.includes(`/${id}`));
  await status('completed');
  await showsText('Look', 'cat.png is image/png');
  await page.locator('[data-testid="prompt-row"]', { hasText: 'cached' }).waitFor();
  const again = await compare(await executionId());
  assert.equal(again.prompts[0].cached, true);
  assert.equal(again.prompts[0].cachedFrom.executionId, id);
  assert.deepEqual(await visit.faults(), []);
});

test('hostile texts stay text', { timeout: PATIENCE }, async () => {
  // What the API refuses at its edge cannot come in by this way.
  const payloads = hostile.map((text) => text.replaceAll('\0', '').toWellFormed());
  assert.ok(payloads.length >= 200, `only ${payloads.length} payloads`);
  const tag = '<img src="https://evil.test/x" onerror="alert(1)">';
  await server.call('POST', '/api/v1/chains', {
    name: 'hostile',
    description: `${tag}<script>alert(1)</script>`,
    inputs: {
      text: { type: 'long_text', label: `Text ${tag}`, required: true },
      choice: { type: 'select', label: tag, options: [tag, 'javascript:alert(1)'], default: tag },
    },
    prompts: [
      { name: `First ${tag}`, position: 1, model: 'offline/echo', content: 'Echo: ${text}' },
      { name: 'Second', position: 2, model: 'offline/echo', content: `Echo: ${tag} \${choice}` },
    ],
  });
  const text = payloads.join('\n\n');
  const id = await server.trigger('hostile', { text });
  await page.goto(`${server.url}/#/chains/hostile`);
  await byId('run-form').waitFor();
  await page.goto(`${server.url}/#/executions/${id}`);
  await status('completed');

  // As Markdown, with every event opened, and as plain text.
  for (const row of await byId('prompt-row').all()) {
    await row.click();
    await byId('prompt-text').locator('> *').first().waitFor();
    const found = await byId('prompt-text').evaluate((node) => ({
      elements: [...new Set([...node.querySelectorAll('*')].map((element) => element.localName))],
      handlers: [...node.querySelectorAll('*')].flatMap((element) => element.getAttributeNames().filter((name) => name.startsWith('on') || name === 'style' || name === 'src' || name === 'srcdoc')),
      schemes: [...new Set([...node.querySelectorAll('[href]')].map((element) => new URL(element.href).protocol))],
    }));
    const dangerous = ['script', 'style', 'img', 'svg', 'math', 'iframe', 'base', 'form', 'input', 'textarea', 'object', 'embed', 'link', 'meta', 'video', 'audio'];
    assert.deepEqual(found.elements.filter((name) => dangerous.includes(name)), []);
    assert.deepEqual(found.handlers, []);
    assert.deepEqual(found.schemes.filter((scheme) => !['http:', 'https:', 'mailto:'].includes(scheme)), []);
  }
  await byId('event-row').evaluateAll((rows) => rows.forEach((row) => (row.open = true)));
  await compare(id);
  await page.goto(`${server.url}/#/executions`);
  await page.locator(`a[href="#/executions/${id}"]`).first().waitFor();
  await page.goto(`${server.url}/#/chains`);
  await page.locator('[data-testid="chain-link"][data-chain="hostile"]').waitFor();
  assert.deepEqual(await visit.faults(), []);
});

test('passages are shown with their scores, and a citation opens its own', { timeout: PATIENCE }, async () => {
  const post = async (path, body) => {
    const answer = await fetch(server.url + path, { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer.json();
  };
  const name = '<img src=x onerror=alert(1)>.md';
  const { id } = await post('/api/v1/repositories', { name: 'birds', embeddingModel: 'offline/hash' });
  const { id: document } = await post(`/api/v1/repositories/${id}/documents`, { name, text: '# Pelicans\n\nPelicans eat fish. <script>alert(2)</script> ${topic}\n' });
  for (;;) {
    const { status: at } = await (await fetch(`${server.url}/api/v1/repositories/${id}/documents/${document}`)).json();
    if (at === 'ready') break;
    assert.equal(at, 'processing');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await post('/api/v1/chains', {
    name: 'cites',
    prompts: [{ name: 'Answer', position: 1, model: 'offline/echo', content: 'Echo: They eat fish [1]. ${knowledge}', knowledge: { repositories: [id], query: 'what do pelicans eat' } }],
  });
  const { executionId: execution } = await post('/api/v1/executions', { chain: 'cites' });
  await page.goto(`${server.url}/#/executions/${execution}`);
  await status('completed');
  const passages = byId('passages');
  await passages.locator('summary', { hasText: '1 passage' }).waitFor();
  await byId('prompt-text').locator('button.cite', { hasText: '[1]' }).first().click();
  await passages.locator('.passage-text', { hasText: 'Pelicans eat fish. <script>alert(2)</script> ${topic}' }).waitFor();
  assert.equal(await passages.locator('.passage-name').textContent(), name);
  const { prompts } = await (await fetch(`${server.url}/api/v1/executions/${execution}`)).json();
  assert.equal(prompts[0].citations.length, 1);
  assert.equal(prompts[0].citations[0].cited, true);
  assert.equal(prompts[0].citations[0].documentName, name);

  // The document goes; what was given is still told, without its text.
  assert.equal((await fetch(`${server.url}/api/v1/repositories/${id}/documents/${document}`, { method: 'DELETE' })).status, 204);
  await page.reload();
  await status('completed');
  await passages.locator('summary', { hasText: '1 passage' }).click();
  await passages.locator('.passage summary').click();
  await passages.locator('.passage-text', { hasText: 'The document was deleted' }).waitFor();
  const faults = (await visit.faults()).filter((fault) => !/404/.test(fault)); // the passage that is gone
  assert.deepEqual(faults, []);
});

test('long names break into lines on a narrow screen', { timeout: PATIENCE }, async () => {
  const long = 'W'.repeat(60);
  const name = 'n'.repeat(63);
  await server.call('POST', '/api/v1/chains', {
    name,
    description: long.repeat(3),
    inputs: { text: { type: 'short_text', label: long.repeat(3) } },
    prompts: [{ name: long, position: 1, model: 'offline/echo', content: `${long.repeat(3)} \${text}` }],
  });
  const id = await server.trigger(name, { text: long });
  await page.setViewportSize({ width: 375, height: 700 });
  for (const [path, mark] of [
    ['/#/chains', `[data-testid="chain-link"][data-chain="${name}"]`],
    [`/#/chains/${name}`, '[data-testid="run-form"]'],
    ['/#/executions', `a[href="#/executions/${id}"]`],
    [`/#/executions/${id}`, '[data-testid="prompt-row"]'],
  ]) {
    await page.goto(`${server.url}${path}`);
    await page.locator(mark).first().waitFor({ state: 'attached' }); // a narrow screen shows one pane at a time
    const surplus = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(surplus <= 0, `${path} is ${surplus} px wider than the screen`);
  }
  assert.deepEqual(await visit.faults(), []);
});
