// The page of knowledge in a real browser: documents come in, are seen to become
// ready or to fail, are found and deleted, and say what they like without effect.

import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { launch, openPage } from './browser.mjs';
import { Server } from './server.mjs';

const PATIENCE = 120_000; // the embedding model is a neural net, and the machine may be busy
const MOST_UPLOAD = 200_000;
let server;
let browser;
let visit;
let page;

before(async () => {
  browser = await launch();
  server = await Server.start(['--max-upload', String(MOST_UPLOAD)], { CHAINSTREAM_MODELS_DIR: fileURLToPath(new URL('../../build/models', import.meta.url)) });
});
after(async () => {
  await browser?.close();
  const code = await server?.stop();
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
const file = (name, text, mimeType = '') => ({ name, mimeType, buffer: Buffer.from(text) });
const row = (name) => byId('document-row').filter({ has: page.locator('[data-testid="document-name"]').getByText(name, { exact: true }) });
const becomes = (name, state) => row(name).and(page.locator(`[data-state="${state}"]`)).waitFor();

/** What went wrong, without answers that the test asked for and the browser notes in its console. */
async function faults(...expected) {
  return (await visit.faults()).filter((fault) => !expected.some((status) => fault.includes(`the server responded with a status of ${status}`)));
}

/** The id in the address of a repository's page. */
async function repositoryId() {
  await page.waitForURL(/#\/knowledge\/\d+/);
  return Number(/knowledge\/(\d+)/.exec(page.url())[1]);
}

/** The documents as the page shows them, and as the API has them. */
async function compareDocuments(repository) {
  const { items } = await server.call('GET', `/api/v1/repositories/${repository}/documents`);
  const shown = await byId('document-row').evaluateAll((rows) =>
    rows.map((node) => ({
      id: Number(node.dataset.document),
      status: node.dataset.state,
      name: node.querySelector('[data-testid="document-name"]').textContent,
      error: node.querySelector('[data-testid="document-error"]').textContent,
    })),
  );
  const byNumber = (a, b) => a.id - b.id;
  assert.deepEqual(
    shown.sort(byNumber),
    items.map(({ id, status, name, error = '' }) => ({ id, status, name, error })).sort(byNumber),
  );
  return items;
}

/** The results as the page shows them. */
const hits = () =>
  byId('hits').evaluate((list) =>
    [...list.children].map((node) => ({
      chunkId: Number(node.dataset.chunk),
      document: node.querySelector('[data-testid="hit-document"]').textContent,
      text: node.querySelector('[data-testid="hit-text"]').textContent,
      score: node.querySelector('[data-testid="hit-score"]').getAttribute('aria-valuenow'),
      signals: [...node.querySelectorAll('[data-testid="signal"]')].map((signal) => signal.textContent),
    })),
  );

test('a repository is made, filled, searched and emptied, and hostile documents stay text', { timeout: PATIENCE }, async () => {
  const hostile = '<img src=x onerror=alert(1)>.md';
  const streams = [];
  page.on('request', (request) => request.url().endsWith('/events') && streams.push(request.url()));
  await page.goto(`${server.url}/#/knowledge`);
  await byId('create-first').click();
  const id = await repositoryId();
  await byId('no-documents').waitFor();
  assert.equal(await byId('embedding-model').textContent(), 'offline/use-lite');

  await byId('file-picker').setInputFiles([
    file(hostile, '# Pelicans\n\nPelicans eat fish. <script>alert(2)</script> <svg onload=alert(3)> ${topic}\n'),
    file('broken.pdf', 'this is no PDF', 'application/pdf'),
    file('tides.md', '# Tides\n\nThe tide comes in twice a day, because the moon pulls at the sea.\n'),
  ]);
  await becomes(hostile, 'ready');
  await becomes('tides.md', 'ready');
  await becomes('broken.pdf', 'failed');
  assert.match(await row('broken.pdf').locator('[data-testid="document-error"]').textContent(), /^The file is damaged/);
  assert.ok(streams.length > 0, 'no stream told the states of documents');
  const documents = await compareDocuments(id);
  assert.equal(documents.length, 3);

  // The query is reached by a key, and what it answers is what the API answers.
  await page.keyboard.press('/');
  await page.keyboard.type('what do pelicans eat?');
  await page.keyboard.press('Enter');
  await byId('hits').waitFor();
  const query = { repositories: [id], query: 'what do pelicans eat?' };
  const found = await server.call('POST', '/api/v1/repositories/search', query);
  const shown = await hits();
  assert.deepEqual(
    shown.map(({ signals, ...hit }) => hit),
    found.results.map(({ chunkId, documentName, text, score }) => ({ chunkId, document: documentName, text, score: score.toFixed(2) })),
  );
  assert.equal(shown[0].document, hostile);
  assert.match(shown[0].text, /<script>alert\(2\)<\/script> <svg onload=alert\(3\)> \$\{topic\}/);
  assert.match(shown[0].signals.join(' '), /^vectors #1 · 0\.\d\d words #1 · 0\.\d\d$/);
  assert.match(page.url(), /\?q=what\+do\+pelicans\+eat/);
  const injected = await page.evaluate(() => document.querySelectorAll('main img, main script, main svg[onload], main iframe').length);
  assert.equal(injected, 0);

  // A reload shows the same.
  await page.reload();
  await byId('hits').waitFor();
  assert.deepEqual(await hits(), shown);
  await becomes('broken.pdf', 'failed');
  await compareDocuments(id);

  // What is left out is told, with the reason, and one click brings it back.
  await page.fill('#search-threshold', '1');
  await byId('search-button').click();
  await byId('no-hits').waitFor();
  const group = page.locator('[data-testid="left-out-group"][data-reason="threshold"]');
  await group.locator('summary').click();
  await group.locator('[data-testid="hit-text"]', { hasText: '<script>alert(2)</script>' }).waitFor();
  assert.match(page.url(), /threshold=1/);
  await byId('search-without').click();
  await byId('hits').waitFor();
  assert.deepEqual(await hits(), shown);

  await row(hostile).locator('[data-testid="delete-document"]').click();
  await byId('confirm-yes').click();
  await row(hostile).waitFor({ state: 'detached' });
  assert.equal((await compareDocuments(id)).length, 2);
  await page.reload();
  await becomes('broken.pdf', 'failed');
  assert.equal((await compareDocuments(id)).length, 2);
  await byId('hits').waitFor();
  assert.deepEqual((await hits()).map(({ document }) => document), ['tides.md']);
  assert.deepEqual(await faults(), []);
});

test('the form says what is wrong, a model is changed with its label, and a repository is deleted', { timeout: PATIENCE }, async () => {
  await server.call('POST', '/api/v1/repositories', { name: 'taken' });
  await page.goto(`${server.url}/#/knowledge`);
  await byId('new-repository').click();
  const form = byId('repository-form');
  const name = form.getByLabel('Name');
  await byId('dialog-submit').click();
  await form.getByText('Name is missing', { exact: true }).waitFor();
  await name.fill('taken');
  await byId('dialog-submit').click();
  await form.getByText('A repository with this name exists. Choose another name.').waitFor();
  const models = form.getByLabel('Embedding model');
  const groups = await models.locator('optgroup').evaluateAll((nodes) => nodes.map(({ label, children }) => ({ label, models: [...children].map(({ text }) => text) })));
  assert.deepEqual(groups.map(({ label }) => label), ['Can be called', 'Cannot be called from here']);
  assert.ok(groups[0].models.includes('offline/hash · last resort: knows no meaning'), groups[0].models.join('; '));
  assert.ok(groups[1].models.includes('openai/text-embedding-3-small · not set up'), groups[1].models.join('; '));
  await name.fill('trial');
  await models.selectOption({ label: 'openai/text-embedding-3-small · not set up' });
  await byId('dialog-submit').click();
  await form.getByText('needs the environment variable OPENAI_API_KEY').waitFor();
  await models.selectOption({ index: 0 });
  await form.getByText('More').click();
  await form.getByLabel('Tokens of a passage').fill('64');
  await byId('dialog-submit').click();
  const id = await repositoryId();
  const made = await server.call('GET', `/api/v1/repositories/${id}`);
  assert.deepEqual([made.name, made.embeddingModel, made.chunkTokens], ['trial', 'offline/use-lite', 64]);

  await byId('add-text').click();
  await byId('text-form').getByLabel('Name').fill('notes.md');
  await byId('text-form').getByLabel('Text').fill('Herons stand still.');
  await byId('dialog-submit').click();
  await becomes('notes.md', 'ready');
  await byId('add-address').click();
  await byId('address-form').getByLabel('Address').fill('file:///etc/passwd');
  await byId('dialog-submit').click();
  await byId('address-form').locator('.problem:not(:empty)').waitFor();
  await page.keyboard.press('Escape');
  await byId('address-form').waitFor({ state: 'detached' });

  assert.equal(await byId('last-resort').count(), 0);
  await byId('edit-repository').click();
  await byId('repository-form').getByLabel('Embedding model').selectOption({ label: 'offline/hash · last resort: knows no meaning' });
  await byId('dialog-submit').click();
  await byId('last-resort').waitFor();
  assert.equal(await byId('embedding-model').textContent(), 'offline/hash');
  await page.goto(`${server.url}/#/knowledge`);
  await page.locator(`[data-testid="repository-link"][data-repository="${id}"]`, { hasText: 'last resort' }).click();
  await row('notes.md').waitFor();

  await byId('delete-repository').click();
  await page.keyboard.press('Escape');
  assert.equal((await server.call('GET', `/api/v1/repositories/${id}`)).name, 'trial');
  await byId('delete-repository').click();
  await byId('confirm-yes').click();
  await byId('repositories').getByText('taken').waitFor();
  const { items } = await server.call('GET', '/api/v1/repositories');
  assert.ok(!items.some((item) => item.id === id));
  assert.deepEqual(await faults(422, 409), []);
});

test('a change of the model is told while it goes on, and can be stopped', { timeout: PATIENCE }, async () => {
  const { id } = await server.call('POST', '/api/v1/repositories', { name: 'changing', description: 'Some notes', embeddingModel: 'offline/hash' });
  // A change as long as one likes: the server's answers, with one in them.
  let building = { embeddingModel: 'openai/text-embedding-3-small', dimensions: 1536, progress: 42 };
  const puts = [];
  await page.route(`**/api/v1/repositories/${id}`, async (route) => {
    const request = route.request();
    if (request.method() === 'PUT') {
      puts.push(request.postDataJSON());
      building = null;
    }
    const response = await route.fetch();
    await route.fulfill({ response, json: { ...(await response.json()), building } });
  });
  await page.goto(`${server.url}/#/knowledge/${id}`);
  await byId('repository-message').getByText('Changing to openai/text-embedding-3-small, 42 %. Searches use offline/hash until then.').waitFor();
  assert.equal(await byId('building-progress').getAttribute('aria-valuenow'), '42');
  building = { ...building, progress: 50 };
  await byId('repository-message').getByText('50 %').waitFor();
  building = { ...building, error: 'The key is not valid.' };
  await byId('repository-message').getByText('The change to openai/text-embedding-3-small failed: The key is not valid.').waitFor();
  await byId('stop-change').click();
  await byId('repository-message').getByText('Some notes').waitFor();
  assert.equal(await byId('stop-change').isVisible(), false);
  assert.equal(await byId('building-progress').getAttribute('aria-valuenow'), null);
  assert.deepEqual(puts, [{ name: 'changing', description: 'Some notes', embeddingModel: 'offline/hash' }]);
  assert.deepEqual(await faults(), []);
});

test('many files are dropped, four streams at most watch them, and a large one is refused', { timeout: PATIENCE }, async () => {
  const { id } = await server.call('POST', '/api/v1/repositories', { name: 'many', embeddingModel: 'offline/hash' });
  let open = 0;
  let most = 0;
  const isStream = (request) => request.url().endsWith('/events');
  page.on('request', (request) => {
    if (isStream(request)) most = Math.max(most, ++open);
  });
  const closed = (request) => isStream(request) && open--;
  page.on('requestfinished', closed);
  page.on('requestfailed', closed);
  await page.setViewportSize({ width: 375, height: 700 });
  await page.goto(`${server.url}/#/knowledge/${id}`);
  await byId('no-documents').waitFor();
  await page.evaluate(
    ({ large }) => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(['w '.repeat(large / 2)], 'large.txt'));
      for (let n = 1; n <= 24; n++) dataTransfer.items.add(new File([`Heron ${n} stands still. `.repeat(1500)], `${'heron-'.repeat(20)}${n}.txt`));
      const main = document.querySelector('main');
      for (const type of ['dragenter', 'dragover', 'drop']) main.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
    },
    { large: MOST_UPLOAD * 2 },
  );
  await becomes('large.txt', 'refused');
  assert.equal(await row('large.txt').locator('[data-testid="document-error"]').textContent(), `A body may have up to ${MOST_UPLOAD} bytes.`);
  await page.waitForFunction(() => document.querySelectorAll('[data-testid="document-row"][data-state="ready"]').length === 24);
  const { documents, pendingDocuments } = await server.call('GET', `/api/v1/repositories/${id}`);
  assert.deepEqual([documents, pendingDocuments], [24, 0]);
  assert.ok(most > 0 && most <= 4, `${most} streams were open at once`);

  for (const tab of ['documents', 'playground']) {
    await page.locator(`[data-tab="${tab}"].tab`).click();
    if (tab === 'playground') {
      await page.fill('#search-query', 'heron');
      await byId('search-button').click();
      await byId('hits').waitFor();
    }
    const surplus = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(surplus <= 0, `${tab} is ${surplus} px wider than the screen`);
  }
  await page.locator('[data-tab="documents"].tab').click();
  await row('large.txt').locator('[data-testid="delete-document"]').click();
  await row('large.txt').waitFor({ state: 'detached' });
  await compareDocuments(id);

  const { id: long } = await server.call('POST', '/api/v1/repositories', { name: 'W'.repeat(120), description: 'W'.repeat(200), embeddingModel: 'offline/hash' });
  for (const [path, mark] of [['/#/knowledge', 'repository-link'], [`/#/knowledge/${long}`, 'no-documents']]) {
    await page.goto(`${server.url}${path}`);
    await byId(mark).first().waitFor();
    const surplus = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(surplus <= 0, `${path} is ${surplus} px wider than the screen`);
  }
  assert.deepEqual(await faults(413), []);
});

test('a long list comes in pages, and what is added stands above it', { timeout: PATIENCE }, async () => {
  const { id } = await server.call('POST', '/api/v1/repositories', { name: 'long', embeddingModel: 'offline/hash' });
  for (let n = 1; n <= 101; n++) await server.call('POST', `/api/v1/repositories/${id}/documents`, { name: `${n}.txt`, text: `Note ${n}` });
  await page.goto(`${server.url}/#/knowledge/${id}`);
  await byId('more-documents').waitFor();
  assert.equal(await byId('document-row').count(), 100);
  await byId('file-picker').setInputFiles([file('new.txt', 'A new note')]);
  await becomes('new.txt', 'ready');
  assert.equal(await byId('document-name').first().textContent(), 'new.txt');
  await byId('more-documents').click();
  await row('101.txt').waitFor();
  await byId('more-documents').waitFor({ state: 'detached' });
  assert.equal(await byId('document-row').count(), 102);
  assert.equal(await byId('document-name').first().textContent(), 'new.txt');

  await byId('status-filter').selectOption('failed');
  await byId('documents').getByText('No document is failed').waitFor();
  await byId('status-filter').selectOption('ready');
  await row('1.txt').waitFor();

  // The next button of the list has the focus after one is pressed.
  await row('1.txt').locator('[data-testid="delete-document"]').click();
  await byId('confirm-yes').click();
  await row('1.txt').waitFor({ state: 'detached' });
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute('aria-label')), 'Delete 2.txt');
  assert.deepEqual(await faults(), []);
});
