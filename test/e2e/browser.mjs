// A browser and a page that remembers everything that should not happen.

import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

import { chromium } from 'playwright-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];
const PLACES = [
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
];
const ARGS = [
  '--no-sandbox', // the tests may run as root, and visit nothing but this machine
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Starts the Chromium of this machine. */
export async function launch() {
  return chromium.launch({ executablePath: await executable(), headless: true, args: ARGS });
}

async function executable() {
  const folders = (process.env.PATH ?? '').split(delimiter);
  const candidates = [process.env.CHROMIUM, ...NAMES.flatMap((name) => folders.map((folder) => join(folder, name))), ...PLACES];
  for (const path of candidates.filter(Boolean)) {
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // The next one.
    }
  }
  throw new Error('There is no Chromium on this machine: scripts/setup.sh --test installs it, or set CHROMIUM to its path');
}

/**
 * Opens a page at a server in a fresh context. faults() resolves to what went
 * wrong so far: dialogs, requests elsewhere, violations of the content security
 * policy, errors in the console, exceptions, and pages that were opened.
 */
export async function openPage(browser, server, options = {}) {
  const context = await browser.newContext(options);
  const faults = [];
  await context.exposeBinding('reportViolation', (source, text) => faults.push(`policy violated: ${text}`));
  await context.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      globalThis.reportViolation(`${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  const page = await context.newPage();
  context.on('page', (other) => faults.push(`opened ${other.url()}`));
  page.on('dialog', (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on('request', (request) => {
    if (!request.url().startsWith(`${server.url}/`)) faults.push(`request: ${request.url()}`);
  });
  page.on('console', (message) => {
    if (message.type() === 'error' || message.type() === 'warning') faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack ?? error}`));
  await page.goto(server.url);
  return {
    page,
    async faults() {
      // What the page did before this frame has been reported after it.
      await page.evaluate(() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))));
      return faults;
    },
    close: () => context.close(),
  };
}
